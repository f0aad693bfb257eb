"""Floods: what waits for a shared limit, and is folded into a digest as it would wait too long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, literal_column, or_, select, update

from bridge.record import counters
from bridge.record.counters import Count
from bridge.record.database import ms, skip_locked
from bridge.record.outbox.claims import DUE, Share, goes_to_channel, has_root
from bridge.record.schema import DUE_AT_ONCE, HELD, WAITING, deliveries, messages, state_is


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A delivery that waits for a shared limit. `may_fold`: nobody asked for it, and it was not attempted."""

    n: int
    due_at: int
    urgent: bool
    is_reply: bool
    may_fold: bool


_NO_FOLD = ("digest", "test", "blind", "sees", "incident")  # kinds of messages


def _uses(notifier: str, share: Share, now: datetime) -> tuple[list[ColumnElement[bool]], dict[str, Any]]:
    """Return the condition for what waits for a share, and its values."""
    conditions = [*DUE, *([goes_to_channel()] if share.channels else [])]
    return conditions, {"of": notifier, "now": ms(now), **share.values}


def count_waiting(tx: Connection, notifier: str, share: Share, *, now: datetime, most: int) -> int:
    """Return how many deliveries wait for a share, `most` at the most."""
    conditions, values = _uses(notifier, share, now)
    found = select(deliveries.c.n).where(*conditions).limit(max(0, most)).subquery()
    return int(tx.execute(select(func.count()).select_from(found), values).scalar_one())


def waiting(tx: Connection, notifier: str, share: Share, *, now: datetime, most: int) -> list[Waiting]:
    """Return what waits for a share, the oldest first, `most` at the most."""
    conditions, values = _uses(notifier, share, now)
    mine = deliveries.c
    is_reply = and_(mine.thread.is_not(None), has_root()).label("is_reply")
    columns = (mine.n, mine.due_at, mine.urgent_since, mine.attempts, mine.batch, messages.c.kind, is_reply)
    found = select(*columns).join(messages).where(*conditions).order_by(mine.due_at, mine.n).limit(most)
    return [
        Waiting(
            n=row.n,
            due_at=row.due_at,
            urgent=row.urgent_since is not None,
            is_reply=row.is_reply,
            may_fold=row.urgent_since is None
            and row.attempts == 0
            and row.batch is None
            and row.due_at != DUE_AT_ONCE
            and row.kind not in _NO_FOLD,
        )
        for row in tx.execute(found, values)
    ]


def fold(tx: Connection, numbers: Collection[int], *, digest: int, name: str, now: datetime) -> int:
    """Let deliveries that wait be members of a digest; return how many still waited.

    One stays whose ordering key has an earlier delivery that stays: the digest may come before that.
    """
    mine, other = deliveries.c, deliveries.alias("other")
    earlier = exists().where(
        other.c.lane == mine.lane, other.c.notifier == mine.notifier, other.c.n < mine.n,
        literal_column("other.state") < literal_column("2"), other.c.n.not_in(numbers),
    )  # fmt: skip
    which = (mine.n.in_(numbers), state_is(WAITING), mine.attempts == 0, or_(mine.lane.is_(None), ~earlier))
    still = tx.execute(skip_locked(tx, select(mine.n).where(*which))).scalars().all()
    folded = update(deliveries).where(mine.n.in_(still))
    folded = folded.values(state=HELD, digest=digest, held_by=f"flood:{name}").returning(mine.rule)
    rows = tx.execute(folded).all()
    counters.add(tx, [Count("suppressed", (row.rule or "", "flood")) for row in rows], now=now)
    return len(rows)
