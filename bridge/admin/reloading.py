"""The rules in a process that only serves requests: looked at again when somebody asks, now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bridge.decide.rules.rulebook import Rulebook


class Reloading:
    """Hands out the rules, having looked at the file at most `every_s` seconds ago.

    Not for a process with a worker: that one reloads by itself, and must be the one to see the change.
    """

    def __init__(
        self,
        book: Callable[[], Rulebook],
        look: Callable[[float], object],
        *,
        every_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look` is called with the time; a wrong file changes nothing."""
        self._book = book
        self._look = look
        self._every_s = every_s
        self._monotonic = monotonic
        self._next = monotonic() + every_s
        self._one_at_a_time = threading.Lock()

    def book(self) -> Rulebook:
        # Whoever comes while another reads the file takes the rules as they are.
        if self._monotonic() >= self._next and self._one_at_a_time.acquire(blocking=False):
            try:
                now_s = self._monotonic()
                self._next = now_s + self._every_s
                self._look(now_s)
            finally:
                self._one_at_a_time.release()
        return self._book()
