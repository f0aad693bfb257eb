"""The refusal of a rules.toml, the bounds of a file that is parsed at all, and the lines of its tables and keys."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from bridge.decide.rules.rulebook import Fault

# --- bounds, asked before parsing: the parser takes memory and time without end for a key of 100,000 parts ----------

LARGEST = 1_000_000  # bytes
_DEEPEST = 20  # arrays and inline tables inside of one another; parts of a key

# Strings that do not end match too: looking for their ends again and again would take forever.
_TOKEN = re.compile(
    r"""
      \"{3} (?: [^"\\]++ | \\. | "(?!"") )*+ (?: "{3,5} )?
    | '{3} (?: [^']++ | '(?!'') )*+ (?: '{3,5} )?
    | " (?: [^"\\\n]++ | \\[^\n] )*+ "?
    | ' [^'\n]*+ '?
    | \# [^\n]*+
    | [\[\]{}.,=\n]
    """,
    re.DOTALL | re.VERBOSE,
)


class TooLarge(Exception):
    """No rules file is like this; the text says why, `line` where."""

    def __init__(self, line: int, text: str) -> None:
        self.line = line
        super().__init__(text)


def check_size(size: int) -> None:
    if size > LARGEST:
        raise TooLarge(1, f"is too large: it has {size:,} bytes; the limit is {LARGEST:,}")


def check_depth(text: str) -> None:
    """Raise TooLarge where brackets or keys nest too deeply; `text` need not be right TOML."""
    line, depth, parts = 1, 0, 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        parts = parts + 1 if sign == "." else 0 if sign in "[]{},=\n" else parts
        depth = max(0, depth + (sign in "[{") - (sign in "]}"))
        if depth > _DEEPEST:
            raise TooLarge(line, f"brackets nest too deeply; the limit is {_DEEPEST} levels")
        if parts >= _DEEPEST:
            raise TooLarge(line, f"a key has too many parts; the limit is {_DEEPEST}")
        line += sign.count("\n")


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every statement of a right TOML text with its first line."""
    # Not splitlines(): TOML knows no other line ends, such as U+2028.
    text = text.replace("\r\n", "\n") + "\n"
    line, first, begins, depth = 1, 1, 0, 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        depth += (sign in "[{") - (sign in "]}")
        line += sign.count("\n")
        if sign == "\n" and not depth:
            statement = text[begins : token.end()].strip()
            if statement and not statement.startswith("#"):
                yield first, statement
            first, begins = line, token.end()


# --- where a key stands: tomllib gives no line numbers --------------------------------------------------------------

Path = Sequence[str | int]


class Lines:
    """Knows the line of every table and key. `text` is right TOML.

    Each statement is parsed by itself, so the parser says what it defines and not a pattern of ours.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str | int, ...], int] = {}
        self._last: dict[tuple[str | int, ...], int] = {}  # of an array of tables: its last index
        table: tuple[str | int, ...] = ()
        for line, statement in statements(text):
            if statement.startswith("["):
                table = self._header(tomllib.loads(statement), line)
            else:
                self._add(table, tomllib.loads(statement), line)

    def of(self, path: Path) -> int:
        """Return the line (from 1) of the longest part of `path` that the text has."""
        whole = tuple(path)
        return next((self._lines[part] for n in range(len(whole), 0, -1) if (part := whole[:n]) in self._lines), 1)

    def _header(self, found: dict[str, Any], line: int) -> tuple[str | int, ...]:
        """Note what [a.b] or [[a.b]] opens, and return it: inside of `a` it is about the last one."""
        at: tuple[str | int, ...] = ()
        inner: Any = found
        while inner:
            (key,) = inner
            at, inner = (*at, key), inner[key]
            self._lines.setdefault(at, line)
            if isinstance(inner, list):
                self._last[at] = self._last.get(at, -1) + 1
                inner = inner[0]
            if at in self._last:
                at = (*at, self._last[at])
                self._lines.setdefault(at, line)
        return at

    def _add(self, at: tuple[str | int, ...], found: Any, line: int) -> None:
        if at:
            self._lines.setdefault(at, line)
        inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        for key, value in inner:
            self._add((*at, key), value, line)


class RulesRefused(Exception):
    """The file is wrong; `faults` has every reason, warnings too."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))
