"""Claiming: what free senders can take now, under a lease that no other claim has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from bridge.model import Breaker, Delivery, Reason, SharedLimit
from bridge.record.clocks import run_at, run_ms
from bridge.record.database import at, maybe_at, ms
from bridge.record.outbox import entries, limits, roots
from bridge.record.outbox.limits import LimitState
from bridge.record.schema import (
    DUE_AT_ONCE,
    HELD,
    PICK,
    SENDING,
    WAITING,
    attempts,
    deliveries,
    messages,
    notifiers,
    state_is,
    threads,
)

LATE = timedelta(seconds=10)  # a batch that waits for places for so long takes turns with what is new
AHEAD = 3  # while some are in flight, others are recorded or wait, so neither the receiver nor the database idles
_LATEST = 2_000  # of what is due, where new deliveries are looked for: they became due last

_n, _due_at = deliveries.c.n, deliveries.c.due_at


@dataclass(frozen=True, slots=True)
class Claimed:
    """What was claimed, and when a notifier that has to wait for its rate may go on (None: none has to).

    `failing` are the notifiers whose last attempt was not answered, as far as the record knows.
    """

    deliveries: tuple[Delivery, ...]
    again_at: datetime | None = None
    failing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A notifier's use of a limit that it shares: by what it sends to `channel`, one of its `channels`.

    What names no channel of these goes to the first. Without `channels` it is all that the notifier sends.
    """

    limit: SharedLimit
    channel: str = ""
    channels: tuple[str, ...] = ()
    look_up: SharedLimit | None = None  # that one also uses up that may have been accepted before, as it is looked for
    paced: bool = False  # the notifier's own rate is slower than the limit, and counts too

    @property
    def values(self) -> dict[str, Any]:
        """What statements need that ask for the channel."""
        if not self.channels:
            return {}
        return {"to_channel": self.channel, "channels": list(self.channels), "first_channel": self.channels[0]}


# --- the statements -------------------------------------------------------------------------------------------------

_OF_NOTIFIER = deliveries.c.notifier == notifiers.c.name
_busy = select(func.count()).where(_OF_NOTIFIER, state_is(SENDING)).scalar_subquery()
# The first of the index, not EXISTS: PostgreSQL reads a big backlog from the front for that, what was sent included.
_first_due = select(func.min(_due_at)).where(_OF_NOTIFIER, state_is(WAITING)).scalar_subquery()
_NOTIFIERS = (
    select(notifiers, _busy.label("busy"), _first_due.label("first_due"))
    .where(notifiers.c.paused_at.is_(None), notifiers.c.type != PICK, _first_due <= bindparam("now"))
    .where(or_(notifiers.c.not_before <= bindparam("now"), _first_due == literal_column(str(DUE_AT_ONCE))))
    .order_by(notifiers.c.name)
)

_WAITING = (deliveries.c.notifier == bindparam("of"), state_is(WAITING))
DUE = (*_WAITING, _due_at <= bindparam("now"))


class Selection(Enum):
    """Which deliveries of a notifier are claimed: those that are due, unless another thing is said."""

    DUE = auto()  # the oldest first
    THESE = auto()  # only :numbers
    NEWEST = auto()  # those never attempted, the youngest first
    AT_ONCE = auto()  # those due at DUE_AT_ONCE
    NO_BATCH = auto()  # those of no batch
    PAUSED = auto()  # whatever waits, due or not, except what a batch has scheduled for later
    URGENT = auto()  # those of urgent rules
    ROOT = auto()  # those that are no replies in a thread


