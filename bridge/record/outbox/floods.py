"""Floods: what waits for a shared limit, and is folded into a digest as it would wait too long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from bridge.record import counters
from bridge.record.counters import Count
from bridge.record.database import ms, skip_locked
from bridge.record.outbox.claims import DUE, Share, goes_to_channel
from bridge.record.outbox.digests import IS_OPEN
from bridge.record.schema import DUE_AT_ONCE, HELD, WAITING, deliveries, digests, messages, state_is


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A delivery that waits for a shared limit. `may_fold`: nobody asked for it, and it was not attempted."""

    n: int
    due_at: int
    lane: str | None
    urgent: bool
    may_fold: bool


_NO_FOLD = ("digest", "test")  # kinds of messages


def _uses(notifier: str, share: Share, now: datetime) -> tuple[list[ColumnElement[bool]], dict[str, Any]]:
    """Return the condition for what waits for a share, and its values."""
    conditions = [*DUE, *([goes_to_channel()] if share.channels else [])]
    return conditions, {"of": notifier, "now": ms(now), **share.values}


def count_waiting(tx: Connection, notifier: str, share: Share, *, now: datetime, most: int) -> int:
    """Return how many deliveries wait for a share, `most` at the most."""
    conditions, values = _uses(notifier, share, now)
    found = select(deliveries.c.n).where(*conditions).limit(max(0, most)).subquery()
    return int(tx.execute(select(func.count()).select_from(found), values).scalar_one())


def waiting(tx: Connection, notifier: str, share: Share, *, now: datetime) -> list[Waiting]:
    """Return what waits for a share, the oldest first."""
    conditions, values = _uses(notifier, share, now)
    columns = (
        deliveries.c.n,
        deliveries.c.due_at,
        deliveries.c.lane,
        deliveries.c.urgent_since,
        deliveries.c.attempts,
        deliveries.c.batch,
    )
    found = (
        select(*columns, messages.c.kind)
        .join(messages)
        .where(*conditions)
        .order_by(deliveries.c.due_at, deliveries.c.n)
    )
    return [
        Waiting(
            n=row.n,
            due_at=row.due_at,
            lane=row.lane,
            urgent=row.urgent_since is not None,
            may_fold=row.urgent_since is None
            and row.attempts == 0
            and row.batch is None
            and row.due_at != DUE_AT_ONCE
            and row.kind not in _NO_FOLD,
        )
        for row in tx.execute(found, values)
    ]


def folding(tx: Connection, names: Collection[str]) -> set[str]:
    """Return those of these notifiers that have a digest of a flood which is not sent yet."""
    open_ = select(digests.c.notifier).where(digests.c.gate == "flood", digests.c.notifier.in_(names), IS_OPEN)
    return set(tx.execute(open_).scalars())


def folded_lanes(tx: Connection, names: Collection[str]) -> set[tuple[str, str | None]]:
    """Return (notifier, ordering key) of what was folded into digests that are not sent yet."""
    open_ = select(digests.c.n).where(digests.c.gate == "flood", digests.c.notifier.in_(names), IS_OPEN)
    held = (deliveries.c.digest.in_(open_), deliveries.c.digest.is_not(None), state_is(HELD))
    rows = tx.execute(select(deliveries.c.notifier, deliveries.c.lane).where(*held, deliveries.c.lane.is_not(None)))
    return {(row.notifier, row.lane) for row in rows}


def fold(tx: Connection, numbers: Collection[int], *, digest: int, name: str, now: datetime) -> int:
    """Let deliveries that wait be members of a digest; return how many still waited."""
    still = skip_locked(
        tx, select(deliveries.c.n).where(deliveries.c.n.in_(numbers), state_is(WAITING), deliveries.c.attempts == 0)
    )
    mine = update(deliveries).where(deliveries.c.n.in_(tx.execute(still).scalars().all()))
    rows = tx.execute(
        mine.values(state=HELD, digest=digest, held_by=f"flood:{name}").returning(deliveries.c.rule)
    ).all()
    counters.add(tx, [Count("suppressed", (row.rule or "", "flood")) for row in rows], now=now)
    return len(rows)
