"""Digests are told when they are due: each in one transaction, by whichever worker comes first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.decide.messages.digest import FIRST, Digest, Member, digest_delivery
from bridge.decide.rules.matching import Rule
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Hold, Silence
from bridge.pipeline.route import gates_at
from bridge.record import rulesets
from bridge.record.database import Clock, Database
from bridge.record.outbox import digests, entries, silences
from bridge.record.outbox.digests import Due

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_AT_ONCE = 500  # members that are held again in one transaction
_LONGEST_QUIET = timedelta(days=2)  # mutes that cover the day together hold nothing for longer
_LATER = timedelta(minutes=1)
_SOME = 25  # members that are asked whether a silence has ended


class DigestDispatcher:
    """Belongs to the thread that delivers."""

    def __init__(
        self, *, db: Database, book: Callable[[], Rulebook], clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self._db = db
        self._book = book
        self._clock = clock
        self._monotonic = monotonic
        self._next_s = 0.0

    def look(self) -> bool:
        """Tell what is due, if it is time to look; return whether there is something new to deliver."""
        if self._monotonic() < self._next_s:
            return False
        self._next_s = self._monotonic() + _EVERY_S
        return self.tell_due() > 0

    def tell_due(self) -> int:
        """Tell every digest whose time has come; return how many were told."""
        now, book = self._clock(), self._book()
        with self._db.read() as tx:
            # Mutes and throttles have a say in it: that is for a worker whose rules are in force.
            numbers = digests.due(tx, now=now) if rulesets.in_force(tx) in (None, book.sha) else []
        return sum(self._tell(n, now) for n in numbers)

    def _tell(self, n: int, now: datetime) -> bool:
        try:
            after: int | None = 0
            while after is not None:
                with self._db.write() as tx:
                    after = _hold_again(tx, n, self._book(), after, now)
            with self._db.write() as tx:
                return _tell(tx, n, self._book(), now)
        except Exception:  # one that cannot be told must not keep the others, nor deliveries, from going on
            logger.exception("a digest cannot be told, it is tried again in a minute", extra={"digest": n})
            with self._db.write() as tx:  # which fails too when it is the database that is away
                digests.put_off(tx, n, now + _LATER)
            return False


def _tell(tx: Connection, n: int, book: Rulebook, now: datetime) -> bool:
    """End a digest, and store the message that tells it, in one transaction."""
    due = digests.end(tx, n, now=now)
    counts = digests.counts(tx, n) if due else {}
    rule = next((one for one in book.rules if due and one.name == due.name), None)
    if due is None or not counts or (due.gate == "group" and rule and _is_over(tx, due, rule, now)):
        return False
    silence = silences.get(tx, due.name) if due.gate == "silence" else None
    digest = _digest(tx, due, counts)
    over = [] if silence else _ended_silences(tx, due, book, now)
    note = " ".join(f"{one} is over." for one in over) or None
    one = digest_delivery(digest, silence, zone=book.zone, now=now, note=note)
    entries.put(tx, [one], now=now)
    digests.merged(tx, n, one.id, now=now)
    silences.announced(tx, [(one.id, due.notifier) for one in (silence, *over) if one])
    facts = {"delivery": one.id, "gate": due.gate, "of": due.name, "messages": sum(counts.values())}
    logger.info("digest", extra=facts)
    return True


def _digest(tx: Connection, due: Due, counts: dict[str, int]) -> Digest:
    first = [Member(**facts) for facts in digests.first(tx, due.n, counts, FIRST)]
    return Digest(**asdict(due), counts=counts, first=first, origin=digests.origin(tx, due.n))


def _ended_silences(tx: Connection, due: Due, book: Rulebook, now: datetime) -> list[Silence]:
    """Return the silences that would have held one of the first members, and whose end this is the first to tell."""
    gates, found = gates_at(tx, book, now), []
    for _, rule, _, step in digests.members(tx, due.n, after=0, most=_SOME):
        if step and (silence := gates.ended(book.matcher.facts(step), rule, due.notifier)):
            found.append(silence)
    return found


def _is_over(tx: Connection, due: Due, rule: Rule, now: datetime) -> bool:
    """Book a digest with the throttle of its rule; when it is over that, its members go where the overflow goes."""
    if rule.throttle is None:
        return False
    passed, n = digests.let_pass(tx, rule.name, rule.throttle, due.notifier, 1, channel=due.channel, now=now)
    if not passed:
        digests.move(tx, None, of=due.n, to=n, drop=False, now=now)
    return not passed


def _hold_again(tx: Connection, n: int, book: Rulebook, after: int, now: datetime) -> int | None:
    """Let some members that a mute or a silence of this moment matches wait on: it is quiet now, whenever they came.

    Return after which number to go on, None at the end.
    """
    gates = gates_at(tx, book, now)
    due = digests.held(tx, n, now=now)
    if due is None or not gates.may_hold(due.notifier):
        return None
    held: dict[tuple[str, str], tuple[Hold, list[int]]] = {}
    members = digests.members(tx, n, after=after, most=_AT_ONCE)
    for number, rule, made_at, step in members:
        hold = gates.quiet(book.matcher.facts(step), rule, due.notifier) if step else None
        tired = due.gate == "mute" and now - made_at > _LONGEST_QUIET
        if hold and (hold.gate, hold.name) != (due.gate, due.name) and not (tired and hold.gate == "mute"):
            held.setdefault((hold.gate, hold.name), (hold, []))[1].append(number)
    for _, (hold, numbers) in sorted(held.items()):
        to = digests.enter(tx, hold, due.notifier, len(numbers), channel=due.channel, now=now)
        digests.move(tx, numbers, of=n, to=to[0], drop=hold.drop, now=now)
    return members[-1][0] if len(members) == _AT_ONCE else None