@cache
def _claim(dialect: str, selection: Selection, by_channel: bool = False) -> Any:
    """Return the statement that claims up to :room deliveries of one notifier; `by_channel`: for :channel alone."""
    latest = select(_due_at).where(*DUE).order_by(_due_at.desc()).limit(_LATEST).subquery()
    only: dict[Selection, list[ColumnElement[bool]]] = {
        Selection.THESE: [_n.in_(bindparam("numbers", expanding=True))],
        Selection.NEWEST: [deliveries.c.attempts == literal_column("0")],
        Selection.AT_ONCE: [_due_at == literal_column(str(DUE_AT_ONCE))],
        Selection.NO_BATCH: [
            deliveries.c.batch.is_(None),
            _due_at >= select(func.min(latest.c.due_at)).scalar_subquery(),
        ],
        Selection.URGENT: [deliveries.c.urgent_since.is_not(None)],
        Selection.ROOT: [or_(deliveries.c.thread.is_(None), ~has_root())],
    }
    due = (*_WAITING, ~_is_scheduled(deliveries)) if selection is Selection.PAUSED else DUE
    order = (_due_at.desc(), _n.desc()) if selection is Selection.NEWEST else (_due_at, _n)
    which = [*only.get(selection, []), *([goes_to_channel()] if by_channel else [])]
    pick = select(_n).where(*due, *which, _is_first()).order_by(*order).limit(bindparam("room"))
    if dialect == "postgresql":
        # In a CTE, or the planner may run the locking SELECT again and take more than the limit.
        pick = pick.where(exists(select(_gate().c.name))).with_for_update(skip_locked=True, of=deliveries)
    claimed = {"state": SENDING, "lease": bindparam("lease"), "lease_until": bindparam("until")}
    mine = update(deliveries).where(_n.in_(select(pick.cte("picked").c.n)))
    return mine.values(attempts=deliveries.c.attempts + 1, **claimed).returning(*_fields(deliveries))


def has_root() -> ColumnElement[bool]:
    """Return the condition that the first message of its thread was sent."""
    mine = (threads.c.notifier == deliveries.c.notifier, threads.c.thread == deliveries.c.thread)
    return exists().where(*mine, threads.c.receipt != "")


def goes_to_channel() -> ColumnElement[bool]:
    return _channel() == bindparam("to_channel")


def _channel() -> ColumnElement[str]:
    """Return the channel that a delivery goes to: its own, if that is still one of the notifier's, or the first."""
    known = deliveries.c.channel.in_(bindparam("channels", expanding=True))
    return case((known, deliveries.c.channel), else_=bindparam("first_channel", type_=Text()))


def _is_scheduled(table: FromClause) -> ColumnElement[bool]:
    """Return the condition that a delivery belongs to a batch and is not due yet: then it blocks nothing."""
    return and_(table.c.batch.is_not(None), table.c.attempts == literal_column("0"), table.c.due_at > bindparam("now"))


def _is_first() -> ColumnElement[bool]:
    """Return the condition that no earlier delivery of its ordering key waits, and none is being sent."""
    other = deliveries.alias("other")
    blocks = exists().where(
        other.c.lane == deliveries.c.lane,
        other.c.notifier == deliveries.c.notifier,
        literal_column("other.state") < literal_column("2"),
        or_(state_is(SENDING, other), and_(other.c.n < _n, ~_is_scheduled(other))),
        other.c.n != _n,
    )
    return or_(deliveries.c.lane.is_(None), ~blocks)


def _gate() -> CTE:
    """Return the CTE that has a row only if no other worker claims for this notifier, or has since it was read.

    Two that claim at once, each seeing the same free places, would fill them twice. Nobody waits for the lock.
    """
    mine = select(notifiers.c.name).where(notifiers.c.name == bindparam("of"), notifiers.c.claims == bindparam("seen"))
    counted = update(notifiers).where(notifiers.c.name.in_(mine.with_for_update(skip_locked=True).scalar_subquery()))
    return counted.values(claims=notifiers.c.claims + 1).returning(notifiers.c.name).cte("gate")


_OF_DELIVERY = (
    "n", "id", "message", "notifier", "attempts", "lease", "thread", "note", "lost", "body", "channel", "retry_from",
    "retry_due", "since",
)  # fmt: skip


