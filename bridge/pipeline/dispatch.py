"""Deliver: claim what free slots can take, send, settle. One thread does all of it."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection

from bridge.decide.retries import BROKEN_AT, counts_from, next_pause, probed_since, rest
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Attempt, Breaker, Delivery, Rejected, RetryLater, Sent
from bridge.pipeline.digests import DigestDispatcher
from bridge.pipeline.housekeeping import Housekeeping, is_silence, retry_of, tell_fallback
from bridge.record.database import TROUBLES, Clock, Database, trouble
from bridge.record.outbox import claims, entries, results
from bridge.record.outbox.results import Ended

_QUICK_S = 1.0
# What an attempt may take, and a little: with less left of its lease a delivery is handed back, not begun.
_NEEDED_S = 17.0


class Prefetch:
    """Lets at most `max_in_flight` of a notifier be in the air; those after them wait here, under their lease.

    Only a receiver whose last answer was quick has a line: its next batch is claimed in the transaction that
    records the last one, which halves their number. Whoever waits has not been sent, so a crash repeats no more.
    """

    def __init__(self) -> None:
        self.quick: set[str] = set()
        self._in_air: Counter[str] = Counter()
        self._waiting: deque[tuple[Delivery, float]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, deliveries: Iterable[Delivery], *, lease_until_s: float) -> None:
        self._waiting.extend((delivery, lease_until_s) for delivery in deliveries)

    def ready(self, limits: dict[str, int], *, now_s: float) -> tuple[list[Delivery], list[Delivery]]:
        """Take out those that may begin now, and those whose lease has become too short. Times are monotonic."""
        begin: list[Delivery] = []
        stale: list[Delivery] = []
        keep: deque[tuple[Delivery, float]] = deque()
        for delivery, until_s in self._waiting:
            name = delivery.notifier
            if until_s - now_s < _NEEDED_S:
                stale.append(delivery)
            elif self._in_air[name] < limits.get(name, 1):
                self._in_air[name] += 1
                begin.append(delivery)
            else:
                keep.append((delivery, until_s))
        self._waiting = keep
        return begin, stale

    def ended(self, attempt: Attempt) -> list[Delivery]:
        """Free a place. Of a receiver that failed or was slow, take out all who wait: it may want to be left alone."""
        name = attempt.delivery.notifier
        self._in_air[name] -= 1
        if isinstance(attempt.outcome, Sent) and attempt.seconds < _QUICK_S:
            self.quick.add(name)
            return []
        self.quick.discard(name)
        return self._leave(lambda delivery: delivery.notifier == name)

    def leave(self) -> list[Delivery]:
        """Take out all who wait."""
        return self._leave(lambda _: True)

    def _leave(self, which: Callable[[Delivery], bool]) -> list[Delivery]:
        left = [delivery for delivery, _ in self._waiting if which(delivery)]
        self._waiting = deque(one for one in self._waiting if not which(one[0]))
        return left


logger = logging.getLogger(__name__)

# W: what may be in flight or accepted but not yet recorded, and so be told twice if the process dies.
WINDOW = 64
# Every attempt ends within its own hard deadline of 15 s; a lease that outlives it needs no renewal.
LEASE = timedelta(seconds=30)
_UNHURRIED_S = 2.0  # between looks at an outbox where nothing is due: what others put there, a retry's time
_ENOUGH = 48  # ended attempts that are worth a transaction while others are in flight
_LINGER_S = 0.002


class Transport(Protocol):
    """What attempts go out with: many at once, ended in any order, none of them later than LEASE."""

    def begin(self, delivery: Delivery) -> None: ...
    def wait(self, timeout_s: float) -> Sequence[Attempt]: ...
    def wake(self) -> None: ...
    @property
    def in_flight(self) -> int: ...


class Dispatcher:
    """The delivery loop of one worker. `wake` may be called from any thread; all else from one."""

    def __init__(
        self,
        *,
        db: Database,
        transport: Transport,
        book: Callable[[], Rulebook],
        clock: Clock,
        chance: Callable[[], float],
        worker: str,
        monotonic: Callable[[], float] = time.monotonic,
        window: int = WINDOW,
        clock_fault: Callable[[Connection], str | None] = lambda _: None,
    ) -> None:
        self._db = db
        self._transport = transport
        self._book = book
        self._clock = clock
        self._chance = chance
        self._worker = worker
        self._monotonic = monotonic
        self._window = window
        self._clock_fault = clock_fault
        self._claims = itertools.count(1)
        self._housekeeping = Housekeeping(
            db=db,
            book=book,
            clock=clock,
            monotonic=monotonic,
            new_lease=lambda: f"{worker}.{next(self._claims)}",
            lease=LEASE,
            clock_fault=clock_fault,
        )
        self._digest_dispatcher = DigestDispatcher(db=db, book=book, clock=clock, monotonic=monotonic)
        self._newest: set[str] = set()  # notifiers whose next claim begins with the youngest, while they fail
        self._failing: set[str] = set()  # notifiers whose last attempt was not answered
        self._held: set[int] = set()  # the numbers of what was claimed and is not recorded
        self._prefetch = Prefetch()
        self._stale: list[Delivery] = []  # claimed and not begun, to be handed back
        self._claimed_at_s = monotonic()
        self._ended: list[Attempt] = []  # accepted or failed, not yet recorded
        self._again_at: datetime | None = None
        self._woken = False

    def wake(self) -> None:
        """Look at the outbox now."""
        self._woken = True
        self._transport.wake()

    @property
    def unfinished(self) -> int:
        return self._transport.in_flight + len(self._ended) + len(self._prefetch) + len(self._stale)

    def turn(self, *, claiming: bool = True) -> int:
        """Record what ended, claim and begin what is due, then wait for news. Return how many were claimed.

        When the database does not answer, what ended is kept and recorded when it does.
        """
        try:
            if claiming:
                self._housekeeping.look(self._held)
                self._woken |= self._digest_dispatcher.look()
            claimed = self._exchange(claiming=claiming)
        except TROUBLES as error:
            logger.warning("delivering waits for the database", extra={"reason": trouble(error)})
            self._housekeeping.begin_anew()
            self._collect(_UNHURRIED_S)
            return 0
        self._held.update(delivery.n for delivery in claimed)
        self._prefetch.add(claimed, lease_until_s=self._claimed_at_s + LEASE.total_seconds())
        self._begin_ready()
        if claiming or self._transport.in_flight:
            self._collect(self._patience(bool(claimed)))
        return len(claimed)

    def _exchange(self, *, claiming: bool) -> Sequence[Delivery]:
        """In one transaction: settle what ended, claim what the slots that are free by it can take."""
        now, now_s = self._clock(), self._monotonic()
        free = self._window - self._transport.in_flight - len(self._prefetch)
        # Whoever wakes us has put something there: to ask first would be a transaction in its way.
        woken, self._woken = self._woken, False
        if not self._ended and not self._stale and not (claiming and free > 0 and (woken or self._is_due(now))):
            self._again_at = None
            return ()
        with self._db.write() as tx:
            lost = self._settle(tx, now)
            results.hand_back(tx, self._stale)
            claimed = claims.Claimed(())
            if claiming and free > 0:
                number = next(self._claims)
                lease = f"{self._worker}.{number}"
                claimed = claims.claim(
                    tx,
                    free=free,
                    lease=lease,
                    lease_for=LEASE,
                    now=now,
                    turn=number,
                    ahead=self._prefetch.quick,
                    broken_at=BROKEN_AT,
                    newest=self._newest,
                )
        done = (*(attempt.delivery for attempt in self._ended), *self._stale)
        self._held.difference_update(delivery.n for delivery in done)
        sent = [one.delivery.id for one in self._ended if isinstance(one.outcome, Sent)]
        if sent:
            logger.info("sent", extra={"deliveries": len(sent), "first": sent[0]})
        quiet = {attempt.delivery.notifier for attempt in self._ended if is_silence(attempt)}
        answered = {attempt.delivery.notifier for attempt in self._ended} - quiet
        self._failing = (self._failing - answered) | quiet | claimed.failing
        self._ended.clear()
        self._stale.clear()
        self._newest ^= {delivery.notifier for delivery in claimed.deliveries}
        self._claimed_at_s = now_s
        self._again_at = claimed.again_at
        if lost:
            logger.warning("lease lost, the outcome is not recorded", extra={"deliveries": len(lost)})
        return claimed.deliveries

    def _is_due(self, now: datetime) -> bool:
        # Asked in a reading transaction: an idle worker never takes SQLite's write lock.
        with self._db.read() as tx:
            return bool(claims.due_notifiers(tx, now=now))

    def _settle(self, tx: Connection, now: datetime) -> frozenset[int]:
        self._recover(tx)
        ended = self._judged(tx, now)
        lost = results.settle(tx, ended, now=now) if ended else frozenset()
        self._count_failures(tx, [one.attempt for one in ended if one.attempt.delivery.n not in lost], now)
        for one in ended:
            if one.attempt.delivery.n in lost:
                continue
            if one.dead:
                tell_fallback(tx, one.attempt, self._book(), now)
            elif isinstance(one.attempt.outcome, Rejected):
                _log_pause(one.attempt.delivery.notifier, one.attempt.outcome)
        return lost

    def _recover(self, tx: Connection) -> None:
        """One answer ends what the breaker counted; before it is recorded, as it may ask for time itself."""
        for name in sorted({one.delivery.notifier for one in self._ended if not is_silence(one)} & self._failing):
            entries.recovered(tx, name, broken_at=BROKEN_AT)
            logger.info("a notifier that failed answers again", extra={"notifier": name})

    def _count_failures(self, tx: Connection, attempts: Sequence[Attempt], now: datetime) -> None:
        """The breaker: who does not answer, again and again, is left alone for a while; one answer ends that."""
        failed = Counter(one.delivery.notifier for one in attempts if is_silence(one))
        for name in sorted(set(failed) - {one.delivery.notifier for one in attempts if not is_silence(one)}):
            begun_s = min(one.seconds for one in attempts if one.delivery.notifier == name)
            run = self._housekeeping.run_clock.read(tx, now) - timedelta(seconds=begun_s)
            failures = entries.failed(tx, name, failed[name], broken_at=BROKEN_AT, run=run)
            if failures > BROKEN_AT:
                self._housekeeping.probed(name, run, now - timedelta(seconds=begun_s))
            if pause := rest(failures=failures, chance=self._chance()):
                entries.hold(tx, name, now + pause)
                facts = {"notifier": name, "failures": failures, "seconds": round(pause.total_seconds())}
                logger.warning("a notifier that does not answer is left alone", extra=facts)

    def _judged(self, tx: Connection, now: datetime) -> list[Ended]:
        """Return what becomes of the deliveries whose attempts ended."""
        later = {one.delivery.notifier for one in self._ended if isinstance(one.outcome, RetryLater)}
        if not later:
            return [Ended(attempt) for attempt in self._ended]
        run, breakers = self._housekeeping.run_clock.read(tx, now), entries.breakers(tx, later)
        may_end = self._clock_fault(tx) is None
        return [
            self._judge(one, now, run, breakers.get(one.delivery.notifier, Breaker()), may_end=may_end)
            for one in self._ended
        ]

    def _judge(self, attempt: Attempt, now: datetime, run: timedelta, breaker: Breaker, *, may_end: bool) -> Ended:
        outcome, delivery = attempt.outcome, attempt.delivery
        if not isinstance(outcome, RetryLater):
            return Ended(attempt, retry_from=delivery.retry_from, retry_due=delivery.retry_due)
        begun = run - timedelta(seconds=attempt.seconds)
        first = due = begun
        if delivery.retry_from is not None and delivery.retry_due is not None:
            due = delivery.retry_due
            first = counts_from(first=delivery.retry_from, due=due, breaker=breaker, now=begun)
        pause = next_pause(
            attempts=delivery.attempts - delivery.lost,  # who dies while sending says nothing of the receiver
            used=run - first,
            retry=retry_of(delivery.notifier, self._book()),
            wish=outcome.after,
            chance=self._chance(),
            stood_for=delivery.retry_due is not None and probed_since(due, breaker),
            may_end=may_end,
        )
        return Ended(attempt) if pause is None else Ended(attempt, now + pause, first, run + pause)

    def _collect(self, timeout_s: float) -> None:
        self._take(self._transport.wait(timeout_s))
        # A handful of answers is worth waiting two milliseconds for: a transaction costs as much.
        while self._transport.in_flight and 0 < len(self._ended) < _ENOUGH:
            if not self._take(self._transport.wait(_LINGER_S)):
                break

    def _begin_ready(self) -> None:
        notifiers = self._book().notifiers
        limits = {name: notifier.max_in_flight for name, notifier in notifiers.items()}
        begin, stale = self._prefetch.ready(limits, now_s=self._monotonic())
        self._stale += stale
        for delivery in begin:
            self._transport.begin(delivery)

    def _take(self, attempts: Sequence[Attempt]) -> int:
        self._ended += attempts
        for attempt in attempts:
            self._stale += self._prefetch.ended(attempt)
            if not isinstance(attempt.outcome, Sent):
                facts = {"delivery": attempt.delivery.id, "notifier": attempt.delivery.notifier}
                logger.warning("attempt failed", extra={**facts, "reason": attempt.outcome.why})
        if len(self._prefetch):
            self._begin_ready()
        return len(attempts)

    def _patience(self, busy: bool) -> float:
        """Return how long to wait for news, in seconds."""
        if busy or self._transport.in_flight:
            return _UNHURRIED_S
        if self._ended or self._stale:
            return 0
        if self._again_at:
            return min(max((self._again_at - self._clock()).total_seconds(), 0), _UNHURRIED_S)
        return _UNHURRIED_S

    def finish(self, *, until: Callable[[], bool]) -> None:
        """Claim nothing more, hand back what waits; let what is in flight end and record it, or stop at `until`."""
        self._stale += self._prefetch.leave()
        while self.unfinished and not until():
            self.turn(claiming=False)


def _log_pause(notifier: str, refused: Rejected) -> None:
    advice = f"what is for it waits; mend it, then `ci-bridge notifier resume {notifier}`"
    logger.error("notifier paused", extra={"notifier": notifier, "reason": refused.why, "advice": advice})
