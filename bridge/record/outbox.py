"""The outbox: what is to be told, claimed under a lease, finished under the same lease or not at all.

A delivery waits, is being sent, was sent, or is dead. Lanes keep the order per notifier and job: a delivery is
claimed only when no earlier one of its lane is waiting or being sent.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from bridge.model import Attempt, Delivery, Message, Refused, Sent, Told
from bridge.record.codec import dump
from bridge.record.database import at, ms, upsert
from bridge.record.schema import DEAD, SENDING, SENT, WAITING, state_is
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812
from bridge.record.schema import thread as H  # noqa: N812

ANSWER_KEPT = 4096


def put(tx: Connection, told: Sequence[Told], *, now: datetime) -> None:
    """Store messages and their deliveries; one that is there already stays as it is."""
    if not told:
        return
    messages = {one.message.id: one.message for one in told}
    rows = [
        {
            "id": m.id, "kind": m.kind, "bucket": m.bucket, "job_id": m.job_id, "sequence": m.sequence,
            "rule": m.rule, "state": m.state, "workflow_run": m.workflow_run, "happened_at": ms(m.happened_at),
            "event": dump(m.event),
            "says": dump({"title": m.title, "text": m.text, "fields": m.fields, "state": m.state,
                          "rule": m.rule, "job_id": m.job_id}),
        }
        for m in messages.values()
    ]  # fmt: skip
    tx.execute(upsert(tx, M).on_conflict_do_nothing(), rows)
    when = ms(now)
    deliveries = [
        {
            "id": one.id, "message": one.message.id, "notifier": one.notifier, "lane": one.lane,
            "thread": one.thread, "note": one.note, "state": WAITING, "due_at": when, "created_at": when,
            "since": when, "attempts": 0,
        }
        for one in told
    ]  # fmt: skip
    tx.execute(upsert(tx, D).on_conflict_do_nothing(), deliveries)


# --- claim --------------------------------------------------------------------------------------------------

_busy = select(func.count()).where(D.c.notifier == N.c.name, state_is(SENDING)).scalar_subquery()
_has_due = exists().where(D.c.notifier == N.c.name, state_is(WAITING), D.c.due_at <= bindparam("now"))
_LANES = select(N.c.name, N.c.max_in_flight, N.c.interval_ms, N.c.burst, N.c.used_until, _busy.label("busy")).where(
    N.c.paused_at.is_(None), N.c.not_before <= bindparam("now"), _has_due
)


@cache
def _claim(dialect: str) -> Any:
    """Return the statement that claims up to :room due deliveries of one notifier."""
    other = D.alias("other")
    in_the_way = exists().where(
        other.c.lane == D.c.lane,
        other.c.notifier == D.c.notifier,
        literal_column("other.state") < literal_column("2"),
        or_(state_is(SENDING, other), other.c.n < D.c.n),
        other.c.n != D.c.n,
    )
    pick = (
        select(D.c.n)
        .where(D.c.notifier == bindparam("name"), state_is(WAITING), D.c.due_at <= bindparam("now"))
        .where(or_(D.c.lane.is_(None), ~in_the_way))
        .order_by(D.c.due_at, D.c.n)
        .limit(bindparam("room"))
    )
    if dialect == "postgresql":
        # In a CTE, or the planner may run the locking SELECT again and take more than the limit.
        pick = pick.with_for_update(skip_locked=True, of=D)
    picked = pick.cte("picked")
    return (
        update(D)
        .where(D.c.n.in_(select(picked.c.n)))
        .values(
            state=SENDING,
            lease=bindparam("lease"),
            lease_until=bindparam("until"),
            attempts=D.c.attempts + 1,
        )
        .returning(D.c.n)
    )


_CLAIMED = (
    select(
        D.c.n, D.c.id, D.c.notifier, D.c.attempts, D.c.lease, D.c.since, M.c.happened_at, M.c.event, M.c.says,
        D.c.thread, H.c.receipt, D.c.note,
    )
    .join(M, M.c.id == D.c.message)
    .outerjoin(H, and_(H.c.notifier == D.c.notifier, H.c.thread == D.c.thread))
    .where(D.c.n.in_(bindparam("numbers", expanding=True)))
    .order_by(D.c.n)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claimed:
    """What was claimed, and when a notifier that has to wait for its rate may go on (None: none has to)."""

    deliveries: tuple[Delivery, ...]
    again_at: datetime | None = None


def due_lanes(tx: Connection, *, now: datetime) -> Sequence[Any]:
    """Return the notifiers that have something due and may be told."""
    return tx.execute(_LANES, {"now": ms(now)}).all()


def claim(tx: Connection, *, free: int, lease: str, lease_for: timedelta, now: datetime, turn: int = 0) -> Claimed:
    """Claim what `free` senders can take now, each notifier within its own bounds.

    `lease` must be new with every call: it is what tells a late finish from the right one. `turn` says which
    notifier is asked first, so that the first one by name has no advantage.
    """
    lanes = due_lanes(tx, now=now)
    numbers: list[int] = []
    again: list[int] = []
    start = turn % len(lanes) if lanes else 0
    for lane in (*lanes[start:], *lanes[:start]):
        room = min(lane.max_in_flight - lane.busy, free - len(numbers))
        if lane.interval_ms:
            room, wait = _within_rate(tx, lane, room, now)
            again += [wait] if wait else []
        if room > 0:
            values = {"name": lane.name, "now": ms(now), "room": room, "lease": lease, "until": ms(now + lease_for)}
            numbers += tx.execute(_claim(tx.dialect.name), values).scalars().all()
    found = tx.execute(_CLAIMED, {"numbers": numbers}).all() if numbers else ()
    return Claimed(tuple(map(_delivery, found)), at(min(again)) if again else None)


def _within_rate(tx: Connection, lane: Any, room: int, now: datetime) -> tuple[int, int | None]:
    """Return how many of `room` the rate allows, and when the next one is if it allows none.

    The generic cell rate algorithm: each one told uses up one interval, at most `burst` of them ahead of time.
    """
    used = max(lane.used_until, ms(now))
    allowed = (ms(now) + lane.burst * lane.interval_ms - used) // lane.interval_ms
    if allowed <= 0:
        return 0, used - (lane.burst - 1) * lane.interval_ms
    room = min(room, allowed)
    if room > 0 and not _use_rate(tx, lane, used + room * lane.interval_ms):
        return 0, None
    return room, None


def _use_rate(tx: Connection, lane: Any, used_until: int) -> bool:
    """Book the rate; False when another worker was faster, whose booking counts."""
    mine = update(N).where(N.c.name == lane.name, N.c.used_until == lane.used_until).values(used_until=used_until)
    return tx.execute(mine).rowcount == 1


def paused_and_waiting(tx: Connection) -> list[str]:
    """Return the paused notifiers for which something waits."""
    waits = exists().where(D.c.notifier == N.c.name, state_is(WAITING))
    return list(tx.execute(select(N.c.name).where(N.c.paused_at.is_not(None), waits)).scalars())


def claim_paused(
    tx: Connection, notifier: str, *, lease: str, lease_for: timedelta, now: datetime, most: int
) -> tuple[str, tuple[Delivery, ...]]:
    """Claim what waits for a paused notifier, with the reason of the pause: it goes to the fallback."""
    why = tx.execute(select(N.c.paused_why).where(N.c.name == notifier, N.c.paused_at.is_not(None))).scalar()
    if why is None:
        return "", ()
    far = ms(now + timedelta(days=3650))
    values = {"name": notifier, "now": far, "room": most, "lease": lease, "until": ms(now + lease_for)}
    numbers = tx.execute(_claim(tx.dialect.name), values).scalars().all()
    found = tx.execute(_CLAIMED, {"numbers": list(numbers)}).all() if numbers else ()
    return why, tuple(map(_delivery, found))


def _delivery(row: Any) -> Delivery:
    return Delivery(
        n=row.n,
        id=row.id,
        notifier=row.notifier,
        attempts=row.attempts,
        lease=row.lease,
        created_at=at(row.since),
        happened_at=at(row.happened_at),
        event=row.event,
        says=row.says,
        thread=row.thread,
        root=row.receipt,
        note=row.note,
    )


# --- settle -------------------------------------------------------------------------------------------------

_MINE = (state_is(SENDING), D.c.lease == bindparam("b_lease"))
_FREE: dict[str, Any] = {"lease": None, "lease_until": None}
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
)
_BURY = (
    update(D)
    .where(D.c.n == bindparam("b_n"), *_MINE)
    .values(state=DEAD, ended_at=bindparam("now"), why=bindparam("reason"), **_FREE)
)


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt and what becomes of its delivery: sent, tried again at `again_at`, or (neither) dead."""

    attempt: Attempt
    again_at: datetime | None = None

    @property
    def dead(self) -> bool:
        match self.attempt.outcome:
            case Sent():
                return False
            case Refused(pause=True):
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
    kept = [e.attempt for e in ended if e.attempt.delivery.n in mine]
    if kept:
        tx.execute(insert(A), [_attempt_row(attempt) for attempt in kept])
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
            _keep_receipt(tx, one.attempt)
    return mine


