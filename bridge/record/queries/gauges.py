"""How the bridge stands: watches, notifiers, workers, and the facts that `pipeline/health.py` judges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, literal_column, or_, select, union_all

from bridge.record import rulesets
from bridge.record.database import at, ms
from bridge.record.outbox import digests
from bridge.record.polling import problems
from bridge.record.queries.lists import Facts, iso
from bridge.record.rulesets import Standing
from bridge.record.schema import DEAD, IS_OUT, SENDING, WAITING, state_is
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import digest as G  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import lease as L  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812
from bridge.record.schema import stream as S  # noqa: N812
from bridge.record.schema import watch as W  # noqa: N812
from bridge.record.schema import worker as P  # noqa: N812

# --- what stands at this moment; no ended row is read ---------------------------------------------------------------


def holders(tx: Connection, *, now: datetime) -> dict[str, str]:
    """Return by name of a lease the worker that holds it now."""
    held = select(L.c.name, L.c.token).where(L.c.token.is_not(None), L.c.until >= ms(now))
    return {row.name: row.token for row in tx.execute(held)}


def open_digests(tx: Connection) -> dict[tuple[str, str], int]:
    """Return by gate and name how many digests have messages and are not told yet."""
    waiting = literal_column("digest.ended_at").is_(None)
    found = select(G.c.gate, G.c.name, func.count()).where(waiting, G.c.members > 0).group_by(G.c.gate, G.c.name)
    return {(gate, name): count for gate, name, count in tx.execute(found)}


def watches(tx: Connection) -> list[Facts]:
    return [_watch(dict(row)) for row in tx.execute(select(W).order_by(W.c.name)).mappings()]


def _watch(row: Facts) -> Facts:
    times = {name: iso(row[name]) if row[name] else None for name in ("next_poll_at", "polled_at", "ok_at")}
    ahead_ms = row.pop("clock_ms")
    ahead = None if ahead_ms is None else ahead_ms / 1000
    return row | times | {"clock_ahead_seconds": ahead, "behind": json.loads(row["behind"] or "[]")}


def notifiers(tx: Connection) -> list[Facts]:
    """Return every notifier with its counts. What was sent again waits since then, however old it is."""
    open_ = select(D.c.notifier, func.count(), func.min(D.c.since)).where(state_is(WAITING)).group_by(D.c.notifier)
    waiting = {name: (count, oldest) for name, count, oldest in tx.execute(open_)}
    sending, dead = _by_notifier(tx, state_is(SENDING)), _by_notifier(tx, state_is(DEAD))
    held = digests.waiting(tx)
    return [
        {
            "name": row.name,
            "type": row.type,
            "paused_at": iso(row.paused_at),
            "paused_why": row.paused_why,
            "paused_reason": row.paused_reason,
            "not_before": iso(row.not_before) if row.not_before else None,
            "failures": row.failures,
            "max_in_flight": row.max_in_flight,
            "waiting": waiting.get(row.name, (0, None))[0],
            "sending": sending.get(row.name, 0),
            "dead": dead.get(row.name, 0),
            "held": held.get(row.name, 0),
            "oldest_waiting_at": iso(waiting.get(row.name, (0, None))[1]),
        }
        for row in tx.execute(select(N).order_by(N.c.name))
    ]


def _by_notifier(tx: Connection, which: ColumnElement[bool]) -> Mapping[str, int]:
    rows = tx.execute(select(D.c.notifier, func.count()).where(which).group_by(D.c.notifier))
    return {row[0]: row[1] for row in rows}


def paused_notifiers(tx: Connection) -> list[str]:
    return list(tx.execute(select(N.c.name).where(N.c.paused_at.is_not(None)).order_by(N.c.name)).scalars())


# Not those that nobody asks for, as their stream is out of the rules.
_WATCHED = J.c.open, J.c.stream.not_in(select(S.c.key).where(IS_OUT))
OPEN_JOBS = select(J.c.state, J.c.queue, J.c.tag, func.count()).where(*_WATCHED).group_by(J.c.state, J.c.queue, J.c.tag)


def open_jobs(tx: Connection) -> dict[tuple[str, str, str], int]:
    """Return how many unfinished jobs are watched, by (state, queue, tag)."""
    return {(state, queue or "", tag or ""): count for state, queue, tag, count in tx.execute(OPEN_JOBS)}


def workers(tx: Connection) -> list[Facts]:
    times = ("started_at", "beat_at")
    rows = tx.execute(select(P).order_by(P.c.started_at)).mappings()
    return [{k: iso(v) if k in times else v for k, v in row.items() if k != "machine"} for row in rows]


# --- the facts by which it is told whether all is well --------------------------------------------------------------

LATELY = timedelta(hours=24)
_LOOKED_AT = 50  # of the deliveries of a notifier, for its last error


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What did not arrive at a notifier."""

    failed: int = 0  # deliveries that wait and were tried in vain
    died: int = 0  # in the last 24 h
    error: str | None = None  # of the last attempt in vain
    error_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What stands at this moment, as far as it can go wrong."""

    watches: Sequence[Facts]
    notifiers: Sequence[Facts]
    workers: Sequence[Facts]
    standing: Standing
    unread: Mapping[str, int]  # jobs that cannot be read
    troubles: Mapping[str, Trouble]  # by notifier


def state(tx: Connection, *, now: datetime) -> State:
    found = notifiers(tx)
    return State(
        watches=watches(tx),
        notifiers=found,
        workers=workers(tx),
        standing=rulesets.standing(tx, now=now),
        unread=problems.counts(tx),
        troubles=_troubles(tx, found, now),
    )


def _troubles(tx: Connection, notifiers: Sequence[Facts], now: datetime) -> dict[str, Trouble]:
    quiet = {one["name"] for one in notifiers if one["failures"]}
    # Of a receiver that does not answer it is known already, and it is what much waits for.
    asked = [one["name"] for one in notifiers if one["waiting"] and one["name"] not in quiet]
    failed: dict[str, int] = {row[0]: row[1] for row in tx.execute(_FAILED, {"names": asked})} if asked else {}
    died: dict[str, int] = {row[0]: row[1] for row in tx.execute(_died(now)) if row[1]}
    return {name: _trouble(tx, name, failed.get(name, 0), died.get(name, 0)) for name in {*failed, *died, *quiet}}


_FAILED = (
    select(D.c.notifier, func.count())
    .where(D.c.notifier.in_(bindparam("names", expanding=True)), state_is(WAITING))
    .where(D.c.attempts > D.c.lost, D.c.why.is_not(None))
    .group_by(D.c.notifier)
)


def _died(now: datetime) -> Any:
    lately = D.c.ended_at >= ms(now - LATELY)
    counted = func.sum(case((lately, 1), else_=0))
    return select(D.c.notifier, counted).where(state_is(DEAD)).group_by(D.c.notifier)


def _trouble(tx: Connection, name: str, failed: int, died: int) -> Trouble:
    error = _last_error(tx, name)
    if error is None:
        return Trouble(failed=failed, died=died)
    return Trouble(failed=failed, died=died, error=error.why, error_at=at(error.started_at))


def _last_error(tx: Connection, name: str) -> Any:
    """Return the last attempt in vain among a notifier's deliveries that are due first, last, or newly dead."""
    waiting = select(D.c.n, D.c.attempts).where(D.c.notifier == name, state_is(WAITING))
    dead = select(D.c.n, D.c.attempts).where(D.c.notifier == name, state_is(DEAD))
    some = [
        chosen.limit(_LOOKED_AT).subquery()
        for chosen in (
            waiting.order_by(D.c.due_at, D.c.n),
            waiting.order_by(D.c.due_at.desc(), D.c.n.desc()),
            dead.order_by(D.c.n.desc()),
        )
    ]
    tried = union_all(*(select(one.c.n).where(one.c.attempts > 0) for one in some)).subquery()
    # What was given up while its notifier was left alone was not tried: that says nothing of the receiver.
    given_up = and_(A.c.outcome == "refused", A.c.status.is_(None), A.c.ms == 0)
    errors = select(A.c.why, A.c.started_at).where(A.c.delivery.in_(select(tried.c.n)), A.c.why.is_not(None))
    failures = errors.where(or_(A.c.outcome == "later", A.c.outcome == "refused"))
    return tx.execute(failures.order_by(case((given_up, 1), else_=0), A.c.n.desc()).limit(1)).first()
