"""How soon states are known, and with how many calls: a simulated day of CI, asked in different ways.

A naive poller lists the whole lookback each time; a receiver of callbacks asks nothing, and knows ends only; the bridge
polls, without callbacks and with them. All see the same day of jobs; its time is simulated, what is stored is real.
"""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import Connection, event, select

from benchmarks.ci_day import BEGAN, PLACE, TAGS, CiDay, DayJob, a_day, seconds
from benchmarks.machine import Bench, Stores
from benchmarks.report import Line, at_most, noted
from bridge.decide.changes.scan import is_deep_due, overlap
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import DONE, IDS_PER_CALL, PAGE_SIZE, RUNNING, SUBMITTED, SUCCESS, Stream
from bridge.pipeline.hints import Hints
from bridge.pipeline.looks import Looks
from bridge.pipeline.poll import Poll
from bridge.pipeline.poller import Poller
from bridge.record.database import Database
from bridge.record.polling import hints, leases, snapshots
from bridge.record.schema import transitions
from bridge.wiring.parts import accept

_JOBS = 100_000
_DAY_S = 86_400.0
_EVERY_S = 30.0
_CALLBACK_S = 0.3  # from a job's end until CI has posted it
_LOOK_EVERY_S = 0.5
_SAMPLED = 7  # of so many polls one is compared with the least
_RULES = f"""
[defaults]
every = "{_EVERY_S:.0f}s"

[[watch]]
name = "day"
bucket = "{PLACE.bucket}"
region = "{PLACE.region}"
tags = {list(TAGS)}

[notifier.hook]
type = "webhook"
url = "http://127.0.0.1:1/"

[[rule]]
name = "ended"
to = "done"
notify = "hook"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What one way of asking has found out: calls, states, and how many seconds after its end each end was known."""

    calls: int
    states: int
    delays: Sequence[float]

    def delay(self, part: float) -> float:
        return sorted(self.delays)[int(part * (len(self.delays) - 1))]


