"""When CI is believed that it does not know a job any more, and when it is asked again all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from bridge.model import Missing

_DENIALS, _INTERVALS = 3, 2
# After it was told that the job is gone.
ASKED_AGAIN = (
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=8),
    timedelta(hours=24),
)


def due(found: Mapping[str, Missing], now: datetime) -> Iterator[tuple[str, str]]:
    """Yield (id, stream) of the jobs that are gone and to be asked for again.

    What was answered in the future was before the clock was set back.
    """
    for job_id, one in found.items():
        if one.ask_at is not None and (one.ask_at <= now or one.last_at > now):
            yield job_id, one.stream


def denied(
    before: Missing | None, *, stream: str, began: datetime, now: datetime, seen_at: datetime | None = None
) -> Missing:
    """Count a denial, one at most in each poll: `began` is when this one did, `seen_at` the last that saw the job."""
    if before is None or before.first_at > now:
        return Missing(stream=stream, times=1, first_at=now, last_at=now, seen_at=seen_at)
    if before.last_at >= began:
        return before
    return replace(before, times=before.times + 1, last_at=now)


def is_believed(missing: Missing, *, every: timedelta) -> bool:
    """Tell whether CI is believed: three polls, the first and the last at least two of the watch's intervals apart."""
    return missing.times >= _DENIALS and missing.last_at - missing.first_at >= _INTERVALS * every


def asked_again(missing: Missing, *, now: datetime) -> Missing | None:
    """Return a job that is gone with the time of its next question; None: it is not asked for any more."""
    told_at = missing.first_at if missing.ask_at and missing.first_at <= now else now
    ask_at = next((told_at + pause for pause in ASKED_AGAIN if told_at + pause > now), None)
    return replace(missing, first_at=told_at, ask_at=ask_at) if ask_at else None
