"""Pruning: what has ended long ago goes, a batch a transaction. What is unfinished stays, whatever its age.

`old_...` look at the next rows of a table and change nothing; `prune_...` take out what may still go of what was
found. Tables are walked by their key from its old end, so no index is needed for it.
What versions before 0004 did not write into deliveries is filled in by the same steps, from the new end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
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

from bridge.record import actions, rulesets
from bridge.record.codec import load_job
from bridge.record.database import ms, upsert
from bridge.record.outbox import digests, silences
from bridge.record.polling import leases, problems
from bridge.record.schema import DEAD, DROPPED, IS_OUT, MERGED, SENT, state_is
from bridge.record.schema import alarm as R  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import horizon as Z  # noqa: N812
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import job_problem as P  # noqa: N812
from bridge.record.schema import lease as L  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import stream as S  # noqa: N812
from bridge.record.schema import thread as H  # noqa: N812
from bridge.record.schema import transition as T  # noqa: N812

LEASE = "pruning"  # beside those of buckets, whose names end in digits
AT_ONCE = 200  # about 50 ms of writing on SQLite
RULES_AT_ONCE = 500  # about 20 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoffs:
    """What ended before `ended` is pruned; dead letters, and threads nobody has used since, before `dead`.

    Of a bucket in `created`, only jobs that were created before that.
    """

    now: datetime
    ended: datetime
    dead: datetime
    created: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Found:
    """Keys of rows that may go, and after which key to look on (None: whatever comes is too young)."""

    keys: Sequence[Any]
    after: Any


def acquire(tx: Connection, worker: str, *, now: datetime) -> bool:
    """Take the lease of pruning; False when another worker prunes.

    Of two at once each would keep a message because of a delivery that the other takes out.
    """
    tx.execute(upsert(tx, L).values(name=LEASE).on_conflict_do_nothing())
    return leases.acquire(tx, LEASE, worker, now=now)


# --- deliveries, with their attempts and messages -----------------------------------------------------------


def _ended(cut: Cutoffs) -> ColumnElement[bool]:
    return or_(
        and_(D.c.state.in_((SENT, MERGED, DROPPED)), D.c.ended_at < ms(cut.ended)),
        and_(state_is(DEAD), D.c.ended_at < ms(cut.dead)),
    )


def old_deliveries(tx: Connection, *, after: int, cut: Cutoffs, most: int = AT_ONCE) -> Found:
    found = select(D.c.n, D.c.created_at, _ended(cut).label("old")).where(D.c.n > after).order_by(D.c.n).limit(most)
    rows = tx.execute(found).all()
    # All of them, not one: a row from an hour when the clock was wrong must not end the walk.
    if all(row.created_at >= ms(cut.ended) for row in rows):
        return Found([], None)
    return Found([row.n for row in rows if row.old], rows[-1].n)


def prune_deliveries(tx: Connection, numbers: Collection[int], *, cut: Cutoffs) -> int:
    """Take out deliveries, their attempts, and the messages that no other delivery tells. Return how many."""
    rows = tx.execute(_held(tx, select(D.c.n, D.c.message).where(D.c.n.in_(numbers), _ended(cut)))).all()
    gone = [row.n for row in rows]
    tx.execute(delete(A).where(A.c.delivery.in_(gone)))
    tx.execute(delete(D).where(D.c.n.in_(gone)))
    told = exists().where(D.c.message == M.c.id)
    tx.execute(delete(M).where(M.c.id.in_({row.message for row in rows}), ~told))
    return len(gone)


def _held(tx: Connection, found: Select[Any]) -> Select[Any]:
    """Lock the rows that nobody has locked: one that is being sent again just now is left alone."""
    return found.with_for_update(skip_locked=True) if tx.dialect.name == "postgresql" else found


# --- the rules of deliveries --------------------------------------------------------------------------------

_newest = tuple_(D.c.created_at, D.c.n)


def without_rule(tx: Connection, *, after: tuple[int, int] | None, most: int = RULES_AT_ONCE) -> Found:
    """Look for deliveries that do not say their rule, from the newest on."""
    found = select(D.c.created_at, D.c.n).where(D.c.rule.is_(None))
    if after is not None:
        # The first condition says no more than the second: SQLite finds the place in its index by it.
        found = found.where(D.c.created_at <= after[0], _newest < tuple_(*after))
    # By the rule too, which is the same of all: PostgreSQL does not see that, and would sort them.
    newest = found.order_by(D.c.rule.desc(), D.c.created_at.desc(), D.c.n.desc())
    rows = tx.execute(newest.limit(most)).all()
    return Found([row.n for row in rows], (rows[-1].created_at, rows[-1].n) if len(rows) == most else None)


def write_rules(tx: Connection, numbers: Collection[int]) -> int:
    """Write down the rules of deliveries, as their messages say them. Return how many."""
    unsaid = select(D.c.n).where(D.c.n.in_(numbers), D.c.rule.is_(None))
    held = tx.execute(_held(tx, unsaid)).scalars().all()
    of_message = select(M.c.rule).where(M.c.id == D.c.message).scalar_subquery()
    tx.execute(update(D).where(D.c.n.in_(held)).values(rule=func.coalesce(of_message, "")))
    return len(held)


# --- jobs, with their transitions ---------------------------------------------------------------------------


def old_jobs(tx: Connection, *, after: int, cut: Cutoffs, most: int = AT_ONCE) -> Found:
    columns = (J.c.n, J.c.bucket, J.c.created_at, J.c.changed_at, _over(cut).label("over"))
    rows = tx.execute(select(*columns).where(J.c.n > after).order_by(J.c.n).limit(most)).all()
    young, bounds = ms(cut.ended), {bucket: ms(moment) for bucket, moment in cut.created.items()}
    # Rows stand in the order in which jobs were first seen, and no job is seen before it is created.
    if all(min(row.created_at, row.changed_at) >= young for row in rows):
        return Found([], None)
    over = [row for row in rows if row.over]
    return Found([row.n for row in over if row.created_at < bounds.get(row.bucket, young)], rows[-1].n)


def _over(cut: Cutoffs) -> ColumnElement[bool]:
    """Return the condition for jobs that ended before the cutoff, or have been watched by no rules since before it."""
    unwatched = J.c.stream.in_(select(S.c.key).where(IS_OUT, S.c.out_at < ms(cut.ended)))
    return and_(J.c.changed_at < ms(cut.ended), or_(~J.c.open, unwatched))


def prune_jobs(tx: Connection, numbers: Collection[int], *, cut: Cutoffs) -> int:
    """Take out jobs with all their transitions, and remember how new the newest was. Return how many."""
    over = select(J.c.n, J.c.bucket, J.c.id, J.c.created_at).where(J.c.n.in_(numbers), _over(cut))
    rows = tx.execute(_held(tx, over)).all()
    by_bucket: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_bucket[row.bucket].append(row)
    for bucket, jobs in sorted(by_bucket.items()):
        ids = [job.id for job in jobs]
        tx.execute(delete(T).where(T.c.bucket == bucket, T.c.job_id.in_(ids)))
        tx.execute(delete(R).where(R.c.bucket == bucket, R.c.job_id.in_(ids)))
        tx.execute(delete(P).where(P.c.bucket == bucket, P.c.job_id.in_(ids)))
        _move_horizon(tx, bucket, max(job.created_at for job in jobs))
    tx.execute(delete(J).where(J.c.n.in_([row.n for row in rows])))
    return len(rows)


def _move_horizon(tx: Connection, bucket: str, to: int) -> None:
    row = upsert(tx, Z).values(bucket=bucket, pruned_to=to)
    tx.execute(
        row.on_conflict_do_update(
            index_elements=["bucket"], set_={"pruned_to": row.excluded.pruned_to}, where=Z.c.pruned_to < to
        )
    )


# --- threads ------------------------------------------------------------------------------------------------


_key = tuple_(H.c.notifier, H.c.thread)


def old_threads(tx: Connection, *, after: tuple[str, str], cut: Cutoffs, most: int = AT_ONCE) -> Found:
    """Look for Slack conversations that nobody has used for long and that no unfinished job belongs to."""
    found = select(H).where(_key > tuple_(*after)).order_by(H.c.notifier, H.c.thread).limit(most)
    rows = tx.execute(found).all()
    old = [row for row in rows if row.used_at < ms(cut.dead)]
    live = _live_threads(tx, cut) if old else frozenset()
    last = (rows[-1].notifier, rows[-1].thread) if rows else None
    return Found([(row.notifier, row.thread) for row in old if row.thread not in live], last)


def _live_threads(tx: Connection, cut: Cutoffs) -> frozenset[str]:
    # A thread is named after its job or workflow run. Whose was used last before then was created before then.
    rows = tx.execute(select(J.c.bucket, J.c.detail).where(J.c.open, J.c.created_at < ms(cut.dead)))
    jobs = ((row.bucket, load_job(row.detail)) for row in rows)
    return frozenset(f"{bucket}/{name}" for bucket, job in jobs for name in (job.id, job.workflow_run))


def prune_threads(tx: Connection, keys: Collection[tuple[str, str]], *, cut: Cutoffs) -> int:
    """Take out threads in which nothing waits to be told. Return how many.

    Those of a version that did not say when they were used begin to age now.
    """
    held = tx.execute(_held(tx, select(H.c.notifier, H.c.thread).where(_key.in_(keys)))).all()
    mine = _key.in_([(row.notifier, row.thread) for row in held])
    tx.execute(update(H).where(mine, H.c.used_at == 0).values(used_at=ms(cut.now)))
    unfinished = and_(literal_column("delivery.state") < literal_column("2"), D.c.lane.is_not(None))
    waits = exists().where(unfinished, D.c.lane == H.c.thread, D.c.notifier == H.c.notifier)
    return tx.execute(delete(H).where(mine, H.c.used_at < ms(cut.dead), ~waits)).rowcount


# --- the rest ---------------------------------------------------------------------------------------------------


def prune_rest(tx: Connection, *, cut: Cutoffs) -> int:
    """Take out what few there are of: digests that nothing names, silences, actions, rulesets nobody has used."""
    gone = digests.prune(tx, before=cut.ended, silences_before=cut.dead) + silences.prune(tx, before=cut.dead)
    gone += actions.prune(tx, before=cut.dead) + rulesets.prune(tx, before=cut.dead)
    return gone + problems.prune(tx, before=cut.ended)
