"""The current state: watches, notifiers, workers, and the facts that `pipeline/health.py` judges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, func, or_, select, union_all

from bridge.record import rulesets
from bridge.record.codec import Facts, iso
from bridge.record.database import at, ms
from bridge.record.outbox import roots
from bridge.record.outbox.digests import IS_OPEN, waiting
from bridge.record.polling import problems, queues
from bridge.record.polling.queues import PausedQueue
from bridge.record.rulesets import RulesState
from bridge.record.schema import (
    DEAD,
    IS_OUT,
    SENDING,
    WAITING,
    attempts,
    deliveries,
    digests,
    jobs,
    leases,
    notifiers,
    state_is,
    streams,
    watches,
    workers,
)

# --- what is so at this moment; no row of what has ended is read ----------------------------------------------------


def holders(tx: Connection, *, now: datetime) -> dict[str, str]:
    """Return by name of a lease the worker that holds it now."""
    held = select(leases).where(leases.c.token.is_not(None), leases.c.until >= ms(now))
    return {row.name: row.token for row in tx.execute(held)}


def open_digests(tx: Connection) -> dict[tuple[str, str], int]:
    """Return by gate and name how many digests have messages and were not sent yet."""
    by_gate = (digests.c.gate, digests.c.name)
    found = select(*by_gate, func.count()).where(IS_OPEN, digests.c.members > 0).group_by(*by_gate)
    return {(gate, name): count for gate, name, count in tx.execute(found)}


def read_watches(tx: Connection) -> list[Facts]:
    return [_watch(dict(row)) for row in tx.execute(select(watches).order_by(watches.c.name)).mappings()]


def _watch(row: Facts) -> Facts:
    times = {name: iso(row[name] or None) for name in ("next_poll_at", "polled_at", "ok_at")}
    times["callback_at"] = iso(row.pop("hint_at"))
    columns = {"clock_ahead_seconds": "clock_ms", "took_seconds": "took_ms", "waited_seconds": "waited_ms"}
    seconds = {name: _seconds(row.pop(column)) for name, column in columns.items()}
    progress = [one | {"created_to": iso(one["created_to"])} for one in json.loads(row["progress"] or "[]")]
    return row | times | seconds | {"behind": json.loads(row["behind"] or "[]"), "progress": progress}


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def read_notifiers(tx: Connection) -> list[Facts]:
    """Return every notifier with its counts. What was resent waits since then, however old it is."""
    waits = _by_notifier(tx, WAITING, func.min(deliveries.c.since))
    sending, dead, held = _by_notifier(tx, SENDING), _by_notifier(tx, DEAD), waiting(tx)
    edits = roots.failing(tx)
    return [
        {
            "name": row.name,
            "type": row.type,
            "paused_at": iso(row.paused_at),
            "paused_why": row.paused_why,
            "paused_reason": row.paused_reason,
            "not_before": iso(row.not_before or None),
            "failures": row.failures,
            "max_in_flight": row.max_in_flight,
            "waiting": waits.get(row.name, (0, None))[0],
            "sending": sending.get(row.name, (0,))[0],
            "dead": dead.get(row.name, (0,))[0],
            "held": held.get(row.name, 0),
            "edits_failing": edits.get(row.name, (0, None))[0],
            "edit_error": edits.get(row.name, (0, None))[1],
            "oldest_waiting_at": iso(waits.get(row.name, (0, None))[1]),
        }
        for row in tx.execute(select(notifiers).order_by(notifiers.c.name))
    ]


def _by_notifier(tx: Connection, state: int, *columns: Any) -> Mapping[str, Sequence[Any]]:
    """Return by notifier how many deliveries are in a state, and these columns."""
    found = select(deliveries.c.notifier, func.count(), *columns).where(state_is(state))
    return {row[0]: row[1:] for row in tx.execute(found.group_by(deliveries.c.notifier))}


# Not those that CI is not asked for, as their stream is out of the rules.
_WATCHED = jobs.c.open, jobs.c.stream.not_in(select(streams.c.key).where(IS_OUT))
_BY_STATE = (jobs.c.state, jobs.c.queue, jobs.c.tag)
OPEN_JOBS = select(*_BY_STATE, func.count()).where(*_WATCHED).group_by(*_BY_STATE)


def open_jobs(tx: Connection) -> dict[tuple[str, str, str], int]:
    """Return how many unfinished jobs are watched, by (state, queue, tag)."""
    return {(state, queue or "", tag or ""): count for state, queue, tag, count in tx.execute(OPEN_JOBS)}


def read_workers(tx: Connection) -> list[Facts]:
    times = ("started_at", "beat_at")
    rows = tx.execute(select(workers).order_by(workers.c.started_at)).mappings()
    return [{k: iso(v) if k in times else v for k, v in row.items() if k != "machine"} for row in rows]


# --- the facts by which warnings are made ---------------------------------------------------------------------------

_LATELY = timedelta(hours=24)
_LOOKED_AT = 50  # of the deliveries of a notifier, for its last error


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What did not arrive at a notifier."""

    failed: int = 0  # deliveries that wait after a failed attempt
    died: int = 0  # in the last 24 h
    error: str | None = None  # of the last attempt in vain
    error_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is so at this moment, as far as it can go wrong."""

    watches: Sequence[Facts]
    notifiers: Sequence[Facts]
    workers: Sequence[Facts]
    rules: RulesState
    unread: Mapping[str, int]  # jobs that cannot be read
    troubles: Mapping[str, Trouble]  # by notifier
    paused_queues: Sequence[PausedQueue] = ()


def state(tx: Connection, *, now: datetime) -> State:
    found = read_notifiers(tx)
    return State(
        watches=read_watches(tx),
        notifiers=found,
        workers=read_workers(tx),
        rules=rulesets.state(tx, now=now),
        unread=problems.counts(tx),
        troubles=_troubles(tx, found, now),
        paused_queues=queues.paused(tx, now=now),
    )


_FAILED = (
    select(deliveries.c.notifier, func.count())
    .where(deliveries.c.notifier.in_(bindparam("names", expanding=True)), state_is(WAITING))
    .where(deliveries.c.attempts > deliveries.c.lost, deliveries.c.why.is_not(None))
    .group_by(deliveries.c.notifier)
)


def _troubles(tx: Connection, rows: Sequence[Facts], now: datetime) -> dict[str, Trouble]:
    quiet = {row["name"] for row in rows if row["failures"]}
    # Of a receiver that does not answer it is known already, and most of what waits is for such a one.
    names = [row["name"] for row in rows if row["waiting"] and row["name"] not in quiet]
    failed = {row[0]: row[1] for row in tx.execute(_FAILED, {"names": names})} if names else {}
    lately = func.sum(case((deliveries.c.ended_at >= ms(now - _LATELY), 1), else_=0))
    died = {name: row[1] for name, row in _by_notifier(tx, DEAD, lately).items() if row[1]}
    found = {}
    for name in {*failed, *died, *quiet}:
        last = _last_error(tx, name)
        error = {"error": last.why, "error_at": at(last.started_at)} if last else {}
        found[name] = Trouble(failed=failed.get(name, 0), died=died.get(name, 0), **error)
    return found


def _last_error(tx: Connection, name: str) -> Row[Any] | None:
    """Return the last attempt in vain among a notifier's deliveries that are due first, last, or newly dead."""
    d = deliveries.c
    waiting, dead = (select(d.n, d.attempts).where(d.notifier == name, state_is(state)) for state in (WAITING, DEAD))
    newest = (
        waiting.order_by(d.due_at, d.n), waiting.order_by(d.due_at.desc(), d.n.desc()), dead.order_by(d.n.desc())
    )  # fmt: skip
    some = [chosen.limit(_LOOKED_AT).subquery() for chosen in newest]
    tried = union_all(*(select(rows.c.n).where(rows.c.attempts > 0) for rows in some)).subquery()
    # What was given up while its notifier's breaker was open was not attempted: that says nothing of the receiver.
    given_up = and_(attempts.c.outcome == "refused", attempts.c.status.is_(None), attempts.c.ms == 0)
    errors = select(attempts).where(attempts.c.delivery.in_(select(tried.c.n)), attempts.c.why.is_not(None))
    failures = errors.where(or_(attempts.c.outcome == "later", attempts.c.outcome == "refused"))
    return tx.execute(failures.order_by(case((given_up, 1), else_=0), attempts.c.n.desc()).limit(1)).first()
