"""The outbox: what is to be told. `claims` takes from it, `settling` records what came of that.

A delivery waits, is being sent, was sent, or is dead. Lanes keep the order per notifier and job: a delivery is
claimed only when no earlier one of its lane is waiting or being sent. What a gate holds waits in a digest, and is
merged into the delivery that tells it, or dropped.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    case,
    or_,
    select,
    update,
)

from bridge.model import Breaker, Gate, Message, NewDelivery, Reason
from bridge.record import counters
from bridge.record.clocks import run_at, run_ms
from bridge.record.codec import dump
from bridge.record.counters import Count
from bridge.record.database import at, ms, upsert
from bridge.record.outbox import digests
from bridge.record.schema import AT_ONCE, DEAD, DELIVERY_STATES, DROPPED, HELD, WAITING, state_is
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812


def put(tx: Connection, told: Sequence[NewDelivery], *, now: datetime, at_once: bool = False) -> Sequence[NewDelivery]:
    """Store messages and their deliveries; one that is there already stays as it is.

    What a gate holds, or is over the throttle of its rule, becomes a member of a digest; return the others. `at_once`:
    they go out now, whatever their notifiers wait for.
    """
    told = _anew(tx, told)
    if not told:
        return ()
    messages = {one.message.id: one.message for one in told}
    rows = [
        {
            "id": m.id, "kind": m.kind, "bucket": m.bucket, "job_id": m.job_id, "sequence": m.sequence,
            "rule": m.rule, "state": m.state, "workflow_run": m.workflow_run, "happened_at": ms(m.happened_at),
            "event": dump(m.event),
            "says": dump({"title": m.title, "text": m.text, "fields": m.fields, "state": m.state,
                          "rule": m.rule, "job_id": m.job_id, **({"digest": True} if m.kind == "digest" else {})}),
        }
        for m in messages.values()
    ]  # fmt: skip
    tx.execute(upsert(tx, M).on_conflict_do_nothing(), rows)
    when = ms(now)
    held = _held(tx, told, now)
    counters.add(tx, _counted(told, held), now=now)
    deliveries = [
        {
            "id": one.id, "message": one.message.id, "notifier": one.notifier, "lane": one.lane,
            "thread": one.thread, "note": one.note, "created_at": when, "since": when, "attempts": 0,
            "due_at": AT_ONCE if at_once else when,
            "body": one.body, "channel": one.channel, "rule": one.message.rule or "",
            **held.get(at_, {"state": WAITING, "digest": None, "held_by": None, "ended_at": None, "why": None}),
        }
        for at_, one in enumerate(told)
    ]  # fmt: skip
    tx.execute(upsert(tx, D).on_conflict_do_nothing(), deliveries)
    return [one for place, one in enumerate(told) if place not in held]


def _anew(tx: Connection, told: Sequence[NewDelivery]) -> Sequence[NewDelivery]:
    """Leave out what a gate would hold and is there already: it would be counted again, and take a place."""
    gated = [one.id for one in told if one.hold or one.throttle]
    if not gated:
        return told
    known = set(tx.execute(select(D.c.id).where(D.c.id.in_(gated))).scalars())
    return [one for one in told if one.id not in known]


# Whoever needs several digests takes them in this order: two workers then never wait for each other's.
_ORDER: Mapping[Gate, int] = {"group": 0, "throttle": 1, "mute": 2, "silence": 3}


def _held(tx: Connection, told: Sequence[NewDelivery], now: datetime) -> dict[int, dict[str, Any]]:
    """Return by place in `told` how those are stored that are not told at once."""
    places: dict[tuple[int, Gate, str, str, str, str, str], list[int]] = defaultdict(list)
    for place, one in enumerate(told):
        if one.hold:
            gate, name, label, key = one.hold.gate, one.hold.name, one.hold.label, one.hold.key
        elif one.throttle:
            gate, name, label, key = "throttle", one.message.rule or "", "", ""
        else:
            continue
        places[_ORDER[gate], gate, name, one.notifier, label, key, one.channel or ""].append(place)
    held: dict[int, dict[str, Any]] = {}
    for (_, gate, name, notifier, _, _, channel), found in sorted(places.items()):
        first = told[found[0]]
        if first.hold:
            numbers = digests.enter(tx, first.hold, notifier, len(found), channel=channel or None, now=now)
            drop = first.hold.drop
            held |= {place: _in_digest(n, gate, name, now, drop=drop) for place, n in zip(found, numbers, strict=True)}
        elif first.throttle:
            rate = first.throttle
            passed, n = digests.let_pass(tx, name, rate, notifier, len(found), channel=channel or None, now=now)
            held |= {place: _in_digest(n, gate, name, now) for place in found[passed:]}
    return held


def _in_digest(n: int, gate: Gate, name: str, now: datetime, *, drop: bool = False) -> dict[str, Any]:
    held = {"state": HELD, "digest": n, "held_by": f"{gate}:{name}", "ended_at": None, "why": None}
    return held | {"state": DROPPED, "ended_at": ms(now)} if drop else held


def _counted(told: Sequence[NewDelivery], held: Mapping[int, Mapping[str, Any]]) -> Iterator[Count]:
    for place, facts in held.items():
        yield Count("suppressed", (told[place].message.rule or "", facts["held_by"].partition(":")[0]))
        if facts["state"] == DROPPED:
            yield Count("delivery", (told[place].notifier, "dropped"))


def stored_id(tx: Connection, message: Message) -> str | None:
    """Return the id under which a message that no rule makes is stored, if it is."""
    same = (M.c.bucket == message.bucket, M.c.job_id == message.job_id, M.c.sequence == message.sequence)
    return tx.execute(select(M.c.id).where(*same, M.c.kind == message.kind, M.c.rule.is_(None))).scalar()


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


RESENT: Mapping[str, Any] = {
    "state": WAITING, "attempts": 0, "lost": 0, "ended_at": None, "why": "sent again by hand", "retry_from": None,
    "retry_due": None,
}  # fmt: skip


def states(tx: Connection, ids: Collection[str]) -> dict[str, str]:
    """Return by id in which states these deliveries are."""
    rows = tx.execute(select(D.c.id, D.c.state).where(D.c.id.in_(ids)))
    return {row.id: DELIVERY_STATES[row.state] for row in rows}


def redrive(tx: Connection, which: Select[Any], *, now: datetime) -> list[str]:
    """Resend what is dead or was dropped among `which` (a select of numbers) now, under its own ids; return those."""
    again = update(D).where(D.c.n.in_(which), or_(state_is(DEAD), state_is(DROPPED)))
    values = {**RESENT, "due_at": ms(now), "since": ms(now), "batch": None}
    return list(tx.execute(again.values(values).returning(D.c.id)).scalars())


_CLOSED: dict[str, Any] = {"broken_run": None, "probed_run": None}


def pause(tx: Connection, notifier: str, why: str, reason: Reason = Reason.OTHER, *, now: datetime) -> None:
    """Tell a notifier nothing more until it is resumed; what it should be told waits."""
    row = update(N).where(N.c.name == notifier, N.c.paused_at.is_(None))
    tx.execute(row.values(paused_at=ms(now), paused_why=why, paused_reason=reason.value))


def resume(tx: Connection, notifier: str) -> bool:
    """Let a notifier be told again; False when there is none of this name."""
    row = update(N).where(N.c.name == notifier)
    closed: dict[str, Any] = {"failures": 0, "asked_run": None, **_CLOSED}
    told_again = row.values(paused_at=None, paused_why=None, paused_reason=None, not_before=0, **closed)
    return tx.execute(told_again).rowcount == 1


def hold(tx: Connection, notifier: str, until: datetime, *, asked: timedelta | None = None) -> None:
    """Tell a notifier nothing before then; a longer wait stays. `asked`: it wants that itself, until this run clock."""
    wait = update(N).where(N.c.name == notifier, N.c.not_before < ms(until)).values(not_before=ms(until))
    tx.execute(wait if asked is None else wait.values(asked_run=run_ms(asked)))


def breakers(tx: Connection, notifiers: Collection[str]) -> dict[str, Breaker]:
    """Return what is known of these notifiers."""
    rows = tx.execute(select(N).where(N.c.name.in_(notifiers)))
    return {row.name: breaker_of(row) for row in rows}


def breaker_of(row: Row[Any]) -> Breaker:
    return Breaker(opened=run_at(row.broken_run), probed=run_at(row.probed_run), asked_until=run_at(row.asked_run))


def failed(tx: Connection, notifier: str, count: int, *, broken_at: int, run: timedelta) -> int:
    """Count attempts that were not answered, the last begun at this run clock; return how many that makes in a row.

    Many at once are one piece of bad news: from `broken_at` on they count as one.
    """
    sum_, broken = N.c.failures + count, N.c.failures >= broken_at
    more = case((broken, N.c.failures + 1), (sum_ > broken_at, broken_at), else_=sum_)
    facts = {
        "failures": more,
        "broken_run": case((broken, N.c.broken_run), (sum_ >= broken_at, run_ms(run)), else_=None),
        "probed_run": case((broken, run_ms(run)), else_=None),
    }
    return tx.execute(update(N).where(N.c.name == notifier).values(facts).returning(N.c.failures)).scalar() or 0


def recovered(tx: Connection, notifier: str, *, broken_at: int) -> None:
    """A notifier that failed answers: it is left alone no longer."""
    # Who is broken has not asked for time since: that would have been an answer.
    not_before = case((N.c.failures >= broken_at, 0), else_=N.c.not_before)
    tx.execute(update(N).where(N.c.name == notifier).values(failures=0, not_before=not_before, **_CLOSED))