def _fields(table: FromClause) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in _OF_DELIVERY]


_UNSURE = (Reason.TIMEOUT, Reason.CONNECTION, Reason.SERVER_ERROR, Reason.LOST, Reason.OTHER)


def _unsure_at(claimed: FromClause) -> ColumnElement[int | None]:
    """Return when the last attempt ended that may have been accepted although it was not answered."""
    ended = select(func.max(attempts.c.started_at + attempts.c.ms))
    before = ended.where(attempts.c.delivery == claimed.c.n, attempts.c.reason.in_(_UNSURE)).scalar_subquery()
    return case((claimed.c.attempts > literal_column("1"), before))


def _read(claimed: FromClause) -> Select[Any]:
    """Return the select that reads what is sent with the deliveries of `claimed`."""
    said = (
        messages.c.happened_at, messages.c.event, messages.c.says, threads.c.receipt.label("root"), threads.c.wanted,
        threads.c.wanted_no, _unsure_at(claimed),
    )  # fmt: skip
    thread = and_(threads.c.notifier == claimed.c.notifier, threads.c.thread == claimed.c.thread)
    return (
        select(*_fields(claimed), *said)
        .join(messages, messages.c.id == claimed.c.message)
        .outerjoin(threads, thread)
        .order_by(claimed.c.n)
    )


@cache
def _claim_and_read(selection: Selection, by_channel: bool) -> Select[Any]:
    """Return both as one statement, for PostgreSQL: that saves a round trip. SQLite writes in no CTE."""
    return _read(_claim("postgresql", selection, by_channel).cte("claimed"))


_READ = _read(deliveries).where(_n.in_(bindparam("numbers", expanding=True)))


def _delivery(row: Sequence[Any]) -> Delivery:
    # Unpacked, not by names: this is done for every delivery, and takes a third of the time.
    n, id_, _, notifier, attempts, lease, thread, note, lost, body, channel, retry_from, retry_due, *message = row
    since, happened_at, event, says, root, wanted, wanted_no, unsure_at = message
    return Delivery(
        n=n, id=id_, notifier=notifier, attempts=attempts, lease=lease or "", thread=thread, root=root or None,
        note=note, lost=lost, body=body, channel=channel, retry_from=run_at(retry_from), retry_due=run_at(retry_due),
        happened_at=at(happened_at), event=event, says=says, since=at(since), wanted=roots.content(wanted),
        wanted_no=wanted_no or 0, unsure_at=maybe_at(unsure_at),
    )  # fmt: skip


def sendable(tx: Connection, delivery_id: str) -> Delivery | None:
    """Return a delivery as its next attempt would have it."""
    row = tx.execute(_read(deliveries).where(deliveries.c.id == delivery_id)).first()
    return _delivery(row) if row else None


# --- claims ---------------------------------------------------------------------------------------------------------


def due_notifiers(tx: Connection, *, now: datetime) -> Sequence[Row[Any]]:
    """Return the notifiers that have something due and may be sent it."""
    return tx.execute(_NOTIFIERS, {"now": ms(now)}).all()


