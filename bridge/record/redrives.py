"""Orders to send dead or dropped deliveries again, carried out a few at a time by any number of workers.

An order walks the deliveries by number, from `after` to the last one that there was when it was given: what it has
sent again, and what dies after that, it never sees twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, literal_column, select, update

from bridge.record import outbox, reading
from bridge.record.codec import dump
from bridge.record.database import at, maybe_at, ms
from bridge.record.reading import Filter
from bridge.record.schema import WAITING, state_is
from bridge.record.schema import delivery as D  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812
from bridge.record.schema import redrive as R  # noqa: N812

CATCH_UP = timedelta(seconds=10)  # of a time in which no worker looked, no more is made up for
_MINUTE_MS = 60_000
_TIMES = ("since", "until")
_KEYS = ("state", "notifier", "rule", "job", "digest", *_TIMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as it stands. `total` is how many there were when it was given; more, if others have died since."""

    n: int
    id: str
    which: Mapping[str, str]  # as JSON says it
    author: str
    per_minute: int
    created_at: datetime
    total: int
    done: int
    ended_at: datetime | None
    ended_by: str | None  # who ended it early

    @property
    def left(self) -> int:
        """How many it has still to send again, or had when it was ended early; what is gone by then is not left."""
        return 0 if self.ended_at and self.ended_by is None else self.total - self.done


def count(tx: Connection, which: Filter) -> int:
    """Return how many deliveries an order would send again."""
    return int(tx.execute(_found(tx, which, func.count())).scalar_one())


def add(tx: Connection, which: Filter, *, id_: str, author: str, per_minute: int, now: datetime) -> None:
    """Store an order; one that has nothing to do has ended."""
    total = count(tx, which)
    tx.execute(
        insert(R).values(
            id=id_,
            spec=dump(spec_of(which)),
            author=author,
            per_minute=per_minute,
            created_at=ms(now),
            up_to=tx.execute(select(func.max(D.c.n))).scalar() or 0,
            total=total,
            next_at=ms(now),
            ended_at=None if total else ms(now),
        )
    )


def spec_of(which: Filter) -> dict[str, str]:
    """Return a filter as JSON says it."""
    said = {key: value for key in _KEYS if (value := getattr(which, key)) is not None}
    return said | {key: said[key].isoformat().replace("+00:00", "Z") for key in _TIMES if key in said}


def _filter(spec: str) -> Filter:
    said = json.loads(spec)
    return Filter(**said | {key: datetime.fromisoformat(said[key]) for key in _TIMES if key in said})


def _found(tx: Connection, which: Filter, *columns: Any) -> Select[Any]:
    found = select(*columns).select_from(D).where(*reading.of_deliveries(tx, which))
    # Only where a condition is about messages: to look up each one takes most of the time.
    return found.where(M.c.id == D.c.message) if M in found.get_final_froms() else found


def one(tx: Connection, id_: str) -> Order | None:
    row = tx.execute(select(R).where(R.c.id == id_)).first()
    return _order(row) if row else None


def page(tx: Connection, *, cursor: int | None = None, limit: int = 50) -> tuple[list[Order], int | None]:
    """Return orders, the newest first, and the cursor of the next page."""
    found = select(R).order_by(R.c.n.desc()).limit(limit + 1)
    if cursor is not None:
        found = found.where(R.c.n < cursor)
    rows = tx.execute(found).all()
    return [_order(row) for row in rows[:limit]], rows[limit - 1].n if len(rows) > limit else None


def unfinished(tx: Connection) -> int:
    """Return how many orders have not ended."""
    return int(tx.execute(select(func.count()).select_from(R).where(R.c.ended_at.is_(None))).scalar_one())


def end(tx: Connection, id_: str, *, by: str, now: datetime) -> bool:
    """End an order early; False when there is none of this id that has not ended."""
    row = update(R).where(R.c.id == id_, R.c.ended_at.is_(None))
    return tx.execute(row.values(ended_at=ms(now), ended_by=by)).rowcount == 1


