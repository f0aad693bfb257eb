"""What a worker is given of one delivery, for pages that show how it goes out. It claims nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from bridge.model import Delivery
from bridge.record.database import at
from bridge.record.queries.lists import Facts, iso
from bridge.record.schema import delivery as D  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812


def delivery(tx: Connection, delivery_id: str) -> Delivery | None:
    """Return a delivery as its next attempt would have it."""
    found = select(D, M.c.event, M.c.says, M.c.happened_at).join(M, M.c.id == D.c.message)
    row = tx.execute(found.where(D.c.id == delivery_id)).first()
    if row is None:
        return None
    facts: dict[str, Any] = {name: getattr(row, name) for name in ("n", "id", "notifier", "event", "says", "lost")}
    facts |= {name: getattr(row, name) for name in ("attempts", "thread", "note", "body", "channel")}
    return Delivery(**facts, lease=row.lease or "", happened_at=at(row.happened_at))


def lane(tx: Connection, notifier: str) -> Facts | None:
    """Return what keeps the deliveries of a notifier waiting, without counting them; None: no worker knows it."""
    found = select(N.c.paused_at, N.c.paused_why, N.c.not_before, N.c.failures).where(N.c.name == notifier)
    row = tx.execute(found).first()
    if row is None:
        return None
    times = {"paused_at": iso(row.paused_at), "not_before": iso(row.not_before or None)}
    return {**times, "paused_why": row.paused_why, "failures": row.failures}
