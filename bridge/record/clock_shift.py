"""When the clock was set back, what waits is set back with it; else it would wait the longer."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update

from bridge.record.database import ms
from bridge.record.schema import WAITING, state_is
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import digest as G  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812
from bridge.record.schema import watch as W  # noqa: N812
from bridge.record.schema import worker as P  # noqa: N812

_TOLERATED_MS = 5_000
_LAST = select(A.c.n, A.c.started_at).order_by(A.c.n.desc()).limit(200).subquery()  # others may have come since


def was_set_back(tx: Connection, *, now: datetime) -> timedelta:
    """Return by how much; zero if not.

    Known from what has happened in the future: workers' last signs of life, the last polls, and the last attempts.
    """
    newest = (select(func.max(P.c.beat_at)), select(func.max(W.c.polled_at)), select(func.max(_LAST.c.started_at)))
    back_ms = max((tx.execute(one).scalar() or 0) for one in newest) - ms(now)
    return timedelta(milliseconds=back_ms) if back_ms > _TOLERATED_MS else timedelta()


def rewind(tx: Connection, *, now: datetime) -> timedelta:
    """Set back what waits as far as the clock was; return how far that is. Once done there is nothing left to do."""
    back = was_set_back(tx, now=now)
    if not back:
        return back
    by_ms, now_ms = back // timedelta(milliseconds=1), ms(now)
    # Another worker may be doing the same: whoever finds nothing in the future any more has come too late.
    signs = [update(one.table).where(one > now_ms).values({one: now_ms}) for one in (P.c.beat_at, W.c.polled_at)]
    last = update(A).where(A.c.n.in_(select(_LAST.c.n)), A.c.started_at > now_ms)
    signs.append(last.values(started_at=now_ms))
    if not sum(tx.execute(sign).rowcount for sign in signs):
        return timedelta()
    for column in (W.c.next_poll_at, N.c.not_before, N.c.used_until):
        tx.execute(update(column.table).where(column > now_ms).values({column: column - by_ms}))
    tx.execute(update(D).where(state_is(WAITING), D.c.due_at > now_ms).values(due_at=D.c.due_at - by_ms))
    # What is due at a time of the wall clock stays.
    spans = update(G).where(G.c.ended_at.is_(None), ~G.c.wall, G.c.due_at > now_ms)
    tx.execute(spans.values(due_at=G.c.due_at - by_ms, opened_at=G.c.opened_at - by_ms))
    return back
