"""Problems with CI's jobs: what cannot be read, and which jobs CI did not find.

A field cannot be read, or a whole job, which is then left out.
A row is about one job; it goes when the job is read without problems, or has aged. A job that was left out is asked for
by id until it can be read, or is given up.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, func, insert, literal, select, tuple_, update

from bridge.model import GONE, JobProblem, MissingJob
from bridge.record import counters
from bridge.record.codec import Facts, dump, from_row, iso, storable
from bridge.record.counters import Count
from bridge.record.database import at, ms, upsert
from bridge.record.schema import job_problems, jobs, listed_by, same_step, transitions

FIELD, LEFT_OUT = _UNREADABLE = ("field", "left_out")
_MISSING = "missing"
_NO_ID = "?"  # begins the key of a job whose id cannot be read; a hash of the problem follows
_SEEN_EVERY = timedelta(hours=1)  # how often it is stored that a problem is still there
_MORE = 4  # a job is asked for again after this fraction of the time for which it has been left out
_ROW = ["bucket", "job_id", "kind"]  # the primary key
_Key = tuple[str, str]
_c = job_problems.c


# --- jobs and fields that cannot be read ----------------------------------------------------------------------------


def record(
    tx: Connection,
    bucket: str,
    stream: str,
    read: Collection[str],
    problems: Iterable[JobProblem],
    *,
    now: datetime,
    asked: Collection[str] = (),
    first: bool = False,
) -> list[JobProblem]:
    """Store what of one answer cannot be read, and forget the problems of jobs that could be `read`.

    `asked` are the ids that the answer is to, `first` that it is of a first snapshot. Return the problems that are new,
    for the log.
    """
    found = _by_job(problems)
    known: dict[_Key, Row[Any]] = {}
    if tx.execute(_ANY, {"bucket": bucket}).first():  # seldom, and each page asks
        ids = {*read, *asked, *(job_id for job_id, _ in found)}
        known = {(row.job_id, row.kind): row for row in tx.execute(_of(bucket, ids))}
    elif not found:
        return []
    if over := [key for key in known if key not in found and key[0] in read]:
        tx.execute(delete(job_problems).where(_c.bucket == bucket, tuple_(_c.job_id, _c.kind).in_(over)))
    _put_off(tx, [row for row in known.values() if row.job_id in asked and row.job_id not in read], now)
    new = []
    for key, of_job in found.items():
        row = known.get(key)
        if row is None or row.detail != _detail(of_job) or row.last_at < ms(now - _SEEN_EVERY):
            _put(tx, bucket, stream, key, of_job, now, first=first)
        before = set() if row is None else {(field, value) for field, value in json.loads(row.detail)}
        new += [problem for problem in of_job if (problem.field, storable(problem.value)) not in before]
    counters.add(tx, [Count("job_problem", (_kind(problem), problem.field)) for problem in new], now=now)
    return new


_ANY = select(_c.job_id).where(_c.bucket == bindparam("bucket"), _c.kind.in_(_UNREADABLE)).limit(1)


def of_first(tx: Connection, bucket: str, ids: Collection[str]) -> set[str]:
    """Return those of these jobs that a first snapshot showed, and that were left out until now."""
    if not ids or not tx.execute(_ANY, {"bucket": bucket}).first():
        return set()
    return {row.job_id for row in tx.execute(_of(bucket, ids).where(_c.of_first))}


def _kind(problem: JobProblem) -> str:
    return LEFT_OUT if problem.left_out else FIELD


def _by_job(problems: Iterable[JobProblem]) -> Mapping[_Key, Sequence[JobProblem]]:
    found: dict[_Key, list[JobProblem]] = defaultdict(list)
    for problem in problems:
        text = f"{problem.field} {problem.value}".encode(errors="replace")
        job_id = problem.job_id or _NO_ID + blake2b(text, digest_size=8).hexdigest()
        of_job = found[job_id, _kind(problem)]
        if problem not in of_job:  # a job may come twice
            of_job.append(problem)
    return found


def _detail(problems: Iterable[JobProblem]) -> str:
    return dump([[problem.field, storable(problem.value)] for problem in problems])


def _of(bucket: str, ids: Collection[str]) -> Any:
    return select(job_problems).where(_c.bucket == bucket, _c.job_id.in_(ids), _c.kind.in_(_UNREADABLE))


def _put(
    tx: Connection, bucket: str, stream: str, key: _Key, problems: Sequence[JobProblem], now: datetime, *, first: bool
) -> None:
    job_id, kind = key
    is_asked = kind == LEFT_OUT and problems[0].job_id
    row = upsert(tx, job_problems).values(
        bucket=bucket, job_id=job_id, kind=kind, stream=stream, first_at=ms(now), last_at=ms(now),
        ask_at=ms(now) if is_asked else None, detail=_detail(problems), of_first=first and kind == LEFT_OUT,
    )  # fmt: skip
    again = {"last_at": row.excluded.last_at, "detail": row.excluded.detail, "times": _c.times + 1}
    tx.execute(row.on_conflict_do_update(index_elements=_ROW, set_=again))


def _put_off(tx: Connection, rows: Iterable[Row[Any]], now: datetime) -> None:
    for row in rows:
        if row.ask_at is not None:
            after = max(0, ms(now) - row.first_at) // _MORE
            mine = update(job_problems).filter_by(bucket=row.bucket, job_id=row.job_id, kind=row.kind)
            tx.execute(mine.values(ask_at=ms(now) + after))


def to_ask(tx: Connection, streams: Collection[str], *, now: datetime) -> list[tuple[str, str]]:
    """Return (id, stream) of the jobs that were left out and are to be asked for now, the longest due first."""
    due = select(job_problems).where(*_left_out(streams), _c.ask_at <= ms(now)).order_by(_c.ask_at, _c.job_id)
    return [(row.job_id, row.stream) for row in tx.execute(due)]


def give_up(tx: Connection, streams: Collection[str], *, before: datetime) -> list[str]:
    """Stop asking for the jobs that were left out first before then. Return their ids, for the log."""
    old = update(job_problems).where(*_left_out(streams), _c.ask_at.is_not(None), _c.first_at < ms(before))
    return sorted(tx.execute(old.values(ask_at=None).returning(_c.job_id)).scalars())


def _left_out(streams: Collection[str]) -> tuple[Any, ...]:
    return _c.stream.in_(list(streams)), _c.kind == LEFT_OUT


def of_job(tx: Connection, bucket: str, job_id: str) -> list[Facts]:
    """Return what of a job cannot be read, field by field."""
    found = []
    for row in tx.execute(_of(bucket, [job_id]).order_by(_c.kind)):
        times = {"since": iso(row.first_at), "seen_at": iso(row.last_at), "ask_at": iso(row.ask_at)}
        shared = {"left_out": row.kind == LEFT_OUT, **times}
        found += [{"field": field, "value": value, **shared} for field, value in json.loads(row.detail)]
    return found


def no_job(tx: Connection, job_id: str, bucket: str | None = None) -> str:
    """Return why there is no job of this id on record."""
    left_out = select(job_problems).filter_by(job_id=job_id, kind=LEFT_OUT).order_by(_c.bucket)
    row = tx.execute(left_out.filter_by(bucket=bucket) if bucket else left_out).first()
    if row is None:
        return f'no job "{job_id[:100]}" has been seen{f" in bucket {bucket[:100]}" if bucket else ""}'
    what = "; ".join(f'its {field} is "{value}"' for field, value in json.loads(row.detail))
    then = "CI is asked for it by id until it can be read" if row.ask_at is not None else "CI is no longer asked for it"
    since = f"{at(row.first_at):%Y-%m-%d %H:%M:%S} UTC"
    return f'job "{job_id}" in bucket {row.bucket} is left out since {since}, as it cannot be read: {what}; {then}'


def counts(tx: Connection) -> dict[str, int]:
    """Return how many jobs have a field that cannot be read, and how many are left out."""
    rows = tx.execute(select(_c.kind, func.count()).where(_c.kind.in_(_UNREADABLE)).group_by(_c.kind))
    return dict.fromkeys(_UNREADABLE, 0) | {row[0]: row[1] for row in rows}


def prune(tx: Connection, *, before: datetime) -> int:
    """Delete what has not been seen since then."""
    old = delete(job_problems).where(_c.kind.in_(_UNREADABLE), _c.last_at < ms(before))
    return tx.execute(old).rowcount


# --- jobs that CI did not find: how often, and when it is asked for them again ----------------------------------------

_OF_JOB = and_(_c.bucket == jobs.c.bucket, _c.job_id == jobs.c.id, _c.kind == _MISSING)


def missing_jobs(tx: Connection, bucket: str) -> dict[str, MissingJob]:
    """Return the jobs of a bucket that CI did not find, by id, each with the stream that it belongs to now."""
    not_found = select(job_problems, jobs.c.stream.label("of")).join(jobs, _OF_JOB).where(_c.bucket == bucket)
    return {
        row.job_id: from_row(MissingJob, row, stream=row.of, gone_at=_gone_at(row)) for row in tx.execute(not_found)
    }


def _gone_at(row: Row[Any]) -> datetime | None:
    return at(row.first_at) if row.ask_at is not None else None


def save_missing(tx: Connection, bucket: str, found: Mapping[str, MissingJob]) -> None:
    for job_id, missing in found.items():
        facts = {
            "stream": missing.stream,
            "times": missing.times,
            "first_at": ms(missing.gone_at or missing.first_at),
            "last_at": ms(missing.last_at),
            "ask_at": ms(missing.ask_at) if missing.ask_at else None,
            "seen_at": ms(missing.seen_at) if missing.seen_at else None,
        }
        row = upsert(tx, job_problems).values(bucket=bucket, job_id=job_id, kind=_MISSING, **facts)
        tx.execute(row.on_conflict_do_update(index_elements=_ROW, set_=facts))


def forget_missing(tx: Connection, bucket: str, job_ids: Collection[str]) -> None:
    """Forget that CI did not find these jobs: it showed them, or is not asked for them any more."""
    if job_ids:
        not_found = delete(job_problems).filter_by(bucket=bucket, kind=_MISSING)
        tx.execute(not_found.where(_c.job_id.in_(list(job_ids))))


_GONE_AT = transitions.c.seen_at
_TAKE_OVER = insert(job_problems).from_select(
    [*_ROW, "stream", "first_at", "last_at", "ask_at"],
    select(
        jobs.c.bucket, jobs.c.id, literal(_MISSING), jobs.c.stream, _GONE_AT, _GONE_AT, _GONE_AT + bindparam("first")
    )
    .join(transitions, same_step(transitions, jobs))
    .outerjoin(job_problems, _OF_JOB)
    .where(listed_by(transitions.c.state) == GONE, transitions.c.seen_at > bindparam("since"))
    .where(transitions.c.bucket == bindparam("of"), jobs.c.state == GONE, _c.job_id.is_(None)),
)


def take_over_missing(tx: Connection, bucket: str, *, since: datetime, first: timedelta) -> None:
    """Ask again for jobs that became gone `since` then without a row here: an older worker asks only once."""
    tx.execute(_TAKE_OVER, {"of": bucket, "since": ms(since), "first": first // timedelta(milliseconds=1)})
