"""A claim beside a million deliveries that were sent, against one in an empty table; and what pruning them costs."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from statistics import fmean
from typing import Any

from sqlalchemy import text

from benchmarks.bench_bridge import now
from benchmarks.deliveries import new_deliveries, rulebook
from benchmarks.machine import Bench, Stores, settle_statistics
from benchmarks.report import Line, at_most, noted
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Attempt, Delivery, Sent
from bridge.record import pruning
from bridge.record.database import Database, ms
from bridge.record.outbox import claims, entries, results
from bridge.record.outbox.results import Ended
from bridge.record.polling import leases
from bridge.record.pruning import Cutoffs

_FINISHED = 1_000_000
_CLAIMS, _AT_ONCE = 200, 16  # of each store, in turn
_BATCHES = 200
_MOST = 1.3

_Costs = Mapping[str, Sequence[float]]

# Made by the database itself, whose SQL for a series differs; ids are spread as hashes are.
_SERIES = {
    "SQLite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :count) {insert} FROM s",
    "PostgreSQL": "{insert} FROM generate_series(1, :count) AS s(n)",
}
_FINISHED_ROWS = (
    "INSERT INTO message (id, kind, bucket, job_id, sequence, rule, state, says, event, happened_at)"
    " SELECT 'msg_' || md5(CAST(n AS TEXT)), 'transition', 'old-1250000000', 'old' || n, 2, 'all', 'Success',"
    " '{}', :event, :first + n",
    "INSERT INTO delivery (id, message, notifier, lane, state, due_at, attempts, created_at, since, ended_at)"
    " SELECT 'dlv_' || md5(CAST(n AS TEXT)), 'msg_' || md5(CAST(n AS TEXT)), 'hook', 'old-1250000000/old' || n,"
    " 2, :first + n, 1, :first + n, :first + n, :first + n",
    "INSERT INTO attempt (delivery, number, outcome, status, answer, started_at, ms)"
    " SELECT n, 1, 'sent', 200, 'ok', :first + n, 3",
)


def measure(_bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    return [line for kind in stores.kinds for line in _measure(stores, kind, rounds)]


def _measure(stores: Stores, kind: str, rounds: int) -> list[Line]:
    costs: dict[str, list[float]] = defaultdict(list)
    book = rulebook("http://127.0.0.1:1/", in_flight=32)
    with _station(stores, kind, book) as full:
        _fill(full, kind)
        for context in range(rounds):
            with _station(stores, kind, book) as empty:
                for name, found in _claims(book, {"full": full, "empty": empty}, context).items():
                    costs[name].append(1000 * fmean(found))
            batches = _prune(full)
            costs["prune"].append(pruning.AT_ONCE * len(batches) / sum(batches))
            costs["longest"].append(1000 * max(batches))
    return list(_lines(kind, costs))


@contextmanager
def _station(stores: Stores, kind: str, book: Rulebook) -> Iterator[Database]:
    with stores.empty(kind) as url, ExitStack() as closing:
        db = Database(url)
        closing.callback(db.close)
        db.upgrade()
        with db.write() as tx:
            leases.sync(tx, book.watches, [(book.notifiers["hook"], "webhook")])
        yield db


def _fill(db: Database, kind: str) -> None:
    values = {"count": _FINISHED, "first": ms(now() - timedelta(days=60)), "event": "x" * 200}
    with db.write() as tx:
        if db.sqlite:
            driver: Any = tx.connection.driver_connection
            driver.create_function("md5", 1, lambda said: hashlib.md5(said.encode()).hexdigest())  # noqa: S324  (spreads)
        for insert in _FINISHED_ROWS:
            tx.execute(text(_SERIES[kind].format(insert=insert)), values)


def _claims(book: Rulebook, dbs: Mapping[str, Database], context: int) -> dict[str, list[float]]:
    """Return how long each claim took in each database, and each claim with its settling."""
    first = context * _CLAIMS * _AT_ONCE
    for db in dbs.values():
        with db.write() as tx:
            entries.put(tx, list(new_deliveries(book, range(first, first + _CLAIMS * _AT_ONCE))), now=now())
        settle_statistics(db.url.render_as_string(hide_password=False).replace("+psycopg", ""))
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(_CLAIMS):
        # In turn, and in another order each time: whatever else the machine does meets both.
        for name in sorted(dbs, reverse=bool(turn % 2)):
            claim_s, settle_s = _claim_and_settle(dbs[name], f"{context}.{turn}")
            seconds[f"claim {name}"].append(claim_s)
            seconds[f"both {name}"].append(claim_s + settle_s)
    return seconds


def _claim_and_settle(db: Database, lease: str) -> tuple[float, float]:
    from_s = time.perf_counter()
    with db.write() as tx:
        found = claims.claim(tx, free=_AT_ONCE, lease=lease, lease_for=timedelta(seconds=30), now=now()).deliveries
    claimed_s = time.perf_counter()
    assert len(found) == _AT_ONCE, len(found)
    with db.write() as tx:
        lost = results.settle(tx, [_sent(delivery) for delivery in found], now=now())
    assert not lost, lost
    return claimed_s - from_s, time.perf_counter() - claimed_s


def _sent(delivery: Delivery) -> Ended:
    return Ended(Attempt(delivery=delivery, outcome=Sent(), started_at=now(), seconds=0.003, status=200, answer="ok"))


def _prune(db: Database) -> list[float]:
    """Prune some batches, and return how long the transaction of each took."""
    month_ago = now() - timedelta(days=30)
    cut = Cutoffs(now=now(), ended=month_ago, dead=month_ago, created={})
    seconds: list[float] = []
    after = 0
    for _ in range(_BATCHES):
        with db.read() as tx:
            found = pruning.old_deliveries(tx, after=after, cut=cut)
        from_s = time.perf_counter()
        with db.write() as tx:
            pruned = pruning.prune_deliveries(tx, found.keys, cut=cut)
        seconds.append(time.perf_counter() - from_s)
        assert pruned == pruning.AT_ONCE, pruned
        after = found.after
    return seconds


def _lines(kind: str, costs: _Costs) -> Iterator[Line]:
    for cost, what in (("claim", f"claiming {_AT_ONCE}"), ("both", f"claiming and settling {_AT_ONCE}")):
        full, empty = costs[f"{cost} full"], costs[f"{cost} empty"]
        name = f"{what} beside a million sent, {kind}"
        yield at_most(_MOST, name, "ms", ours=full, peer_name="an empty table", peer=empty)
    both = costs["both empty"]
    settled = [1000 * _AT_ONCE / cost for cost in both]
    yield noted(f"deliveries pruned, {kind}", "1/s", ours=costs["prune"], peer_name="claimed and settled", peer=settled)
    longest = f"longest transaction that prunes {pruning.AT_ONCE}, {kind}"
    yield noted(longest, "ms", ours=costs["longest"], peer_name=f"claiming and settling {_AT_ONCE}", peer=both)
