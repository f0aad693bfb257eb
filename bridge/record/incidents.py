"""Incidents: rules over several jobs, one for each key, and the jobs that count for them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    tuple_,
    update,
)

from bridge.model import Incident, IncidentJob, IncidentKey, Job
from bridge.record.codec import dump, from_row, load_job, storable
from bridge.record.database import at, maybe_at, ms, skip_locked, upsert
from bridge.record.schema import IS_OUT, incident_jobs, incidents, jobs, streams

MOST_KEYS = 10_000  # of one rule, that are watched or open
_AT_ONCE = 500  # keys of one query
_TOUCHED = 0  # `due_at` of what is to be judged at the end of the next poll, before all that waits for a time


def incident_of(row: Row[Any]) -> Incident:
    return from_row(
        Incident,
        row,
        by=tuple((field, value) for field, value in json.loads(row.by)),
        since=at(row.since),
        notifiers=tuple(json.loads(row.notifiers)),
    )


def job_of(row: Row[Any]) -> IncidentJob:
    return from_row(IncidentJob, row)


# --- keys -----------------------------------------------------------------------------------------------------------

_is_current = incidents.c.closed_at.is_(None)


_TURN = 4_150_016  # any number that no other advisory lock of this database has


def take_turn(tx: Connection) -> None:
    """Let one transaction at a time change incidents, until it ends; it is called before any of them is locked.

    A key that is new to one may come between those that another has locked, so their order alone does not keep two
    from waiting for each other. SQLite lets one write at a time anyway.
    """
    if tx.dialect.name == "postgresql":
        tx.execute(select(func.pg_advisory_xact_lock(_TURN)))


def _by_rule(keys: Collection[IncidentKey]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions for some of these keys each, in the order of the keys: of one rule, as an index finds these."""
    for rule, mine in groupby(sorted(keys), key=lambda key: key.rule):
        texts = [key.key for key in mine]
        for start in range(0, len(texts), _AT_ONCE):
            yield and_(incidents.c.rule == rule, incidents.c.key.in_(texts[start : start + _AT_ONCE]))


class Held(NamedTuple):
    """What is watched or open of a key: its number, and how many jobs it expects."""

    n: int
    expected: int | None


def hold(tx: Connection, keys: Collection[IncidentKey]) -> dict[IncidentKey, Held]:
    """Return what is watched or open of these keys, locked, in the order of the keys."""
    c = incidents.c
    rows = _locked(tx, select(c.rule, c.key, c.n, c.expected), keys)
    return {IncidentKey(row.rule, row.key): Held(row.n, row.expected) for row in rows}


def lock(tx: Connection, keys: Collection[IncidentKey]) -> dict[IncidentKey, Incident]:
    """Return the same in full."""
    return {IncidentKey(row.rule, row.key): incident_of(row) for row in _locked(tx, select(incidents), keys)}


def _locked(tx: Connection, wanted: Select[Any], keys: Collection[IncidentKey]) -> Iterator[Row[Any]]:
    for mine in _by_rule(keys):
        yield from tx.execute(wanted.where(mine, _is_current).order_by(incidents.c.key).with_for_update())


def find(tx: Connection, id_: str) -> Incident | None:
    """Return an incident by its id."""
    row = tx.execute(select(incidents).filter_by(id=id_)).first()
    return incident_of(row) if row else None


def read(tx: Connection, numbers: Collection[int]) -> list[Incident]:
    """Return incidents by their numbers."""
    found = (tx.execute(select(incidents).where(mine).order_by(incidents.c.n)) for mine in _each(numbers))
    return [incident_of(row) for rows in found for row in rows]


