"""Hints: jobs that callbacks of CI name, which workers ask for by id.

Whoever knows the address of callbacks can name any ids, any number of times. So rows are bounded for each bucket, a job
that has ended costs nothing, one that CI has denied is not asked for again for a while, and no job is asked for more
often than every few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, bindparam, case, delete, func, or_, select, update

from bridge.model import DONE
from bridge.record.database import at, ms, upsert
from bridge.record.schema import hints, jobs, watches

MOST_WAITING = 1_000  # unknown jobs of a bucket that wait to be asked for; known ones are bounded by themselves
AGAIN = timedelta(seconds=5)  # a job is asked for at most this often
KEPT = timedelta(minutes=10)  # a job that is not named again; so long CI is not asked again for one that it denied
_AT_ONCE = 200  # waiting jobs that one look returns
_FAR = timedelta(minutes=1)  # what is due later than this is from before the clock was set back

Taken = Literal["waiting", "ended", "denied", "too_many"]
_IS_WAITING = hints.c.ask_at.is_not(None)
_c = hints.c


def put(tx: Connection, bucket: str, ids: Collection[str], *, now: datetime) -> Counter[Taken]:
    """Store that callbacks name these jobs; return how many wait to be asked for, and why others do not."""
    states = dict(tx.execute(select(jobs.c.id, jobs.c.state).where(jobs.c.bucket == bucket, jobs.c.id.in_(ids))).all())
    rows = {row.job_id: row for row in tx.execute(select(hints).where(_c.bucket == bucket, _c.job_id.in_(ids)))}
    room = MOST_WAITING - _count_waiting(tx, bucket)
    taken, new = Counter[Taken](), []
    for job_id in sorted(ids):  # in one order, so that two transactions do not wait for each other in a circle
        row, state = rows.get(job_id), states.get(job_id)
        if state in DONE:
            taken["ended"] += 1
            continue
        if row and row.denied and not _is_past(row.asked_at, now - KEPT, now):
            taken["denied"] += 1
            continue
        if (row is None or row.ask_at is None) and state is None:
            if room <= 0:
                taken["too_many"] += 1
                continue
            room -= 1
        taken["waiting"] += 1
        new.append(_row(bucket, job_id, row, now))
    if new:
        row = upsert(tx, hints)
        again = {"received_at": row.excluded.received_at, "times": _c.times + 1, "denied": row.excluded.denied}
        again["ask_at"] = func.coalesce(_c.ask_at, row.excluded.ask_at)
        tx.execute(row.on_conflict_do_update(index_elements=["bucket", "job_id"], set_=again), new)
    return taken


def _row(bucket: str, job_id: str, before: Row[Any] | None, now: datetime) -> dict[str, Any]:
    ask_at = ms(now)
    if before and before.asked_at is not None and before.asked_at <= ask_at:
        ask_at = max(ask_at, before.asked_at + AGAIN // timedelta(milliseconds=1))
    return {"bucket": bucket, "job_id": job_id, "received_at": ms(now), "ask_at": ask_at, "denied": False}


def _is_past(time: int, before: datetime, now: datetime) -> bool:
    """Tell whether a time is before another; one in the future is from before the clock was set back."""
    return time < ms(before) or time > ms(now)


def _count_waiting(tx: Connection, bucket: str) -> int:
    return tx.execute(select(func.count()).select_from(hints).where(_c.bucket == bucket, _IS_WAITING)).scalar_one()


def received(tx: Connection, names: Collection[str], *, now: datetime) -> None:
    """Store that a callback about these watches' bucket came."""
    tx.execute(update(watches).where(watches.c.name.in_(names)).values(hint_at=ms(now)))


def on_record(tx: Connection, ids: Collection[str], buckets: Collection[str]) -> list[tuple[str, str]]:
    """Return (bucket, id) of those of these jobs that are on record."""
    mine = select(jobs.c.bucket, jobs.c.id).where(jobs.c.id.in_(list(ids)), jobs.c.bucket.in_(list(buckets)))
    return [(bucket, job_id) for bucket, job_id in tx.execute(mine)] if ids else []


