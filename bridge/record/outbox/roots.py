"""Roots of Slack threads: what each shows and should show, and the edits that bring it there.

A root whose job has moved is stale until an edit is accepted. Edits are no deliveries: a newer wish replaces an older
one. A delivery that shows only as an edit is held until that edit, or a newer one, is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from bridge.model import Content, RootEdit
from bridge.record import counters
from bridge.record.clocks import run_at, run_ms
from bridge.record.codec import dump, storable
from bridge.record.counters import Count
from bridge.record.database import at, ms, skip_locked, upsert
from bridge.record.schema import DUE_AT_ONCE, HELD, MERGED, WAITING, deliveries, state_is, threads

Key = tuple[str, str]  # a notifier, and a thread of its

LONGEST_LEASE = timedelta(minutes=2)
_AT_ONCE = 1_000  # threads that are asked for at once
HELD_BY = "edit"  # what holds a delivery that shows as an edit
_key = tuple_(threads.c.notifier, threads.c.thread)
_stale = and_(threads.c.wanted_no > threads.c.shown_no, threads.c.receipt != "")
_FREE: Mapping[str, Any] = {"lease": None, "lease_until": None}
_FRESH: Mapping[str, Any] = {"attempts": 0, "retry_from": None, "retry_due": None, "why": None}


# --- what roots should show -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A thread as it is stored. `states` has the state of each job of a workflow."""

    key: Key
    wanted: Content | None
    states: Mapping[str, str]


def find(tx: Connection, keys: Collection[Key]) -> list[Root]:
    """Return those of these threads that are stored."""
    names = sorted({thread for _, thread in keys})
    rows: list[Row[Any]] = []
    for first in range(0, len(names), _AT_ONCE):
        rows += tx.execute(select(threads).where(threads.c.thread.in_(names[first : first + _AT_ONCE])))
    return [
        Root(
            key=(row.notifier, row.thread),
            wanted=content(row.wanted),
            states=json.loads(row.job_states) if row.job_states else {},
        )
        for row in rows
        if (row.notifier, row.thread) in keys
    ]


def want(
    tx: Connection, wishes: Mapping[Key, Content], *, now: datetime, urgent: Collection[Key] = ()
) -> dict[Key, int]:
    """Store what roots should show, of threads that begin too; return the number of each wish.

    Edits of `urgent` ones go first.
    """
    if not wishes:
        return {}
    rows = [
        {"notifier": notifier, "thread": thread, "receipt": "", "used_at": ms(now), "wanted_no": 1,
         "due_at": DUE_AT_ONCE if (notifier, thread) in urgent else ms(now),
         "wanted": _text(wishes[notifier, thread])}
        for notifier, thread in sorted(wishes)  # in this order, so that two workers never wait for each other
    ]  # fmt: skip
    row = upsert(tx, threads).values(rows)
    row = row.on_conflict_do_update(
        index_elements=["notifier", "thread"], set_={"wanted": row.excluded.wanted, **_wish(row.excluded.due_at)}
    )
    numbers = tx.execute(row.returning(threads.c.notifier, threads.c.thread, threads.c.wanted_no))
    return {(notifier, thread): number for notifier, thread, number in numbers}


def change(tx: Connection, wishes: Mapping[Key, tuple[Content, Mapping[str, str]]], *, now: datetime) -> None:
    """Store what the roots of threads that are stored should show, with the states of a workflow's jobs."""
    rows = [
        {"b_notifier": notifier, "b_thread": thread, "b_wanted": _text(content),
         "b_states": dump(states) if states else None}
        for (notifier, thread), (content, states) in sorted(wishes.items())
    ]  # fmt: skip
    if rows:
        mine = (threads.c.notifier == bindparam("b_notifier"), threads.c.thread == bindparam("b_thread"))
        values = {"wanted": bindparam("b_wanted"), "job_states": bindparam("b_states"), **_wish(literal(ms(now)))}
        tx.execute(update(threads).where(*mine).values(values), rows)


def _wish(now: ColumnElement[int]) -> dict[str, Any]:
    # One that is stale already keeps its place, and its pause after an edit that failed, but not that of one given up.
    waits = or_(threads.c.attempts > 0, threads.c.due_at < now)
    keeps = and_(threads.c.wanted_no > threads.c.shown_no, waits, now != DUE_AT_ONCE)
    due_at = case((keeps, threads.c.due_at), else_=now)
    return {"wanted_no": threads.c.wanted_no + 1, "due_at": due_at}


def _text(content: Content) -> str:
    return dump([content.says, content.event, ms(content.happened_at)])


def content(text: str | None) -> Content | None:
    if not text:
        return None
    says, event, happened_at = json.loads(text)
    return Content(says, event, at(happened_at))


