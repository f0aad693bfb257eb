"""The rules, and what each of them says to a transition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import product
from math import prod
from typing import Literal

from bridge.decide.rules.conditions import Condition, Facts, TextCondition
from bridge.decide.text.values import States
from bridge.model import Grouping, Hold, Rate, Transition

_MOST_KEYS = 100  # of one rule in the index

Kind = Literal["transition", "level", "recovery"]  # of messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What makes a rule a level rule: it fires when a job has stayed in a state of `states` for `after`."""

    states: States
    after: timedelta
    repeat: timedelta | None = None
    recover: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An edge rule fires when a job goes from a state of `was` to a state of `to`; a level rule has a `level`."""

    name: str
    line: int
    was: States
    to: States
    conditions: tuple[Condition, ...]
    notify: tuple[str, ...]
    template: str | None = None
    stop: bool = False
    level: Level | None = None
    group: Grouping | None = None
    throttle: Rate | None = None

    def why_not(self, facts: Facts) -> str | None:
        """Return the first condition that says no, with the value it saw; None when all hold.

        Of a level rule, whether the job is in such a state, not how long.
        """
        return next(self.misses(facts), None)

    def misses(self, facts: Facts) -> Iterator[str]:
        """Yield every condition that says no."""
        transition = facts.transition
        if self.level:
            if transition.to not in self.level.states:
                yield f'in: "{transition.to}" is not among {self.level.states}'
        else:
            if transition.to not in self.to:
                yield f'to: "{transition.to}" is not among {self.to}'
            if transition.was not in self.was:
                yield f'from: "{transition.was}" is not among {self.was}'
        for one in self.conditions:
            if why := one.why_not(facts):
                yield why


class Answer(StrEnum):
    """What a rule said, in one word."""

    FIRED = "fired"
    WAITING = "waiting"  # a level rule: the job has not been in its state for long enough
    STOPPED = "stopped"  # it was not asked, as a rule above fired and stops
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one rule said to a transition or, with `stay`, to a job's time in a state."""

    rule: Rule
    answer: Answer
    why_not: str | None = None  # the first condition that failed, with the value it saw; None when the rule fired
    notifiers: Sequence[str] = ()  # whom it is the first to notify
    already: Mapping[str, Rule] = field(default_factory=dict)  # whom a rule above notifies, and which one
    holds: Mapping[str, Hold] = field(default_factory=dict)  # by notifier: what does not let its message go out at once
    stay: Stay | None = None
    misses: Sequence[
        str
    ] = ()  # where they are asked for: all conditions that failed, also of a rule that was not asked

    @property
    def fired(self) -> bool:
        return self.answer is Answer.FIRED

    @property
    def kind(self) -> Kind:
        """What its messages are about."""
        if self.stay is None:
            return "transition"
        return "recovery" if self.stay.over else "level"

    def drops(self, notifier: str) -> bool:
        """Tell whether a mute or a silence keeps its message from a notifier for good."""
        hold = self.holds.get(notifier)
        return hold is not None and hold.drop


def stopped(rule: Rule, by: Rule) -> Verdict:
    return Verdict(rule=rule, answer=Answer.STOPPED, why_not=f'rule "{by.name}" (line {by.line}) matched and stops')


class _Index:
    """Finds the rules that can match: those that name another tag, queue or state cost nothing."""

    def __init__(self, rules: Sequence[Rule], queue_names: Mapping[str, str]) -> None:
        self._rules = rules
        self._queue_names = queue_names
        self._numbers: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
        for number, rule in enumerate(rules):
            for key in product(*_index_keys(rule)):
                self._numbers[key].append(number)
        self._found = lru_cache(maxsize=1_000)(self._find)  # jobs have few tags and queues

    def candidates(self, transition: Transition) -> Sequence[Rule]:
        """Return them top to bottom."""
        return self._found(transition.to, transition.job.tag, transition.job.queue)

    def _find(self, to: str, tag: str | None, queue: str | None) -> Sequence[Rule]:
        keys = product((None, to), (None, tag), (None, queue, self._queue_names.get(queue or "")))
        # A job without a tag or queue makes the same key twice.
        numbers = {number for key in set(keys) for number in self._numbers.get(key, ())}
        return tuple(self._rules[number] for number in sorted(numbers))


class Matcher:
    """Asks the rules, but only those that can match.

    `match` and `explain` are about edge rules; `levels` are the others, top to bottom.
    """

    def __init__(self, rules: Sequence[Rule], queue_names: Mapping[str, str]) -> None:
        self._edges = tuple(rule for rule in rules if rule.level is None)
        self.levels = tuple(rule for rule in rules if rule.level)
        self._queue_names = queue_names
        self._edge_index = _Index(self._edges, queue_names)
        self._level_index = _Index(self.levels, queue_names)

    def facts(self, transition: Transition) -> Facts:
        return Facts(transition, self._queue_names)

    def match(self, transition: Transition) -> list[Verdict]:
        """Return the verdicts of the rules that fire, top to bottom."""
        facts = self.facts(transition)
        notified: dict[str, Rule] = {}
        fired = []
        for rule in self._edge_index.candidates(transition):
            if rule.why_not(facts):
                continue
            names, already = rule.notify, dict[str, Rule]()
            if not rule.group:  # a digest comes in addition to what is sent at once
                already = {name: notified[name] for name in names if name in notified}
                names = tuple(name for name in names if name not in already) if already else names
                notified.update(dict.fromkeys(names, rule))
            fired.append(Verdict(rule=rule, answer=Answer.FIRED, notifiers=names, already=already))
            if rule.stop:
                break
        return fired

    def levels_for(self, transition: Transition) -> Sequence[Rule]:
        """Return the level rules that may fire for the time in state that a transition began, top to bottom."""
        return self._level_index.candidates(transition)

    def explain(self, transition: Transition) -> Iterator[Verdict]:
        """Yield the verdict of every rule, top to bottom, with all that it misses."""
        facts = self.facts(transition)
        fired = {verdict.rule.name: verdict for verdict in self.match(transition)}
        stops: Rule | None = None
        for rule in self._edges:
            verdict = fired.get(rule.name)
            if verdict:
                stops = rule if rule.stop else None
                yield verdict
                continue
            misses = tuple(rule.misses(facts))
            no = stopped(rule, stops) if stops else Verdict(rule=rule, answer=Answer.NO, why_not=misses[0])
            yield replace(no, misses=misses)


def _index_keys(rule: Rule) -> tuple[Iterable[str | None], ...]:
    """Return for state, tag and queue the only values that can match, or [None] for any."""
    to = rule.level.states if rule.level else rule.to
    keys = [list(to.exact or [None]), _exact(rule, "tag"), _exact(rule, "queue")]
    while prod(map(len, keys)) > _MOST_KEYS:
        keys[keys.index(max(keys, key=len))] = [None]
    return tuple(keys)


def _exact(rule: Rule, field: str) -> list[str | None]:
    found = [c.exact for c in rule.conditions if isinstance(c, TextCondition) and c.field == field]
    return list(found[0]) if found and found[0] is not None else [None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """A job's stay in a state, which a level rule tells of: too long, or (`over`) at an end after it was."""

    state: str
    since: datetime
    after: timedelta  # as long as it may be
    count: int = 0  # the number of the repetition; 0 is the first telling
    again: bool = False  # it was told before
    over: bool = False
