"""The rules as they were, and which of them had a template that did not render."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, update

from bridge.record import tallies
from bridge.record.codec import storable
from bridge.record.database import at, ms, upsert
from bridge.record.schema import rule_fault as F  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import ruleset as R  # noqa: N812
from bridge.record.tallies import Counted


def keep(tx: Connection, sha: str, text: str, *, now: datetime) -> None:
    """Keep a ruleset that is in force, and remember when it was."""
    row = upsert(tx, R).values(sha=sha, text=text, used_at=ms(now))
    tx.execute(row.on_conflict_do_update(index_elements=["sha"], set_={"used_at": ms(now)}))
    tallies.count(tx, [Counted("rules", ())], now=now)


def touch(tx: Connection, sha: str, *, now: datetime) -> None:
    """Remember that a ruleset is in force; once an hour will do, as SQLite writes its whole text anew."""
    stale = R.c.used_at < ms(now - timedelta(hours=1))
    tx.execute(update(R).where(R.c.sha == sha, stale).values(used_at=ms(now)))


def one(tx: Connection, sha: str) -> str | None:
    """Return a ruleset as text, if it is kept."""
    return tx.execute(select(R.c.text).where(R.c.sha == sha)).scalar()


def prune(tx: Connection, *, before: datetime) -> int:
    """Take out those that have not been in force since then, never the one that is, and faults that are as old."""
    tx.execute(delete(F).where(F.c.at < ms(before)))
    newest = select(func.coalesce(func.max(R.c.accepted), 0)).scalar_subquery()
    last = or_(R.c.accepted.is_(None), R.c.accepted < newest)
    return tx.execute(delete(R).where(R.c.used_at < ms(before), last)).rowcount


def fault(tx: Connection, faults: Iterable[tuple[str, str]], *, now: datetime) -> None:
    """Count templates that did not render, each as (rule, why)."""
    for rule, why in sorted(faults):
        row = upsert(tx, F).values(rule=rule, times=1, why=storable(why), at=ms(now))
        again = {"times": F.c.times + 1, "why": row.excluded.why, "at": row.excluded["at"]}
        tx.execute(row.on_conflict_do_update(index_elements=["rule"], set_=again))


def faults(tx: Connection) -> dict[str, dict[str, Any]]:
    """Return by rule how many templates did not render, why the last one did not, and when that was."""
    rows = tx.execute(select(F).order_by(F.c.rule))
    return {row.rule: {"count": row.times, "why": row.why, "at": at(row.at)} for row in rows}
