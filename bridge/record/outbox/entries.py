"""The outbox: deliveries that are to be sent. `claims` takes from it, `results` stores what came of them.

A delivery waits, is being sent, was sent, or is dead; a dead one may be discarded. Ordering keys keep the order per
notifier and job: a delivery is claimed only if no earlier one of its key (column `lane`) waits or is being sent. A
delivery that a gate holds waits in a digest, and is merged into the delivery of that digest, or dropped.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, or_, select, update

from bridge.language import language_of
from bridge.model import Breaker, Content, Gate, Hold, Message, NewDelivery, Reason
from bridge.record import counters
from bridge.record.clocks import run_at, run_ms
from bridge.record.codec import dump, from_row, storable
from bridge.record.counters import Count
from bridge.record.database import ms, upsert
from bridge.record.outbox import digests, roots
from bridge.record.schema import (
    DEAD,
    DELIVERY_STATES,
    DISCARDED,
    DROPPED,
    DUE_AT_ONCE,
    HELD,
    MERGED,
    PICK,
    WAITING,
    deliveries,
    messages,
    notifiers,
    state_is,
)


def put(tx: Connection, new: Sequence[NewDelivery], *, now: datetime, at_once: bool = False) -> Sequence[NewDelivery]:
    """Store messages and their deliveries; one that is there already stays as it is.

    A delivery that a gate holds, or that exceeds the throttle of its rule, becomes a member of a digest; one for nobody
    is a dead letter. Return the others. `at_once`: they go out now, whatever their notifiers wait for.
    """
    new = _without_known(tx, new)
    if not new:
        return ()
    distinct = {delivery.message.id: delivery.message for delivery in new}
    tx.execute(upsert(tx, messages).on_conflict_do_nothing(), [_message_row(message) for message in distinct.values()])
    held = _dead(new, now) | _held(tx, new, now)
    counters.add(tx, _counted(new, held), now=now)
    merged = {place: _merge_earlier(tx, new[place], now) for place in _urgent(new, held)}
    waits = {"state": WAITING, "digest": None, "held_by": None, "ended_at": None, "why": None, "shown_with": None}
    held |= {place: waits | facts for place, facts in _shown_by_edits(tx, new, held, now).items()}
    rows = [
        {
            "id": delivery.id, "message": delivery.message.id, "notifier": delivery.notifier,
            "lane": delivery.ordering_key, "thread": delivery.thread,
            "note": " ".join(filter(None, (delivery.note, merged.get(place)))) or None,
            "urgent_since": ms(now) if delivery.urgent else None,
            "created_at": ms(now), "since": ms(now), "attempts": 0,
            "due_at": DUE_AT_ONCE if at_once else ms(now), "body": delivery.body, "channel": delivery.channel,
            "rule": delivery.message.rule or "", **waits, **held.get(place, {}),
        }
        for place, delivery in enumerate(new)
    ]  # fmt: skip
    tx.execute(upsert(tx, deliveries).on_conflict_do_nothing(), rows)
    return [delivery for place, delivery in enumerate(new) if place not in held]


def _without_known(tx: Connection, new: Sequence[NewDelivery]) -> Sequence[NewDelivery]:
    """Leave out what a gate would hold, or others be merged into, and is stored already: it has done so."""
    gated = [delivery.id for delivery in new if delivery.hold or delivery.throttle or delivery.urgent or delivery.dead]
    known = states(tx, gated) if gated else ()
    return [delivery for delivery in new if delivery.id not in known]


_SAYS = ("title", "text", "fields", "state", "rule", "job_id", "public_url", "file", "mention", "links", "language")
_SAYS_OF_INCIDENT = ("incident", "jobs")


def _message_row(message: Message) -> dict[str, Any]:
    names = ("id", "kind", "bucket", "job_id", "sequence", "rule", "state", "workflow_run")
    content = content_of(message)
    return {
        **{name: getattr(message, name) for name in names},
        "happened_at": ms(content.happened_at),
        "event": content.event,
        "says": content.says,
    }


def content_of(message: Message) -> Content:
    """Return what a delivery of a message shows."""
    says = {name: getattr(message, name) for name in _SAYS}
    more: dict[str, Any] = {"digest": True} if message.kind == "digest" else {}
    if message.counts is not None:
        more["counts"] = dict(message.counts)
    if message.incident is not None:
        more |= {name: getattr(message, name) for name in _SAYS_OF_INCIDENT}
    return Content(dump(says | more), dump(message.event), message.happened_at)


# --- urgent messages, and those that show as edits ------------------------------------------------------------------


def _urgent(new: Sequence[NewDelivery], held: Mapping[int, Any]) -> list[int]:
    return [place for place, delivery in enumerate(new) if delivery.urgent and place not in held]


def _merge_earlier(tx: Connection, urgent: NewDelivery, now: datetime) -> str | None:
    """Merge what waits for the same job into an urgent message, which goes first; return the note that says so."""
    if urgent.ordering_key is None or urgent.message.job_id is None:
        return None
    about = select(messages.c.id).filter_by(bucket=urgent.message.bucket, job_id=urgent.message.job_id)
    in_flood = and_(state_is(HELD), deliveries.c.held_by.startswith("flood:"))
    mine = (deliveries.c.message.in_(about), deliveries.c.notifier == urgent.notifier, deliveries.c.id != urgent.id)
    # What was attempted may have arrived: it goes first, and is not merged.
    tried = update(deliveries).where(*mine, state_is(WAITING), deliveries.c.attempts > 0)
    tx.execute(tried.values(due_at=ms(now), urgent_since=ms(now)))
    untried = and_(state_is(WAITING), deliveries.c.attempts == 0)
    same_channel = func.coalesce(deliveries.c.channel, "") == (urgent.channel or "")
    waits = (deliveries.c.urgent_since.is_(None), or_(untried, in_flood), same_channel)
    which = (*mine, *waits)
    found = select(deliveries.c.n, messages.c.state).join(messages).where(*which).order_by(deliveries.c.n)
    rows = tx.execute(found).all()
    if not rows:
        return None
    merged = update(deliveries).where(deliveries.c.n.in_([row.n for row in rows]), *waits)
    values = {"state": MERGED, "ended_at": ms(now), "why": f"told in {urgent.id}", "digest": None, "held_by": None}
    count = tx.execute(merged.values(values)).rowcount
    counters.add(tx, [Count("delivery", (urgent.notifier, "merged"), times=count)], now=now)
    language = language_of(urgent.message.language)
    states = ", ".join(language.state(row.state or "") for row in rows)
    return language.say("Takes the place of earlier messages: {states}.", states=states)


def _shown_by_edits(
    tx: Connection, new: Sequence[NewDelivery], held: Mapping[int, Any], now: datetime
) -> dict[int, dict[str, Any]]:
    """Store what the first messages of threads should show; return by place what waits for such an edit."""
    updating = {
        place: (delivery.notifier, delivery.thread)
        for place, delivery in enumerate(new)
        if delivery.updates and delivery.thread and place not in held
    }
    edits = {place: key for place, key in updating.items() if new[place].shows_by_edit}
    lanes = {key: new[place].ordering_key or "" for place, key in edits.items()}
    there = roots.have_roots(tx, lanes, now=now) if edits else set()
    wishes = {key: content_of(new[place].message) for place, key in updating.items()}
    urgent = {key for place, key in updating.items() if new[place].urgent}
    numbers = roots.want(tx, wishes, now=now, urgent=urgent)
    return {
        place: {"state": HELD, "held_by": roots.HELD_BY, "shown_with": numbers[key]}
        for place, key in edits.items()
        if key in there
    }


# --- for nobody -----------------------------------------------------------------------------------------------------


def _dead(new: Sequence[NewDelivery], now: datetime) -> dict[int, dict[str, Any]]:
    """Return by place in `new` how those are stored that are for nobody."""
    return {
        place: {"state": DEAD, "why": storable(delivery.dead), "ended_at": ms(now)}
        for place, delivery in enumerate(new)
        if delivery.dead
    }


# --- gates ----------------------------------------------------------------------------------------------------------

# A transaction that needs several digests takes them in this order, so two workers never wait for each other.
_LOCK_ORDER: Mapping[Gate, int] = {"group": 0, "throttle": 1, "mute": 2, "silence": 3, "flood": 4, "fallback": 5}


def _held(tx: Connection, new: Sequence[NewDelivery], now: datetime) -> dict[int, dict[str, Any]]:
    """Return by place in `new` how those are stored that are not sent at once."""
    places: dict[tuple[int, Gate, str, str, str, str, str], list[int]] = defaultdict(list)
    new = _following_floods(tx, new, now)
    for place, delivery in enumerate(new):
        if hold := delivery.hold:
            gate, name, label, key = hold.gate, hold.name, hold.label, hold.key
        elif delivery.throttle:
            gate, name, label, key = "throttle", delivery.message.rule or "", "", ""
        else:
            continue
        places[_LOCK_ORDER[gate], gate, name, delivery.notifier, label, key, delivery.channel or ""].append(place)
    held: dict[int, dict[str, Any]] = {}
    for (_, gate, name, notifier, _, _, channel), members in sorted(places.items()):
        first = new[members[0]]
        if first.hold:
            numbers = digests.add_members(tx, first.hold, notifier, len(members), channel=channel or None, now=now)
            drop = first.hold.drop
            held |= {at: _in_digest(n, gate, name, now, drop=drop) for at, n in zip(members, numbers, strict=True)}
        elif rate := first.throttle:
            passed, n = digests.let_pass(tx, name, rate, notifier, len(members), channel=channel or None, now=now)
            held |= {place: _in_digest(n, gate, name, now) for place in members[passed:]}
    return held


def _following_floods(tx: Connection, new: Sequence[NewDelivery], now: datetime) -> Sequence[NewDelivery]:
    """Let what follows a folded message of its job be held too: the digest comes later than it would."""
    keys = {delivery.ordering_key for delivery in new if delivery.may_fold and delivery.ordering_key}
    flooded = digests.flooded(tx, keys) if keys else {}
    until = now + digests.FLOOD_WAIT
    return [
        replace(delivery, hold=Hold(gate="flood", name=name, until=until))
        if delivery.may_fold
        and not delivery.hold
        and not delivery.throttle
        and (name := flooded.get((delivery.notifier, delivery.ordering_key or "")))
        else delivery
        for delivery in new
    ]


def _in_digest(n: int, gate: Gate, name: str, now: datetime, *, drop: bool = False) -> dict[str, Any]:
    held = {"state": HELD, "digest": n, "held_by": f"{gate}:{name}", "ended_at": None, "why": None}
    return held | {"state": DROPPED, "ended_at": ms(now)} if drop else held


def _counted(new: Sequence[NewDelivery], held: Mapping[int, Mapping[str, Any]]) -> Iterator[Count]:
    for place, facts in held.items():
        if facts["state"] == DEAD:
            yield Count("delivery", (new[place].notifier, "dead"))
            continue
        yield Count("suppressed", (new[place].message.rule or "", facts["held_by"].partition(":")[0]))
        if facts["state"] == DROPPED:
            yield Count("delivery", (new[place].notifier, "dropped"))


def stored_id(tx: Connection, message: Message) -> str | None:
    """Return the id under which a message that no rule makes is stored, if it is."""
    same = {"bucket": message.bucket, "job_id": message.job_id, "sequence": message.sequence, "kind": message.kind}
    return tx.execute(select(messages.c.id).filter_by(**same, rule=None)).scalar()


def message_of(tx: Connection, number: int) -> Message:
    """Return the message of a delivery, to send it to another notifier."""
    row = tx.execute(select(messages).join(deliveries).where(deliveries.c.n == number)).one()
    says = json.loads(row.says)
    fields = tuple((name, value) for name, value in says["fields"])
    return from_row(
        Message,
        row,
        title=says["title"],
        text=says["text"],
        fields=fields,
        event=json.loads(row.event),
        public_url=says.get("public_url"),  # older versions stored neither this nor what follows
        file=says.get("file"),
        mention=tuple(says.get("mention", ())),
        links=tuple((label, url) for label, url in says.get("links", ())),
        incident=says.get("incident"),
        jobs=tuple((name, job_id) for name, job_id in says.get("jobs", ())),
        language=says.get("language", "en"),
    )


def states(tx: Connection, ids: Collection[str]) -> dict[str, str]:
    """Return the states of these deliveries, by id."""
    rows = tx.execute(select(deliveries.c.id, deliveries.c.state).where(deliveries.c.id.in_(ids)))
    return {row.id: DELIVERY_STATES[row.state] for row in rows}


RESENT: Mapping[str, Any] = {
    "state": WAITING, "attempts": 0, "lost": 0, "ended_at": None, "why": "sent again by hand", "retry_from": None,
    "retry_due": None,
}  # fmt: skip


IS_RESENDABLE = or_(*map(state_is, (DEAD, DROPPED, DISCARDED)))


def redrive(tx: Connection, which: Select[Any], *, now: datetime) -> list[str]:
    """Resend what is dead, dropped or discarded among `which` (numbers) now, under its own ids; return those."""
    again = update(deliveries).where(deliveries.c.n.in_(which), IS_RESENDABLE)
    values = {**RESENT, "due_at": ms(now), "since": ms(now), "batch": None}
    return list(tx.execute(again.values(values).returning(deliveries.c.id)).scalars())


def discard(
    tx: Connection, which: Select[Any] | Sequence[int], note: str, *, now: datetime, batch: str | None = None
) -> list[str]:
    """Discard what is dead among `which` (numbers), and note who did it and why before why it died; return the ids."""
    died = func.coalesce("; it had died: " + deliveries.c.why, "")
    values = {"state": DISCARDED, "why": storable(note) + died, "ended_at": ms(now), "batch": batch}
    gone = update(deliveries).where(deliveries.c.n.in_(which), state_is(DEAD))
    return list(tx.execute(gone.values(values).returning(deliveries.c.id)).scalars())


_PICKS = select(notifiers.c.name).where(notifiers.c.type == PICK)


def waiting_for_picks(tx: Connection, *, now: datetime, most: int) -> Sequence[tuple[int, str]]:
    """Return (number, notifier) of what was resent for a pick, and is due: it is for one of its notifiers, or dead."""
    picks = tx.execute(_PICKS).scalars().all()
    if not picks:
        return ()
    due = (deliveries.c.notifier.in_(picks), state_is(WAITING), deliveries.c.due_at <= ms(now))
    found = select(deliveries.c.n, deliveries.c.notifier).where(*due).order_by(deliveries.c.due_at, deliveries.c.n)
    return [(row.n, row.notifier) for row in tx.execute(found.limit(most))]


def readdress(tx: Connection, number: int, pick: str, new: NewDelivery, *, now: datetime) -> bool:
    """Let what waits for a pick be for the notifier of another delivery of its message, or for nobody.

    False: another worker has done that.
    """
    mine = update(deliveries).where(deliveries.c.n == number, deliveries.c.notifier == pick, state_is(WAITING))
    values: dict[str, Any] = {
        "notifier": new.notifier, "lane": new.ordering_key, "thread": new.thread, "note": new.note, "body": new.body,
        "channel": new.channel,
    }  # fmt: skip
    if new.dead:
        values |= {"state": DEAD, "why": storable(new.dead), "ended_at": ms(now)}
    return tx.execute(mine.values(values)).rowcount == 1


# --- notifiers that are sent nothing for a while --------------------------------------------------------------------

_CLOSED: dict[str, Any] = {"broken_run": None, "probed_run": None}


def pause(tx: Connection, notifier: str, why: str, reason: Reason = Reason.OTHER, *, now: datetime) -> bool:
    """Send a notifier nothing until it is resumed; its deliveries wait. False: it is paused already, or unknown."""
    row = update(notifiers).filter_by(name=notifier, paused_at=None)
    return tx.execute(row.values(paused_at=ms(now), paused_why=why, paused_reason=reason.value)).rowcount == 1


def resume(tx: Connection, notifier: str) -> bool:
    """Send to a notifier again; False if there is none of this name."""
    closed: dict[str, Any] = {"failures": 0, "asked_run": None, **_CLOSED}
    resumed = {"paused_at": None, "paused_why": None, "paused_reason": None, "not_before": 0, **closed}
    return tx.execute(update(notifiers).filter_by(name=notifier).values(resumed)).rowcount == 1


def postpone_notifier(tx: Connection, notifier: str, until: datetime, *, asked: timedelta | None = None) -> None:
    """Send a notifier nothing before then; a longer wait stays. `asked`: it asked for that, until this run clock."""
    wait = update(notifiers).where(notifiers.c.name == notifier, notifiers.c.not_before < ms(until))
    values: dict[str, Any] = {"not_before": ms(until)}
    tx.execute(wait.values(values if asked is None else values | {"asked_run": run_ms(asked)}))


def breakers(tx: Connection, names: Collection[str]) -> dict[str, Breaker]:
    """Return the breakers of these notifiers."""
    return {row.name: breaker_of(row) for row in tx.execute(select(notifiers).where(notifiers.c.name.in_(names)))}


def breaker_of(row: Row[Any]) -> Breaker:
    return Breaker(opened=run_at(row.broken_run), probed=run_at(row.probed_run), asked_until=run_at(row.asked_run))


def failed(tx: Connection, notifier: str, count: int, *, threshold: int, run: timedelta) -> int:
    """Count attempts without an answer, the last begun at this run clock; return how many that makes in a row.

    `threshold` of them open the notifier's breaker. From then on, many at once count as one.
    """
    failures = notifiers.c.failures
    sum_, broken = failures + count, failures >= threshold
    facts = {
        "failures": case((broken, failures + 1), (sum_ > threshold, threshold), else_=sum_),
        "broken_run": case((broken, notifiers.c.broken_run), (sum_ >= threshold, run_ms(run)), else_=None),
        "probed_run": case((broken, run_ms(run)), else_=None),
    }
    return tx.execute(update(notifiers).filter_by(name=notifier).values(facts).returning(failures)).scalar() or 0


def recovered(tx: Connection, notifier: str, *, threshold: int) -> None:
    """Close the breaker of a notifier that answers again."""
    # While it was broken it has not asked for time: that would have been an answer.
    not_before = case((notifiers.c.failures >= threshold, 0), else_=notifiers.c.not_before)
    closed = {"failures": 0, "not_before": not_before, **_CLOSED}
    tx.execute(update(notifiers).filter_by(name=notifier).values(closed))
