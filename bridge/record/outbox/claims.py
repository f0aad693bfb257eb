"""Claiming: what free senders can take now, under a lease that no other claim has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from bridge.model import Breaker, Delivery
from bridge.record.clocks import run_at, run_ms
from bridge.record.database import at, ms
from bridge.record.outbox import entries
from bridge.record.schema import AT_ONCE, SENDING, WAITING, state_is
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812
from bridge.record.schema import thread as H  # noqa: N812

_busy = select(func.count()).where(D.c.notifier == N.c.name, state_is(SENDING)).scalar_subquery()
# The first of the index, not EXISTS: PostgreSQL reads a big backlog from the front for that, what was sent included.
_first_due = select(func.min(D.c.due_at)).where(D.c.notifier == N.c.name, state_is(WAITING)).scalar_subquery()
_LANES = (
    select(
        N.c.name,
        N.c.max_in_flight,
        N.c.interval_ms,
        N.c.burst,
        N.c.used_until,
        N.c.failures,
        N.c.claims,
        N.c.not_before,
        _busy.label("busy"),
        _first_due.label("first_due"),
    )
    .where(N.c.paused_at.is_(None), _first_due <= bindparam("now"))
    .where(or_(N.c.not_before <= bindparam("now"), _first_due == literal_column(str(AT_ONCE))))
    .order_by(N.c.name)
)


LATE = timedelta(seconds=10)  # a batch that waits for places for so long takes turns with what is new
_LATEST = 2_000  # of what is due, where new deliveries are looked for: they became due last

_DUE = (D.c.notifier == bindparam("of"), state_is(WAITING), D.c.due_at <= bindparam("now"))


@cache
def _claim(dialect: str, how: str = "") -> Any:
    """Return the statement that claims up to :room due deliveries of one notifier.

    `how`: "these" claims only :numbers, "newest" what was never tried, the youngest first, "urgent" what is to go out
    at once, "new" what belongs to no batch, "paused" whatever waits and is no batch's of later.
    """
    latest = select(D.c.due_at).where(*_DUE).order_by(D.c.due_at.desc()).limit(_LATEST).subquery()
    only: dict[str, list[ColumnElement[bool]]] = {
        "these": [D.c.n.in_(bindparam("numbers", expanding=True))],
        "newest": [D.c.attempts == literal_column("0")],
        "urgent": [D.c.due_at == literal_column(str(AT_ONCE))],
        "new": [D.c.batch.is_(None), D.c.due_at >= select(func.min(latest.c.due_at)).scalar_subquery()],
    }
    due = (*_DUE[:2], ~_is_scheduled(D)) if how == "paused" else _DUE
    pick = (
        select(D.c.n)
        .where(*due, _is_first(), *only.get(how, []))
        .order_by(*((D.c.due_at.desc(), D.c.n.desc()) if how == "newest" else (D.c.due_at, D.c.n)))
        .limit(bindparam("room"))
    )
    if dialect == "postgresql":
        # In a CTE, or the planner may run the locking SELECT again and take more than the limit.
        pick = pick.where(exists(select(_gate().c.name))).with_for_update(skip_locked=True, of=D)
    picked = pick.cte("picked")
    return (
        update(D)
        .where(D.c.n.in_(select(picked.c.n)))
        .values(
            state=SENDING,
            lease=bindparam("lease"),
            lease_until=bindparam("until"),
            attempts=D.c.attempts + 1,
        )
        .returning(*_OWN)
    )


def _is_scheduled(table: FromClause) -> ColumnElement[bool]:
    """Return the condition that a delivery belongs to a batch whose rate has not come to it: it is in nobody's way."""
    return and_(table.c.batch.is_not(None), table.c.attempts == literal_column("0"), table.c.due_at > bindparam("now"))


def _is_first() -> ColumnElement[bool]:
    """Return the condition that no earlier delivery of its lane waits, and none is being sent."""
    other = D.alias("other")
    in_the_way = exists().where(
        other.c.lane == D.c.lane,
        other.c.notifier == D.c.notifier,
        literal_column("other.state") < literal_column("2"),
        or_(state_is(SENDING, other), and_(other.c.n < D.c.n, ~_is_scheduled(other))),
        other.c.n != D.c.n,
    )
    return or_(D.c.lane.is_(None), ~in_the_way)


