"""What people ask: lists and details, as plain values ready for JSON. Newest first, paged by a cursor.

A list has one line of each text (`display.one_line`), a detail has it whole.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
    select,
    tuple_,
)

from bridge.display import one_line
from bridge.model import Delivery
from bridge.record.database import at, ms
from bridge.record.schema import DELIVERY_STATES, HELD, IS_OUT, SENDING, SENT, WAITING, listed_by, state_is
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import digest as G  # noqa: N812
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import job_problem as P  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812
from bridge.record.schema import stream as S  # noqa: N812
from bridge.record.schema import transition as T  # noqa: N812

# --- which filter SQLite finds rows by: it knows not how often a value is there; PostgreSQL does --------------------

Said = tuple[ColumnElement[bool], ColumnElement[bool]]  # a condition as an index knows it, and as none does

_LOOKED_AT = 500


def said(*asked: tuple[ColumnElement[Any], ColumnElement[Any], str | None]) -> list[Said]:
    """Return conditions for those values that are asked for: of the expression an index has, and of one none has."""
    return [(indexed == value, unindexed == value) for indexed, unindexed, value in asked if value is not None]


def plain(column: ColumnElement[int]) -> ColumnElement[int]:
    """Return a number as no index knows it."""
    return column + literal_column("0")


def by_rarest(tx: Connection, found: Sequence[Said]) -> list[ColumnElement[bool]]:
    """Return all conditions, on SQLite the rarest alone as an index knows it; of equals, the first."""
    if tx.dialect.name != "sqlite" or len(found) < 2:
        return [indexed for indexed, _ in found]
    some = (select(literal_column("1")).where(indexed).limit(_LOOKED_AT).subquery() for indexed, _ in found)
    counts = [tx.execute(select(func.count()).select_from(rows)).scalar_one() for rows in some]
    rarest = counts.index(min(counts))
    return [indexed if place == rarest else unindexed for place, (indexed, unindexed) in enumerate(found)]


# --- lists and details ----------------------------------------------------------------------------------------------

Facts = dict[str, Any]
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
    digest: str | None = None  # the id of the delivery that told it
    batch: str | None = None  # with which it was resent
    since: datetime | None = None
    until: datetime | None = None


_OUT_AT = select(S.c.out_at).where(S.c.key == J.c.stream, IS_OUT).scalar_subquery()
_JOBS = select(J, _OUT_AT.label("out_at"))


def jobs(tx: Connection, which: Filter, *, cursor: Cursor | None = None, limit: int = 50) -> Found:
    wanted = by_rarest(tx, [*_listed(J, which), *said((J.c.id, listed_by(J.c.id), which.job))])
    wanted += _between(J.c.created_at, which)
    return _page(tx, _JOBS.where(*wanted), J.c.created_at, J.c.n, _job, cursor, limit)


def job(tx: Connection, job_id: str) -> list[Facts]:
    """Return the jobs of this id (ids of two buckets may clash), each with its transitions and deliveries."""
    found = [_job(row) for row in tx.execute(_JOBS.where(J.c.id == job_id).order_by(J.c.n))]
    for facts in found:
        mine = and_(T.c.bucket == facts["bucket"], T.c.job_id == job_id)
        facts["missing"] = _missing(tx, facts["bucket"], job_id)
        facts["transitions"] = [_transition(r) for r in tx.execute(select(T).where(mine).order_by(T.c.sequence))]
        told = DELIVERIES.where(M.c.bucket == facts["bucket"], M.c.job_id == job_id).order_by(D.c.n)
        facts["deliveries"] = [delivery_facts(r) for r in tx.execute(told)]
    return found


def _missing(tx: Connection, bucket: str, job_id: str) -> Facts | None:
    mine = and_(P.c.bucket == bucket, P.c.job_id == job_id, P.c.kind == "missing")
    row = tx.execute(select(P.c.times, P.c.last_at, P.c.ask_at).where(mine)).first()
    return {"times": row.times, "last_at": iso(row.last_at), "ask_at": iso(row.ask_at)} if row else None


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


def transitions(tx: Connection, which: Filter, *, cursor: Cursor | None = None, limit: int = 50) -> Found:
    wanted = by_rarest(tx, [*_listed(T, which), *said((T.c.job_id, listed_by(T.c.job_id), which.job))])
    wanted += _between(T.c.seen_at, which)
    return _page(tx, select(T).where(*wanted), T.c.seen_at, T.c.n, _transition, cursor, limit)


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
        "silent": row.silent,
        "rules": [{"rule": rule, "notifiers": notifiers} for rule, notifiers in json.loads(row.verdicts)],
    }


# Of what tells that a stay is over, the event says in which state it was.
_RECOVERY = case((M.c.kind == "recovery", M.c.event), else_=None).label("recovery")
_SAID = (_RECOVERY, M.c.kind, M.c.bucket, M.c.job_id, M.c.sequence, M.c.rule, M.c.state.label("tells"), M.c.happened_at)
_TOLD = (G.c.delivery.label("told_by"), G.c.due_at.label("told_at"))


def _told(of: FromClause) -> Select[Any]:
    """Return a select of the deliveries of a table, or of a join that has it, with what they tell."""
    # Not the rule of the delivery itself: what an older version wrote has none there.
    mine = [column for column in D.c if column is not D.c.rule]
    found = select(*mine, *_SAID, *_TOLD).select_from(of)
    return found.join(M, M.c.id == D.c.message).outerjoin(G, G.c.n == D.c.digest)


DELIVERIES = _told(D)
_OPEN = (DELIVERY_STATES[WAITING], DELIVERY_STATES[SENDING])


def deliveries(tx: Connection, which: Filter, *, cursor: Cursor | None = None, limit: int = 50) -> Found:
    wanted = select(D.c.n).where(*of_deliveries(tx, which))
    # Few wait, and they are looked at and sorted: SQLite would else walk through all there are to find them in order.
    when = plain(D.c.created_at) if which.state in _OPEN else D.c.created_at
    return _page(tx, wanted, when, D.c.n, delivery_facts, cursor, limit, _whole)


def _whole(page: Select[Any]) -> Select[Any]:
    """Join messages to the deliveries of a page, and not to all that it was chosen from."""
    found = page.subquery()
    rows = _told(found.join(D, D.c.n == found.c.n)).add_columns(found.c.at)
    return rows.order_by(found.c.at.desc(), found.c.n.desc())


def numbers_of(ids: Collection[str]) -> Select[Any]:
    """Return a select of the numbers of these deliveries, for a redrive."""
    return select(D.c.n).where(D.c.id.in_(ids))


# --- what pages show beside them ------------------------------------------------------------------------------------


def of_deliveries(tx: Connection, which: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions for deliveries of a filter."""
    found, wanted = list[Said](), _between(D.c.created_at, which)
    if which.state:
        number = DELIVERY_STATES.index(which.state)
        found.append((state_is(number), plain(D.c.state) == number))
    if which.state == DELIVERY_STATES[SENT]:  # no index is for what most of all are
        wanted.append(found.pop()[0])
    if which.job is not None:
        mine = select(M.c.id).where(M.c.job_id == which.job)
        found.append((D.c.message.in_(mine), listed_by(D.c.message).in_(mine)))
    if which.digest:
        members = select(G.c.n).where(G.c.delivery == which.digest)
        # Said twice, as only the words of the partial index find it.
        found.append((and_(D.c.digest.in_(members), D.c.digest.is_not(None)), plain(D.c.digest).in_(members)))
    found += said((D.c.batch, listed_by(D.c.batch), which.batch))
    if which.rule is not None and _any_without_rule(tx):
        of_message = select(M.c.rule).where(M.c.id == D.c.message).scalar_subquery()
        wanted.append(func.coalesce(D.c.rule, of_message) == which.rule)
    else:
        found += said((D.c.rule, listed_by(D.c.rule), which.rule))
    found += said((listed_by(D.c.notifier), D.c.notifier, which.notifier))
    return by_rarest(tx, found) + wanted