def due(tx: Connection, *, now: datetime) -> list[int]:
    """Return the numbers of the orders that may send again now."""
    found = select(R.c.n).where(R.c.ended_at.is_(None), R.c.next_at <= ms(now))
    return list(tx.execute(found.order_by(R.c.next_at, R.c.n)).scalars())


def carry_on(tx: Connection, n: int, *, now: datetime) -> int:
    """Send again what is due of an order that nobody else is about; return how many that were."""
    found = select(R).where(R.c.n == n, R.c.ended_at.is_(None), R.c.next_at <= ms(now))
    if tx.dialect.name == "postgresql":
        found = found.with_for_update(skip_locked=True)
    row = tx.execute(found).first()
    if row is None:
        return 0
    begin = max(row.next_at, ms(now - CATCH_UP))
    room = 1 + (ms(now) - begin) * row.per_minute // _MINUTE_MS
    these = _next(tx, row, room + 1)
    numbers = _at_once(tx, these[:room], row.per_minute, now)
    again = outbox.redrive(tx, select(D.c.n).where(D.c.n.in_(numbers)), now=now)
    done = row.done + len(again)
    took_ms = -(-len(numbers) * _MINUTE_MS // row.per_minute)
    values: dict[str, Any] = {"done": done, "total": max(row.total, done), "next_at": begin + took_ms}
    if len(numbers) == len(these):
        values |= {"after": row.up_to, "ended_at": ms(now)}
    elif numbers:
        values |= {"after": numbers[-1]}
    tx.execute(update(R).where(R.c.n == n).values(**values))
    return len(again)


def _at_once(tx: Connection, found: Sequence[Row[Any]], per_minute: int, now: datetime) -> list[int]:
    """Return their numbers up to the first that would make what is new wait, as its notifier takes no more so soon."""
    room: dict[str, float] = {}
    numbers: list[int] = []
    for one in found:
        if one.notifier not in room:
            room[one.notifier] = _room(tx, one.notifier, per_minute, now)
        room[one.notifier] -= 1
        if room[one.notifier] < 0:
            break
        numbers.append(one.n)
    return numbers


def _room(tx: Connection, notifier: str, per_minute: int, now: datetime) -> float:
    """Return how many a notifier may be given; one that is told nothing now keeps nobody else's waiting."""
    row = tx.execute(select(N.c.paused_at, N.c.not_before, N.c.interval_ms).where(N.c.name == notifier)).first()
    if row is None or row.paused_at is not None or row.not_before > ms(now):
        return math.inf
    most = 1 + CATCH_UP // timedelta(milliseconds=row.interval_ms or max(1, _MINUTE_MS // per_minute))
    due = select(D.c.n).where(D.c.notifier == notifier, state_is(WAITING), D.c.due_at <= ms(now))
    return most - int(tx.execute(select(func.count()).select_from(due.limit(most).subquery())).scalar_one())


def _next(tx: Connection, row: Row[Any], most: int) -> Sequence[Row[Any]]:
    # Not the number itself: SQLite would walk through all deliveries in their order to find the few.
    number = D.c.n + literal_column("0")
    found = _found(tx, _filter(row.spec), D.c.n, D.c.notifier).where(number > row.after, number <= row.up_to)
    if tx.dialect.name == "postgresql":
        # In one order, or two orders that meet would wait for each other.
        found = found.with_for_update(of=D)
    return tx.execute(found.order_by(number).limit(most)).all()


def prune(tx: Connection, *, before: datetime) -> int:
    """Take out orders that ended before then."""
    return tx.execute(delete(R).where(R.c.ended_at < ms(before))).rowcount


def _order(row: Row[Any]) -> Order:
    return Order(
        n=row.n,
        id=row.id,
        which=json.loads(row.spec),
        author=row.author,
        per_minute=row.per_minute,
        created_at=at(row.created_at),
        total=row.total,
        done=row.done,
        ended_at=maybe_at(row.ended_at),
        ended_by=row.ended_by,
    )