# --- what workers ask for -------------------------------------------------------------------------------------------

_IS_DUE = or_(_c.ask_at <= bindparam("now"), _c.ask_at > bindparam("far"))


def _times(now: datetime) -> dict[str, int]:
    return {"now": ms(now), "far": ms(now + _FAR)}


_BUCKETS = select(_c.bucket).where(_IS_WAITING, _IS_DUE).distinct()


def buckets_due(tx: Connection, *, now: datetime) -> list[str]:
    """Return the buckets that have a job to ask for now."""
    return list(tx.execute(_BUCKETS, _times(now)).scalars())


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The jobs of a bucket to ask for now: those on record, those that are not, and when CI last denied one.

    Those that have `ended` since they were named are not to be asked for.
    """

    known: Sequence[str] = ()
    unknown: Sequence[str] = ()
    ended: Sequence[str] = ()
    denied_at: datetime | None = None


_WAITING = (
    select(_c.job_id, jobs.c.state)
    .select_from(hints.outerjoin(jobs, and_(jobs.c.bucket == _c.bucket, jobs.c.id == _c.job_id)))
    .where(_c.bucket == bindparam("of"), _IS_WAITING, _IS_DUE)
    .order_by(jobs.c.state.is_(None), _c.received_at.desc())
    .limit(_AT_ONCE)
)
_WAS_DENIED = (_c.bucket == bindparam("of"), _c.denied, _c.asked_at <= bindparam("now"))
_DENIED_AT = select(func.max(_c.asked_at)).where(*_WAS_DENIED)


def due(tx: Connection, bucket: str, *, now: datetime) -> Due:
    """Return what to ask for in a bucket now, the newest first: polls see the others."""
    rows = tx.execute(_WAITING, {"of": bucket, **_times(now)}).all()
    if not rows:
        return Due()
    denied_at = tx.execute(_DENIED_AT, {"of": bucket, "now": ms(now)}).scalar()
    return Due(
        known=[row.job_id for row in rows if row.state is not None and row.state not in DONE],
        unknown=[row.job_id for row in rows if row.state is None],
        ended=[row.job_id for row in rows if row.state in DONE],
        denied_at=None if denied_at is None else at(denied_at),
    )


def answered(
    tx: Connection, bucket: str, ids: Iterable[str], *, ended: Collection[str], denied: Collection[str], asked: datetime
) -> None:
    """Store that CI was asked for these jobs.

    What was named again since then is asked for again, unless it is `denied`: CI has no such job, or no watch has it.
    Those that have `ended` need no row: the record says it. What was not named for long goes.
    """
    again = case((_c.received_at > ms(asked), ms(asked + AGAIN)), else_=None)
    mine = sorted({*ids} - {*ended})
    for some, is_denied in ((sorted({*mine} - {*denied}), False), (sorted({*mine} & {*denied}), True)):
        if some:
            facts = {"asked_at": ms(asked), "denied": is_denied, "ask_at": None if is_denied else again}
            tx.execute(update(hints).where(_c.bucket == bucket, _c.job_id.in_(some)).values(facts))
    forget(tx, bucket, ended)
    tx.execute(delete(hints).where(_c.received_at < ms(asked - KEPT)))


def forget(tx: Connection, bucket: str, ids: Collection[str]) -> None:
    if ids:
        tx.execute(delete(hints).where(_c.bucket == bucket, _c.job_id.in_(list(ids))))


def put_off(tx: Connection, bucket: str, ids: Collection[str], *, until: datetime) -> None:
    """Ask for these jobs later: CI did not answer."""
    tx.execute(update(hints).where(_c.bucket == bucket, _c.job_id.in_(list(ids))).values(ask_at=ms(until)))