def latest_closed(tx: Connection, keys: Collection[IncidentKey]) -> dict[IncidentKey, Incident]:
    """Return of each of these keys the incident that closed last."""
    found: dict[IncidentKey, Incident] = {}
    for mine in _by_rule(keys):
        rows = tx.execute(select(incidents).where(mine, ~_is_current).order_by(incidents.c.generation))
        found |= {IncidentKey(row.rule, row.key): incident_of(row) for row in rows}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that is to be watched from `since` on; `due_at` (None: at the end of the next poll) is when to judge it."""

    key: IncidentKey
    id: str
    kind: str
    by: Sequence[tuple[str, str]]
    generation: int
    since: datetime
    due_at: datetime | None = None


def begin(tx: Connection, new: Collection[NewKey]) -> dict[IncidentKey, Held]:
    """Store that keys are watched from now on, and return them, locked; what is stored already stays."""
    if not new:
        return {}
    rows = [
        {
            "id": one.id,
            "rule": one.key.rule,
            "key": one.key.key,
            "generation": one.generation,
            "kind": one.kind,
            "by": dump(list(one.by)),
            "since": ms(one.since),
            "due_at": ms(one.due_at) if one.due_at else _TOUCHED,
        }
        for one in sorted(new, key=lambda one: one.key)
    ]
    tx.execute(upsert(tx, incidents).on_conflict_do_nothing(), rows)
    return hold(tx, [one.key for one in new])


def make_room(tx: Connection, rule: str, number: int) -> tuple[int, int]:
    """Forget the oldest keys of a rule that have no open incident, so that `number` new ones fit in.

    Return how many were forgotten, and how many of the new ones still do not fit.
    """
    current = select(func.count()).select_from(incidents).where(incidents.c.rule == rule, _is_current)
    surplus = tx.execute(current).scalar_one() + number - MOST_KEYS
    if surplus <= 0:
        return 0, 0
    oldest = select(incidents.c.n).where(incidents.c.rule == rule, _is_current, incidents.c.opened_at.is_(None))
    gone = list(tx.execute(skip_locked(tx, oldest.order_by(incidents.c.n).limit(surplus))).scalars())
    forget(tx, gone)
    return len(gone), surplus - len(gone)


def forget(tx: Connection, numbers: Collection[int]) -> None:
    """Delete keys, with the jobs that count for them."""
    if numbers:
        tx.execute(delete(incident_jobs).where(incident_jobs.c.incident.in_(numbers)))
        tx.execute(delete(incidents).where(incidents.c.n.in_(numbers)))


def change(tx: Connection, number: int, **values: Any) -> None:
    """Set columns of an incident; a time is stored in milliseconds."""
    tx.execute(update(incidents).where(incidents.c.n == number).values(_plain(values)))


def change_all(tx: Connection, changes: Mapping[int, Mapping[str, Any]]) -> None:
    """Set columns of several incidents (by number)."""
    alike = defaultdict[tuple[str, ...], list[int]](list)
    for number, values in sorted(changes.items()):
        alike[tuple(sorted(values))].append(number)
    for names, which in alike.items():
        each = update(incidents).where(incidents.c.n == bindparam("of"))
        each = each.values({name: bindparam(f"new_{name}") for name in names})
        rows = [{f"new_{name}": value for name, value in _plain(changes[number]).items()} for number in which]
        tx.execute(each, [row | {"of": number} for row, number in zip(rows, which, strict=True)])


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: ms(value) if isinstance(value, datetime) else value for name, value in values.items()}


_TOUCH = update(incidents).where(_is_current, or_(incidents.c.due_at.is_(None), incidents.c.due_at > _TOUCHED))
_TOUCH = _TOUCH.values(due_at=_TOUCHED)


def _each(which: Collection[int]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions for some of these incidents each, in the order of their numbers."""
    ordered = sorted(which)
    for start in range(0, len(ordered), _AT_ONCE):
        yield incidents.c.n.in_(ordered[start : start + _AT_ONCE])


def touch_all(tx: Connection) -> None:
    """Let whatever is watched or open be judged at the end of the next polls, as the rules may have changed."""
    tx.execute(update(incidents).where(_is_current).values(due_at=_TOUCHED))


def touch(tx: Connection, which: Collection[int]) -> None:
    """Let incidents be judged at the end of the next poll."""
    for mine in _each(which):
        tx.execute(_TOUCH.where(mine))


def due(tx: Connection, *, now: datetime, most: int) -> list[IncidentKey]:
    """Return the keys that are to be judged, those first for which something happened."""
    found = select(incidents.c.rule, incidents.c.key).where(
        incidents.c.due_at <= ms(now), incidents.c.due_at.is_not(None)
    )
    return [IncidentKey(*row) for row in tx.execute(found.order_by(incidents.c.due_at, incidents.c.n).limit(most))]