def claim(
    tx: Connection,
    *,
    free: int,
    lease: str,
    lease_for: timedelta,
    now: datetime,
    turn: int = 0,
    ahead: Collection[str] = (),
    threshold: int | None = None,
    newest: Collection[str] = (),
    shares: Mapping[str, Sequence[Share]] = MappingProxyType({}),
) -> Claimed:
    """Claim what `free` senders can take now, each notifier within its own bounds.

    What is due at DUE_AT_ONCE comes first, and alone if its notifier would be sent nothing else now.

    lease: must be new with every call: it tells a late result from the right one.
    turn: a number that goes up with every call. The notifier that is first in turn changes with it, so the first one
        by name has no advantage.
    ahead: notifiers that are quick. Of each, AHEAD times `max_in_flight` are claimed in addition to `max_in_flight`.
    threshold: of a notifier that failed so often in a row, one delivery at a time is claimed, as a probe.
    newest: notifiers whose new deliveries come first this time: if the last attempt was not answered, those never
        attempted, the youngest first; if a resent batch has waited for long, those of no batch.
    shares: the limits that notifiers share, by notifier. Of these one delivery is claimed for a limit that is free, of
        each notifier in turn: urgent ones first, then those that are no replies.
    """
    rows = due_notifiers(tx, now=now)
    start = turn % len(rows) if rows else 0
    lease_values = _lease(lease, lease_for, now)
    claimed, again = _claim_shared(
        tx, [row for row in rows if row.name in shares], shares, now, lease_values, free=free, newest=newest,
        threshold=threshold,
    )  # fmt: skip
    for row in (*rows[start:], *rows[:start]):
        if row.name in shares:
            continue
        broken = threshold is not None and row.failures >= threshold
        room, selections = _room_and_selections(
            tx, row, now, free=free - len(claimed), ahead=row.name in ahead, newest=row.name in newest, broken=broken
        )
        if row.interval_ms:
            allowed, wait = _allowed(row, now)
            room = min(room, allowed)
            again += [wait] if wait else []
        found = _claimed(tx, row, lease_values, room, *selections)
        if found and row.interval_ms:  # nobody else claims for it meanwhile
            used_until = _used(row, now) + len(found) * row.interval_ms
            tx.execute(update(notifiers).filter_by(name=row.name).values(used_until=used_until))
        claimed += found
    failing = frozenset(row.name for row in rows if row.failures)
    return Claimed(tuple(claimed), at(min(again)) if again else None, failing)


def _claim_shared(
    tx: Connection,
    rows: Sequence[Row[Any]],
    shares: Mapping[str, Sequence[Share]],
    now: datetime,
    lease: dict[str, Any],
    *,
    free: int,
    newest: Collection[str],
    threshold: int | None,
) -> tuple[list[Delivery], list[int]]:
    """Claim for notifiers that share limits; return what was claimed, and when the limits are free again, in ms."""
    users: dict[str, list[tuple[Row[Any], Share]]] = defaultdict(list)
    for row in rows:
        for share in _with_something_due(tx, row.name, shares[row.name], now):
            users[share.limit.name].append((row, share))
    claimed: list[Delivery] = []
    again: list[int] = []
    looks: Counter[str] = Counter()
    states = limits.read(tx, [mine[0][1].limit for mine in users.values()], now=now)
    for name, state in sorted(states.items()):
        for row, share in sorted(users[name], key=lambda user: (user[0].name <= state.served, user[0].name)):
            broken = threshold is not None and row.failures >= threshold
            room, selections = _room_and_selections(
                tx, row, now, free=free - len(claimed), ahead=False, newest=row.name in newest, broken=broken
            )
            found = _claim_share(tx, row, share, state, lease, now, room, selections, looks)
            if found:
                claimed += found
                again.append(ms(now + share.limit.interval))
                break
        else:
            if state.free_at > now:
                again.append(ms(state.free_at))
    return claimed, again


def _with_something_due(tx: Connection, notifier: str, shares: Sequence[Share], now: datetime) -> Sequence[Share]:
    """Return those shares for whose channel something is due: there may be a hundred channels."""
    if len(shares) < 2:
        return shares
    channels = shares[0].channels
    due = select(_channel()).where(*DUE).distinct()
    values = {"of": notifier, "now": ms(now), "channels": list(channels), "first_channel": channels[0]}
    found = set(tx.execute(due, values).scalars())
    return [share for share in shares if share.channel in found]


