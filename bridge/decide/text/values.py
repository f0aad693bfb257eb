"""The values of rules.toml: names, sets of states, what is wrong with one; and ids and texts made of plain facts."""

from __future__ import annotations

import hashlib
import json
from base64 import b32encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from bridge import shallow_json
from bridge.model import DONE, GONE, NEW, STATES

T = TypeVar("T")
D = TypeVar("D")

LONGEST_NAME = 200  # characters of a tag, a queue, a state: the keys of indexes are made of them
MOST_LISTED = 1_000  # values of one list in rules.toml
_MOST_KNOWN = 100  # words that are compared for a suggestion, and listed instead of one
_LONGEST_WORD = 100  # characters
_MOST_UNKNOWN = 20  # keys


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


def strings(value: object) -> list[str]:
    """Return a text, or the texts of a list; what is neither is wrong, and left out."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def listing(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


STATE_WORDS = (*STATES, NEW, GONE, "done", "active", "*")


@dataclass(frozen=True, slots=True)
class States:
    """A set of states as a rule names it. `active` is every state of a job that is not final."""

    words: frozenset[str]

    def __contains__(self, state: str) -> bool:
        is_active = state not in DONE and state not in (NEW, GONE)
        return state in self.words or "*" in self.words or ("active" in self.words and is_active)

    @property
    def exact(self) -> frozenset[str] | None:
        """The states named one by one, or None when the set is open (`active`, `*`)."""
        return None if "active" in self.words or "*" in self.words else self.words

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

    def __init__(self, table: Mapping[str, Any], keys: Iterable[str], *, unknown: str = "unknown key") -> None:
        self._table = table
        others = [key for key in table if key not in keys][:_MOST_UNKNOWN]
        self.faults = [FieldFault(None, f'{unknown} "{key[:100]}"{instead(key, keys)}') for key in others]

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
        raise ValueError(f"{shown(value)} is neither a string nor a list of non-empty strings")
    if len(values) > MOST_LISTED:
        raise ValueError(f"a list of {len(values):,} is too long; the limit is {MOST_LISTED:,}")
    if long := [value for value in values if len(value) > longest]:
        raise ValueError(f"{shown(long[0])} is too long; the limit is {longest} characters")
    return [printable(value) for value in values]


def printable(value: str) -> str:
    """Return the name. Raises ValueError for what no database or terminal takes, such as NUL or a line break."""
    if value.isprintable():
        return value
    wrong = ascii(next(sign for sign in value if not sign.isprintable())).strip("'")
    raise ValueError(f"{shown(value)} contains an invisible character ({wrong}); remove it")


def read_states(value: object) -> States:
    words = read_words(value)
    # A state that CI adds one day is accepted; what looks like a slip of the pen is not.
    near = [(word, text) for word in words if word not in STATE_WORDS and (text := suggest(word, STATE_WORDS))]
    if near:
        raise ValueError("; ".join(f'there is no job state "{word}"{text}' for word, text in near))
    return states(words)


def read_ends(value: object) -> States:
    found = read_states(value)
    if NEW in found.words:
        raise ValueError(f'no job becomes "{NEW}": write from = "{NEW}" for a job seen for the first time')
    return found


# --- what follows from plain facts: ids, an object's name, a job's user data ------------------------------------------


def ident(kind: str, *parts: str) -> str:
    """Return an id made from what it names: the same thing seen again has the same id."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return f"{kind}_{b32encode(digest).decode().rstrip('=').lower()}"


def basename(path: str) -> str:
    """Return what follows the last slash; of a URL without its query, which may be a signature."""
    if path.startswith(("http://", "https://")):
        path = path.partition("?")[0]
    return path.rstrip("/").rpartition("/")[2]


_LONGEST_USER_DATA = 20_000  # characters that are looked through for keys; CI takes a thousand from an uploader


def user_data_keys(text: str | None) -> dict[str, str]:
    """Return the keys of a job's user data when it is a JSON object or `k=v;k=v`, else nothing."""
    if not text or len(text) > _LONGEST_USER_DATA:
        return {}
    if text.lstrip().startswith("{"):
        try:
            found = shallow_json.loads(text).items()
        except ValueError:  # an uploader's text: it may nest without end
            return {}
        return {_clean(key): _plain(value) for key, value in found if value is not None}
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    return {key.strip(): value.strip() for key, _, value in pairs} if all(sep for _, sep, _ in pairs) else {}


def _plain(value: object) -> str:
    return _clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _clean(text: str) -> str:
    # JSON can spell half of a surrogate pair, which no database takes.
    return text.encode(errors="replace").decode()
