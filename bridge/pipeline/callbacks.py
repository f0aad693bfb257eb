"""What a callback of CI leads to: the jobs that it names wait to be asked for. Nothing else of it is kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from bridge.collect.callbacks import NamedJob
from bridge.model import Watch
from bridge.record import counters
from bridge.record.counters import Count
from bridge.record.polling import hints

# What is counted: of a callback, of each job that it names, and of each that CI was asked for.
Outcome = Literal["taken", "other_bucket", "no_bucket", "unknown_watch", "unreadable", "too_large"]
Named = Literal["waiting", "ended", "denied", "too_many", "other_bucket", "no_bucket"]
Answered = Literal["news", "no_news", "not_watched", "denied"]


def take(
    tx: Connection, named: Sequence[NamedJob], watches: Collection[Watch], *, about: Watch | None, now: datetime
) -> None:
    """Store the jobs that a callback names, to be asked for, and that it came.

    They are in the bucket of the watch that it is `about`, else in the one that it says, else in the only one that is
    watched. Where several are, and it does not say which, only jobs on record are taken.
    """
    place = {watch.place.bucket for watch in ([about] if about else watches)}
    only = next(iter(place)) if len(place) == 1 else None
    by_bucket: dict[str, set[str]] = defaultdict(set)
    nowhere = set[str]()
    for job in named:
        bucket = only if about else job.bucket or only
        (nowhere if bucket is None else by_bucket[bucket]).add(job.id)
    others = sum(len(by_bucket.pop(bucket)) for bucket in by_bucket.keys() - place)
    found = hints.on_record(tx, nowhere, place)
    for bucket, job_id in found:
        by_bucket[bucket].add(job_id)
    counts = Counter[Named]({"other_bucket": others, "no_bucket": len(nowhere - {job_id for _, job_id in found})})
    for bucket, ids in sorted(by_bucket.items()):
        counts.update(hints.put(tx, bucket, ids, now=now))
    counters.add(tx, [Count("callback_job", (what,), times=times) for what, times in counts.items() if times], now=now)
    hints.received(tx, [w.name for w in ([about] if about else watches) if w.place.bucket in by_bucket], now=now)
    count(tx, "taken" if by_bucket else "other_bucket" if others else "no_bucket", now=now)


def count(tx: Connection, outcome: Outcome, *, now: datetime) -> None:
    counters.add(tx, [Count("callback", (outcome,))], now=now)
