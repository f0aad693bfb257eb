"""Workers are killed, one after the other, while jobs go their ways; nothing may be lost.

CI is patient here: a job takes its next step only when the last one is on record. So every state it ever had must
become a transition, and a state that is missing was lost by the bridge and by nobody else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from random import Random

import requests
from sqlalchemy import select

from bridge.record.schema import jobs
from bridge.simulator.receiver import Received
from bridge.simulator.web import Answer, WebServer, text_answer
from tests.crash import gates, incidents
from tests.crash.ledger import Balance, balance
from tests.crash.points import ALARMS, AT_RANDOM, LONG_LIST, NEW_RULES, REQUEST_LEFT, SELDOM, WITHIN
from tests.crash.victim import victim
from tests.support.processes import Process
from tests.support.stage import BUCKET, RULES, Stage
from tests.support.waiting import wait_until

# As much as may be in flight at once: a kill then repeats as much as it ever can.
_WIDE = RULES.replace("max_in_flight = 8", "max_in_flight = 32").replace(
    'url = { env = "CMS_URL" }', 'url = { env = "CMS_URL" }\nmax_in_flight = 32'
)
WIDE_RULES = _WIDE + gates.RULES + incidents.RULES
_NEXT = {
    "Submitted": ("Running", "Running", "Running", "Pause", "Cancel"),
    "Pause": ("Submitted",),
    "Running": ("Success", "Success", "Failed"),
}
_DIES_WITHIN_S = 40.0
_MORE_EVERY_S = 2.0
_SLOW_S = 0.2  # a page of a list that is to go on in the next poll


@dataclass(frozen=True, slots=True)
class Kill:
    point: str
    at: float  # seconds since 1970
    as_planned: bool  # False: its point was not reached, and it was killed from outside


def _read_all(server: WebServer) -> None:
    """Wait until a server has read what a dead worker had sent: that belongs to its kill."""
    requests.get(server.url, timeout=60)  # connections are accepted in turn, so the worker's have been
    wait_until(lambda: not server.open_connections)


class Laboratory:
    """`new_jobs` are made, and about as many states changed, before each kill."""

    def __init__(self, stage: Stage, *, seed: int, new_jobs: int = 8, busy: float = 0.0) -> None:
        self._stage = stage
        self._random = Random(seed)
        self._new_jobs = new_jobs
        self._busy = busy
        self._asked: set[str] = set()
        self._target: tuple[Process, int] | None = None
        self.queues: dict[str, str] = {}  # of every job
        self.states: dict[str, str] = {}  # of those that go on
        self.kills: list[Kill] = []
        stage.refuse = self._answer

    # --- the world -----------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Make jobs, and let those go on whose last state is on record."""
        with self._stage.db.read() as tx:
            recorded = {row.id: row.state for row in tx.execute(select(jobs.c.id, jobs.c.state))}
        for job, state in list(self.states.items()):
            if recorded.get(job) != state:
                continue
            if state not in _NEXT:
                del self.states[job]
            else:
                self._move(job, self._random.choice(_NEXT[state]))
        self.bear()

    def bear(self) -> None:
        """Make new jobs."""
        for _ in range(self._new_jobs):
            tag, queue = self._random.choice(("Transcode", "Snapshot")), self._random.choice(("p1", "p2"))
            job = self._stage.ci.create(BUCKET, tag, queue)
            self.queues[job], self.states[job] = queue, "Submitted"

    def _move(self, job: str, state: str) -> None:
        code = "InvalidArgument" if state == "Failed" else None
        self._stage.ci.move(job, state, code=code, message=code)
        self.states[job] = state

    def _answer(self, received: Received) -> Answer | None:
        if self._target:
            worker, left = self._target
            self._target = (worker, left - 1) if left > 1 else None
            if left <= 1:
                worker.kill()
        if self._random.random() < self._busy and received.id not in self._asked:
            self._asked.add(received.id or "")
            return text_answer("busy", status=503)
        return None

    # --- kills ---------------------------------------------------------------------------------------------

    def kill(self, point: str, *, beside: int = 0) -> Kill:
        """Start a worker, with `beside` healthy ones, and let it die at `point`; return when it is dead."""
        others = [self._stage.start_worker() for _ in range(beside)]
        self._prepare(point)
        worker = self._start(point, first=bool(beside))
        self.advance()
        try:
            planned = self._await_death(worker, point)
        finally:
            self._target = None
            self._stage.ci.page_size_cap, self._stage.ci.fault = 100, None
            for other in others:
                self._stage.stop(other)
        for server in (self._stage.receiver, self._stage.slack):
            _read_all(server)
        self.kills.append(Kill(point, time.time(), planned))
        return self.kills[-1]

    def _prepare(self, point: str) -> None:
        stage = self._stage
        if point in NEW_RULES:
            with stage.rules_file.open("a") as rules:
                rules.write(f"# before kill {len(self.kills) + 1}\n")
        if point == LONG_LIST:
            stage.ci.page_size_cap = 1
            stage.ci.fault = lambda request: replace(stage.ci.honest(request), delay_s=_SLOW_S)

    def _start(self, point: str, *, first: bool) -> Process:
        # Connections are kept, and another worker may do the rest: the first chance may be the only one.
        after = 1 if first or point in SELDOM else self._random.randint(1, 4)
        if point in WITHIN:
            return self._stage.start_worker(victim, CRASH_AT=point, CRASH_AFTER=str(after))
        worker = self._stage.start_worker()
        if point == REQUEST_LEFT:
            self._target = (worker, after * 5)
        return worker

    def _await_death(self, worker: Process, point: str) -> bool:
        until = time.monotonic() + (self._random.uniform(0.6, 2.5) if point == AT_RANDOM else _DIES_WITHIN_S)
        more_at = time.monotonic() + _MORE_EVERY_S
        while worker.poll() is None and time.monotonic() < until:
            # A point that is to be reached again needs something to reach it by.
            if time.monotonic() > more_at and point not in ALARMS:
                self.advance()
                more_at = time.monotonic() + _MORE_EVERY_S
            time.sleep(0.01)
        died = worker.poll() is not None
        worker.kill()
        worker.wait(10)
        return died or point == AT_RANDOM

    # --- the end -------------------------------------------------------------------------------------------

    def settle(self, *, within_s: float = 120) -> Balance:
        """Let a healthy worker do what is left, and compare."""
        polled_at = self._stage.watch()["polled_at"]
        worker = self._stage.start_worker()
        wait_until(lambda: self._stage.watch()["polled_at"] != polled_at, why=lambda: self._stage.log[-3000:])
        wait_until(lambda: not gates.alarms_to_come(self._stage), why=lambda: self._stage.log[-3000:])
        wait_until(lambda: not incidents.to_come(self._stage), why=lambda: self._stage.log[-3000:])
        wait_until(self._stage.is_quiet, within_s=within_s, why=lambda: self._stage.log[-3000:])
        assert self._stage.stop(worker) == 0
        return balance(self._stage, self.queues, [kill.at for kill in self.kills])