def measure(_bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    jobs = a_day(Random(15), _JOBS)  # noqa: S311  (made-up jobs)
    return [*_of_day(stores, jobs), *_of_record(stores, rounds)]


def _of_day(stores: Stores, jobs: Sequence[DayJob]) -> Iterator[Line]:
    naive, callbacks = _naive(jobs), _callbacks_only(jobs)
    for what, hinted in (("polls alone", False), ("with callbacks", True)):
        day = _Day(jobs, hinted=hinted)
        ours = day.play(stores)
        median_s = 1.5 if hinted else _EVERY_S / 2
        yield _line(f"calls a day, {what}", "calls", ours.calls, "naive poller", naive.calls, most=0.1)
        yield _line(f"calls of a poll, {what}", "calls", day.asked, "least possible", day.least, most=1.15)
        yield _line(f"states known, {what}", "states", ours.states, "naive poller", naive.states)
        yield _line(f"states known, {what}", "states", ours.states, "callbacks alone", callbacks.states)
        yield _line(f"end known after, median, {what}", "s", ours.delay(0.5), "allowed", median_s, most=1)
        yield _line(f"end known after, p99, {what}", "s", ours.delay(0.99), "interval", _EVERY_S, most=1)
        yield _line(f"end known after, median, {what}", "s", ours.delay(0.5), "naive poller", naive.delay(0.5))


def _line(what: str, unit: str, ours: float, peer_name: str, peer: float, *, most: float | None = None) -> Line:
    if most is None:
        return noted(what, unit, ours=[ours], peer_name=peer_name, peer=[peer])
    return at_most(most, what, unit, ours=[ours], peer_name=peer_name, peer=[peer])


# --- the peers ------------------------------------------------------------------------------------------------------


def _naive(jobs: Sequence[DayJob]) -> _Known:
    """List all that the lookback has, of each tag, at each interval; as if that took no time."""
    by_tag = {tag: [job.created for job in jobs if job.tag == tag] for tag in TAGS}
    calls = sum(
        -(-max(1, bisect_left(created, poll * _EVERY_S)) // PAGE_SIZE)
        for created in by_tag.values()
        for poll in range(int(_DAY_S / _EVERY_S))
    )
    states, delays = 0, list[float]()
    for job in jobs:
        polls = [_polled(at) for at in (max(job.created, job.listed), job.started, job.ended)]
        seen = {SUBMITTED: polls[0] < _polled(job.started), RUNNING: polls[0] <= polls[1] < polls[2]}
        states += sum(seen.values()) + (polls[2] < _DAY_S)
        delays += [polls[2] - job.ended] if polls[2] < _DAY_S else []
    return _Known(calls=calls, states=states, delays=delays)


def _polled(at: float) -> float:
    """Return when the next poll after then begins."""
    return -(-at // _EVERY_S) * _EVERY_S


def _callbacks_only(jobs: Sequence[DayJob]) -> _Known:
    ended = [job for job in jobs if job.ended + _CALLBACK_S < _DAY_S]
    return _Known(calls=0, states=len(ended), delays=[_CALLBACK_S] * len(ended))


# --- the bridge -----------------------------------------------------------------------------------------------------


@contextmanager
def _poller(stores: Stores, ci: CiDay, book: Rulebook) -> Iterator[Poller]:
    with stores.empty("SQLite") as url:
        db = Database(url)
        try:
            event.listen(db.engine, "connect", _without_waiting)
            db.upgrade()
            with db.write() as tx:
                accept(tx, book, now=ci.clock())
            yield Poller(db=db, source=ci, clock=ci.clock, worker="day", monotonic=lambda: ci.now)
        finally:
            db.close()


def _without_waiting(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF").close()  # the day would last as long as the disk takes


@dataclass(slots=True)
class _Day:
    """The bridge's poller over a day, on the day's clock."""

    jobs: Sequence[DayJob]
    hinted: bool
    asked: int = 0  # calls of the polls that were compared
    least: int = 0  # that these could have made, at best
    ci: CiDay = field(init=False)
    book: Rulebook = field(init=False)

    def __post_init__(self) -> None:
        self.ci, self.book = CiDay(self.jobs), read(_RULES, {})

    def play(self, stores: Stores) -> _Known:
        with _poller(stores, self.ci, self.book) as poller:
            callbacks = _Callbacks(self.ci, self.book, poller) if self.hinted else None
            looks = Looks(poller=poller)
            polls, next_poll = 0, 0.0
            while self.ci.now < _DAY_S:
                if self.ci.now >= next_poll:
                    self._poll(poller, compare=polls % _SAMPLED == _SAMPLED - 1)
                    polls, next_poll = polls + 1, _next_poll(poller, self.book.watches[0].name)
                    _show_progress(self.ci.now)
                for watch in looks.due(self.book):
                    looks.ask(watch, self.book)
                if callbacks:
                    callbacks.take()
                times = [next_poll, callbacks.next_look() if callbacks else math.inf]
                if look_at := looks.next_due(self.book):
                    times.append(seconds(look_at))
                self.ci.now = max(self.ci.now, min(times))
            with poller.db.read() as tx:
                rows = tx.execute(select(transitions.c.job_id, transitions.c.state, transitions.c.seen_at)).all()
        ended = [row for row in rows if row.state in DONE]
        delays = [row.seen_at / 1000 - BEGAN.timestamp() - self.ci.jobs[row.job_id].ended for row in ended]
        return _Known(calls=self.ci.calls, states=len(rows), delays=delays)

    def _poll(self, poller: Poller, *, compare: bool) -> None:
        (watch,) = self.book.watches
        least = _least(poller.db, self.ci) if compare else None
        result = poller.poll_once(watch, self.book, within=watch.every)
        if least is not None and result:
            self.asked, self.least = self.asked + result.calls, self.least + least


class _Callbacks:
    """CI's callbacks, which a web process has stored, and the worker that looks for them twice a second."""

    def __init__(self, ci: CiDay, book: Rulebook, poller: Poller) -> None:
        self._ci, self._book, self._poller = ci, book, poller
        self._hints = Hints(poller=poller, monotonic=lambda: ci.now)
        self._to_come = deque(sorted((job.ended + _CALLBACK_S, job.id) for job in ci.jobs.values()))
        poller.between_calls = self._between_calls

    def next_look(self) -> float:
        """Return when the worker looks after the next callback has come."""
        return math.ceil(self._to_come[0][0] / _LOOK_EVERY_S) * _LOOK_EVERY_S if self._to_come else math.inf

    def take(self) -> None:
        """Store what has come, and ask for it."""
        if self._store():
            self._hints.ask(PLACE.bucket, self._book)

    def _between_calls(self, poll: Poll) -> None:
        self._store()
        self._hints.ask_between(poll)

    def _store(self) -> bool:
        ids = []
        while self._to_come and self._to_come[0][0] <= self._ci.now:
            ids.append(self._to_come.popleft()[1])
        if ids:
            with self._poller.db.write() as tx:
                hints.put(tx, PLACE.bucket, ids, now=self._ci.clock())
        return bool(ids)


def _next_poll(poller: Poller, watch: str) -> float:
    with poller.db.read() as tx:
        (row,) = leases.polls(tx, [watch])
    return row.next_poll_at / 1000 - BEGAN.timestamp()


def _show_progress(now: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{now / _DAY_S:.0%} of the day", end="", file=sys.stderr, flush=True)


# --- the least calls with which a poll can see all that is unfinished and all that may be new -----------------------


def _least(db: Database, ci: CiDay) -> int | None:
    """Try every list of all jobs, with every list of unfinished ones, for each tag; the rest is asked for by id.

    None: this poll lists an hour once more, which no plan may leave out.
    """
    with db.read() as tx:
        listed = snapshots.listed(tx, [Stream(place=PLACE, tag=tag).key for tag in TAGS])
    if len(listed) < len(TAGS) or any(is_deep_due(known.deep_at, now=ci.clock()) for known in listed.values()):
        return None
    by_lists = {0: 0}  # calls for lists -> the fewest jobs that they leave
    for ways in (_ways(db, ci, tag) for tag in TAGS):
        joined: dict[int, int] = {}
        for calls, left in by_lists.items():
            for more_calls, more_left in ways.items():
                key = calls + more_calls
                joined[key] = min(joined.get(key, left + more_left), left + more_left)
        by_lists = joined
    return min(calls + -(-left // IDS_PER_CALL) for calls, left in by_lists.items())


def _ways(db: Database, ci: CiDay, tag: str) -> dict[int, int]:
    """Return, for each number of list calls for a tag, the fewest jobs that they leave to be asked for by id."""
    stream = Stream(place=PLACE, tag=tag)
    with db.read() as tx:
        listed = snapshots.listed(tx, [stream.key])[stream.key]
        unfinished = snapshots.unfinished(tx, [stream.key])
    if listed.mark is None:
        raise RuntimeError(f"{tag} has not been listed to the end")
    latest = seconds(listed.mark - overlap(listed.lag))
    older = [(seconds(job.created_at) - 1, ci.jobs[job.job_id].ended > ci.now) for job in unfinished]
    older = [job for job in older if job[0] + 1 < latest]
    still = [since for since, is_unfinished in older if is_unfinished]
    best: dict[int, int] = {}
    for since in (latest, *(since for since, _ in older)):
        pages = max(1, -(-ci.count(tag, since) // PAGE_SIZE))
        not_shown = bisect_left(older, (since,))
        best[pages] = min(best.get(pages, not_shown), not_shown)
        for first in (first for first in still if first < since):
            by_state = bisect_left(still, since) - bisect_left(still, first)
            calls, left = pages + -(-by_state // PAGE_SIZE), not_shown - by_state
            best[calls] = min(best.get(calls, left), left)
    return best


# --- what a poll costs beside many jobs that have ended -------------------------------------------------------------

_FEW, _MANY, _UNFINISHED, _POLLS = 1_000, 100_000, 50, 20


def _of_record(stores: Stores, rounds: int) -> Iterator[Line]:
    """Poll beside many jobs on record, and beside few, in turns."""
    with _recorded(stores, _FEW) as few, _recorded(stores, _MANY) as many:
        costs = [(_cost(many), _cost(few)) for _ in range(rounds)]
    for what, unit, part in (("CPU of a poll", "ms", 0), ("steps of SQLite in a poll", "steps", 1)):
        ours, peer = [many[part] for many, _ in costs], [few[part] for _, few in costs]
        yield at_most(1.5, f"{what}, {_MANY:,} ended jobs", unit, ours=ours, peer_name=f"{_FEW:,} ended", peer=peer)


@contextmanager
def _recorded(stores: Stores, ended: int) -> Iterator[tuple[CiDay, Rulebook, Poller]]:
    """Yield a poller that has seen so many jobs end, and some that go on; these were created over twenty hours."""
    over_s = 20 * 3600.0

    def job(number: int, of: int, ended: float) -> DayJob:
        created = over_s * number / of
        return DayJob(
            id=f"j{ended < _DAY_S:d}{number:031x}", tag=TAGS[0], created=created, listed=created,
            started=created + 1, ended=created + ended, final=SUCCESS,
        )  # fmt: skip

    jobs = [*(job(n, ended, 60) for n in range(ended)), *(job(n, _UNFINISHED, 2 * _DAY_S) for n in range(_UNFINISHED))]
    ci, book = CiDay(sorted(jobs, key=lambda job: job.created)), read(_RULES, {})
    ci.now = over_s + 600
    with _poller(stores, ci, book) as poller:
        _poll(ci, book, poller)
        yield ci, book, poller


def _poll(ci: CiDay, book: Rulebook, poller: Poller) -> None:
    (watch,) = book.watches
    poller.poll_once(watch, book)
    ci.now = max(ci.now, _next_poll(poller, watch.name))


def _cost(polled: tuple[CiDay, Rulebook, Poller]) -> tuple[float, float]:
    """Return the CPU time of a poll in ms, and how many steps SQLite takes for it."""
    ci, book, poller = polled
    began = time.process_time()
    for _ in range(_POLLS):
        _poll(ci, book, poller)
    cpu_ms = 1000 * (time.process_time() - began) / _POLLS
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    def begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(step, 1)

    event.listen(poller.db.engine, "begin", begin)
    _poll(ci, book, poller)
    event.remove(poller.db.engine, "begin", begin)
    return cpu_ms, steps


if __name__ == "__main__":
    from benchmarks.__main__ import main

    raise SystemExit(main(["freshness"]))