def _is_scheduled(now: datetime, table: FromClause = deliveries) -> ColumnElement[bool]:
    """Return the condition that a delivery belongs to a batch and is not due yet."""
    return and_(table.c.batch.is_not(None), table.c.attempts == 0, table.c.due_at > ms(now))


def have_roots(tx: Connection, lanes: Mapping[Key, str], *, now: datetime) -> set[Key]:
    """Return those of these threads (each with its ordering key) whose root is there, or on its way."""
    rows = tx.execute(select(threads.c.notifier, threads.c.thread).where(_key.in_(lanes), threads.c.receipt != ""))
    there = {(notifier, thread) for notifier, thread in rows}
    unfinished = literal_column("delivery.state") < literal_column("2")
    waits = select(deliveries.c.notifier, deliveries.c.thread).where(
        deliveries.c.lane.in_(set(lanes.values())), deliveries.c.lane.is_not(None), unfinished, ~_is_scheduled(now)
    )
    return there | ({(notifier, thread) for notifier, thread in tx.execute(waits)} & lanes.keys())


# --- edits ----------------------------------------------------------------------------------------------------------


def _is_due(now: datetime) -> Any:
    # A lease that ends much later than one can is from before the clock was set back.
    over = or_(threads.c.lease_until < ms(now), threads.c.lease_until > ms(now + LONGEST_LEASE))
    return and_(_stale, threads.c.due_at <= ms(now), or_(threads.c.lease.is_(None), over))


_of_incident = or_(
    threads.c.thread.startswith("incident/inc_", autoescape=True),
    threads.c.thread.contains("/incident/inc_", autoescape=True),  # in front of it is the channel
)


def due_notifiers(tx: Connection, names: Collection[str], *, updating: Collection[str], now: datetime) -> set[str]:
    """Return those of these notifiers that have an edit due; those not `updating` edit the roots of incidents only."""
    may = or_(threads.c.notifier.in_(updating), _of_incident)
    due = select(threads.c.notifier).where(threads.c.notifier.in_(names), _is_due(now), may).distinct()
    return set(tx.execute(due).scalars())


def claim(
    tx: Connection, notifier: str, *, room: int, lease: str, lease_for: timedelta, now: datetime, updating: bool = True
) -> list[RootEdit]:
    """Claim the edits of a notifier's stale roots that are due, those that are stale for longest first."""
    due = select(threads.c.notifier, threads.c.thread).where(threads.c.notifier == notifier, _is_due(now))
    if not updating:
        due = due.where(_of_incident)
    due = due.order_by(threads.c.due_at, threads.c.thread).limit(room)
    keys = [(row.notifier, row.thread) for row in tx.execute(skip_locked(tx, due))]
    if not keys:
        return []
    mine = update(threads).where(_key.in_(keys)).values(lease=lease, lease_until=ms(now + lease_for))
    rows = tx.execute(mine.values(attempts=threads.c.attempts + 1).returning(threads)).all()
    return [_edit(row) for row in rows]


def failing(tx: Connection) -> dict[str, tuple[int, str | None]]:
    """Return by notifier how many stale roots could not be edited, and why one of them."""
    found = select(threads.c.notifier, func.count(), func.max(threads.c.why)).where(_stale, threads.c.why.is_not(None))
    rows = tx.execute(found.group_by(threads.c.notifier))
    return {name: (count, why) for name, count, why in rows}


def _edit(row: Row[Any]) -> RootEdit:
    wanted = content(row.wanted) or Content("{}", "{}", at(row.used_at))
    return RootEdit(
        n=0, id=f"root {row.notifier} {row.thread}", notifier=row.notifier, attempts=row.attempts, lease=row.lease,
        thread=row.thread, root=row.receipt, wanted=wanted, wanted_no=row.wanted_no, says=wanted.says,
        event=wanted.event, happened_at=wanted.happened_at, retry_from=run_at(row.retry_from),
        retry_due=run_at(row.retry_due),
    )  # fmt: skip


def _row(edit: RootEdit) -> Any:
    return and_(threads.c.notifier == edit.notifier, threads.c.thread == edit.thread)


def shown(tx: Connection, edit: RootEdit, receipt: str, *, now: datetime) -> bool:
    """Store that an edit was accepted; False if its lease was lost.

    Then a newer edit may have come before it, so the root is stale again, whatever it shows.
    """
    done = {"receipt": storable(receipt), "used_at": ms(now), "due_at": ms(now), "shown_no": edit.wanted_no}
    mine = update(threads).where(_row(edit), threads.c.lease == edit.lease)
    if tx.execute(mine.where(threads.c.receipt == edit.root).values({**done, **_FRESH, **_FREE})).rowcount == 1:
        return True
    tx.execute(mine.values(_FREE))  # another root has taken its place
    tx.execute(update(threads).where(_row(edit)).values(_wish(literal(ms(now)))))
    return False


