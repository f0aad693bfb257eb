"""What is on record about one job's messages, to explain why one was (not) sent."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, select

from bridge.model import Gate, Incident, IncidentJob, IncidentKey, Job, Rate
from bridge.record.codec import from_row, load_job
from bridge.record.database import at, maybe_at, ms
from bridge.record.incidents import incident_of, job_of
from bridge.record.schema import (
    DEAD,
    DELIVERY_STATES,
    DISCARDED,
    deliveries,
    digests,
    incident_jobs,
    incidents,
    jobs,
    messages,
    notifiers,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The delivery of a digest to a fallback, made because the digest's own delivery is dead."""

    id: str
    notifier: str
    state: str
    ended_at: datetime | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestStatus:
    """The digest that a delivery waits in, was sent in, or was dropped with; `told_by` is the digest's own delivery."""

    gate: Gate
    name: str
    due_at: datetime
    told_by: str | None
    state: str | None  # of that delivery
    ended_at: datetime | None  # likewise
    why: str | None  # likewise
    fallbacks: Sequence[Fallback] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDelivery:
    """A delivery of a message about a job, or about an incident that it counts for, and its status."""

    n: int
    id: str
    message: str
    kind: str
    bucket: str | None  # None: it is about an incident
    sequence: int | None
    rule: str | None  # None: sent manually
    notifier: str
    ordering_key: str | None
    state: str
    attempts: int
    due_at: datetime
    created_at: datetime
    ended_at: datetime | None
    why: str | None
    held_by: str | None  # "gate:name" of the first that held it
    digest: DigestStatus | None
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierStatus:
    """Whether a notifier is sent anything now."""

    paused_at: datetime | None
    paused_why: str | None
    not_before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSeen:
    """A job as last seen, and the stream that it is followed in."""

    job: Job
    stream: str


_OF_DIGEST = deliveries.alias()  # the delivery of a digest
_JOB_DELIVERIES: Select[Any] = (
    select(
        deliveries,
        *(messages.c[name] for name in ("kind", "bucket", "sequence", "says")),
        messages.c.rule.label("message_rule"),
        *(digests.c.gate, digests.c.name, digests.c.due_at.label("told_at"), digests.c.delivery.label("told_by")),
        *(_OF_DIGEST.c[name].label(f"their_{name}") for name in ("state", "ended_at", "why", "message")),
    )
    .join(messages, messages.c.id == deliveries.c.message)
    .outerjoin(digests, digests.c.n == deliveries.c.digest)
    .outerjoin(_OF_DIGEST, and_(_OF_DIGEST.c.id == digests.c.delivery, digests.c.delivery.is_not(None)))
)


def job_deliveries(tx: Connection, job_id: str) -> list[JobDelivery]:
    """Return every delivery of the messages about the jobs of this id, oldest first."""
    return _deliveries(tx, and_(messages.c.job_id == job_id, messages.c.sequence.is_not(None)))


def incident_deliveries(tx: Connection, which: Collection[str]) -> list[JobDelivery]:
    """Return every delivery of these messages (ids), oldest first."""
    return _deliveries(tx, messages.c.id.in_(sorted(which))) if which else []


def _deliveries(tx: Connection, which: ColumnElement[bool]) -> list[JobDelivery]:
    rows = tx.execute(_JOB_DELIVERIES.where(which).order_by(deliveries.c.n)).all()
    instead = _fallbacks(tx, {row.told_by: row.their_message for row in rows if row.their_state in (DEAD, DISCARDED)})
    return [_job_delivery(row, instead) for row in rows]


def _fallbacks(tx: Connection, dead: Mapping[str, str]) -> Mapping[str, Sequence[Fallback]]:
    """Return by message, oldest first, the deliveries that were made instead of those of digests (id -> message)."""
    found: dict[str, list[Fallback]] = defaultdict(list)
    if dead:
        mine = (deliveries.c.message.in_(sorted(set(dead.values()))), deliveries.c.id.not_in(sorted(dead)))
        for row in tx.execute(select(deliveries).where(*mine).order_by(deliveries.c.n)):
            found[row.message].append(from_row(Fallback, row, state=DELIVERY_STATES[row.state]))
    return found


def _job_delivery(row: Row[Any], instead: Mapping[str, Sequence[Fallback]]) -> JobDelivery:
    says = json.loads(row.says)
    digest = row.gate and DigestStatus(
        gate=row.gate,
        name=row.name,
        due_at=at(row.told_at),
        told_by=row.told_by,
        state=None if row.their_state is None else DELIVERY_STATES[row.their_state],
        ended_at=maybe_at(row.their_ended_at),
        why=row.their_why,
        fallbacks=instead.get(row.their_message, ()),
    )
    said = {"rule": row.message_rule, "title": says["title"], "text": says["text"]}
    return from_row(JobDelivery, row, ordering_key=row.lane, state=DELIVERY_STATES[row.state], digest=digest, **said)


def notifier_statuses(tx: Connection) -> dict[str, NotifierStatus]:
    """Return by name whether a notifier is sent anything now."""
    return {
        row.name: from_row(NotifierStatus, row, not_before=at(row.not_before)) for row in tx.execute(select(notifiers))
    }


def last_seen(tx: Connection, job_id: str) -> dict[str, LastSeen]:
    """Return by bucket the jobs of this id as last seen."""
    rows = tx.execute(select(jobs).filter_by(id=job_id))
    return {row.bucket: LastSeen(job=load_job(row.detail), stream=row.stream) for row in rows}


def throttled_until(tx: Connection, rule: str, rate: Rate, notifier: str, *, now: datetime) -> datetime | None:
    """Return when the throttle of a rule lets messages to a notifier through again; None if it does now."""
    windows = select(digests).filter_by(gate="throttle", name=rule, notifier=notifier, key="")
    window = tx.execute(windows.where(digests.c.open, digests.c.due_at > ms(now))).first()
    return at(window.due_at) if window and window.passed >= rate.count else None


def incidents_of_job(tx: Connection, bucket: str, job_id: str) -> list[tuple[Incident, IncidentJob]]:
    """Return the incidents that a job counts for, the newest first."""
    mine = select(incident_jobs).where(incident_jobs.c.bucket == bucket, incident_jobs.c.job_id == job_id)
    members = {row.incident: job_of(row) for row in tx.execute(mine)}
    found = select(incidents).where(incidents.c.n.in_(members)).order_by(incidents.c.n.desc())
    return [(incident_of(row), members[row.n]) for row in tx.execute(found)] if members else []


def newest_incident(tx: Connection, key: IncidentKey) -> Incident | None:
    """Return what is watched or open of a key, or else what closed last."""
    mine = select(incidents).where(incidents.c.rule == key.rule, incidents.c.key == key.key)
    row = tx.execute(mine.order_by(incidents.c.generation.desc()).limit(1)).first()
    return incident_of(row) if row else None
