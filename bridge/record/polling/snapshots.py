"""The jobs as last seen, what changed of them, and how far each stream has been listed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, func, insert, null, or_, select, text, update

from bridge.model import CLOSED, GONE, PAUSE, Job, SeenJob, Stream, Transition, UnfinishedJob
from bridge.record.codec import dump, dump_job, from_row, load_job
from bridge.record.database import at, maybe_at, ms, upsert
from bridge.record.schema import IS_OUT, horizons, job_problems, jobs, streams, transitions

# --- jobs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """A job of the snapshot: what `diff` compares with, and what decides whether a row must be written."""

    seen: SeenJob
    stream: str
    detail: str
    queue: str | None


_KNOWN = select(jobs.c.id, jobs.c.state, jobs.c.sequence, jobs.c.stream, jobs.c.detail, jobs.c.queue).where(
    jobs.c.bucket == bindparam("bucket"), jobs.c.id.in_(bindparam("ids", expanding=True))
)


def known(tx: Connection, bucket: str, ids: Collection[str]) -> dict[str, Known]:
    """Return those of the jobs that the snapshot has, by id."""
    rows = tx.execute(_KNOWN, {"bucket": bucket, "ids": list(ids)})
    return {
        job_id: Known(_seen(job_id, state, sequence, detail), stream, detail, queue)
        for job_id, state, sequence, stream, detail, queue in rows
    }


def _seen(job_id: str, state: str, sequence: int, detail: str) -> SeenJob:
    last = load_job(detail) if state in (GONE, PAUSE) else None
    return SeenJob(
        job_id=job_id,
        state=state,
        sequence=sequence,
        last_ci_state=last.state if last and state == GONE else None,
        has_started=last is not None and last.started_at is not None,
    )


def jobs_of(before: Mapping[str, Known]) -> list[tuple[SeenJob, Job]]:
    return [(job.seen, load_job(job.detail)) for job in before.values()]


_ONE = update(jobs).where(jobs.c.bucket == bindparam("b_bucket"), jobs.c.id == bindparam("b_id"))
_REQUEUE = _ONE.values(queue=bindparam("queue"))  # apart, as few are, and lists by queue have an index to change
_CHANGE = _ONE.values({c: bindparam(c) for c in ("stream", "state", "open", "sequence", "changed_at", "detail")})


def save(
    tx: Connection,
    page: Iterable[Job],
    steps: Sequence[Transition],
    before: Mapping[str, Known],
    *,
    stream: str,
    streams: Collection[str],
    now: datetime,
) -> None:
    """Store the jobs of one page as they are now; `steps` are what `diff` found among them.

    A job keeps its stream while that is among `streams` (those of the rules in force), else it moves to `stream`.
    What contradicts a closed job is not stored: it is stale.
    """
    moved = {step.job.id: step for step in steps}
    new, changed, requeued = [], [], []
    for job in page:
        was, step = before.get(job.id), moved.get(job.id)
        if was is None:
            facts = _state(job.state, step.sequence if step else 0, stream, dump_job(job), now)
            created_at = ms(job.created_at or now)
            identity = {"bucket": job.bucket, "id": job.id, "tag": job.tag, "queue": job.queue}
            new.append({**identity, "created_at": created_at, **facts})
        elif step or job.state == was.seen.state:
            detail = dump_job(job)
            owner = was.stream if was.stream in streams else stream
            if step or detail != was.detail or owner != was.stream:
                state, sequence = (step.to, step.sequence) if step else (was.seen.state, was.seen.sequence)
                changed.append(_key(job) | _state(state, sequence, owner, detail, now))
            if job.queue not in (None, was.queue):
                requeued.append({**_key(job), "queue": job.queue})
    for statement, rows in ((insert(jobs), new), (_CHANGE, changed), (_REQUEUE, requeued)):
        if rows:
            tx.execute(statement, rows)


def _key(job: Job) -> dict[str, object]:
    return {"b_bucket": job.bucket, "b_id": job.id}


def _state(state: str, sequence: int, stream: str, detail: str, now: datetime) -> dict[str, object]:
    return {
        "stream": stream,
        "state": state,
        "open": state not in CLOSED,
        "sequence": sequence,
        "changed_at": ms(now),
        "detail": detail,
    }


def close(tx: Connection, steps: Iterable[Transition], before: Mapping[str, Known], *, now: datetime) -> None:
    """Store that CI no longer knows these jobs; what was last seen of them stays."""
    closed = [(step, before[step.job.id]) for step in steps]
    if closed:
        rows = [_key(step.job) | _state(step.to, step.sequence, last.stream, last.detail, now) for step, last in closed]
        tx.execute(_CHANGE, rows)


MOST_KNOWN = 20_000

_UNFINISHED = (
    select(jobs.c.id, jobs.c.stream, jobs.c.state, jobs.c.created_at)
    .where(jobs.c.stream.in_(bindparam("keys", expanding=True)), jobs.c.open)
    .order_by(jobs.c.created_at)
)
# By itself SQLite, which keeps no statistics, may take the index of all jobs of a stream.
_UNFINISHED_OF_SQLITE = text(
    "SELECT id, stream, state, created_at FROM job INDEXED BY job_open"
    " WHERE stream IN :keys AND open = 1 ORDER BY created_at"
).bindparams(bindparam("keys", expanding=True))


def unfinished(tx: Connection, keys: Collection[str]) -> list[UnfinishedJob]:
    """Return the unfinished jobs of these streams, the oldest first."""
    query = _UNFINISHED_OF_SQLITE if tx.dialect.name == "sqlite" else _UNFINISHED
    return [
        UnfinishedJob(job_id=job_id, stream=stream, state=state, created_at=at(created_at))
        for job_id, stream, state, created_at in tx.execute(query, {"keys": list(keys)})
    ]


_MOST_OLDEST = 100
_OLDEST = select(jobs.c.detail).where(jobs.c.stream == bindparam("of"), jobs.c.open)
_OLDEST = _OLDEST.order_by(jobs.c.created_at).limit(bindparam("most"))
_OLDEST_OF_SQLITE = text(
    "SELECT detail FROM job INDEXED BY job_open WHERE stream = :of AND open = 1 ORDER BY created_at LIMIT :most"
)


def oldest_unfinished(tx: Connection, keys: Collection[str]) -> list[Job]:
    """Return the oldest unfinished jobs of each of these streams, a hundred at the most, in the order of creation."""
    query = _OLDEST_OF_SQLITE if tx.dialect.name == "sqlite" else _OLDEST
    asked = [{"of": key, "most": _MOST_OLDEST} for key in keys]
    found = [load_job(detail) for one in asked for detail in tx.execute(query, one).scalars()]
    return sorted(found, key=lambda job: (job.created_at is None, job.created_at))


def created_since(tx: Connection, key: str, since: datetime, *, most: int = MOST_KNOWN) -> list[datetime]:
    """Return the creation times of a stream's jobs since then, ascending, the newest `most` of them at the most."""
    recent = select(jobs.c.created_at).where(jobs.c.stream == key, jobs.c.created_at >= ms(since))
    times = tx.execute(recent.order_by(jobs.c.created_at.desc()).limit(most)).scalars()
    return [at(created_at) for created_at in times][::-1]


