"""Lists and details for people, as plain values ready for JSON. Newest first, paged by a cursor.

A list has one line of each text (`display.one_line`), a detail has the whole text.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Table,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)

from bridge.display import one_line
from bridge.record.codec import Facts as Facts
from bridge.record.codec import iso
from bridge.record.database import ms
from bridge.record.schema import (
    DELIVERY_STATES,
    HELD,
    IS_OUT,
    SENDING,
    SENT,
    WAITING,
    actions,
    attempts,
    deliveries,
    digests,
    job_problems,
    jobs,
    listed_by,
    messages,
    notifiers,
    state_is,
    streams,
    transitions,
)

# --- selectivity: SQLite does not know how frequent a value is, so the filter to find rows by is chosen here ----------

Condition = tuple[ColumnElement[bool], ColumnElement[bool]]  # in the words of an index, and in words of no index

_LOOKED_AT = 500


def conditions(*filters: tuple[ColumnElement[Any], ColumnElement[Any], str | None]) -> list[Condition]:
    """Return conditions for those values that are given: of the expression an index has, and of one none has."""
    return [(indexed == value, unindexed == value) for indexed, unindexed, value in filters if value is not None]


def plain(column: ColumnElement[int]) -> ColumnElement[int]:
    """Return a number in words of no index."""
    return column + literal_column("0")


def by_most_selective(tx: Connection, found: Sequence[Condition]) -> list[ColumnElement[bool]]:
    """Return all conditions; on SQLite only that with the fewest rows in the words of an index, the first of equals."""
    if tx.dialect.name != "sqlite" or len(found) < 2:
        return [indexed for indexed, _ in found]
    some = (select(literal_column("1")).where(indexed).limit(_LOOKED_AT).subquery() for indexed, _ in found)
    counts = [tx.execute(select(func.count()).select_from(rows)).scalar_one() for rows in some]
    rarest = counts.index(min(counts))
    return [indexed if place == rarest else unindexed for place, (indexed, unindexed) in enumerate(found)]


# --- pages ----------------------------------------------------------------------------------------------------------

MOST = 500


class Cursor(NamedTuple):
    """A place in a list: the time of the last row of a page, and its number."""

    when: int
    n: int = 0

    def __str__(self) -> str:
        return f"{self.when}.{self.n}"


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a list; `cursor` asks for the next one, None at the end. Rows that arrive meanwhile shift nothing."""

    items: list[Facts]
    cursor: Cursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rows; None means any. `since` and `until` bound when it was made or seen."""

    state: str | None = None
    tag: str | None = None
    queue: str | None = None
    notifier: str | None = None
    rule: str | None = None
    job: str | None = None
    digest: str | None = None  # the id of the delivery that it was sent with
    batch: str | None = None  # with which it was resent or discarded
    who: str | None = None  # these three are of actions
    what: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def _of_jobs(table: Table, job_id: Column[Any], which: Filter) -> list[Condition]:
    filters = ((table.c.state, which.state), (table.c.tag, which.tag), (table.c.queue, which.queue))
    listed = ((listed_by(column), column, value) for column, value in filters)
    return conditions(*listed, (job_id, listed_by(job_id), which.job))


def _between(column: ColumnElement[Any], which: Filter) -> list[ColumnElement[bool]]:
    bounds = [column >= ms(which.since)] if which.since else []
    return [*bounds, column < ms(which.until)] if which.until else bounds


def page_of(
    tx: Connection,
    rows: Select[Any],
    when: ColumnElement[int],
    n: Column[int],
    cursor: Cursor | None,
    limit: int,
    whole: Callable[[Select[Any]], Select[Any]] = lambda page: page,
) -> tuple[Sequence[Row[Any]], Cursor | None]:
    """Return the rows of a page, the newest by `when` and `n` first, and the cursor of the next one."""
    limit = max(1, min(limit, MOST))
    if cursor is not None:
        # The first condition says no more than the second: SQLite finds the place in its index by it.
        rows = rows.where(when <= cursor.when, tuple_(when, n) < tuple_(*cursor))
    rows = rows.add_columns(when.label("at")).order_by(when.desc(), n.desc()).limit(limit + 1)
    found = tx.execute(whole(rows)).all()
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], Cursor(last.at, last.n) if last else None


def _page(
    tx: Connection,
    rows: Select[Any],
    when: ColumnElement[int],
    n: Column[int],
    shape: Callable[[Row[Any]], Facts],
    cursor: Cursor | None,
    limit: int,
    whole: Callable[[Select[Any]], Select[Any]] = lambda page: page,
) -> Found:
    rows_of_page, following = page_of(tx, rows, when, n, cursor, limit, whole)
    return Found([shortened(shape(row)) for row in rows_of_page], following)


def shortened(facts: Facts) -> Facts:
    """Return facts for a list: one line of each text."""
    # Ids stay whole: they are needed to ask for the detail.
    return {name: value if name in ("id", "job", "bucket") else _short(value) for name, value in facts.items()}


def _short(value: Any) -> Any:
    match value:
        case str():
            return one_line(value)
        case list():
            return [_short(item) for item in value]
        case dict():
            return {name: _short(item) for name, item in value.items()}
    return value


# --- jobs and transitions -------------------------------------------------------------------------------------------

_OUT_AT = select(streams.c.out_at).where(streams.c.key == jobs.c.stream, IS_OUT).scalar_subquery()
_JOBS = select(jobs, _OUT_AT.label("out_at"))


def find_jobs(tx: Connection, which: Filter, *, cursor: Cursor | None = None, limit: int = 50) -> Found:
    wanted = by_most_selective(tx, _of_jobs(jobs, jobs.c.id, which)) + _between(jobs.c.created_at, which)
    return _page(tx, _JOBS.where(*wanted), jobs.c.created_at, jobs.c.n, _job, cursor, limit)


def job_details(tx: Connection, job_id: str) -> list[Facts]:
    """Return the jobs of this id (ids of two buckets may clash), each with its transitions and deliveries."""
    found = [_job(row) for row in tx.execute(_JOBS.where(jobs.c.id == job_id).order_by(jobs.c.n))]
    for facts in found:
        mine = {"bucket": facts["bucket"], "job_id": job_id}
        missing = tx.execute(select(job_problems).filter_by(**mine, kind="missing")).first()
        steps = tx.execute(select(transitions).filter_by(**mine).order_by(transitions.c.sequence))
        made = DELIVERIES.where(messages.c.bucket == facts["bucket"], messages.c.job_id == job_id)
        facts["missing"] = missing and {
            "times": missing.times, "last_at": iso(missing.last_at), "ask_at": iso(missing.ask_at)
        }  # fmt: skip
        facts["transitions"] = [_transition(row) for row in steps]
        facts["deliveries"] = [_delivery(row) for row in tx.execute(made.order_by(deliveries.c.n))]
    return found


def _job(row: Row[Any]) -> Facts:
    detail = json.loads(row.detail)
    facts = {name: value for name, value in detail.items() if name not in ("state", "created_at")}
    for name in ("started_at", "ended_at"):
        facts[name] = iso(detail.get(name))
    return {
        **facts,
        "id": row.id,
        "bucket": row.bucket,
        "state": row.state,
        "tag": row.tag,
        "queue": row.queue,
        "sequence": row.sequence,
        "created_at": iso(row.created_at),
        "changed_at": iso(row.changed_at),
        "unwatched_since": iso(row.out_at) if row.open else None,
    }


def find_transitions(tx: Connection, which: Filter, *, cursor: Cursor | None = None, limit: int = 50) -> Found:
    wanted = by_most_selective(tx, _of_jobs(transitions, transitions.c.job_id, which))
    found = select(transitions).where(*wanted, *_between(transitions.c.seen_at, which))
    return _page(tx, found, transitions.c.seen_at, transitions.c.n, _transition, cursor, limit)


def _transition(row: Row[Any]) -> Facts:
    return {
        "n": row.n,
        "job": row.job_id,
        "bucket": row.bucket,
        "sequence": row.sequence,
        "from": row.was,
        "to": row.state,
        "tag": row.tag,
        "queue": row.queue,
        "watch": row.watch,
        "happened_at": iso(row.happened_at),
        "seen_at": iso(row.seen_at),
        "inferred": row.inferred,
        "silent": row.silent,
        "rules": [{"rule": rule, "notifiers": names} for rule, names in json.loads(row.verdicts)],
    }


def inputs_of(tx: Connection, steps: Collection[Facts]) -> Mapping[tuple[str, str], str]:
    """Return the inputs of the jobs of these transitions as a list has them, by (bucket, job)."""
    keys = {(step["bucket"], step["job"]) for step in steps}
    # The job's id is given twice, as the index is on it.
    mine = jobs.c.id.in_({job_id for _, job_id in keys}), tuple_(jobs.c.bucket, jobs.c.id).in_(list(keys))
    found = tx.execute(select(jobs.c.bucket, jobs.c.id, jobs.c.detail).where(*mine)) if keys else ()
    return {(row.bucket, row.id): one_line(json.loads(row.detail).get("input") or "") for row in found}


# --- deliveries -----------------------------------------------------------------------------------------------------


def _with_messages(of: FromClause) -> Select[Any]:
    """Return a select of the deliveries of a table, or of a join that has it, with what they say."""
    # Not the rule of the delivery itself: what an older version wrote has none there.
    mine = [column for column in deliveries.c if column is not deliveries.c.rule]
    # The event of a recovery says which state the job was in.
    recovery = case((messages.c.kind == "recovery", messages.c.event), else_=None).label("recovery")
    said = [messages.c[name] for name in ("kind", "bucket", "job_id", "sequence", "rule", "happened_at")]
    digest = (digests.c.delivery.label("told_by"), digests.c.due_at.label("told_at"))
    found = select(*mine, recovery, *said, messages.c.state.label("tells"), *digest).select_from(of)
    return found.join(messages, messages.c.id == deliveries.c.message).outerjoin(
        digests, digests.c.n == deliveries.c.digest
    )


DELIVERIES = _with_messages(deliveries)
_OPEN = (DELIVERY_STATES[WAITING], DELIVERY_STATES[SENDING])


def find_deliveries(tx: Connection, which: Filter, *, cursor: Cursor | None = None, limit: int = 50) -> Found:
    wanted = select(deliveries.c.n).where(*of_deliveries(tx, which))
    # Few are open, and they are read and sorted: SQLite would else walk through all deliveries to find them in order.
    when = plain(deliveries.c.created_at) if which.state in _OPEN else deliveries.c.created_at
    return _page(tx, wanted, when, deliveries.c.n, _delivery, cursor, limit, _whole)


def _whole(page: Select[Any]) -> Select[Any]:
    """Join messages to the deliveries of a page, and not to all that it was chosen from."""
    found = page.subquery()
    rows = _with_messages(found.join(deliveries, deliveries.c.n == found.c.n)).add_columns(found.c.at)
    return rows.order_by(found.c.at.desc(), found.c.n.desc())


def numbers_of(ids: Collection[str]) -> Select[Any]:
    """Return a select of the numbers of these deliveries, for a redrive."""
    return select(deliveries.c.n).where(deliveries.c.id.in_(ids))


def of_deliveries(tx: Connection, which: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions for deliveries of a filter."""
    d = deliveries.c
    found, wanted = list[Condition](), _between(d.created_at, which)
    if which.state == DELIVERY_STATES[SENT]:  # no index is for what most of all are
        wanted.append(state_is(SENT))
    elif which.state:
        number = DELIVERY_STATES.index(which.state)
        found.append((state_is(number), plain(d.state) == number))
    if which.job is not None:
        mine = select(messages.c.id).where(messages.c.job_id == which.job)
        found.append((d.message.in_(mine), listed_by(d.message).in_(mine)))
    if which.digest:
        members = select(digests.c.n).where(digests.c.delivery == which.digest)
        # Said twice, as only the words of the partial index find it.
        found.append((and_(d.digest.in_(members), d.digest.is_not(None)), plain(d.digest).in_(members)))
    found += conditions((d.batch, listed_by(d.batch), which.batch))
    if which.rule is not None and _any_without_rule(tx):
        of_message = select(messages.c.rule).where(messages.c.id == d.message).scalar_subquery()
        wanted.append(func.coalesce(d.rule, of_message) == which.rule)
    else:
        found += conditions((d.rule, listed_by(d.rule), which.rule))
    found += conditions((listed_by(d.notifier), d.notifier, which.notifier))
    return by_most_selective(tx, found) + wanted


