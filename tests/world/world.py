"""One world: a CI that misbehaves, two workers on one database, a receiver with tempers, and the oracle."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import formatdate, parsedate_to_datetime
from functools import partial

from bridge.collect.callbacks import NamedJob
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Watch
from bridge.pipeline import callbacks
from bridge.pipeline.poll import Poll, PollResult
from bridge.record.outbox import entries
from bridge.record.polling import hints, leases
from bridge.record.polling.leases import BUCKET_LEASE
from bridge.simulator.web import Answer, Request
from bridge.wiring import parts
from tests.world import events, record
from tests.world.events import Arrival, Event, Heal, Pass, Truly, dated
from tests.world.incidents import Incidents
from tests.world.jobs import Jobs
from tests.world.oddities import FIELDS
from tests.world.oracle import FINAL, GONE, Oracle, Question, Stream
from tests.world.received import ReceivedCheck
from tests.world.scenery import DAWN, REGION, Inbox, Scenery, rules
from tests.world.workers import Worker

LONG_BEFORE = timedelta(hours=20)  # less than the lookback of a day
DATES: dict[str, int | None] = {  # CI's Date, where it is not that of its own clock
    "right": 0, "10 min ahead": 600, "10 min behind": -600, "8 h ahead": 28_800, "8 h behind": -28_800, "missing": None,
}  # fmt: skip
STUCK = "stuck"
_TURNS = 500
# However an answer is changed so, the poll is complete.
_HARMLESS = (Truly, events.Late, events.Mixed, events.Reversed, events.Dated, events.Denied)


@dataclass
class Asking:
    """One poll under way: who polls, and how the next answers arrive."""

    worker: int
    lists: deque[Arrival]
    by_id: deque[Arrival]
    fenced: bool = False
    halted: bool = False
    spoilt: bool = False
    plain: bool = True  # every answer arrived as CI made it
    hinted: bool = False  # what is asked for now was named by a callback

    def next(self, question: Question) -> Arrival:
        arrivals = self.lists if question.stream else self.by_id
        return arrivals.popleft() if arrivals else Truly()


@dataclass
class World:
    scenery: Scenery
    skew_s: int = 0
    dates: str = "right"
    page_size: int = 100
    announce: bool = False
    ignores: tuple[str, ...] = ()  # parameters of lists
    inbox: Inbox = field(default_factory=Inbox)

    def __post_init__(self) -> None:
        self.time, self.ci, self.db = self.scenery.time, self.scenery.ci, self.scenery.db
        self.bucket = self.scenery.new_world(self.inbox)
        self.ci.skew_s, self.ci.page_size_cap, self.ci.fault = self.skew_s, self.page_size, self._answer
        self.ci.ignores = frozenset(self.ignores)
        self.oracle = Oracle(timedelta(seconds=self.skew_s), self.announce, self.time)
        self.incidents = Incidents(self.oracle)
        self.received = ReceivedCheck(self.inbox, self.oracle, self.incidents)
        self._births = itertools.count(1)
        self.jobs = Jobs(self.ci, self.time, self.bucket, known=lambda job: bool(self.oracle.steps.get(job)))
        self._asking: list[Asking] = []
        self._history: dict[object, list[Answer]] = defaultdict(list)
        self._endless: dict[Stream | None, Answer] = {}
        self._troubles: list[BaseException] = []
        self._held_until: datetime | None = None
        self._books: dict[str, Rulebook] = {}
        self.put_in_force("all")
        self.workers = [self._worker(n) for n in range(2)]

    def close(self) -> None:
        self.ci.fault = None
        for worker in self.workers:
            worker.sender.close(0)

    def happen(self, *happened: Event) -> None:
        self.jobs.happen(*happened)

    # --- answers on their way (events.Link) ------------------------------------------------------------------------

    def date(self, off_s: int | None = 0) -> str:
        off = DATES.get(self.dates, 0)
        if off is None or off_s is None:
            return "yesterday"
        if self.dates == STUCK:
            return formatdate(DAWN.timestamp(), usegmt=True)
        # Where CI's jobs have the times of a wrong clock, only its Date tells so.
        return formatdate(self.ci.now() + (off if off or self.skew_s else off_s), usegmt=True)

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
        self.time.advance(BUCKET_LEASE.total_seconds() + 1)
        here.fenced = True
        self.poll(1 - here.worker, 0)

    def halt(self) -> None:
        self._asking[-1].halted = True

    def _answer(self, request: Request) -> Answer:
        try:
            return self._spoilt(request)
        except BaseException as trouble:  # raised again by `poll`, in the test's own thread
            self._troubles.append(trouble)
            raise

    def _spoilt(self, request: Request) -> Answer:
        if request.path == "/queue":  # names of queues, after a poll that is over
            return dated(self.ci.honest(request), self.date())
        question, here = _question(request), self._asking[-1]
        true = self._true(request, question)
        if true.status != 200:
            here.spoilt |= true.status != 403  # that is about our clock, and is mended on the way
            return true
        arrival = here.next(question)
        self._question = question
        answer = arrival.spoil(true, self)
        here.plain &= isinstance(arrival, Truly)
        here.spoilt |= not isinstance(arrival, _HARMLESS)
        if arrival.whole:
            for asked in (question.stream or question.ids, question):
                self._history[asked].append(answer)
            if events.ENDLESS.encode() in answer.body:
                self._endless[question.stream] = answer
            if here.hinted:
                self.oracle.takes_in_hinted(question, answer.body, _date(answer), self._in_order)
            else:
                self.oracle.takes_in(question, answer.body, _date(answer))
        else:
            self.oracle.misses(question)
        return answer

    def _true(self, request: Request, question: Question) -> Answer:
        if question.token == events.ENDLESS:
            return dated(self._endless[question.stream], self.date())
        true = dated(self.ci.honest(request, record=False), self.date())
        return replace(true, body=self.jobs.show(true.body, by_id=question.stream is None))

    # --- polls -----------------------------------------------------------------------------------------------------

    def poll(
        self, worker: int, watch: int, lists: Sequence[Arrival] = (), by_id: Sequence[Arrival] = ()
    ) -> PollResult | None:
        """Poll a watch now, whatever it waits for, and compare the record with the oracle."""
        asked = self.book.watches[watch % len(self.book.watches)]
        here, began = Asking(worker, deque(lists), deque(by_id)), self.time()
        free = self._held_until is None or began > self._held_until
        if free:
            self._held_until = None
            self.jobs.asked_for = True
            self.oracle.poll_begins(asked.name, map(_stream, asked.streams), self._in_force, began)
        self._asking.append(here)
        try:
            found = self.workers[worker].poller.poll_once(asked, self.book)
        finally:
            self._asking.pop()
            if self._troubles:
                raise self._troubles[0]
        assert free or not found, "polled under another's lease"
        complete = found is not None and found.error is None
        if free:
            self.oracle.poll_ends(asked.name, map(_stream, asked.streams), began, complete=complete)
        if free and not here.spoilt:
            assert found is not None, "a poll was given up for nothing"
            assert found.error is None
        assert not here.fenced or found is None, "a poll went on without its lease"
        if not self._asking:
            record.compare(self.db, self.oracle)
            self.incidents.compare(self.db, judged=found is not None)
            if complete and here.plain:
                self._compare_with_the_truth(asked)
                if found and not found.behind and (self.skew_s, self.dates) == (0, "right"):
                    self._compare_incidents(asked, began)
        return found

    def _compare_incidents(self, asked: Watch, began: datetime) -> None:
        if self.book.watches == (asked,):
            listed = [job for job in self.jobs.ids if job not in self.jobs.unlisted and self._is_readable(job)]
            self.incidents.compare_whole(began, listed)

    def _compare_with_the_truth(self, asked: Watch) -> None:
        """After a poll whose every answer was as CI made it, nothing that it could see is unknown."""
        for job in self.jobs.ids:
            created = self.jobs.created[job]
            which = Stream(created.tag, created.queue)
            watches = [w for w in self.book.watches if any(_stream(one).covers(which) for one in w.streams)]
            if job in self.jobs.late and not self.oracle.steps.get(job):
                continue  # lists overlap by what was measured, and only now and then by more
            if watches == [asked] and job not in self.jobs.unlisted and self._is_readable(job):
                self._compare_last(job, self.ci.history(job)[-1])

    def _is_readable(self, job: str) -> bool:
        return self.jobs.odd.get(job, "") in ("", *FIELDS)

    # --- callbacks -------------------------------------------------------------------------------------------------

    def call_back(self, which: Sequence[int], strangers: int = 0) -> None:
        """Let a callback name some jobs, true or not, and ids that nobody knows."""
        ids = [self.jobs.ids[n % len(self.jobs.ids)] for n in which if self.jobs.ids]
        named = [NamedJob(one, self.bucket) for one in (*ids, *(f"stranger-{n}" for n in range(strangers)))]
        with self.db.write() as tx:
            callbacks.take(tx, named, self.book.watches, about=None, now=self.time())

    def ask_hinted(self, worker: int, by_id: Sequence[Arrival] = ()) -> None:
        """Let a worker ask for the jobs that callbacks have named, and compare the record with the oracle."""
        here, hints_of = Asking(worker, deque(), deque(by_id), hinted=True), self.workers[worker].hints
        self._leave_unsure_jobs_out()
        self._asking.append(here)
        try:
            for bucket in hints_of.due(self.book.watches):
                hints_of.ask(bucket, self.book)
        finally:
            self._asking.pop()
            if self._troubles:
                raise self._troubles[0]
        if not self._asking:
            record.compare(self.db, self.oracle)
            self.incidents.compare(self.db, judged=False)

    def _ask_between(self, worker: int, poll: Poll) -> None:
        here = self._asking[-1]
        self._leave_unsure_jobs_out()
        here.hinted = True
        try:
            self.workers[worker].hints.ask_between(poll)
        finally:
            here.hinted = False

    def _leave_unsure_jobs_out(self) -> None:
        """Let callbacks have named no new job of which it is unsure what comes of it."""
        new = [job for job in self.jobs.ids if not self.oracle.steps.get(job)]
        streams = {job: Stream(self.jobs.created[job].tag, self.jobs.created[job].queue) for job in new}
        with self.db.write() as tx:
            unsure = [job for job, which in streams.items() if self.oracle.is_unsure_of(which, self._in_order)]
            hints.forget(tx, self.bucket, unsure)

    @property
    def _in_order(self) -> list[Stream]:
        with self.db.read() as tx:
            paused = {row.name for row in leases.polls(tx, [one.name for one in self.book.watches]) if row.paused}
        return [_stream(stream) for one in self.book.watches if one.name not in paused for stream in one.streams]

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
                self._held_until = self.time() + BUCKET_LEASE

    def put_in_force(self, which: str) -> None:
        if which not in self._books:
            self._books[which] = self.scenery.book(rules(self.bucket, which, announce=self.announce))
        self.book = self._books[which]
        parts.sync(self.db, self.book, clock=self.time)
        self.oracle.rules_change(self._in_force)
        self.incidents.rules_change(self._in_force)

    @property
    def _in_force(self) -> set[Stream]:
        return {_stream(stream) for one in self.book.watches for stream in one.streams}

    # --- deliveries ------------------------------------------------------------------------------------------------

    def deliver(self, worker: int) -> None:
        """Deliver what is due, and compare what was received with the oracle."""
        dispatcher = self.workers[worker].dispatcher
        for _ in range(_TURNS):
            if not dispatcher.run_once() and not dispatcher.unfinished:
                break
        else:
            raise AssertionError(f"still not at rest after {_TURNS} turns")
        self.received.compare()

    def turn_once(self, worker: int) -> None:
        """Claim and send, and record nothing of what came of it."""
        before = self.received.count()
        self.workers[worker].dispatcher.run_once()
        self.received.may_repeat(before)

    def dispatcher_dies(self, worker: int) -> None:
        self.turn_once(worker)
        self.replace(worker)

    def dispatcher_stalls(self, worker: int, temper: str, *, long: bool) -> None:
        """Its leases run out; the other worker sends again, and this one wants to record what came of it.

        `long`: when the other has recorded its own. Else while that is still to be done.
        """
        self.turn_once(worker)
        self.inbox.temper.update({"/cms": temper, "/next": temper})
        self._watch_leases_run_out(
            1 - worker, last=self.deliver if long else lambda w: self.workers[w].dispatcher.run_once()
        )
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
        self.workers[worker].sender.close(0)
        self.workers[worker] = self._worker(worker)

    def resume(self, notifier: str) -> None:
        with self.db.write() as tx:
            assert entries.resume(tx, notifier)

    def _worker(self, number: int) -> Worker:
        worker = Worker.new(
            self.scenery,
            f"w{next(self._births)}",
            client=number,
            book=lambda: self.book,
            halted=lambda: self._asking[-1].halted,
        )
        worker.poller.between_calls = partial(self._ask_between, number)
        return worker

    # --- the end ---------------------------------------------------------------------------------------------------

    def calm_down(self) -> None:
        """Let every fault end and time pass; then all must be on record and sent, and nothing wait."""
        self.put_in_force("all")
        self.inbox.temper.clear()
        for notifier in ("cms", "next"):
            self.resume(notifier)
        self.pause_watch(0, paused=False)
        self.happen(*[Heal(number) for number in range(len(self.jobs.ids))], Pass(31))
        self.poll(0, 0)
        for day in range(3):
            self.time.advance(25 * 3600)
            assert self.poll_what_is_due(day % 2) == list(self.book.watches), "not due after a day"
            for worker in (0, 1):
                self._watch_leases_run_out(worker)
        self.compare_the_end()

    def compare_the_end(self) -> None:
        self.received.compare_the_end()
        assert record.waiting(self.db) == 0
        for job in self.jobs.ids:
            self._compare_last(job, self.ci.history(job)[-1])

    def _compare_last(self, job: str, truth: str) -> None:
        steps, now = self.oracle.steps.get(job), self.time()
        if not steps:
            created = self.jobs.created[job]
            which = Stream(created.tag, created.queue)
            knowns = [self.oracle.streams[s] for s in self._in_force if s.covers(which)]
            asked_from = min(known.asked_at for known in knowns) - LONG_BEFORE + abs(self.oracle.skew)
            left_out = self.oracle.left_out.get(job)
            # Nobody asks for it any more, or not yet.
            waits = left_out and (now - left_out.at > LONG_BEFORE or not left_out.is_due(now))
            assert job in self.jobs.unlisted or created.at < asked_from or waits, f"{job} is nowhere"
            return
        last, gone = steps[-1].to, self.oracle.gone.get(job)
        if last == GONE and gone and job not in self.jobs.forgotten:
            assert gone.given_up or not gone.is_due(now), f"{job} was to be asked for again"
            return
        assert last == truth or (job in self.jobs.forgotten and (last in FINAL or last == GONE)), (job, last, truth)


def _stream(one: object) -> Stream:
    return Stream(one.tag, one.queue)  # type: ignore[attr-defined]


def _date(answer: Answer) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers["Date"])
    except ValueError:
        return None


def _question(request: Request) -> Question:
    assert request.headers["host"].partition(".")[2].startswith(f"ci.{REGION}.")
    if request.path != "/jobs":
        return Question(ids=tuple(request.path.removeprefix("/jobs/").split(",")))
    asked = dict(request.query)
    return Question(Stream(asked["tag"], asked.get("queueId")), asked.get("nextToken"))
