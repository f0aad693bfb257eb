"""The rules as they were, which of them are in force, and which had a template that did not render."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, update

from bridge.record import counters
from bridge.record.codec import storable
from bridge.record.counters import Count
from bridge.record.database import at, ms, upsert
from bridge.record.schema import HEAD
from bridge.record.schema import rule_fault as F  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import ruleset as R  # noqa: N812
from bridge.record.schema import shared_number as S  # noqa: N812
from bridge.record.schema import worker as P  # noqa: N812

ALIVE = timedelta(seconds=45)  # a worker says every 15 s that it is there
_APART = timedelta(seconds=60)  # so long a new file may take to reach every worker


class OtherRules(Exception):
    """Other rules are in force than those that were to judge; what they would have said is not stored."""


def keep(tx: Connection, sha: str, text: str, *, now: datetime) -> None:
    """Keep a ruleset that is in use, and remember when it was."""
    row = upsert(tx, R).values(sha=sha, text=text, used_at=ms(now))
    tx.execute(row.on_conflict_do_update(index_elements=["sha"], set_={"used_at": ms(now), "text": text}))
    counters.add(tx, [Count("rules", ())], now=now)


# --- which are in force -----------------------------------------------------------------------------------------

_BY_RANK = (
    select(R.c.sha, R.c.accepted, R.c.stands_in)
    .where(R.c.accepted.is_not(None))
    .order_by(R.c.stands_in.desc(), R.c.accepted.desc())
)
_IN_FORCE = _BY_RANK.limit(1)


def in_force(tx: Connection) -> str | None:
    """Return the sha of the ruleset in force; None before any was accepted."""
    return tx.execute(_IN_FORCE).scalar()


def require_in_force(tx: Connection, sha: str) -> None:
    """Raise OtherRules unless this ruleset is in force: to be asked in each transaction that judges by it."""
    found = in_force(tx)
    if found not in (None, sha):
        raise OtherRules(f"the rules {found} are in force, not {sha}")


def accept(tx: Connection, sha: str, text: str, *, now: datetime) -> bool:
    """Put a ruleset in force that a start or a reload brings; return False when it was already.

    Call it first in a transaction: the counter makes those who accept at once wait for each other here.
    """
    first = tx.execute(_IN_FORCE).first()
    if first and first.sha == sha and not first.stands_in:
        keep(tx, sha, text, now=now)
        return False
    number = _count(tx, "accepted", now)
    keep(tx, sha, text, now=now)
    tx.execute(update(R).where(R.c.stands_in).values(stands_in=False))
    tx.execute(update(R).where(R.c.sha == sha).values(accepted=number))
    return True


def stand(tx: Connection, sha: str, *, instead_of: str) -> bool:
    """Put a ruleset in force instead of one that no live worker has; False when another is in force by now."""
    if in_force(tx) != instead_of:
        return False
    tx.execute(update(R).where(R.c.stands_in).values(stands_in=False))
    if in_force(tx) != sha:  # else it is the one that was accepted last, and stands in for nobody
        tx.execute(update(R).where(R.c.sha == sha).values(stands_in=True))
    return True


def _count(tx: Connection, name: str, now: datetime) -> int:
    row = upsert(tx, S).values(name=name, value=1, at=ms(now))
    again = row.on_conflict_do_update(index_elements=["name"], set_={"value": S.c.value + 1, "at": ms(now)})
    return int(tx.execute(again.returning(S.c.value)).scalar_one())


def ask_for_reload(tx: Connection, *, now: datetime) -> None:
    """Make every process read its rules.toml now."""
    _count(tx, "reload", now)


def reloads(tx: Connection) -> int:
    """Return how often somebody asked for that."""
    return tx.execute(select(S.c.value).where(S.c.name == "reload")).scalar() or 0


def allow_empty(tx: Connection, sha: str) -> None:
    """Remember that a person wants these rules, although they have no watch or no rule."""
    tx.execute(update(R).where(R.c.sha == sha).values(empty_allowed=True))


def may_be_empty(tx: Connection, sha: str) -> bool:
    return bool(tx.execute(select(R.c.empty_allowed).where(R.c.sha == sha)).scalar())


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A worker, and the rules it has."""

    id: str
    pid: int
    sha: str | None
    beat: int
    alive: bool
    older: bool  # of a version that knows nothing of rules in force, and judges by its own
    other: bool  # it has had other rules than those accepted last for longer than a change takes
    fault: str | None
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Which rules are in force, and who has which."""

    sha: str | None  # in force
    last: str | None  # accepted last: another one when `sha` stands in for it
    changed: datetime  # when others were accepted than before
    numbers: Mapping[str, int]  # of each ruleset that was ever accepted
    workers: Sequence[Holder]

    @property
    def alive(self) -> list[Holder]:
        return [one for one in self.workers if one.alive]


def standing(tx: Connection, *, now: datetime) -> Standing:
    found = tx.execute(_BY_RANK).all()
    last = max(found, key=lambda row: row.accepted).sha if found else None
    changed = tx.execute(select(S.c.at).where(S.c.name == "accepted")).scalar() or 0
    rows = tx.execute(select(P).order_by(P.c.started_at, P.c.id))
    return Standing(
        sha=found[0].sha if found else None,
        last=last,
        changed=at(changed),
        numbers={row.sha: row.accepted for row in found},
        workers=[_holder(row, last, changed, ms(now)) for row in rows],
    )


def _holder(row: Any, last: str | None, changed: int, now: int) -> Holder:
    alive = row.beat_at >= now - ALIVE // timedelta(milliseconds=1)
    lately = 0 <= now - max(changed, row.started_at) < _APART // timedelta(milliseconds=1)
    return Holder(
        id=row.id,
        pid=row.pid,
        sha=row.rules_sha,
        beat=row.beat_at,
        alive=alive,
        older=row.revision < HEAD,
        other=alive and not lately and row.rules_sha not in (None, last),
        fault=row.rules_fault,
        note=row.rules_note,
    )


# --- all that are kept ------------------------------------------------------------------------------------------


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
