"""Rules with `blind`: who is notified that a watch cannot see, and that it sees again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.decide.messages.sight import blind_message, deliveries_of, sees_message
from bridge.decide.rules.matching import Rule
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Blindness, Message, NewDelivery, Watch
from bridge.record import counters, public_url
from bridge.record.counters import Count
from bridge.record.outbox import entries
from bridge.record.polling import leases, snapshots


def note_poll(
    tx: Connection, watch: Watch, book: Rulebook, *, began: datetime, error: str | None, goes_on: bool, now: datetime
) -> int:
    """Store what a poll that ended says of its watch's sight, and the deliveries; return how many these are.

    `error`: it was not complete; `goes_on`: its lists go on in the next one, so it still catches up, and sees. Call it
    before the end of the poll is stored.
    """
    rules = {rule.name: rule for rule in book.rules if rule.blind and rule.is_for(watch.name)}
    if not rules:
        return 0
    ok_at, blind = leases.sight(tx, watch.name)
    said = 0
    if blind and ok_at and blind.since < ok_at <= began:  # a worker of the version before takes no note of sight
        said, blind = _note_sight(tx, watch, book, rules, blind, now=now), None
    if error is not None:
        since = min(blind.since if blind else ok_at or began, began)  # the clock may have been set back
        blind = replace(blind or Blindness(since=since), since=since)
        return said + _note_blind(tx, watch, book, rules, blind, error=error, now=now)
    if not goes_on:
        return said + (_note_sight(tx, watch, book, rules, blind, now=now) if blind else 0)
    if not (blind and blind.notified):
        leases.set_blind(tx, watch.name, Blindness(since=began))
    return said


def _note_blind(
    tx: Connection,
    watch: Watch,
    book: Rulebook,
    rules: Mapping[str, Rule],
    blind: Blindness,
    *,
    error: str,
    now: datetime,
) -> int:
    due = [
        rule
        for rule in rules.values()
        if rule.blind and now - blind.since >= rule.blind and rule.name not in blind.notified
    ]
    notified = {**blind.notified, **{rule.name: rule.notify for rule in due}}
    leases.set_blind(tx, watch.name, replace(blind, notified=notified))
    known: dict[str, Any] = {"now": now, "links": public_url.links(tx), "language": book.language}
    found = [(rule, blind_message(watch, blind, rule, error=error, **known), rule.notify) for rule in due]
    return _put(tx, watch, book, found, now)


def _note_sight(
    tx: Connection, watch: Watch, book: Rulebook, rules: Mapping[str, Rule], blind: Blindness, *, now: datetime
) -> int:
    if not blind.notified:
        return 0
    (row,) = leases.polls(tx, [watch.name])
    known: dict[str, Any] = {"now": now, "links": public_url.links(tx), "language": book.language}
    caught_up = snapshots.count_news(tx, watch.name, after=blind.since + row.took)  # `since` is when a poll began
    found = [
        (rules[name], sees_message(watch, blind, rules[name], caught_up=caught_up, **known), notifiers)
        for name, notifiers in blind.notified.items()
        if name in rules
    ]
    return _put(tx, watch, book, found, now)


def _put(
    tx: Connection,
    watch: Watch,
    book: Rulebook,
    found: Sequence[tuple[Rule, Message, Sequence[str]]],
    now: datetime,
) -> int:
    new: list[NewDelivery] = []
    for rule, message, names in found:
        new += deliveries_of(message, rule, watch, [book.notifiers[name] for name in names if name in book.notifiers])
    entries.put(tx, new, now=now)
    counters.add(tx, [Count("match", (rule.name,)) for rule, message, _ in found if message.kind == "blind"], now=now)
    return len(new)
