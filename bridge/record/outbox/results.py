"""Settling: how attempts ended, recorded under the lease they were claimed with, or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)

from bridge.model import Attempt, Delivery, Outcome, Reason, Rejected, RetryLater, Sent
from bridge.record import counters
from bridge.record.clocks import run_ms
from bridge.record.codec import storable
from bridge.record.counters import UNTIMED, Count, timed
from bridge.record.database import ms, upsert
from bridge.record.outbox.entries import hold, pause
from bridge.record.schema import DEAD, SENDING, SENT, WAITING, state_is
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import thread as H  # noqa: N812
from bridge.record.schema import worker as P  # noqa: N812

ANSWER_KEPT = 4096

# What became of an attempt, as metrics name it: of a channel or a receiver that is gone they say client_error.
OK, _LOST = "ok", Reason.LOST.value
_CLIENT_ERRORS = (Reason.CHANNEL, Reason.GONE)
ATTEMPT_LABELS = (OK, *(reason.value for reason in Reason if reason not in _CLIENT_ERRORS))

Held = tuple[int, str]  # a delivery's number and the lease it is claimed under

_FREE: dict[str, Any] = {"lease": None, "lease_until": None}

_MINE = (state_is(SENDING), D.c.lease == bindparam("b_lease"))
_SENT = (
    update(D)
    .where(D.c.n.in_(bindparam("numbers", expanding=True)), *_MINE)
    .values(state=SENT, ended_at=bindparam("now"), why=None, **_FREE)
    .returning(D.c.n)
)
_PUT_OFF = (
    update(D)
    .where(D.c.n == bindparam("b_n"), *_MINE)
    .values(state=WAITING, due_at=bindparam("due"), why=bindparam("reason"), **_FREE)
    .values(retry_from=bindparam("b_retry_from"), retry_due=bindparam("b_retry_due"))
)
_BURY = (
    update(D)
    .where(D.c.n == bindparam("b_n"), *_MINE)
    .values(state=DEAD, ended_at=bindparam("now"), why=bindparam("reason"), **_FREE)
)


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt and what becomes of its delivery: sent, tried again at `again_at`, or (neither) dead.

    `retry_from` and `retry_due` are what a delivery that is tried again has from now on.
    """

    attempt: Attempt
    again_at: datetime | None = None
    retry_from: timedelta | None = None
    retry_due: timedelta | None = None

    @property
    def dead(self) -> bool:
        match self.attempt.outcome:
            case Sent():
                return False
            case Rejected(pause=True):
                return False  # it waits with the others until the notifier is resumed
            case _:
                return self.again_at is None


def settle(tx: Connection, ended: Sequence[Ended], *, now: datetime) -> frozenset[int]:
    """Record how attempts ended; return the deliveries (by number) whose lease was no longer theirs.

    Of those nothing is changed: whoever holds them now decides.
    """
    mine = _settle_sent(tx, [e for e in ended if isinstance(e.attempt.outcome, Sent)], now)
    for one in ended:
        if not isinstance(one.attempt.outcome, Sent) and _settle_failed(tx, one, now):
            mine.add(one.attempt.delivery.n)
    kept = [e for e in ended if e.attempt.delivery.n in mine]
    if kept:
        tx.execute(insert(A), [_attempt_row(one.attempt) for one in kept])
        counters.add(tx, _counted(kept), now=now)
    return frozenset(e.attempt.delivery.n for e in ended) - mine


def _settle_sent(tx: Connection, ended: Sequence[Ended], now: datetime) -> set[int]:
    by_lease: dict[str, list[Delivery]] = defaultdict(list)
    for one in ended:
        by_lease[one.attempt.delivery.lease].append(one.attempt.delivery)
    mine: set[int] = set()
    for lease, deliveries in by_lease.items():
        values = {"numbers": [d.n for d in deliveries], "b_lease": lease, "now": ms(now)}
        mine.update(tx.execute(_SENT, values).scalars())
        for delivery in deliveries:
            if delivery.attempts > 1 and delivery.n in mine:
                _hurry_lane(tx, delivery, now)
    for one in ended:
        if one.attempt.delivery.n in mine:
            _keep_receipt(tx, one.attempt, now)
    return mine


def _keep_receipt(tx: Connection, attempt: Attempt, now: datetime) -> None:
    outcome, delivery = attempt.outcome, attempt.delivery
    receipt = (isinstance(outcome, Sent) and outcome.receipt) or delivery.root  # under a root: it was used again
    if delivery.thread and receipt:
        kept = {"receipt": storable(receipt), "used_at": ms(now)}
        row = upsert(tx, H).values(notifier=delivery.notifier, thread=delivery.thread, **kept)
        tx.execute(row.on_conflict_do_update(index_elements=["notifier", "thread"], set_=kept))


def _settle_failed(tx: Connection, one: Ended, now: datetime) -> bool:
    attempt = one.attempt
    delivery, outcome = attempt.delivery, attempt.outcome
    assert not isinstance(outcome, Sent)  # noqa: S101  (tells mypy which of the three it is)
    values: dict[str, Any] = {"b_n": delivery.n, "b_lease": delivery.lease, "reason": storable(outcome.why)}
    if one.dead:
        held = tx.execute(_BURY, values | {"now": ms(now)}).rowcount == 1
        if held and delivery.attempts > 1:
            _hurry_lane(tx, delivery, now)
        return held
    due = one.again_at or now
    retry = {"b_retry_from": run_ms(one.retry_from), "b_retry_due": run_ms(one.retry_due)}
    held = tx.execute(_PUT_OFF, values | retry | {"due": ms(due)}).rowcount == 1
    if held:
        _delay_lane(tx, delivery, due)
        if isinstance(outcome, Rejected):
            pause(tx, delivery.notifier, storable(outcome.why), outcome.reason, now=now)
        elif outcome.everyone:
            hold(tx, delivery.notifier, due, asked=one.retry_due)
    return held


