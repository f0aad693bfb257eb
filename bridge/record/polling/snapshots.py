"""The jobs as last seen, what changed of them, and how far each stream has been listed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, func, insert, null, or_, select, update

from bridge.model import CLOSED, GONE, Job, Seen, Stream, Transition
from bridge.record.codec import dump, dump_job, load_job
from bridge.record.database import at, maybe_at, ms, upsert
from bridge.record.schema import IS_OUT
from bridge.record.schema import horizon as Z  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import job_problem as P  # noqa: N812
from bridge.record.schema import stream as S  # noqa: N812
from bridge.record.schema import transition as T  # noqa: N812


@dataclass(frozen=True, slots=True)
class Known:
    """A job of the snapshot: what `diff` compares with, and what tells whether a row must be written."""

    seen: Seen
    stream: str
    detail: str
    queue: str | None


_KNOWN = select(J.c.id, J.c.state, J.c.sequence, J.c.stream, J.c.detail, J.c.queue).where(
    J.c.bucket == bindparam("bucket"), J.c.id.in_(bindparam("ids", expanding=True))
)


def known(tx: Connection, bucket: str, ids: Collection[str]) -> dict[str, Known]:
    """Return those of the jobs that the snapshot has, by id."""
    rows = tx.execute(_KNOWN, {"bucket": bucket, "ids": list(ids)})
    return {row.id: Known(_seen(*row[:5]), *row[3:]) for row in rows}


def _seen(job_id: str, state: str, sequence: int, _stream: str, detail: str) -> Seen:
    named = load_job(detail).state if state == GONE else None
    return Seen(job_id=job_id, state=state, sequence=sequence, named=named)


def jobs_of(found: Mapping[str, Known]) -> list[tuple[Seen, Job]]:
    return [(one.seen, load_job(one.detail)) for one in found.values()]


def save(
    tx: Connection,
    jobs: Iterable[Job],
    transitions: Sequence[Transition],
    before: Mapping[str, Known],
    *,
    stream: str,
    streams: Collection[str],
    now: datetime,
) -> None:
    """Store the jobs of one page as they are now; `transitions` are what `diff` found among them.

    A job keeps its stream while that is among `streams` (those of the rules in force), else it moves to `stream`.
    What contradicts a closed job is not stored: it is stale.
    """
    moved = {t.job.id: t for t in transitions}
    new, changed, requeued = [], [], []
    for job in jobs:
        was, step = before.get(job.id), moved.get(job.id)
        if was is None:
            new.append(_row(job, step, stream, now))
        elif step or job.state == was.seen.state:
            detail = dump_job(job)
            owner = was.stream if was.stream in streams else stream
            if step or detail != was.detail or owner != was.stream:
                changed.append(_changes(job, was.seen, step, owner, detail, now))
            if job.queue not in (None, was.queue):
                requeued.append({"b_bucket": job.bucket, "b_id": job.id, "queue": job.queue})
    if new:
        tx.execute(insert(J), new)
    if changed:
        tx.execute(_CHANGE, changed)
    if requeued:
        tx.execute(_REQUEUE, requeued)


def _row(job: Job, step: Transition | None, stream: str, now: datetime) -> dict[str, object]:
    return {
        "bucket": job.bucket,
        "id": job.id,
        "stream": stream,
        "tag": job.tag,
        "queue": job.queue,
        "state": job.state,
        "open": job.state not in CLOSED,
        "sequence": step.sequence if step else 0,
        "created_at": ms(job.created_at or now),
        "changed_at": ms(now),
        "detail": dump_job(job),
    }


_ONE = update(J).where(J.c.bucket == bindparam("b_bucket"), J.c.id == bindparam("b_id"))
_REQUEUE = _ONE.values(queue=bindparam("queue"))  # apart, as few are, and lists by queue have an index to change
_CHANGE = _ONE.values(
    {c: bindparam(c.name) for c in (J.c.stream, J.c.state, J.c.open, J.c.sequence, J.c.changed_at, J.c.detail)}
)


def _changes(
    job: Job, seen: Seen, step: Transition | None, stream: str, detail: str, now: datetime
) -> dict[str, object]:
    state = step.to if step else seen.state
    return {
        "b_bucket": job.bucket,
        "b_id": job.id,
        "stream": stream,
        "state": state,
        "open": state not in CLOSED,
        "sequence": step.sequence if step else seen.sequence,
        "changed_at": ms(now),
        "detail": detail,
    }


def close(tx: Connection, transitions: Iterable[Transition], before: Mapping[str, Known], *, now: datetime) -> None:
    """Store that CI no longer knows these jobs; what was last seen of them stays."""
    changes = [
        _changes(t.job, before[t.job.id].seen, t, before[t.job.id].stream, before[t.job.id].detail, now)
        for t in transitions
    ]
    if changes:
        tx.execute(_CHANGE, changes)


def add_transitions(
    tx: Connection,
    told: Iterable[tuple[Transition, Sequence[tuple[str, Sequence[str]]]]],
    *,
    rules: str | None = None,
) -> None:
    """Store transitions, each with the rules that fired and the notifiers they told; `rules` judged them."""
    rows = [
        {
            "bucket": t.job.bucket,
            "job_id": t.job.id,
            "sequence": t.sequence,
            "was": t.was,
            "state": t.to,
            "tag": t.job.tag,
            "queue": t.job.queue,
            "watch": t.watch,
            "happened_at": ms(t.happened_at),
            "seen_at": ms(t.seen_at),
            "silent": t.silent,
            "verdicts": dump(verdicts),
            "detail": dump_job(t.job),
            "rules": rules,
            "still_at": ms(t.still_at) if t.still_at else None,
        }
        for t, verdicts in told
    ]
    if rows:
        tx.execute(insert(T), rows)


@dataclass(frozen=True, slots=True)
class Listed:
    """How far a stream has been listed: not at all (`mark` None) or completely since `mark`.

    `seen_at` is when the last poll began that saw all of its unfinished jobs.
    One that begins anew was out of the rules from `out_at` until `told_from`; `mark_before` is that of before.
    """

    told_from: datetime
    mark: datetime | None
    seen_at: datetime | None = None
    out_at: datetime | None = None
    mark_before: datetime | None = None


_LISTED = select(S).where(S.c.key.in_(bindparam("keys", expanding=True)))


def listed(tx: Connection, keys: Collection[str]) -> dict[str, Listed]:
    """Return what is known of these streams."""
    return {row.key: _listed(row) for row in tx.execute(_LISTED, {"keys": list(keys)})}


def _listed(row: Row[Any]) -> Listed:
    told_from, mark, seen_at = at(row.told_from), maybe_at(row.mark), maybe_at(row.seen_at)
    if row.out_at is None or row.out_at >= row.told_from:
        return Listed(told_from, mark, seen_at)
    return Listed(told_from, None, seen_at, at(row.out_at), mark)


def meet(tx: Connection, key: str, told_from: datetime) -> None:
    """Remember that a stream is asked for the first time; jobs created from `told_from` on are told."""
    tx.execute(upsert(tx, S).values(key=key, told_from=ms(told_from)).on_conflict_do_nothing())


_MARK = update(S).where(S.c.key == bindparam("of")).values(mark=bindparam("then"))
_SEEN = update(S).where(S.c.key.in_(bindparam("keys", expanding=True))).values(seen_at=bindparam("then"))


def set_mark(tx: Connection, key: str, mark: datetime) -> None:
    tx.execute(_MARK, {"of": key, "then": ms(mark)})


def set_seen(tx: Connection, keys: Collection[str], seen_at: datetime) -> None:
    """Remember that the poll that began then saw all unfinished jobs of these streams."""
    tx.execute(_SEEN, {"keys": list(keys), "then": ms(seen_at)})


def leave(tx: Connection, keys: Collection[str], *, now: datetime) -> None:
    """Remember that streams other than these are out of the rules. One that was to begin anew still is."""
    anew = S.c.out_at < S.c.told_from
    facts = {
        "out_at": ms(now),
        "mark": case((anew, null()), else_=S.c.mark),
        "told_from": case((S.c.told_from >= ms(now), ms(now) - 1), else_=S.c.told_from),  # by a clock that was ahead
    }
    tx.execute(update(S).where(S.c.key.not_in(list(keys)), or_(S.c.out_at.is_(None), anew)).values(facts))


def left(tx: Connection, keys: Collection[str]) -> dict[str, tuple[datetime, datetime | None]]:
    """Return those of these streams that the record has as out of the rules: since when, and their mark."""
    found = select(S.c.key, S.c.out_at, S.c.mark).where(S.c.key.in_(list(keys)), IS_OUT)
    return {row.key: (at(row.out_at), maybe_at(row.mark)) for row in tx.execute(found)}


def come_back(tx: Connection, key: str, *, told_from: datetime | None = None) -> None:
    """Remember that a stream is in the rules again; with `told_from` it begins anew, and tells jobs from then on.

    Its first complete listing, or the finding that it was not out for so long, ends that.
    """
    facts: dict[str, object] = {"told_from": ms(told_from)} if told_from else {"out_at": None}
    tx.execute(update(S).where(S.c.key == key).values(facts))


_HORIZON = select(Z.c.pruned_to).where(Z.c.bucket == bindparam("bucket"))


def horizon(tx: Connection, bucket: str) -> datetime | None:
    """Return the creation time up to which jobs of a bucket may have been pruned, if any were.

    Ask after `known`: a job that was taken out in between is then known to be.
    """
    return maybe_at(tx.execute(_HORIZON, {"bucket": bucket}).scalar())


def adopt(tx: Connection, streams: Sequence[Stream]) -> None:
    """Give jobs whose stream is no more to one that covers their tag and queue, which follows them on.

    Those are the unfinished ones, and the ones that are gone and asked for again.
    """
    keys = [stream.key for stream in streams]
    for stream in streams:
        bucket = stream.place.bucket
        orphans = update(J).where(J.c.bucket == bucket, J.c.tag == stream.tag, J.c.stream.not_in(keys))
        if stream.queue is not None:
            orphans = orphans.where(J.c.queue == stream.queue)
        missing = select(P.c.job_id).where(P.c.bucket == bucket, P.c.kind == "missing")
        for followed in (J.c.open, and_(J.c.state == GONE, J.c.id.in_(missing))):
            tx.execute(orphans.where(followed).values(stream=stream.key))


_CREATED = select(J.c.created_at).where(J.c.stream == bindparam("of"))
_OPEN_CREATED = _CREATED.where(J.c.open).order_by(J.c.created_at)
_CREATED_SINCE = (
    _CREATED.where(J.c.created_at >= bindparam("since")).order_by(J.c.created_at.desc()).limit(bindparam("most"))
)
_OPEN_IDS = (
    select(J.c.id, J.c.stream)
    .where(J.c.stream.in_(bindparam("keys", expanding=True)), J.c.open)
    .order_by(J.c.created_at)
)


def open_created(tx: Connection, key: str) -> list[datetime]:
    """Return the creation times of a stream's unfinished jobs, ascending."""
    return [at(created_at) for created_at in tx.execute(_OPEN_CREATED, {"of": key}).scalars()]


