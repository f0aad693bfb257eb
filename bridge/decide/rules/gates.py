"""What holds messages back: [[mute]]s, silences (which people make for a while), and digests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.rules.matching import Condition, Facts, Verdict, read_match
from bridge.decide.text.times import Window, next_at
from bridge.decide.text.values import FieldReader, States, cut, ident, read_ends, read_states, read_words, shown, states
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

    def holds(self, facts: Facts | None, rule: str, notifier: str, pick: str | None = None) -> bool:
        """Tell whether a message is among these; one about no job (no facts) is if these are not about jobs.

        `pick` is what leads to the notifier, if that is a pick.
        """
        if (self.rules and rule not in self.rules) or not self.is_for(notifier, pick):
            return False
        if facts is None:
            return not self.conditions and self.was == self.to == _ANY
        step = facts.transition
        return (
            step.to in self.to
            and step.was in self.was
            and not any(condition.why_not(facts) for condition in self.conditions)
        )

    def is_for(self, notifier: str, pick: str | None) -> bool:
        return not self.notifiers or notifier in self.notifiers or pick in self.notifiers


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """A [[mute]] of rules.toml: at some times of the day, what it matches is sent later, or (`drop`) never."""

    name: str
    line: int
    scope: Scope
    window: Window
    drop: bool = False


class Gates:
    """What stands between a rule and a notifier at one moment: silences, then mutes; then the rule's own `group`."""

    def __init__(
        self,
        *,
        mutes: Sequence[Mute],
        silences: Sequence[Silence],
        zone: ZoneInfo,
        now: datetime,
        pick_of: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._zone = zone
        self._pick_of = pick_of
        self._now = now
        self._active: list[tuple[Scope, Hold]] = []
        self._ended: list[tuple[Scope, Silence]] = []
        self._mentioned: set[tuple[str, str]] = set()
        for silence in silences:
            if silence.ends_at <= silence.begins_at:
                continue  # it was ended before it began
            if silence.ends_at <= now:
                self._ended.append((scope_of(silence.spec), silence))
            elif silence.begins_at <= now:
                hold = Hold(gate="silence", name=silence.id, until=silence.ends_at, wall=True, drop=silence.drop)
                self._active.append((scope_of(silence.spec), hold))
        for mute in mutes:
            if until := mute.window.ends(now, zone):
                hold = Hold(gate="mute", name=mute.name, until=until, wall=True, drop=mute.drop)
                self._active.append((mute.scope, hold))

    def may_hold(self, notifier: str) -> bool:
        """Tell whether there is a mute or a silence now that may hold what is for this notifier."""
        return any(scope.is_for(notifier, self._pick_of.get(notifier)) for scope, _ in self._active)

    def held(self, verdict: Verdict, facts: Facts) -> Verdict:
        """Return a verdict together with what does not let its messages go out at once."""
        rule, holds = verdict.rule, {}
        for name in verdict.notifiers:
            hold, choice = self.quiet(facts, rule.name, name), verdict.unpicked.get(name)
            if not hold and rule.group:
                hold = self._group(facts, rule.name, rule.group)
            if hold and (hold.drop or not (choice and choice.is_dead)):  # nothing waits for nobody
                holds[name] = hold
        return replace(verdict, holds=holds) if holds else verdict

    def quiet(self, facts: Facts | None, rule: str, notifier: str) -> Hold | None:
        """Return the silence or mute that holds a message, if there is one; without facts it is about no job."""
        pick = self._pick_of.get(notifier)
        return next((hold for scope, hold in self._active if scope.holds(facts, rule, notifier, pick)), None)

    def ended(self, facts: Facts, rule: str, notifier: str) -> Silence | None:
        """Return a silence that would have held this message, has ended, and of whose end this notifier does not know.

        Whoever asks mentions it, so it is returned once.
        """
        pick = self._pick_of.get(notifier)
        for scope, silence in self._ended:
            mark = (silence.id, notifier)
            is_known = notifier in silence.notified or mark in self._mentioned
            if not is_known and scope.holds(facts, rule, notifier, pick):
                self._mentioned.add(mark)
                return silence
        return None

    def _group(self, facts: Facts, rule: str, group: Grouping) -> Hold:
        until = self._now + (group.wait or timedelta())
        if group.at:
            until = next_at(group.at, after=self._now, zone=self._zone)
        values = [(field, _value(facts, field)) for field in group.by]
        label = [[field, value and cut(value, _LONGEST_VALUE)] for field, value in values]
        return Hold(
            gate="group",
            name=rule,
            until=until,
            wall=group.at is not None,
            key=ident("key", *(json.dumps(value) for value in values)) if values else "",
            label=json.dumps(label, ensure_ascii=False) if values else "",
            most=group.most,
        )


_LONGEST_VALUE = 100  # characters of one in a label


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
    reader, match = FieldReader(spec, SCOPE_KEYS), spec.get("match", {})
    if not isinstance(match, dict):
        reader.note("match", f'{shown(match)} is not a table such as {{"tag": "Transcode"}}')
        match = {}
    conditions, faults = read_match(match, {})
    for field, text in faults.items():
        reader.note(f"match.{field}", text)
    scope = Scope(
        was=reader.read("from", read_states, _ANY),
        to=reader.read("to", read_ends, _ANY),
        conditions=tuple(conditions),
        rules=frozenset(reader.read("rule", read_words, [])),
        notifiers=frozenset(reader.read("notifier", read_words, [])),
    )
    reader.check()
    return scope
