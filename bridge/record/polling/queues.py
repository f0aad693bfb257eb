"""The queues of buckets: their names for people, and which of them are paused. CI is asked for them every hour."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, update

from bridge.model import PAUSED, Queue
from bridge.record.codec import storable
from bridge.record.database import ms, upsert
from bridge.record.schema import leases
from bridge.record.schema import queues as table

ASKED_EVERY = timedelta(hours=1)
_KNOWN_FOR = 3 * ASKED_EVERY  # how long a state is shown that CI has not confirmed since


@dataclass(frozen=True, slots=True)
class PausedQueue:
    """A queue whose jobs wait until somebody resumes it in CI's console."""

    bucket: str
    id: str
    name: str


def is_due(tx: Connection, bucket: str, *, now: datetime) -> bool:
    """Tell whether it is time to ask CI for the queues of a bucket; a time in the future was a wrong clock's."""
    asked = tx.execute(select(leases.c.queues_at).filter_by(name=bucket)).scalar()
    return asked is None or not ms(now - ASKED_EVERY) < asked <= ms(now)


def ask(tx: Connection, bucket: str, *, now: datetime) -> str | None:
    """Store that CI is being asked now; return the error of the last time."""
    error: str | None = tx.execute(select(leases.c.queues_error).filter_by(name=bucket)).scalar()
    tx.execute(update(leases).filter_by(name=bucket).values(queues_at=ms(now)))
    return error


def failed(tx: Connection, bucket: str, error: str) -> None:
    """Store why CI did not name the queues; the names that are known stay."""
    tx.execute(update(leases).filter_by(name=bucket).values(queues_error=storable(error)))


def save(tx: Connection, bucket: str, queues: Iterable[Queue], *, now: datetime) -> None:
    """Store the queues of a bucket; others are forgotten."""
    rows = {storable(queue.id): queue for queue in queues}
    tx.execute(delete(table).where(table.c.bucket == bucket, table.c.id.not_in(list(rows))))
    for queue_id, queue in rows.items():
        facts = {"name": storable(queue.name), "state": storable(queue.state), "seen_at": ms(now)}
        row = upsert(tx, table).values(bucket=bucket, id=queue_id, **facts)
        tx.execute(row.on_conflict_do_update(index_elements=["bucket", "id"], set_=facts))
    tx.execute(update(leases).filter_by(name=bucket).values(queues_error=None))


def names(tx: Connection, ids: Collection[str] | None = None) -> dict[str, str]:
    """Return the names of queues by id; of all of them without `ids`."""
    found = select(table.c.id, table.c.name).where(table.c.name != "")
    if ids is not None:
        found = found.where(table.c.id.in_(ids))
    return {row.id: row.name for row in tx.execute(found)}


def paused(tx: Connection, *, now: datetime) -> Sequence[PausedQueue]:
    """Return the queues that are paused, as far as CI said so lately."""
    found = select(table).where(table.c.state == PAUSED, table.c.seen_at > ms(now - _KNOWN_FOR))
    return [
        PausedQueue(row.bucket, row.id, row.name)
        for row in tx.execute(found.order_by(table.c.bucket, table.c.name, table.c.id))
    ]