def _gate() -> CTE:
    """Return the CTE that has a row only if no other worker claims for this notifier, or has since it was looked at.

    Two that claim at once, each seeing the same free places, would fill them twice. Nobody waits for the lock.
    """
    mine = select(N.c.name).where(N.c.name == bindparam("of"), N.c.claims == bindparam("seen"))
    counted = update(N).where(N.c.name.in_(mine.with_for_update(skip_locked=True).scalar_subquery()))
    return counted.values(claims=N.c.claims + 1).returning(N.c.name).cte("gate")


_OWN = (
    D.c.n, D.c.id, D.c.message, D.c.notifier, D.c.attempts, D.c.lease, D.c.thread, D.c.note, D.c.lost,
    D.c.body, D.c.channel, D.c.retry_from, D.c.retry_due,
)  # fmt: skip


def _told(claimed: FromClause) -> Select[Any]:
    """Return the select that reads what is told by `claimed`, which has the columns of _OWN."""
    c = claimed.c
    return (
        select(
            c.n, c.id, c.notifier, c.attempts, c.lease, M.c.happened_at, M.c.event, M.c.says,
            c.thread, H.c.receipt, c.note, c.lost, c.body, c.channel, c.retry_from, c.retry_due,
        )
        .join(M, M.c.id == c.message)
        .outerjoin(H, and_(H.c.notifier == c.notifier, H.c.thread == c.thread))
        .order_by(c.n)
    )  # fmt: skip


@cache
def _claim_and_read(how: str = "") -> Select[Any]:
    """Return both as one statement, for PostgreSQL: it is a round trip less. SQLite writes in no CTE."""
    return _told(_claim("postgresql", how).cte("claimed"))


_READ = _told(D).where(D.c.n.in_(bindparam("numbers", expanding=True)))


@dataclass(frozen=True, slots=True)
class Claimed:
    """What was claimed, and when a notifier that has to wait for its rate may go on (None: none has to).

    `failing` are the notifiers whose last attempt was not answered, as far as the record knows.
    """

    deliveries: tuple[Delivery, ...]
    again_at: datetime | None = None
    failing: frozenset[str] = frozenset()


# While some are in flight the others are recorded, or wait: so neither the receiver nor the database idles.
AHEAD = 3


def due_lanes(tx: Connection, *, now: datetime) -> Sequence[Any]:
    """Return the notifiers that have something due and may be told."""
    return tx.execute(_LANES, {"now": ms(now)}).all()


def claim(
    tx: Connection,
    *,
    free: int,
    lease: str,
    lease_for: timedelta,
    now: datetime,
    turn: int = 0,
    ahead: Collection[str] = (),
    broken_at: int | None = None,
    newest: Collection[str] = (),
) -> Claimed:
    """Claim what `free` senders can take now, each notifier within its own bounds.

    `lease` must be new with every call: it is what tells a late finish from the right one. `turn` says which
    notifier is asked first, so that the first one by name has no advantage. Of those `ahead` AHEAD times as many
    more are claimed as may be in flight; of one that failed `broken_at` times in a row, one at a time.
    What is to go out AT_ONCE comes first, and alone where its notifier would be asked nothing else now. Of those in
    `newest` whose last attempt was not answered, the youngest never tried come first; of those where a batch waits
    for places, what is new.
    """
    lanes = due_lanes(tx, now=now)
    claimed: list[Delivery] = []
    again: list[int] = []
    start = turn % len(lanes) if lanes else 0
    for lane in (*lanes[start:], *lanes[:start]):
        broken = broken_at is not None and lane.failures >= broken_at
        most = 1 if broken else lane.max_in_flight * (1 + AHEAD if lane.name in ahead else 1)
        room = min(most - lane.busy, free - len(claimed))
        values = {
            "of": lane.name,
            "now": ms(now),
            "lease": lease,
            "until": ms(now + lease_for),
            "seen": lane.claims,
        }
        # What fails comes back, and is the oldest: the others must not wait until all of that is dead.
        how: tuple[str, ...] = ("",)
        if lane.name in newest:
            how = ("newest", "") if lane.failures else ("new", "") if _batch_is_late(tx, lane, now) else ("",)
        if lane.first_due == AT_ONCE:
            held = lane.not_before > ms(now)
            how = ("urgent",) if held or room <= 0 else ("urgent", "") if broken else ("",)
            room = min(1, lane.max_in_flight - lane.busy, free - len(claimed)) if held or broken else room
        if not lane.interval_ms:
            claimed += _claimed(tx, values | {"room": room}, *how) if room > 0 else []
            continue
        allowed, wait = _allowed(lane, now)
        again += [wait] if wait else []
        claimed += _claim_at_rate(tx, lane, values | {"room": min(room, allowed)}, now, *how)
    failing = frozenset(lane.name for lane in lanes if lane.failures)
    return Claimed(tuple(claimed), at(min(again)) if again else None, failing)


