"""Jobs that CI denied: how often, and when it is asked for them again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, bindparam, delete, insert, literal, select

from bridge.model import GONE, Missing
from bridge.record.database import at, maybe_at, ms, upsert
from bridge.record.schema import job as J  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import job_problem as P  # noqa: N812
from bridge.record.schema import listed_by
from bridge.record.schema import transition as T  # noqa: N812

_KIND = "missing"
_OF_JOB = and_(P.c.bucket == J.c.bucket, P.c.job_id == J.c.id, P.c.kind == _KIND)


_OF_BUCKET = (
    select(P.c.job_id, J.c.stream, P.c.times, P.c.first_at, P.c.last_at, P.c.ask_at, P.c.seen_at)
    .join(J, _OF_JOB)
    .where(P.c.bucket == bindparam("bucket"), P.c.kind == _KIND)
)


def of_bucket(tx: Connection, bucket: str) -> dict[str, Missing]:
    """Return the jobs of a bucket that CI denied, by id, each with the stream that it belongs to now."""
    return {
        row.job_id: Missing(
            stream=row.stream,
            times=row.times,
            first_at=at(row.first_at),
            last_at=at(row.last_at),
            ask_at=maybe_at(row.ask_at),
            seen_at=maybe_at(row.seen_at),
        )
        for row in tx.execute(_OF_BUCKET, {"bucket": bucket})
    }


def save(tx: Connection, bucket: str, found: Mapping[str, Missing]) -> None:
    for job_id, one in found.items():
        facts = {
            "stream": one.stream,
            "times": one.times,
            "first_at": ms(one.first_at),
            "last_at": ms(one.last_at),
            "ask_at": ms(one.ask_at) if one.ask_at else None,
            "seen_at": ms(one.seen_at) if one.seen_at else None,
        }
        row = upsert(tx, P).values(bucket=bucket, job_id=job_id, kind=_KIND, **facts)
        tx.execute(row.on_conflict_do_update(index_elements=["bucket", "job_id", "kind"], set_=facts))


def forget(tx: Connection, bucket: str, job_ids: Collection[str]) -> None:
    """Forget what was denied of jobs that CI showed, or is not asked for any more."""
    if job_ids:
        tx.execute(delete(P).where(P.c.bucket == bucket, P.c.kind == _KIND, P.c.job_id.in_(list(job_ids))))


_TAKE_OVER = insert(P).from_select(
    ["bucket", "job_id", "kind", "stream", "first_at", "last_at", "ask_at"],
    select(J.c.bucket, J.c.id, literal(_KIND), J.c.stream, T.c.seen_at, T.c.seen_at, T.c.seen_at + bindparam("first"))
    .join(T, and_(T.c.bucket == J.c.bucket, T.c.job_id == J.c.id, T.c.sequence == J.c.sequence))
    .outerjoin(P, _OF_JOB)
    .where(listed_by(T.c.state) == GONE, T.c.seen_at > bindparam("since"), T.c.bucket == bindparam("of"))
    .where(J.c.state == GONE, P.c.job_id.is_(None)),
)


def take_over(tx: Connection, bucket: str, *, since: datetime, first: timedelta) -> None:
    """Ask again for jobs that became gone `since` then without a row here: an older worker believes one denial."""
    tx.execute(_TAKE_OVER, {"of": bucket, "since": ms(since), "first": first // timedelta(milliseconds=1)})