def _any_without_rule(tx: Connection) -> bool:
    """Tell whether there are deliveries by a version that stored no rule here: those are found in the slow way."""
    # In the order of the index: PostgreSQL may believe that most have none, and read all.
    d = deliveries.c
    first = select(d.n).where(d.rule.is_(None)).order_by(d.rule, d.created_at, d.n).limit(1)
    return tx.execute(first).first() is not None


def delivery_details(tx: Connection, delivery_id: str) -> Facts | None:
    """Return one delivery with its attempts and what it says."""
    found = DELIVERIES.add_columns(messages.c.says, messages.c.event).where(deliveries.c.id == delivery_id)
    row = tx.execute(found).first()
    if row is None:
        return None
    note = {"note": row.note} if row.note else {}
    usual = {"specversion": "1.0", "id": row.id, **note, **json.loads(row.event)}
    return {
        **_delivery(row),
        "says": json.loads(row.says),
        "event": json.loads(row.body) if row.body else usual,
        "tries": attempts_of(tx, [delivery_id]).get(delivery_id, []),
    }


def _delivery(row: Row[Any]) -> Facts:
    return {
        "id": row.id,
        "notifier": row.notifier,
        "state": DELIVERY_STATES[row.state],
        "kind": row.kind,
        "job": row.job_id,
        "bucket": row.bucket,
        "sequence": row.sequence,
        "tells": row.tells,
        "left": json.loads(row.recovery)["data"].get("in") if row.recovery else None,
        "rule": row.rule,
        "attempts": row.attempts,
        "why": row.why,
        "note": row.note,
        "happened_at": iso(row.happened_at),
        "created_at": iso(row.created_at),
        "due_at": iso({WAITING: row.due_at or None, HELD: row.told_at}.get(row.state)),
        "ended_at": iso(row.ended_at),
        "held_by": row.held_by,
        "digest": row.told_by,
        "batch": row.batch,
        "channel": row.channel,
    }


