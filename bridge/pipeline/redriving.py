"""Sending many deliveries again: orders as people give them, and workers carry them out."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.record import redrives
from bridge.record.database import TROUBLES, Database, ms
from bridge.record.reading import Filter, iso
from bridge.record.redrives import Order

logger = logging.getLogger(__name__)

Facts = dict[str, Any]

USUAL_PER_MINUTE, MOST_PER_MINUTE = 600, 6_000
STATES = ("dead", "dropped")
MOST = 20  # orders that have not ended


class TooMany(Exception):
    """There is no room for another order; the text says what to do."""


def order(tx: Connection, which: Filter, *, per_minute: int, author: str, id_: str, now: datetime) -> Order:
    """Store an order to send what a filter finds again; its state is one of STATES. Raises TooMany."""
    open_ = redrives.unfinished(tx)
    if open_ >= MOST:
        raise TooMany(f"{open_} orders have not ended, and {MOST} are the most; wait for some, or end them")
    redrives.add(tx, which, id_=id_, author=author, per_minute=per_minute, now=now)
    made = redrives.one(tx, id_)
    assert made  # noqa: S101  (it was put there a moment ago)
    return made


def order_facts(one: Order) -> Facts:
    return {
        "id": one.id,
        "filter": dict(one.which),
        "author": one.author,
        "per_minute": one.per_minute,
        "created_at": iso(ms(one.created_at)),
        "total": one.total,
        "done": one.done,
        "left": one.left,
        "ended_at": iso(ms(one.ended_at)) if one.ended_at else None,
        "ended_by": one.ended_by,
    }


def carry_out(db: Database, now: datetime) -> int:
    """Send again what is due of each order, in a transaction each; return how many deliveries that were."""
    with db.read() as tx:  # a worker with nothing to do never takes SQLite's write lock
        numbers = redrives.due(tx, now=now)
    return sum(_carry_on(db, n, now) for n in numbers)


def _carry_on(db: Database, n: int, now: datetime) -> int:
    try:
        with db.write() as tx:
            again = redrives.carry_on(tx, n, now=now)
    except TROUBLES:
        raise
    except Exception:  # one that a newer version was given must not keep the others from going on
        logger.exception("an order cannot be carried out here", extra={"order": n})
        return 0
    if again:
        logger.info("sent again by an order", extra={"order": n, "deliveries": again})
    return again
