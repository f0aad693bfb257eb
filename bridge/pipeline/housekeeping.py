"""Periodic housekeeping: claims of lost workers, and what waits for a receiver that is left alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.decide.messages.build import as_fallback, per_notifier
from bridge.decide.retries import BROKEN_AT, over_at, was_tried_enough
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.templates.functions import variables
from bridge.model import Attempt, Breaker, Delivery, Message, NewDelivery, Notifier, Rejected, RetryLater, Sent
from bridge.pipeline.route import gates_at
from bridge.record.clocks import RunClock
from bridge.record.database import Clock, Database, ms
from bridge.record.outbox import claims, entries, results
from bridge.record.outbox.results import Ended, Held
from bridge.record.polling import snapshots

# --- how long a claim was seen to be held: what tells a lost worker from a slow one ---------------------------------

_LONGEST_STEP_S = 10.0


class LeaseWatcher:
    """Tells which claims are older than a lease lasts, by how long this process has watched them.

    No clock is compared with another, so that setting one, or two that disagree, ends nobody's lease. A time in which
    this process was stopped itself counts for little: it has watched nothing.
    """

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._watched_s: dict[Held, float] = {}
        self._looked_at_s: float | None = None

    def over(
        self, held: Collection[Held], now_s: float, *, sooner: Collection[Held] = (), sooner_s: float = 0.0
    ) -> list[Held]:
        """Return those of `held` that are over; what is not among them any more is forgotten.

        For those in `sooner` less is enough: there is other evidence. Without that, workers that never live as long
        as a lease would never free what the others held.
        """
        passed_s = 0.0 if self._looked_at_s is None else min(now_s - self._looked_at_s, _LONGEST_STEP_S)
        self._looked_at_s = now_s
        self._watched_s = {one: self._watched_s.get(one, -passed_s) + passed_s for one in held}
        lasts_s = dict.fromkeys(sooner, sooner_s)
        return [one for one, watched_s in self._watched_s.items() if watched_s > lasts_s.get(one, self._lasts_s)]

    def forget(self) -> None:
        """Begin anew: meanwhile nobody could say that he is alive."""
        self._watched_s.clear()


# --- housekeeping ---------------------------------------------------------------------------------------------------

logger = logging.getLogger(__name__)

_EVERY_S = 5.0
_OFTEN_S = 1.0  # while there is more to look at
_ADVANCE_S = 10.0
_AT_ONCE = 100  # deliveries given up in one look: nobody else is told meanwhile
_LOOKED_AT = 500  # of what waits for a notifier that is left alone, in one look
_SURELY = timedelta(minutes=10)  # over by the clock, and its worker not heard of since
_SOONER_S = 16.0  # a sign of life more than workers give of themselves
_NO_ANSWER = frozenset({None, 502, 503, 504})  # a status that a gateway gives for a receiver that is not there


class Housekeeping:
    """Belongs to the thread that delivers."""

    def __init__(
        self,
        *,
        db: Database,
        book: Callable[[], Rulebook],
        clock: Clock,
        monotonic: Callable[[], float],
        new_lease: Callable[[], str],
        lease: timedelta,
        clock_fault: Callable[[Connection], str | None],
    ) -> None:
        self._db = db
        self._book = book
        self._clock = clock
        self._monotonic = monotonic
        self._new_lease = new_lease
        self._lease = lease
        self._lease_watcher = LeaseWatcher(lease.total_seconds())
        self._clock_fault = clock_fault
        self.run_clock = RunClock(monotonic)
        self._advance_s = 0.0
        self._probes: dict[str, tuple[timedelta, int]] = {}  # the last probe in vain: run clock, and clock in ms
        self._looked: dict[str, tuple[int, int]] = {}  # how far was looked at what waits for a notifier left alone
        self._next_s = 0.0

    def look(self, mine: Collection[int]) -> None:
        """Do what there is to do, if it is time; `mine` are the numbers that this worker holds: it is alive."""
        if self._monotonic() < self._next_s:
            return
        if self._monotonic() >= self._advance_s:
            self._advance_s = self._monotonic() + _ADVANCE_S
            with self._db.write() as tx:
                self.run_clock.advance(tx, self._clock())
        with self._db.read() as tx:
            held = [one for one in results.held(tx) if one[0] not in mine]
            forsaken = results.forsaken(tx, before=self._clock() - _SURELY) if held else set()
            paused = claims.paused_and_waiting(tx)
            alone = claims.left_alone(tx, now=self._clock(), broken_at=BROKEN_AT)
        self._reap(held, forsaken)
        for name, why in paused:
            self._pass_on(name, why)
        again_s = [self._look_at_waiting(name, breaker) for name, breaker in alone.items()]
        self._next_s = self._monotonic() + min([_EVERY_S, *again_s])

    def probed(self, notifier: str, run: timedelta, now: datetime) -> None:
        """A probe was in vain: it counts as an attempt of everything that was due for the notifier."""
        self._probes[notifier] = (run, ms(now))
        self._next_s = 0.0

    def begin_anew(self) -> None:
        """The database was away: whoever is alive has outcomes to record, and goes first."""
        self._lease_watcher.forget()

    def _reap(self, held: Collection[results.Held], forsaken: Collection[results.Held]) -> None:
        lost = self._lease_watcher.over(held, self._monotonic(), sooner=forsaken, sooner_s=_SOONER_S)
        if not lost:
            return
        with self._db.write() as tx:
            freed = results.reap(tx, lost, now=self._clock())
        logger.warning("deliveries of a lost worker are sent again", extra={"deliveries": freed})

    def _pass_on(self, name: str, why: str) -> None:
        """What waits for a paused notifier is told to its fallback, if it has one."""
        notifier = self._book().notifiers.get(name)
        if notifier and notifier.fallback:
            self._bury(
                Rejected(f"notifier {name} is paused: {why}"),
                lambda tx, now: claims.claim_paused(
                    tx, name, lease=self._new_lease(), lease_for=self._lease, now=now, most=_AT_ONCE
                ),
            )

    def _look_at_waiting(self, name: str, breaker: Breaker) -> float:
        """Give up what waits for a notifier left alone longer than its retry time, some of it at a look.

        Return in how many seconds to look again.
        """
        now = self._clock()
        with self._db.read() as tx:
            run = self.run_clock.read(tx, now)
            rows = claims.due(tx, name, after=self._looked.pop(name, (0, 0)), now=now, most=_LOOKED_AT)
            doubted = bool(rows) and self._clock_fault(tx) is not None
        probe, probed_ms = self._probes.get(name, (run, 0))
        if begun := [one.n for one in rows if one.retry_from is None and one.due_at <= probed_ms]:
            with self._db.write() as tx:
                claims.begin_retry(tx, begun, probe)
        retry = retry_of(name, self._book())
        ends = [] if doubted else list(_ends(rows, retry, breaker, run))
        over = [n for end, n, is_enough in ends if end <= run and is_enough]
        if over:
            self._give_up(name, over[:_AT_ONCE])
        # Its last try is made when the time ends: the next probe may be a minute away.
        if breaker.opened is not None and (short := [n for end, n, is_enough in ends if end <= run and not is_enough]):
            with self._db.write() as tx:
                claims.urge(tx, name, short, now=now)
        if len(over) > _AT_ONCE or len(rows) == _LOOKED_AT:
            self._looked[name] = (0, 0) if len(over) > _AT_ONCE else (rows[-1].due_at, rows[-1].n)
            return _OFTEN_S
        return min([_EVERY_S, *((end - run).total_seconds() for end, _, _ in ends if end > run)])

    def _give_up(self, name: str, numbers: Sequence[int]) -> None:
        def claim(tx: Connection, now: datetime) -> Sequence[Delivery]:
            lease = self._new_lease()
            return claims.claim_hopeless(
                tx, name, left, broken_at=BROKEN_AT, lease=lease, lease_for=self._lease, now=now
            )

        left = set(numbers)
        # Of a lane only the first can be claimed: those behind it follow at once.
        while left and (ended := self._bury(Rejected(f"its retry time is over, and {name} answers nobody"), claim)):
            left -= ended

    def _bury(self, outcome: Rejected, claim: Callable[[Connection, datetime], Sequence[Delivery]]) -> set[int]:
        with self._db.write() as tx:
            now = self._clock()
            ended = [Attempt(delivery=one, outcome=outcome, started_at=now, seconds=0) for one in claim(tx, now)]
            results.settle(tx, [Ended(attempt) for attempt in ended], now=now)
            for attempt in ended:
                tell_fallback(tx, attempt, self._book(), now)
        return {attempt.delivery.n for attempt in ended}


def _ends(
    rows: Sequence[claims.Due], retry: timedelta, breaker: Breaker, run: timedelta
) -> Iterator[tuple[timedelta, int, bool]]:
    """Yield of each whose retry time has begun when it is over, its number, and whether it was tried enough."""
    for one in rows:
        if one.retry_from is not None and one.retry_due is not None:
            end = over_at(first=one.retry_from, due=one.retry_due, retry=retry, breaker=breaker, now=run)
            yield end, one.n, was_tried_enough(attempts=one.attempts, due=one.retry_due, breaker=breaker)


def is_silence(attempt: Attempt) -> bool:
    """Tell whether nobody answered. Who refuses a message, or asks for time, is there."""
    outcome = attempt.outcome
    return isinstance(outcome, RetryLater) and not outcome.whole_notifier and attempt.status in _NO_ANSWER


def tell_fallback(tx: Connection, attempt: Attempt, book: Rulebook, now: datetime) -> None:
    """Say that a delivery is dead, and tell its message to the fallback of its notifier, if there is one."""
    outcome = attempt.outcome
    why = "" if isinstance(outcome, Sent) else outcome.why
    logger.error("delivery is dead", extra={"delivery": attempt.delivery.id, "reason": why})
    dead = book.notifiers.get(attempt.delivery.notifier)
    fallback = book.notifiers.get(dead.fallback or "") if dead else None
    if fallback is None:
        return
    message = entries.message_of(tx, attempt.delivery.n)
    if message.kind != "test":  # a test of one place is no news for another
        entries.put(tx, [_told(tx, message, attempt.delivery.notifier, why, fallback, book, now)], now=now)


def _told(
    tx: Connection, message: Message, dead: str, why: str, fallback: Notifier, book: Rulebook, now: datetime
) -> NewDelivery:
    """Return the delivery to the fallback: in the form that is its own, and held while it is quiet for it."""
    sequence, rule = message.sequence or 0, message.rule or ""
    step = snapshots.transition_at(tx, message.bucket or "", message.job_id or "", sequence)
    if step is None:  # a digest, or long ago
        return as_fallback(message, dead, why, fallback)
    own = per_notifier(fallback, variables(step, rule, book.queue_names, zone=book.zone))
    hold = gates_at(tx, book, now).quiet(book.matcher.facts(step), rule, fallback.name)
    return replace(as_fallback(message, dead, why, fallback, own), hold=hold)


def retry_of(name: str, book: Rulebook) -> timedelta:
    """Return how long a notifier is tried; rules.toml may no longer have it."""
    return (book.notifiers.get(name) or Notifier(name=name)).retry
