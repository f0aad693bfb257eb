"""How a page shows values: texts, times, lengths of time, numbers; and rules and silences in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from bridge.decide.rules.gates import Scope
from bridge.decide.rules.incidents import Absence, Backlog, IncidentSpec, Threshold
from bridge.decide.rules.matching import Condition, LevelSpec, PresenceCondition, Rule, TextCondition
from bridge.decide.text.times import ago
from bridge.decide.text.times import span as span
from bridge.decide.text.values import States
from bridge.display import DETAIL, LINE, clamp, one_line, visible
from bridge.model import SUCCESS, Grouping

_ISO = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?Z")
_ALL = Markup(' <a href="{}">Show all {:,} characters</a>')


def shown(value: object) -> object:
    """Return what a template prints: a text with its invisible characters spelt out (`bridge.display`)."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value, lines=True)


def as_it_is(value: str) -> Markup:
    """Return a text unchanged: in a form, in what is copied."""
    return escape(value)


def line(value: str) -> Markup:
    """Return a text for a list: one line of it."""
    text = one_line(value)
    return _copied(clamp(visible(text), LINE), text)


def detail(value: object, *, lines: bool, all_at: str | None) -> object:
    """Return a text for a page about one thing, or its beginning with a link to `all_at`, where all of it is."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    cut = clamp(value, DETAIL) if all_at else value
    text = _copied(visible(cut, lines=lines), cut)
    return text if cut == value else text + _ALL.format(all_at, len(value))


def _copied(text: str, true: str) -> Markup:
    """Return a text; if it differs from the true one, the browser copies that instead (app.js)."""
    if text == true:
        return escape(text)
    return Markup('<span data-true="{}">{}</span>').format(json.dumps(true), text)


def moment(value: str | datetime | None, now: datetime) -> Markup:
    """Return a time as UTC and as how long ago; the browser converts it to the reader's time zone."""
    if value is None:
        return Markup('<span class="none">–</span>')
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    iso = _iso(at)
    inner = f'<span class="abs">{iso[:10]} {iso[11:19]} UTC</span> <span class="rel">{ago(at, now)}</span>'
    return Markup(f'<time datetime="{iso}">{inner}</time>')  # noqa: S704  (digits, and words of ours)


def _iso(at: datetime) -> str:
    return f"{at.astimezone(UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def with_times(text: str, now: datetime) -> Markup:
    """Return a text of ours with its times as `moment` shows them."""
    parts, end = [], 0
    text = visible(text, lines=True)
    for match in _ISO.finditer(text):
        try:
            at = moment(match[0], now)
        except ValueError:  # it only looks like a time
            continue
        parts += [escape(text[end : match.start()]), at]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def gate(held_by: str) -> str:
    """Return in words what held a message, from "mute:NAME" and the like."""
    kind, _, name = held_by.partition(":")
    if kind == "edit":
        return "an edit of its thread's first message"
    return f"{_GATES.get(kind, f'the {kind}')} {name}"


_GATES = {
    "group": "the digest of rule",
    "throttle": "the throttle of rule",
    "flood": "the flood of messages for",
    "fallback": "the digest of what was not delivered to",
}


def age(value: str | datetime, now: datetime) -> Markup:
    """Return how long ago a time is; the browser keeps counting."""
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    passed = span(max(0.0, (now - at).total_seconds()))
    return Markup(f'<time datetime="{_iso(at)}" class="age">{passed}</time>')  # noqa: S704  (digits, and words of ours)


def count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


# --- rules, mutes and silences in words: what they match, and what they do -------------------------------------------

Line = tuple[str, str]  # what it is about, in words

