"""What is on record about one job's messages: the ground of an answer to "why did I (not) get this?"."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, select

from bridge.model import Gate, Job, Rate
from bridge.record.codec import load_job
from bridge.record.database import at, maybe_at, ms
from bridge.record.schema import DEAD, DELIVERY_STATES
from bridge.record.schema import delivery as D  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import digest as G  # noqa: N812
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The delivery of a digest to a fallback, as the one that should have told it is dead."""

    id: str
    notifier: str
    state: str
    ended_at: datetime | None
    why: str | None


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
    fallbacks: Sequence[Fallback] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """A delivery of a job's message, and what has become of it."""

    n: int
    id: str
    message: str
    kind: str
    bucket: str
    sequence: int
    rule: str | None  # None: told by hand
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
        _TELLS.c.message.label("their_message"),
    )
    .join(M, M.c.id == D.c.message)
    .outerjoin(G, G.c.n == D.c.digest)
    .outerjoin(_TELLS, and_(_TELLS.c.id == G.c.delivery, G.c.delivery.is_not(None)))
)


def fates(tx: Connection, job_id: str) -> list[Fate]:
    """Return every delivery of the messages about the jobs of this id, oldest first."""
    found = _FATES.where(M.c.job_id == job_id, M.c.sequence.is_not(None)).order_by(D.c.n)
    rows = tx.execute(found).all()
    instead = _fallbacks(tx, {row.told_by: row.their_message for row in rows if row.their_state == DEAD})
    return [_fate(row, instead) for row in rows]


def _fallbacks(tx: Connection, dead: Mapping[str, str]) -> Mapping[str, Sequence[Fallback]]:
    """Return by message, oldest first, the deliveries that were made instead of those of digests (id -> message)."""
    found: dict[str, list[Fallback]] = defaultdict(list)
    if dead:
        columns = (D.c.message, D.c.id, D.c.notifier, D.c.state, D.c.ended_at, D.c.why)
        mine = (D.c.message.in_(sorted(set(dead.values()))), D.c.id.not_in(sorted(dead)))
        for row in tx.execute(select(*columns).where(*mine).order_by(D.c.n)):
            found[row.message].append(_fallback(row))
    return found


def _fallback(row: Any) -> Fallback:
    state, ended_at = DELIVERY_STATES[row.state], maybe_at(row.ended_at)
    return Fallback(id=row.id, notifier=row.notifier, state=state, ended_at=ended_at, why=row.why)


def _fate(row: Row[Any], instead: Mapping[str, Sequence[Fallback]]) -> Fate:
    says = json.loads(row.says)
    return Fate(
        n=row.n,
        id=row.id,
        message=row.message,
        kind=row.kind,
        bucket=row.bucket,
        sequence=row.sequence,
        rule=row.rule,
        notifier=row.notifier,
        lane=row.lane,
        state=DELIVERY_STATES[row.state],
        attempts=row.attempts,
        due_at=at(row.due_at),
        created_at=at(row.created_at),
        ended_at=maybe_at(row.ended_at),
        why=row.why,
        held_by=row.held_by,
        digest=_gathered(row, instead.get(row.their_message, ())) if row.gate else None,
        title=says["title"],
        text=says["text"],
    )


def _gathered(row: Row[Any], fallbacks: Sequence[Fallback]) -> Gathered:
    return Gathered(
        gate=row.gate,
        name=row.name,
        due_at=at(row.told_at),
        told_by=row.told_by,
        state=None if row.their_state is None else DELIVERY_STATES[row.their_state],
        ended_at=maybe_at(row.their_end),
        why=row.their_why,
        fallbacks=fallbacks,
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


def used_up(tx: Connection, rule: str, rate: Rate, notifier: str, *, now: datetime) -> datetime | None:
    """Return when the throttle of a rule lets messages to a notifier through again; None when it does now."""
    mine = (G.c.gate == "throttle", G.c.name == rule, G.c.notifier == notifier, G.c.key == "")
    window = tx.execute(select(G.c.passed, G.c.due_at).where(*mine, G.c.open, G.c.due_at > ms(now))).first()
    return at(window.due_at) if window and window.passed >= rate.count else None
