"""Batches: many deliveries that were resent together, each with a due time of its own, so that they go out at a rate.

What was discarded together is one too, so that it can be resent. A batch has no row: it is the deliveries that bear its
id. One that is resent or discarded again belongs to the later batch, and one that is so by itself to none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, case, func, select, update

from bridge.record.codec import Facts, iso
from bridge.record.database import maybe_at, ms
from bridge.record.outbox.entries import IS_RESENDABLE, RESENT
from bridge.record.queries.lists import Filter, of_deliveries, plain
from bridge.record.schema import DEAD, DISCARDED, SENDING, SENT, WAITING, deliveries, digests, messages, state_is


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How far a batch is: how many of its deliveries are in which state."""

    id: str
    scheduled: int = 0  # they wait for their due time
    waiting: int = 0  # they are due, and wait for a place
    sending: int = 0
    sent: int = 0
    dead: int = 0
    discarded: int = 0
    last_due_at: datetime | None = None  # of those scheduled

    @property
    def total(self) -> int:
        return self.scheduled + self.waiting + self.sending + self.sent + self.dead + self.discarded

    def facts(self) -> Facts:
        """Return the batch as JSON shows it."""
        last_due_at = iso(ms(self.last_due_at)) if self.last_due_at else None
        return asdict(self) | {"total": self.total, "last_due_at": last_due_at}


def count(tx: Connection, which: Filter) -> int:
    """Return how many deliveries would be resent, or discarded."""
    return int(tx.execute(_select(tx, which, func.count())).scalar_one())


def numbers(tx: Connection, which: Filter, *, most: int) -> Sequence[int]:
    """Return the numbers of the deliveries that a filter finds, in their order."""
    # Not the number itself: SQLite would walk through all deliveries in their order to find the few.
    found = _select(tx, which, deliveries.c.n).order_by(plain(deliveries.c.n)).limit(most)
    return tx.execute(found).scalars().all()


def numbers_of_fallback(tx: Connection, digest: str, *, most: int) -> Sequence[int] | None:
    """Return the numbers of the dead letters that a fallback's digest (by its delivery's id) tells of, in their order.

    None: no such digest is on record.
    """
    found = tx.execute(select(digests.c.n, digests.c.name).filter_by(delivery=digest, gate="fallback")).first()
    if found is None:
        return None
    told = select(deliveries.c.message).where(deliveries.c.digest == found.n)
    is_dead = (deliveries.c.notifier == found.name, plain(deliveries.c.state) == DEAD)
    dead = select(deliveries.c.n).where(deliveries.c.message.in_(told), *is_dead)
    return tx.execute(dead.order_by(plain(deliveries.c.n)).limit(most)).scalars().all()


def _select(tx: Connection, which: Filter, *columns: Any) -> Select[Any]:
    found = select(*columns).select_from(deliveries).where(*of_deliveries(tx, which))
    # Only where a condition is about messages: to look up each one takes most of the time.
    joined = messages in found.get_final_froms()
    return found.where(messages.c.id == deliveries.c.message) if joined else found


_RESEND = (
    update(deliveries)
    # Whoever resends the same delivery at the same time comes too late: it is no longer dead.
    .where(deliveries.c.n == bindparam("number"), IS_RESENDABLE)
    .values({**RESENT, "due_at": bindparam("due"), "since": bindparam("due"), "batch": bindparam("b_id")})
)


def resend(tx: Connection, id_: str, due: Mapping[int, datetime]) -> int:
    """Let these deliveries (by number) wait until they are due; return how many still could be resent."""
    return tx.execute(_RESEND, [{"number": n, "due": ms(moment), "b_id": id_} for n, moment in due.items()]).rowcount


_IS_SCHEDULED = case((deliveries.c.due_at > bindparam("now"), True), else_=False)
_PROGRESS = (
    select(
        deliveries.c.batch, deliveries.c.state, _IS_SCHEDULED.label("later"), func.count().label("count"),
        func.max(deliveries.c.due_at).label("last"),
    )
    .where(deliveries.c.batch.is_not(None))
    .group_by(deliveries.c.batch, deliveries.c.state, "later")
)  # fmt: skip
_NAMES = {SENDING: "sending", SENT: "sent", DEAD: "dead", DISCARDED: "discarded"}


def progress(tx: Connection, id_: str, *, now: datetime) -> Batch | None:
    """Return how far a batch is; None when no delivery belongs to it."""
    found = _batches(tx, _PROGRESS.where(deliveries.c.batch == id_), now)
    return found[0] if found else None


def under_way(tx: Connection, *, now: datetime) -> list[Batch]:
    """Return the batches of which something waits, and only how much of each does; the first to end comes first."""
    found = _batches(tx, _PROGRESS.where(state_is(WAITING)), now)
    return sorted(found, key=lambda batch: (batch.last_due_at or now, batch.id))


def _batches(tx: Connection, found: Select[Any], now: datetime) -> list[Batch]:
    facts: dict[str, dict[str, Any]] = {}
    for row in tx.execute(found, {"now": ms(now)}):
        is_scheduled = row.state == WAITING and row.later
        name = "scheduled" if is_scheduled else _NAMES.get(row.state, "waiting")
        batch = facts.setdefault(row.batch, {"id": row.batch})
        batch[name] = batch.get(name, 0) + row.count
        if is_scheduled:
            batch["last_due_at"] = maybe_at(row.last)
    return [Batch(**each) for each in facts.values()]


def not_due(tx: Connection, id_: str, *, now: datetime) -> Sequence[int]:
    """Return the numbers of the deliveries of a batch that are not due yet: those due last come first."""
    mine = (deliveries.c.batch == id_, state_is(WAITING), deliveries.c.due_at > ms(now))
    return tx.execute(select(deliveries.c.n).where(*mine).order_by(deliveries.c.due_at.desc())).scalars().all()


_CANCEL = (
    update(deliveries)
    .where(deliveries.c.n == bindparam("number"), func.coalesce(deliveries.c.batch, "") == bindparam("b_id"))
    # As no index knows them: with statistics from before the batch, PostgreSQL would walk through it for each one.
    .where(plain(deliveries.c.state) == WAITING, plain(deliveries.c.due_at) > bindparam("now"))
    .values(state=DEAD, ended_at=bindparam("now"), why="its batch was cancelled")
)


def cancel(tx: Connection, id_: str, numbers: Sequence[int], *, now: datetime) -> int:
    """Make these deliveries of a batch dead letters; return how many still were not due."""
    return tx.execute(_CANCEL, [{"number": n, "b_id": id_, "now": ms(now)} for n in numbers]).rowcount