def count_since(tx: Connection, key: str, since: datetime) -> int:
    """Return how many of a stream's jobs were created since then, counted up to MOST_KNOWN."""
    recent = select(jobs.c.created_at).where(jobs.c.stream == key, jobs.c.created_at >= ms(since)).limit(MOST_KNOWN)
    return tx.execute(select(func.count()).select_from(recent.subquery())).scalar_one()


_HORIZON = select(horizons.c.pruned_to).where(horizons.c.bucket == bindparam("bucket"))


def horizon(tx: Connection, bucket: str) -> datetime | None:
    """Return the creation time up to which jobs of a bucket may have been pruned, if any were.

    Call it after `known`: a job that is pruned in between is then in what `known` returned.
    """
    return maybe_at(tx.execute(_HORIZON, {"bucket": bucket}).scalar())


# --- transitions ----------------------------------------------------------------------------------------------------


def add_transitions(
    tx: Connection,
    matched: Iterable[tuple[Transition, Sequence[tuple[str, Sequence[str]]]]],
    *,
    rules: str | None = None,
) -> None:
    """Store transitions, each with the rules that fired and the notifiers they named; `rules` is the ruleset."""
    rows = [
        {
            "bucket": step.job.bucket,
            "job_id": step.job.id,
            "sequence": step.sequence,
            "was": step.was,
            "state": step.to,
            "tag": step.job.tag,
            "queue": step.job.queue,
            "watch": step.watch,
            "happened_at": ms(step.happened_at),
            "seen_at": ms(step.seen_at),
            "silent": step.silent,
            "verdicts": dump(verdicts),
            "detail": dump_job(step.job),
            "rules": rules,
            "still_at": ms(step.still_at) if step.still_at else None,
            "inferred": step.inferred,
        }
        for step, verdicts in matched
    ]
    if rows:
        tx.execute(insert(transitions), rows)


