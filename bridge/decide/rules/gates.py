"""What is not told at once: [[mute]]s, silences (which people make for a while), and digests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.rules.matching import Condition, Facts, Rule, Verdict, condition, flat
from bridge.decide.text.calendar import Window, next_at
from bridge.decide.text.facts import ident
from bridge.decide.text.values import (
    FieldFault,
    FieldFaults,
    States,
    cut,
    instead,
    read_ends,
    read_states,
    read_words,
    shown,
    states,
)
from bridge.model import Grouping, Hold, Silence

_ANY = states(["*"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which messages: those of transitions that match, and of a silence perhaps only of some rules or notifiers."""

    was: States = _ANY
    to: States = _ANY
    conditions: tuple[Condition, ...] = ()
    rules: frozenset[str] = frozenset()
    notifiers: frozenset[str] = frozenset()

    def holds(self, facts: Facts, rule: str, notifier: str) -> bool:
        step = facts.transition
        return (
            (not self.rules or rule in self.rules)
            and (not self.notifiers or notifier in self.notifiers)
            and step.to in self.to
            and step.was in self.was
            and not any(one.why_not(facts) for one in self.conditions)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """A [[mute]] of rules.toml: at some times of the day, what it matches is told later, or (`drop`) never."""

    name: str
    line: int
    scope: Scope
    window: Window
    drop: bool = False


class Gates:
    """What stands between a rule and a notifier at one moment."""

    def __init__(self, *, mutes: Sequence[Mute], silences: Sequence[Silence], zone: ZoneInfo, now: datetime) -> None:
        self._zone = zone
        self._now = now
        self._silent = [(one, scope_of(one.spec)) for one in silences if one.begins_at <= now < one.ends_at]
        self._over = [(one, scope_of(one.spec)) for one in silences if one.ends_at <= now]
        self._said: set[tuple[str, str]] = set()
        self._muted = [(one, until) for one in mutes if (until := one.window.ends(now, zone))]

    def may_hold(self, notifier: str) -> bool:
        """Tell whether there is a mute or a silence now that may hold what is for this notifier."""
        scopes = [scope for _, scope in self._silent] + [mute.scope for mute, _ in self._muted]
        return any(not scope.notifiers or notifier in scope.notifiers for scope in scopes)

    def hold(self, facts: Facts, rule: Rule, notifier: str) -> Hold | None:
        """Return why a message is not told at once, or None. A silence comes before a mute, both before a digest."""
        if quiet := self.quiet(facts, rule.name, notifier):
            return quiet
        return self._group(facts, rule.name, rule.group) if rule.group else None

    def held(self, verdict: Verdict, facts: Facts) -> Verdict:
        """Return a verdict together with what does not let its messages go out at once."""
        holds = {name: hold for name in verdict.notifiers if (hold := self.hold(facts, verdict.rule, name))}
        return replace(verdict, holds=holds) if holds else verdict

    def quiet(self, facts: Facts, rule: str, notifier: str) -> Hold | None:
        """Return the silence or mute that holds a message, if there is one."""
        for silence, scope in self._silent:
            if scope.holds(facts, rule, notifier):
                return Hold(gate="silence", name=silence.id, until=silence.ends_at, wall=True, drop=silence.drop)
        for mute, until in self._muted:
            if mute.scope.holds(facts, rule, notifier):
                return Hold(gate="mute", name=mute.name, until=until, wall=True, drop=mute.drop)
        return None

    def over(self, facts: Facts, rule: str, notifier: str) -> Silence | None:
        """Return a silence that would have held this message, has ended, and of whose end this notifier has not heard.

        Whoever asks says so, and is not told again.
        """
        for silence, scope in self._over:
            mark = (silence.id, notifier)
            if notifier not in silence.told and mark not in self._said and scope.holds(facts, rule, notifier):
                self._said.add(mark)
                return silence
        return None

    def _group(self, facts: Facts, rule: str, group: Grouping) -> Hold:
        until = self._now + (group.wait or timedelta())
        if group.at:
            until = next_at(group.at, after=self._now, zone=self._zone)
        values = [(field, _value(facts, field)) for field in group.by]
        shown = [[field, value and cut(value, _LONGEST_VALUE)] for field, value in values]
        label = json.dumps(shown, ensure_ascii=False)
        return Hold(
            gate="group",
            name=rule,
            until=until,
            wall=group.at is not None,
            key=ident("key", *(json.dumps(value) for value in values)) if values else "",
            label=label if values else "",
            most=group.most,
        )


_LONGEST_VALUE = 100  # characters of one that is shown


def _value(facts: Facts, field: str) -> str | None:
    """Return the value that messages are grouped by; of a queue the name, where it has one."""
    if field == "state":
        return facts.transition.to
    values = facts.texts(field)
    return values[-1 if field == "queue" else 0] if values else None


@lru_cache(maxsize=1_000)
def scope_of(spec: str) -> Scope:
    """Return the scope of a stored silence. Raises ValueError."""
    return read_scope(json.loads(spec))


SCOPE_KEYS = ("match", "from", "to", "rule", "notifier")


def read_scope(spec: Mapping[str, Any]) -> Scope:
    """Read what a silence is about: match.*, from, to as in a rule, and `rule` and `notifier` (names).

    Raises FieldFaults.
    """
    unknown = [key for key in spec if key not in SCOPE_KEYS]
    faults = [FieldFault(None, f'unknown key "{key}"{instead(key, SCOPE_KEYS)}') for key in unknown]

    def read(key: str, reader: Any, default: Any) -> Any:
        try:
            return reader(spec[key]) if key in spec else default
        except ValueError as error:
            faults.append(FieldFault(key, str(error)))
            return default

    match = spec.get("match", {})
    if not isinstance(match, dict):
        faults.append(FieldFault("match", f'{shown(match)} is not a table such as {{"tag": "Transcode"}}'))
        match = {}
    conditions = []
    for field, value in flat(match):
        try:
            conditions.append(condition(field, value, {}))
        except ValueError as error:
            faults.append(FieldFault(f"match.{field}", str(error)))
    scope = Scope(
        was=read("from", read_states, _ANY),
        to=read("to", read_ends, _ANY),
        conditions=tuple(conditions),
        rules=frozenset(read("rule", read_words, ())),
        notifiers=frozenset(read("notifier", read_words, ())),
    )
    if faults:
        raise FieldFaults(*faults)
    return scope
