"""Results: how attempts ended, stored under the lease they were claimed with, or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, func, insert, select, tuple_, update

from bridge.model import ANSWER_KEPT, Attempt, Delivery, Reason, Rejected, RetryLater, Sent
from bridge.record import counters
from bridge.record.clocks import run_ms
from bridge.record.codec import storable
from bridge.record.counters import UNTIMED, Count, all_timed, timed
from bridge.record.database import ms, skip_locked, upsert
from bridge.record.outbox import limits, roots
from bridge.record.outbox.entries import pause, postpone_notifier
from bridge.record.schema import (
    DEAD,
    SENDING,
    SENT,
    WAITING,
    attempts,
    deliveries,
    state_is,
    threads,
    workers,
)

# What became of an attempt, as metrics name it: of a channel or a receiver that is gone they say client_error.
OK, _LOST = "ok", Reason.LOST.value
_CLIENT_ERRORS = (Reason.CHANNEL, Reason.GONE)
_OF_NO_ATTEMPT = (*_CLIENT_ERRORS, Reason.MANUAL)
ATTEMPT_LABELS = (OK, *(reason.value for reason in Reason if reason not in _OF_NO_ATTEMPT))

Claim = tuple[int, str]  # a delivery's number and the lease it is claimed under

_FREE: dict[str, Any] = {"lease": None, "lease_until": None}
_MINE = (state_is(SENDING), deliveries.c.lease == bindparam("b_lease"))
_SENT = (
    update(deliveries)
    .where(deliveries.c.n.in_(bindparam("numbers", expanding=True)), *_MINE)
    .values(state=SENT, ended_at=bindparam("now"), why=None, **_FREE)
    .returning(deliveries.c.n)
)
_FAILED = update(deliveries).where(deliveries.c.n == bindparam("b_n"), *_MINE).values(why=bindparam("reason"), **_FREE)
_PUT_OFF = _FAILED.values(
    state=WAITING, due_at=bindparam("due"), retry_from=bindparam("b_retry_from"), retry_due=bindparam("b_retry_due")
)
_MAKE_DEAD = _FAILED.values(state=DEAD, ended_at=bindparam("now"))
# A shared limit that was reached counts as no attempt, and the delivery keeps its place.
_KEEPS_PLACE = _FAILED.values(
    state=WAITING, attempts=deliveries.c.attempts - 1, retry_from=bindparam("b_retry_from"),
    retry_due=bindparam("b_retry_due"),
)  # fmt: skip
_LOSES_PLACE = _KEEPS_PLACE.values(due_at=bindparam("due"))


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt and what becomes of its delivery: sent, waiting for the next attempt at `again_at`, or (neither) dead.

    `retry_from` and `retry_due` are what a delivery that waits again has from now on.
    """

    attempt: Attempt
    again_at: datetime | None = None
    retry_from: timedelta | None = None
    retry_due: timedelta | None = None
    keeps_place: bool = True  # where a shared limit was reached: it is claimed when that is free

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
    """Store how attempts ended; return the deliveries (by number) whose lease was no longer theirs.

    Nothing is changed about those: whoever holds them now decides.
    """
    mine = _settle_sent(tx, [end.attempt for end in ended if isinstance(end.attempt.outcome, Sent)], now)
    for end in ended:
        if not isinstance(end.attempt.outcome, Sent) and _settle_failed(tx, end, end.attempt.outcome, now):
            mine.add(end.attempt.delivery.n)
    stored = [end for end in ended if end.attempt.delivery.n in mine]
    if stored:
        tx.execute(insert(attempts), [_attempt_row(end.attempt) for end in stored])
        counters.add(tx, _counted(stored), now=now)
    return frozenset(end.attempt.delivery.n for end in ended) - mine


def _settle_sent(tx: Connection, accepted: Sequence[Attempt], now: datetime) -> set[int]:
    by_lease: dict[str, list[Delivery]] = defaultdict(list)
    for attempt in accepted:
        by_lease[attempt.delivery.lease].append(attempt.delivery)
    mine: set[int] = set()
    for lease, sent in by_lease.items():
        values = {"numbers": [delivery.n for delivery in sent], "b_lease": lease, "now": ms(now)}
        mine.update(tx.execute(_SENT, values).scalars())
        for delivery in sent:
            if delivery.attempts > 1 and delivery.n in mine:
                _advance_successors(tx, delivery, now)
    # In the order in which routing writes threads, so that two workers do not wait for each other.
    for attempt in sorted(accepted, key=lambda attempt: (attempt.delivery.notifier, attempt.delivery.thread or "")):
        if attempt.delivery.n in mine:
            _keep_receipt(tx, attempt, now)
    return mine


