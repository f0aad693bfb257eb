"""Rules, mutes and silences in words: what they are about, and what they do with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from bridge.admin.pages.shapes import span
from bridge.decide.rules.gates import Scope
from bridge.decide.rules.matching import Condition, Level, PresenceCondition, Rule, TextCondition
from bridge.decide.text.values import States
from bridge.model import Grouping

Line = tuple[str, str]  # what it is about, in words

_MOST_NAMED = 20  # texts of one condition: a list may have a thousand
_SIGNS = {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least"}


def of_rule(rule: Rule, queue_names: Mapping[str, str]) -> Iterator[Line]:
    """Yield what a rule hears of, and how it tells it, line by line."""
    yield "When a job", _level(rule.level) if rule.level else change(rule.was, rule.to)
    yield from conditions(rule.conditions, queue_names)
    if rule.group:
        yield "Collected", _grouping(rule.group)
    if rate := rule.throttle:
        yield "At most", f"{rate.count:,} in {span(rate.per)} for each notifier; a digest tells of the others"
    if rule.stop:
        yield "Then", "the rules below are not asked about what this one matched"
    if rule.template:
        yield "Words", f"template {rule.template}"


def of_scope(scope: Scope, queue_names: Mapping[str, str]) -> list[Line]:
    """Return what a mute or a silence is about; nothing when it is about everything."""
    found: list[Line] = []
    if not (_is_any(scope.was) and _is_any(scope.to)):
        found.append(("When a job", change(scope.was, scope.to)))
    found += conditions(scope.conditions, queue_names)
    for label, names in (("Rule", scope.rules), ("Notifier", scope.notifiers)):
        if names:
            found.append((label, _either(sorted(names))))
    return found


def change(was: States, to: States) -> str:
    if _is_any(was):
        return "changes its state" if _is_any(to) else f"becomes {_states(to)}"
    return f"leaves {_states(was)}" if _is_any(to) else f"goes from {_states(was)} to {_states(to)}"


def conditions(found: Iterable[Condition], queue_names: Mapping[str, str]) -> list[Line]:
    return [(one.field, _condition(one, queue_names)) for one in found]


def _condition(one: Condition, queue_names: Mapping[str, str]) -> str:
    match one:
        case TextCondition():
            names = queue_names if one.field == "queue" else {}
            wanted = _either([names.get(text, text) for text, _ in one.wanted])
            unwanted = _either([names.get(text, text) for text, _ in one.unwanted])
            return "; ".join(part for part in (wanted, f"not {unwanted}" if unwanted else "") if part)
        case PresenceCondition():
            return "is there" if one.present else "is not there"
    return f"{_SIGNS[one.sign]} {span(one.limit)}"


def _level(level: Level) -> str:
    again = f", again every {span(level.repeat)}" if level.repeat else ""
    over = ", and when that is over" if level.recover else ""
    return f"has been {_states(level.states)} for {span(level.after)}{again}{over}"


def _grouping(group: Grouping) -> str:
    when = [f"{span(group.wait)} after the first message"] if group.wait else []
    when += [f"at {group.at:%H:%M}"] if group.at else []
    when += [f"as soon as there are {group.most:,}"] if group.most else []
    what = f"one digest for each {' and '.join(group.by)}" if group.by else "one digest"
    return f"{what}, told {' or '.join(when)}"


def _is_any(states: States) -> bool:
    return "*" in states.words


def _states(states: States) -> str:
    return _either(["unfinished" if word == "active" else word for word in sorted(states.words)])


def _either(texts: Sequence[str]) -> str:
    """Return texts as a choice: "a, b or c"."""
    if len(texts) > _MOST_NAMED:
        return f"{', '.join(texts[:_MOST_NAMED])} or one of {len(texts) - _MOST_NAMED:,} more"
    return " or ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)