def caused_by(tx: Connection, steps: Collection[Facts]) -> Mapping[tuple[str, str, int], Sequence[Facts]]:
    """Return the deliveries that these transitions caused, by (bucket, job, sequence), oldest first."""
    m = messages.c
    keys = [(step["bucket"], step["job"], step["sequence"]) for step in steps]
    # The job's id is given twice, as the index is on it.
    mine = m.job_id.in_({job_id for _, job_id, _ in keys}), tuple_(m.bucket, m.job_id, m.sequence).in_(keys)
    found: dict[tuple[str, str, int], list[Facts]] = defaultdict(list)
    for row in tx.execute(DELIVERIES.where(*mine).order_by(deliveries.c.n)) if keys else ():
        found[row.bucket, row.job_id, row.sequence].append(_delivery(row))
    return found


def deliveries_of(tx: Connection, ids: Collection[str]) -> list[Facts]:
    """Return the deliveries of these messages, oldest first."""
    return [_delivery(row) for row in tx.execute(DELIVERIES.where(messages.c.id.in_(ids)).order_by(deliveries.c.n))]


def attempts_of(tx: Connection, ids: Iterable[str]) -> Mapping[str, Sequence[Facts]]:
    """Return the attempts of these deliveries by their ids, oldest first."""
    tried = select(attempts, deliveries.c.id).join(deliveries).where(deliveries.c.id.in_(ids))
    found: dict[str, list[Facts]] = defaultdict(list)
    for row in tx.execute(tried.order_by(attempts.c.n)):
        of_delivery = found[row.id]
        of_delivery.append(
            {
                "number": len(of_delivery) + 1,
                "outcome": row.outcome,
                "why": row.why,
                "reason": row.reason,
                "status": row.status,
                "answer": row.answer,
                "address": row.address,
                "started_at": iso(row.started_at),
                "ms": row.ms,
            }
        )
    return found


