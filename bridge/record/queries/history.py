"""What has happened, oldest first and a page at a time: transitions with what was sent about them. Read-only."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, or_, select
from sqlalchemy import text as sql

from bridge.language import NOT_SENT_TO, in_each
from bridge.model import Alarm, Incident, Transition
from bridge.record.database import at, maybe_at, ms
from bridge.record.incidents import incident_of
from bridge.record.polling.snapshots import transition_of
from bridge.record.polling.time_in_state import alarm_of
from bridge.record.schema import (
    HELD,
    MERGED,
    alarms,
    deliveries,
    digests,
    incidents,
    job_problems,
    jobs,
    messages,
    streams,
    transitions,
)

READ_AT_ONCE = 500  # transitions, with all that was sent about them: about 5 MB
# How the notes of what a fallback is sent begin; the second is what older versions wrote.
_BY_FALLBACK = (*in_each(NOT_SENT_TO), "This could not be told to ")

Key = tuple[str, str, int]  # bucket, job, sequence
MessageKey = tuple[str, str, str]  # kind of message, rule, notifier


def use_one_snapshot(tx: Connection) -> None:
    """See nothing of what others write from now on. First in a transaction; on SQLite it is always so."""
    if tx.dialect.name == "postgresql":
        tx.execute(sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


@dataclass(frozen=True, slots=True)
class Extent:
    """How many transitions there are in a time, and against which rulesets they were matched (None: not kept)."""

    count: int
    rulesets: Sequence[str | None]


def extent(tx: Connection, since: datetime) -> Extent:
    recent = select(transitions.c.rules, func.count()).where(transitions.c.seen_at >= ms(since))
    rows = tx.execute(recent.group_by(transitions.c.rules)).all()
    return Extent(sum(row[1] for row in rows), [row[0] for row in rows])


def after_newest(tx: Connection, count: int) -> datetime | None:
    """Return since when no more than `count` transitions were seen; None if there are not that many."""
    newest = select(transitions.c.seen_at).order_by(transitions.c.n.desc())
    seen_at = tx.execute(newest.offset(count).limit(1)).scalar()
    return None if seen_at is None else at(seen_at + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A transition on record, the (rule, notifier) that it was routed to, and what is known of its end.

    `followed` the job has moved on since; `still_at` is the last poll that saw it before that, or the last one at all.
    """

    transition: Transition
    verdicts: frozenset[tuple[str, str]]
    rules: str | None
    followed: bool
    still_at: datetime | None
    followed_under: str | None  # the ruleset that the next transition was matched against

    @property
    def key(self) -> Key:
        return self.transition.job.bucket, self.transition.job.id, self.transition.sequence


def pages(tx: Connection, since: datetime, *, at_once: int = READ_AT_ONCE) -> Iterator[list[Stored]]:
    """Yield the transitions seen since then, in the order in which they were stored, `at_once` at a time."""
    step, following = transitions.c, transitions.alias("following")
    same_job = (following.c.bucket == step.bucket, following.c.job_id == step.job_id)
    problem = job_problems.c
    # Since CI did not find a job, and until it is gone, no poll has seen it.
    not_found = (problem.bucket == step.bucket, problem.job_id == step.job_id, problem.kind == "missing")
    found = (
        select(
            transitions,
            *(following.c[name].label(f"next_{name}") for name in ("n", "still_at", "rules")),
            case((problem.job_id.is_(None), streams.c.seen_at), else_=problem.seen_at).label("last_seen_at"),
        )
        .outerjoin(following, and_(*same_job, following.c.sequence == step.sequence + 1))
        .outerjoin(jobs, and_(jobs.c.bucket == step.bucket, jobs.c.id == step.job_id))
        .outerjoin(streams, streams.c.key == jobs.c.stream)
        .outerjoin(job_problems, and_(*not_found, problem.ask_at.is_(None)))
        .where(step.seen_at >= ms(since))
        .order_by(step.n)
        .limit(at_once)
    )
    rows = tx.execute(found).all()
    while rows:
        yield [_stored(row) for row in rows]
        rows = tx.execute(found.where(step.n > rows[-1].n)).all()


def _stored(row: Row[Any]) -> Stored:
    return Stored(
        transition=transition_of(row),
        verdicts=_verdicts(row.verdicts),
        rules=row.rules,
        followed=row.next_n is not None,
        still_at=maybe_at(row.last_seen_at if row.next_n is None else row.next_still_at),
        followed_under=row.next_rules,
    )


@lru_cache(maxsize=1_000)  # most transitions have those of another
def _verdicts(text: str) -> frozenset[tuple[str, str]]:
    return frozenset((rule, name) for rule, names in json.loads(text) for name in names)


