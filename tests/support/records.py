"""Nouns with only the facts that a test cares about, and the record's functions each in a transaction of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Executable, Table, insert, inspect, select, update

from bridge.decide.changes.diff import diff
from bridge.model import Attempt, Delivery, Job, NewDelivery, Outcome, Watch
from bridge.notifiers import Notifier
from bridge.record.database import Database, ms
from bridge.record.outbox import claims, entries, results
from bridge.record.outbox.results import Ended
from bridge.record.polling import leases, snapshots
from bridge.record.schema import deliveries, digests, messages, metadata, notifiers, shared_numbers
from tests.support.nouns import (
    BUCKET,
    LEASE,
    NOW,
    Clock,
)


def let_run(db: Database, clock: Clock, time: timedelta) -> None:
    """Let so much time go by at once in which the bridge ran."""
    clock.advance(time)
    with db.write() as tx:
        more = {"value": shared_numbers.c.value + time // timedelta(milliseconds=1), "at": ms(clock())}
        tx.execute(update(shared_numbers).where(shared_numbers.c.name == "run_clock").values(more))


def know(db: Database, *notifiers: Notifier | str, watches: Sequence[Watch] = ()) -> None:
    nouns = [Notifier(name=n, max_in_flight=64) if isinstance(n, str) else n for n in notifiers]
    with db.write() as tx:
        leases.sync(tx, watches, [(notifier, "webhook") for notifier in nouns])


def put(db: Database, *new: NewDelivery, now: datetime = NOW, at_once: bool = False) -> None:
    with db.write() as tx:
        entries.put(tx, new, now=now, at_once=at_once)


def put_as_before(db: Database, *new: NewDelivery) -> None:
    """Put deliveries into a database of an older revision: without the columns that it lacks."""
    _as_before(db, lambda newest: put(newest, *new), messages, digests, deliveries)


def know_as_before(db: Database, *names: str) -> None:
    """Let a database of an older revision know these notifiers."""
    _as_before(db, lambda newest: know(newest, *names), notifiers)


def _as_before(db: Database, fill: Callable[[Database], None], *tables: Table) -> None:
    with TemporaryDirectory() as folder, closing(Database(f"sqlite:///{folder}/new.db")) as newest, db.write() as tx:
        metadata.create_all(newest.engine)
        fill(newest)
        for table in tables:
            known = {column["name"] for column in inspect(tx).get_columns(table.name)}
            wanted = known - {"n"} if table is deliveries else known
            with newest.read() as source:
                found = source.execute(select(*(column for column in table.c if column.name in wanted)))
                values = [dict(row) for row in found.mappings()]
            if values:
                tx.execute(insert(table), values)


_leases = itertools.count(1)


def claim_all(
    db: Database, *, now: datetime = NOW, worker: str = "w1", free: int = 64, turn: int = 0, **more: Any
) -> claims.Claimed:
    lease = f"{worker}.{next(_leases)}"
    with db.write() as tx:
        return claims.claim(tx, free=free, lease=lease, lease_for=LEASE, now=now, turn=turn, **more)


def claim(db: Database, **facts: Any) -> list[Delivery]:
    return list(claim_all(db, **facts).deliveries)


def claimed_ids(db: Database, **facts: Any) -> list[str]:
    return [delivery.id for delivery in claim(db, **facts)]


def ended(
    delivery: Delivery,
    outcome: Outcome,
    *,
    again_at: datetime | None = None,
    retry_from: timedelta | None = None,
    retry_due: timedelta | None = None,
    **facts: Any,
) -> Ended:
    attempt = Attempt(**{"delivery": delivery, "outcome": outcome, "started_at": NOW, "seconds": 0.2, **facts})
    return Ended(attempt, again_at, retry_from, retry_due)


def settle(db: Database, *all_ended: Ended, now: datetime = NOW) -> frozenset[int]:
    with db.write() as tx:
        return results.settle(tx, all_ended, now=now)


def rows(db: Database, table: Table) -> list[dict[str, Any]]:
    with db.read() as tx:
        return [dict(row) for row in tx.execute(select(table).order_by(*table.primary_key)).mappings()]


def row_of(db: Database, table: Table, **which: object) -> dict[str, Any]:
    """The one row with these values."""
    (row,) = [row for row in rows(db, table) if all(row[name] == value for name, value in which.items())]
    return row


_P = ParamSpec("_P")
_T = TypeVar("_T")


def write(db: Database, function: Callable[Concatenate[Connection, _P], _T], *values: _P.args, **more: _P.kwargs) -> _T:
    """Call a function of the record in a transaction of its own."""
    with db.write() as tx:
        return function(tx, *values, **more)


def read(db: Database, function: Callable[Concatenate[Connection, _P], _T], *values: _P.args, **more: _P.kwargs) -> _T:
    """Call a function of the record in a reading transaction of its own."""
    with db.read() as tx:
        return function(tx, *values, **more)


def execute(db: Database, statement: Executable) -> None:
    with db.write() as tx:
        tx.execute(statement)


def see(db: Database, *jobs: Job, stream: str = "s", streams: tuple[str, ...] = ("s",), now: datetime = NOW) -> None:
    """Store these jobs as one page of a stream shows them."""
    with db.write() as tx:
        before = snapshots.known(tx, BUCKET, [job.id for job in jobs])
        steps = diff({id_: known.seen for id_, known in before.items()}, jobs, watch="vod", now=now)
        snapshots.save(tx, jobs, steps, before, stream=stream, streams=streams, now=now)
