"""How often we ask: CI publishes no limit that we found, so ours is low and the operator's to choose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from bridge.model import Rate


class Pace:
    """Makes callers wait so that each bucket is asked at most `rate.count` times in any `rate.per`."""

    def __init__(self, rate: Rate, *, monotonic: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self._rate, self._monotonic, self._sleep = rate, monotonic, sleep
        self._turns: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def wait(self, bucket: str) -> None:
        """Return when it is the caller's turn."""
        now = self._monotonic()
        if (turn := self._reserve(bucket, now)) > now:
            self._sleep(turn - now)

    def _reserve(self, bucket: str, now: float) -> float:
        with self._lock:
            turns = self._turns.setdefault(bucket, deque(maxlen=self._rate.count))
            full = len(turns) == self._rate.count
            turn = max(now, turns[0] + self._rate.per.total_seconds()) if full else now
            turns.append(turn)
            return turn
