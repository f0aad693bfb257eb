"""Alarms: level rules that fired, once for a job, a rule and a time in a state."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, func, or_, select, text, true, update

from bridge.model import GONE, NEW, SUBMITTED, Alarm, Transition
from bridge.record.codec import dump, from_row
from bridge.record.database import at, ms, upsert
from bridge.record.polling.snapshots import transition_of
from bridge.record.schema import alarms, jobs, same_step, transitions

_SLACK = timedelta(minutes=10)  # a time that CI gave only later may be so much earlier than when it was seen


def jobs_in_state(
    tx: Connection,
    streams: Collection[str],
    *,
    began_before: datetime,
    as_of: datetime,
    gone_after: datetime | None = None,
    with_alarms: bool = True,
) -> list[tuple[Transition, dict[str, Alarm], str]]:
    """Return the unfinished jobs of these streams that may have been in their state since before then, `as_of` now.

    Each is the transition that began it, with the job as it is now, (rule -> alarm) if these are wanted, and the job's
    stream. With `gone_after` also the jobs that became gone after then.
    """
    which: ColumnElement[bool] = jobs.c.open
    if gone_after is not None:
        which = or_(jobs.c.open, and_(jobs.c.state == GONE, jobs.c.changed_at > ms(gone_after)))
    mine = and_(jobs.c.stream.in_(list(streams)), which)
    if gone_after is None and tx.dialect.name == "sqlite":
        # By itself SQLite, which keeps no statistics, may take the index of all jobs of a stream.
        numbers = text("SELECT n FROM job INDEXED BY job_open WHERE stream IN :keys AND open = 1")
        mine = jobs.c.n.in_(numbers.bindparams(bindparam("keys", list(streams), expanding=True)))
    step = (getattr(transitions.c, name) for name in ("was", "state", "sequence", "seen_at", "watch", "silent"))
    begun = select(jobs.c.bucket, jobs.c.id, jobs.c.detail, jobs.c.stream, *step)
    begun = begun.join(transitions, same_step(transitions, jobs))
    old = transitions.c.happened_at < ms(began_before + _SLACK)
    # A time that CI gives later is not before the job was created; of a time to come nothing is believed.
    young = and_(
        jobs.c.created_at.between(ms(began_before) + 1, ms(as_of)),
        transitions.c.happened_at > ms(began_before),
        transitions.c.was.in_((NEW, SUBMITTED)),
    )
    rows = tx.execute(begun.where(mine, old, func.coalesce(~young, true())).order_by(jobs.c.n)).all()
    fired: dict[tuple[str, str], dict[str, Alarm]] = defaultdict(dict)
    if rows and with_alarms:
        for row in tx.execute(select(alarms).join(jobs, same_step(alarms, jobs)).where(mine)):
            fired[row.bucket, row.job_id][row.rule] = alarm_of(row)
    return [(transition_of(row), fired[row.bucket, row.id], row.stream) for row in rows]


def fire(
    tx: Connection,
    transition: Transition,
    rule: str,
    count: int,
    *,
    notifiers: Sequence[str],
    since: datetime,
    now: datetime,
) -> None:
    """Store that a rule fired for the state that a transition began, or fired again."""
    row = upsert(tx, alarms).values(
        bucket=transition.job.bucket,
        job_id=transition.job.id,
        sequence=transition.sequence,
        rule=rule,
        repeats=count,
        notifiers=dump(list(notifiers)),
        fired_at=ms(now),
        told_at=ms(now),
        since=ms(since),
    )
    again = {"repeats": count, "told_at": ms(now), "notifiers": row.excluded.notifiers}
    tx.execute(row.on_conflict_do_update(index_elements=["bucket", "job_id", "sequence", "rule"], set_=again))


def add_notifiers(tx: Connection, bucket: str, job_id: str, sequence: int, rule: str, notifiers: Sequence[str]) -> None:
    """Store that an alarm was sent to these too."""
    mine = {"bucket": bucket, "job_id": job_id, "sequence": sequence, "rule": rule}
    known = tx.execute(select(alarms.c.notifiers).filter_by(**mine)).scalar()
    if known is not None:
        all_ = list(dict.fromkeys((*json.loads(known), *notifiers)))
        tx.execute(update(alarms).filter_by(**mine).values(notifiers=dump(all_)))


def ended_by(tx: Connection, steps: Iterable[Transition]) -> dict[str, list[Alarm]]:
    """Return by job the alarms of the states that these transitions (of one bucket) end, unless they have recovered."""
    ended: dict[str, Transition] = {}
    for step in steps:
        if step.sequence > 1:
            ended.setdefault(step.job.id, step)  # an inferred one may come first
    if not ended:
        return {}
    bucket = next(iter(ended.values())).job.bucket
    mine = (alarms.c.bucket == bucket, alarms.c.job_id.in_(list(ended)), alarms.c.recovered_at.is_(None))
    fired = select(alarms, transitions.c.state).join(transitions, same_step(transitions, alarms)).where(*mine)
    found: dict[str, list[Alarm]] = defaultdict(list)
    for row in tx.execute(fired.order_by(alarms.c.n)):
        if row.sequence == ended[row.job_id].sequence - 1:
            found[row.job_id].append(alarm_of(row))
    return found


def recovered(tx: Connection, numbers: Collection[int], *, now: datetime) -> None:
    if numbers:
        tx.execute(update(alarms).where(alarms.c.n.in_(numbers)).values(recovered_at=ms(now)))


def of_job(tx: Connection, bucket: str, job_id: str) -> list[Alarm]:
    mine = select(alarms).filter_by(bucket=bucket, job_id=job_id).order_by(alarms.c.n)
    return [alarm_of(row) for row in tx.execute(mine)]


def alarm_of(row: Row[Any]) -> Alarm:
    notifiers = tuple(json.loads(row.notifiers))
    return from_row(Alarm, row, count=row.repeats, notifiers=notifiers, since=at(row.since), last_at=at(row.told_at))
