"""Digests: messages that wait to be sent as one, and the windows of throttles.

A row of `digest` takes messages in while it is open. Adding to it and ending it both lock its row, so that on
PostgreSQL too a message is either in it when it is sent, or in the next one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    text,
    update,
)

from bridge.model import Gate, Hold, Rate, Transition
from bridge.record import counters
from bridge.record.codec import from_row
from bridge.record.counters import Count
from bridge.record.database import at, ms, upsert
from bridge.record.polling.snapshots import transition_of
from bridge.record.schema import (
    DROPPED,
    HELD,
    MERGED,
    deliveries,
    digests,
    messages,
    same_step,
    silences,
    state_is,
    transitions,
)

_KEY = (digests.c.gate, digests.c.name, digests.c.notifier, digests.c.key)
IS_OPEN = literal_column("digest.ended_at").is_(None)  # a partial index is found by these words alone


def add_members(
    tx: Connection, hold: Hold, notifier: str, count: int, *, channel: str | None = None, now: datetime
) -> list[int]:
    """Count `count` messages into digests of this gate; return for each the number of its digest.

    A new digest is opened where there is none, or it is full. A full digest is due.
    """
    key, places = _key(hold.gate, hold.name, notifier, hold.key, channel), list[int]()
    facts = {"label": hold.label or None, "channel": channel, "wall": hold.wall, "drops": hold.drop}
    while len(places) < count:
        row = _take(tx, key, facts, due=hold.until, now=now, members=count - len(places))
        over = max(0, row.members - hold.most) if hold.most else 0
        places += [int(row.n)] * (count - len(places) - over)
        if hold.most and row.members >= hold.most:
            full = {"members": hold.most, "open": False, "due_at": ms(now)}
            tx.execute(update(digests).filter_by(n=row.n).values(full))
    return places


def let_pass(
    tx: Connection, rule: str, rate: Rate, notifier: str, count: int, *, channel: str | None = None, now: datetime
) -> tuple[int, int]:
    """Book `count` messages of a rule that has a throttle, which counts for each notifier.

    Return how many of them may pass, and the number of the digest that the others go into.
    """
    window = _take(tx, _key("throttle", rule, notifier, "", None), {}, due=now + rate.per, now=now, passed=count)
    n, over = int(window.n), min(count, max(0, window.passed - rate.count))
    if over:
        here = 0 if channel else over
        booked = {"passed": digests.c.passed - over, "members": digests.c.members + here}
        tx.execute(update(digests).filter_by(n=n).values(booked))
    if over and channel:
        key = _key("throttle", rule, notifier, "", channel)
        n = int(_take(tx, key, {"channel": channel}, due=at(window.due_at), now=now, members=over).n)
    return count - over, n


_LONGEST_KEY = 40  # characters; PostgreSQL counts them


def _key(gate: Gate, name: str, notifier: str, key: str, channel: str | None) -> dict[str, Any]:
    text = f"{key}/{channel}" if channel else key
    if len(text) > _LONGEST_KEY:
        text = sha256(text.encode()).hexdigest()[:_LONGEST_KEY]
    return {"gate": gate, "name": name, "notifier": notifier, "key": text}


def _take(
    tx: Connection,
    key: dict[str, Any],
    facts: dict[str, Any],
    *,
    due: datetime,
    now: datetime,
    members: int = 0,
    passed: int = 0,
) -> Row[Any]:
    """Add to the digest of this key that is open, or to a new one; its row is locked until the transaction ends."""
    # One that is due takes nothing more in, even if it was not sent yet.
    over = update(digests).where(*(column == key[column.name] for column in _KEY), digests.c.open)
    tx.execute(over.where(digests.c.due_at <= ms(now)).values(open=False))
    row = upsert(tx, digests).values(**key, **facts, opened_at=ms(now), due_at=ms(due), members=members, passed=passed)
    row = row.on_conflict_do_update(
        index_elements=list(_KEY),
        index_where=text("open = 1" if tx.dialect.name == "sqlite" else "open"),
        set_={"members": digests.c.members + members, "passed": digests.c.passed + passed},
    )
    return tx.execute(row.returning(digests.c.n, digests.c.members, digests.c.passed, digests.c.due_at)).one()


FLOOD_WAIT = timedelta(minutes=1)  # for which a flood's digest takes messages in


def flooded(tx: Connection, ordering_keys: Collection[str]) -> dict[tuple[str, str], str]:
    """Return by notifier and ordering key in which flood's digest, by its name, an earlier delivery waits."""
    open_ = select(digests.c.n, digests.c.name).where(digests.c.gate == "flood", IS_OPEN)
    names = {row.n: row.name for row in tx.execute(open_)}
    if not names:
        return {}
    held = (deliveries.c.digest.in_(names), deliveries.c.digest.is_not(None), state_is(HELD))
    found = select(deliveries.c.notifier, deliveries.c.lane, deliveries.c.digest).where(*held)
    rows = tx.execute(found.where(deliveries.c.lane.in_(ordering_keys)))
    return {(row.notifier, row.lane): names[row.digest] for row in rows}