def notifier_row(tx: Connection, notifier: str) -> Facts | None:
    """Return what keeps the deliveries of a notifier waiting, without counting them; None: no worker knows it."""
    row = tx.execute(select(notifiers).filter_by(name=notifier)).first()
    return None if row is None else {
        "paused_at": iso(row.paused_at), "not_before": iso(row.not_before or None), "paused_why": row.paused_why,
        "failures": row.failures,
    }  # fmt: skip


# --- actions --------------------------------------------------------------------------------------------------------

_ACTIONS = select(*(column for column in actions.c if column is not actions.c.at))


def find_actions(tx: Connection, which: Filter, *, cursor: Cursor | None = None, limit: int = 50) -> Found:
    """Return what people did. `who` is the author, or the name that the author gave."""
    a = actions.c
    wanted = by_most_selective(tx, conditions((listed_by(a.subject), a.subject, which.subject)))
    wanted += [a.what == which.what] if which.what else []
    wanted += [or_(a.who == which.who, a.claimed == which.who)] if which.who else []
    return _page(tx, _ACTIONS.where(*wanted, *_between(a.at, which)), a.at, a.n, _action, cursor, limit)


def _action(row: Row[Any]) -> Facts:
    facts = {name: getattr(row, name) for name in ("n", "who", "claimed", "what", "subject")}
    changes = {name: json.loads(getattr(row, name) or "null") for name in ("before", "after")}
    return {"at": iso(row.at), **facts, **changes}
