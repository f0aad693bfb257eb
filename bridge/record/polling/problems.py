"""Of CI's jobs: what cannot be read (a field, or a job as a whole, which is then left out), and which CI denies.

A row is one job's; it goes when the job is read well, or has aged. A job that was left out is asked for by id until
it can be read, or is given up.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, func, insert, literal, select, tuple_, update

from bridge.model import GONE, Missing, Problem
from bridge.record import counters
from bridge.record.codec import dump, storable
from bridge.record.counters import Count
from bridge.record.database import at, maybe_at, ms, upsert
from bridge.record.queries.lists import Facts, iso
from bridge.record.schema import job as J  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import job_problem as B  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import job_problem as P  # noqa: N812
from bridge.record.schema import listed_by
from bridge.record.schema import transition as T  # noqa: N812

FIELD, LEFT_OUT = _KINDS = ("field", "left_out")
_NO_ID = "?"  # begins the key of a job whose id cannot be read: what is told of it follows
_SEEN_EVERY = timedelta(hours=1)  # how often it is written that a problem is still there
_MORE = 4  # a job that has been left out for so long is asked for again after a fraction of that
_Key = tuple[str, str]


def record(
    tx: Connection,
    bucket: str,
    stream: str,
    read: Collection[str],
    problems: Iterable[Problem],
    *,
    now: datetime,
    asked: Collection[str] = (),
    first: bool = False,
) -> list[Problem]:
    """Store what of one answer cannot be read, and forget what was wrong of the jobs that could be `read`.

    `asked` are the ids that the answer is to, `first` that it is of a first snapshot. Return the problems that are new,
    for the log.
    """
    found = _by_job(problems)
    known: dict[_Key, Row[Any]] = {}
    if tx.execute(_ANY, {"bucket": bucket}).first():  # seldom: and each page asks
        ids = {*read, *asked, *(job_id for job_id, _ in found)}
        known = {(row.job_id, row.kind): row for row in tx.execute(_of(bucket, ids))}
    elif not found:
        return []
    _forget(tx, bucket, [key for key in known if key not in found and key[0] in read])
    _put_off(tx, bucket, [row for row in known.values() if row.job_id in asked and row.job_id not in read], now)
    new = []
    for key, told in found.items():
        row = known.get(key)
        if row is None or row.detail != _detail(told) or row.last_at < ms(now - _SEEN_EVERY):
            _put(tx, bucket, stream, key, told, now, first=first)
        before = set() if row is None else {tuple(one) for one in json.loads(row.detail)}
        new += [problem for problem in told if (problem.field, storable(problem.value)) not in before]
    counters.add(tx, [Count("job_problem", (_kind(one), one.field)) for one in new], now=now)
    return new


_ANY = select(B.c.job_id).where(B.c.bucket == bindparam("bucket"), B.c.kind.in_(_KINDS)).limit(1)


def of_first(tx: Connection, bucket: str, ids: Collection[str]) -> set[str]:
    """Return those of these jobs that a first snapshot showed, and that were left out until now."""
    if not ids or not tx.execute(_ANY, {"bucket": bucket}).first():
        return set()
    return set(tx.execute(_of(bucket, ids).where(B.c.of_first).with_only_columns(B.c.job_id)).scalars())


def _kind(problem: Problem) -> str:
    return LEFT_OUT if problem.left_out else FIELD


def _by_job(problems: Iterable[Problem]) -> Mapping[_Key, Sequence[Problem]]:
    found: dict[_Key, list[Problem]] = defaultdict(list)
    for one in problems:
        told = blake2b(f"{one.field} {one.value}".encode(errors="replace"), digest_size=8).hexdigest()
        mine = found[one.job_id or _NO_ID + told, _kind(one)]
        if one not in mine:  # a job may come twice
            mine.append(one)
    return found


def _detail(problems: Iterable[Problem]) -> str:
    return dump([[one.field, storable(one.value)] for one in problems])


def _of(bucket: str, ids: Collection[str]) -> Any:
    return select(B).where(B.c.bucket == bucket, B.c.job_id.in_(ids), B.c.kind.in_(_KINDS))


def _forget(tx: Connection, bucket: str, keys: Sequence[_Key]) -> None:
    if keys:
        tx.execute(delete(B).where(B.c.bucket == bucket, tuple_(B.c.job_id, B.c.kind).in_(keys)))


def _put(
    tx: Connection, bucket: str, stream: str, key: _Key, problems: Sequence[Problem], now: datetime, *, first: bool
) -> None:
    job_id, kind = key
    is_asked = kind == LEFT_OUT and problems[0].job_id
    row = upsert(tx, B).values(
        bucket=bucket, job_id=job_id, kind=kind, stream=stream, first_at=ms(now), last_at=ms(now),
        ask_at=ms(now) if is_asked else None, detail=_detail(problems), of_first=first and kind == LEFT_OUT,
    )  # fmt: skip
    again = {"last_at": row.excluded.last_at, "detail": row.excluded.detail, "times": B.c.times + 1}
    tx.execute(row.on_conflict_do_update(index_elements=["bucket", "job_id", "kind"], set_=again))


def _put_off(tx: Connection, bucket: str, rows: Iterable[Row[Any]], now: datetime) -> None:
    for row in rows:
        if row.ask_at is not None:
            after = max(0, ms(now) - row.first_at) // _MORE
            mine = (B.c.bucket == bucket, B.c.job_id == row.job_id, B.c.kind == row.kind)
            tx.execute(update(B).where(*mine).values(ask_at=ms(now) + after))


_TO_ASK = (
    select(B)
    .where(B.c.stream.in_(bindparam("keys", expanding=True)), B.c.kind == LEFT_OUT, B.c.ask_at <= bindparam("now"))
    .order_by(B.c.ask_at, B.c.job_id)
)
_GIVE_UP = (
    update(B)
    .where(B.c.stream.in_(bindparam("keys", expanding=True)), B.c.kind == LEFT_OUT)
    .where(B.c.ask_at.is_not(None), B.c.first_at < bindparam("before"))
    .values(ask_at=None)
    .returning(B.c.job_id)
)


def to_ask(tx: Connection, streams: Collection[str], *, now: datetime) -> list[tuple[str, str]]:
    """Return (id, stream) of the jobs that were left out and are to be asked for now, the longest due first."""
    return [(row.job_id, row.stream) for row in tx.execute(_TO_ASK, {"keys": list(streams), "now": ms(now)})]


def give_up(tx: Connection, streams: Collection[str], *, before: datetime) -> list[str]:
    """Ask no more for the jobs that were left out first before then. Return their ids, for the log."""
    return sorted(tx.execute(_GIVE_UP, {"keys": list(streams), "before": ms(before)}).scalars())


def of_job(tx: Connection, bucket: str, job_id: str) -> list[Facts]:
    """Return what of a job cannot be read, a fact for each field."""
    return [facts for row in tx.execute(_of(bucket, [job_id]).order_by(B.c.kind)) for facts in _facts(row)]


def _facts(row: Row[Any]) -> list[Facts]:
    shared = {
        "left_out": row.kind == LEFT_OUT,
        "since": iso(row.first_at),
        "seen_at": iso(row.last_at),
        "ask_at": iso(row.ask_at),
    }
    return [{"field": field, "value": value, **shared} for field, value in json.loads(row.detail)]


def no_job(tx: Connection, job_id: str, bucket: str | None = None) -> str:
    """Return why there is no job of this id on record."""
    left_out = select(B).where(B.c.job_id == job_id, B.c.kind == LEFT_OUT)
    row = tx.execute(left_out.where(B.c.bucket == bucket) if bucket else left_out.order_by(B.c.bucket)).first()
    if row is None:
        return f'no job "{job_id[:100]}" has been seen{f" in bucket {bucket[:100]}" if bucket else ""}'
    what = "; ".join(f'its {field} is "{value}"' for field, value in json.loads(row.detail))
    then = "CI is asked for it by id until it can be read" if row.ask_at is not None else "CI is no longer asked for it"
    since = f"{at(row.first_at):%Y-%m-%d %H:%M:%S} UTC"
    return f'job "{job_id}" in bucket {row.bucket} is left out since {since}, as it cannot be read: {what}; {then}'


def counts(tx: Connection) -> dict[str, int]:
    """Return how many jobs have a field that cannot be read, and how many are left out."""
    rows = tx.execute(select(B.c.kind, func.count()).where(B.c.kind.in_(_KINDS)).group_by(B.c.kind))
    return dict.fromkeys(_KINDS, 0) | {row[0]: row[1] for row in rows}


def prune(tx: Connection, *, before: datetime) -> int:
    """Take out what has not been seen since then."""
    return tx.execute(delete(B).where(B.c.kind.in_(_KINDS), B.c.last_at < ms(before))).rowcount


# --- jobs that CI denied: how often, and when it is asked for them again --------------------------------------------

_KIND = "missing"
_OF_JOB = and_(P.c.bucket == J.c.bucket, P.c.job_id == J.c.id, P.c.kind == _KIND)


_OF_BUCKET = (
    select(P.c.job_id, J.c.stream, P.c.times, P.c.first_at, P.c.last_at, P.c.ask_at, P.c.seen_at)
    .join(J, _OF_JOB)
    .where(P.c.bucket == bindparam("bucket"), P.c.kind == _KIND)
)


def denials(tx: Connection, bucket: str) -> dict[str, Missing]:
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


def save_denials(tx: Connection, bucket: str, found: Mapping[str, Missing]) -> None:
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


def forget_denials(tx: Connection, bucket: str, job_ids: Collection[str]) -> None:
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


def take_over_denials(tx: Connection, bucket: str, *, since: datetime, first: timedelta) -> None:
    """Ask again for jobs that became gone `since` then without a row here: an older worker believes one denial."""
    tx.execute(_TAKE_OVER, {"of": bucket, "since": ms(since), "first": first // timedelta(milliseconds=1)})