def open_keys(tx: Connection, rules: Collection[str]) -> set[IncidentKey]:
    """Return the keys for which these rules have an open incident."""
    if not rules:
        return set()
    found = select(incidents.c.rule, incidents.c.key)
    found = found.where(incidents.c.rule.in_(rules), _is_current, incidents.c.opened_at.is_not(None))
    return {IncidentKey(*row) for row in tx.execute(found)}


def current_rules(tx: Connection) -> set[str]:
    """Return the names of the rules that have keys."""
    return set(tx.execute(select(incidents.c.rule).where(_is_current).distinct()).scalars())


def acknowledge(tx: Connection, id_: str, by: str, *, now: datetime) -> bool:
    """Store who has taken note of an incident, once, while it is not closed; return whether that was so."""
    mine = (incidents.c.id == id_, _is_current, incidents.c.acknowledged_at.is_(None))
    changed = update(incidents).where(*mine).values(acknowledged_at=ms(now), acknowledged_by=storable(by))
    return tx.execute(changed).rowcount == 1


def current(tx: Connection, rule: str) -> list[Incident]:
    """Return what is watched or open of a rule."""
    return [incident_of(row) for row in tx.execute(select(incidents).where(incidents.c.rule == rule, _is_current))]


def close_all(tx: Connection, which: Collection[int], why: str, *, now: datetime) -> list[int]:
    """Close incidents without a word, and return these; forget keys that are only watched."""
    if not which:
        return []
    mine = (incidents.c.n.in_(which), _is_current)
    watched = select(incidents.c.n).where(*mine, incidents.c.opened_at.is_(None))
    forget(tx, tx.execute(watched).scalars().all())
    closed = update(incidents).where(*mine).values(closed_at=ms(now), closed_why=why, due_at=None)
    return list(tx.execute(closed.returning(incidents.c.n)).scalars())


# --- the jobs that count ----------------------------------------------------------------------------------------------


class Membership(NamedTuple):
    """That a job counts for an incident; `row` is the number of its row."""

    incident: int
    key: IncidentKey
    is_current: bool
    job_id: str
    row: int


def memberships(tx: Connection, bucket: str, ids: Collection[str]) -> list[Membership]:
    """Return for which incidents these jobs of a bucket count."""
    c = incident_jobs.c
    found = select(c.incident, incidents.c.rule, incidents.c.key, _is_current, c.job_id, c.n).join_from(
        incident_jobs, incidents
    )
    return [
        Membership(number, IncidentKey(rule, key), bool(is_current), job_id, row)
        for number, rule, key, is_current, job_id, row in tx.execute(found.where(c.bucket == bucket, c.job_id.in_(ids)))
    ]


def add_jobs(tx: Connection, new: Sequence[tuple[int, IncidentJob]], *, touch: Collection[int] = ()) -> None:
    """Store that jobs count for incidents for which they did not, or no longer did; `touch`: as the function."""
    if not new:
        return
    row = upsert(tx, incident_jobs)
    again = {name: row.excluded[name] for name in ("sequence", "state", "happened_at", "silent")} | {"left_at": null()}
    row = row.on_conflict_do_update(index_elements=["incident", "bucket", "job_id"], set_=again)
    tx.execute(row, [{"incident": number, **_job_row(job)} for number, job in new])
    more = defaultdict[int, list[bool]](list)
    for number, job in new:
        more[number].append(job.counts)
    alike = defaultdict[tuple[int, int, bool], list[int]](list)
    for number, mine in more.items():
        alike[sum(mine), len(mine), number in touch].append(number)
    for (counted, total, touched), which in alike.items():
        values: dict[str, Any] = {"counted": incidents.c.counted + counted, "total": incidents.c.total + total}
        if touched:
            values["due_at"] = case((_is_current, _TOUCHED), else_=incidents.c.due_at)
        for each in _each(which):
            tx.execute(update(incidents).where(each).values(values))


_NEWER = update(incident_jobs).where(
    incident_jobs.c.incident == bindparam("of"),
    incident_jobs.c.bucket == bindparam("its_bucket"),
    incident_jobs.c.job_id == bindparam("its_id"),
)
_NEWER = _NEWER.values(
    {name: bindparam(f"new_{name}") for name in ("sequence", "state", "counts", "silent", "happened_at")}
)


