"""Silences: who made them, until when, and how much they have held."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from bridge.model import Silence
from bridge.record import digests
from bridge.record.database import at, maybe_at, ms
from bridge.record.schema import digest as G  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import silence as Q  # noqa: N812


def add(tx: Connection, silence: Silence) -> None:
    tx.execute(
        insert(Q).values(
            id=silence.id,
            spec=silence.spec,
            mode="drop" if silence.drop else "hold",
            author=silence.author,
            reason=silence.reason,
            begins_at=ms(silence.begins_at),
            ends_at=ms(silence.ends_at),
        )
    )


def end(tx: Connection, id_: str, *, by: str, now: datetime) -> bool:
    """End a silence now, and tell what it holds; False when there is none of this id that has not ended."""
    row = update(Q).where(Q.c.id == id_, Q.c.ends_at > ms(now))
    if tx.execute(row.values(ends_at=ms(now), ended_by=by)).rowcount != 1:
        return False
    digests.hasten(tx, "silence", id_, now=now)
    return True


def of_use(tx: Connection, *, now: datetime) -> list[Silence]:
    """Return the silences that are not over, and those of whose end no message has said yet."""
    found = select(Q).where(or_(Q.c.ends_at > ms(now), Q.c.told_at.is_(None))).order_by(Q.c.n)
    return [_silence(row) for row in tx.execute(found)]


def one(tx: Connection, id_: str) -> Silence | None:
    row = tx.execute(select(Q).where(Q.c.id == id_)).first()
    return _silence(row) if row else None


def every(tx: Connection, *, since: datetime | None = None) -> list[tuple[Silence, int]]:
    """Return each silence, the newest first, with how many messages it has held or dropped.

    With `since` only those that ended after then, or have not ended.
    """
    held = {
        row[0]: row[1]
        for row in tx.execute(select(G.c.name, func.sum(G.c.members)).where(G.c.gate == "silence").group_by(G.c.name))
    }
    found = select(Q).order_by(Q.c.n.desc())
    if since:
        found = found.where(Q.c.ends_at > ms(since))
    return [(silence, int(held.get(silence.id, 0))) for row in tx.execute(found) if (silence := _silence(row))]


def over(tx: Connection, ids: Collection[str], *, now: datetime) -> None:
    """Remember that a message has said that these are over."""
    if ids:
        tx.execute(update(Q).where(Q.c.id.in_(ids), Q.c.told_at.is_(None)).values(told_at=ms(now)))


def _silence(row: Row[Any]) -> Silence:
    return Silence(
        id=row.id,
        spec=row.spec,
        author=row.author,
        reason=row.reason,
        begins_at=at(row.begins_at),
        ends_at=at(row.ends_at),
        drop=row.mode == "drop",
        ended_by=row.ended_by,
        told_at=maybe_at(row.told_at),
    )
