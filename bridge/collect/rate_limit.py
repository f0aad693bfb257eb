"""How often we ask: CI publishes no limit that we found, so ours is low, and the operator's to choose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.model import Rate

_SLOWER, _FASTER = 2.0, 0.8  # what an interval is multiplied by when CI refuses, and when it took a series of calls
_SERIES = 20  # calls; so of those to a CI that takes fewer than we ask, about one in sixty is refused
_LONGEST_S = 5.0  # between two calls


@dataclass(slots=True)
class _Bucket:
    turns: deque[float] = field(default_factory=deque)
    slowness: float = 1.0  # how many times longer an interval is than the rate has it
    slowed_at: float = float("-inf")
    taken: int = 0  # since its slowness changed


class Pace:
    """Makes callers wait so that each bucket is asked at most `rate.count` times in any `rate.per`.

    A bucket where CI refuses calls as too many is asked less often, one call at a time, and step by step more often.
    """

    def __init__(self, rate: Rate, *, monotonic: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self.rate, self._monotonic, self._sleep = rate, monotonic, sleep
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def wait(self, bucket: str) -> float:
        """Return when it is the caller's turn: the time of it, for `refused`."""
        now = self._monotonic()
        if (turn := self._reserve(bucket, now)) > now:
            self._sleep(turn - now)
        return turn

    def accepted(self, bucket: str) -> None:
        """Go faster again, a step after each series of calls that were taken."""
        with self._lock:
            one = self._bucket(bucket)
            one.taken += 1
            if one.taken >= _SERIES:
                one.taken, one.slowness = 0, max(1.0, one.slowness * _FASTER)

    def refused(self, bucket: str, turn: float) -> None:
        """Go slower; calls that had left before the last time that we slowed down say nothing new."""
        with self._lock:
            one = self._bucket(bucket)
            if turn > one.slowed_at:
                slowest = max(1.0, _LONGEST_S / self._interval_s)
                one.taken, one.slowness = 0, min(one.slowness * _SLOWER, slowest)
                one.slowed_at = self._monotonic()

    @property
    def _interval_s(self) -> float:
        return self.rate.interval.total_seconds()

    def _bucket(self, name: str) -> _Bucket:
        return self._buckets.setdefault(name, _Bucket())

    def _reserve(self, bucket: str, now: float) -> float:
        with self._lock:
            one, rate = self._bucket(bucket), self.rate
            if one.turns.maxlen != rate.count:
                one.turns = deque(one.turns, maxlen=rate.count)
            turns, turn = one.turns, now
            if len(turns) == rate.count:
                turn = max(turn, turns[0] + rate.per.total_seconds())
            if turns and one.slowness > 1:
                turn = max(turn, turns[-1] + self._interval_s * one.slowness)
            turns.append(turn)
            return turn
