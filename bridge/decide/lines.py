"""Where in a TOML text a key stands: tomllib gives no line numbers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

Path = Sequence[str | int]

# A statement ends with its line, unless an array, an inline table or a text of many lines is open.
_CLOSES = re.compile(r"""[\]}]|\"\"\"|'''""")


class Lines:
    """Knows the line of every table and key. `text` is right TOML.

    Each statement is parsed by itself, so the parser says what it defines and not a pattern of ours.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str | int, ...], int] = {}
        self._last: dict[tuple[str | int, ...], int] = {}  # of an array of tables: its last index
        table: tuple[str | int, ...] = ()
        for line, statement in _statements(text):
            if statement.lstrip().startswith("["):
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


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every statement with its first line."""
    open_since, open_lines = 0, list[str]()
    # Not splitlines(): TOML knows no other line ends, such as U+2028.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not open_lines:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            open_since = number
        elif not _CLOSES.search(line):
            open_lines.append(line)
            continue
        open_lines.append(line)
        statement = "\n".join(open_lines)
        if _is_whole(statement):
            yield open_since, statement
            open_lines = []


def _is_whole(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True