# --- what is due ----------------------------------------------------------------------------------------------------

# A silence may have been ended, or extended, while a transaction that did not know it yet put something in.
_IS_OVER = exists().where(silences.c.id == digests.c.name, silences.c.ends_at <= bindparam("now"))
_GOES_ON = exists().where(silences.c.id == digests.c.name, silences.c.ends_at > bindparam("now"))
_OF_SILENCE = digests.c.gate == "silence"
_DUE = (
    IS_OPEN,
    or_(and_(digests.c.due_at <= bindparam("now"), not_(and_(_OF_SILENCE, _GOES_ON))), and_(_OF_SILENCE, _IS_OVER)),
)
_FIRST_DUE = select(digests.c.n).where(*_DUE).order_by(digests.c.due_at, digests.c.n).limit(100)


def due(tx: Connection, *, now: datetime) -> Sequence[int]:
    """Return the numbers of the digests that are due, of many the first ones."""
    return tx.execute(_FIRST_DUE, {"now": ms(now)}).scalars().all()


def waiting(tx: Connection) -> dict[str, int]:
    """Return by notifier how many messages wait in digests."""
    # From the few digests to their members: SQLite would take all that were ever in one.
    in_open = deliveries.c.digest.in_(select(digests.c.n).where(IS_OPEN))
    held = select(deliveries.c.notifier, func.count()).where(in_open, deliveries.c.digest.is_not(None), state_is(HELD))
    return {row[0]: row[1] for row in tx.execute(held.group_by(deliveries.c.notifier))}


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDigest:
    """A digest that is due."""

    n: int
    gate: Gate
    name: str
    notifier: str
    label: str | None
    channel: str | None
    opened_at: datetime
    due_at: datetime
    passed: int


def lock_due(tx: Connection, n: int, *, now: datetime) -> DueDigest | None:
    """Return a digest that is due, and lock its row until the transaction ends; None if it was ended meanwhile."""
    found = select(digests).where(digests.c.n == n, *_DUE)
    if tx.dialect.name == "postgresql":
        found = found.with_for_update()
    return _due(tx.execute(found, {"now": ms(now)}).first(), now)


def end(tx: Connection, n: int, *, now: datetime) -> DueDigest | None:
    """End a digest that is due; None if it was ended meanwhile."""
    ended = update(digests).where(digests.c.n == n, *_DUE).values(open=False, ended_at=bindparam("now"))
    return _due(tx.execute(ended.returning(digests), {"now": ms(now)}).first(), now)


def _due(row: Any, now: datetime) -> DueDigest | None:
    # A silence that was ended early was due then.
    return from_row(DueDigest, row, due_at=min(at(row.due_at), now)) if row else None


def put_off(tx: Connection, n: int, until: datetime) -> None:
    """Send a digest later."""
    open_ = update(digests).where(digests.c.n == n, digests.c.ended_at.is_(None))
    tx.execute(open_.values(due_at=ms(until), open=False))


# --- members --------------------------------------------------------------------------------------------------------


