"""Limits requests to CI. CI documents no limit that we found, so the default is low, and the operator can choose."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.model import Rate

_SLOWER, _FASTER = 2.0, 0.8  # factors of the interval after a refusal, and after a series of accepted calls
_SERIES = 20  # calls; so if CI accepts fewer than we send, it refuses about one in sixty
_LONGEST_S = 5.0  # between two calls


@dataclass(slots=True)
class _Bucket:
    starts: deque[float] = field(default_factory=deque)  # of the last calls
    slowdown: float = 1.0  # how many times longer an interval is than the rate has it
    slowed_at: float = float("-inf")
    accepted: int = 0  # calls since `slowdown` changed


class RateLimit:
    """Makes callers wait so that each bucket is asked at most `rate.count` times in any `rate.per`.

    Where CI refuses calls as too many, a bucket is asked less often, one call at a time, then step by step more often.
    """

    def __init__(self, rate: Rate, *, monotonic: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self.rate, self._monotonic, self._sleep = rate, monotonic, sleep
        self._buckets: defaultdict[str, _Bucket] = defaultdict(_Bucket)
        self._lock = threading.Lock()

    def wait(self, bucket: str) -> float:
        """Wait until the caller may ask; return the time of that, for `refused`."""
        now = self._monotonic()
        if (start := self._reserve(bucket, now)) > now:
            self._sleep(start - now)
        return start

    def accepted(self, bucket: str) -> None:
        """Go faster again, a step after each series of calls that were accepted."""
        with self._lock:
            state = self._buckets[bucket]
            state.accepted += 1
            if state.accepted >= _SERIES:
                state.accepted, state.slowdown = 0, max(1.0, state.slowdown * _FASTER)

    def is_slowed(self, bucket: str) -> bool:
        """Tell whether calls are fewer than the rate allows, because CI refused some."""
        with self._lock:
            return self._buckets[bucket].slowdown > 1

    def refused(self, bucket: str, start: float) -> None:
        """Go slower; calls that had started before the last time that we slowed down say nothing new."""
        with self._lock:
            state = self._buckets[bucket]
            if start > state.slowed_at:
                slowest = max(1.0, _LONGEST_S / self._interval_s)
                state.accepted, state.slowdown = 0, min(state.slowdown * _SLOWER, slowest)
                state.slowed_at = self._monotonic()

    @property
    def _interval_s(self) -> float:
        return self.rate.interval.total_seconds()

    def _reserve(self, bucket: str, now: float) -> float:
        with self._lock:
            state, rate = self._buckets[bucket], self.rate
            if state.starts.maxlen != rate.count:
                state.starts = deque(state.starts, maxlen=rate.count)
            starts, start = state.starts, now
            if len(starts) == rate.count:
                start = max(start, starts[0] + rate.per.total_seconds())
            if starts and state.slowdown > 1:
                start = max(start, starts[-1] + self._interval_s * state.slowdown)
            starts.append(start)
            return start