def _batch_is_late(tx: Connection, lane: Any, now: datetime) -> bool:
    """Tell whether a resent delivery is the first that waits, and has waited for a place for long."""
    if lane.first_due == AT_ONCE or lane.first_due > ms(now - LATE):
        return False
    front = select(D.c.batch).where(D.c.notifier == lane.name, state_is(WAITING)).order_by(D.c.due_at, D.c.n).limit(1)
    return tx.execute(front).scalar() is not None


def _allowed(lane: Any, now: datetime) -> tuple[int, int | None]:
    """Return how many the rate allows now, and when the next one is if it allows none.

    The generic cell rate algorithm: each one told uses up one interval, at most `burst` of them ahead of time.
    """
    used = _used(lane, now)
    allowed = (ms(now) + lane.burst * lane.interval_ms - used) // lane.interval_ms
    return max(allowed, 0), None if allowed > 0 else used - (lane.burst - 1) * lane.interval_ms


def _used(lane: Any, now: datetime) -> int:
    """Return until when the rate is used up; a time that cannot be is from before the clock was set back."""
    furthest = ms(now) + 2 * lane.burst * lane.interval_ms
    return max(lane.used_until, ms(now)) if lane.used_until <= furthest else ms(now)


def _claim_at_rate(tx: Connection, lane: Any, values: dict[str, Any], now: datetime, *how: str) -> list[Delivery]:
    """Claim for a notifier that has a rate, and book what was claimed: nobody else claims for it meanwhile."""
    claimed = _claimed(tx, values, *how) if values["room"] > 0 else []
    if claimed:
        used_until = _used(lane, now) + len(claimed) * lane.interval_ms
        tx.execute(update(N).where(N.c.name == lane.name).values(used_until=used_until))
    return claimed


def paused_and_waiting(tx: Connection) -> list[tuple[str, str]]:
    """Return (name, why) of the paused notifiers for which something waits."""
    waits = exists().where(D.c.notifier == N.c.name, state_is(WAITING))
    rows = tx.execute(select(N.c.name, N.c.paused_why).where(N.c.paused_at.is_not(None), waits))
    return [(row.name, row.paused_why) for row in rows]


