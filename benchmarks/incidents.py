"""What rules over several jobs cost a poll, beside a million transitions on record and ten thousand open keys.

Two pollers see the same CI, one with such rules and one without, each with a record of its own, in turns. What a poll
costs is all of it: the call, the pages with what counts for incidents, and their judgement at the end.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, text

from benchmarks.ci_day import PLACE, TAGS, CiDay, DayJob
from benchmarks.machine import Bench, Stores
from benchmarks.report import Line, at_most
from bridge.decide.rules.incidents import incident_id, key_of
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import FAILED, SUBMITTED, SUCCESS, IncidentJob
from bridge.pipeline.poller import Poller
from bridge.record import incidents
from bridge.record.codec import dump_job
from bridge.record.database import Database, ms
from bridge.record.incidents import NewKey
from bridge.wiring.parts import accept

_TRANSITIONS, _KEYS = 1_000_000, 10_000
_EVERY_S, _JOBS, _POLLS = 30.0, 100, 20  # so many jobs come and end between two polls
_BEGAN_S = 40_000.0
_WATCH = f"""
[[watch]]
name = "day"
bucket = "{PLACE.bucket}"
region = "{PLACE.region}"
tags = ["{TAGS[0]}"]
every = "30s"
[notifier.ops]
type = "webhook"
url = "https://ops.example.com/hook"
[[rule]]
name = "failed"
to = "Failed"
notify = "ops"
"""
_RULES = """
[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 50"
within = "10m"
notify = "ops"
[[rule]]
name = "asset"
all = "done"
by = ["input"]
settle = "20d"
notify = "ops"
[[rule]]
name = "silent"
absent = "Success"
for = "2h"
notify = "ops"
[[rule]]
name = "backlog"
in = "active"
for = "10m"
by = ["queue"]
count = "> 50"
unless = "silent"
notify = "ops"
"""


def measure(_bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    return [line for kind in stores.kinds for line in _of_kind(stores, kind, rounds)]


def _of_kind(stores: Stores, kind: str, rounds: int) -> Iterator[Line]:
    """Yield what polls cost on a kind of database; of PostgreSQL's own work, the time that it takes counts."""
    jobs = _jobs(_POLLS * (rounds + 1) * 2 + 4)
    with _poller(stores, kind, jobs, _WATCH) as plain, _poller(stores, kind, jobs, _WATCH + _RULES) as ours:
        costs = [(_cost(ours), _cost(plain)) for _ in range(rounds)]
    for what, unit in _WHATS:
        if any(what in mine for mine, _ in costs):
            yield at_most(
                2.0,
                f"{what}, {kind}, rules over several jobs, {_KEYS:,} open keys",
                unit,
                ours=[mine[what] for mine, _ in costs],
                peer_name="without",
                peer=[other[what] for _, other in costs],
            )


_CPU, _TIME, _STEPS, _MEMORY = "CPU of a poll", "time of a poll", "steps of SQLite in a poll", "most memory of a poll"
_WHATS = ((_CPU, "ms"), (_TIME, "ms"), (_STEPS, "steps"), (_MEMORY, "kB"))


def _jobs(polls: int) -> list[DayJob]:
    """Return jobs that run for a minute, so many for each time between two polls, of assets that come again."""
    made = []
    for number in range(polls * _JOBS):
        created = _BEGAN_S + number * _EVERY_S / _JOBS
        made.append(
            DayJob(
                id=f"j{number:032x}", tag=TAGS[0], created=created, listed=created, started=created + 5,
                ended=created + 65, final=FAILED if number % 10 == 0 else SUCCESS, input=f"assets/{number % _KEYS}.mp4",
            )
        )  # fmt: skip
    return made


Polled = tuple[CiDay, Rulebook, Poller]


@contextmanager
def _poller(stores: Stores, kind: str, jobs: Sequence[DayJob], rules: str) -> Iterator[Polled]:
    ci, book = CiDay(jobs), read(rules, {})
    ci.now = _BEGAN_S
    with stores.empty(kind) as url:
        db = Database(url)
        try:
            if kind == "SQLite":
                event.listen(db.engine, "connect", _without_waiting)
            db.upgrade()
            with db.write() as tx:
                accept(tx, book, now=ci.clock())
                _fill(tx, ci, _TRANSITIONS)
                _open_keys(tx, book, ci)
            poller = Poller(db=db, source=ci, clock=ci.clock, worker="day", monotonic=lambda: ci.now)
            for _ in range(4):
                _poll((ci, book, poller))
            yield ci, book, poller
        finally:
            db.close()


def _without_waiting(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF").close()


def _fill(tx: Connection, ci: CiDay, transitions: int) -> None:
    """Put past jobs on record, each with three transitions."""
    detail = dump_job(ci._seen(next(iter(ci.jobs.values()))))
    series = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :count) "
    job = (
        "INSERT INTO job (bucket, id, stream, tag, queue, state, open, sequence, created_at, changed_at, detail) "
        "SELECT :bucket, 'old' || n, :stream, :tag, 'p1', 'Success', :open, 3, :at - n, :at - n, :detail FROM s"
    )
    step = (
        "INSERT INTO transition (bucket, job_id, sequence, was, state, tag, queue, watch, happened_at, seen_at, "
        "verdicts, detail) SELECT :bucket, 'old' || ((n + 2) / 3), (n + 2) % 3 + 1, 'new', 'Success', :tag, 'p1', "
        "'day', :at - n, :at - n, '[]', :detail FROM s"
    )
    values = {"bucket": PLACE.bucket, "tag": TAGS[0], "at": ms(ci.clock()) - 86_400_000, "detail": detail}
    stream = f"{PLACE.bucket}|{TAGS[0]}||||"
    tx.execute(text(series + job), values | {"count": transitions // 3, "stream": stream, "open": False})
    tx.execute(text(series + step), values | {"count": transitions})


def _open_keys(tx: Connection, book: Rulebook, ci: CiDay) -> None:
    """Let each asset wait for a job that does not end, where the rules have any."""
    if not book.matcher.incidents:
        return
    now, by = ci.clock(), [(("input", f"assets/{number}.mp4"),) for number in range(_KEYS)]
    keys = [(key_of("asset", values), values) for values in by]
    new = [
        NewKey(key=key, id=incident_id(key, 1), kind="fanin", by=values, generation=1, since=now)
        for key, values in keys
    ]
    begun = incidents.begin(tx, new).values()
    waits = IncidentJob(bucket=PLACE.bucket, job_id="waits", sequence=1, state=SUBMITTED, happened_at=now, counts=False)
    incidents.add_jobs(tx, [(one.n, waits) for one in begun])
    incidents.change_all(tx, {one.n: {"due_at": None} for one in begun})


def _poll(polled: Polled) -> None:
    ci, book, poller = polled
    (watch,) = book.watches
    ci.now += _EVERY_S
    poller.poll_once(watch, book)


def _cost(polled: Polled) -> dict[str, float]:
    """Return what a poll costs, in the units of _WHATS."""
    began, since = time.process_time(), time.perf_counter()
    for _ in range(_POLLS):
        _poll(polled)
    cpu_ms, time_ms = 1000 * (time.process_time() - began) / _POLLS, 1000 * (time.perf_counter() - since) / _POLLS
    steps = _steps(polled) if polled[2].db.engine.dialect.name == "sqlite" else None
    tracemalloc.start()
    _poll(polled)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {_CPU: cpu_ms, _MEMORY: peak / 1000} | ({_TIME: time_ms} if steps is None else {_STEPS: steps})


def _steps(polled: Polled) -> int:
    """Poll, and return how many steps SQLite takes for it."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    def begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(step, 1)

    db = polled[2].db
    event.listen(db.engine, "begin", begin)
    _poll(polled)
    event.remove(db.engine, "begin", begin)
    return steps


if __name__ == "__main__":
    from benchmarks.__main__ import main

    raise SystemExit(main(["incidents"]))