_MOST_NAMED = 20  # texts of one condition: a list may have a thousand
_SIGNS = {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least"}


def rule_lines(rule: Rule, queue_names: Mapping[str, str]) -> Iterator[Line]:
    """Yield what a rule matches, and how it notifies, line by line."""
    if rule.blind:
        yield "When a watch", f"has had no complete poll for {span(rule.blind)}, and when it has one again"
    elif rule.incident:
        yield "When", _incident(rule.incident)
    else:
        yield "When a job", _level(rule.level) if rule.level else _change(rule.was, rule.to)
    yield from _conditions(rule.conditions, queue_names)
    if rule.by:
        yield "For each", " and ".join(rule.by)
    if rule.unless:
        yield "Unless", f"rule {rule.unless} has an open incident for it"
    if rule.incident and rule.recover:
        yield "When it is over", "notifies again"
    if escalate := rule.escalate:
        yield "Escalates", f"to {', '.join(escalate.notify)} after {span(escalate.after)}, unless acknowledged or over"
    if rule.group:
        yield "Collected", _grouping(rule.group)
    if rate := rule.throttle:
        yield "At most", f"{rate.count:,} in {span(rate.per)} for each notifier; the rest is sent in a digest"
    if rule.urgent:
        yield "Urgent", "in chats and mail its messages go first, and are never folded into a flood's digest"
    if rule.mention:
        yield "Mentions", ", ".join(rule.mention)
    if rule.stop:
        yield "Then", "the rules below are not evaluated for what this one matched"
    if rule.template:
        yield "Text", f"template {rule.template}"


def scope_lines(scope: Scope, queue_names: Mapping[str, str]) -> list[Line]:
    """Return what a mute or a silence matches; nothing when it matches everything."""
    lines: list[Line] = []
    if not (_is_any(scope.was) and _is_any(scope.to)):
        lines.append(("When a job", _change(scope.was, scope.to)))
    lines += _conditions(scope.conditions, queue_names)
    for label, names in (("Rule", scope.rules), ("Notifier", scope.notifiers)):
        if names:
            lines.append((label, _either(sorted(names))))
    return lines


def _change(was: States, to: States) -> str:
    if _is_any(was):
        return "changes its state" if _is_any(to) else f"becomes {_states(to)}"
    return f"leaves {_states(was)}" if _is_any(to) else f"goes from {_states(was)} to {_states(to)}"


def _conditions(conditions: Iterable[Condition], queue_names: Mapping[str, str]) -> list[Line]:
    return [(c.field, _condition(c, queue_names)) for c in conditions]


def _condition(condition: Condition, queue_names: Mapping[str, str]) -> str:
    match condition:
        case TextCondition():
            names = queue_names if condition.field == "queue" else {}
            wanted = _either([names.get(text, text) for text, _ in condition.wanted])
            unwanted = _either([names.get(text, text) for text, _ in condition.unwanted])
            return "; ".join(part for part in (wanted, f"not {unwanted}" if unwanted else "") if part)
        case PresenceCondition():
            return "is present" if condition.present else "is absent"
    return f"{_SIGNS[condition.sign]} {span(condition.limit)}"


def _level(level: LevelSpec) -> str:
    again = f", again every {span(level.repeat)}" if level.repeat else ""
    over = ", and when it leaves that state" if level.recover else ""
    return f"has been {_states(level.states)} for {span(level.after)}{again}{over}"


def _incident(spec: IncidentSpec) -> str:
    match spec:
        case Threshold():
            return _threshold(spec)
        case Absence():
            inside = f", counted at {spec.window}" if spec.window else ""
            return f"no job has become {_states(spec.wanted)} for {span(spec.after)}{inside}"
        case Backlog():
            return f"{spec.limit.least:,} jobs or more have been {_states(spec.states)} for {span(spec.after)}"
    wanted = SUCCESS if spec.success else "done"
    settled = f"no other has come for {span(spec.settle)}" if spec.settle else ""
    known = "there are as many as they say" if spec.expect else ""
    return f"all jobs are {wanted}, and {' or '.join(filter(None, (known, settled)))}"


def _threshold(spec: Threshold) -> str:
    within = f" within {span(spec.within)}" if spec.within else ""
    if spec.last is not None:
        limit = f"{_SIGNS[spec.limit.sign]} {spec.limit.number:g} %"
        return f"{limit} of the last {spec.last:,} jobs that ended{within} are {_states(spec.wanted)}"
    in_a_row = " in a row" if spec.in_a_row else ""
    return f"{spec.limit.least:,} jobs or more become {_states(spec.wanted)}{in_a_row}{within}"


def _grouping(group: Grouping) -> str:
    when = [f"{span(group.wait)} after the first message"] if group.wait else []
    when += [f"at {group.at:%H:%M}"] if group.at else []
    when += [f"as soon as there are {group.most:,}"] if group.most else []
    what = f"one digest for each {' and '.join(group.by)}" if group.by else "one digest"
    return f"{what}, sent {' or '.join(when)}"


def _is_any(states: States) -> bool:
    return "*" in states.words


def _states(states: States) -> str:
    return _either(sorted(states.words))


def _either(texts: Sequence[str]) -> str:
    """Return texts as a choice: "a, b or c"."""
    if len(texts) > _MOST_NAMED:
        return f"{', '.join(texts[:_MOST_NAMED])} or one of {len(texts) - _MOST_NAMED:,} more"
    return " or ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)
