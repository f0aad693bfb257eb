"""When a delivery is attempted again, when it is given up, and how long a circuit breaker stays open.

All times are times of the run clock (`record/clocks.py`), which stands still while no worker runs.
"""

from __future__ import annotations

from datetime import timedelta

from bridge.model import MAX_RETRY_AFTER, Breaker

_PAUSES = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 1800))  # after the first attempts
_LATER_PAUSE = timedelta(hours=1)
_JITTER = 0.2
_MIN_ATTEMPTS = 2
_MAX_PROLONGATION = 3  # times the retry time
_SHORTEST_PAUSE = timedelta(seconds=1)  # with less retry time left there is no further attempt
_QUEUE_TOLERANCE = timedelta(seconds=5)  # for the next claim of what is due

BREAKER_THRESHOLD = 10  # attempts in a row without an answer open the breaker: then one delivery at a time is a probe
_FIRST_BREAKER_PAUSE, _LONGEST_BREAKER_PAUSE = timedelta(seconds=5), timedelta(seconds=60)


def counts_from(*, first: timedelta, due: timedelta, breaker: Breaker, now: timedelta) -> timedelta:
    """Return the start of a delivery's retry time, as it is `now`: time in our own queue does not count.

    first: the start as it was before: the first attempt, or a later time that this function returned.
    due: when the delivery became due after its last pause. From then on it waits in our own queue, except
        until `breaker.asked_until` (the notifier asked for that wait) and after `breaker.opened` (it does not answer).
    """
    since = due if breaker.asked_until is None else max(due, breaker.asked_until)
    queued = (now if breaker.opened is None else min(now, breaker.opened)) - since
    return first + queued if queued > _QUEUE_TOLERANCE else first


def was_tried_enough(*, attempts: int, due: timedelta, breaker: Breaker) -> bool:
    """Tell whether a delivery that waits for a breaker, or a Retry-After, may be given up when its retry time ends.

    attempts: those of this delivery. With none, its retry time began with a probe, which counts as the first.
    due: when it became due. A probe after that counts as one more attempt.
    """
    again = breaker.probed is not None and breaker.probed > due
    return max(attempts, 1) + again >= _MIN_ATTEMPTS


def over_at(*, first: timedelta, due: timedelta, retry: timedelta, breaker: Breaker, now: timedelta) -> timedelta:
    """Return when the retry time ends of a delivery that waits for a breaker, or a Retry-After.

    first, due, breaker, now: as in `counts_from`.
    retry: the notifier's `retry`. A longer Retry-After prolongs it, to at most three times `retry`.
    """
    begun = counts_from(first=first, due=due, breaker=breaker, now=now)
    return begun + _prolonged(retry, (begun if breaker.asked_until is None else breaker.asked_until) - begun)


def probed_since(due: timedelta, breaker: Breaker) -> bool:
    """Tell whether a probe counts as an attempt of a delivery that became due at `due`, and is now attempted itself."""
    return breaker.probed is not None and breaker.probed >= due


def next_pause(
    *,
    attempts: int,
    used: timedelta,
    retry: timedelta,
    retry_after: timedelta | None = None,
    chance: float,
    probed: bool = False,
    may_end: bool = True,
    most: int | None = None,
) -> timedelta | None:
    """Return the pause before the next attempt, or None: the delivery is given up, as its retry time is over.

    Pauses are 5 s, 30 s, 2 min, 10 min, 30 min, then an hour. The last attempt comes when the retry time ends.

    attempts: how many attempts were made. There are at least two, however long the first one took.
    used: how much of the retry time has passed.
    retry: the notifier's `retry`, or the retry time that a longer Retry-After makes of it: at most three times `retry`.
    retry_after: the receiver's Retry-After. It lengthens a pause, up to 24 h, and never shortens one.
    chance: a random number in [0, 1), which lengthens a pause by up to 20 %.
    probed: a probe counts as one more attempt.
    may_end: False while nothing may be given up, as the clock cannot be trusted.
    most: after so many attempts it is given up, whatever the time.
    """
    if most is not None and attempts >= most:
        return None
    pause = (_PAUSES[attempts - 1] if attempts <= len(_PAUSES) else _LATER_PAUSE) * (1 + _JITTER * chance)
    asked = min(retry_after or timedelta(0), MAX_RETRY_AFTER)
    left = _prolonged(retry, used + asked) - used
    if left < _SHORTEST_PAUSE:
        return None if may_end and attempts + probed >= _MIN_ATTEMPTS else pause
    return min(max(pause, asked * (1 + _JITTER * chance)), left)


def _prolonged(retry: timedelta, asked: timedelta) -> timedelta:
    return max(retry, min(asked, _MAX_PROLONGATION * retry))


def breaker_pause(*, failures: int, chance: float) -> timedelta | None:
    """Return how long to send a receiver nothing; None: its breaker is closed.

    5 s, doubled with every failure, up to 60 s: so late it may be noticed that the receiver answers again.

    failures: attempts in a row without an answer.
    chance: as in `next_pause`.
    """
    if failures < BREAKER_THRESHOLD:
        return None
    longer: timedelta = _FIRST_BREAKER_PAUSE * 2 ** min(failures - BREAKER_THRESHOLD, 10)
    return min(longer, _LONGEST_BREAKER_PAUSE) * (1 + _JITTER * chance)