def _claim_share(
    tx: Connection,
    row: Row[Any],
    share: Share,
    state: LimitState,
    lease: dict[str, Any],
    now: datetime,
    room: int,
    selections: Sequence[Selection],
    looks: Counter[str],
) -> list[Delivery]:
    """Claim one delivery if its limit is free; what is due at once does not wait for that."""
    if Selection.AT_ONCE not in selections and Selection.DUE in selections:
        first = Selection.ROOT if selections[0] is Selection.DUE else selections[0]
        selections = (Selection.URGENT, first, Selection.DUE)
    if state.free_at > now:
        at_once = row.first_due == DUE_AT_ONCE and state.held_until <= now
        selections = [Selection.AT_ONCE] if at_once else []
    if share.paced and not _allowed(row, now)[0]:
        return []
    own = replace(state, limit=share.limit)
    if room <= 0 or not selections or not limits.take(tx, own, row.name, now=now):
        return []
    found: list[Delivery] = []
    for _ in range(_MOST_PUT_BACK):
        found = _claimed(tx, row, lease, 1, *selections, share=share, looks=looks)
        if not found or not (share.look_up and found[0].unsure_at) or _may_look(tx, found[0], share.look_up, now):
            break
        found = []
    if not found:
        limits.give_back(tx, own)
    elif share.paced:
        used_until = _used(row, now) + row.interval_ms
        tx.execute(update(notifiers).filter_by(name=row.name).values(used_until=used_until))
    return found


_MOST_PUT_BACK = 20  # deliveries that wait for the limit of look-ups, in one claim


def _may_look(tx: Connection, delivery: Delivery, look_up: SharedLimit, now: datetime) -> bool:
    """Tell whether a delivery may be looked for now; else put it back until then."""
    state = limits.read(tx, [look_up], now=now)[look_up.name]
    if state.free_at <= now and limits.take(tx, state, delivery.notifier, now=now):
        return True
    due = max(state.free_at, now + look_up.interval)
    back = {"state": WAITING, "attempts": deliveries.c.attempts - 1, "lease": None, "lease_until": None}
    tx.execute(update(deliveries).where(_n == delivery.n).values(**back, due_at=ms(due)))
    return False


def _room_and_selections(
    tx: Connection, row: Row[Any], now: datetime, *, free: int, ahead: bool, newest: bool, broken: bool
) -> tuple[int, tuple[Selection, ...]]:
    """Return how many to claim for a notifier, and which: the first selection that finds something counts."""
    places = row.max_in_flight - row.busy
    room = min(1 - row.busy if broken else places + (AHEAD * row.max_in_flight if ahead else 0), free)
    if row.first_due == DUE_AT_ONCE:
        postponed = row.not_before > ms(now)
        if postponed or room <= 0:
            selections: tuple[Selection, ...] = (Selection.AT_ONCE,)
        else:
            selections = (Selection.AT_ONCE, Selection.DUE) if broken else (Selection.DUE,)
        return min(1, places, free) if postponed or broken else room, selections
    if not newest:
        return room, (Selection.DUE,)
    if row.failures:
        # What fails comes back, and is the oldest: the others must not wait until all of that is dead.
        return room, (Selection.NEWEST, Selection.DUE)
    late = _batch_is_late(tx, row, now)
    return room, (Selection.NO_BATCH, Selection.DUE) if late else (Selection.DUE,)


def _batch_is_late(tx: Connection, row: Row[Any], now: datetime) -> bool:
    """Tell whether a resent delivery is the first that waits, and has waited for a place for long."""
    if row.first_due > ms(now - LATE):
        return False
    first = select(deliveries.c.batch).where(deliveries.c.notifier == row.name, state_is(WAITING))
    return tx.execute(first.order_by(_due_at, _n).limit(1)).scalar() is not None


def _allowed(row: Row[Any], now: datetime) -> tuple[int, int | None]:
    """Return how many the rate allows now, and when the next one is if it allows none.

    The generic cell rate algorithm: each delivery uses up one interval, at most `burst` of them ahead of time.
    """
    used = _used(row, now)
    allowed = (ms(now) + row.burst * row.interval_ms - used) // row.interval_ms
    return max(allowed, 0), None if allowed > 0 else used - (row.burst - 1) * row.interval_ms