@dataclass(frozen=True, slots=True)
class Judged:
    """A stored transition, and the ruleset it was matched against (None: before those were kept)."""

    n: int
    transition: Transition
    rules: str | None


def transition_of(row: Row[Any]) -> Transition:
    return from_row(Transition, row, job=load_job(row.detail), to=row.state)


def transitions_of(tx: Connection, job_id: str) -> list[Judged]:
    """Return the transitions of the jobs of this id, oldest first, with the job as it was then."""
    mine = select(transitions).filter_by(job_id=job_id).order_by(transitions.c.bucket, transitions.c.sequence)
    return [Judged(row.n, transition_of(row), row.rules) for row in tx.execute(mine)]


def count_transitions(tx: Connection, job_id: str, bucket: str | None = None) -> int:
    mine = select(func.count()).select_from(transitions).filter_by(job_id=job_id)
    return tx.execute(mine.filter_by(bucket=bucket) if bucket else mine).scalar_one()


def count_news(tx: Connection, watch: str, *, after: datetime) -> int:
    """Return how many transitions a watch has seen after then, without silent ones."""
    mine = select(func.count()).select_from(transitions).filter_by(watch=watch, silent=None)
    return tx.execute(mine.where(transitions.c.seen_at > ms(after), ~transitions.c.inferred)).scalar_one()


def transition_at(tx: Connection, bucket: str, job_id: str, sequence: int) -> Transition | None:
    """Return one transition, if it is still on record."""
    row = tx.execute(select(transitions).filter_by(bucket=bucket, job_id=job_id, sequence=sequence)).first()
    return transition_of(row) if row else None


# --- streams --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """How far a stream has been listed: not at all (`mark` None) or completely since `mark`.

    `seen_at` is when the last poll began that saw all of its unfinished jobs.
    One that begins anew was out of the rules from `out_at` until `told_from`; `mark_before` is that of before.
    `states_ignored_at` is when CI was seen to ignore the states that it was asked for, `lag` the longest time that it
    took CI of late to list a job, `deep_at` when the last list began that went well before the mark, and `news_at` when
    one last showed a job for the first time.
    """

    told_from: datetime
    mark: datetime | None
    seen_at: datetime | None = None
    out_at: datetime | None = None
    mark_before: datetime | None = None
    states_ignored_at: datetime | None = None
    lag: timedelta | None = None
    deep_at: datetime | None = None
    news_at: datetime | None = None


def listed(tx: Connection, keys: Collection[str]) -> dict[str, Listed]:
    """Return what is known of these streams."""
    rows = tx.execute(select(streams).where(streams.c.key.in_(list(keys))))
    return {row.key: _listed(row) for row in rows}


def _listed(row: Row[Any]) -> Listed:
    told_from, mark, out_at = at(row.told_from), maybe_at(row.mark), maybe_at(row.out_at)
    known = Listed(
        told_from,
        mark,
        maybe_at(row.seen_at),
        states_ignored_at=maybe_at(row.states_ignored_at),
        lag=None if row.lag_ms is None else timedelta(milliseconds=row.lag_ms),
        deep_at=maybe_at(row.deep_at),
        news_at=maybe_at(row.news_at),
    )
    is_anew = out_at is not None and out_at < told_from
    return replace(known, mark=None, out_at=out_at, mark_before=mark) if is_anew else known


def meet(tx: Connection, key: str, told_from: datetime) -> None:
    """Store that a stream is listed for the first time; jobs created from `told_from` on are news."""
    tx.execute(upsert(tx, streams).values(key=key, told_from=ms(told_from)).on_conflict_do_nothing())


def set_mark(tx: Connection, key: str, mark: datetime) -> None:
    tx.execute(update(streams).filter_by(key=key).values(mark=ms(mark)))


_NEWS = update(streams).where(streams.c.key == bindparam("of")).values(news_at=bindparam("at"), lag_ms=bindparam("lag"))


def note_news(tx: Connection, key: str, now: datetime, lag: timedelta | None) -> None:
    """Store that a list has shown a job for the first time, and the lag that is known now."""
    tx.execute(_NEWS, {"of": key, "at": ms(now), "lag": None if lag is None else lag // timedelta(milliseconds=1)})


def note_deep(tx: Connection, key: str, deep_at: datetime, lag: timedelta | None) -> None:
    """Store when a list began that went well before the mark and has ended, and the lag to expect now."""
    facts = {"deep_at": ms(deep_at), "lag_ms": None if lag is None else lag // timedelta(milliseconds=1)}
    tx.execute(update(streams).filter_by(key=key).values(facts))


def note_states_ignored(tx: Connection, key: str, now: datetime) -> None:
    """Store that CI's answers about a stream showed that it ignores the states it was asked for."""
    tx.execute(update(streams).filter_by(key=key).values(states_ignored_at=ms(now)))