def _keep_receipt(tx: Connection, attempt: Attempt, now: datetime) -> None:
    """Store where the first message of a thread is, or that it was used again."""
    outcome, delivery = attempt.outcome, attempt.delivery
    if not delivery.thread or not isinstance(outcome, Sent):
        return
    if outcome.receipt:
        begins = {"receipt": storable(outcome.receipt), "used_at": ms(now), "shown_no": outcome.shown_no}
        row = upsert(tx, threads).values(notifier=delivery.notifier, thread=delivery.thread, **begins)
        tx.execute(row.on_conflict_do_update(index_elements=["notifier", "thread"], set_=begins | {"due_at": ms(now)}))
    else:
        mine = update(threads).filter_by(notifier=delivery.notifier, thread=delivery.thread)
        tx.execute(mine.values(used_at=ms(now)))
    if outcome.shown_no:
        roots.merge(tx, delivery.notifier, delivery.thread, up_to=outcome.shown_no, now=now)


def _settle_failed(tx: Connection, end: Ended, outcome: RetryLater | Rejected, now: datetime) -> bool:
    delivery = end.attempt.delivery
    values: dict[str, Any] = {"b_n": delivery.n, "b_lease": delivery.lease, "reason": storable(outcome.why)}
    if end.dead:
        is_mine = tx.execute(_MAKE_DEAD, values | {"now": ms(now)}).rowcount == 1
        if is_mine and delivery.attempts > 1:
            _advance_successors(tx, delivery, now)
        return is_mine
    due = end.again_at or now
    retry = {"b_retry_from": run_ms(end.retry_from), "b_retry_due": run_ms(end.retry_due)}
    if isinstance(outcome, RetryLater) and outcome.limit:
        limits.hold(tx, outcome.limit, due)
        if end.keeps_place:
            return tx.execute(_KEEPS_PLACE, values | retry).rowcount == 1
        return tx.execute(_LOSES_PLACE, values | retry | {"due": ms(due)}).rowcount == 1
    is_mine = tx.execute(_PUT_OFF, values | retry | {"due": ms(due)}).rowcount == 1
    if is_mine:
        _postpone_successors(tx, delivery, due)
        if isinstance(outcome, Rejected):
            pause(tx, delivery.notifier, storable(outcome.why), outcome.reason, now=now)
        elif outcome.whole_notifier:
            postpone_notifier(tx, delivery.notifier, due, asked=end.retry_due)
    return is_mine


def _postpone_successors(tx: Connection, delivery: Delivery, due: datetime) -> None:
    """Let later deliveries of the same ordering key wait as long: each look at them before would be in vain."""
    behind = _behind(tx, delivery)
    if behind is not None:
        tx.execute(update(deliveries).where(behind, deliveries.c.due_at < ms(due)).values(due_at=ms(due)))


def _advance_successors(tx: Connection, delivery: Delivery, now: datetime) -> None:
    """Make later deliveries of the same ordering key due, unless they were attempted and pause by themselves."""
    behind = _behind(tx, delivery)
    if behind is not None:
        untried = update(deliveries).where(behind, deliveries.c.attempts == 0, deliveries.c.due_at > ms(now))
        tx.execute(untried.values(due_at=ms(now)))


