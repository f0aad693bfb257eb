"""The facts by which it is told whether all is well (`pipeline/health.py`), read in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, func, or_, select, union_all

from bridge.record import rulesets
from bridge.record.database import at, ms
from bridge.record.polling import problems
from bridge.record.queries import gauges
from bridge.record.queries.lists import Facts
from bridge.record.rulesets import Standing
from bridge.record.schema import DEAD, WAITING, state_is
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812

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
    notifiers = gauges.notifiers(tx)
    return State(
        watches=gauges.watches(tx),
        notifiers=notifiers,
        workers=gauges.workers(tx),
        standing=rulesets.standing(tx, now=now),
        unread=problems.counts(tx),
        troubles=_troubles(tx, notifiers, now),
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