def _delay_lane(tx: Connection, delivery: Delivery, due: datetime) -> None:
    """Let those behind wait as long: they could not be claimed, and would be looked at in vain each time."""
    behind = _behind(tx, delivery)
    if behind is not None:
        tx.execute(update(D).where(behind, D.c.due_at < ms(due)).values(due_at=ms(due)))


def _hurry_lane(tx: Connection, delivery: Delivery, now: datetime) -> None:
    behind = _behind(tx, delivery)
    if behind is not None:
        tx.execute(update(D).where(behind, D.c.attempts == 0, D.c.due_at > ms(now)).values(due_at=ms(now)))


def _behind(tx: Connection, delivery: Delivery) -> Any:
    lane = tx.execute(select(D.c.lane).where(D.c.n == delivery.n)).scalar()
    if lane is None:
        return None
    return and_(D.c.lane == lane, D.c.notifier == delivery.notifier, state_is(WAITING), D.c.n > delivery.n)


def _attempt_row(attempt: Attempt) -> dict[str, Any]:
    outcome = attempt.outcome
    kind = "sent" if isinstance(outcome, Sent) else "refused" if isinstance(outcome, Rejected) else "later"
    return {
        "delivery": attempt.delivery.n,
        "number": attempt.delivery.attempts,
        "outcome": kind,
        "why": None if isinstance(outcome, Sent) else storable(outcome.why),
        "reason": None if isinstance(outcome, Sent) else outcome.reason.value,
        "status": attempt.status,
        "answer": storable(attempt.answer[:ANSWER_KEPT]) or None,
        "address": attempt.address,
        "started_at": ms(attempt.started_at),
        "ms": round(attempt.seconds * 1000),
    }


def _counted(ended: Iterable[Ended]) -> Iterator[Count]:
    for one in ended:
        attempt, outcome, notifier = one.attempt, one.attempt.outcome, one.attempt.delivery.notifier
        labels = (notifier, attempt_label(outcome))
        if attempt.seconds > 0 or attempt.status is not None or isinstance(outcome, Sent):
            yield timed("attempt", labels, attempt.seconds)
        else:  # what is given up was not tried again
            yield Count("attempt", labels, UNTIMED)
        if isinstance(outcome, Sent):
            waited = attempt.started_at - attempt.delivery.happened_at
            yield timed("delivery", (notifier, "delivered"), waited.total_seconds() + attempt.seconds)
        elif one.dead:
            yield Count("delivery", (notifier, "dead"))
        elif isinstance(outcome, RetryLater) and outcome.everyone and outcome.after:
            yield Count("retry_after", (notifier,), ms=outcome.after // timedelta(milliseconds=1))


def attempt_label(outcome: Outcome) -> str:
    """Return one of ATTEMPT_LABELS."""
    if isinstance(outcome, Sent):
        return OK
    return Reason.CLIENT_ERROR.value if outcome.reason in _CLIENT_ERRORS else outcome.reason.value


def hand_back(tx: Connection, deliveries: Iterable[Delivery]) -> None:
    """Give up claims that were not begun, as if they had not been made."""
    for delivery in deliveries:
        held = update(D).where(D.c.n == delivery.n, state_is(SENDING), D.c.lease == delivery.lease)
        tx.execute(held.values(state=WAITING, attempts=D.c.attempts - 1, **_FREE))


def held(tx: Connection) -> list[Held]:
    """Return (number, lease) of all that is being sent."""
    return [(row.n, row.lease) for row in tx.execute(select(D.c.n, D.c.lease).where(state_is(SENDING)))]


def forsaken(tx: Connection, *, before: datetime) -> set[Held]:
    """Return what is being sent under leases that ended before then, by workers not heard of since."""
    worker = func.substr(D.c.lease, 1, func.length(P.c.id) + 1) == P.c.id + "."
    alive = exists().where(worker, P.c.beat_at >= ms(before))
    rows = tx.execute(select(D.c.n, D.c.lease).where(state_is(SENDING), D.c.lease_until < ms(before), ~alive))
    return {(row.n, row.lease) for row in rows}


def reap(tx: Connection, lost: Sequence[Held], *, now: datetime) -> int:
    """Free what lost workers hold, given as (number, lease): what came of it is not known. Return how many."""
    return _free(tx, tuple_(D.c.n, D.c.lease).in_(lost), now)


def bury(tx: Connection, worker: str, *, now: datetime) -> int:
    """Free what a worker held that is known to have ended. Return how many."""
    return _free(tx, D.c.lease.startswith(f"{worker}.", autoescape=True), now)


def _free(tx: Connection, which: Any, now: datetime) -> int:
    lost = select(D.c.n, D.c.attempts, D.c.notifier).where(state_is(SENDING), which)
    if tx.dialect.name == "postgresql":
        lost = lost.with_for_update(skip_locked=True)
    rows = tx.execute(lost).all()
    if rows:
        numbers = [row.n for row in rows]
        why = "the worker was lost; whether it arrived is not known"
        waits = {"state": WAITING, "due_at": ms(now), "why": why, "lost": D.c.lost + 1, **_FREE}
        tx.execute(update(D).where(D.c.n.in_(numbers)).values(waits))
        facts = {"outcome": "lost", "why": why, "reason": _LOST, "started_at": ms(now), "ms": 0}
        tx.execute(insert(A), [{"delivery": row.n, "number": row.attempts, **facts} for row in rows])
        counters.add(tx, [Count("attempt", (row.notifier, _LOST), UNTIMED) for row in rows], now=now)
    return len(rows)
