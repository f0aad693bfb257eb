"""The few statements that only the HTTP side needs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, literal_column, select

from bridge.record.schema import delivery as D  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812

# SQLAlchemy writes `open = 1` for SQLite, which then does not see that the partial index job_open has them all.
_OPEN: ColumnElement[bool] = literal_column("job.open")
OPEN_JOBS = select(J.c.state, J.c.tag, func.count()).where(_OPEN).group_by(J.c.state, J.c.tag)


def open_jobs(tx: Connection) -> dict[tuple[str, str], int]:
    """Return how many unfinished jobs there are by (state, tag)."""
    return {(state, tag or ""): count for state, tag, count in tx.execute(OPEN_JOBS)}


def paused_notifiers(tx: Connection) -> list[str]:
    return list(tx.execute(select(N.c.name).where(N.c.paused_at.is_not(None)).order_by(N.c.name)).scalars())


def number_of(delivery_id: str) -> Select[Any]:
    """Return a select of this delivery's number, for a redrive."""
    return select(D.c.n).where(D.c.id == delivery_id)
