"""When a delivery is tried again."""

from __future__ import annotations

from datetime import timedelta

from bridge.model import Breaker

_SCHEDULE = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 1800))
_THEN = timedelta(hours=1)
_LONGEST_WISH = timedelta(hours=24)
_JITTER = 0.2
_AT_LEAST = 2  # attempts
_PROLONGED = 3  # times
_PROMPTLY = timedelta(seconds=5)
_A_MOMENT = timedelta(seconds=1)  # for so short a time nobody is tried again

BREAKER_THRESHOLD = 10  # attempts in a row without an answer: from then on one at a time finds out whether it is back
_FIRST_REST, _LONGEST_REST = timedelta(seconds=5), timedelta(seconds=60)


def counts_from(*, first: timedelta, due: timedelta, breaker: Breaker, now: timedelta) -> timedelta:
    """Return from when the retry time of a delivery counts `now`; all are times of the run clock.

    That is its `first` attempt, later by as long as it stood in our own queue since its last pause was over (`due`):
    while its notifier was neither left alone nor had asked for time. A few seconds are how often we look.
    """
    since = due if breaker.asked_until is None else max(due, breaker.asked_until)
    queued = (now if breaker.opened is None else min(now, breaker.opened)) - since
    return first + queued if queued > _PROMPTLY else first


def was_tried_enough(*, attempts: int, due: timedelta, breaker: Breaker) -> bool:
    """Tell whether a delivery that waits for a notifier left alone may be given up when its time is over.

    A probe since it was due stands for an attempt of it, and its time began with one if it was never tried.
    """
    again = breaker.probed is not None and breaker.probed > due
    return max(attempts, 1) + again >= _AT_LEAST


def over_at(*, first: timedelta, due: timedelta, retry: timedelta, breaker: Breaker, now: timedelta) -> timedelta:
    """Return when the retry time of a delivery is over that waits for a notifier left alone, by the run clock."""
    begun = counts_from(first=first, due=due, breaker=breaker, now=now)
    return begun + _prolonged(retry, (begun if breaker.asked_until is None else breaker.asked_until) - begun)


def probed_since(due: timedelta, breaker: Breaker) -> bool:
    """Tell whether a probe stood for an attempt of a delivery that is tried and was due since then."""
    return breaker.probed is not None and breaker.probed >= due


def next_pause(
    *,
    attempts: int,
    used: timedelta,
    retry: timedelta,
    wish: timedelta | None = None,
    chance: float,
    stood_for: bool = False,
    may_end: bool = True,
) -> timedelta | None:
    """Return how long to wait after `attempts` tries, or None when the retry time is over, of which `used` is.

    5 s, 30 s, 2 min, 10 min, 30 min, then hourly; `wish` (Retry-After) only lengthens a pause, up to 24 h, and with
    it the retry time, up to three times as long. `chance` in [0, 1) makes it up to 20 % longer, never shorter. The last
    try is made when the time ends, and is the second at least, `stood_for` being a probe in its place.
    """
    pause = (_SCHEDULE[attempts - 1] if attempts <= len(_SCHEDULE) else _THEN) * (1 + _JITTER * chance)
    wished = min(wish or timedelta(0), _LONGEST_WISH)
    left = _prolonged(retry, used + wished) - used
    if left < _A_MOMENT:
        return None if may_end and attempts + stood_for >= _AT_LEAST else pause
    return min(max(pause, wished * (1 + _JITTER * chance)), left)


def _prolonged(retry: timedelta, wished: timedelta) -> timedelta:
    return max(retry, min(wished, _PROLONGED * retry))


def breaker_pause(*, failures: int, chance: float) -> timedelta | None:
    """Return how long to leave a receiver alone after so many failures in a row; None: it may just be bad luck.

    5 s, doubled with every failure, up to 60 s: that is how late it is noticed that it is back.
    """
    if failures < BREAKER_THRESHOLD:
        return None
    longer: timedelta = _FIRST_REST * 2 ** min(failures - BREAKER_THRESHOLD, 10)
    return min(longer, _LONGEST_REST) * (1 + _JITTER * chance)