def postpone(
    tx: Connection, edit: RootEdit, due: datetime, *, why: str, retry_from: timedelta | None, retry_due: timedelta
) -> None:
    """Store that an edit failed, and when it is tried again."""
    retry = {"retry_from": run_ms(retry_from), "retry_due": run_ms(retry_due), "why": storable(why)}
    mine = update(threads).where(_row(edit), threads.c.lease == edit.lease)
    tx.execute(mine.values(due_at=ms(due), **retry, **_FREE))


def hand_back(tx: Connection, edit: RootEdit) -> None:
    """Give up the claim of an edit, as if it had not been made."""
    mine = update(threads).where(_row(edit), threads.c.lease == edit.lease)
    tx.execute(mine.values(attempts=threads.c.attempts - 1, **_FREE))


def begin_anew(tx: Connection, edit: RootEdit, why: str, *, due: datetime) -> None:
    """Try an edit again then, as if it had not been tried."""
    mine = update(threads).where(_row(edit), threads.c.lease == edit.lease)
    tx.execute(mine.values({**_FRESH, "why": storable(why), "due_at": ms(due), **_FREE}))


def forget(tx: Connection, edit: RootEdit, why: str) -> None:
    """Store that a root is gone: the next message of its thread begins anew."""
    mine = update(threads).where(_row(edit), threads.c.receipt == edit.root)
    tx.execute(mine.values({**_FRESH, "why": storable(why), "receipt": "", **_FREE}))


# --- deliveries that show only as an edit ---------------------------------------------------------------------------


def _held(notifier: str, thread: str | None = None, up_to: int | None = None) -> Any:
    conditions = [deliveries.c.notifier == notifier, state_is(HELD), deliveries.c.shown_with.is_not(None)]
    if thread is not None:
        conditions.append(deliveries.c.thread == thread)
    if up_to is not None:
        conditions.append(deliveries.c.shown_with <= up_to)
    return and_(*conditions)


def held(tx: Connection, notifier: str, thread: str, *, up_to: int, before: datetime | None = None) -> list[int]:
    """Return the numbers of the deliveries that wait for an edit with this number, and were put before then."""
    found = select(deliveries.c.n).where(_held(notifier, thread, up_to))
    if before is not None:
        found = found.where(deliveries.c.created_at <= ms(before))
    return list(tx.execute(found.order_by(deliveries.c.n)).scalars())


def merge(tx: Connection, notifier: str, thread: str, *, up_to: int, now: datetime) -> None:
    """Store that the root shows what deliveries waited for."""
    values = {"state": MERGED, "ended_at": ms(now), "why": "shown by the first message of its thread"}
    count = tx.execute(update(deliveries).where(_held(notifier, thread, up_to)).values(values)).rowcount
    if count:
        counters.add(tx, [Count("delivery", (notifier, "merged"), times=count)], now=now)


_RELEASED: Mapping[str, Any] = {"state": WAITING, "held_by": None, "shown_with": None}


def release_orphans(tx: Connection, updating: Collection[str], *, now: datetime) -> int:
    """Send as messages what waits for the edit of a root that is gone, or will never be; of a thread, the newest.

    `updating` are the notifiers that may edit: of others, all is sent. Return how many.
    """
    mine = (threads.c.notifier == deliveries.c.notifier, threads.c.thread == deliveries.c.thread)
    other = deliveries.alias("other")
    unfinished = (
        literal_column("other.state") < literal_column("2"), other.c.lane.is_not(None), ~_is_scheduled(now, other)
    )  # fmt: skip
    comes = exists().where(other.c.lane == deliveries.c.lane, other.c.notifier == deliveries.c.notifier, *unfinished)
    has_root = exists().where(*mine, threads.c.receipt != "")
    waits = (state_is(HELD), deliveries.c.shown_with.is_not(None))
    may_edit = deliveries.c.notifier.in_(updating)
    newest = select(func.max(deliveries.c.n)).where(*waits, may_edit, ~has_root, ~comes)
    newest = newest.group_by(deliveries.c.notifier, deliveries.c.thread)
    others = select(deliveries.c.n).where(*waits, ~may_edit)
    # Apart from the update, which would walk through all deliveries for both conditions.
    numbers = [*tx.execute(newest).scalars(), *tx.execute(others).scalars()]
    released = update(deliveries).where(deliveries.c.n.in_(numbers), state_is(HELD))
    return tx.execute(released.values({**_RELEASED, "due_at": ms(now)})).rowcount if numbers else 0


def any_held(tx: Connection) -> bool:
    """Tell whether anything waits for an edit."""
    found = select(deliveries.c.n).where(state_is(HELD), deliveries.c.shown_with.is_not(None))
    return tx.execute(found.limit(1)).first() is not None