def _members(n: int) -> tuple[Any, ...]:
    return deliveries.c.digest == n, deliveries.c.digest.is_not(None), state_is(HELD)


def counts(tx: Connection, n: int) -> dict[str, int]:
    """Return how many members a digest has, by state of the job."""
    found = select(messages.c.state, func.count()).join(deliveries).where(*_members(n)).group_by(messages.c.state)
    return {row[0] or "": row[1] for row in tx.execute(found)}


def first(tx: Connection, n: int, states: Collection[str], most: int) -> list[dict[str, Any]]:
    """Return the first members of each of these states ("": of none), as facts of a Member."""
    facts: list[dict[str, Any]] = []
    names = ("job_id", "bucket", "sequence", "says", "happened_at")
    for state in states:
        found = select(*(messages.c[name] for name in names)).join(deliveries)
        found = found.where(*_members(n), messages.c.state == (state or None)).order_by(deliveries.c.n)
        for row in tx.execute(found.limit(most)):
            says = json.loads(row.says)
            text = "" if says.get("incident") else says["text"]  # a list of jobs, whose title says how many
            said = {"title": says["title"], "text": text, "file": says.get("file"), "state": state}
            about = {name: getattr(row, name) for name in ("job_id", "bucket", "sequence")}
            facts.append({**about, **said, "happened_at": at(row.happened_at)})
    return facts


def origin(tx: Connection, n: int) -> str:
    """Return the id of the first message of a digest."""
    found = select(deliveries.c.message).where(*_members(n)).order_by(deliveries.c.n).limit(1)
    return str(tx.execute(found).scalar_one())


def members(tx: Connection, n: int, *, after: int, most: int) -> list[tuple[int, str, datetime, Transition | None]]:
    """Return (number, rule, when it was made, transition) of the next members; a transition may have been pruned."""
    columns = (deliveries.c.n.label("number"), deliveries.c.created_at, messages.c.rule, transitions)
    found = select(*columns).join(messages, messages.c.id == deliveries.c.message)
    found = found.outerjoin(transitions, same_step(transitions, messages)).where(*_members(n), deliveries.c.n > after)
    return [
        (row.number, row.rule or "", at(row.created_at), transition_of(row) if row.n is not None else None)
        for row in tx.execute(found.order_by(deliveries.c.n).limit(most))
    ]


def merged(tx: Connection, n: int, delivery: str, *, now: datetime) -> None:
    """Store that the members are sent with this delivery."""
    values = {"state": MERGED, "ended_at": ms(now), "why": f"told in {delivery}"}
    count = tx.execute(update(deliveries).where(*_members(n)).values(**values)).rowcount
    row = update(digests).filter_by(n=n).values(delivery=delivery).returning(digests.c.notifier)
    _count(tx, tx.execute(row).scalar_one(), "merged", count, now)


def move(tx: Connection, numbers: Sequence[int] | None, *, of: int, to: int, drop: bool, now: datetime) -> None:
    """Move members (None: all) of a digest into another that took them in."""
    which = _members(of) if numbers is None else (deliveries.c.n.in_(numbers), *_members(of))
    values: dict[str, Any] = {"digest": to}
    if drop:
        values |= {"state": DROPPED, "ended_at": ms(now)}
    count = tx.execute(update(deliveries).where(*which).values(**values)).rowcount
    if drop:
        _count(tx, tx.execute(select(digests.c.notifier).filter_by(n=of)).scalar_one(), "dropped", count, now)


def _count(tx: Connection, notifier: str, outcome: str, count: int, now: datetime) -> None:
    counters.add(tx, [Count("delivery", (notifier, outcome), times=count)], now=now)


def prune(tx: Connection, *, before: datetime, silences_before: datetime) -> int:
    """Delete digests that ended before then and that no delivery names any more; a silence counts its own longer."""
    used = exists().where(deliveries.c.digest == digests.c.n, deliveries.c.digest.is_not(None))
    old = case((digests.c.gate == "silence", ms(silences_before)), else_=ms(before))
    return tx.execute(delete(digests).where(digests.c.ended_at < old, ~used)).rowcount
