"""What is on record about one job's messages: the ground of an answer to "why did I (not) get this?"."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, select

from bridge.model import Gate, Job
from bridge.record.codec import load_job
from bridge.record.database import at, maybe_at
from bridge.record.schema import DELIVERY_STATES
from bridge.record.schema import delivery as D  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import digest as G  # noqa: N812
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The digest that a delivery waits in, was told in, or was dropped with; the delivery `told_by` tells it."""

    gate: Gate
    name: str
    due_at: datetime
    told_by: str | None
    state: str | None  # of that delivery
    ended_at: datetime | None  # likewise
    why: str | None  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """A delivery of a job's message, and what has become of it."""

    n: int
    id: str
    message: str
    kind: str
    bucket: str
    sequence: int
    rule: str
    notifier: str
    lane: str | None
    state: str
    attempts: int
    due_at: datetime
    created_at: datetime
    ended_at: datetime | None
    why: str | None
    held_by: str | None  # "gate:name" of the first that held it
    digest: Gathered | None
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether a notifier is told anything now."""

    paused_at: datetime | None
    paused_why: str | None
    not_before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """A job as last seen, and the stream that it is followed in."""

    job: Job
    stream: str


_TELLS = D.alias()  # what tells a digest
_FATES: Select[Any] = (
    select(
        *(
            D.c.n,
            D.c.id,
            D.c.message,
            D.c.notifier,
            D.c.lane,
            D.c.state,
            D.c.attempts,
            D.c.due_at,
            D.c.created_at,
            D.c.ended_at,
        ),
        *(D.c.why, D.c.held_by, M.c.kind, M.c.bucket, M.c.sequence, M.c.rule, M.c.says),
        *(G.c.gate, G.c.name, G.c.due_at.label("told_at"), G.c.delivery.label("told_by")),
        *(_TELLS.c.state.label("their_state"), _TELLS.c.ended_at.label("their_end"), _TELLS.c.why.label("their_why")),
    )
    .join(M, M.c.id == D.c.message)
    .outerjoin(G, G.c.n == D.c.digest)
    .outerjoin(_TELLS, and_(_TELLS.c.id == G.c.delivery, G.c.delivery.is_not(None)))
)


def fates(tx: Connection, job_id: str) -> list[Fate]:
    """Return every delivery of the messages about the jobs of this id, oldest first."""
    found = _FATES.where(M.c.job_id == job_id, M.c.sequence.is_not(None)).order_by(D.c.n)
    return [_fate(row) for row in tx.execute(found)]


def _fate(row: Row[Any]) -> Fate:
    says = json.loads(row.says)
    return Fate(
        n=row.n,
        id=row.id,
        message=row.message,
        kind=row.kind,
        bucket=row.bucket,
        sequence=row.sequence,
        rule=row.rule or "",
        notifier=row.notifier,
        lane=row.lane,
        state=DELIVERY_STATES[row.state],
        attempts=row.attempts,
        due_at=at(row.due_at),
        created_at=at(row.created_at),
        ended_at=maybe_at(row.ended_at),
        why=row.why,
        held_by=row.held_by,
        digest=_gathered(row) if row.gate else None,
        title=says["title"],
        text=says["text"],
    )


def _gathered(row: Row[Any]) -> Gathered:
    return Gathered(
        gate=row.gate,
        name=row.name,
        due_at=at(row.told_at),
        told_by=row.told_by,
        state=None if row.their_state is None else DELIVERY_STATES[row.their_state],
        ended_at=maybe_at(row.their_end),
        why=row.their_why,
    )


def standings(tx: Connection) -> dict[str, Standing]:
    """Return by name whether a notifier is told anything now."""
    rows = tx.execute(select(N.c.name, N.c.paused_at, N.c.paused_why, N.c.not_before))
    return {
        row.name: Standing(paused_at=maybe_at(row.paused_at), paused_why=row.paused_why, not_before=at(row.not_before))
        for row in rows
    }


def last(tx: Connection, job_id: str) -> dict[str, Last]:
    """Return by bucket the jobs of this id as last seen."""
    rows = tx.execute(select(J.c.bucket, J.c.stream, J.c.detail).where(J.c.id == job_id))
    return {row.bucket: Last(job=load_job(row.detail), stream=row.stream) for row in rows}
