"""One world: a CI that misbehaves, two workers on one database, a receiver with tempers, and the oracle."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from bridge import wiring
from bridge.decide.rulebook import Rulebook
from bridge.model import Watch
from bridge.pipeline import Poll
from bridge.record import leases, outbox
from bridge.record.leases import LEASE
from bridge.simulator.web import Answer, Request
from tests.world import events, record
from tests.world.events import Event, Truly, Way, dated
from tests.world.hearing import Hearing
from tests.world.jobs import Jobs
from tests.world.oracle import FINAL, GONE, Oracle, Question, Stream, Whole
from tests.world.scenery import REGION, Ears, Scenery, rules
from tests.world.workers import Worker

LONG_BEFORE = timedelta(hours=20)  # less than the lookback of a day
_TURNS = 500


@dataclass
class Asking:
    """One poll under way: who polls, and how the next answers arrive."""

    worker: int
    lists: deque[Way]
    by_id: deque[Way]
    fenced: bool = False
    halted: bool = False
    spoilt: bool = False

    def next(self, question: Question) -> Way:
        ways = self.lists if question.stream else self.by_id
        return ways.popleft() if ways else Truly()


@dataclass
class World:
    scenery: Scenery
    skew_s: int = 0
    page_size: int = 100
    announce: bool = False
    ears: Ears = field(default_factory=Ears)

    def __post_init__(self) -> None:
        self.time, self.ci, self.db = self.scenery.time, self.scenery.ci, self.scenery.db
        self.bucket = self.scenery.new_world(self.ears)
        self.ci.skew_s, self.ci.page_size_cap, self.ci.fault = self.skew_s, self.page_size, self._answer
        self.oracle = Oracle(timedelta(seconds=self.skew_s), self.announce)
        self.hearing = Hearing(self.ears, self.oracle)
        self._births = itertools.count(1)
        self.jobs = Jobs(self.ci, self.time, self.bucket)
        self._asking: list[Asking] = []
        self._history: dict[object, list[Answer]] = defaultdict(list)
        self._endless: dict[Stream | None, Answer] = {}
        self._troubles: list[BaseException] = []
        self._held_until: datetime | None = None
        self._deceived: set[str] = set()  # jobs that CI denied although it has them
        self._books: dict[str, Rulebook] = {}
        self.put_in_force("all")
        self.workers = [self._worker(n) for n in range(2)]

    def close(self) -> None:
        self.ci.fault = None
        for worker in self.workers:
            worker.outbound.close(0)

    def happen(self, *happened: Event) -> None:
        self.jobs.happen(*happened)

    # --- answers on their way (events.Road) ------------------------------------------------------------------------

    def now_s(self) -> float:
        return self.ci.now()

    def earlier(self, back: int, *, any_page: bool = False) -> Answer | None:
        question = self._question
        if question.token and not any_page:
            return None  # no later page is asked for again: its token is bound to the creation time asked from
        found = self._history[question.stream or question.ids if any_page else question]
        return found[-min(back, len(found))] if found else None

    def poll_by_rival(self) -> None:
        asked = len(self.ci.requests)
        rival = self.workers[1 - self._asking[-1].worker]
        assert rival.poller.poll_once(self.book.watches[0], self.book) is None, "two polled one bucket at once"
        assert len(self.ci.requests) == asked, "a worker without the lease asked CI"

    def poll_while_away(self) -> None:
        here = self._asking[-1]
        self.time.advance(LEASE.total_seconds() + 1)
        here.fenced = True
        self.poll(1 - here.worker, 0)

    def halt(self) -> None:
        self._asking[-1].halted = True

    def deceive(self) -> tuple[str, ...]:
        self._deceived.update(self._question.ids)
        return self._question.ids

    def _answer(self, request: Request) -> Answer:
        try:
            return self._spoilt(request)
        except BaseException as trouble:  # raised again by `poll`, in the test's own thread
            self._troubles.append(trouble)
            raise

    def _spoilt(self, request: Request) -> Answer:
        question, here = _question(request), self._asking[-1]
        true = self._true(request, question)
        if true.status != 200:
            here.spoilt |= true.status != 403  # that is about our clock, and is mended on the way
            return true
        way = here.next(question)
        self._question = question
        answer = way.spoil(true, self)
        sound = Truly | events.Late | events.Mixed | events.Reversed | events.Dated | events.Denied
        here.spoilt |= not isinstance(way, sound)
        if way.whole:
            for asked in (question.stream or question.ids, question):
                self._history[asked].append(answer)
            if events.ENDLESS.encode() in answer.body:
                self._endless[question.stream] = answer
            said = answer.headers["Date"]
            date = None if said == "yesterday" else parsedate_to_datetime(said)
            self.oracle.hears(question, Whole.read(answer.body), date, self.time())
        return answer

    def _true(self, request: Request, question: Question) -> Answer:
        if question.token == events.ENDLESS:
            return dated(self._endless[question.stream], self.ci.now())
        return dated(self.ci.honest(request, record=False), self.ci.now())

    # --- polls -----------------------------------------------------------------------------------------------------

    def poll(self, worker: int, watch: int, lists: Sequence[Way] = (), by_id: Sequence[Way] = ()) -> Poll | None:
        """Poll a watch now, whatever it waits for, and compare the record with the oracle."""
        asked = self.book.watches[watch % len(self.book.watches)]
        here, began = Asking(worker, deque(lists), deque(by_id)), self.time()
        free = self._held_until is None or began > self._held_until
        if free:
            self._held_until = None
            self.jobs.asked_for = True
            every = [_stream(stream) for one in self.book.watches for stream in one.streams]
            self.oracle.poll_begins(asked.name, map(_stream, asked.streams), every, began, asked.every)
        self._asking.append(here)
        try:
            found = self.workers[worker].poller.poll_once(asked, self.book)
        finally:
            self._asking.pop()
            if self._troubles:
                raise self._troubles[0]
        assert free or not found, "polled under another's lease"
        if found is not None and found.error is None:
            self.oracle.poll_completes(asked.name, began)
        if free and not here.spoilt:
            assert found is not None, "a poll was given up for nothing"
            assert found.error is None
        assert not here.fenced or found is None, "a poll went on without its lease"
        if not self._asking:
            record.compare(self.db, self.oracle)
        return found

    def poll_what_is_due(self, worker: int, early: timedelta = timedelta(0)) -> list[Watch]:
        due = self.workers[worker].poller.due(self.book.watches, early=early)
        for watch in due:
            self.poll(worker, self.book.watches.index(watch))
        return due

    def pause_watch(self, watch: int, *, paused: bool) -> None:
        name = self.book.watches[watch % len(self.book.watches)].name
        with self.db.write() as tx:
            assert leases.set_watch(tx, name, paused=paused)
        if paused:
            assert name not in [one.name for one in self.workers[0].poller.due(self.book.watches)]

    def a_dead_worker_holds_the_bucket(self) -> None:
        with self.db.write() as tx:
            if leases.acquire(tx, self.bucket, "dead", now=self.time()):
                self._held_until = self.time() + LEASE

    def put_in_force(self, which: str) -> None:
        if which not in self._books:
            self._books[which] = self.scenery.book(rules(self.bucket, which, announce=self.announce))
        self.book = self._books[which]
        wiring.sync(self.db, self.book)

    # --- deliveries ------------------------------------------------------------------------------------------------

    def deliver(self, worker: int) -> None:
        """Deliver what is due, and compare what was heard with the oracle."""
        courier = self.workers[worker].courier
        for _ in range(_TURNS):
            if not courier.turn() and not courier.unfinished:
                break
        else:
            raise AssertionError(f"still not at rest after {_TURNS} turns")
        self.hearing.compare()

    def turn_once(self, worker: int) -> None:
        """Claim and send, and record nothing of what came of it."""
        before = self.hearing.count()
        self.workers[worker].courier.turn()
        self.hearing.may_repeat(before)

    def courier_dies(self, worker: int) -> None:
        self.turn_once(worker)
        self.replace(worker)

    def courier_stalls(self, worker: int, temper: str, *, long: bool) -> None:
        """Its leases run out; the other worker sends again, and this one wants to record what came of it.

        `long`: when the other has recorded its own. Else while that is still to be done.
        """
        self.turn_once(worker)
        self.ears.temper.update({"/cms": temper, "/next": temper})
        self._watch_leases_run_out(1 - worker, last=self.deliver if long else lambda w: self.workers[w].courier.turn())
        self.deliver(worker)
        self.deliver(1 - worker)

    def _watch_leases_run_out(self, worker: int, last: Callable[[int], object] | None = None) -> None:
        """Let a worker see for long enough that others' claims do not end: it counts at most ten seconds a look."""
        for _ in range(4):
            self.time.advance(10)
            self.deliver(worker)
        self.time.advance(10)
        (last or self.deliver)(worker)

    def replace(self, worker: int) -> None:
        self.workers[worker].outbound.close(0)
        self.workers[worker] = self._worker(worker)

    def resume(self, notifier: str) -> None:
        with self.db.write() as tx:
            assert outbox.resume(tx, notifier)

    def _worker(self, number: int) -> Worker:
        return Worker.new(
            self.scenery,
            f"w{next(self._births)}",
            client=number,
            book=lambda: self.book,
            halted=lambda: self._asking[-1].halted,
        )

    # --- the end ---------------------------------------------------------------------------------------------------

    def calm_down(self) -> None:
        """Let every fault end and time pass; then all must be on record and told, and nothing wait."""
        self.put_in_force("all")
        self.ears.temper.clear()
        for notifier in ("cms", "next"):
            self.resume(notifier)
        self.pause_watch(0, paused=False)
        for day in range(3):
            self.time.advance(25 * 3600)
            assert self.poll_what_is_due(day % 2) == list(self.book.watches), "not due after a day"
            for worker in (0, 1):
                self._watch_leases_run_out(worker)
        self.compare_the_end()

    def compare_the_end(self) -> None:
        self.hearing.compare_the_end()
        assert record.waiting(self.db) == 0
        for job in self.jobs.ids:
            self._compare_last(job, self.ci.history(job)[-1])

    def _compare_last(self, job: str, truth: str) -> None:
        steps = self.oracle.steps.get(job)
        if not steps:
            asked_from = self.oracle.streams[Stream(self.jobs.created[job].tag, None)].asked_at - LONG_BEFORE
            assert job in self.jobs.unlisted or self.jobs.created[job].at < asked_from, f"{job} is nowhere"
            return
        last = steps[-1].to
        denied = job in self.jobs.forgotten or (job in self._deceived and last == GONE)
        assert last == truth or (denied and last in (*FINAL, GONE)), (job, last, truth)


def _stream(one: object) -> Stream:
    return Stream(one.tag, one.queue)  # type: ignore[attr-defined]


def _question(request: Request) -> Question:
    assert request.headers["host"].partition(".")[2].startswith(f"ci.{REGION}.")
    if request.path != "/jobs":
        return Question(ids=tuple(request.path.removeprefix("/jobs/").split(",")))
    asked = dict(request.query)
    return Question(Stream(asked["tag"], asked.get("queueId")), asked.get("nextToken"))
