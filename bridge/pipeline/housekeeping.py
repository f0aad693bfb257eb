"""Housekeeping of delivery: claims whose worker does not respond, and what waits while a breaker is open.

Also the fallback of a dead letter, and which streams are in the rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.decide.changes.clocks import RESOLUTION, begins_anew
from bridge.decide.messages.build import PerNotifier, as_fallback, gathered, per_notifier
from bridge.decide.retries import BREAKER_THRESHOLD, over_at, was_tried_enough
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import iso
from bridge.model import Attempt, Breaker, Delivery, NewDelivery, Rejected, Sent, Watch
from bridge.notifiers import Notifier
from bridge.pipeline.route import current_gates, variables_for
from bridge.record.clocks import RunClock
from bridge.record.database import Clock, Database, ms
from bridge.record.outbox import claims, entries, results, roots
from bridge.record.outbox.results import Claim, Ended
from bridge.record.polling import snapshots

logger = logging.getLogger(__name__)

# Every attempt ends within its own hard deadline of 15 s; a lease that outlives it needs no renewal.
CLAIM_LEASE = timedelta(seconds=30)
_LONGEST_STEP_S = 10.0  # a longer time between two looks at claims counts as this
_EVERY_S = 5.0
_OFTEN_S = 1.0  # while there is more to look at
_ADVANCE_S = 10.0
_GIVEN_UP_AT_ONCE = 100  # deliveries given up in one look: nothing else is sent meanwhile
_LOOKED_AT = 500  # of what waits for a notifier that is left alone, in one look
_ABANDONED = timedelta(minutes=10)  # by the clock: the lease has been over, and the worker has shown no sign of life
_ABANDONED_AFTER_S = 16.0  # of watching, for such a claim: one heartbeat interval (15 s) and a second


class LeaseWatcher:
    """Finds claims whose worker does not respond: this process has watched them for longer than a lease lasts.

    No clock is compared with another, so that setting one, or two that disagree, ends nobody's lease. A time in which
    this process was stopped itself counts for little: it has watched nothing.
    """

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._watched_s: dict[Claim, float] = {}
        self._looked_at_s: float | None = None

    def over(
        self, held: Collection[Claim], now_s: float, *, sooner: Collection[Claim] = (), sooner_s: float = 0.0
    ) -> list[Claim]:
        """Return those of `held` that are over; what is not among them any more is forgotten.

        For those in `sooner` less is enough: there is other evidence. Without that, workers that never live as long
        as a lease would never free what the others held.
        """
        passed_s = 0.0 if self._looked_at_s is None else min(now_s - self._looked_at_s, _LONGEST_STEP_S)
        self._looked_at_s = now_s
        self._watched_s = {claim: self._watched_s.get(claim, -passed_s) + passed_s for claim in held}
        lasts_s = dict.fromkeys(sooner, sooner_s)
        return [claim for claim, watched_s in self._watched_s.items() if watched_s > lasts_s.get(claim, self._lasts_s)]

    def forget(self) -> None:
        """Begin anew: meanwhile no worker could show that it is alive."""
        self._watched_s.clear()


@dataclass(slots=True, kw_only=True)
class Housekeeping:
    """Tasks of the delivery thread between claims: free lost claims, give up what waits too long, run the run clock."""

    db: Database
    book: Callable[[], Rulebook]
    clock: Clock
    monotonic: Callable[[], float]
    new_lease: Callable[[], str]
    clock_fault: Callable[[Connection], str | None]
    run_clock: RunClock = field(init=False)
    _lease_watcher: LeaseWatcher = field(default_factory=lambda: LeaseWatcher(CLAIM_LEASE.total_seconds()), init=False)
    _advance_s: float = field(default=0.0, init=False)
    _probes: dict[str, tuple[timedelta, int]] = field(default_factory=dict, init=False)  # run clock, clock in ms
    _scan_position: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)  # of each notifier left alone
    _next_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.run_clock = RunClock(self.monotonic)

    def run_due(self, mine: Collection[int]) -> None:
        """Do what is due, if it is time to look; `mine` are the numbers that this worker holds: it is alive."""
        if self.monotonic() < self._next_s:
            return
        if self.monotonic() >= self._advance_s:
            self._advance_s = self.monotonic() + _ADVANCE_S
            with self.db.write() as tx:
                self.run_clock.advance(tx, self.clock())
        self._free_edits()
        with self.db.read() as tx:
            held = [claim for claim in results.open_claims(tx) if claim[0] not in mine]
            abandoned = results.abandoned(tx, before=self.clock() - _ABANDONED) if held else set()
            paused = claims.paused_and_waiting(tx)
            alone = claims.unavailable_notifiers(tx, now=self.clock(), threshold=BREAKER_THRESHOLD)
        if lost := self._lease_watcher.over(held, self.monotonic(), sooner=abandoned, sooner_s=_ABANDONED_AFTER_S):
            with self.db.write() as tx:
                freed = results.free_lost(tx, lost, now=self.clock())
            logger.warning("a worker does not respond, its deliveries are sent again", extra={"deliveries": freed})
        for name, why in paused:
            self._pass_on(name, why)
        again_s = [self._look_at_waiting(name, breaker) for name, breaker in alone.items()]
        self._next_s = self.monotonic() + min([_EVERY_S, *again_s])

    def _free_edits(self) -> None:
        """Send as messages what shows only as an edit, where no root is or will be, or its notifier is left alone."""
        with self.db.read() as tx:
            if not roots.any_held(tx):
                return
            alone = claims.paused(tx)
            alone |= claims.unavailable_notifiers(tx, now=self.clock(), threshold=BREAKER_THRESHOLD).keys()
        with self.db.write() as tx:
            roots.release_orphans(tx, self.book().updating.keys() - alone, now=self.clock())

    def probed(self, notifier: str, run: timedelta, now: datetime) -> None:
        """A probe was in vain: it counts as an attempt of everything that was due for the notifier."""
        self._probes[notifier] = (run, ms(now))
        self._next_s = 0.0

    def begin_anew(self) -> None:
        """The database was away: workers that are alive have outcomes to record, and go first."""
        self._lease_watcher.forget()

    def _pass_on(self, name: str, why: str) -> None:
        """Send what waits for a paused notifier to its fallback, if it has one."""

        def claim(tx: Connection, now: datetime) -> Sequence[Delivery]:
            return claims.claim_paused(
                tx, name, lease=self.new_lease(), lease_for=CLAIM_LEASE, now=now, most=_GIVEN_UP_AT_ONCE
            )

        notifier = self.book().notifiers.get(name)
        if notifier and notifier.fallback:
            self._make_dead(Rejected(f"notifier {name} is paused: {why}"), claim)

    def _look_at_waiting(self, name: str, breaker: Breaker) -> float:
        """Give up what waits for a notifier left alone longer than its retry time, some of it at a look.

        Return in how many seconds to look again.
        """
        now = self.clock()
        with self.db.read() as tx:
            run = self.run_clock.read(tx, now)
            rows = claims.due(tx, name, after=self._scan_position.pop(name, (0, 0)), now=now, most=_LOOKED_AT)
            doubted = bool(rows) and self.clock_fault(tx) is not None
        probe, probed_ms = self._probes.get(name, (run, 0))
        if begun := [row.n for row in rows if row.retry_from is None and row.due_at <= probed_ms]:
            with self.db.write() as tx:
                claims.begin_retry(tx, begun, probe)
        retry = retry_of(name, self.book())
        ends = [] if doubted else list(_ends(rows, retry, breaker, run))
        over = [n for end, n, is_enough in ends if end <= run and is_enough]
        if over:
            self._give_up(name, over[:_GIVEN_UP_AT_ONCE])
        # Its last try is made when the time ends: the next probe may be a minute away.
        if breaker.opened is not None and (short := [n for end, n, is_enough in ends if end <= run and not is_enough]):
            with self.db.write() as tx:
                claims.urge(tx, name, short, now=now)
        if len(over) > _GIVEN_UP_AT_ONCE or len(rows) == _LOOKED_AT:
            self._scan_position[name] = (0, 0) if len(over) > _GIVEN_UP_AT_ONCE else (rows[-1].due_at, rows[-1].n)
            return _OFTEN_S
        return min([_EVERY_S, *((end - run).total_seconds() for end, _, _ in ends if end > run)])

    def _give_up(self, name: str, numbers: Sequence[int]) -> None:
        def claim(tx: Connection, now: datetime) -> Sequence[Delivery]:
            lease = self.new_lease()
            return claims.claim_to_give_up(
                tx, name, left, threshold=BREAKER_THRESHOLD, lease=lease, lease_for=CLAIM_LEASE, now=now
            )

        left = set(numbers)
        # Of each ordering key only the first can be claimed: those behind it follow at once.
        while left and (
            ended := self._make_dead(Rejected(f"its retry time is over, and {name} answers nobody"), claim)
        ):
            left -= ended

    def _make_dead(self, outcome: Rejected, claim: Callable[[Connection, datetime], Sequence[Delivery]]) -> set[int]:
        with self.db.write() as tx:
            now = self.clock()
            claimed = claim(tx, now)
            ended = [Attempt(delivery=each, outcome=outcome, started_at=now, seconds=0) for each in claimed]
            results.settle(tx, [Ended(attempt) for attempt in ended], now=now)
            notify_fallbacks(tx, ended, self.book(), now)
        return {attempt.delivery.n for attempt in ended}


def _ends(
    rows: Sequence[claims.WaitingDelivery], retry: timedelta, breaker: Breaker, run: timedelta
) -> Iterator[tuple[timedelta, int, bool]]:
    """Yield of each whose retry time has begun when it is over, its number, and whether it was tried enough."""
    for row in rows:
        if row.retry_from is not None and row.retry_due is not None:
            end = over_at(first=row.retry_from, due=row.retry_due, retry=retry, breaker=breaker, now=run)
            yield end, row.n, was_tried_enough(attempts=row.attempts, due=row.retry_due, breaker=breaker)


def notify_fallbacks(tx: Connection, dead: Sequence[Attempt], book: Rulebook, now: datetime) -> None:
    """Log that deliveries are dead, and put their messages into the outbox for the fallbacks of their notifiers.

    A message takes the fallback's own form, and is held while it is quiet for it. For people, those that failed for
    one reason are gathered.
    """
    new = [_for_fallback(tx, attempt, book, now) for attempt in dead]
    entries.put(tx, [delivery for delivery in new if delivery], now=now)


def _for_fallback(tx: Connection, attempt: Attempt, book: Rulebook, now: datetime) -> NewDelivery | None:
    outcome, notifier = attempt.outcome, attempt.delivery.notifier
    why = "" if isinstance(outcome, Sent) else outcome.why
    logger.error("delivery is dead", extra={"delivery": attempt.delivery.id, "reason": why})
    dead = book.notifiers.get(notifier)
    fallback = book.notifiers.get(dead.fallback or "") if dead else None
    if fallback is None:
        return None
    message = entries.message_of(tx, attempt.delivery.n)
    if message.kind == "test":  # a test of one place is no news for another
        return None
    rule = message.rule or ""
    transition = snapshots.transition_at(tx, message.bucket or "", message.job_id or "", message.sequence or 0)
    own, hold = PerNotifier(), None
    if transition:  # else it is a digest, or long ago
        own = per_notifier(fallback, variables_for(tx, message, transition, book))
        hold = current_gates(tx, book, now).quiet(book.matcher.facts(transition), rule, fallback.name)
    if fallback.is_for_people:
        hold = hold or gathered(notifier, why, status=attempt.status, now=now)
    return replace(as_fallback(message, notifier, why, fallback, own), hold=hold)


def retry_of(name: str, book: Rulebook) -> timedelta:
    """Return how long a notifier is tried; rules.toml may no longer have it."""
    return (book.notifiers.get(name) or Notifier(name=name)).retry


def note_rules(tx: Connection, watches: Sequence[Watch], now: datetime) -> None:
    """Record which streams are in the rules.

    One that was out of them for longer than its watch's `lookback` begins anew, silently: what happened meanwhile is
    no news, unless another stream that covers it was to notify of it.
    """
    streams = {stream.key: (stream, watch) for watch in watches for stream in watch.streams}
    snapshots.leave(tx, streams, now=now)
    left = snapshots.left(tx, streams)
    anew = {
        key: out_at
        for key, (out_at, mark) in left.items()
        if begins_anew(out_at=out_at, back_at=now, mark=mark, lookback=streams[key][1].lookback)
    }
    marks = {key: known.mark for key, known in snapshots.listed(tx, streams.keys() - anew).items() if known.mark}
    for key in left.keys() - anew:
        snapshots.come_back(tx, key)
    for key, out_at in anew.items():
        stream, watch = streams[key]
        covered = [mark - RESOLUTION for other, mark in marks.items() if streams[other][0].covers(stream)]
        told_from = max(min(max(covered, default=now), now), out_at + RESOLUTION)
        snapshots.come_back(tx, key, told_from=told_from)
        facts = {"watch": watch.name, "tag": stream.tag, "out_from": iso(out_at), "out_to": iso(told_from)}
        logger.warning("a stream that was out of the rules begins anew, silently", extra=facts)
