"""Deliver: claim what free slots can take, send, settle. One thread does all of it."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from bridge.decide.retries import BREAKER_THRESHOLD, breaker_pause, counts_from, next_pause, probed_since
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Attempt, Breaker, Delivery, Rejected, RetryLater, RootEdit, Sent
from bridge.notifiers import Notifier
from bridge.pipeline import edits, flood
from bridge.pipeline.digests import send_due_digests
from bridge.pipeline.edits import ClaimedEdits
from bridge.pipeline.housekeeping import CLAIM_LEASE, Housekeeping, notify_fallbacks, retry_of
from bridge.pipeline.picks import pick_again
from bridge.record.database import TROUBLES, Clock, Database, trouble
from bridge.record.outbox import claims, entries, results
from bridge.record.outbox.claims import Share
from bridge.record.outbox.results import Ended

if TYPE_CHECKING:
    from bridge.send.sender import Sender

logger = logging.getLogger(__name__)

# What may be in flight, or accepted and not yet recorded: it is sent twice if the process dies.
WINDOW = 64
_QUICK_S = 1.0
# More than an attempt may take: with less left of its lease a delivery is handed back, not begun.
_MIN_LEASE_LEFT_S = 17.0
_IDLE_POLL_S = 2.0  # between looks at an outbox where nothing is due: what others put there, a retry's time
_ENOUGH = 48  # ended attempts that are worth a transaction while others are in flight
_COLLECT_WAIT_S = 0.002
_DIGESTS_S = _FLOOD_S = 1.0
_LIMIT_PAUSE = timedelta(seconds=10)  # where a limit does not say how long it lasts
_NO_ANSWER = frozenset({None, 502, 503, 504})  # a status that a gateway gives for a receiver that is not there


def shares_of(notifier: Notifier) -> tuple[Share, ...]:
    """Return the limits that a notifier shares, one for each of its channels."""
    channels = notifier.channels or (None,)
    limits = [(notifier.limit_of(channel), channel) for channel in channels]
    return tuple(
        Share(
            limit=limit,
            channel=channel or "",
            channels=notifier.channels if len(channels) > 1 else (),
            look_up=notifier.look_up_limit,
            paced=notifier.rate is not None and notifier.rate.interval > limit.interval,
        )
        for limit, channel in limits
        if limit
    )


class Prefetch:
    """Lets at most `max_in_flight` of a notifier be in flight; those after them wait here, under their lease.

    Only for a receiver whose last answer was quick is more claimed than may be in flight: the next claim shares a
    transaction with the last results, which halves the number of transactions. What waits here has not been sent, so
    that a crash causes no more duplicates.
    """

    def __init__(self) -> None:
        self.quick: set[str] = set()
        self._in_flight: Counter[str] = Counter()
        self._waiting: deque[tuple[Delivery, float]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, deliveries: Iterable[Delivery], *, lease_until_s: float) -> None:
        self._waiting.extend((delivery, lease_until_s) for delivery in deliveries)

    def ready(self, limits: Mapping[str, int], *, now_s: float) -> tuple[list[Delivery], list[Delivery]]:
        """Take out those that may begin now, and those whose lease has become too short. Times are monotonic."""
        begin, stale, keep = list[Delivery](), list[Delivery](), deque[tuple[Delivery, float]]()
        for delivery, until_s in self._waiting:
            name = delivery.notifier
            if until_s - now_s < _MIN_LEASE_LEFT_S:
                stale.append(delivery)
            elif self._in_flight[name] < limits.get(name, 1):
                self._in_flight[name] += 1
                begin.append(delivery)
            else:
                keep.append((delivery, until_s))
        self._waiting = keep
        return begin, stale

    def ended(self, attempt: Attempt) -> list[Delivery]:
        """Free a place. Of a receiver that failed or was slow, take out all who wait: it may want to be left alone."""
        name = attempt.delivery.notifier
        self._in_flight[name] -= 1
        if isinstance(attempt.outcome, Sent) and attempt.seconds < _QUICK_S:
            self.quick.add(name)
            return []
        self.quick.discard(name)
        return self.leave(name)

    def leave(self, notifier: str | None = None) -> list[Delivery]:
        """Take out all who wait, or those of one notifier."""
        left = [delivery for delivery, _ in self._waiting if notifier in (None, delivery.notifier)]
        self._waiting = deque(pair for pair in self._waiting if notifier not in (None, pair[0].notifier))
        return left


@dataclass(slots=True, kw_only=True)
class Dispatcher:
    """The delivery loop of one worker. `wake` may be called from any thread; all else from one."""

    db: Database
    transport: Sender
    book: Callable[[], Rulebook]
    clock: Clock
    chance: Callable[[], float]
    worker: str
    monotonic: Callable[[], float] = time.monotonic
    window: int = WINDOW
    clock_fault: Callable[[Connection], str | None] = lambda _: None
    _claims: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False)
    _housekeeping: Housekeeping = field(init=False)
    _prefetch: Prefetch = field(default_factory=Prefetch, init=False)
    _newest: set[str] = field(default_factory=set, init=False)  # notifiers whose next claim begins with the youngest
    _failing: set[str] = field(default_factory=set, init=False)  # notifiers whose last attempt was not answered
    _held: set[int] = field(default_factory=set, init=False)  # the numbers of what is claimed and not recorded
    _stale: list[Delivery] = field(default_factory=list, init=False)  # claimed and not begun, to be handed back
    _ended: list[Attempt] = field(default_factory=list, init=False)  # accepted or failed, not yet recorded
    _digests_at_s: float = field(default=0.0, init=False)
    _flood_at_s: float = field(default=0.0, init=False)
    _again_at: datetime | None = field(default=None, init=False)
    _woken: bool = field(default=False, init=False)
    _shares_of: tuple[Rulebook, Mapping[str, Sequence[Share]]] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._housekeeping = Housekeeping(
            db=self.db,
            book=self.book,
            clock=self.clock,
            monotonic=self.monotonic,
            new_lease=lambda: f"{self.worker}.{next(self._claims)}",
            clock_fault=self.clock_fault,
        )

    def wake(self) -> None:
        """Look at the outbox now."""
        self._woken = True
        self.transport.wake()

    @property
    def unfinished(self) -> int:
        return self.transport.in_flight + len(self._ended) + len(self._prefetch) + len(self._stale)

    def run_once(self, *, claiming: bool = True) -> int:
        """Record what ended, claim and begin what is due, then wait for news. Return how many were claimed.

        When the database does not answer, what ended is kept and recorded when it does.
        """
        try:
            if claiming:
                self._housekeeping.run_due(self._held)
                self._send_held()
                self._fold_floods()
            claimed = self._settle_and_claim(claiming=claiming)
        except TROUBLES as error:
            logger.warning("delivery is suspended: database unavailable", extra={"reason": trouble(error)})
            self._housekeeping.begin_anew()
            self._collect(_IDLE_POLL_S)
            return 0
        self._begin_ready()
        if claiming or self.transport.in_flight:
            self._collect(self._patience(busy=bool(claimed)))
        return claimed

    def _send_held(self) -> None:
        if self.monotonic() >= self._digests_at_s:
            self._digests_at_s = self.monotonic() + _DIGESTS_S
            self._woken |= send_due_digests(self.db, self.book(), self.clock()) > 0
            self._woken |= pick_again(self.db, self.book(), self.clock()) > 0

    def _fold_floods(self) -> None:
        if self.monotonic() >= self._flood_at_s and (shares := self._shares()):
            self._flood_at_s = self.monotonic() + _FLOOD_S
            flood.fold(self.db, self.book(), shares, self.clock())

    def _settle_and_claim(self, *, claiming: bool) -> int:
        """In one transaction: settle what ended, claim what the slots that are free by it can take."""
        now, now_s = self.clock(), self.monotonic()
        free = self.window - self.transport.in_flight - len(self._prefetch) if claiming else 0
        edited = ClaimedEdits()
        # Whoever wakes us has put something there: to ask first would be a transaction in its way.
        woken, self._woken = self._woken, False
        if not self._ended and not self._stale and not (free > 0 and (woken or self._is_due(now))):
            self._again_at = None
            return 0
        with self.db.write() as tx:
            lost = self._settle(tx, now)
            results.hand_back(tx, self._stale)
            claimed = self._claim(tx, free, now) if free > 0 else claims.Claimed(())
            if free > len(claimed.deliveries):
                edited = self._claim_edits(tx, free - len(claimed.deliveries), now)
        self._forget_ended(lost, claimed.failing)
        # Claims of a notifier alternate: one begins with the oldest, the next with the youngest.
        self._newest ^= {delivery.notifier for delivery in claimed.deliveries}
        self._again_at = min(filter(None, (claimed.again_at, edited.again_at)), default=None)
        self._held.update(delivery.n for delivery in claimed.deliveries)
        self._prefetch.add(claimed.deliveries, lease_until_s=now_s + CLAIM_LEASE.total_seconds())
        for edit in edited.edits:
            self.transport.begin(edit)
        return len(claimed.deliveries) + len(edited.edits)

    def _claim(self, tx: Connection, free: int, now: datetime) -> claims.Claimed:
        number = next(self._claims)
        return claims.claim(
            tx,
            free=free,
            lease=f"{self.worker}.{number}",
            lease_for=CLAIM_LEASE,
            now=now,
            turn=number,
            ahead=self._prefetch.quick,
            threshold=BREAKER_THRESHOLD,
            newest=self._newest,
            shares=self._shares(),
        )

    def _shares(self) -> Mapping[str, Sequence[Share]]:
        """Return the limits that notifiers share, by notifier; made anew with the rules."""
        book = self.book()
        if self._shares_of is None or self._shares_of[0] is not book:
            self._shares_of = book, {name: found for name, one in book.notifiers.items() if (found := shares_of(one))}
        return self._shares_of[1]

    def _claim_edits(self, tx: Connection, free: int, now: datetime) -> ClaimedEdits:
        return edits.claim(
            tx,
            self.book(),
            free=free,
            lease=f"{self.worker}.{next(self._claims)}",
            now=now,
            threshold=BREAKER_THRESHOLD,
        )

    def _forget_ended(self, lost: Collection[int], failing: Collection[str]) -> None:
        """Forget what is recorded, and remember which notifiers fail."""
        done = (*(attempt.delivery for attempt in self._ended), *self._stale)
        self._held.difference_update(delivery.n for delivery in done)
        sent = [
            attempt.delivery.id for attempt in self._ended if isinstance(attempt.outcome, Sent) and attempt.delivery.n
        ]
        if sent:
            logger.info("sent", extra={"deliveries": len(sent), "first": sent[0]})
        if lost:
            logger.warning("lease lost, the outcome is not recorded", extra={"deliveries": len(lost)})
        unanswered, answered = _by_answer(self._ended)
        self._failing = (self._failing - (answered - unanswered)) | unanswered | set(failing)
        self._ended.clear()
        self._stale.clear()

    def _is_due(self, now: datetime) -> bool:
        # Asked in a reading transaction: an idle worker never takes SQLite's write lock.
        with self.db.read() as tx:
            return bool(claims.due_notifiers(tx, now=now)) or edits.are_due(tx, self.book(), now)

    def _settle(self, tx: Connection, now: datetime) -> frozenset[int]:
        """Record what ended, and what follows for notifiers; return the numbers of what was claimed by others since."""
        self._recover(tx)
        judged = self._judged(tx, now)
        ended = [result for result in judged if not isinstance(result.attempt.delivery, RootEdit)]
        edited = [(edit, result) for result in judged if isinstance(edit := result.attempt.delivery, RootEdit)]
        lost = results.settle(tx, ended, now=now) if ended else frozenset()
        kept = [result for result in ended if result.attempt.delivery.n not in lost]
        edits.catch_up(tx, [result.attempt for result in kept], self.book(), now)
        self._count_failures(tx, [result.attempt for result in (*kept, *(result for _, result in edited))], now)
        if edited:
            edits.settle(tx, edited, self.book(), lease=f"{self.worker}.{next(self._claims)}", now=now)
        for result in kept:
            outcome, notifier = result.attempt.outcome, result.attempt.delivery.notifier
            if not result.dead and isinstance(outcome, Rejected):
                advice = f"its deliveries wait; fix the cause, then `ci-bridge notifier resume {notifier}`"
                facts = {"notifier": notifier, "reason": outcome.why, "advice": advice}
                logger.error("notifier paused", extra=facts)
        notify_fallbacks(tx, [result.attempt for result in kept if result.dead], self.book(), now)
        return lost

    def _recover(self, tx: Connection) -> None:
        """One answer ends what the breaker counted; before it is recorded, as it may ask for time itself."""
        for name in sorted(_by_answer(self._ended)[1] & self._failing):
            entries.recovered(tx, name, threshold=BREAKER_THRESHOLD)
            logger.info("a notifier that failed answers again", extra={"notifier": name})

    def _count_failures(self, tx: Connection, attempts: Sequence[Attempt], now: datetime) -> None:
        """The breaker: who does not answer, again and again, is left alone for a while; one answer ends that."""
        failed = Counter(attempt.delivery.notifier for attempt in attempts if _is_unanswered(attempt))
        unanswered, answered = _by_answer(attempts)
        for name in sorted(unanswered - answered):
            begun_s = min(attempt.seconds for attempt in attempts if attempt.delivery.notifier == name)
            run = self._housekeeping.run_clock.read(tx, now) - timedelta(seconds=begun_s)
            failures = entries.failed(tx, name, failed[name], threshold=BREAKER_THRESHOLD, run=run)
            if failures > BREAKER_THRESHOLD:
                self._housekeeping.probed(name, run, now - timedelta(seconds=begun_s))
            if pause := breaker_pause(failures=failures, chance=self.chance()):
                entries.postpone_notifier(tx, name, now + pause)
                facts = {"notifier": name, "failures": failures, "seconds": round(pause.total_seconds())}
                logger.warning("circuit breaker opened", extra=facts)

    def _judged(self, tx: Connection, now: datetime) -> list[Ended]:
        """Return what becomes of the deliveries whose attempts ended."""
        later = {attempt.delivery.notifier for attempt in self._ended if isinstance(attempt.outcome, RetryLater)}
        if not later:
            return [Ended(attempt) for attempt in self._ended]
        run, breakers = self._housekeeping.run_clock.read(tx, now), entries.breakers(tx, later)
        may_end = self.clock_fault(tx) is None
        return [
            self._judge(attempt, now, run, breakers.get(attempt.delivery.notifier, Breaker()), may_end=may_end)
            for attempt in self._ended
        ]

    def _judge(self, attempt: Attempt, now: datetime, run: timedelta, breaker: Breaker, *, may_end: bool) -> Ended:
        outcome, delivery = attempt.outcome, attempt.delivery
        if not isinstance(outcome, RetryLater):
            return Ended(attempt, retry_from=delivery.retry_from, retry_due=delivery.retry_due)
        begun = run - timedelta(seconds=attempt.seconds)
        if outcome.limit:
            return self._keep_place(attempt, outcome, now, begun, breaker)
        first = due = begun
        if delivery.retry_from is not None and delivery.retry_due is not None:
            due = delivery.retry_due
            first = counts_from(first=delivery.retry_from, due=due, breaker=breaker, now=begun)
        pause = next_pause(
            attempts=delivery.attempts - delivery.lost,  # who dies while sending says nothing of the receiver
            used=run - first,
            retry=retry_of(delivery.notifier, self.book()),
            retry_after=outcome.after,
            chance=self.chance(),
            probed=delivery.retry_due is not None and probed_since(due, breaker),
            may_end=may_end,
            most=outcome.attempts,
        )
        return Ended(attempt) if pause is None else Ended(attempt, now + pause, first, run + pause)

    def _keep_place(
        self, attempt: Attempt, outcome: RetryLater, now: datetime, begun: timedelta, breaker: Breaker
    ) -> Ended:
        """A shared limit was reached: the wait for it is none of the delivery's, and uses up no retry time."""
        delivery, first = attempt.delivery, attempt.delivery.retry_from
        if first is not None and delivery.retry_due is not None:
            first = counts_from(first=first, due=delivery.retry_due, breaker=breaker, now=begun)
        until = now + (outcome.after or _LIMIT_PAUSE)
        notifier = self.book().notifiers.get(delivery.notifier)
        own = notifier.limit_of(delivery.channel) if notifier else None
        # Claims ask the limit of the channel: what waits for another one (of reads, of edits) is not claimed before.
        return Ended(
            attempt, until, retry_from=first, retry_due=None if first is None else begun,
            keeps_place=own is not None and own.name == outcome.limit,
        )  # fmt: skip

    def _collect(self, timeout_s: float) -> None:
        self._take(self.transport.wait(timeout_s))
        # A handful of answers is worth waiting two milliseconds for: a transaction costs as much.
        while self.transport.in_flight and 0 < len(self._ended) < _ENOUGH:
            if not self._take(self.transport.wait(_COLLECT_WAIT_S)):
                break

    def _begin_ready(self) -> None:
        notifiers = self.book().notifiers
        limits = {name: notifier.max_in_flight for name, notifier in notifiers.items()}
        begin, stale = self._prefetch.ready(limits, now_s=self.monotonic())
        self._stale += stale
        for delivery in begin:
            self.transport.begin(delivery)

    def _take(self, attempts: Sequence[Attempt]) -> int:
        self._ended += attempts
        for attempt in attempts:
            if not isinstance(attempt.delivery, RootEdit):
                self._stale += self._prefetch.ended(attempt)
            if not isinstance(attempt.outcome, Sent):
                facts = {"delivery": attempt.delivery.id, "notifier": attempt.delivery.notifier}
                logger.warning("attempt failed", extra={**facts, "reason": attempt.outcome.why})
        if len(self._prefetch):
            self._begin_ready()
        return len(attempts)

    def _patience(self, *, busy: bool) -> float:
        """Return how long to wait for news, in seconds."""
        if not (busy or self.transport.in_flight) and (self._ended or self._stale):
            return 0
        if self._again_at:
            return min(max((self._again_at - self.clock()).total_seconds(), 0), _IDLE_POLL_S)
        return _IDLE_POLL_S

    def finish(self, *, until: Callable[[], bool]) -> None:
        """Claim nothing more, hand back what waits; let what is in flight end and record it, or stop at `until`."""
        self._stale += self._prefetch.leave()
        while self.unfinished and not until():
            self.run_once(claiming=False)


def _is_unanswered(attempt: Attempt) -> bool:
    """Tell whether nobody answered. A receiver that refuses a message, or asks for time, is there."""
    outcome = attempt.outcome
    asks_for_time = isinstance(outcome, RetryLater) and (outcome.whole_notifier or outcome.limit)
    return isinstance(outcome, RetryLater) and not asks_for_time and attempt.status in _NO_ANSWER


def _by_answer(attempts: Sequence[Attempt]) -> tuple[set[str], set[str]]:
    """Return the notifiers that did not answer, and those that did; one may have done both."""
    unanswered = {attempt.delivery.notifier for attempt in attempts if _is_unanswered(attempt)}
    return unanswered, {attempt.delivery.notifier for attempt in attempts if not _is_unanswered(attempt)}