def change_jobs(tx: Connection, changed: Sequence[tuple[int, IncidentJob]]) -> None:
    """Store the newer states of jobs that count for incidents already."""
    if changed:
        rows = [(number, job, _job_row(job)) for number, job in changed]
        tx.execute(
            _NEWER,
            [
                {"of": number, "its_bucket": job.bucket, "its_id": job.job_id}
                | {f"new_{name}": value for name, value in row.items() if name not in ("bucket", "job_id")}
                for number, job, row in rows
            ],
        )


def _job_row(job: IncidentJob) -> dict[str, Any]:
    names = ("bucket", "job_id", "sequence", "state", "counts", "silent")
    return {**{name: getattr(job, name) for name in names}, "happened_at": ms(job.happened_at)}


def leave(tx: Connection, numbers: Collection[int], *, now: datetime) -> None:
    """Store that jobs (by the numbers of their rows) have moved on, and no longer belong to their incidents."""
    if not numbers:
        return
    mine = (incident_jobs.c.n.in_(numbers), incident_jobs.c.left_at.is_(None))
    watched = select(incidents.c.n).where(incidents.c.opened_at.is_(None))
    gone = delete(incident_jobs).where(*mine, incident_jobs.c.incident.in_(watched))
    left = update(incident_jobs).where(*mine).values(left_at=ms(now))
    for statement, is_gone in ((gone, True), (left, False)):
        for number in tx.execute(statement.returning(incident_jobs.c.incident)).scalars().all():
            one_less = {"counted": incidents.c.counted - 1, "due_at": _TOUCHED}
            one_less |= {"total": incidents.c.total - 1} if is_gone else {}
            tx.execute(update(incidents).where(incidents.c.n == number, _is_current).values(one_less))


def jobs_to_judge(tx: Connection, which: Collection[int]) -> dict[int, list[IncidentJob]]:
    """Return by incident its jobs, of an open one those not judged yet, in the order in which things happened."""
    found: dict[int, list[IncidentJob]] = {number: [] for number in which}
    ordered = sorted(which)
    for start in range(0, len(ordered), _AT_ONCE):
        mine = incident_jobs.c.incident.in_(ordered[start : start + _AT_ONCE])
        unjudged = or_(incidents.c.opened_at.is_(None), incident_jobs.c.n > incidents.c.judged)
        rows = select(incident_jobs).join(incidents).where(mine, unjudged)
        for row in tx.execute(rows.order_by(incident_jobs.c.happened_at, incident_jobs.c.n)):
            found[row.incident].append(job_of(row))
    return found


class Counts(NamedTuple):
    """How many jobs of an incident are in each state, without those that have left it; and when the last one came."""

    states: dict[str, int]
    last_at: datetime


def counts(tx: Connection, which: Collection[int]) -> dict[int, Counts]:
    """Return by incident how many of its jobs are in which state; nothing for one without jobs."""
    c, found, ordered = incident_jobs.c, dict[int, Counts](), sorted(which)
    for start in range(0, len(ordered), _AT_ONCE):
        mine = (c.incident.in_(ordered[start : start + _AT_ONCE]), c.left_at.is_(None))
        count, last = func.count().label("count"), func.max(c.happened_at).label("last")
        for row in tx.execute(select(c.incident, c.state, count, last).where(*mine).group_by(c.incident, c.state)):
            before = found.get(row.incident)
            states = (before.states if before else {}) | {row.state: row._mapping["count"]}
            last_at = max(at(row.last), before.last_at) if before else at(row.last)
            found[row.incident] = Counts(states, last_at)
    return found


def last_jobs(tx: Connection, number: int, *, most: int, judged: int | None = None) -> list[IncidentJob]:
    """Return the jobs of an incident that happened last, the oldest of them first."""
    mine = select(incident_jobs).where(incident_jobs.c.incident == number)
    if judged is not None:
        mine = mine.where(incident_jobs.c.n <= judged)
    newest = mine.order_by(incident_jobs.c.happened_at.desc(), incident_jobs.c.n.desc()).limit(most)
    return [job_of(row) for row in tx.execute(newest)][::-1]


def began_at(tx: Connection, number: int, *, nth: int) -> datetime | None:
    """Return when the nth of the jobs that count for an incident began to, in the order in which they did."""
    c = incident_jobs.c
    mine = select(c.happened_at).where(c.incident == number, c.left_at.is_(None)).order_by(c.happened_at, c.n)
    return maybe_at(tx.execute(mine.offset(nth - 1).limit(1)).scalar())


