"""Incidents for people: lists, and one of them with its jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, func, select

from bridge.model import Incident, IncidentJob
from bridge.record.incidents import incident_of, job_of
from bridge.record.queries.lists import Cursor, Filter, page_of
from bridge.record.schema import incident_jobs, incidents, listed_by

STATES = ("open", "closed", "watched")

_is_current, _has_opened = incidents.c.closed_at.is_(None), incidents.c.opened_at.is_not(None)
_IN_STATE: Mapping[str | None, Sequence[ColumnElement[bool]]] = {
    None: (_has_opened,),
    "open": (_has_opened, _is_current),
    "closed": (_has_opened, ~_is_current),
    "watched": (~_has_opened, _is_current),
}


def find(
    tx: Connection, which: Filter, *, cursor: Cursor | None = None, limit: int = 50
) -> tuple[list[Incident], Cursor | None]:
    """Return incidents of a state (None: all that opened) and a rule, those that opened last first.

    Of keys that are only watched, there may be many: they are listed only when they are asked for.
    """
    wanted = list(_IN_STATE[which.state])
    is_watched = which.state == "watched"
    if which.rule is not None:
        wanted.append((incidents.c.rule if is_watched else listed_by(incidents.c.rule)) == which.rule)
    when = incidents.c.since if is_watched else incidents.c.opened_at
    rows, following = page_of(tx, select(incidents).where(*wanted), when, incidents.c.n, cursor, limit)
    return [incident_of(row) for row in rows], following


def one(tx: Connection, id_: str) -> Incident | None:
    row = tx.execute(select(incidents).where(incidents.c.id == id_)).first()
    return incident_of(row) if row else None


def open_by_rule(tx: Connection) -> dict[str, int]:
    """Return how many incidents of each rule are open."""
    found = select(incidents.c.rule, func.count()).where(_has_opened, _is_current)
    return {row[0]: row[1] for row in tx.execute(found.group_by(incidents.c.rule))}


# --- their jobs -----------------------------------------------------------------------------------------------------


def jobs(tx: Connection, numbers: Collection[int]) -> Mapping[int, Sequence[IncidentJob]]:
    """Return the jobs of each of these incidents, in the order in which things happened."""
    found: dict[int, list[IncidentJob]] = defaultdict(list)
    mine = select(incident_jobs).where(incident_jobs.c.incident.in_(numbers))
    ordered = mine.order_by(incident_jobs.c.incident, incident_jobs.c.happened_at, incident_jobs.c.n)
    for row in tx.execute(ordered) if numbers else ():
        found[row.incident].append(job_of(row))
    return found


def find_jobs(
    tx: Connection, number: int, *, cursor: Cursor | None = None, limit: int = 50
) -> tuple[list[IncidentJob], Cursor | None]:
    """Return the jobs of an incident, those that happened last first."""
    mine = select(incident_jobs).where(incident_jobs.c.incident == number)
    rows, following = page_of(tx, mine, incident_jobs.c.happened_at, incident_jobs.c.n, cursor, limit)
    return [job_of(row) for row in rows], following
