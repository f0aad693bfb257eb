"""Level rules that fired: once for a job, a rule and a stay in a state."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select, update

from bridge.model import GONE, Transition
from bridge.record.codec import dump, load_job
from bridge.record.database import at, maybe_at, ms, upsert
from bridge.record.schema import alarm as L  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import transition as T  # noqa: N812


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """An alarm on record."""

    n: int
    bucket: str
    job_id: str
    sequence: int
    rule: str
    count: int
    notifiers: Sequence[str]
    since: datetime
    fired_at: datetime
    told_at: datetime
    recovered_at: datetime | None
    state: str = ""  # that it told of: said by `of_stays`


_SLACK = timedelta(minutes=10)  # a time that CI gave only later may be so much earlier than when it was seen
_BEGAN = and_(T.c.bucket == J.c.bucket, T.c.job_id == J.c.id, T.c.sequence == J.c.sequence)
_ALARMED = and_(L.c.bucket == J.c.bucket, L.c.job_id == J.c.id, L.c.sequence == J.c.sequence)


def staying(
    tx: Connection, streams: Collection[str], *, began_before: datetime, gone_after: datetime | None
) -> list[tuple[Transition, dict[str, Fired], str]]:
    """Return the unfinished jobs of these streams whose stay began before then, with the alarms of that stay.

    Each is the transition that began it, with the job as it is now, (rule -> alarm), and the job's stream. With
    `gone_after` also the jobs that became gone after then.
    """
    which: ColumnElement[bool] = J.c.open
    if gone_after is not None:
        which = or_(J.c.open, and_(J.c.state == GONE, J.c.changed_at > ms(gone_after)))
    mine = and_(J.c.stream.in_(list(streams)), which)
    columns = (
        J.c.bucket,
        J.c.id,
        J.c.detail,
        J.c.stream,
        T.c.was,
        T.c.state,
        T.c.sequence,
        T.c.seen_at,
        T.c.watch,
        T.c.silent,
    )
    old = T.c.happened_at < ms(began_before + _SLACK)
    rows = tx.execute(select(*columns).join(T, _BEGAN).where(mine, old).order_by(J.c.n)).all()
    told: dict[tuple[str, str], dict[str, Fired]] = defaultdict(dict)
    if rows:
        for row in tx.execute(select(L).join(J, _ALARMED).where(mine)):
            told[row.bucket, row.job_id][row.rule] = _fired(row)
    return [(_began(row), told[row.bucket, row.id], row.stream) for row in rows]


def _began(row: Any) -> Transition:
    return Transition(
        job=load_job(row.detail),
        was=row.was,
        to=row.state,
        sequence=row.sequence,
        seen_at=at(row.seen_at),
        watch=row.watch,
        silent=row.silent,
    )


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
    """Remember that a rule told of the stay that a transition began, or told of it again."""
    when = ms(now)
    row = upsert(tx, L).values(
        bucket=transition.job.bucket,
        job_id=transition.job.id,
        sequence=transition.sequence,
        rule=rule,
        repeats=count,
        notifiers=dump(list(notifiers)),
        fired_at=when,
        told_at=when,
        since=ms(since),
    )
    again = {"repeats": count, "told_at": when, "notifiers": row.excluded.notifiers}
    tx.execute(row.on_conflict_do_update(index_elements=["bucket", "job_id", "sequence", "rule"], set_=again))


def of_stays(tx: Connection, transitions: Iterable[Transition]) -> dict[str, list[Fired]]:
    """Return by job the alarms of the stays that these transitions (of one bucket) end, and that nobody ended yet."""
    ended = {step.job.id: step for step in transitions if step.sequence > 1}
    if not ended:
        return {}
    bucket = next(iter(ended.values())).job.bucket
    stay = and_(T.c.bucket == L.c.bucket, T.c.job_id == L.c.job_id, T.c.sequence == L.c.sequence)
    mine = and_(L.c.bucket == bucket, L.c.job_id.in_(list(ended)), L.c.recovered_at.is_(None))
    found = select(L, T.c.state).join(T, stay).where(mine)
    alarms: dict[str, list[Fired]] = defaultdict(list)
    for row in tx.execute(found.order_by(L.c.n)):
        if row.sequence == ended[row.job_id].sequence - 1:
            alarms[row.job_id].append(replace(_fired(row), state=row.state))
    return alarms


def recovered(tx: Connection, numbers: Collection[int], *, now: datetime) -> None:
    if numbers:
        tx.execute(update(L).where(L.c.n.in_(numbers)).values(recovered_at=ms(now)))


def of_job(tx: Connection, bucket: str, job_id: str) -> list[Fired]:
    found = select(L).where(L.c.bucket == bucket, L.c.job_id == job_id).order_by(L.c.n)
    return [_fired(row) for row in tx.execute(found)]


def _fired(row: Row[Any]) -> Fired:
    return Fired(
        n=row.n,
        bucket=row.bucket,
        job_id=row.job_id,
        sequence=row.sequence,
        rule=row.rule,
        count=row.repeats,
        notifiers=tuple(json.loads(row.notifiers)),
        since=at(row.since),
        fired_at=at(row.fired_at),
        told_at=at(row.told_at),
        recovered_at=maybe_at(row.recovered_at),
    )
