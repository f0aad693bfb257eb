"""Floods: of more messages than a channel takes in a minute, those that would wait longer become one digest."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.decide.retries import BREAKER_THRESHOLD
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Hold
from bridge.record.database import Database
from bridge.record.outbox import claims, digests, floods
from bridge.record.outbox.claims import Share
from bridge.record.outbox.floods import Waiting

logger = logging.getLogger(__name__)

_WAIT = timedelta(minutes=1)  # what would wait longer is folded
_AT_ONCE = 1_000  # messages that are folded in one transaction

Users = list[tuple[str, Share]]


def fold(db: Database, book: Rulebook, shares: Mapping[str, Sequence[Share]], now: datetime) -> int:
    """Move what would wait for longer than a minute into the digests of its channels; return how many."""
    folded = 0
    with db.read() as tx:
        # What waits for a notifier that is paused, or does not answer, does not wait for the channel.
        names = claims.available(tx, shares, now=now, threshold=BREAKER_THRESHOLD)
        users = _users(book, {name: shares[name] for name in names})
        flooded = [limit for limit, mine in users.items() if _is_flooded(tx, mine, book, now)]
    for limit in flooded:
        with db.write() as tx:
            folded += (count := _fold(tx, users[limit], now))
        if count:
            logger.info("messages folded into a digest", extra={"limit": limit, "messages": count})
    return folded


def _users(book: Rulebook, shares: Mapping[str, Sequence[Share]]) -> dict[str, Users]:
    """Return by limit the notifiers that use it and fold floods."""
    users: dict[str, Users] = defaultdict(list)
    for name, mine in shares.items():
        for share in mine if book.notifiers[name].most_waiting else ():
            users[share.limit.name].append((name, share))
    return users


def _is_flooded(tx: Connection, users: Users, book: Rulebook, now: datetime) -> bool:
    most = min(book.notifiers[name].most_waiting or 0 for name, _ in users)
    places = max(most, min(_places(share) for _, share in users))
    waiting = 0
    for name, share in users:
        waiting += floods.count_waiting(tx, name, share, now=now, most=places + 1 - waiting)
    return waiting > places


def _places(share: Share) -> int:
    """Return how many messages a channel takes in a minute."""
    return int(_WAIT / share.limit.interval)


def _fold(tx: Connection, users: Users, now: datetime) -> int:
    places = min(_places(share) for _, share in users)
    most = places + _AT_ONCE
    waiting = [
        (row, name, share) for name, share in users for row in floods.waiting(tx, name, share, now=now, most=most)
    ]
    # In the order in which claims take them.
    waiting.sort(key=lambda found: (not found[0].urgent, found[0].is_reply, found[0].due_at, found[0].n))
    late = waiting[places : places + _AT_ONCE]
    folded: dict[tuple[str, Share], list[Waiting]] = defaultdict(list)
    for row, name, share in late:
        if row.may_fold:
            folded[name, share].append(row)
    return sum(_hold(tx, name, share, rows, now) for (name, share), rows in sorted(folded.items(), key=_by_name))


def _by_name(item: tuple[tuple[str, Share], object]) -> tuple[str, str]:
    return item[0][0], item[0][1].channel


def _hold(tx: Connection, name: str, share: Share, rows: Sequence[Waiting], now: datetime) -> int:
    hold = Hold(gate="flood", name=share.limit.name, until=now + digests.FLOOD_WAIT)
    channel = share.channel if share.channels else None
    taken = digests.add_members(tx, hold, name, len(rows), channel=channel, now=now)
    return floods.fold(tx, [row.n for row in rows], digest=taken[0], name=share.limit.name, now=now)