def statuses(tx: Connection, steps: Sequence[Stored]) -> Mapping[Key, Mapping[MessageKey, str]]:
    """Return the status of the messages about these transitions and times in state: "told", "dropped" or the gate.

    That is what happened when they were made, whatever came of it later; of a time in state it is the first. What a
    fallback was sent is left out, and what a person sent, which no rule did.
    """
    # Dropped by its first gate, also if it was resent manually. What waited in a digest may be dropped by a mute
    # when that is due: then the first gate was another one.
    first_gate = deliveries.c.held_by == digests.c.gate + ":" + digests.c.name
    dropped = and_(digests.c.drops, first_gate, deliveries.c.state.not_in((HELD, MERGED))).label("dropped")
    said = (messages.c[name] for name in ("bucket", "job_id", "sequence", "kind", "rule"))
    rows = (
        select(*said, deliveries.c.notifier, deliveries.c.note, deliveries.c.held_by, dropped)
        .join(deliveries, deliveries.c.message == messages.c.id)
        .outerjoin(digests, digests.c.n == deliveries.c.digest)
        .where(messages.c.job_id.in_({step.transition.job.id for step in steps}))
        .order_by(deliveries.c.n)
    )
    found: dict[Key, dict[MessageKey, str]] = defaultdict(dict)
    for row in tx.execute(rows):
        by_fallback = row.note and row.note.startswith(_BY_FALLBACK)
        if row.sequence is not None and row.rule is not None and not by_fallback:
            gate = row.held_by.partition(":")[0] if row.held_by else "told"
            gate = "told" if gate == "flood" else gate  # how much waited for a channel is no rule's doing
            of_step = found[row.bucket, row.job_id, row.sequence]
            of_step.setdefault((row.kind, row.rule, row.notifier), "dropped" if row.dropped else gate)
    return found


def fired(tx: Connection, steps: Sequence[Stored]) -> Mapping[Key, Mapping[str, Alarm]]:
    """Return the alarms of the states that these transitions began, by rule."""
    keys = {step.key for step in steps}
    of_jobs = (alarms.c.bucket.in_({key[0] for key in keys}), alarms.c.job_id.in_({key[1] for key in keys}))
    found: dict[Key, dict[str, Alarm]] = defaultdict(dict)
    for row in tx.execute(select(alarms).where(*of_jobs).order_by(alarms.c.n)):
        if (key := (row.bucket, row.job_id, row.sequence)) in keys:
            found[key][row.rule] = alarm_of(row)
    return found


# --- incidents ------------------------------------------------------------------------------------------------------


def has_incidents(tx: Connection) -> bool:
    return tx.execute(select(incidents.c.n).where(incidents.c.opened_at.is_not(None)).limit(1)).first() is not None


def watched_since(tx: Connection) -> Mapping[str, datetime]:
    """Return since when each rule for all jobs together has been watched, as far as that is on record."""
    first = select(incidents.c.rule, func.min(incidents.c.since).label("since"))
    rows = tx.execute(first.where(incidents.c.by == "[]", incidents.c.generation == 1).group_by(incidents.c.rule))
    return {row.rule: at(row.since) for row in rows}


def past_incidents(tx: Connection, since: datetime) -> list[Incident]:
    """Return what has been open from then on."""
    recent = select(incidents).where(incidents.c.opened_at.is_not(None))
    recent = recent.where(or_(incidents.c.closed_at.is_(None), incidents.c.closed_at >= ms(since)))
    return [incident_of(row) for row in tx.execute(recent.order_by(incidents.c.n))]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentMessage:
    """When a message about an incident was made, what it says happened when, and what became of it by notifier."""

    made_at: datetime
    happened_at: datetime
    notified: Mapping[str, str]


def incident_messages(tx: Connection, ids: Sequence[str]) -> Mapping[str, IncidentMessage]:
    """Return those of these messages (ids) that are on record."""
    found: dict[str, IncidentMessage] = {}
    for start in range(0, len(ids), READ_AT_ONCE):
        for id_, rows in _incident_rows(tx, ids[start : start + READ_AT_ONCE]).items():
            found[id_] = IncidentMessage(
                made_at=at(rows[0].created_at),
                happened_at=at(rows[0].happened_at),
                notified={row.notifier: _first_status(row) for row in reversed(rows)},
            )
    return found


def _incident_rows(tx: Connection, ids: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    first_gate = deliveries.c.held_by == digests.c.gate + ":" + digests.c.name
    dropped = and_(digests.c.drops, first_gate, deliveries.c.state.not_in((HELD, MERGED))).label("dropped")
    columns = (deliveries.c[name] for name in ("message", "notifier", "note", "held_by", "created_at"))
    rows = (
        select(*columns, messages.c.happened_at, dropped)
        .join(messages, messages.c.id == deliveries.c.message)
        .outerjoin(digests, digests.c.n == deliveries.c.digest)
        .where(deliveries.c.message.in_(ids))
        .order_by(deliveries.c.n)
    )
    found: dict[str, list[Any]] = defaultdict(list)
    for row in tx.execute(rows):
        if not (row.note and row.note.startswith(_BY_FALLBACK)):
            found[row.message].append(row)
    return found


def _first_status(row: Row[Any]) -> str:
    gate = row.held_by.partition(":")[0] if row.held_by else "told"
    return "dropped" if row.dropped else "told" if gate == "flood" else gate
