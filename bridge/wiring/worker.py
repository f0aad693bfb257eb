"""The worker: polls and delivers until it is told to stop; and its identity, by which a later one knows it ended."""

from __future__ import annotations

import logging
import os
import random
import secrets as randomness
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from bridge.decide.changes.clocks import clock_fault
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.rulesets import Precedence
from bridge.model import Watch
from bridge.pipeline.dispatch import Dispatcher
from bridge.pipeline.poll import Halted, Poller
from bridge.pipeline.poll_context import Poll, note_rules
from bridge.pipeline.prune import Pruner
from bridge.record import clocks, rulesets
from bridge.record.clocks import rewind
from bridge.record.database import TROUBLES, Database, SharedClock, trouble
from bridge.record.outbox import results
from bridge.record.polling import leases
from bridge.scheduler import Ticker
from bridge.send.sender import Sender
from bridge.settings import Settings
from bridge.wiring.parts import accept, http_client, may_be_empty, source, start_logging, utc_now
from bridge.wiring.rules import Rules

# --- who a process is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is: `machine` and `pid` tell a later one here that it has ended."""

    id: str
    machine: str
    pid: int


def identity() -> Identity:
    return Identity(id=randomness.token_hex(8), machine=_machine(), pid=os.getpid())


def _machine() -> str:
    """Name this boot of this kernel and this process namespace: only there does a pid mean the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116  (a magic link: Path would resolve it)
    except OSError:
        return f"unknown/{randomness.token_hex(8)}"  # not Linux: leases run out by themselves


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A killed child that nobody has waited for is no process any more.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


# --- the worker -----------------------------------------------------------------------------------------------------

logger = logging.getLogger(__name__)

STOP_WITHIN_S = 20  # platforms send SIGKILL 30 s after SIGTERM; Docker after 10 s, which the leases bear too
_POLLS_AT_ONCE = 4
_REST_S = 5.0
_SLOWEST_S = 5.0
_BURY_FOR_S = 10.0
_BEAT_S = 15.0
_RULES_S = 2.1  # between two looks at rules.toml: a little more than it must have stayed the same
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
        self._outbound = Sender(
            client=http_client(settings),
            notifiers=rules.book.notifiers,
            clock=self._clock,  # receivers compare it with theirs: on PostgreSQL the database's is the better one
            slack_api_url=settings.slack_api_url,
            hidden=settings.secrets,
        )
        self._dispatcher = Dispatcher(
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
            on_told=self._dispatcher.wake,
            halted=self._stop.is_set,
        )
        self._pruner = Pruner(
            db=db, clock=self._clock, worker=self._me.id, nap=self._nap, clock_fault=self._clock_fault
        )
        self._polls = ThreadPoolExecutor(_POLLS_AT_ONCE, thread_name_prefix="poll")
        self._busy: set[str] = set()  # buckets that are being polled
        self._resting: dict[str, float] = {}  # buckets whose poll the database failed, and until when (monotonic)
        self._in_step = True  # the record knows that these rules are in force, or were
        self._judges = True  # they are in force: this worker polls, and tells what is new
        self._precedence = Precedence()
        self._told_to_reload = threading.Event()
        rules.may_be_empty = partial(may_be_empty, db)
        self._ticker = Ticker()
        self._pace_s = _pace_s(rules.book)
        self._set_pace: Callable[[float], object] = lambda _: None
        self._ticks = _Ticks()
        self._buried: dict[str, float] = {}  # workers that died, and when (monotonic) that was found
        self._doubted: str | None = None  # why its clock is
        self.on_poll: Callable[[Poll], None] = _log_poll

    def _nap(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Halted

    def stop(self) -> None:
        """Stop claiming and polling; `run` returns when what is in flight has ended. Any thread may call it."""
        self._stop.set()
        self._dispatcher.wake()

    def reload(self) -> None:
        """Read rules.toml now, and put it in force, changed or not. Any thread may call it."""
        self._told_to_reload.set()

    def run(self) -> None:
        """Work until `stop`; then finish within STOP_WITHIN_S what was begun."""
        with self._enlisted():
            self._set_pace = self._ticker.every(self._pace_s, self._tick)
            self._ticker.every(_PRUNE_S, self._prune)
            self._ticker.every(_RULES_S, self._mind_rules)  # a tick of its own: its disk may hang
            self._ticker.start()
            logger.info("worker started", extra={"worker": self._me.id, "database": self._db.shown})
            try:
                while not self._stop.is_set():
                    self._dispatcher.turn()
                    self._ticker.mind_the_clock()
            finally:
                self._wind_up()
        logger.info("worker stopped", extra={"worker": self._me.id})

    def _wind_up(self) -> None:
        deadline = time.monotonic() + STOP_WITHIN_S
        self._ticker.stop(wait=False)
        self._dispatcher.finish(until=lambda: time.monotonic() > deadline)
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
            if accept(tx, self._rules.book, now=now):
                logger.info("rules are in force", extra={"sha": self._rules.book.sha})
            clocks.begin_trust(tx, now)
            self._rewind(tx)
            for worker, pid in leases.workers_on(tx, self._me.machine):
                if not is_alive(pid) or pid == self._me.pid:
                    freed = results.bury(tx, worker, now=now)
                    leases.bury(tx, worker)
                    self._buried[worker] = time.monotonic()
                    logger.warning("a worker that died is replaced", extra={"worker": worker, "deliveries": freed})
            machine, sha = self._me.machine, self._rules.book.sha
            leases.enlist(tx, self._me.id, machine=machine, pid=self._me.pid, now=now, rules_sha=sha)
            reloads = rulesets.reloads(tx)
        self._rules.look(time.monotonic(), reloads=reloads)  # what is asked for from now on is asked of this worker
        try:
            yield
        finally:
            try:
                with self._db.write() as tx:
                    leases.bury(tx, self._me.id)
            except TROUBLES as error:
                logger.warning("the worker could not sign off", extra={"reason": trouble(error)})

    def _tick(self) -> None:
        """Do what is due: polls, a sign of life."""
        try:
            if self._ticks.is_time("beat", _BEAT_S):
                self._beat()
            self._bury_again()
            self._poll_due()
        except TROUBLES as error:
            logger.warning("polling waits for the database", extra={"reason": trouble(error)})

    def _prune(self) -> None:
        if not self._judges:
            return  # how long to keep what, other rules say
        try:
            self._pruner.prune(self._rules.book)
        except TROUBLES as error:
            logger.warning("pruning waits for the database", extra={"reason": trouble(error)})

    def _bury_again(self) -> None:
        # A claim that was on its way to PostgreSQL when its worker died may have been committed after the burial.
        for worker, since in list(self._buried.items()):
            with self._db.write() as tx:
                results.bury(tx, worker, now=self._clock())
            if time.monotonic() > since + _BURY_FOR_S:
                del self._buried[worker]

    def _poll_due(self) -> None:
        if not self._judges:
            return
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

    def _mind_rules(self) -> None:
        """Look at rules.toml, and whether its rules are in force."""
        try:
            with self._db.read() as tx:
                reloads = rulesets.reloads(tx)
            self._reload(reloads)
            with self._db.read() as tx:
                standing = rulesets.standing(tx, now=self._clock())
            self._judges = self._rank(standing)
        except TROUBLES as error:
            logger.warning("the rules wait for the database", extra={"reason": trouble(error)})

    def _reload(self, reloads: int) -> None:
        before = self._rules.fault, self._rules.note
        if said := self._told_to_reload.is_set():
            self._told_to_reload.clear()
            changed = self._rules.reload()
        else:
            changed = self._rules.look(time.monotonic(), reloads=reloads)
        if changed:
            self._use(self._rules.book)
        if changed or (said and not self._rules.fault):
            self._in_step = False
        if not self._in_step:  # the database may have been away when the rules changed
            with self._db.write() as tx:
                accept(tx, self._rules.book, now=self._clock())
                self._show(tx)
            self._in_step = True
        elif before != (self._rules.fault, self._rules.note):
            with self._db.write() as tx:
                self._show(tx)

    def _use(self, book: Rulebook) -> None:
        self._outbound.replace(book.notifiers)
        self._source.set_rate(book.rate)
        start_logging(self._settings, book)  # there may be new secrets to mask
        self._pace_s = _pace_s(book)
        self._set_pace(self._pace_s)

    def _rank(self, standing: rulesets.Standing) -> bool:
        """Return whether these rules are in force; put them there if it is up to this worker."""
        sha, now_in_force = self._rules.book.sha, standing.sha
        mine = standing.numbers.get(sha)
        if now_in_force is None or mine is None:
            return now_in_force is None
        others = {one.id: (standing.numbers.get(one.sha or ""), one.beat) for one in standing.workers}
        others.pop(self._me.id, None)
        if self._precedence.look(mine, standing.numbers[now_in_force], others, time.monotonic()):
            with self._db.write() as tx:
                stands = rulesets.stand(tx, sha, instead_of=now_in_force)
            if stands:
                said = "no live worker has the rules accepted last, these are in force instead"
                if sha == standing.last:
                    said = "the rules accepted last are in force again"
                logger.warning(said, extra={"sha": sha, "before": now_in_force, "last": standing.last})
                return True
        if self._judges and sha != now_in_force:
            said = "other rules are in force: this worker goes on sending, and neither polls nor judges"
            logger.warning(said, extra={"sha": sha, "in_force": now_in_force})
        return sha == now_in_force

    def _beat(self) -> None:
        """Say that this worker is there, and set its clock by the database's."""
        self._clock.correct()
        with self._db.write() as tx:
            self._judge_clock(tx)
            self._show(tx)
            if not self._doubted:  # by a clock that is ahead everybody is silent
                leases.strike_silent(tx, now=self._clock())
            rulesets.touch(tx, self._rules.book.sha, now=self._clock())
            if self._judges:  # others may have said otherwise: a worker with other rules, a command with another file
                note_rules(tx, self._rules.book.watches, self._clock())

    def _show(self, tx: Connection) -> None:
        self._rewind(tx)  # before the sign of life, by which it is known that the clock was set back
        beat = partial(
            leases.beat,
            tx,
            self._me.id,
            now=self._clock(),
            rules_sha=self._rules.book.sha,
            rules_fault=self._rules.fault,
            rules_note=self._rules.note,
            clock_fault=self._doubted,
        )
        if not beat():
            leases.enlist(tx, self._me.id, machine=self._me.machine, pid=self._me.pid, now=self._clock())
            beat()

    def _judge_clock(self, tx: Connection) -> None:
        doubted = self._clock_fault(tx)
        if not doubted:
            clocks.trust(tx, self._clock())
        if bool(doubted) != bool(self._doubted):
            said = "the clock is doubted: nothing is pruned or given up" if doubted else "the clock is right again"
            logger.warning(said, extra={"reason": doubted} if doubted else {})
        self._doubted = doubted

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


def take_over(db: Database, book: Rulebook) -> str | None:
    """Put rules in force for polls of this process; or say who judges by others, as two must not."""
    clock = SharedClock(db, utc_now)
    clock.correct()
    with db.write() as tx:
        standing = rulesets.standing(tx, now=clock())
        if standing.alive and standing.sha not in (None, book.sha):
            return f"live workers ({len(standing.alive)}) go by the rules {standing.sha}, and those here are {book.sha}"
        accept(tx, book, now=clock())
    return None
