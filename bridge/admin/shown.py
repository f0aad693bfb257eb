"""The nouns of rules.toml as JSON shows them. No secret has a way through here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from bridge.decide.rules.matching import Condition, DurationCondition, PresenceCondition, Rule, TextCondition
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Grouping, Notifier, Rate, Watch
from bridge.record.codec import iso
from bridge.record.database import ms
from bridge.send.registry import integration_of

Facts = dict[str, Any]


def watches(book: Rulebook, rows: Iterable[Facts]) -> list[Facts]:
    """Return the watches of the rules, then those only the record still knows."""
    recorded = {row["name"]: row for row in rows}
    named = [recorded.pop(one.name, {}) | watch(one, book.queue_names) for one in book.watches]
    return named + [row | {"in_rules": False} for row in recorded.values()]


def watch(one: Watch, queue_names: Mapping[str, str]) -> Facts:
    queues = dict.fromkeys(stream.queue for stream in one.streams if stream.queue)
    return {
        "name": one.name,
        "in_rules": True,
        "bucket": one.place.bucket,
        "region": one.place.region,
        "tags": list(dict.fromkeys(stream.tag for stream in one.streams)),
        "queues": [{"id": queue, "name": queue_names.get(queue)} for queue in queues],
        "every_seconds": one.every.total_seconds(),
        "lookback_seconds": one.lookback.total_seconds(),
    }


def notifiers(book: Rulebook, rows: Iterable[Facts]) -> list[Facts]:
    """Return the notifiers of the rules, then those only the record still knows."""
    recorded = {row["name"]: row for row in rows}
    named = [recorded.pop(name, {}) | notifier(one) for name, one in book.notifiers.items()]
    return named + [row | {"in_rules": False} for row in recorded.values()]


def notifier(one: Notifier) -> Facts:
    return {
        "name": one.name,
        "type": one.type,
        "in_rules": True,
        "fallback": one.fallback,
        "retry_seconds": one.retry.total_seconds(),
        "max_in_flight": one.max_in_flight,
        "rate": rate(one.rate),
        **integration_of(one).facts(),
    }


def rate(one: Rate | None) -> str | None:
    return f"{one.count}/{one.per.total_seconds():g}s" if one else None


def rule(one: Rule, fault: Mapping[str, Any] | None = None, matches: tuple[int, datetime] | None = None) -> Facts:
    """Return a rule; `fault` is what is on record of its templates, `matches` how often and when last it fired."""
    level, group = one.level, one.group
    return {
        "name": one.name,
        "line": one.line,
        "from": sorted(one.was.words),
        "to": sorted(one.to.words),
        "match": {condition.field: _wanted(condition) for condition in one.conditions},
        "notify": list(one.notify),
        "template": one.template,
        "stop": one.stop,
        "in": sorted(level.states.words) if level else None,
        "for_seconds": level.after.total_seconds() if level else None,
        "repeat_seconds": level.repeat.total_seconds() if level and level.repeat else None,
        "recover": bool(level and level.recover),
        "throttle": rate(one.throttle),
        "group": _grouping(group) if group else None,
        "template_faults": fault["count"] if fault else 0,
        "last_fault": fault["why"] if fault else None,
        "matches": matches[0] if matches else 0,
        "last_match_at": iso(ms(matches[1])) if matches else None,
    }


def _grouping(one: Grouping) -> Facts:
    return {
        "by": list(one.by),
        "wait_seconds": one.wait.total_seconds() if one.wait else None,
        "at": f"{one.at:%H:%M}" if one.at else None,
        "max": one.most,
    }


def _wanted(condition: Condition) -> object:
    """Return the value as rules.toml writes it."""
    match condition:
        case TextCondition():
            return [text for text, _ in condition.wanted] + [f"!{text}" for text, _ in condition.unwanted]
        case PresenceCondition():
            return condition.present
        case DurationCondition():
            return f"{condition.sign} {condition.limit.total_seconds():g}s"
