"""What stands at this moment, for figures: who holds which lease, and which digests wait. No ended row is read."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, literal_column, select

from bridge.record.database import ms
from bridge.record.schema import digest as G  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import lease as L  # noqa: N812


def holders(tx: Connection, *, now: datetime) -> dict[str, str]:
    """Return by name of a lease the worker that holds it now."""
    held = select(L.c.name, L.c.token).where(L.c.token.is_not(None), L.c.until >= ms(now))
    return {row.name: row.token for row in tx.execute(held)}


def open_digests(tx: Connection) -> dict[tuple[str, str], int]:
    """Return by gate and name how many digests have messages and are not told yet."""
    waiting = literal_column("digest.ended_at").is_(None)
    found = select(G.c.gate, G.c.name, func.count()).where(waiting, G.c.members > 0).group_by(G.c.gate, G.c.name)
    return {(gate, name): count for gate, name, count in tx.execute(found)}
