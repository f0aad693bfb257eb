"""How often we ask: CI publishes no limit that we found, so ours is low and the operator's to choose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from bridge.model import Rate


class Pace:
    """Makes callers wait so that each bucket is asked at most `rate.count` times in any `rate.per`."""

    def __init__(self, rate: Rate, *, monotonic: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self.rate, self._monotonic, self._sleep = rate, monotonic, sleep
        self._turns: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def wait(self, bucket: str) -> None:
        """Return when it is the caller's turn."""
        now = self._monotonic()
        if (turn := self._reserve(bucket, now)) > now:
            self._sleep(turn - now)

    def _reserve(self, bucket: str, now: float) -> float:
        with self._lock:
            rate = self.rate
            turns = self._turns.get(bucket, ())
            if not isinstance(turns, deque) or turns.maxlen != rate.count:
                turns = self._turns[bucket] = deque(turns, maxlen=rate.count)
            full = len(turns) == rate.count
            turn = max(now, turns[0] + rate.per.total_seconds()) if full else now
            turns.append(turn)
            return turn
