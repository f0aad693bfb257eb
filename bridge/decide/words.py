"""The small words of rules.toml: rates, sets of states, suggestions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches

from bridge.decide.text.durations import LONGEST_DURATION, duration
from bridge.model import DONE, GONE, NEW, STATES, Rate

MOST_LISTED = 1_000  # values of one list in rules.toml
_MOST_KNOWN = 100  # words that are compared for a suggestion, and listed instead of one
_LONGEST_WORD = 100  # characters
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
