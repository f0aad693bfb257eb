"""The worker: polls and delivers until it is told to stop."""

from __future__ import annotations

import logging
import random
import secrets as randomness
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection

from bridge.decide.clock import clock_fault
from bridge.decide.rulebook import Rulebook
from bridge.model import Watch
from bridge.pipeline import Courier, Halted, Poll, Poller, Pruner
from bridge.pipeline.redriving import carry_out
from bridge.pipeline.round import note_rules
from bridge.record import clocks, leases, rulesets, settling
from bridge.record.database import TROUBLES, Database, SharedClock, trouble
from bridge.record.rewind import rewind
from bridge.scheduler import Ticker
from bridge.send.outbound import Outbound
from bridge.settings import Settings
from bridge.wiring.identity import identity, is_alive
from bridge.wiring.parts import door, source, start_logging, sync, utc_now
from bridge.wiring.rules import Rules

logger = logging.getLogger(__name__)

STOP_WITHIN_S = 20  # platforms send SIGKILL 30 s after SIGTERM; Docker after 10 s, which the leases bear too
_POLLS_AT_ONCE = 4
_REST_S = 5.0
_SLOWEST_S = 5.0
_BURY_FOR_S = 10.0
_RELOAD_S, _BEAT_S = 5.0, 15.0
_PRUNE_S = 600.0


