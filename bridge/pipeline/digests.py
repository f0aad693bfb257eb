"""Digests are sent when they are due: each in one transaction, by whichever worker comes first."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.decide.messages.build import silence_over
from bridge.decide.messages.digest import MOST_COUNTED, Digest, Member, digest_delivery
from bridge.decide.rules.matching import Rule
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Hold, Silence
from bridge.pipeline.route import current_gates
from bridge.record import public_url, rulesets
from bridge.record.database import Database
from bridge.record.outbox import digests, entries, silences
from bridge.record.outbox.digests import DueDigest
from bridge.record.polling import queues

logger = logging.getLogger(__name__)

_MEMBERS_AT_ONCE = 500  # members that are held again in one transaction
_MAX_MUTED = timedelta(days=2)  # so that several mutes that cover the whole day do not hold a message for ever
_RETRY = timedelta(seconds=60)
_SOME = 25  # members that are asked whether a silence has ended


def send_due_digests(db: Database, book: Rulebook, now: datetime) -> int:
    """Put every digest whose time has come into the outbox; return how many."""
    with db.read() as tx:
        numbers = digests.due(tx, now=now)
        # Mutes and throttles depend on the rules: that is for a worker whose rules are in force.
        is_mine = bool(numbers) and rulesets.in_force(tx) in (None, book.sha)
    return sum(_send(db, n, book, now) for n in numbers) if is_mine else 0


def _send(db: Database, n: int, book: Rulebook, now: datetime) -> bool:
    try:
        after: int | None = 0
        while after is not None:
            with db.write() as tx:
                after = _hold_again(tx, n, book, after, now)
        with db.write() as tx:
            return _end(tx, n, book, now)
    except Exception:  # one that cannot be built must not keep the others, nor deliveries, from going on
        logger.exception("digest failed, retry in 60 s", extra={"digest": n})
        with db.write() as tx:  # which fails too when it is the database that is away
            digests.put_off(tx, n, now + _RETRY)
        return False


def _end(tx: Connection, n: int, book: Rulebook, now: datetime) -> bool:
    """End a digest, and put its message into the outbox, in one transaction."""
    due = digests.end(tx, n, now=now)
    counts = digests.counts(tx, n) if due else {}
    rule = next((rule for rule in book.rules if due and rule.name == due.name), None)
    if due is None or not counts or (due.gate == "group" and rule and _exceeds_throttle(tx, due, rule, now)):
        return False
    silence = silences.get(tx, due.name) if due.gate == "silence" else None
    first = [Member(**facts) for facts in digests.first(tx, n, counts, MOST_COUNTED)]
    due = replace(due, label=_with_queue_name(tx, due.label, book))
    digest = Digest(**asdict(due), counts=counts, first=first, origin=digests.origin(tx, n))
    over = [] if silence else _ended_silences(tx, due, book, now)
    note = " ".join(silence_over(ended, book.language) for ended in over) or None
    links = public_url.links(tx)
    mention = rule.mention if rule and due.gate == "group" else ()
    new = digest_delivery(digest, silence, now=now, note=note, links=links, mention=mention, language=book.language)
    entries.put(tx, [replace(new, urgent=due.gate == "flood")], now=now)  # its channel is full
    digests.merged(tx, n, new.id, now=now)
    silences.mark_notified(tx, [(ended.id, due.notifier) for ended in (silence, *over) if ended])
    facts = {"delivery": new.id, "gate": due.gate, "of": due.name, "messages": sum(counts.values())}
    logger.info("digest", extra=facts)
    return True


def _with_queue_name(tx: Connection, label: str | None, book: Rulebook) -> str | None:
    """Return what the messages of a digest have in common, with CI's name of a queue that has no alias."""
    values = json.loads(label) if label else []
    ids = {value for field, value in values if field == "queue" and value} - {*book.queue_names.values()}
    if not ids:
        return label
    names = queues.names(tx, ids)
    return json.dumps([[f, names.get(v, v) if f == "queue" else v] for f, v in values], ensure_ascii=False)


def _ended_silences(tx: Connection, due: DueDigest, book: Rulebook, now: datetime) -> list[Silence]:
    """Return the silences that would have held one of the first members, and whose end no message has told yet."""
    gates, members = current_gates(tx, book, now), digests.members(tx, due.n, after=0, most=_SOME)
    ended = [
        gates.ended(book.matcher.facts(transition), rule, due.notifier)
        for _, rule, _, transition in members
        if transition
    ]
    return [silence for silence in ended if silence]


def _exceeds_throttle(tx: Connection, due: DueDigest, rule: Rule, now: datetime) -> bool:
    """Count a digest in the throttle of its rule; if it exceeds the throttle, move its members into the overflow."""
    if rule.throttle is None:
        return False
    passed, n = digests.let_pass(tx, rule.name, rule.throttle, due.notifier, 1, channel=due.channel, now=now)
    if not passed:
        digests.move(tx, None, of=due.n, to=n, drop=False, now=now)
    return not passed


def _hold_again(tx: Connection, n: int, book: Rulebook, after: int, now: datetime) -> int | None:
    """Hold some members on that a mute or a silence of this moment matches: it is quiet now, whenever they came.

    Return after which number to go on, None at the end.
    """
    gates = current_gates(tx, book, now)
    due = digests.lock_due(tx, n, now=now)
    if due is None or not gates.may_hold(due.notifier):
        return None
    held: dict[tuple[str, str], tuple[Hold, list[int]]] = {}
    members = digests.members(tx, n, after=after, most=_MEMBERS_AT_ONCE)
    for number, rule, made_at, transition in members:
        hold = gates.quiet(book.matcher.facts(transition), rule, due.notifier) if transition else None
        muted_too_long = due.gate == "mute" and now - made_at > _MAX_MUTED
        if hold and (hold.gate, hold.name) != (due.gate, due.name) and not (muted_too_long and hold.gate == "mute"):
            held.setdefault((hold.gate, hold.name), (hold, []))[1].append(number)
    for _, (hold, numbers) in sorted(held.items()):
        to = digests.add_members(tx, hold, due.notifier, len(numbers), channel=due.channel, now=now)
        digests.move(tx, numbers, of=n, to=to[0], drop=hold.drop, now=now)
    return members[-1][0] if len(members) == _MEMBERS_AT_ONCE else None