def has_news(tx: Connection, number: int) -> bool:
    """Tell whether an incident has a job of which somebody is to be notified."""
    mine = select(incident_jobs.c.n).where(incident_jobs.c.incident == number, ~incident_jobs.c.silent).limit(1)
    return tx.execute(mine).first() is not None


def drop_jobs(tx: Connection, number: int, *, rows: Collection[int]) -> None:
    """Forget jobs of a key (by the numbers of their rows) that can no longer count."""
    if not rows:
        return
    gone = delete(incident_jobs).where(incident_jobs.c.incident == number, incident_jobs.c.n.in_(rows))
    dropped = tx.execute(gone.returning(incident_jobs.c.counts)).scalars().all()
    fewer = {"counted": incidents.c.counted - sum(dropped), "total": incidents.c.total - len(dropped)}
    tx.execute(update(incidents).where(incidents.c.n == number).values(fewer))


def move_jobs(tx: Connection, old: Incident, new: Incident, *, since: datetime) -> tuple[Incident, Incident]:
    """Let the jobs of a closed incident that happened since then count for the next one; return both as they are."""
    later = (incident_jobs.c.incident == old.n, incident_jobs.c.happened_at >= ms(since))
    moved = update(incident_jobs).where(*later).values(incident=new.n).returning(incident_jobs.c.counts)
    rows = tx.execute(moved).scalars().all()
    counted, total = sum(rows), len(rows)
    old = replace(old, counted=old.counted - counted, total=old.total - total)
    new = replace(new, counted=new.counted + counted, total=new.total + total)
    for one in (old, new):
        change(tx, one.n, counted=one.counted, total=one.total)
    return old, new


def copy_jobs(tx: Connection, old: Incident, new: Incident) -> int:
    """Let the jobs of a closed incident that have not left it count for the next one too; return how many."""
    columns = [column for column in incident_jobs.c if column.name not in ("n", "incident")]
    stay = select(literal(new.n), *columns).where(incident_jobs.c.incident == old.n, incident_jobs.c.left_at.is_(None))
    copy = insert(incident_jobs).from_select(["incident", *(column.name for column in columns)], stay)
    count = len(tx.execute(copy.returning(incident_jobs.c.n)).all())
    tx.execute(update(incidents).where(incidents.c.n == new.n).values(counted=count, total=count))
    return count


def counted_jobs(tx: Connection, rules: Collection[str]) -> set[tuple[str, str, str]]:
    """Return the jobs that count for what is watched or open of these rules, each as (rule, bucket, id)."""
    found = select(incidents.c.rule, incident_jobs.c.bucket, incident_jobs.c.job_id).join(incident_jobs)
    mine = found.where(incidents.c.rule.in_(rules), _is_current, incident_jobs.c.left_at.is_(None))
    return {(row.rule, row.bucket, row.job_id) for row in tx.execute(mine)}


def unwatched_jobs(tx: Connection, rules: Collection[str]) -> list[int]:
    """Return the rows of jobs that count for what is watched or open of these rules, and that no watch has any more."""
    found = (
        select(incident_jobs.c.n)
        .join(incidents)
        .join(jobs, and_(jobs.c.bucket == incident_jobs.c.bucket, jobs.c.id == incident_jobs.c.job_id))
    )
    out = jobs.c.stream.in_(select(streams.c.key).where(IS_OUT))
    mine = (incidents.c.rule.in_(rules), _is_current, incident_jobs.c.left_at.is_(None), out)
    return list(tx.execute(found.where(*mine)).scalars())


def details(tx: Connection, found: Sequence[IncidentJob]) -> list[tuple[IncidentJob, Job | None]]:
    """Return jobs as they are on record now; None: it was pruned."""
    keys = [(job.bucket, job.job_id) for job in found]
    rows = tx.execute(select(jobs.c.bucket, jobs.c.id, jobs.c.detail).where(tuple_(jobs.c.bucket, jobs.c.id).in_(keys)))
    known = {(row.bucket, row.id): row.detail for row in rows} if keys else {}
    return [(job, load_job(text) if (text := known.get((job.bucket, job.job_id))) else None) for job in found]