MOST_KNOWN = 20_000


def created_since(tx: Connection, key: str, since: datetime, *, most: int = MOST_KNOWN) -> list[datetime]:
    """Return the creation times of a stream's jobs since then, ascending, the newest `most` of them at the most."""
    times = tx.execute(_CREATED_SINCE, {"of": key, "since": ms(since), "most": most}).scalars()
    return [at(created_at) for created_at in times][::-1]


def open_ids(tx: Connection, keys: Collection[str]) -> list[tuple[str, str]]:
    """Return (id, stream) of the unfinished jobs of these streams, the oldest first."""
    return [(row.id, row.stream) for row in tx.execute(_OPEN_IDS, {"keys": list(keys)})]


@dataclass(frozen=True, slots=True)
class Judged:
    """A stored transition, and the ruleset that judged it (None: before those were kept)."""

    n: int
    transition: Transition
    rules: str | None


def transitions_of(tx: Connection, job_id: str) -> list[Judged]:
    """Return the transitions of the jobs of this id, oldest first, with the job as it was then."""
    rows = tx.execute(select(T).where(T.c.job_id == job_id).order_by(T.c.bucket, T.c.sequence))
    return [judged(row) for row in rows]


def count_transitions(tx: Connection, job_id: str, bucket: str | None = None) -> int:
    mine = select(func.count()).where(T.c.job_id == job_id)
    return tx.execute(mine.where(T.c.bucket == bucket) if bucket else mine).scalar_one()


def transition_at(tx: Connection, bucket: str, job_id: str, sequence: int) -> Transition | None:
    """Return one transition, if it is still on record."""
    found = select(T).where(T.c.bucket == bucket, T.c.job_id == job_id, T.c.sequence == sequence)
    row = tx.execute(found).first()
    return judged(row).transition if row else None


def judged(row: Row[Any]) -> Judged:
    transition = Transition(
        job=load_job(row.detail),
        was=row.was,
        to=row.state,
        sequence=row.sequence,
        seen_at=at(row.seen_at),
        watch=row.watch,
        silent=row.silent,
        still_at=maybe_at(row.still_at),
    )
    return Judged(row.n, transition, row.rules)