class Worker:
    """Polls and delivers until told to stop. Any number may run on one database."""

    def __init__(self, settings: Settings, rules: Rules, db: Database) -> None:
        self._settings = settings
        self._db = db
        self._rules = rules
        self._me = identity()
        self._clock = SharedClock(db, utc_now)
        self._stop = threading.Event()
        self._source = source(settings, rules.book, sleep=self._nap)
        self._outbound = Outbound(
            door=door(settings),
            notifiers=rules.book.notifiers,
            clock=self._clock,  # receivers compare it with theirs: on PostgreSQL the database's is the better one
            slack_api_url=settings.slack_api_url,
            hidden=settings.secrets,
        )
        self._courier = Courier(
            db=db,
            transport=self._outbound,
            book=lambda: rules.book,
            clock=self._clock,
            chance=random.SystemRandom().random,
            worker=self._me.id,
            clock_fault=self._clock_fault,
        )
        self._poller = Poller(
            db=db,
            source=self._source,
            clock=self._clock,
            worker=self._me.id,
            on_told=self._courier.wake,
            halted=self._stop.is_set,
        )
        self._pruner = Pruner(
            db=db, clock=self._clock, worker=self._me.id, nap=self._nap, clock_fault=self._clock_fault
        )
        self._polls = ThreadPoolExecutor(_POLLS_AT_ONCE, thread_name_prefix="poll")
        self._busy: set[str] = set()  # buckets that are being polled
        self._resting: dict[str, float] = {}  # buckets whose poll the database failed, and until when (monotonic)
        self._in_step = True  # the record knows the watches and notifiers of the rules
        self._ticker = Ticker()
        self._pace_s = _pace_s(rules.book)
        self._set_pace: Callable[[float], object] = lambda _: None
        self._ticks = _Ticks()
        self._buried: dict[str, float] = {}  # workers that died, and when (monotonic) that was found
        self._doubted = False  # its clock
        self.on_poll: Callable[[Poll], None] = _log_poll

    def _nap(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Halted

    def stop(self) -> None:
        """Stop claiming and polling; `run` returns when what is in flight has ended. Any thread may call it."""
        self._stop.set()
        self._courier.wake()

    def run(self) -> None:
        """Work until `stop`; then finish within STOP_WITHIN_S what was begun."""
        with self._enlisted():
            self._set_pace = self._ticker.every(self._pace_s, self._tick)
            self._ticker.every(_PRUNE_S, self._prune)
            self._ticker.start()
            logger.info("worker started", extra={"worker": self._me.id, "database": self._db.shown})
            try:
                while not self._stop.is_set():
                    self._courier.turn()
                    self._ticker.mind_the_clock()
            finally:
                self._wind_up()
        logger.info("worker stopped", extra={"worker": self._me.id})

    def _wind_up(self) -> None:
        deadline = time.monotonic() + STOP_WITHIN_S
        self._ticker.stop(wait=False)
        self._courier.finish(until=lambda: time.monotonic() > deadline)
        # A poll ends with the call to CI that it is in: the pause before the next one is cut short.
        self._polls.shutdown(cancel_futures=True)
        self._outbound.close(0)
        self._source.close()

    @contextmanager
    def _enlisted(self) -> Iterator[None]:
        """Be known as a worker meanwhile, and free what workers held that ended on this machine."""
        self._clock.correct()
        now = self._clock()
        with self._db.write() as tx:
            clocks.begin_trust(tx, now)
            self._rewind(tx)
            for worker, pid in leases.workers_on(tx, self._me.machine):
                if not is_alive(pid) or pid == self._me.pid:
                    freed = settling.bury(tx, worker, now=now)
                    leases.bury(tx, worker)
                    self._buried[worker] = time.monotonic()
                    logger.warning("a worker that died is replaced", extra={"worker": worker, "deliveries": freed})
            leases.enlist(tx, self._me.id, machine=self._me.machine, pid=self._me.pid, now=now)
        try:
            yield
        finally:
            try:
                with self._db.write() as tx:
                    leases.bury(tx, self._me.id)
            except TROUBLES as error:
                logger.warning("the worker could not sign off", extra={"reason": trouble(error)})

    def _tick(self) -> None:
        """Do what is due: polls, orders to send again, a look at rules.toml, a sign of life."""
        try:
            for seconds, call in ((_RELOAD_S, self._reload), (_BEAT_S, self._beat)):
                if self._ticks.is_time(call.__name__, seconds):
                    call()
            self._bury_again()
            self._poll_due()
            if carry_out(self._db, self._clock()):
                self._courier.wake()
        except TROUBLES as error:
            logger.warning("polling waits for the database", extra={"reason": trouble(error)})

    def _prune(self) -> None:
        try:
            self._pruner.prune(self._rules.book)
        except TROUBLES as error:
            logger.warning("pruning waits for the database", extra={"reason": trouble(error)})

    def _bury_again(self) -> None:
        # A claim that was on its way to PostgreSQL when its worker died may have been committed after the burial.
        for worker, since in list(self._buried.items()):
            with self._db.write() as tx:
                settling.bury(tx, worker, now=self._clock())
            if time.monotonic() > since + _BURY_FOR_S:
                del self._buried[worker]

    def _poll_due(self) -> None:
        by_bucket: dict[str, list[Watch]] = defaultdict(list)
        for watch in self._poller.due(self._rules.book.watches, early=timedelta(seconds=self._pace_s / 2)):
            by_bucket[watch.place.bucket].append(watch)
        for bucket, watches in by_bucket.items():
            resting = self._resting.get(bucket, 0) > time.monotonic()
            if bucket not in self._busy and not resting and not self._stop.is_set():
                self._busy.add(bucket)
                self._polls.submit(self._poll_all, bucket, watches)

    def _poll_all(self, bucket: str, watches: Sequence[Watch]) -> None:
        try:
            polls = [self._poll(watch) for watch in watches]
            if any(poll and poll.behind for poll in polls):
                # A list goes on, as soon as other buckets had their turn.
                due = self._poller.due(self._rules.book.watches)
                self._polls.submit(self._poll_all, bucket, [one for one in due if one.place.bucket == bucket])
                return
        except TROUBLES as error:
            logger.warning("polling waits for the database", extra={"reason": trouble(error)})
        except RuntimeError:  # the worker stops, and takes nothing more
            if not self._stop.is_set():
                raise
        self._busy.discard(bucket)

    def _poll(self, watch: Watch) -> Poll | None:
        try:
            poll = self._poller.poll_once(watch, self._rules.book, within=watch.every)
            if poll:
                self.on_poll(poll)
        except TROUBLES as error:
            self._rest(watch)
            logger.warning("poll waits for the database", extra={"watch": watch.name, "reason": trouble(error)})
        except Exception:  # the edge of a thread: the watch is polled again later
            self._rest(watch)
            logger.exception("poll failed", extra={"watch": watch.name})
        else:
            return poll
        return None

    def _rest(self, watch: Watch) -> None:
        # When the next poll is due could not be recorded, and CI is not to be asked every second meanwhile.
        self._resting[watch.place.bucket] = time.monotonic() + max(_REST_S, watch.every.total_seconds())

    def _reload(self) -> None:
        if self._rules.reload():
            book = self._rules.book
            self._outbound.replace(book.notifiers)
            self._source.set_rate(book.rate)
            start_logging(self._settings, book)  # there may be new secrets to mask
            self._in_step = False
            self._pace_s = _pace_s(book)
            self._set_pace(self._pace_s)
        if not self._in_step:  # the database may have been away when the rules changed
            sync(self._db, self._rules.book, clock=self._clock)
            self._in_step = True

    def _beat(self) -> None:
        """Say that this worker is there, and set its clock by the database's."""
        self._clock.correct()
        sha, fault = self._rules.book.sha, self._rules.fault
        with self._db.write() as tx:
            self._rewind(tx)
            doubted = self._clock_fault(tx)
            if not doubted:
                clocks.trust(tx, self._clock())
            leases.beat(tx, self._me.id, now=self._clock(), rules_sha=sha, rules_fault=fault, clock_fault=doubted)
            rulesets.touch(tx, sha, now=self._clock())
            # Others may have said otherwise: a worker with other rules, a command with another file.
            note_rules(tx, self._rules.book.watches, self._clock())

        if bool(doubted) != self._doubted:
            self._doubted = bool(doubted)
            said = "the clock is doubted: nothing is pruned or given up" if doubted else "the clock is right again"
            logger.warning(said, extra={"reason": doubted} if doubted else {})

    def _clock_fault(self, tx: Connection) -> str | None:
        return clock_fault(
            now=self._clock(),
            trusted_at=clocks.trusted_at(tx),
            readings=clocks.readings(tx, [watch.name for watch in self._rules.book.watches]),
            local_ahead=self._clock.local_ahead,
        )

    def _rewind(self, tx: Connection) -> None:
        if back := rewind(tx, now=self._clock()):
            logger.warning("the clock was set back, and what waits with it", extra={"seconds": back.total_seconds()})


class _Ticks:
    """Remembers when something was done last."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def is_time(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(name, 0):
            return False
        self._next[name] = now + seconds
        return True


def _pace_s(book: Rulebook) -> float:
    """Return how often to look whether a watch is due: an idle machine is not woken every second for nothing."""
    shortest = min((watch.every.total_seconds() for watch in book.watches), default=_SLOWEST_S)
    return min(max(shortest / 6, 1.0), _SLOWEST_S)


def _log_poll(poll: Poll) -> None:
    facts = {"watch": poll.watch, "calls": poll.calls, "jobs": poll.jobs}
    if poll.error:
        logger.warning("poll failed", extra={**facts, "reason": str(poll.error)})
    elif poll.transitions:
        logger.info("poll", extra={**facts, "transitions": poll.transitions, "deliveries": poll.deliveries})


def poll_all(settings: Settings, rules: Rules, db: Database, names: list[str]) -> Iterator[Poll | None]:
    """Poll each watch of these names once, whatever its time; None for one that another worker polls."""
    ci, clock = source(settings, rules.book), SharedClock(db, utc_now)
    clock.correct()
    poller = Poller(db=db, source=ci, clock=clock, worker=f"poll-{randomness.token_hex(6)}")
    try:
        for watch in rules.book.watches:
            if not names or watch.name in names:
                yield poller.poll_once(watch, rules.book)
    finally:
        ci.close()
