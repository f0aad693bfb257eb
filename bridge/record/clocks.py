"""Clocks that all workers share: how long the bridge has run, when its clock was right, and one that was set back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import overload

from sqlalchemy import Connection, case, func, or_, select, update

from bridge.model import Reading
from bridge.record.database import maybe_at, ms, upsert
from bridge.record.schema import WAITING, state_is
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import digest as G  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812
from bridge.record.schema import shared_number as S  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import watch as W  # noqa: N812
from bridge.record.schema import worker as P  # noqa: N812

_RUN, _TRUSTED = "run_clock", "trusted_clock"
_LONGEST_STEP_MS = 30_000  # a longer time between two looks is one in which nothing ran


class RunClock:
    """How long the bridge has run in all. One for each worker; they share what it shows.

    It goes on with the clock, but never further than this worker's monotonic clock has gone meanwhile: a time in which
    no worker ran adds nothing to it, and neither does a clock that is set.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last_s: float | None = None  # the last `advance`

    def read(self, tx: Connection, now: datetime) -> timedelta:
        row = tx.execute(select(S.c.value, S.c.at).where(S.c.name == _RUN)).first()
        more = min(max(ms(now) - row.at, 0), self._ran_ms()) if row else 0
        return timedelta(milliseconds=row.value + more if row else 0)

    def advance(self, tx: Connection, now: datetime) -> None:
        """Write down how far it is; to be called more often than every 30 s."""
        ran_ms, passed_ms = self._ran_ms(), ms(now) - S.c.at
        more = case((passed_ms < 0, 0), (passed_ms > ran_ms, ran_ms), else_=passed_ms)
        row = upsert(tx, S).values(name=_RUN, value=0, at=ms(now))
        # A worker that just started knows of no time that has passed: one that runs writes that down.
        stands = or_(passed_ms < 0, passed_ms > _LONGEST_STEP_MS) if self._last_s is None else None
        anew = {"value": S.c.value + more, "at": ms(now)}
        tx.execute(row.on_conflict_do_update(index_elements=["name"], set_=anew, where=stands))
        self._last_s = self._monotonic()

    def _ran_ms(self) -> int:
        ran_s = 0.0 if self._last_s is None else self._monotonic() - self._last_s
        return min(round(ran_s * 1000), _LONGEST_STEP_MS)


def trusted_at(tx: Connection) -> datetime | None:
    """Return when the clock was last known to be right; None: no worker has looked yet."""
    return maybe_at(tx.execute(select(S.c.at).where(S.c.name == _TRUSTED)).scalar())


def trust(tx: Connection, now: datetime) -> None:
    """The clock is right."""
    row = upsert(tx, S).values(name=_TRUSTED, at=ms(now))
    tx.execute(row.on_conflict_do_update(index_elements=["name"], set_={"at": ms(now)}))


def begin_trust(tx: Connection, now: datetime) -> None:
    """Where no worker has looked yet, the clock was right when the last sign of life was given."""
    signs = (select(func.max(P.c.beat_at)), select(func.max(W.c.polled_at)))
    last = max((tx.execute(one).scalar() or 0) for one in signs) or ms(now)
    tx.execute(upsert(tx, S).values(name=_TRUSTED, at=last).on_conflict_do_nothing())


def readings(tx: Connection, watches: Collection[str]) -> list[Reading]:
    """Return what CI's clock showed in the polls of these watches, if they are not paused.

    A poll that failed in part, for one tag of several, had answers all the same.
    """
    answered_at = case((W.c.calls > 0, W.c.polled_at), else_=W.c.ok_at).label("at")
    rows = tx.execute(select(answered_at, W.c.clock_ms).where(W.c.name.in_(watches), ~W.c.paused))
    return [Reading(at=maybe_at(row.at), ahead=run_at(row.clock_ms)) for row in rows]


@overload
def run_ms(run: timedelta) -> int: ...
@overload
def run_ms(run: timedelta | None) -> int | None: ...
def run_ms(run: timedelta | None) -> int | None:
    return None if run is None else run // timedelta(milliseconds=1)


def run_at(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)


# --- a clock that was set back: what waits is set back with it; else it would wait the longer -----------------------

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