def _used(row: Row[Any], now: datetime) -> int:
    """Return until when the rate is used up; a time that cannot be is from before the clock was set back."""
    furthest = ms(now) + 2 * row.burst * row.interval_ms
    return max(row.used_until, ms(now)) if row.used_until <= furthest else ms(now)


def _lease(lease: str, lease_for: timedelta, now: datetime) -> dict[str, Any]:
    return {"now": ms(now), "lease": lease, "until": ms(now + lease_for)}


def _claimed(
    tx: Connection,
    notifier: Row[Any],
    lease: dict[str, Any],
    room: int,
    *selections: Selection,
    share: Share | None = None,
    looks: Counter[str] | None = None,
    **more: object,
) -> list[Delivery]:
    """Claim for a notifier, by the first of these selections that finds something.

    `looks` counts by notifier how often this transaction has looked, if it does so more than once.
    """
    channels, looks = share.channels if share else (), Counter() if looks is None else looks
    for selection in selections if room > 0 else ():
        values = {"of": notifier.name, "room": room, **lease, **more}
        if share:
            values |= share.values
        if tx.dialect.name == "postgresql":
            claim = _claim_and_read(selection, bool(channels))
            rows = tx.execute(claim, values | {"seen": notifier.claims + looks[notifier.name]}).all()
            looks[notifier.name] += 1
        else:  # SQLite lets one write at a time
            numbers = [row.n for row in tx.execute(_claim("sqlite", selection, bool(channels)), values)]
            rows = tx.execute(_READ, {"numbers": numbers}).all() if numbers else []
        if rows:
            return [_delivery(row) for row in rows]
    return []


def available(tx: Connection, names: Collection[str], *, now: datetime, threshold: int) -> list[str]:
    """Return those of these notifiers that may be sent an edit: neither paused nor left alone.

    While its breaker is open a notifier's deliveries probe it; an edit does if none is due.
    """
    rows = tx.execute(
        select(notifiers, _busy.label("busy"), _first_due.label("first_due")).where(notifiers.c.name.in_(names))
    )
    return [
        row.name
        for row in rows
        if row.paused_at is None
        and row.not_before <= ms(now)
        and (row.failures < threshold or not (row.busy or (row.first_due is not None and row.first_due <= ms(now))))
    ]


def claim_held(tx: Connection, number: int, *, lease: str, lease_for: timedelta, now: datetime) -> Delivery | None:
    """Claim a delivery that is held for an edit, to give it up; None if it no longer is."""
    mine = update(deliveries).where(_n == number, state_is(HELD), deliveries.c.shown_with.is_not(None))
    claimed = {
        "state": SENDING,
        "lease": lease,
        "lease_until": ms(now + lease_for),
        "held_by": None,
        "shown_with": None,
    }
    if not tx.execute(mine.values(**claimed, attempts=deliveries.c.attempts + 1)).rowcount:
        return None
    return _delivery(tx.execute(_READ, {"numbers": [number]}).one())


# --- notifiers that are paused, or unavailable ----------------------------------------------------------------------


def paused(tx: Connection) -> set[str]:
    """Return the notifiers that are paused."""
    return set(tx.execute(select(notifiers.c.name).where(notifiers.c.paused_at.is_not(None))).scalars())


def paused_and_waiting(tx: Connection) -> list[tuple[str, str]]:
    """Return (name, why) of the notifiers that are paused, but not by a person, and for which something waits."""
    waits = exists().where(_OF_NOTIFIER, state_is(WAITING))
    failed = func.coalesce(notifiers.c.paused_reason, "") != Reason.MANUAL
    rows = tx.execute(select(notifiers).where(notifiers.c.paused_at.is_not(None), failed, waits))
    return [(row.name, row.paused_why) for row in rows]


