"""Digests: messages that wait to be told as one, and the windows of throttles.

A row of `digest` takes messages in while it is open. Adding to it and ending it both hold its row, so that on
PostgreSQL too a message is either in it when it is told, or in the next one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, delete, func, literal_column, or_, select, text, update

from bridge.model import Gate, Hold, Rate, Transition
from bridge.record import counters
from bridge.record.counters import Count
from bridge.record.database import at, ms, upsert
from bridge.record.polling.snapshots import judged
from bridge.record.schema import DROPPED, HELD, MERGED, state_is
from bridge.record.schema import delivery as D  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import digest as G  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import silence as Q  # noqa: N812
from bridge.record.schema import transition as T  # noqa: N812

_KEY = (G.c.gate, G.c.name, G.c.notifier, G.c.key)


def enter(
    tx: Connection, hold: Hold, notifier: str, count: int, *, channel: str | None = None, now: datetime
) -> list[int]:
    """Make room for `count` messages in the digest of this gate, new ones where there is none or it is full.

    Return the number of the digest of each. One that is full is due.
    """
    key, places = _key(hold.gate, hold.name, notifier, hold.key, channel), list[int]()
    facts = {"label": hold.label or None, "channel": channel, "wall": hold.wall, "drops": hold.drop}
    while len(places) < count:
        row = _take(tx, key, facts, due=hold.until, now=now, members=count - len(places))
        over = max(0, row.members - hold.most) if hold.most else 0
        places += [int(row.n)] * (count - len(places) - over)
        if hold.most and row.members >= hold.most:
            full = {"members": hold.most, "open": False, "due_at": ms(now)}
            tx.execute(update(G).where(G.c.n == row.n).values(full))
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
        mine = 0 if channel else over
        tx.execute(update(G).where(G.c.n == n).values(passed=G.c.passed - over, members=G.c.members + mine))
    if over and channel:
        key = _key("throttle", rule, notifier, "", channel)
        n = int(_take(tx, key, {"channel": channel}, due=at(window.due_at), now=now, members=over).n)
    return count - over, n


def _key(gate: Gate, name: str, notifier: str, key: str, channel: str | None) -> dict[str, Any]:
    return {"gate": gate, "name": name, "notifier": notifier, "key": f"{key}/{channel}" if channel else key}


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
    """Add to the digest of this key that is open, or to a new one; its row is held until the transaction ends."""
    # One whose time has come takes nothing more in, also when nobody has told it yet.
    over = update(G).where(*(column == key[column.name] for column in _KEY), G.c.open, G.c.due_at <= ms(now))
    tx.execute(over.values(open=False))
    row = upsert(tx, G).values(**key, **facts, opened_at=ms(now), due_at=ms(due), members=members, passed=passed)
    row = row.on_conflict_do_update(
        index_elements=list(_KEY),
        index_where=text("open = 1" if tx.dialect.name == "sqlite" else "open"),
        set_={"members": G.c.members + members, "passed": G.c.passed + passed},
    )
    return tx.execute(row.returning(G.c.n, G.c.members, G.c.passed, G.c.due_at)).one()


# A silence may have been ended while somebody who did not know it yet put something in.
_IS_OVER = select(literal_column("1")).where(Q.c.id == G.c.name, Q.c.ends_at <= bindparam("now")).exists()
_DUE = (
    literal_column("digest.ended_at").is_(None),
    or_(G.c.due_at <= bindparam("now"), and_(G.c.gate == "silence", _IS_OVER)),
)


def due(tx: Connection, *, now: datetime, most: int = 100) -> Sequence[int]:
    """Return the numbers of the digests whose time has come."""
    found = select(G.c.n).where(*_DUE).order_by(G.c.due_at, G.c.n).limit(most)
    return tx.execute(found, {"now": ms(now)}).scalars().all()


def waiting(tx: Connection) -> dict[str, int]:
    """Return by notifier how many messages wait in digests."""
    # From the few digests to their members: SQLite would take all that were ever in one.
    open_ = D.c.digest.in_(select(G.c.n).where(literal_column("digest.ended_at").is_(None)))
    members = select(D.c.notifier, func.count()).where(open_, D.c.digest.is_not(None), state_is(HELD))
    return {row[0]: row[1] for row in tx.execute(members.group_by(D.c.notifier))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A digest whose time has come."""

    n: int
    gate: Gate
    name: str
    notifier: str
    label: str | None
    channel: str | None
    opened_at: datetime
    due_at: datetime
    passed: int


_COLUMNS = (G.c.n, G.c.gate, G.c.name, G.c.notifier, G.c.label, G.c.channel, G.c.opened_at, G.c.due_at, G.c.passed)


def held(tx: Connection, n: int, *, now: datetime) -> Due | None:
    """Return a digest that is due, and hold its row until the transaction ends; None when somebody has ended it."""
    found = select(*_COLUMNS).where(G.c.n == n, *_DUE)
    if tx.dialect.name == "postgresql":
        found = found.with_for_update()
    return _due(tx.execute(found, {"now": ms(now)}).first(), now)


