"""The rules as they were, which of them are in force, and which had a template that did not render."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select, update

from bridge.record import counters
from bridge.record.codec import storable
from bridge.record.counters import Count
from bridge.record.database import at, maybe_at, ms, upsert
from bridge.record.schema import HEAD, rule_faults, rulesets, shared_numbers, workers

ALIVE = timedelta(seconds=45)  # a worker beats every 15 s
_APART = timedelta(seconds=60)  # a new file may take so long to reach every worker


class OtherRules(Exception):
    """Other rules are in force than those that were to be evaluated; what they would have said is not stored."""


def store(tx: Connection, sha: str, text: str, *, source: str | None = None, now: datetime) -> None:
    """Store a ruleset that is in use, and that it is now; `source` is its file, masked."""
    facts = {"used_at": ms(now), "text": text} | ({"source": source} if source is not None else {})
    row = upsert(tx, rulesets).values(sha=sha, **facts)
    tx.execute(row.on_conflict_do_update(index_elements=["sha"], set_=facts))
    counters.add(tx, [Count("rules", ())], now=now)


# --- which are in force ---------------------------------------------------------------------------------------------

_BY_RANK = (
    select(rulesets.c.sha, rulesets.c.accepted, rulesets.c.stands_in)
    .where(rulesets.c.accepted.is_not(None))
    .order_by(rulesets.c.stands_in.desc(), rulesets.c.accepted.desc())
)
_IN_FORCE = _BY_RANK.limit(1)


def in_force(tx: Connection) -> str | None:
    """Return the sha of the ruleset in force; None before any was accepted."""
    return tx.execute(_IN_FORCE).scalar()


def require_in_force(tx: Connection, sha: str) -> None:
    """Raise OtherRules unless this ruleset is in force: to be called in each transaction that evaluates them."""
    current = in_force(tx)
    if current not in (None, sha):
        raise OtherRules(f"the rules {current} are in force, not {sha}")


def accept(tx: Connection, sha: str, text: str, *, source: str | None = None, now: datetime) -> bool:
    """Put a ruleset in force that a start or a reload brings; return False if it was already.

    Call it first in a transaction: the counter serializes those that accept at the same time.
    """
    first = tx.execute(_IN_FORCE).first()
    if first and first.sha == sha and not first.stands_in:
        store(tx, sha, text, source=source, now=now)
        return False
    number = _count(tx, "accepted", now)
    store(tx, sha, text, source=source, now=now)
    tx.execute(update(rulesets).where(rulesets.c.stands_in).values(stands_in=False))
    tx.execute(update(rulesets).filter_by(sha=sha).values(accepted=number, accepted_at=ms(now)))
    return True


def replace_temporarily(tx: Connection, sha: str, *, instead_of: str) -> bool:
    """Put a ruleset in force instead of one that no live worker has; False if another is in force by now."""
    if in_force(tx) != instead_of:
        return False
    tx.execute(update(rulesets).where(rulesets.c.stands_in).values(stands_in=False))
    if in_force(tx) != sha:  # else it is the one that was accepted last, and replaces none
        tx.execute(update(rulesets).filter_by(sha=sha).values(stands_in=True))
    return True


def _count(tx: Connection, name: str, now: datetime) -> int:
    row = upsert(tx, shared_numbers).values(name=name, value=1, at=ms(now))
    counted = {"value": shared_numbers.c.value + 1, "at": ms(now)}
    again = row.on_conflict_do_update(index_elements=["name"], set_=counted)
    return int(tx.execute(again.returning(shared_numbers.c.value)).scalar_one())


def ask_for_reload(tx: Connection, *, now: datetime) -> None:
    """Make every process read its rules.toml now."""
    _count(tx, "reload", now)


def reloads(tx: Connection) -> int:
    """Return how often a reload was asked for."""
    return tx.execute(select(shared_numbers.c.value).filter_by(name="reload")).scalar() or 0


def allow_empty(tx: Connection, sha: str) -> None:
    """Store that a person wants these rules, although they have no watch or no rule."""
    tx.execute(update(rulesets).filter_by(sha=sha).values(empty_allowed=True))


def may_be_empty(tx: Connection, sha: str) -> bool:
    return bool(tx.execute(select(rulesets.c.empty_allowed).filter_by(sha=sha)).scalar())


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRules:
    """A worker, and the rules it has."""

    id: str
    pid: int
    sha: str | None
    beat: int
    alive: bool
    older: bool  # of a version that knows nothing of rules in force, and evaluates its own
    other: bool  # it has had other rules than those accepted last for longer than a change takes
    fault: str | None
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesState:
    """Which rules are in force, and which worker has which."""

    sha: str | None  # in force
    last: str | None  # accepted last: another one while `sha` temporarily replaces it
    changed: datetime  # when others were accepted than before
    numbers: Mapping[str, int]  # of each ruleset that was ever accepted
    workers: Sequence[WorkerRules]

    @property
    def alive(self) -> list[WorkerRules]:
        return [worker for worker in self.workers if worker.alive]


def state(tx: Connection, *, now: datetime) -> RulesState:
    accepted = tx.execute(_BY_RANK).all()
    last = max(accepted, key=lambda row: row.accepted).sha if accepted else None
    changed = tx.execute(select(shared_numbers.c.at).filter_by(name="accepted")).scalar() or 0
    rows = tx.execute(select(workers).order_by(workers.c.started_at, workers.c.id))
    return RulesState(
        sha=accepted[0].sha if accepted else None,
        last=last,
        changed=at(changed),
        numbers={row.sha: row.accepted for row in accepted},
        workers=[_worker_rules(row, last, changed, ms(now)) for row in rows],
    )


def _worker_rules(row: Row[Any], last: str | None, changed: int, now: int) -> WorkerRules:
    alive = row.beat_at >= now - ALIVE // timedelta(milliseconds=1)
    lately = 0 <= now - max(changed, row.started_at) < _APART // timedelta(milliseconds=1)
    return WorkerRules(
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


# --- all that are kept ----------------------------------------------------------------------------------------------


def touch(tx: Connection, sha: str, *, now: datetime) -> None:
    """Store that a ruleset is in force; once an hour will do, as SQLite writes its whole text anew."""
    stale = rulesets.c.used_at < ms(now - timedelta(hours=1))
    tx.execute(update(rulesets).where(rulesets.c.sha == sha, stale).values(used_at=ms(now)))


def text_of(tx: Connection, sha: str) -> str | None:
    """Return a ruleset as text, if it is kept."""
    return tx.execute(select(rulesets.c.text).filter_by(sha=sha)).scalar()


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesVersion:
    """Rules that are, or were, in force."""

    sha: str
    accepted_at: datetime | None  # the last time; None: by an older version of the bridge
    used_at: datetime  # when they were in force last, to the hour
    in_force: bool
    kept: bool  # `source_of` has their file


def versions(tx: Connection) -> list[RulesVersion]:
    """Return the rules that were ever accepted and are kept, those accepted last first."""
    columns = (rulesets.c.sha, rulesets.c.accepted_at, rulesets.c.used_at, rulesets.c.source.is_not(None).label("kept"))
    rows = tx.execute(select(*columns).where(rulesets.c.accepted.is_not(None)).order_by(rulesets.c.accepted.desc()))
    current = in_force(tx)
    return [
        RulesVersion(
            sha=row.sha,
            accepted_at=maybe_at(row.accepted_at),
            used_at=at(row.used_at),
            in_force=row.sha == current,
            kept=row.kept,
        )
        for row in rows
    ]


def source_of(tx: Connection, sha: str) -> str | None:
    """Return a rules file in which what may be secret is masked, if it is kept."""
    return tx.execute(select(rulesets.c.source).filter_by(sha=sha)).scalar()


def prune(tx: Connection, *, before: datetime) -> int:
    """Delete those that have not been in force since then, never the one that is, and faults that are as old."""
    tx.execute(delete(rule_faults).where(rule_faults.c.at < ms(before)))
    newest = select(func.coalesce(func.max(rulesets.c.accepted), 0)).scalar_subquery()
    over = or_(rulesets.c.accepted.is_(None), rulesets.c.accepted < newest)
    return tx.execute(delete(rulesets).where(rulesets.c.used_at < ms(before), over)).rowcount


def fault(tx: Connection, faults: Iterable[tuple[str, str]], *, now: datetime) -> None:
    """Count templates that did not render, each as (rule, why)."""
    for rule, why in sorted(faults):
        row = upsert(tx, rule_faults).values(rule=rule, times=1, why=storable(why), at=ms(now))
        again = {"times": rule_faults.c.times + 1, "why": row.excluded.why, "at": row.excluded["at"]}
        tx.execute(row.on_conflict_do_update(index_elements=["rule"], set_=again))


def faults(tx: Connection) -> dict[str, dict[str, Any]]:
    """Return by rule how many templates did not render, why the last one did not, and when that was."""
    rows = tx.execute(select(rule_faults).order_by(rule_faults.c.rule))
    return {row.rule: {"count": row.times, "why": row.why, "at": at(row.at)} for row in rows}
