"""Silences: who made them, until when, and how much they have held."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, select, update

from bridge.model import Silence, Transition
from bridge.record.codec import dump
from bridge.record.database import at, ms, upsert
from bridge.record.polling.snapshots import judged
from bridge.record.schema import delivery as D  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import digest as G  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import silence as Q  # noqa: N812
from bridge.record.schema import transition as T  # noqa: N812

_SPOKEN_OF = timedelta(days=7)  # after its end


def add(tx: Connection, silence: Silence) -> bool:
    """Store a silence; False when there is one of this id."""
    row = upsert(tx, Q).values(
        id=silence.id,
        spec=silence.spec,
        mode="drop" if silence.drop else "hold",
        author=silence.author,
        reason=silence.reason,
        begins_at=ms(silence.begins_at),
        ends_at=ms(silence.ends_at),
    )
    return tx.execute(row.on_conflict_do_nothing().returning(Q.c.n)).first() is not None


def end(tx: Connection, id_: str, *, by: str, now: datetime) -> bool:
    """End a silence now, so that what it holds is due; False when there is none of this id that has not ended."""
    row = update(Q).where(Q.c.id == id_, Q.c.ends_at > ms(now))
    return tx.execute(row.values(ends_at=ms(now), ended_by=by)).rowcount == 1


def of_use(tx: Connection, *, now: datetime) -> list[Silence]:
    """Return the silences that are not over, and those that ended so lately that a message may say so."""
    found = select(Q).where(Q.c.ends_at > ms(now - _SPOKEN_OF)).order_by(Q.c.n)
    return [_silence(row) for row in tx.execute(found)]


def one(tx: Connection, id_: str) -> Silence | None:
    row = tx.execute(select(Q).where(Q.c.id == id_)).first()
    return _silence(row) if row else None


def every(tx: Connection, *, since: datetime | None = None) -> list[tuple[Silence, int]]:
    """Return each silence, the newest first, with how many messages it has held or dropped.

    With `since` only those that ended after then, or have not ended.
    """
    found = select(Q).order_by(Q.c.n.desc())
    if since:
        found = found.where(Q.c.ends_at > ms(since))
    counts = held(tx)
    return [(_silence(row), counts.get(row.id, 0)) for row in tx.execute(found)]


def page(
    tx: Connection, *, cursor: int | None, limit: int, over: datetime | None = None
) -> tuple[list[tuple[Silence, int]], int | None]:
    """Return silences as `every` does, `limit` of them, and the cursor of the next page.

    With `over` only those that had ended then.
    """
    found = select(Q).order_by(Q.c.n.desc()).limit(limit + 1)
    if over is not None:
        found = found.where(Q.c.ends_at <= ms(over))
    if cursor is not None:
        found = found.where(Q.c.n < cursor)
    rows = tx.execute(found).all()
    counts = held(tx, [row.id for row in rows])
    items = [(_silence(row), counts.get(row.id, 0)) for row in rows[:limit]]
    return items, rows[limit - 1].n if len(rows) > limit else None


def held(tx: Connection, ids: Collection[str] | None = None) -> dict[str, int]:
    """Return how many messages these silences (None: all) have held or dropped; who has none is not there."""
    sums = select(G.c.name, func.sum(G.c.members)).where(G.c.gate == "silence").group_by(G.c.name)
    if ids is not None:
        sums = sums.where(G.c.name.in_(list(ids)))
    return {row[0]: int(row[1]) for row in tx.execute(sums)}


def standing(tx: Connection, *, now: datetime) -> list[Silence]:
    """Return the silences that have not ended."""
    return [_silence(row) for row in tx.execute(select(Q).where(Q.c.ends_at > ms(now)).order_by(Q.c.n))]


def over(tx: Connection, heard: Iterable[tuple[str, str]]) -> None:
    """Remember that notifiers have heard that silences are over, each as (silence, notifier)."""
    for id_, notifier in sorted(set(heard)):
        row = tx.execute(select(Q.c.told).where(Q.c.id == id_)).first()
        told = json.loads(row.told) if row else [notifier]
        if notifier not in told:
            tx.execute(update(Q).where(Q.c.id == id_).values(told=dump([*told, notifier])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """A message of a rule to a notifier, as it was made."""

    rule: str
    notifier: str
    kind: str
    made_at: datetime
    transition: Transition


_AT_ONCE = 1_000


def told_since(tx: Connection, since: datetime) -> Iterator[list[Once]]:
    """Yield the messages that rules have told since then or had held, the newest first, some at a time.

    Walked by number, as no index is about time; what was told by a fallback is not among them.
    """
    told = (
        select(D.c.n.label("number"), D.c.notifier, D.c.created_at, M.c.kind, M.c.rule, T)
        .join(M, M.c.id == D.c.message)
        .outerjoin(T, and_(T.c.bucket == M.c.bucket, T.c.job_id == M.c.job_id, T.c.sequence == M.c.sequence))
        .order_by(D.c.n.desc())
        .limit(_AT_ONCE)
    )
    rows = tx.execute(told).all()
    while any(row.created_at >= ms(since) for row in rows):
        yield [_once(row) for row in rows if row.created_at >= ms(since) and _by_its_rule(row)]
        rows = tx.execute(told.where(D.c.n < rows[-1].number)).all()


def _by_its_rule(row: Row[Any]) -> bool:
    if row.n is None or row.rule is None:  # a digest, a test, or pruned
        return False
    return row.kind != "transition" or any(
        rule == row.rule and row.notifier in notifiers for rule, notifiers in json.loads(row.verdicts)
    )


def _once(row: Row[Any]) -> Once:
    return Once(
        rule=row.rule, notifier=row.notifier, kind=row.kind, made_at=at(row.created_at),
        transition=judged(row).transition,
    )  # fmt: skip


def prune(tx: Connection, *, before: datetime) -> int:
    """Take out silences that ended before then."""
    return tx.execute(delete(Q).where(Q.c.ends_at < ms(before))).rowcount


def _silence(row: Row[Any]) -> Silence:
    return Silence(
        id=row.id,
        spec=row.spec,
        author=row.author,
        reason=row.reason,
        begins_at=at(row.begins_at),
        ends_at=at(row.ends_at),
        drop=row.mode == "drop",
        ended_by=row.ended_by,
        told=tuple(json.loads(row.told)),
    )
