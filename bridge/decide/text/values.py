"""The values of rules.toml: rates, names, sets of states; and what is said of one that is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, TypeVar

from bridge.decide.text.times import LONGEST_DURATION, duration
from bridge.model import DONE, GONE, NEW, STATES, Rate

T = TypeVar("T")
D = TypeVar("D")

LONGEST_NAME = 200  # characters of a tag, a queue, a state: the keys of indexes are made of them
MOST_LISTED = 1_000  # values of one list in rules.toml
_MOST_KNOWN = 100  # words that are compared for a suggestion, and listed instead of one
_LONGEST_WORD = 100  # characters
_MOST_UNKNOWN = 20  # keys
_MOST_AT_ONCE = 1_000_000  # of a rate

_RATE = re.compile(r"(\d+)/(\d*[smhd])")


def rate(text: str) -> Rate:
    """Read "10/s" or "10/5m". Raises ValueError saying what would be right."""
    found = _RATE.fullmatch(text) if len(text) <= LONGEST_DURATION else None
    if not found or int(found[1]) == 0:
        raise ValueError(f'"{text[:80]}" is not a rate; write for example "10/s" or "100/5m"')
    count, per = int(found[1]), duration(found[2] if found[2][0].isdigit() else f"1{found[2]}")
    if count > _MOST_AT_ONCE or per > timedelta(days=1):
        raise ValueError(f'"{text}" is out of range; a rate is at most {_MOST_AT_ONCE:,}, in at most a day')
    return Rate(count=count, per=per)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ' (did you mean "x"?)', or nothing when no known word is near."""
    words = tuple(known)
    if len(word) > _LONGEST_WORD or len(words) > _MOST_KNOWN:
        return ""  # each comparison takes its time, and a file may ask for thousands
    by_case = {k.lower(): k for k in words}
    near = get_close_matches(word.lower(), by_case, n=1, cutoff=0.6)
    return f' (did you mean "{by_case[near[0]]}"?)' if near else ""


def instead(word: str, known: Iterable[str]) -> str:
    """Return what to write instead of a word that nobody knows: the near one, else all there are."""
    words = tuple(known)
    more = f" and {len(words) - _MOST_KNOWN:,} more" if len(words) > _MOST_KNOWN else ""
    return suggest(word, words) or f"; there are {listing(words[:_MOST_KNOWN])}{more}"


def shown(value: object) -> str:
    """Return a value of rules.toml nearly as it was written, cut to a sight's length."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # TOML's 0xfff... may be longer than Python says in decimals
        return "a number of thousands of digits"
    if not text.isprintable():
        text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"


def listing(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


STATE_WORDS = (*STATES, NEW, GONE, "done", "active", "*")


@dataclass(frozen=True, slots=True)
class States:
    """A set of states as a rule names it. `active` is every state of a job that is not final."""

    words: frozenset[str]

    def __contains__(self, state: str) -> bool:
        return state in self.words or "*" in self.words or (self._active and self._is_active(state))

    @property
    def exact(self) -> frozenset[str] | None:
        """The states named one by one, or None when the set is open (`active`, `*`)."""
        return None if self._active or "*" in self.words else self.words

    @property
    def _active(self) -> bool:
        return "active" in self.words

    @staticmethod
    def _is_active(state: str) -> bool:
        return state not in DONE and state not in (NEW, GONE)

    def __str__(self) -> str:
        return listing(sorted(self.words))


def states(words: Iterable[str]) -> States:
    named = frozenset(words)
    return States((named - {"done"}) | DONE if "done" in named else named)


LONGEST_TEXT = 2_000  # characters of one value


CUT_MARK = "…[cut]"


def cut(text: str, limit: int = LONGEST_TEXT) -> str:
    return text if len(text) <= limit else text[: max(0, limit - len(CUT_MARK))] + CUT_MARK


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One thing wrong with what somebody asks for: with one of its keys, or (None) with all of it."""

    key: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


class FieldFaults(ValueError):
    """What was asked for is wrong; `faults` has every reason."""

    def __init__(self, *faults: FieldFault) -> None:
        self.faults = faults
        super().__init__("\n".join(map(str, faults)))


class FieldReader:
    """Reads the values of a table key by key, and collects what is wrong with them."""

    def __init__(self, table: Mapping[str, Any], keys: Iterable[str]) -> None:
        self._table = table
        unknown = [key for key in table if key not in keys][:_MOST_UNKNOWN]
        self.faults = [FieldFault(None, f'unknown key "{key[:100]}"{instead(key, keys)}') for key in unknown]

    def note(self, key: str | None, text: str) -> None:
        self.faults.append(FieldFault(key, text))

    def read(self, key: str, reader: Callable[[Any], T], default: D) -> T | D:
        """Return the value of `key`; the default where it is missing or wrong."""
        try:
            return reader(self._table[key]) if key in self._table else default
        except ValueError as error:
            self.note(key, str(error))
            return default

    def check(self) -> None:
        """Raise FieldFaults when anything was wrong."""
        if self.faults:
            raise FieldFaults(*self.faults)


def read_words(value: object, *, longest: int = LONGEST_NAME) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{shown(value)} is neither a text nor a list of texts, none of them empty")
    if len(values) > MOST_LISTED:
        raise ValueError(f"a list of {len(values):,} is too long: {MOST_LISTED:,} are the most")
    if long := [value for value in values if len(value) > longest]:
        raise ValueError(f"{shown(long[0])} is too long: {longest} characters are the most")
    return [printable(value) for value in values]


def printable(value: str) -> str:
    """Return the name. Raises ValueError for what no database or terminal takes, such as NUL or a line break."""
    if value.isprintable():
        return value
    wrong = ascii(next(sign for sign in value if not sign.isprintable())).strip("'")
    raise ValueError(f"{shown(value)} holds a sign that cannot be seen ({wrong}); write it without")


def read_states(value: object) -> States:
    words = read_words(value)
    # A state that CI adds one day is accepted; what looks like a slip of the pen is not.
    near = {word: suggest(word, STATE_WORDS) for word in words if word not in STATE_WORDS}
    if any(near.values()):
        raise ValueError("; ".join(f'no job state is called "{word}"{said}' for word, said in near.items() if said))
    return states(words)


def read_ends(value: object) -> States:
    found = read_states(value)
    if NEW in found.words:
        raise ValueError(f'no job becomes "{NEW}": write from = "{NEW}" for a job seen for the first time')
    return found
