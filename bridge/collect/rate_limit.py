"""Limits requests to CI. CI documents no limit that we found, so the default is low, and the operator can choose."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bridge.model import Calls, Pace, Rate, WatchRate

_SLOWER, _FASTER = 2.0, 0.8  # factors of the interval after a refusal, and after a series of accepted calls
_SERIES = 20  # calls; so if CI accepts fewer than we send, it refuses about one in sixty
_LONGEST_S = 5.0  # between two calls
_MOST_TIMES = 100  # in a Pace: of more calls, some share the time of the latest of them


@dataclass(slots=True)
class _Bucket:
    starts: deque[float] = field(default_factory=deque)  # of the last calls
    slowdown: float = 1.0  # how many times longer an interval is than the rate has it
    slowed_at: float = float("-inf")
    accepted: int = 0  # calls since `slowdown` changed
    waited_s: float = 0.0  # in all
    of_watches: dict[str, deque[float]] = field(default_factory=dict)  # that have a rate of their own


class RateLimit:
    """Makes callers wait so that each bucket is asked at most `rate.count` times in any `rate.per`.

    Where CI refuses calls as too many, a bucket is asked less often, one call at a time, then step by step more often.
    """

    def __init__(self, rate: Rate, *, monotonic: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self.rate, self._monotonic, self._sleep = rate, monotonic, sleep
        self._buckets: defaultdict[str, _Bucket] = defaultdict(_Bucket)
        self._lock = threading.Lock()

    def wait(self, bucket: str, own: WatchRate | None = None) -> float:
        """Wait until the caller may ask, by the rate of its watch too; return the time of that, for `refused`."""
        if own:
            self._wait(bucket, lambda state, now: _reserve(_of_watch(state, own), own.rate, now))
        return self._wait(bucket, self._reserve)

    def _wait(self, bucket: str, reserve: Callable[[_Bucket, float], float]) -> float:
        with self._lock:
            state, now = self._buckets[bucket], self._monotonic()
            start = reserve(state, now)
            state.waited_s += start - now
        if start > now:
            self._sleep(start - now)
        return start

    def waited_s(self, bucket: str) -> float:
        """Return for how many seconds calls for a bucket have waited in all."""
        with self._lock:
            return self._buckets[bucket].waited_s

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
                state.accepted, state.slowdown = 0, min(state.slowdown * _SLOWER, self._slowest)
                state.slowed_at = self._monotonic()

    @property
    def _interval_s(self) -> float:
        return self.rate.interval.total_seconds()

    @property
    def _slowest(self) -> float:
        return max(1.0, _LONGEST_S / self._interval_s)

    def _reserve(self, state: _Bucket, now: float) -> float:
        if state.starts.maxlen != self.rate.count:
            state.starts = deque(state.starts, maxlen=self.rate.count)
        earliest = now
        if state.starts and state.slowdown > 1:
            earliest = max(now, state.starts[-1] + self._interval_s * state.slowdown)
        return _reserve(state.starts, self.rate, earliest)

    # --- what other processes need to know -----------------------------------------------------------------

    def pace(self, bucket: str, *, now: datetime) -> Pace:
        """Return how often a bucket was asked of late."""
        with self._lock:
            state, now_s = self._buckets[bucket], self._monotonic()

            def calls(starts: Iterable[float], oldest: timedelta) -> Calls:
                ages = (timedelta(seconds=max(0.0, now_s - start)) for start in starts)
                return _grouped([now - age for age in ages if age < oldest])

            of_watches = {name: calls(starts, _LONGEST_OWN) for name, starts in state.of_watches.items()}
            return Pace(
                calls=calls(state.starts, self.rate.per),
                of_watches={name: found for name, found in of_watches.items() if found},
                slowdown=state.slowdown,
            )

    def set_pace(self, bucket: str, pace: Pace, *, now: datetime) -> None:
        """Go on from where another process stopped."""
        with self._lock:
            state, now_s = self._buckets[bucket], self._monotonic()

            def starts(calls: Calls) -> list[float]:
                # A time in the future is another clock's.
                ages = [(max(0.0, (now - at).total_seconds()), count) for at, count in calls]
                return sorted(itertools.chain.from_iterable([now_s - age] * count for age, count in ages))

            state.starts = deque(starts(pace.calls), maxlen=self.rate.count)
            state.of_watches = {name: deque(starts(calls)) for name, calls in pace.of_watches.items()}
            state.slowdown, state.accepted = min(max(1.0, pace.slowdown), self._slowest), 0


_LONGEST_OWN = timedelta(minutes=1)  # a watch's own rate counts no longer


def _of_watch(state: _Bucket, own: WatchRate) -> deque[float]:
    starts = state.of_watches.get(own.watch)
    if starts is None or starts.maxlen != own.rate.count:
        starts = state.of_watches[own.watch] = deque(starts or (), maxlen=own.rate.count)
    return starts


def _reserve(starts: deque[float], rate: Rate, earliest: float) -> float:
    """Return when the next call may start, and take note of it."""
    start = earliest
    if len(starts) == rate.count:
        start = max(start, starts[0] + rate.per.total_seconds())
    starts.append(start)
    return start


def _grouped(times: Sequence[datetime]) -> Calls:
    size = -(-len(times) // _MOST_TIMES) or 1
    groups = [times[begin : begin + size] for begin in range(0, len(times), size)]
    return tuple((group[-1], len(group)) for group in groups)
