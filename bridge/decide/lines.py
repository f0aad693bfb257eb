"""Where in a TOML text a key stands: tomllib gives no line numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

Path = Sequence[str | int]


class Lines:
    """Finds the line on which a path first exists, by parsing growing prefixes of the text.

    Exact for arrays of tables, inline tables and texts over many lines, since the parser itself is asked.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines(keepends=True)
        self._parsed: dict[int, Any] = {0: {}}

    def of(self, path: Path) -> int:
        """Return the line (from 1) of the longest part of `path` that the text has."""
        for length in range(len(path), 0, -1):
            line = self._first_line_with(path[:length])
            if line is not None:
                return line
        return 1

    def _first_line_with(self, path: Path) -> int | None:
        if not self._has(len(self._lines), path):
            return None
        low, high = 0, len(self._lines)  # absent at low, present at high
        while high - low > 1:
            middle = (low + high) // 2
            # A prefix that ends inside a value does not parse; the next one that does decides.
            tried = next((at for at in range(middle, high) if self._prefix(at) is not None), None)
            if tried is None or self._has(tried, path):
                high = middle
            else:
                low = tried
        return high

    def _has(self, count: int, path: Path) -> bool:
        found = self._prefix(count)
        for key in path:
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return False
        return True

    def _prefix(self, count: int) -> Any:
        if count not in self._parsed:
            try:
                self._parsed[count] = tomllib.loads("".join(self._lines[:count]))
            except tomllib.TOMLDecodeError:
                self._parsed[count] = None
        return self._parsed[count]
