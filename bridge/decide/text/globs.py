"""Globs, matched in one walk over the pattern: `*`, `**`, `?` and `{a,b}`; all else means itself.

All places of the value where a match may have come to are the bits of one number. Each sign of the pattern moves them
by an operation or two, so what a match costs depends on the pattern's length alone, whatever the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import NamedTuple

from bridge.decide.text.values import shown

MOST_PATTERNS = 100  # that the braces of one glob may stand for
LONGEST = 500  # characters of a pattern
LONGEST_VALUE = 2_000  # characters that are looked at; an object's key has at most 850 bytes
_MOST_BRACES = 20
_RANGE = re.compile(r"\{(-?\d+|[A-Za-z])\.\.(-?\d+|[A-Za-z])(\.\.-?\d+)?\}")
_BRACE = re.compile(r"[{,}]")
_WALKED = re.compile(r"[*?](?:.*[*?])?", re.DOTALL)  # what stands before and behind is compared at once

# What a pattern is made of, besides characters that mean themselves.
_ONE, _ONE_OF_NAME = "?", "?/"  # any character; any but a slash
_ALL, _REST_OF_NAME, _FOLDERS = "**", "*/", "**/"  # any text; any without a slash; any folders
_MOVES = frozenset((_ALL, _REST_OF_NAME, _FOLDERS))
_OPEN = _MOVES | {_ONE, _ONE_OF_NAME}
_IN_TEXTS = {"*": _ALL}
_IN_NAMES = {"*": _REST_OF_NAME, "?": _ONE_OF_NAME}


def is_glob(text: str) -> bool:
    return not frozenset("*?{").isdisjoint(text)


class Glob(NamedTuple):
    """The test for one value, and what it costs: patterns, and how many characters their wildcards span."""

    test: Callable[[str], bool]
    patterns: int
    wildcard_span: int


def glob(text: str, *, path: bool) -> Glob:
    """Return the test for a value, of which the first LONGEST_VALUE characters count.

    In a `path`, `*` and `?` stop at slashes and `**` is any folders. Raises ValueError saying what would be right.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{shown(text)} is too long: a pattern has at most {LONGEST:,} characters")
    if found := _RANGE.search(text):
        raise ValueError(f"{shown(text)}: {found[0]} would be a range, which is not supported; write {{1,2,3}}")
    if text.count("{") > _MOST_BRACES:
        raise ValueError(_too_many(text))
    patterns = list(dict.fromkeys(_expanded(text, text)))
    if path and any(_glued(pattern) for pattern in patterns):
        raise ValueError(f'{shown(text)}: ** must stand alone between slashes, as in "uploads/**/*.mp4"')
    tests = [_Pattern(pattern, path=path) for pattern in patterns]
    test = tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)
    return Glob(test, len(patterns), sum(len(walked[0]) for pattern in patterns if (walked := _WALKED.search(pattern))))


def _too_many(text: str) -> str:
    return f"{shown(text)} expands to more than {MOST_PATTERNS} patterns; write fewer braces"


def _expanded(text: str, whole: str) -> list[str]:
    """Return what the braces of `text` stand for. Raises ValueError when `whole` has too many of them."""
    made = [""]
    while group := _first_group(text):
        before, options, text = group
        endings = [ending for option in options for ending in _expanded(option, whole)]
        if len(made) * len(endings) > MOST_PATTERNS:
            raise ValueError(_too_many(whole))
        made = [f"{beginning}{before}{ending}" for beginning in made for ending in endings]
    return [beginning + text for beginning in made]


def _first_group(text: str) -> tuple[str, list[str], str] | None:
    """Return what stands before the first {a,b}, its options, and the rest. A brace without its like means itself."""
    for opens in (found.start() for found in re.finditer(r"\{", text)):
        depth, cuts = 0, [opens]
        for found in _BRACE.finditer(text, opens + 1):
            sign, at = found[0], found.start()
            if sign == "{":
                depth += 1
            elif sign == "," and not depth:
                cuts.append(at)
            elif sign == "}" and depth:
                depth -= 1
            elif sign == "}" and len(cuts) > 1:
                options = [text[a + 1 : b] for a, b in zip(cuts, [*cuts[1:], at], strict=True)]
                return text[:opens], options, text[at + 1 :]
    return None


def _glued(pattern: str) -> bool:
    # Such a ** would silently mean *.
    return any("**" in folder and folder != "**" for folder in pattern.split("/"))


class _Value(dict[str, int]):
    """A value as a pattern sees it: sign -> the places where it stands, as bits."""

    def __init__(self, text: str) -> None:
        self.text = text[:LONGEST_VALUE]
        self[_ONE] = (1 << len(self.text)) - 1
        self[_ONE_OF_NAME] = self[_ONE] & ~self["/"]

    def __missing__(self, sign: str) -> int:
        places, at = 0, self.text.find(sign)
        while at >= 0:
            places |= 1 << at
            at = self.text.find(sign, at + 1)
        self[sign] = places
        return places


_value = lru_cache(maxsize=64)(_Value)  # the rules ask the same few values again and again


class _Pattern:
    """The test of one pattern without braces."""

    def __init__(self, pattern: str, *, path: bool) -> None:
        self._pattern, self._path = pattern, path

    @cached_property
    def _parts(self) -> tuple[str, list[str], str]:
        """Return the text it begins with, what follows, and the text it ends with."""
        if self._path:
            parts = list(_path_parts(self._pattern.split("/")))
        else:
            parts = [_IN_TEXTS.get(sign, sign) for sign in self._pattern]
        begins = _fixed(parts)
        parts = parts[len(begins) :]
        ends = _fixed(reversed(parts))[::-1]
        return begins, parts[: len(parts) - len(ends)], ends

    def __call__(self, text: str) -> bool:
        value = _value(text)
        begins, parts, ends = self._parts
        if not (value.text.startswith(begins) and value.text.endswith(ends)):
            return False
        places = 1 << len(begins)
        for part in parts:
            places = _moved(part, places, value) if part in _MOVES else (places & value[part]) << 1
            if not places:
                return False
        return bool(places >> (len(value.text) - len(ends)) & 1)


def _moved(part: str, places: int, value: _Value) -> int:
    if part == _REST_OF_NAME:
        # The carry of an addition runs through what is no slash, up to the next one.
        name = value[_ONE_OF_NAME]
        return ((places & name) + name ^ name) | places
    behind = -(places & -places)  # the first place and all behind it
    return behind & (value[_ONE] << 1 | 1) if part == _ALL else places | (value["/"] & behind) << 1


def _fixed(parts: Iterable[str]) -> str:
    return "".join(takewhile(lambda part: part not in _OPEN, parts))


def _path_parts(folders: list[str]) -> Iterator[str]:
    last = len(folders) - 1
    for at, folder in enumerate(folders):
        if folder == "**":
            yield _ALL if at == last else _FOLDERS
            continue
        # A folder's name that is only a star is not empty: uploads/* is not uploads/ itself.
        for sign in "?*" if folder == "*" else folder:
            yield _IN_NAMES.get(sign, sign)
        if at < last:
            yield "/"