def _behind(tx: Connection, delivery: Delivery) -> Any:
    """Return the condition for what waits behind a delivery; None if it has no ordering key."""
    ordering_key = tx.execute(select(deliveries.c.lane).filter_by(n=delivery.n)).scalar()
    if ordering_key is None:
        return None
    same = (deliveries.c.lane == ordering_key, deliveries.c.notifier == delivery.notifier)
    return and_(*same, state_is(WAITING), deliveries.c.n > delivery.n)


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
    durations: dict[str, list[float]] = defaultdict(list)  # of what was sent, by notifier, in seconds
    latencies: dict[str, list[float]] = defaultdict(list)
    for end in ended:
        attempt, notifier = end.attempt, end.attempt.delivery.notifier
        if isinstance(attempt.outcome, Sent):
            waited = attempt.started_at - attempt.delivery.happened_at
            durations[notifier].append(attempt.seconds)
            latencies[notifier].append(waited.total_seconds() + attempt.seconds)
        else:
            yield from _counted_failure(end, attempt.outcome)
    for notifier, seconds in durations.items():
        yield from all_timed("attempt", (notifier, OK), seconds)
        yield from all_timed("delivery", (notifier, "delivered"), latencies[notifier])


def _counted_failure(end: Ended, outcome: RetryLater | Rejected) -> Iterator[Count]:
    attempt, notifier = end.attempt, end.attempt.delivery.notifier
    labels = (notifier, (Reason.CLIENT_ERROR if outcome.reason in _CLIENT_ERRORS else outcome.reason).value)
    if attempt.seconds > 0 or attempt.status is not None:
        yield timed("attempt", labels, attempt.seconds)
    else:  # what is given up was not attempted again
        yield Count("attempt", labels, UNTIMED)
    if end.dead:
        yield Count("delivery", (notifier, "dead"))
    elif isinstance(outcome, RetryLater) and (outcome.whole_notifier or outcome.limit) and outcome.after:
        yield Count("retry_after", (notifier,), ms=outcome.after // timedelta(milliseconds=1))


def hand_back(tx: Connection, claimed: Iterable[Delivery]) -> None:
    """Give up claims that were not begun, as if they had not been made."""
    for delivery in claimed:
        mine = update(deliveries).filter_by(n=delivery.n, lease=delivery.lease).where(state_is(SENDING))
        tx.execute(mine.values(state=WAITING, attempts=deliveries.c.attempts - 1, **_FREE))


def open_claims(tx: Connection) -> list[Claim]:
    """Return the claims of all deliveries that are being sent."""
    rows = tx.execute(select(deliveries.c.n, deliveries.c.lease).where(state_is(SENDING)))
    return [(row.n, row.lease) for row in rows]


def abandoned(tx: Connection, *, before: datetime) -> set[Claim]:
    """Return the claims whose leases ended before then, and whose workers have been silent since."""
    lease = deliveries.c.lease
    worker = func.substr(lease, 1, func.length(workers.c.id) + 1) == workers.c.id + "."
    alive = exists().where(worker, workers.c.beat_at >= ms(before))
    old = select(deliveries.c.n, lease).where(state_is(SENDING), deliveries.c.lease_until < ms(before), ~alive)
    return {(row.n, row.lease) for row in tx.execute(old)}


def free_lost(tx: Connection, lost: Sequence[Claim], *, now: datetime) -> int:
    """Free these claims of workers that stopped responding: their outcomes are unknown. Return how many."""
    return _free(tx, tuple_(deliveries.c.n, deliveries.c.lease).in_(lost), now)


def free_claims_of(tx: Connection, worker: str, *, now: datetime) -> int:
    """Free the claims of a worker that is known to have ended. Return how many."""
    return _free(tx, deliveries.c.lease.startswith(f"{worker}.", autoescape=True), now)


def _free(tx: Connection, which: Any, now: datetime) -> int:
    lost = select(deliveries.c.n, deliveries.c.attempts, deliveries.c.notifier).where(state_is(SENDING), which)
    rows = tx.execute(skip_locked(tx, lost)).all()
    if rows:
        why = "the worker stopped responding; it is unknown whether the message arrived"
        waits = {"state": WAITING, "due_at": ms(now), "why": why, "lost": deliveries.c.lost + 1, **_FREE}
        tx.execute(update(deliveries).where(deliveries.c.n.in_([row.n for row in rows])).values(waits))
        facts = {"outcome": "lost", "why": why, "reason": _LOST, "started_at": ms(now), "ms": 0}
        tx.execute(insert(attempts), [{"delivery": row.n, "number": row.attempts, **facts} for row in rows])
        counters.add(tx, [Count("attempt", (row.notifier, _LOST), UNTIMED) for row in rows], now=now)
    return len(rows)
