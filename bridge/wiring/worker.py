"""The worker: polls and delivers until it is stopped. Any number may run on one database."""

from __future__ import annotations

import logging
import math
import os
import random
import secrets as randomness
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from bridge import logs
from bridge.decide.changes.clocks import clock_fault
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.rulesets import Precedence
from bridge.model import Watch
from bridge.pipeline.dispatch import Dispatcher
from bridge.pipeline.hints import Hints
from bridge.pipeline.housekeeping import note_rules
from bridge.pipeline.looks import Looks
from bridge.pipeline.operations import OperationRefused
from bridge.pipeline.poll import Halted, PollResult
from bridge.pipeline.poller import Poller
from bridge.pipeline.prune import Pruner
from bridge.record import clocks, rulesets
from bridge.record.database import TROUBLES, Database, SharedClock, trouble
from bridge.record.outbox import results
from bridge.record.polling import leases
from bridge.scheduler import Ticker
from bridge.send.sender import Sender
from bridge.settings import Settings
from bridge.wiring.parts import accept, http_client, known_secrets, may_be_empty, source, unsent_secrets, utc_now
from bridge.wiring.rules import Rules

logger = logging.getLogger(__name__)

STOP_WITHIN_S = 20  # platforms send SIGKILL 30 s after SIGTERM; Docker after 10 s, which the leases tolerate too
_POLLS_AT_ONCE = 4
_HINTS_AT_ONCE = 2
_REST_S = 5.0
_SLOWEST_TICK_S = 5.0
_EARLY = timedelta(seconds=0.1)  # a poll is made so much early rather than late
_BURY_FOR_S = 10.0
_BEAT_S = 15.0
_HINTS_S = 0.5  # between two looks at what callbacks name
_RULES_S = 2.1  # between two looks at rules.toml: a little more than it must have stayed the same
_PRUNE_S = 600.0