def _keep_receipt(tx: Connection, attempt: Attempt) -> None:
    outcome, delivery = attempt.outcome, attempt.delivery
    if isinstance(outcome, Sent) and outcome.receipt and delivery.thread:
        row = upsert(tx, H).values(notifier=delivery.notifier, thread=delivery.thread, receipt=outcome.receipt)
        keys = ["notifier", "thread"]
        tx.execute(row.on_conflict_do_update(index_elements=keys, set_={"receipt": outcome.receipt}))


def _settle_failed(tx: Connection, one: Ended, now: datetime) -> bool:
    attempt = one.attempt
    delivery, outcome = attempt.delivery, attempt.outcome
    assert not isinstance(outcome, Sent)  # noqa: S101  (tells mypy which of the three it is)
    values: dict[str, Any] = {"b_n": delivery.n, "b_lease": delivery.lease, "reason": outcome.why}
    if one.dead:
        held = tx.execute(_BURY, values | {"now": ms(now)}).rowcount == 1
        if held and delivery.attempts > 1:
            _hurry_lane(tx, delivery, now)
        return held
    due = one.again_at or now
    held = tx.execute(_PUT_OFF, values | {"due": ms(due)}).rowcount == 1
    if held:
        _delay_lane(tx, delivery, due)
        if isinstance(outcome, Refused):
            _pause(tx, delivery.notifier, outcome.why, now)
        elif outcome.everyone:
            wait = update(N).where(N.c.name == delivery.notifier, N.c.not_before < ms(due))
            tx.execute(wait.values(not_before=ms(due)))
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
    kind = "sent" if isinstance(outcome, Sent) else "refused" if isinstance(outcome, Refused) else "later"
    return {
        "delivery": attempt.delivery.n,
        "number": attempt.delivery.attempts,
        "outcome": kind,
        "why": None if isinstance(outcome, Sent) else outcome.why,
        "status": attempt.status,
        # PostgreSQL stores no NUL in a text.
        "answer": attempt.answer[:ANSWER_KEPT].replace("\0", "") or None,
        "address": attempt.address,
        "started_at": ms(attempt.started_at),
        "ms": round(attempt.seconds * 1000),
    }


