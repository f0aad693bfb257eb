"""Limits that all notifiers and processes share, such as a Slack channel's: who may send now, and when the next may."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from bridge.model import SharedLimit
from bridge.record.database import at, ms, upsert
from bridge.record.schema import rate_limits

_SLOW = timedelta(minutes=10)  # so long after it was exceeded a limit's usual interval holds


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """A limit as it was read. `free_at` is when the next may be sent; `served` is who sent the last one.

    `held_until` is when the wait ends that it asked for.
    """

    limit: SharedLimit
    free_at: datetime
    held_until: datetime
    served: str = ""
    is_slow: bool = False
    seen: int = 0


def read(tx: Connection, limits: Collection[SharedLimit], *, now: datetime) -> dict[str, LimitState]:
    """Return these limits by name; what nobody has used yet is free."""
    by_name = {limit.name: limit for limit in limits}
    states = {name: LimitState(limit=limit, free_at=at(0), held_until=at(0)) for name, limit in by_name.items()}
    for row in tx.execute(select(rate_limits).where(rate_limits.c.name.in_(by_name))):
        limit = by_name[row.name]
        # A time that cannot be is from before the clock was set back.
        longest = max(limit.interval, limit.usual or limit.interval)
        used_until = row.used_until if row.used_until <= ms(now + 2 * longest) else 0
        states[row.name] = LimitState(
            limit=limit,
            free_at=at(max(used_until, row.not_before)),
            held_until=at(row.not_before),
            served=row.served or "",
            is_slow=ms(now) < row.slow_until <= ms(now + 2 * _SLOW),
            seen=row.claims,
        )
    return states


def take(tx: Connection, state: LimitState, notifier: str, *, now: datetime) -> bool:
    """Use the limit up until the next may be sent; False if somebody else did meanwhile. Nobody waits for a lock."""
    tx.execute(upsert(tx, rate_limits).values(name=state.limit.name).on_conflict_do_nothing())
    mine = select(rate_limits.c.name).where(rate_limits.c.name == state.limit.name, rate_limits.c.claims == state.seen)
    if tx.dialect.name == "postgresql":
        mine = mine.with_for_update(skip_locked=True)
    interval = (state.is_slow and state.limit.usual) or state.limit.interval
    used = {"used_until": ms(now + interval), "served": notifier, "claims": rate_limits.c.claims + 1}
    return tx.execute(update(rate_limits).where(rate_limits.c.name.in_(mine)).values(used)).rowcount == 1


def give_back(tx: Connection, state: LimitState) -> None:
    """Undo `take`, in the same transaction: there was nothing to send."""
    mine = update(rate_limits).where(rate_limits.c.name == state.limit.name)
    tx.execute(mine.values(used_until=ms(state.free_at), served=state.served or None, claims=state.seen))


def hold(tx: Connection, name: str, until: datetime) -> None:
    """Let nobody use a limit before then: it asked for that. A longer hold stays."""
    tx.execute(upsert(tx, rate_limits).values(name=name).on_conflict_do_nothing())
    mine = update(rate_limits).where(rate_limits.c.name == name)
    tx.execute(mine.values(slow_until=ms(until + _SLOW)))
    tx.execute(mine.where(rate_limits.c.not_before < ms(until)).values(not_before=ms(until)))