def _any_without_rule(tx: Connection) -> bool:
    """Tell whether there are deliveries by a version that wrote no rule here: those are asked for in the slow way."""
    # In the order of the index: PostgreSQL may believe that most have none, and look through all.
    first = select(D.c.n).where(D.c.rule.is_(None)).order_by(D.c.rule, D.c.created_at, D.c.n).limit(1)
    return tx.execute(first).first() is not None


def delivery(tx: Connection, delivery_id: str) -> Facts | None:
    """Return one delivery with its attempts and what it says."""
    row = tx.execute(DELIVERIES.add_columns(M.c.says, M.c.event).where(D.c.id == delivery_id)).first()
    if row is None:
        return None
    tries = tx.execute(select(A).where(A.c.delivery == row.n).order_by(A.c.n))
    note = {"note": row.note} if row.note else {}
    usual = {"specversion": "1.0", "id": row.id, **note, **json.loads(row.event)}
    event = json.loads(row.body) if row.body else usual
    return {
        **delivery_facts(row),
        "says": json.loads(row.says),
        "event": event,
        "tries": [attempt_facts(number, a) for number, a in enumerate(tries, 1)],
    }


def delivery_facts(row: Row[Any]) -> Facts:
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


def attempt_facts(number: int, row: Row[Any]) -> Facts:
    return {
        "number": number,
        "outcome": row.outcome,
        "why": row.why,
        "reason": row.reason,
        "status": row.status,
        "answer": row.answer,
        "address": row.address,
        "started_at": iso(row.started_at),
        "ms": row.ms,
    }


def iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return f"{at(milliseconds).astimezone(UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def _listed(table: Table, which: Filter) -> list[Said]:
    asked = ((table.c.state, which.state), (table.c.tag, which.tag), (table.c.queue, which.queue))
    return said(*((listed_by(column), column, value) for column, value in asked))


def _between(column: ColumnElement[Any], which: Filter) -> list[ColumnElement[bool]]:
    bounds = [column >= ms(which.since)] if which.since else []
    return [*bounds, column < ms(which.until)] if which.until else bounds


_IDS = ("id", "job", "bucket")  # what is asked for by one needs all of it


def _in_list(facts: Facts) -> Facts:
    return {name: value if name in _IDS else _short(value) for name, value in facts.items()}


def _short(value: Any) -> Any:
    match value:
        case str():
            return one_line(value)
        case list():
            return [_short(one) for one in value]
        case dict():
            return {name: _short(one) for name, one in value.items()}
    return value


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
    limit = max(1, min(limit, MOST))
    if cursor is not None:
        # The first condition says no more than the second: SQLite finds the place in its index by it.
        rows = rows.where(when <= cursor.when, tuple_(when, n) < tuple_(*cursor))
    rows = rows.add_columns(when.label("at")).order_by(when.desc(), n.desc()).limit(limit + 1)
    found = tx.execute(whole(rows)).all()
    items = [_in_list(shape(row)) for row in found[:limit]]
    if len(found) <= limit:
        return Found(items, None)
    last = found[limit - 1]
    return Found(items, Cursor(last.at, last.n))


def attempts_of(tx: Connection, ids: Collection[str]) -> Mapping[str, Sequence[Facts]]:
    """Return the attempts of these deliveries by their ids, oldest first."""
    rows = tx.execute(select(A, D.c.id).join(D, D.c.n == A.c.delivery).where(D.c.id.in_(ids)).order_by(A.c.n))
    found: dict[str, list[Facts]] = defaultdict(list)
    for row in rows:
        found[row.id].append(attempt_facts(len(found[row.id]) + 1, row))
    return found


def caused_by(tx: Connection, transitions: Collection[Facts]) -> Mapping[tuple[str, str, int], Sequence[Facts]]:
    """Return the deliveries that these transitions caused, by (bucket, job, sequence), oldest first."""
    keys = [(one["bucket"], one["job"], one["sequence"]) for one in transitions]
    # The job's id is said twice, as the index is on it.
    mine = M.c.job_id.in_({job for _, job, _ in keys}), tuple_(M.c.bucket, M.c.job_id, M.c.sequence).in_(keys)
    found: dict[tuple[str, str, int], list[Facts]] = defaultdict(list)
    for row in tx.execute(DELIVERIES.where(*mine).order_by(D.c.n)) if keys else ():
        found[row.bucket, row.job_id, row.sequence].append(delivery_facts(row))
    return found


def inputs_of(tx: Connection, transitions: Collection[Facts]) -> Mapping[tuple[str, str], str]:
    """Return the inputs of the jobs of these transitions as a list has them, by (bucket, job)."""
    keys = {(one["bucket"], one["job"]) for one in transitions}
    mine = J.c.id.in_({job for _, job in keys}), tuple_(J.c.bucket, J.c.id).in_(list(keys))
    found = tx.execute(select(J.c.bucket, J.c.id, J.c.detail).where(*mine)) if keys else ()
    return {(row.bucket, row.id): one_line(json.loads(row.detail).get("input") or "") for row in found}


def sendable(tx: Connection, delivery_id: str) -> Delivery | None:
    """Return a delivery as its next attempt would have it."""
    found = select(D, M.c.event, M.c.says, M.c.happened_at).join(M, M.c.id == D.c.message)
    row = tx.execute(found.where(D.c.id == delivery_id)).first()
    if row is None:
        return None
    facts: dict[str, Any] = {name: getattr(row, name) for name in ("n", "id", "notifier", "event", "says", "lost")}
    facts |= {name: getattr(row, name) for name in ("attempts", "thread", "note", "body", "channel")}
    return Delivery(**facts, lease=row.lease or "", happened_at=at(row.happened_at))


def notifier_row(tx: Connection, notifier: str) -> Facts | None:
    """Return what keeps the deliveries of a notifier waiting, without counting them; None: no worker knows it."""
    found = select(N.c.paused_at, N.c.paused_why, N.c.not_before, N.c.failures).where(N.c.name == notifier)
    row = tx.execute(found).first()
    if row is None:
        return None
    times = {"paused_at": iso(row.paused_at), "not_before": iso(row.not_before or None)}
    return {**times, "paused_why": row.paused_why, "failures": row.failures}