def end(tx: Connection, n: int, *, now: datetime) -> Due | None:
    """End a digest that is due; None when somebody else has done so."""
    ended = update(G).where(G.c.n == n, *_DUE).values(open=False, ended_at=bindparam("now")).returning(*_COLUMNS)
    return _due(tx.execute(ended, {"now": ms(now)}).first(), now)


def _due(row: Any, now: datetime) -> Due | None:
    if row is None:
        return None
    facts = row._asdict()
    # A silence that was ended early was to be told then.
    return Due(**facts | {"opened_at": at(row.opened_at), "due_at": min(at(row.due_at), now)})


def put_off(tx: Connection, n: int, until: datetime) -> None:
    """Tell a digest later."""
    tx.execute(update(G).where(G.c.n == n, G.c.ended_at.is_(None)).values(due_at=ms(until), open=False))


def _members(n: int) -> tuple[Any, ...]:
    return D.c.digest == n, D.c.digest.is_not(None), state_is(HELD)


def counts(tx: Connection, n: int) -> dict[str, int]:
    """Return how many members a digest has, by state of the job."""
    found = select(M.c.state, func.count()).join(D, D.c.message == M.c.id).where(*_members(n)).group_by(M.c.state)
    return {row[0] or "": row[1] for row in tx.execute(found)}


def first(tx: Connection, n: int, states: Collection[str], most: int) -> list[dict[str, Any]]:
    """Return the first members of each of these states, as facts of a Member, and the id of the message of each."""
    rows: list[dict[str, Any]] = []
    columns = (M.c.id, M.c.job_id, M.c.bucket, M.c.sequence, M.c.state, M.c.says, M.c.happened_at)
    for state in states:
        found = select(*columns).join(D, D.c.message == M.c.id).where(*_members(n), M.c.state == state)
        for row in tx.execute(found.order_by(D.c.n).limit(most)):
            says = json.loads(row.says)
            facts = {"job_id": row.job_id, "bucket": row.bucket, "sequence": row.sequence, "state": row.state}
            rows.append({**facts, "title": says["title"], "text": says["text"], "happened_at": at(row.happened_at)})
    return rows


def origin(tx: Connection, n: int) -> str:
    """Return the id of the first message of a digest."""
    found = select(D.c.message).where(*_members(n)).order_by(D.c.n).limit(1)
    return str(tx.execute(found).scalar_one())


def members(tx: Connection, n: int, *, after: int, most: int) -> list[tuple[int, str, datetime, Transition | None]]:
    """Return (number, rule, when it was made, transition) of the next members; a transition may have been pruned."""
    step = and_(T.c.bucket == M.c.bucket, T.c.job_id == M.c.job_id, T.c.sequence == M.c.sequence)
    columns = (D.c.n.label("number"), D.c.created_at, M.c.rule, T)
    found = select(*columns).join(M, M.c.id == D.c.message).outerjoin(T, step)
    rows = tx.execute(found.where(*_members(n), D.c.n > after).order_by(D.c.n).limit(most))
    return [
        (row.number, row.rule or "", at(row.created_at), judged(row).transition if row.n is not None else None)
        for row in rows
    ]


def merged(tx: Connection, n: int, delivery: str, *, now: datetime) -> None:
    """The members are told by this delivery."""
    told = {"state": MERGED, "ended_at": ms(now), "why": f"told in {delivery}"}
    count = tx.execute(update(D).where(*_members(n)).values(**told)).rowcount
    row = update(G).where(G.c.n == n).values(delivery=delivery).returning(G.c.notifier)
    _count(tx, tx.execute(row).scalar_one(), "merged", count, now)


def move(tx: Connection, numbers: Sequence[int] | None, *, of: int, to: int, drop: bool, now: datetime) -> None:
    """Move members (None: all) of a digest into another that took them in."""
    which = _members(of) if numbers is None else (D.c.n.in_(numbers), *_members(of))
    values: dict[str, Any] = {"digest": to}
    if drop:
        values |= {"state": DROPPED, "ended_at": ms(now)}
    count = tx.execute(update(D).where(*which).values(**values)).rowcount
    if drop:
        _count(tx, tx.execute(select(G.c.notifier).where(G.c.n == of)).scalar_one(), "dropped", count, now)


def _count(tx: Connection, notifier: str, outcome: str, count: int, now: datetime) -> None:
    counters.add(tx, [Count("delivery", (notifier, outcome), times=count)], now=now)


def prune(tx: Connection, *, before: datetime, silences_before: datetime) -> int:
    """Take out digests that ended before then and that no delivery names any more; a silence counts its own longer."""
    used = select(literal_column("1")).where(D.c.digest == G.c.n, D.c.digest.is_not(None)).exists()
    old = case((G.c.gate == "silence", ms(silences_before)), else_=ms(before))
    return tx.execute(delete(G).where(G.c.ended_at < old, ~used)).rowcount
