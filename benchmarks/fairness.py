"""Live receivers beside a dead one for which 100,000 deliveries wait: how old a delivery is when it arrives.

The whole bridge, as a process: jobs end in a simulated CI, the worker polls them and tells four live receivers. The
same run without the backlog is the peer. The dead receiver takes connections and never answers, or refuses them.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import quantiles

from sqlalchemy import func, select

from benchmarks.bench_bridge import now
from benchmarks.deliveries import BUCKET, REGION, SECRET, TAG, new_deliveries, rulebook
from benchmarks.machine import Bench, Stores, settle_statistics, wait_until
from benchmarks.report import Line, at_most, noted
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import SUCCESS
from bridge.notifiers import WebhookNotifier
from bridge.record.database import Database, at
from bridge.record.outbox import entries
from bridge.record.polling import leases
from bridge.record.schema import attempts, deliveries, jobs
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.receiver import WebhookReceiver

_BACKLOG, _LIVE = 100_000, 400
_OVER_S = 20.0  # so long do the live ones take to come, ten at a time
_AT_ONCE, _RECEIVERS = 10, 4
_MOST = 1.5
_MAX_IN_FLIGHT = 4
_KINDS = ("never answers", "refuses")

_NOTIFIER = """
[notifier.{name}]
type = "webhook"
url = "{url}"
secret = {{ env = "SECRET" }}
max_in_flight = {in_flight}
"""
_RULES = """
[defaults]
every = "1s"
rate = "1000/s"
[[watch]]
name = "bench"
bucket = "{bucket}"
region = "{region}"
tags = ["{tag}"]
{notifiers}
[[rule]]
name = "live"
to = "Success"
notify = [{live}]
[[rule]]
name = "dead"
match.queue = "nobody's"
notify = "dead"
"""


@dataclass(frozen=True, slots=True)
class _Run:
    p99_ms: float
    attempts: int = 0  # on the dead one
    at_once: int = 0  # of these, as the receiver saw them


def measure(bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    lines: list[Line] = []
    for kind in stores.kinds:
        for how in _KINDS:
            with_it, without = [], []
            for _ in range(rounds):
                without.append(_run(bench, stores, kind, how, backlog=0))
                with_it.append(_run(bench, stores, kind, how, backlog=_BACKLOG))
            lines += _lines(kind, how, with_it, without)
    return lines


def _lines(kind: str, how: str, with_it: Sequence[_Run], without: Sequence[_Run]) -> Iterator[Line]:
    yield at_most(
        _MOST,
        f"99th percentile of age, {kind}, dead one {how}",
        "ms",
        ours=[run.p99_ms for run in with_it],
        peer_name="no backlog",
        peer=[run.p99_ms for run in without],
    )
    yield noted(
        f"attempts on the dead one in {_OVER_S:g} s",
        "",
        ours=[run.attempts for run in with_it],
        peer_name="in flight at most",
        peer=[max(run.at_once, 1) for run in with_it],
    )
    if any(run.at_once > _MAX_IN_FLIGHT for run in with_it):
        raise RuntimeError(f"more than {_MAX_IN_FLIGHT} at once on the dead one: {[run.at_once for run in with_it]}")


def _run(bench: Bench, stores: Stores, kind: str, how: str, *, backlog: int) -> _Run:
    with ExitStack() as stack:
        database = stack.enter_context(stores.empty(kind))
        ci = stack.enter_context(CiSimulator())
        live = [stack.enter_context(WebhookReceiver(secrets=[SECRET])) for _ in range(_RECEIVERS)]
        dead = stack.enter_context(_black_hole())
        url = dead.url if how == "never answers" else "http://127.0.0.1:9/hook"
        text = _rules({"dead": url, **{f"live{n}": one.url for n, one in enumerate(live)}})
        db = Database(database)
        stack.callback(db.close)
        _fill(db, read(text, {"SECRET": SECRET}), backlog)
        settle_statistics(database)
        worker = bench.start([sys.executable, "-m", "bridge", "worker"], environ=_environ(database, text, ci.url))
        stack.callback(bench.stop, worker)
        ages_ms = _tell(db, ci, live)
        tried = _tried(db)
    return _Run(quantiles(ages_ms, n=100)[98], tried, dead.most)


def _rules(urls: dict[str, str]) -> str:
    notifiers = "".join(_NOTIFIER.format(name=name, url=url, in_flight=_MAX_IN_FLIGHT) for name, url in urls.items())
    live = ", ".join(f'"{name}"' for name in urls if name != "dead")
    return _RULES.format(bucket=BUCKET, region=REGION, tag=TAG, notifiers=notifiers, live=live)


def _environ(database: str, rules: str, ci_url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database,
        "BRIDGE_RULES_TOML": rules,
        "BRIDGE_CI_ENDPOINT": ci_url,
        "BRIDGE_ALLOW_NETWORKS": "127.0.0.0/8",
        "TENCENTCLOUD_SECRET_ID": DEMO_SECRET_ID,
        "TENCENTCLOUD_SECRET_KEY": DEMO_SECRET_KEY,
        "SECRET": SECRET,
    }


def _fill(db: Database, book: Rulebook, backlog: int) -> None:
    db.upgrade()
    hook = rulebook(next(one.url for one in book.notifiers.values() if isinstance(one, WebhookNotifier)))
    with db.write() as tx:
        leases.sync(tx, book.watches, [(one, "webhook") for one in book.notifiers.values()])
    for start in range(0, backlog, 1000):
        deliveries = [replace(one, notifier="dead") for one in new_deliveries(hook, range(start, start + 1000))]
        with db.write() as tx:
            entries.put(tx, deliveries, now=now())


def _tell(db: Database, ci: CiSimulator, live: Sequence[WebhookReceiver]) -> list[float]:
    """End jobs in CI, a few at a time, and return how old each delivery was when its receiver had it."""
    first = ci.create(BUCKET, TAG, "p1")
    wait_until(lambda: _is_known(db, first), "the first poll")
    for _ in range(_LIVE // _RECEIVERS // _AT_ONCE):
        for _ in range(_AT_ONCE):
            ci.move(ci.create(BUCKET, TAG, "p1"), SUCCESS)
        time.sleep(_OVER_S / (_LIVE // _RECEIVERS // _AT_ONCE))
    arrived = {one.id: one.at for receiver in live for one in receiver.received if one.verified}
    if len(arrived) != _LIVE:
        raise RuntimeError(f"{len(arrived)} of {_LIVE} arrived")
    with db.read() as tx:
        rows = tx.execute(select(deliveries.c.id, deliveries.c.created_at).where(deliveries.c.notifier != "dead")).all()
    return [1000 * (arrived[row.id] - at(row.created_at).timestamp()) for row in rows]


def _is_known(db: Database, job_id: str) -> bool:
    with db.read() as tx:
        return tx.execute(select(jobs.c.n).where(jobs.c.id == job_id)).first() is not None


def _tried(db: Database) -> int:
    ours = select(func.count()).select_from(attempts.join(deliveries, attempts.c.delivery == deliveries.c.n))
    with db.read() as tx:
        return int(tx.execute(ours.where(deliveries.c.notifier == "dead")).scalar_one())


class _BlackHole:
    """Takes every connection and says nothing; `most` is how many were open at once."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._bell, self._ring = socket.socketpair()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook"
        self.most = 0

    def serve(self) -> None:
        open_: set[socket.socket] = set()
        with selectors.DefaultSelector() as waiting:
            for one in (self._listener, self._bell):
                waiting.register(one, selectors.EVENT_READ)
            while True:
                for key, _ in waiting.select():
                    one = key.fileobj
                    if one is self._bell:
                        for left in open_:
                            left.close()
                        return
                    if one is self._listener:
                        taken, _ = self._listener.accept()
                        open_.add(taken)
                        waiting.register(taken, selectors.EVENT_READ)
                        self.most = max(self.most, len(open_))
                    elif isinstance(one, socket.socket) and not _heard(one):
                        waiting.unregister(one)
                        open_.discard(one)
                        one.close()

    def close(self) -> None:
        self._ring.send(b"x")


def _heard(one: socket.socket) -> bytes:
    try:
        return one.recv(1 << 16)
    except OSError:
        return b""


@contextmanager
def _black_hole() -> Iterator[_BlackHole]:
    hole = _BlackHole()
    thread = threading.Thread(target=hole.serve)
    thread.start()
    try:
        yield hole
    finally:
        hole.close()
        thread.join()
