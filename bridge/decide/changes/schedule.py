"""When a watch is polled next."""

from __future__ import annotations

from datetime import timedelta

_PROBED = timedelta(seconds=30)  # how often a CI that does not answer is asked
_LONGEST_WISH = timedelta(minutes=10)


def is_due(*, next_poll_at: int, polled_at: int, failures: int, every: timedelta, now: int) -> bool:
    """Tell whether a watch's time has come; times are milliseconds since 1970.

    The interval may have been shortened since the last poll. A time further off than a poll can be put off is
    from before the clock was set back.
    """
    every_ms, longest_ms = (one // timedelta(milliseconds=1) for one in (every, _LONGEST_WISH))
    at = next_poll_at if failures else min(next_poll_at, polled_at + every_ms)
    furthest = now + 2 * max(every_ms, longest_ms)
    return not now < at <= furthest


def pause(every: timedelta, *, refused: bool = False, wish: timedelta | None = None) -> timedelta:
    """Return how long after a poll's beginning the next one is.

    `refused`: CI answered nothing, or asks for fewer calls. `wish` is its Retry-After, believed up to ten minutes.
    """
    if wish is not None:
        return max(every, min(wish, _LONGEST_WISH))
    return max(every, _PROBED) if refused else every
