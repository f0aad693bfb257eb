"""What was asked under an Idempotency-Key, and answered: kept in the transaction of the deed itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, update

from bridge.record.database import ms, upsert
from bridge.record.schema import answered as K  # noqa: N812  (tables are capital letters in SQL here)

KEPT = timedelta(hours=24)
_NOT_YET = 0  # the status of a request that is under way


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str
    location: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A key, and what was asked under it, as digests."""

    key: str
    request: str


class KeyReused(Exception):
    """The key was used for another request."""


def find(tx: Connection, asked: Asked, *, now: datetime) -> Answer | None:
    """Return what was answered under the key. Raises KeyReused."""
    row = tx.execute(select(K).where(K.c.key == asked.key, K.c.at > ms(now - KEPT))).first()
    if row is None:
        return None
    if row.request != asked.request:
        raise KeyReused
    return Answer(row.status, row.body, row.location)


def take(tx: Connection, asked: Asked, *, now: datetime) -> bool:
    """Take the key for this transaction; False when it is taken.

    While another transaction has it this one waits, until the other has committed or has left the key free.
    """
    row = upsert(tx, K).values(key=asked.key, request=asked.request, status=_NOT_YET, body="", at=ms(now))
    anew = {name: row.excluded[name] for name in ("request", "status", "body", "location", "at")}
    taken = row.on_conflict_do_update(index_elements=["key"], set_=anew, where=K.c.at <= ms(now - KEPT))
    return tx.execute(taken.returning(K.c.key)).first() is not None


def keep(tx: Connection, asked: Asked, answer: Answer) -> None:
    facts = {"status": answer.status, "body": answer.body, "location": answer.location}
    tx.execute(update(K).where(K.c.key == asked.key).values(facts))


def prune(tx: Connection, *, now: datetime) -> int:
    """Take out answers that are no longer given."""
    return tx.execute(delete(K).where(K.c.at <= ms(now - KEPT))).rowcount
