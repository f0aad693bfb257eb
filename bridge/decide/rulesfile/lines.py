"""Where in a TOML text a key stands: tomllib gives no line numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from bridge.decide.rulesfile.bounds import statements

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