def seen(tx: Connection) -> dict[str, datetime]:
    """Return by stream when the last poll began that saw all of its unfinished jobs."""
    rows = tx.execute(select(streams.c.key, streams.c.seen_at).where(streams.c.seen_at.is_not(None)))
    return {row.key: at(row.seen_at) for row in rows}


def set_seen(tx: Connection, keys: Collection[str], seen_at: datetime) -> None:
    """Store that the poll that began then saw all unfinished jobs of these streams."""
    tx.execute(update(streams).where(streams.c.key.in_(list(keys))).values(seen_at=ms(seen_at)))


def leave(tx: Connection, keys: Collection[str], *, now: datetime) -> None:
    """Store that streams other than these are out of the rules. One that was to begin anew still is."""
    anew = streams.c.out_at < streams.c.told_from
    was_ahead = streams.c.told_from >= ms(now)  # by a clock that was ahead
    facts = {
        "out_at": ms(now),
        "mark": case((anew, null()), else_=streams.c.mark),
        "told_from": case((was_ahead, ms(now) - 1), else_=streams.c.told_from),
    }
    others = (streams.c.key.not_in(list(keys)), or_(streams.c.out_at.is_(None), anew))
    tx.execute(update(streams).where(*others).values(facts))


def left(tx: Connection, keys: Collection[str]) -> dict[str, tuple[datetime, datetime | None]]:
    """Return which of these streams are stored as out of the rules: since when, and their mark."""
    rows = tx.execute(select(streams).where(streams.c.key.in_(list(keys)), IS_OUT))
    return {row.key: (at(row.out_at), maybe_at(row.mark)) for row in rows}


def come_back(tx: Connection, key: str, *, told_from: datetime | None = None) -> None:
    """Store that a stream is in the rules again; with `told_from` it begins anew, and jobs are news from then on.

    That ends with its first complete listing, or when it turns out that it was not out for so long.
    """
    facts: dict[str, object] = {"told_from": ms(told_from)} if told_from else {"out_at": None}
    tx.execute(update(streams).filter_by(key=key).values(facts))


def adopt(tx: Connection, current: Sequence[Stream]) -> None:
    """Give jobs whose stream is gone to one that covers their tag and queue, which follows them from now on.

    Those are the unfinished ones, and the ones that are gone and asked for again.
    """
    keys = [stream.key for stream in current]
    for stream in current:
        bucket = stream.place.bucket
        orphans = update(jobs).where(jobs.c.bucket == bucket, jobs.c.tag == stream.tag, jobs.c.stream.not_in(keys))
        if stream.queue is not None:
            orphans = orphans.where(jobs.c.queue == stream.queue)
        missing = select(job_problems.c.job_id).filter_by(bucket=bucket, kind="missing")
        for followed in (jobs.c.open, and_(jobs.c.state == GONE, jobs.c.id.in_(missing))):
            tx.execute(orphans.where(followed).values(stream=stream.key))