# --- leases that ended --------------------------------------------------------------------------------------


def hand_back(tx: Connection, deliveries: Iterable[Delivery]) -> None:
    """Give up claims that were not begun, as if they had not been made."""
    for delivery in deliveries:
        held = update(D).where(D.c.n == delivery.n, state_is(SENDING), D.c.lease == delivery.lease)
        tx.execute(held.values(state=WAITING, attempts=D.c.attempts - 1, **_FREE))


def any_overdue(tx: Connection, *, longest: timedelta, now: datetime) -> bool:
    return tx.execute(select(D.c.n).where(state_is(SENDING), _overdue(longest, now)).limit(1)).first() is not None


def _overdue(longest: timedelta, now: datetime) -> Any:
    # A lease that ends later than one can is from before the clock was set back.
    return or_(D.c.lease_until < ms(now), D.c.lease_until > ms(now + longest))


def reap(tx: Connection, *, longest: timedelta, now: datetime) -> int:
    """Free what a lost worker held too long: what came of those attempts is not known. Return how many."""
    return _free(tx, _overdue(longest, now), now)


def bury(tx: Connection, worker: str, *, now: datetime) -> int:
    """Free what a worker held that is known to have ended. Return how many."""
    return _free(tx, D.c.lease.startswith(f"{worker}.", autoescape=True), now)


def _free(tx: Connection, which: Any, now: datetime) -> int:
    lost = select(D.c.n, D.c.attempts).where(state_is(SENDING), which)
    if tx.dialect.name == "postgresql":
        lost = lost.with_for_update(skip_locked=True)
    rows = tx.execute(lost).all()
    if rows:
        numbers = [row.n for row in rows]
        why = "the worker was lost; whether it arrived is not known"
        tx.execute(update(D).where(D.c.n.in_(numbers)).values(state=WAITING, due_at=ms(now), why=why, **_FREE))
        facts = {"outcome": "lost", "why": why, "started_at": ms(now), "ms": 0}
        tx.execute(insert(A), [{"delivery": row.n, "number": row.attempts, **facts} for row in rows])
    return len(rows)


def message_of(tx: Connection, number: int) -> Message:
    """Return the message of a delivery, to tell it to somebody else."""
    row = tx.execute(select(M).join(D, D.c.message == M.c.id).where(D.c.n == number)).one()
    says = json.loads(row.says)
    return Message(
        id=row.id,
        kind=row.kind,
        title=says["title"],
        text=says["text"],
        fields=tuple((name, value) for name, value in says["fields"]),
        event=json.loads(row.event),
        bucket=row.bucket,
        job_id=row.job_id,
        workflow_run=row.workflow_run,
        sequence=row.sequence,
        state=row.state,
        rule=row.rule,
        happened_at=at(row.happened_at),
    )


# --- by hand ------------------------------------------------------------------------------------------------


def redrive(tx: Connection, which: Select[Any], *, now: datetime) -> list[str]:
    """Send the dead deliveries among `which` (a select of numbers) again, under their own ids; return those."""
    again = (
        update(D)
        .where(D.c.n.in_(which), state_is(DEAD))
        .values(state=WAITING, due_at=ms(now), since=ms(now), ended_at=None, why="sent again by hand")
        .returning(D.c.id)
    )
    return list(tx.execute(again).scalars())


def pause(tx: Connection, notifier: str, why: str, *, now: datetime) -> None:
    _pause(tx, notifier, why, now)


def _pause(tx: Connection, notifier: str, why: str, now: datetime) -> None:
    row = update(N).where(N.c.name == notifier, N.c.paused_at.is_(None))
    tx.execute(row.values(paused_at=ms(now), paused_why=why))


def resume(tx: Connection, notifier: str) -> bool:
    """Let a notifier be told again; False when there is none of this name."""
    row = update(N).where(N.c.name == notifier)
    return tx.execute(row.values(paused_at=None, paused_why=None, not_before=0)).rowcount == 1
