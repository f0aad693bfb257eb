"""Which of the jobs that callbacks name to ask for, and which stream a job belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from bridge.decide.changes.scan import in_tens
from bridge.model import IDS_PER_CALL, Job, Stream


def to_ask(
    known: Sequence[str], unknown: Sequence[str], *, denied_at: datetime | None, every: timedelta, now: datetime
) -> list[tuple[str, ...]]:
    """Return the ids of each call: all jobs that are on record, and one call's unknown ones at the most.

    Anybody can name unknown jobs. Once CI has denied one, a call for unknown ones alone is made after `every`, the
    watches' interval; those that fit into another call cost nothing.
    """
    room = -len(known) % IDS_PER_CALL
    is_time = denied_at is None or not denied_at <= now < denied_at + every
    if not room and is_time:
        room = IDS_PER_CALL
    return list(in_tens([*known, *unknown[:room]]))


def stream_of(job: Job, streams: Iterable[Stream]) -> Stream | None:
    """Return the first stream whose list contains a job, as far as the job says."""
    return next((stream for stream in streams if stream.shows(job)), None)
