"""Digests are told when they are due: each in one transaction, by whichever worker comes first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection

from bridge.decide.digests import FIRST, Digest, Member, told
from bridge.decide.matching import Rule
from bridge.decide.rulebook import Rulebook
from bridge.model import Hold
from bridge.pipeline.telling import gates_at
from bridge.record import digests, outbox, silences, snapshots
from bridge.record.database import Clock, Database
from bridge.record.digests import Ended

logger = logging.getLogger(__name__)

_EVERY_S = 1.0


class Editor:
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
        count, now = 0, self._clock()
        with self._db.read() as tx:
            numbers = digests.due(tx, now=now)
        for n in numbers:
            with self._db.write() as tx:
                count += self._tell(tx, n, now)
        return count

    def _tell(self, tx: Connection, n: int, now: datetime) -> bool:
        ended = digests.end(tx, n, now=now)
        if ended is None or ended.drops:
            return False
        book = self._book()
        rule = next((one for one in book.rules if one.name == ended.name), None)
        if ended.gate in ("group", "throttle"):
            _hold_again(tx, ended, book, now)
        counts = digests.counts(tx, n)
        if not counts or (ended.gate == "group" and rule and _is_over(tx, ended, rule, now)):
            return False
        silence = silences.one(tx, ended.name) if ended.gate == "silence" else None
        one = told(_digest(tx, ended, counts), silence, zone=book.zone, now=now)
        outbox.put(tx, [one], now=now)
        digests.merged(tx, n, one.id, now=now)
        silences.over(tx, [silence.id] if silence else [], now=now)
        facts = {"delivery": one.id, "gate": ended.gate, "of": ended.name, "messages": sum(counts.values())}
        logger.info("digest", extra=facts)
        return True


def _digest(tx: Connection, ended: Ended, counts: dict[str, int]) -> Digest:
    first = [Member(**facts) for facts in digests.first(tx, ended.n, counts, FIRST)]
    facts = {name: value for name, value in asdict(ended).items() if name != "drops"}
    return Digest(**facts, counts=counts, first=first, origin=digests.origin(tx, ended.n))


def _is_over(tx: Connection, ended: Ended, rule: Rule, now: datetime) -> bool:
    """Book a digest with the throttle of its rule; when it is over that, its members go where the overflow goes."""
    if rule.throttle is None:
        return False
    passed, n = digests.let_pass(tx, rule.name, rule.throttle, ended.notifier, 1, now=now)
    if not passed:
        digests.move(tx, None, of=ended.n, to=n, drop=False, now=now)
    return not passed


def _hold_again(tx: Connection, ended: Ended, book: Rulebook, now: datetime) -> None:
    """Members that a mute or a silence of this moment matches wait on: it is quiet now, whenever they came."""
    gates = gates_at(tx, book, now)
    if not gates.any_closed:
        return
    held: dict[tuple[str, str], tuple[Hold, list[int]]] = {}
    for n, bucket, job_id, sequence, rule in digests.members(tx, ended.n):
        step = snapshots.transition_at(tx, bucket, job_id, sequence)
        hold = gates.quiet(book.matcher.facts(step), rule, ended.notifier) if step else None
        if hold:
            held.setdefault((hold.gate, hold.name), (hold, []))[1].append(n)
    for _, (hold, numbers) in sorted(held.items()):
        to = digests.enter(tx, hold, ended.notifier, len(numbers), now=now)
        digests.move(tx, numbers, of=ended.n, to=to[0], drop=hold.drop, now=now)