def claim_paused(
    tx: Connection, notifier: str, *, lease: str, lease_for: timedelta, now: datetime, most: int
) -> tuple[Delivery, ...]:
    """Claim what waits for a paused notifier, also for its next attempt: it goes to the fallback."""
    claims = tx.execute(select(N.c.claims).where(N.c.name == notifier, N.c.paused_at.is_not(None))).scalar()
    if claims is None:
        return ()
    values = {"of": notifier, "now": ms(now), "room": most, "lease": lease, "until": ms(now + lease_for)}
    return tuple(_claimed(tx, values | {"seen": claims}, "paused"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A delivery that could be sent, were its notifier not left alone."""

    n: int
    due_at: int
    attempts: int  # less those whose outcome is not known
    retry_from: timedelta | None
    retry_due: timedelta | None


def left_alone(tx: Connection, *, now: datetime, broken_at: int) -> dict[str, Breaker]:
    """Return the notifiers that do not answer, or asked for time; not those that are paused."""
    rows = tx.execute(select(N).where(N.c.paused_at.is_(None), _left_alone(now, broken_at)).order_by(N.c.name))
    return {row.name: entries.breaker_of(row) for row in rows}


def _left_alone(now: datetime, broken_at: int) -> ColumnElement[bool]:
    return or_(N.c.failures >= broken_at, N.c.not_before > ms(now))


def due(tx: Connection, notifier: str, *, after: tuple[int, int], now: datetime, most: int) -> list[Due]:
    """Return up to `most` of what is due for a notifier, from `after` (due_at, n) on."""
    columns = (D.c.n, D.c.due_at, (D.c.attempts - D.c.lost).label("attempts"), D.c.retry_from, D.c.retry_due)
    # The first condition on due_at says no more than the tuple: SQLite finds the place in its index by it.
    here = (D.c.due_at >= after[0], D.c.due_at <= ms(now), tuple_(D.c.due_at, D.c.n) > tuple_(*after))
    found = select(*columns).where(D.c.notifier == notifier, state_is(WAITING), *here)
    return [
        Due(n=n, due_at=due_at, attempts=attempts, retry_from=run_at(first), retry_due=run_at(end))
        for n, due_at, attempts, first, end in tx.execute(found.order_by(D.c.due_at, D.c.n).limit(most))
    ]


def begin_retry(tx: Connection, numbers: Collection[int], run: timedelta) -> None:
    """Let the retry time of what was never tried begin at this run clock: a probe stood for it."""
    begins = update(D).where(D.c.n.in_(numbers), state_is(WAITING), D.c.retry_from.is_(None))
    tx.execute(begins.values(retry_from=run_ms(run), retry_due=run_ms(run)))


def urge(tx: Connection, notifier: str, numbers: Collection[int], *, now: datetime) -> None:
    """Let the first of these that may go out do so at once, unless one of its notifier is being sent: that may stand
    for it."""
    other = D.alias("other")
    is_busy = exists().where(other.c.notifier == notifier, state_is(SENDING, other))
    first = select(func.min(D.c.n)).where(D.c.n.in_(numbers), state_is(WAITING), _is_first(), ~is_busy)
    tx.execute(update(D).where(D.c.n == first.scalar_subquery()).values(due_at=AT_ONCE), {"now": ms(now)})


def claim_hopeless(
    tx: Connection,
    notifier: str,
    numbers: Collection[int],
    *,
    broken_at: int,
    lease: str,
    lease_for: timedelta,
    now: datetime,
) -> tuple[Delivery, ...]:
    """Claim these deliveries of a notifier if it is still left alone, else nothing."""
    alone = select(N.c.claims).where(N.c.name == notifier, N.c.paused_at.is_(None), _left_alone(now, broken_at))
    claims = tx.execute(alone).scalar()
    if claims is None:
        return ()
    values = {"of": notifier, "now": ms(now), "room": len(numbers), "lease": lease, "until": ms(now + lease_for)}
    return tuple(_claimed(tx, values | {"numbers": list(numbers), "seen": claims}, "these"))


def _claimed(tx: Connection, values: dict[str, Any], *how: str) -> list[Delivery]:
    """Claim for one notifier, in the first of these ways by which there is something."""
    for place, one in enumerate(how or ("",)):
        if found := _claim_rows(tx, values | {"seen": values["seen"] + place}, one):
            return found
    return []


def _claim_rows(tx: Connection, values: dict[str, Any], how: str = "") -> list[Delivery]:
    if tx.dialect.name == "postgresql":
        rows = tx.execute(_claim_and_read(how), values).all()
    else:
        mine = {name: value for name, value in values.items() if name != "seen"}  # SQLite lets one write at a time
        numbers = [row.n for row in tx.execute(_claim("sqlite", how), mine)]
        rows = tx.execute(_READ, {"numbers": numbers}).all() if numbers else []
    return [_delivery(row) for row in rows]


def _delivery(row: Any) -> Delivery:
    n, id_, notifier, attempts, lease, happened_at, event, says, thread, receipt, note, lost, body, channel, *run = row
    return Delivery(
        n=n,
        id=id_,
        notifier=notifier,
        attempts=attempts,
        lease=lease,
        happened_at=at(happened_at),
        event=event,
        says=says,
        thread=thread,
        root=receipt,
        note=note,
        lost=lost,
        body=body,
        channel=channel,
        retry_from=run_at(run[0]),
        retry_due=run_at(run[1]),
    )