class Worker:
    """Builds the parts, runs them until `stop`, and stops them in order."""

    def __init__(self, settings: Settings, rules: Rules, db: Database) -> None:
        self._settings, self._rules, self._db = settings, rules, db
        self._id, self._machine, self._pid = randomness.token_hex(8), _machine(), os.getpid()
        self._clock = SharedClock(db, utc_now)
        self._stop = threading.Event()
        self._source = source(settings, rules.book, sources=lambda: rules.book.credentials, sleep=self._nap)
        self._source.keys.on_new = self._hide_secrets
        self._sender = Sender(
            client=http_client(settings),
            notifiers=rules.book.notifiers,
            clock=self._clock,  # receivers compare it with theirs: on PostgreSQL the database's is the better one
            slack_api_url=settings.slack_api_url,
            hidden=unsent_secrets(settings, rules.book),
        )
        self._dispatcher = Dispatcher(
            db=db,
            transport=self._sender,
            book=lambda: rules.book,
            clock=self._clock,
            chance=random.SystemRandom().random,
            worker=self._id,
            clock_fault=self._clock_fault,
        )
        poller = Poller(
            db=db,
            source=self._source,
            clock=self._clock,
            worker=self._id,
            on_stored=self._dispatcher.wake,
            halted=self._stop.is_set,
        )
        hints = Hints(poller=poller)
        if settings.callback_tokens:
            poller.between_calls = hints.ask_between
        self._polls = _Polls(poller, hints, Looks(poller=poller), lambda: rules.book, self._stop)
        self._pruner = Pruner(db=db, clock=self._clock, worker=self._id, nap=self._nap, clock_fault=self._clock_fault)
        self._ticker = Ticker()
        self._tick_s = _tick_s(rules.book)
        self._set_tick: Callable[[float], object] = lambda _: None
        self._next_beat_s = 0.0  # monotonic
        self._buried: dict[str, float] = {}  # workers that died, and when (monotonic) this was found
        self._doubt: str | None = None  # why the clock may be wrong
        rules.may_be_empty = partial(may_be_empty, db)
        self._reload_requested = threading.Event()
        self._is_accepted = True  # the record knows that these rules are, or were, in force
        self._is_in_force = True  # so this worker polls
        self._precedence = Precedence()

    def _hide_secrets(self) -> None:
        """Mask what is known now: there may be new rules, or keys that were read from a file."""
        book, late = self._rules.book, self._source.keys.secrets
        logs.hide([*known_secrets(self._settings, book), *late])
        self._sender.hidden = (*unsent_secrets(self._settings, book), *late)

    def _nap(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Halted

    def stop(self) -> None:
        """Stop claiming and polling; `run` returns when what is in progress has ended. Any thread may call it."""
        self._stop.set()
        self._dispatcher.wake()

    def reload(self) -> None:
        """Read rules.toml now, and put it in force, changed or not. Any thread may call it."""
        self._reload_requested.set()

    def run(self) -> None:
        """Work until `stop`; then finish within STOP_WITHIN_S what was begun."""
        with self._registered():
            self._set_tick = self._ticker.every(self._tick_s, self._tick)
            if self._settings.callback_tokens:  # else nobody is woken for them
                self._ticker.every(_HINTS_S, self._ask_hinted)
            self._ticker.every(_PRUNE_S, self._prune)
            self._ticker.every(_RULES_S, self._check_rules)  # a tick of its own: its disk may hang
            self._ticker.start()
            logger.info("worker started", extra={"worker": self._id, "database": self._db.shown})
            try:
                while not self._stop.is_set():
                    self._dispatcher.run_once()
                    self._ticker.mind_the_clock()
            finally:
                deadline = time.monotonic() + STOP_WITHIN_S
                self._ticker.stop(wait=False)
                self._dispatcher.finish(until=lambda: time.monotonic() > deadline)
                self._polls.close()
                self._sender.close(0)
                self._source.close()
        logger.info("worker stopped", extra={"worker": self._id})

    @contextmanager
    def _registered(self) -> Iterator[None]:
        """Be on record as a worker meanwhile, and free what ended workers of this machine held."""
        self._clock.correct()
        now, book = self._clock(), self._rules.book
        with self._db.write() as tx:
            if accept(tx, book, now=now):
                logger.info("rules are in force", extra={"sha": book.sha})
            clocks.begin_trust(tx, now)
            self._rewind(tx)
            for worker, pid in leases.workers_on(tx, self._machine):
                if not is_alive(pid) or pid == self._pid:
                    freed = results.free_claims_of(tx, worker, now=now)
                    leases.unregister(tx, worker)
                    self._buried[worker] = time.monotonic()
                    logger.warning(
                        "a worker of this machine has ended, its deliveries are sent again",
                        extra={"worker": worker, "deliveries": freed},
                    )
            leases.register(tx, self._id, machine=self._machine, pid=self._pid, now=now, rules_sha=book.sha)
            reloads = rulesets.reloads(tx)
        self._rules.check_file(time.monotonic(), reloads=reloads)  # reloads requested from now on concern this worker
        try:
            yield
        finally:
            try:
                with self._db.write() as tx:
                    leases.unregister(tx, self._id)
            except TROUBLES as error:
                logger.warning("the worker could not sign off", extra={"reason": trouble(error)})

    # --- ticks ------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        try:
            if time.monotonic() >= self._next_beat_s:
                self._next_beat_s = time.monotonic() + _BEAT_S
                self._beat()
            self._bury_again()
            if self._is_in_force:
                self._polls.start_due(early=_EARLY)
                self._set_tick(min(max(self._polls.seconds_to_next(), _EARLY.total_seconds()), self._tick_s))
        except TROUBLES as error:
            logger.warning("polling is suspended: database unavailable", extra={"reason": trouble(error)})

    def _ask_hinted(self) -> None:
        try:
            if self._is_in_force:
                self._polls.start_hinted()
        except TROUBLES:
            pass  # the tick of polls says so

    def _prune(self) -> None:
        if not self._is_in_force:
            return  # other rules say how long to keep what
        try:
            self._pruner.prune(self._rules.book)
        except TROUBLES as error:
            logger.warning("pruning is suspended: database unavailable", extra={"reason": trouble(error)})

    def _bury_again(self) -> None:
        # A claim that was on its way to PostgreSQL when its worker died may have been committed after the burial.
        for worker, since in list(self._buried.items()):
            with self._db.write() as tx:
                results.free_claims_of(tx, worker, now=self._clock())
            if time.monotonic() > since + _BURY_FOR_S:
                del self._buried[worker]

    # --- sign of life and clock -------------------------------------------------------------------------

    def _beat(self) -> None:
        """Record that this worker is alive, and set its clock by the database's."""
        self._clock.correct()
        with self._db.write() as tx:
            self._check_clock(tx)
            self._record_life(tx)
            if not self._doubt:  # by a clock that is ahead everybody is silent
                leases.delete_silent_workers(tx, now=self._clock())
            rulesets.touch(tx, self._rules.book.sha, now=self._clock())
            if self._is_in_force:  # a worker with other rules, or a command, may have noted other watches
                note_rules(tx, self._rules.book.watches, self._clock())

    def _record_life(self, tx: Connection) -> None:
        self._rewind(tx)  # first, as the last sign of life shows that the clock was set back
        beat = partial(
            leases.beat,
            tx,
            self._id,
            now=self._clock(),
            rules_sha=self._rules.book.sha,
            rules_fault=self._rules.fault,
            rules_note=self._rules.note,
            clock_fault=self._doubt,
        )
        if not beat():
            leases.register(tx, self._id, machine=self._machine, pid=self._pid, now=self._clock())
            beat()

    def _check_clock(self, tx: Connection) -> None:
        doubt = self._clock_fault(tx)
        if not doubt:
            clocks.trust(tx, self._clock())
        if bool(doubt) != bool(self._doubt):
            event = (
                "the clock may be wrong: pruning and dead-lettering are suspended"
                if doubt
                else "the clock is right again"
            )
            logger.warning(event, extra={"reason": doubt} if doubt else {})
        self._doubt = doubt

    def _clock_fault(self, tx: Connection) -> str | None:
        return clock_fault(
            now=self._clock(),
            trusted_at=clocks.trusted_at(tx),
            readings=clocks.readings(tx, [watch.name for watch in self._rules.book.watches]),
            local_ahead=self._clock.local_ahead,
        )

    def _rewind(self, tx: Connection) -> None:
        if back := clocks.rewind(tx, now=self._clock()):
            logger.warning("the clock was set back, and due times with it", extra={"seconds": back.total_seconds()})

    # --- rules ------------------------------------------------------------------------------------------

    def _check_rules(self) -> None:
        """Reload rules.toml if it changed, and find out whether these rules are in force."""
        try:
            with self._db.read() as tx:
                reloads = rulesets.reloads(tx)
            self._reload(reloads)
            with self._db.read() as tx:
                standing = rulesets.state(tx, now=self._clock())
            self._is_in_force = self._rank(standing)
        except TROUBLES as error:
            logger.warning("rules are not checked: database unavailable", extra={"reason": trouble(error)})

    def _reload(self, reloads: int) -> None:
        before = self._rules.fault, self._rules.note
        if requested := self._reload_requested.is_set():
            self._reload_requested.clear()
            changed = self._rules.reload()
        else:
            changed = self._rules.check_file(time.monotonic(), reloads=reloads)
        if changed:
            book = self._rules.book
            self._sender.replace(book.notifiers)
            self._source.set_rate(book.rate)
            self._hide_secrets()
            self._tick_s = _tick_s(book)
            self._set_tick(self._tick_s)
        if changed or (requested and not self._rules.fault):
            self._is_accepted = False
        if not self._is_accepted or before != (self._rules.fault, self._rules.note):
            with self._db.write() as tx:
                if not self._is_accepted:  # the database may have been away when the rules changed
                    accept(tx, self._rules.book, now=self._clock())
                self._record_life(tx)
            self._is_accepted = True

    def _rank(self, standing: rulesets.RulesState) -> bool:
        """Return whether these rules are in force; put them in force if it is up to this worker."""
        sha, in_force = self._rules.book.sha, standing.sha
        mine = standing.numbers.get(sha)
        if in_force is None or mine is None:
            return in_force is None
        others = {
            worker.id: (standing.numbers.get(worker.sha or ""), worker.beat)
            for worker in standing.workers
            if worker.id != self._id
        }
        if self._precedence.look(mine, standing.numbers[in_force], others, time.monotonic()):
            with self._db.write() as tx:
                stands = rulesets.replace_temporarily(tx, sha, instead_of=in_force)
            if stands:
                event = "no live worker has the rules accepted last, these are in force instead"
                if sha == standing.last:
                    event = "the rules accepted last are in force again"
                logger.warning(event, extra={"sha": sha, "before": in_force, "last": standing.last})
                return True
        if self._is_in_force and sha != in_force:
            event = "other rules are in force: this worker goes on sending, but does not poll"
            logger.warning(event, extra={"sha": sha, "in_force": in_force})
        return sha == in_force


class _Polls:
    """Polls the watches that are due, each bucket in one thread at a time."""

    def __init__(
        self, poller: Poller, hints: Hints, looks: Looks, book: Callable[[], Rulebook], stop: threading.Event
    ) -> None:
        self._poller, self._hints, self._looks, self._book, self._stop = poller, hints, looks, book, stop
        self._pool = ThreadPoolExecutor(_POLLS_AT_ONCE, thread_name_prefix="poll")
        self._hint_pool = ThreadPoolExecutor(_HINTS_AT_ONCE, thread_name_prefix="hints")  # polls may take long
        self._busy: set[str] = set()  # buckets that a thread is at
        self._queued: set[str] = set()  # buckets that wait for one, to be polled or looked at
        self._lock = threading.Lock()  # of both
        self._resting: dict[str, float] = {}  # buckets whose poll failed, and until when (monotonic)

    def start_due(self, *, early: timedelta) -> None:
        book = self._book()
        for watch in self._poller.due(book.watches, early=early):
            self._queue(watch.place.bucket, self._poll_due)
        for watch in self._looks.due(book):
            self._queue(watch.place.bucket, partial(self._look, watch, book))

    def _queue(self, bucket: str, work: Callable[[str], None]) -> None:
        """Let a thread do this for a bucket as soon as there is one; until then, what callbacks name is asked for."""
        with self._lock:
            if bucket in self._queued or not self._is_free(bucket):
                return
            self._queued.add(bucket)
        self._pool.submit(self._do_queued, bucket, work)

    def _do_queued(self, bucket: str, work: Callable[[str], None]) -> None:
        with self._lock:
            self._queued.discard(bucket)
        if self._begin(bucket):  # else whoever has it looks what is due, when it lets go of it
            work(bucket)

    def _look(self, watch: Watch, book: Rulebook, bucket: str) -> None:
        try:
            self._looks.ask(watch, book)
        except TROUBLES as error:
            logger.warning("no early look: database unavailable", extra={"watch": watch.name, "reason": trouble(error)})
        except Exception:  # the edge of a thread: polls see the jobs
            logger.exception("an early look failed", extra={"watch": watch.name})
        self._let_go(bucket)

    def start_hinted(self) -> None:
        """Ask for the jobs that callbacks name, where no poll does that between its calls."""
        book = self._book()
        for bucket in self._hints.due(book.watches):
            if self._begin(bucket):
                self._hint_pool.submit(self._ask_hinted, bucket, book)

    def _begin(self, bucket: str) -> bool:
        """Take a bucket for a thread; False if it is not free."""
        with self._lock:
            is_free = self._is_free(bucket)
            if is_free:
                self._busy.add(bucket)
            return is_free

    def _is_free(self, bucket: str) -> bool:
        """Tell whether no thread is at a bucket, and its last poll could be recorded."""
        is_resting = self._resting.get(bucket, 0) > time.monotonic()
        return not (bucket in self._busy or is_resting or self._stop.is_set())

    def _ask_hinted(self, bucket: str, book: Rulebook) -> None:
        try:
            self._hints.ask(bucket, book)
        except TROUBLES as error:
            facts = {"bucket": bucket, "reason": trouble(error)}
            logger.warning("jobs that a callback names wait: database unavailable", extra=facts)
        except Exception:  # the edge of a thread: polls see the jobs
            logger.exception("jobs that a callback names could not be asked for", extra={"bucket": bucket})
        self._let_go(bucket)

    def seconds_to_next(self) -> float:
        """Return how long it is until a poll or an early look comes due.

        What is due already has been begun, or waits for others.
        """
        free = [watch for watch in self._book().watches if watch.place.bucket not in self._busy]
        times = (self._poller.next_due(free), self._looks.next_due(self._book()))
        next_due, now = min((time for time in times if time), default=None), self._poller.clock()
        return (next_due - now).total_seconds() if next_due else math.inf

    def close(self) -> None:
        """Return when each poll has ended the call to CI that it is in."""
        for pool in (self._hint_pool, self._pool):
            pool.shutdown(cancel_futures=True)

    def _poll_due(self, bucket: str) -> None:
        polls = [self._poll(watch) for watch in self._due(bucket)]
        if all(polls):
            self._let_go(bucket)
        else:
            self._free(bucket)

    def _due(self, bucket: str) -> list[Watch]:
        try:
            due = self._poller.due(self._book().watches, early=_EARLY)
        except TROUBLES as error:
            logger.warning("polling is suspended: database unavailable", extra={"reason": trouble(error)})
            return []
        return [watch for watch in due if watch.place.bucket == bucket]

    def _let_go(self, bucket: str) -> None:
        """Let other threads take a bucket, and poll it if that is due.

        A list goes on, or a watch came due meanwhile; that comes as soon as other buckets had their turn.
        """
        is_due = self._due(bucket)
        self._free(bucket)
        if is_due:
            with suppress(RuntimeError):  # the pool is closed
                self._queue(bucket, self._poll_due)

    def _free(self, bucket: str) -> None:
        with self._lock:
            self._busy.discard(bucket)

    def _poll(self, watch: Watch) -> PollResult | None:
        # When the next poll is due could not be recorded, and CI is not to be asked every second meanwhile.
        rest_s = max(_REST_S, watch.every.total_seconds())
        try:
            poll = self._poller.poll_once(watch, self._book(), within=watch.every)
        except TROUBLES as error:
            logger.warning("poll given up: database unavailable", extra={"watch": watch.name, "reason": trouble(error)})
        except Exception as error:  # the edge of a thread: the watch is polled again later
            logger.exception("poll failed", extra={"watch": watch.name})
            self._note_crash(watch, error)
        else:
            if poll:
                _log(poll)
                return poll
            rest_s = _REST_S  # another worker has the bucket, and it may end
        self._resting[watch.place.bucket] = time.monotonic() + rest_s
        return None

    def _note_crash(self, watch: Watch, error: Exception) -> None:
        try:
            self._poller.note_crash(watch, self._book(), error)
        except Exception:  # likewise
            logger.exception("a failed poll could not be recorded", extra={"watch": watch.name})


def _log(poll: PollResult) -> None:
    facts = {"watch": poll.watch, "calls": poll.calls, "jobs": poll.jobs}
    if poll.error:
        logger.warning("poll failed", extra={**facts, "reason": str(poll.error)})
    elif poll.transitions:
        logger.info("poll", extra={**facts, "transitions": poll.transitions, "deliveries": poll.deliveries})


def _tick_s(book: Rulebook) -> float:
    """Return how often to look for due watches: an idle machine is not woken every second for nothing."""
    shortest = min((watch.every.total_seconds() for watch in book.watches), default=_SLOWEST_TICK_S)
    return min(max(shortest / 6, 1.0), _SLOWEST_TICK_S)


def _machine() -> str:
    """Name this boot of this kernel and this process namespace: only there does a pid mean the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116  (a magic link: Path would resolve it)
    except OSError:
        return f"unknown/{randomness.token_hex(8)}"  # not Linux: leases expire by themselves


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A killed child that nobody has waited for is no longer a process.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


# --- polls of a command ---------------------------------------------------------------------------------------------


def poll_all(
    settings: Settings, rules: Rules, db: Database, names: Sequence[str] = ()
) -> Iterator[tuple[str, PollResult | None]]:
    """Put the rules in force, and poll every watch (or those of these names) once, due or not.

    A poll is None if another worker is polling its bucket. Raises OperationRefused if live workers have other rules.
    """
    clock, book = SharedClock(db, utc_now), rules.book
    clock.correct()
    with db.write() as tx:
        standing = rulesets.state(tx, now=clock())
        if standing.alive and standing.sha not in (None, book.sha):
            raise OperationRefused(
                f"not polled: live workers ({len(standing.alive)}) use the rules {standing.sha}, and this rules.toml is"
                f" {book.sha}. Poll with the rules in force (BRIDGE_RULES), or put these rules in force:"
                " `ci-bridge rules reload` on the workers' machine, or restart the workers"
            )
        accept(tx, book, now=clock())
    with closing(source(settings, book)) as ci:
        poller = Poller(db=db, source=ci, clock=clock, worker=f"poll-{randomness.token_hex(6)}")
        for watch in book.watches:
            if not names or watch.name in names:
                yield watch.name, poller.poll_once(watch, book)
