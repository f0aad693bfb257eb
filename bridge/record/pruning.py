"""Pruning: what has ended long ago is deleted, a batch a transaction. What is unfinished stays, whatever its age.

`old_...` read the next rows of a table and change nothing; `prune_...` delete those of them that may still go.
Tables are walked by their key from its old end, so no index is needed for it.
What versions before 0004 did not write into deliveries is filled in by the same steps, from the new end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from bridge.record import actions, rulesets, schema
from bridge.record.codec import load_job
from bridge.record.database import ms, skip_locked, upsert
from bridge.record.outbox import digests, silences
from bridge.record.polling import leases, problems
from bridge.record.schema import (
    DEAD,
    DISCARDED,
    DROPPED,
    IS_OUT,
    MERGED,
    SENT,
    alarms,
    attempts,
    deliveries,
    horizons,
    incident_jobs,
    incidents,
    job_problems,
    jobs,
    messages,
    streams,
    threads,
    transitions,
)

LEASE_NAME = "pruning"  # beside those of buckets, whose names end in digits
AT_ONCE = 200  # about 50 ms of writing on SQLite
RULES_AT_ONCE = 500  # about 20 ms
_MOST_JOBS = 5_000  # of incidents, in one transaction
_LONGER = timedelta(days=30)  # a dead letter may have been tried for so long


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoffs:
    """What ended before `ended` is pruned; dead letters, discarded or not, and threads not used since, before `dead`.

    Of a bucket in `created`, only jobs that were created before that.
    """

    now: datetime
    ended: datetime
    dead: datetime
    created: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Found:
    """Keys of rows that may go, and after which key to go on (None: whatever comes is too young)."""

    keys: Sequence[Any]
    after: Any


def acquire(tx: Connection, worker: str, *, now: datetime) -> bool:
    """Take the lease of pruning; False if another worker prunes.

    Of two at once each would keep a message because of a delivery that the other deletes.
    """
    tx.execute(upsert(tx, schema.leases).values(name=LEASE_NAME).on_conflict_do_nothing())
    return leases.acquire(tx, LEASE_NAME, worker, now=now)


# --- deliveries, with their attempts and messages -------------------------------------------------------------------


def _ended(cut: Cutoffs) -> ColumnElement[bool]:
    return or_(
        and_(deliveries.c.state.in_((SENT, MERGED, DROPPED)), deliveries.c.ended_at < ms(cut.ended)),
        and_(deliveries.c.state.in_((DEAD, DISCARDED)), deliveries.c.ended_at < ms(cut.dead)),
    )


def old_deliveries(tx: Connection, *, after: int, cut: Cutoffs, most: int = AT_ONCE) -> Found:
    walked = select(deliveries.c.n, deliveries.c.created_at, _ended(cut).label("old")).where(deliveries.c.n > after)
    rows = tx.execute(walked.order_by(deliveries.c.n).limit(most)).all()
    # All of them, not one: a row from an hour when the clock was wrong must not end the walk.
    if all(row.created_at >= ms(cut.ended) for row in rows):
        return Found([], None)
    return Found([row.n for row in rows if row.old], rows[-1].n)


def prune_deliveries(tx: Connection, numbers: Collection[int], *, cut: Cutoffs) -> int:
    """Delete deliveries, their attempts, and the messages of no other delivery. Return how many."""
    # One that is being resent just now is left alone.
    old = select(deliveries.c.n, deliveries.c.message).where(deliveries.c.n.in_(numbers), _ended(cut))
    rows = tx.execute(skip_locked(tx, old)).all()
    gone = [row.n for row in rows]
    tx.execute(delete(attempts).where(attempts.c.delivery.in_(gone)))
    tx.execute(delete(deliveries).where(deliveries.c.n.in_(gone)))
    is_used = exists().where(deliveries.c.message == messages.c.id)
    tx.execute(delete(messages).where(messages.c.id.in_({row.message for row in rows}), ~is_used))
    return len(gone)


# --- the rules of deliveries ----------------------------------------------------------------------------------------

_newest = tuple_(deliveries.c.created_at, deliveries.c.n)


def without_rule(tx: Connection, *, after: tuple[int, int] | None, most: int = RULES_AT_ONCE) -> Found:
    """Find deliveries whose rule was not stored, from the newest on."""
    d = deliveries.c
    found = select(d.created_at, d.n).where(d.rule.is_(None))
    if after is not None:
        # The first condition says no more than the second: SQLite finds the place in its index by it.
        found = found.where(d.created_at <= after[0], _newest < tuple_(*after))
    # By the rule too, which is the same of all: PostgreSQL does not see that, and would sort them.
    rows = tx.execute(found.order_by(d.rule.desc(), d.created_at.desc(), d.n.desc()).limit(most)).all()
    return Found([row.n for row in rows], (rows[-1].created_at, rows[-1].n) if len(rows) == most else None)


def write_rules(tx: Connection, numbers: Collection[int]) -> int:
    """Store the rules of deliveries, as their messages say them. Return how many."""
    without = select(deliveries.c.n).where(deliveries.c.n.in_(numbers), deliveries.c.rule.is_(None))
    held = tx.execute(skip_locked(tx, without)).scalars().all()
    of_message = select(messages.c.rule).where(messages.c.id == deliveries.c.message).scalar_subquery()
    tx.execute(update(deliveries).where(deliveries.c.n.in_(held)).values(rule=func.coalesce(of_message, "")))
    return len(held)


# --- jobs, with their transitions -----------------------------------------------------------------------------------


def old_jobs(tx: Connection, *, after: int, cut: Cutoffs, most: int = AT_ONCE) -> Found:
    columns = (jobs.c.n, jobs.c.bucket, jobs.c.created_at, jobs.c.changed_at, _over(cut).label("over"))
    rows = tx.execute(select(*columns).where(jobs.c.n > after).order_by(jobs.c.n).limit(most)).all()
    young, bounds = ms(cut.ended), {bucket: ms(moment) for bucket, moment in cut.created.items()}
    # Rows stand in the order in which jobs were first seen, and no job is seen before it is created.
    if all(min(row.created_at, row.changed_at) >= young for row in rows):
        return Found([], None)
    old = [row.n for row in rows if row.over and row.created_at < bounds.get(row.bucket, young)]
    return Found(old, rows[-1].n)


def _over(cut: Cutoffs) -> ColumnElement[bool]:
    """Return the condition for jobs that ended before the cutoff, or have been watched by no rules since before it.

    What counts for an incident that is not closed stays.
    """
    unwatched = jobs.c.stream.in_(select(streams.c.key).where(IS_OUT, streams.c.out_at < ms(cut.ended)))
    return and_(jobs.c.changed_at < ms(cut.ended), or_(~jobs.c.open, unwatched), ~_is_counted())


def _is_counted() -> ColumnElement[bool]:
    """Return the condition for jobs that count for an incident that is not closed."""
    mine = and_(incident_jobs.c.bucket == jobs.c.bucket, incident_jobs.c.job_id == jobs.c.id)
    return exists().where(mine, incidents.c.n == incident_jobs.c.incident, incidents.c.closed_at.is_(None))


def prune_jobs(tx: Connection, numbers: Collection[int], *, cut: Cutoffs) -> int:
    """Delete jobs with all their transitions, and store how new the newest was. Return how many."""
    rows = tx.execute(skip_locked(tx, select(jobs).where(jobs.c.n.in_(numbers), _over(cut)))).all()
    by_bucket: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_bucket[row.bucket].append(row)
    for bucket, old in sorted(by_bucket.items()):
        for table in (transitions, alarms, job_problems):
            tx.execute(delete(table).where(table.c.bucket == bucket, table.c.job_id.in_([job.id for job in old])))
        horizon = upsert(tx, horizons).values(bucket=bucket, pruned_to=max(job.created_at for job in old))
        newer = horizon.excluded.pruned_to
        tx.execute(
            horizon.on_conflict_do_update(
                index_elements=["bucket"], set_={"pruned_to": newer}, where=horizons.c.pruned_to < newer
            )
        )
    tx.execute(delete(jobs).where(jobs.c.n.in_([row.n for row in rows])))
    return len(rows)


# --- incidents ------------------------------------------------------------------------------------------------------


def _is_over(cut: Cutoffs) -> ColumnElement[bool]:
    """Return the condition for incidents that closed long ago, and for keys of which nothing was seen since.

    They are kept longer than dead letters: what is sent of one must be recognised. An absence always waits for a time.
    """
    newest = select(func.max(incident_jobs.c.happened_at)).where(incident_jobs.c.incident == incidents.c.n)
    is_idle = func.coalesce(newest.scalar_subquery(), incidents.c.since) < ms(cut.ended)
    watched = and_(incidents.c.opened_at.is_(None), incidents.c.closed_at.is_(None), incidents.c.due_at.is_(None))
    return or_(
        incidents.c.closed_at < ms(cut.dead - _LONGER), and_(watched, incidents.c.since < ms(cut.ended), is_idle)
    )


def old_incidents(tx: Connection, *, after: int, cut: Cutoffs, most: int = AT_ONCE) -> Found:
    walked = select(incidents.c.n, incidents.c.since, _is_over(cut).label("over")).where(incidents.c.n > after)
    rows = tx.execute(walked.order_by(incidents.c.n).limit(most)).all()
    if all(row.since >= ms(cut.ended) for row in rows):
        return Found([], None)
    return Found([row.n for row in rows if row.over], rows[-1].n)


def prune_incidents(tx: Connection, numbers: Collection[int], *, cut: Cutoffs) -> int:
    """Delete incidents with the jobs that counted for them. Return how many.

    One with very many jobs loses them over several runs.
    """
    over = select(incidents.c.n).where(incidents.c.n.in_(numbers), _is_over(cut))
    held = tx.execute(skip_locked(tx, over)).scalars().all()
    mine = select(incident_jobs.c.n).where(incident_jobs.c.incident.in_(held)).limit(_MOST_JOBS)
    tx.execute(delete(incident_jobs).where(incident_jobs.c.n.in_(mine)))
    has_jobs = exists().where(incident_jobs.c.incident == incidents.c.n)
    return tx.execute(delete(incidents).where(incidents.c.n.in_(held), ~has_jobs)).rowcount


# --- threads --------------------------------------------------------------------------------------------------------

_key = tuple_(threads.c.notifier, threads.c.thread)


def old_threads(tx: Connection, *, after: tuple[str, str], cut: Cutoffs, most: int = AT_ONCE) -> Found:
    """Find Slack threads that have not been used for long and that no unfinished job belongs to."""
    walked = select(threads).where(_key > tuple_(*after)).order_by(threads.c.notifier, threads.c.thread)
    rows = tx.execute(walked.limit(most)).all()
    old = [row for row in rows if row.used_at < ms(cut.dead)]
    live = _live_threads(tx, cut) if old else frozenset()
    last = (rows[-1].notifier, rows[-1].thread) if rows else None
    # In front of it, there may be the channel.
    gone = [row for row in old if live.isdisjoint((row.thread, row.thread.partition("/")[2]))]
    return Found([(row.notifier, row.thread) for row in gone], last)


def _live_threads(tx: Connection, cut: Cutoffs) -> frozenset[str]:
    # A thread is named after its job or workflow run. If it was used last before then, that was created before then.
    rows = tx.execute(select(jobs.c.bucket, jobs.c.detail).where(jobs.c.open, jobs.c.created_at < ms(cut.dead)))
    open_ = ((row.bucket, load_job(row.detail)) for row in rows)
    of_jobs = {f"{bucket}/{name}" for bucket, job in open_ for name in (job.id, job.workflow_run)}
    going_on = select(incidents.c.id).where(incidents.c.opened_at < ms(cut.dead), incidents.c.closed_at.is_(None))
    return frozenset(of_jobs | {f"incident/{id_}" for id_ in tx.execute(going_on).scalars()})


def prune_threads(tx: Connection, keys: Collection[tuple[str, str]], *, cut: Cutoffs) -> int:
    """Delete threads for which nothing waits. Return how many.

    Those of a version that did not store when they were used begin to age now.
    """
    held = tx.execute(skip_locked(tx, select(threads).where(_key.in_(keys)))).all()
    mine = _key.in_([(row.notifier, row.thread) for row in held])
    tx.execute(update(threads).where(mine, threads.c.used_at == 0).values(used_at=ms(cut.now)))
    unfinished = and_(literal_column("delivery.state") < literal_column("2"), deliveries.c.lane.is_not(None))
    of_thread = (deliveries.c.lane == threads.c.thread, deliveries.c.notifier == threads.c.notifier)
    waits = exists().where(unfinished, *of_thread)
    return tx.execute(delete(threads).where(mine, threads.c.used_at < ms(cut.dead), ~waits)).rowcount


# --- the rest -------------------------------------------------------------------------------------------------------


def prune_rest(tx: Connection, *, cut: Cutoffs) -> int:
    """Delete old rows of small tables: digests that nothing names, silences, actions, rulesets that are not used."""
    gone = digests.prune(tx, before=cut.ended, silences_before=cut.dead) + silences.prune(tx, before=cut.dead)
    gone += actions.prune(tx, before=cut.dead) + rulesets.prune(tx, before=cut.dead)
    return gone + problems.prune(tx, before=cut.ended)
