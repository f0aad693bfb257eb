"""Silences: who made them, until when, and how much they have held."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from bridge.model import Silence, Transition
from bridge.record.codec import dump, from_row
from bridge.record.database import ms, upsert
from bridge.record.polling.snapshots import transition_of
from bridge.record.schema import deliveries, digests, messages, same_step, silences, transitions

_MENTIONED_FOR = timedelta(days=7)  # after its end
_READ_AT_ONCE = 1_000


def add(tx: Connection, silence: Silence) -> bool:
    """Store a silence; False if there is one of this id."""
    row = upsert(tx, silences).values(
        id=silence.id,
        spec=silence.spec,
        mode="drop" if silence.drop else "hold",
        author=silence.author,
        reason=silence.reason,
        begins_at=ms(silence.begins_at),
        ends_at=ms(silence.ends_at),
    )
    return tx.execute(row.on_conflict_do_nothing().returning(silences.c.n)).first() is not None


def end(tx: Connection, id_: str, *, by: str, now: datetime) -> bool:
    """End a silence now, so that what it holds is due; False if there is none of this id that has not ended."""
    row = update(silences).where(silences.c.id == id_, silences.c.ends_at > ms(now))
    return tx.execute(row.values(ends_at=ms(now), ended_by=by)).rowcount == 1


def change(tx: Connection, id_: str, *, ends_at: datetime, reason: str, now: datetime) -> bool:
    """Change the end and the reason of a silence that has not ended, and when what it holds is due."""
    row = update(silences).where(silences.c.id == id_, silences.c.ends_at > ms(now))
    changed = tx.execute(row.values(ends_at=ms(ends_at), reason=reason)).rowcount == 1
    if changed:
        held = update(digests).where(digests.c.gate == "silence", digests.c.name == id_, digests.c.ended_at.is_(None))
        tx.execute(held.values(due_at=ms(ends_at)))
    return changed


def get(tx: Connection, id_: str) -> Silence | None:
    row = tx.execute(select(silences).filter_by(id=id_)).first()
    return _silence(row) if row else None


def not_ended(tx: Connection, *, now: datetime) -> list[Silence]:
    """Return the silences that have not ended."""
    return [
        _silence(row) for row in tx.execute(select(silences).where(silences.c.ends_at > ms(now)).order_by(silences.c.n))
    ]


def recent(tx: Connection, *, now: datetime) -> list[Silence]:
    """Return the silences that have not ended, or so lately that a message may mention it."""
    return not_ended(tx, now=now - _MENTIONED_FOR)


def all_with_counts(tx: Connection, *, since: datetime | None = None) -> list[tuple[Silence, int]]:
    """Return each silence, the newest first, with how many messages it has held or dropped.

    With `since` only those that ended after then, or have not ended.
    """
    found = select(silences).order_by(silences.c.n.desc())
    if since:
        found = found.where(silences.c.ends_at > ms(since))
    held = counts(tx)
    return [(_silence(row), held.get(row.id, 0)) for row in tx.execute(found)]


def page(
    tx: Connection, *, cursor: int | None, limit: int, over: datetime | None = None
) -> tuple[list[tuple[Silence, int]], int | None]:
    """Return silences as `all_with_counts` does, `limit` of them, and the cursor of the next page.

    With `over` only those that had ended then.
    """
    found = select(silences).order_by(silences.c.n.desc()).limit(limit + 1)
    if over is not None:
        found = found.where(silences.c.ends_at <= ms(over))
    if cursor is not None:
        found = found.where(silences.c.n < cursor)
    rows = tx.execute(found).all()
    held = counts(tx, [row.id for row in rows])
    items = [(_silence(row), held.get(row.id, 0)) for row in rows[:limit]]
    return items, rows[limit - 1].n if len(rows) > limit else None


def counts(tx: Connection, ids: Collection[str] | None = None) -> dict[str, int]:
    """Return how many messages these silences (None: all) have held or dropped; those without any are left out."""
    sums = select(digests.c.name, func.sum(digests.c.members)).filter_by(gate="silence").group_by(digests.c.name)
    if ids is not None:
        sums = sums.where(digests.c.name.in_(list(ids)))
    return {row[0]: int(row[1]) for row in tx.execute(sums)}


def mark_notified(tx: Connection, ends: Iterable[tuple[str, str]]) -> None:
    """Store which notifiers were notified of the end of which silence, each as (silence, notifier)."""
    for id_, notifier in sorted(set(ends)):
        row = tx.execute(select(silences.c.told).filter_by(id=id_)).first()
        told = json.loads(row.told) if row else [notifier]
        if notifier not in told:
            tx.execute(update(silences).filter_by(id=id_).values(told=dump([*told, notifier])))


def prune(tx: Connection, *, before: datetime) -> int:
    """Delete silences that ended before then."""
    return tx.execute(delete(silences).where(silences.c.ends_at < ms(before))).rowcount


def _silence(row: Row[Any]) -> Silence:
    return from_row(Silence, row, drop=row.mode == "drop", notified=tuple(json.loads(row.told)))


# --- what a silence would have held ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleMessage:
    """A message of a rule to a notifier, as it was made."""

    rule: str
    notifier: str
    kind: str
    created_at: datetime
    transition: Transition


def messages_since(tx: Connection, since: datetime) -> Iterator[list[RuleMessage]]:
    """Yield the messages that rules have sent since then or had held, the newest first, some at a time.

    Walked by number, as no index is about time; what a fallback was sent is not among them.
    """
    columns = (deliveries.c.n.label("number"), deliveries.c.notifier, deliveries.c.created_at)
    newest = (
        select(*columns, messages.c.kind, messages.c.rule, transitions)
        .join(messages, messages.c.id == deliveries.c.message)
        .outerjoin(transitions, same_step(transitions, messages))
        .order_by(deliveries.c.n.desc())
        .limit(_READ_AT_ONCE)
    )
    rows = tx.execute(newest).all()
    while any(row.created_at >= ms(since) for row in rows):
        yield [
            from_row(RuleMessage, row, transition=transition_of(row))
            for row in rows
            if row.created_at >= ms(since) and _by_its_rule(row)
        ]
        rows = tx.execute(newest.where(deliveries.c.n < rows[-1].number)).all()


def _by_its_rule(row: Row[Any]) -> bool:
    if row.n is None or row.rule is None:  # a digest, a test, or pruned
        return False
    verdicts = json.loads(row.verdicts)
    named = any(rule == row.rule and row.notifier in notifiers for rule, notifiers in verdicts)
    return named or row.kind != "transition"
