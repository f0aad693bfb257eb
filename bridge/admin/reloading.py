"""The rules in a process that only serves requests: looked at again when somebody asks, now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from bridge.decide.rulebook import Rulebook


class Reloadable(Protocol):
    """Rules that can be read again; a wrong file changes nothing but `fault`."""

    book: Rulebook
    fault: str | None

    def reload(self) -> bool: ...


class Reloading:
    """Hands out the rules in force, having looked at the file at most `every_s` seconds ago.

    Not for a process with a worker: that one reloads by itself, and must be the one to see the change.
    """

    def __init__(
        self, rules: Reloadable, *, every_s: float = 5.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._every_s = every_s
        self._monotonic = monotonic
        self._next = monotonic() + every_s
        self._one_at_a_time = threading.Lock()

    def book(self) -> Rulebook:
        # Whoever comes while another reads the file takes the rules as they are.
        if self._monotonic() >= self._next and self._one_at_a_time.acquire(blocking=False):
            try:
                self._next = self._monotonic() + self._every_s
                self._rules.reload()
            finally:
                self._one_at_a_time.release()
        return self._rules.book

    def fault(self) -> str | None:
        return self._rules.fault
