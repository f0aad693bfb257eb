"""When a delivery is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta

_SCHEDULE = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 1800))
_THEN = timedelta(hours=1)
_LONGEST_WISH = timedelta(hours=24)
_JITTER = 0.2

BROKEN_AT = 10  # attempts in a row without an answer: from then on one at a time finds out whether it is back
_FIRST_REST, _LONGEST_REST = timedelta(seconds=5), timedelta(seconds=60)


def next_try(
    *,
    attempts: int,
    created_at: datetime,
    now: datetime,
    retry: timedelta,
    wish: timedelta | None = None,
    chance: float,
) -> datetime | None:
    """Return when to try next after `attempts` tries, or None when the retry time is over.

    5 s, 30 s, 2 min, 10 min, 30 min, then hourly; `wish` (Retry-After) only lengthens a pause, up to 24 h.
    `chance` in [0, 1) makes it up to 20 % longer, never shorter. The last try is made when the time ends.
    """
    end = created_at + retry
    if now >= end:
        return None
    pause = _SCHEDULE[attempts - 1] if attempts <= len(_SCHEDULE) else _THEN
    pause = max(pause, min(wish or timedelta(0), _LONGEST_WISH))
    return min(now + pause * (1 + _JITTER * chance), end)


def rest(*, failures: int, chance: float) -> timedelta | None:
    """Return how long to leave a receiver alone after so many failures in a row; None: it may just be bad luck.

    5 s, doubled with every failure, up to 60 s: that is how late it is noticed that it is back.
    """
    if failures < BROKEN_AT:
        return None
    longer: timedelta = _FIRST_REST * 2 ** min(failures - BROKEN_AT, 10)
    return min(longer, _LONGEST_REST) * (1 + _JITTER * chance)