def claim_paused(
    tx: Connection, notifier: str, *, lease: str, lease_for: timedelta, now: datetime, most: int
) -> tuple[Delivery, ...]:
    """Claim what waits for a paused notifier, also for its next attempt: it goes to the fallback."""
    row = tx.execute(select(notifiers).where(notifiers.c.name == notifier, notifiers.c.paused_at.is_not(None))).first()
    return tuple(_claimed(tx, row, _lease(lease, lease_for, now), most, Selection.PAUSED)) if row else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingDelivery:
    """A delivery that is due, and waits for its notifier's circuit breaker or Retry-After."""

    n: int
    due_at: int
    attempts: int  # without those whose outcome is unknown
    retry_from: timedelta | None
    retry_due: timedelta | None


def unavailable_notifiers(tx: Connection, *, now: datetime, threshold: int) -> dict[str, Breaker]:
    """Return the notifiers with an open breaker or a Retry-After that is not over; not those that are paused."""
    rows = tx.execute(select(notifiers).where(*_is_unavailable(now, threshold)).order_by(notifiers.c.name))
    return {row.name: entries.breaker_of(row) for row in rows}


def _is_unavailable(now: datetime, threshold: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    waits = or_(notifiers.c.failures >= threshold, notifiers.c.not_before > ms(now))
    return notifiers.c.paused_at.is_(None), waits


def due(tx: Connection, notifier: str, *, after: tuple[int, int], now: datetime, most: int) -> list[WaitingDelivery]:
    """Return up to `most` of what is due for a notifier, from `after` (due_at, n) on."""
    tried = (deliveries.c.attempts - deliveries.c.lost).label("attempts")
    waiting = select(_n, _due_at, tried, deliveries.c.retry_from, deliveries.c.retry_due)
    # The first condition on due_at says no more than the tuple: SQLite finds the place in its index by it.
    here = (_due_at >= after[0], _due_at <= ms(now), tuple_(_due_at, _n) > tuple_(*after))
    found = waiting.where(deliveries.c.notifier == notifier, state_is(WAITING), *here)
    return [
        WaitingDelivery(n=n, due_at=due_at, attempts=attempts, retry_from=run_at(first), retry_due=run_at(end))
        for n, due_at, attempts, first, end in tx.execute(found.order_by(_due_at, _n).limit(most))
    ]


def begin_retry(tx: Connection, numbers: Collection[int], run: timedelta) -> None:
    """Begin the retry time of deliveries never attempted, at this run clock: a probe counts as their attempt."""
    untried = update(deliveries).where(_n.in_(numbers), state_is(WAITING), deliveries.c.retry_from.is_(None))
    tx.execute(untried.values(retry_from=run_ms(run), retry_due=run_ms(run)))


def urge(tx: Connection, notifier: str, numbers: Collection[int], *, now: datetime) -> None:
    """Send the first of these that may go at once, unless one of its notifier is being sent, which counts for it."""
    other = deliveries.alias("other")
    is_busy = exists().where(other.c.notifier == notifier, state_is(SENDING, other))
    first = select(func.min(_n)).where(_n.in_(numbers), state_is(WAITING), _is_first(), ~is_busy)
    urged = update(deliveries).where(_n == first.scalar_subquery()).values(due_at=DUE_AT_ONCE)
    tx.execute(urged, {"now": ms(now)})


def claim_to_give_up(
    tx: Connection,
    notifier: str,
    numbers: Collection[int],
    *,
    threshold: int,
    lease: str,
    lease_for: timedelta,
    now: datetime,
) -> tuple[Delivery, ...]:
    """Claim these deliveries, to give them up, if their notifier is still unavailable; else nothing."""
    row = tx.execute(select(notifiers).where(notifiers.c.name == notifier, *_is_unavailable(now, threshold))).first()
    if row is None:
        return ()
    bounds = _lease(lease, lease_for, now)
    return tuple(_claimed(tx, row, bounds, len(numbers), Selection.THESE, numbers=list(numbers)))
