"""Clocks that all workers share: how long the bridge has run, when its clock was right, and one that was set back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, func, or_, select, update

from bridge.model import ClockReading
from bridge.record.database import maybe_at, ms, upsert
from bridge.record.schema import (
    WAITING,
    attempts,
    deliveries,
    digests,
    incidents,
    notifiers,
    rate_limits,
    state_is,
    threads,
    watches,
    workers,
)
from bridge.record.schema import shared_numbers as numbers

_RUN, _TRUSTED = "run_clock", "trusted_clock"
_LONGEST_STEP_MS = 30_000  # a longer time between two calls is one in which nothing ran


def run_ms(run: timedelta | None) -> int | None:
    return None if run is None else run // timedelta(milliseconds=1)


def run_at(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)


class RunClock:
    """How long the bridge has run in all. One for each worker; they share what it shows.

    It goes on with the clock, but never further than this worker's monotonic clock has gone meanwhile: a time in which
    no worker ran adds nothing to it, and neither does a clock that is set.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last_s: float | None = None  # the last `advance`

    def read(self, tx: Connection, now: datetime) -> timedelta:
        row = tx.execute(select(numbers).filter_by(name=_RUN)).first()
        more = min(max(ms(now) - row.at, 0), self._ran_ms()) if row else 0
        return timedelta(milliseconds=row.value + more if row else 0)

    def advance(self, tx: Connection, now: datetime) -> None:
        """Store how far it is; to be called more often than every 30 s."""
        ran_ms, passed_ms = self._ran_ms(), ms(now) - numbers.c.at
        more = case((passed_ms < 0, 0), (passed_ms > ran_ms, ran_ms), else_=passed_ms)
        row = upsert(tx, numbers).values(name=_RUN, value=0, at=ms(now))
        # A worker that just started knows of no time that has passed: one that runs stores that.
        stands = or_(passed_ms < 0, passed_ms > _LONGEST_STEP_MS) if self._last_s is None else None
        advanced = {"value": numbers.c.value + more, "at": ms(now)}
        tx.execute(row.on_conflict_do_update(index_elements=["name"], set_=advanced, where=stands))
        self._last_s = self._monotonic()

    def _ran_ms(self) -> int:
        ran_s = 0.0 if self._last_s is None else self._monotonic() - self._last_s
        return min(round(ran_s * 1000), _LONGEST_STEP_MS)


def trusted_at(tx: Connection) -> datetime | None:
    """Return when the clock was last known to be right; None: no worker has checked yet."""
    return maybe_at(tx.execute(select(numbers.c.at).filter_by(name=_TRUSTED)).scalar())


def trust(tx: Connection, now: datetime) -> None:
    """Store that the clock is right now."""
    row = upsert(tx, numbers).values(name=_TRUSTED, at=ms(now))
    tx.execute(row.on_conflict_do_update(index_elements=["name"], set_={"at": ms(now)}))


def begin_trust(tx: Connection, now: datetime) -> None:
    """If no worker has checked yet, the clock was right at the last sign of life."""
    signs = (select(func.max(workers.c.beat_at)), select(func.max(watches.c.polled_at)))
    last = max((tx.execute(sign).scalar() or 0) for sign in signs) or ms(now)
    tx.execute(upsert(tx, numbers).values(name=_TRUSTED, at=last).on_conflict_do_nothing())


def readings(tx: Connection, names: Collection[str]) -> list[ClockReading]:
    """Return what CI's clock showed in the polls of these watches, if they are not paused.

    A poll that failed in part, for one tag of several, had answers all the same.
    """
    answered_at = case((watches.c.calls > 0, watches.c.polled_at), else_=watches.c.ok_at).label("at")
    rows = tx.execute(select(answered_at, watches.c.clock_ms).where(watches.c.name.in_(names), ~watches.c.paused))
    return [ClockReading(at=maybe_at(row.at), ahead=run_at(row.clock_ms)) for row in rows]


# --- a clock that was set back: what waits is set back with it, or it would wait longer -----------------------------

_TOLERATED_MS = 5_000
# Others may have come since.
_LATEST = select(attempts.c.n, attempts.c.started_at).order_by(attempts.c.n.desc()).limit(200).subquery()


def rewind(tx: Connection, *, now: datetime) -> timedelta:
    """Set back what waits as far as the clock was set back; return how far that is, zero if not at all.

    It is known from what has happened in the future: workers' last signs of life, the last polls, the last attempts.
    """
    newest = (func.max(column) for column in (workers.c.beat_at, watches.c.polled_at, _LATEST.c.started_at))
    now_ms = ms(now)
    by_ms = max((tx.execute(select(moment)).scalar() or 0) for moment in newest) - now_ms
    if by_ms <= _TOLERATED_MS:
        return timedelta()
    # Another worker may be doing the same: the one that finds nothing in the future any more comes too late.
    signs = [
        update(column.table).where(column > now_ms).values({column: now_ms})
        for column in (workers.c.beat_at, watches.c.polled_at)
    ]
    in_future = (attempts.c.n.in_(select(_LATEST.c.n)), attempts.c.started_at > now_ms)
    signs.append(update(attempts).where(*in_future).values(started_at=now_ms))
    if not sum(tx.execute(sign).rowcount for sign in signs):
        return timedelta()
    for column in (
        watches.c.next_poll_at, notifiers.c.not_before, notifiers.c.used_until, rate_limits.c.not_before,
        threads.c.due_at, incidents.c.due_at,
    ):  # fmt: skip
        tx.execute(update(column.table).where(column > now_ms).values({column: column - by_ms}))
    due_at = deliveries.c.due_at
    tx.execute(update(deliveries).where(state_is(WAITING), due_at > now_ms).values(due_at=due_at - by_ms))
    # What is due at a time of the wall clock stays.
    spans = update(digests).where(digests.c.ended_at.is_(None), ~digests.c.wall, digests.c.due_at > now_ms)
    tx.execute(spans.values(due_at=digests.c.due_at - by_ms, opened_at=digests.c.opened_at - by_ms))
    return timedelta(milliseconds=by_ms)
