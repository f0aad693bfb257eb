"""The rules and their conditions: what each rule says to a transition, and which of its conditions does not hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from itertools import product
from math import prod
from operator import ge, gt, le, lt
from types import MappingProxyType
from typing import Any, Literal
from zoneinfo import ZoneInfo

from bridge.decide.rules.incidents import Escalation, IncidentSpec
from bridge.decide.rules.picks import Choice, Pick
from bridge.decide.templates.functions import Names, variables
from bridge.decide.text.globs import Glob, glob, is_glob
from bridge.decide.text.times import duration
from bridge.decide.text.values import MOST_LISTED, States, ident, instead, shown, user_data_keys
from bridge.model import Grouping, Hold, Rate, Transition

# --- conditions: each says why not, or nothing when it holds --------------------------------------------------------

DURATIONS = ("duration", "wait", "age", "late")
TEXTS = (
    "tag", "queue", "bucket", "region", "input", "output", "workflow", "template", "code", "message", "level",
    "job", "watch", "user_data",
)  # fmt: skip
_PATHS = frozenset({"input", "output"})  # here `*` stops at a slash
_MOST_PATTERNS = 10_000  # of all globs of a file together
_MAX_WILDCARD_SPAN = 100_000  # of these, from the first star or question mark of each to its last


class Facts:
    """A transition as conditions see it: field name -> the texts any of which may match.

    With `in_state` it stands for the time in state that it began, which is not late.
    """

    def __init__(self, transition: Transition, queue_names: Mapping[str, str], *, in_state: bool = False) -> None:
        self.transition = transition
        self._queue_names = queue_names
        self._in_state = in_state

    def texts(self, field: str) -> tuple[str, ...]:
        job = self.transition.job
        values: tuple[str | None, ...]
        match field:
            case "queue":
                values = job.queue, self._queue_names.get(job.queue or "")
            case "workflow":
                values = job.workflow, job.workflow_name
            case "template":
                values = job.template, job.template_name
            case "output":
                values = job.outputs or (job.output,)
            case "job":
                values = (job.id,)
            case "watch":
                values = (self.transition.watch,)
            case _ if field.startswith("user_data."):
                values = (self.user_data.get(field.removeprefix("user_data.")),)
            case _:
                values = (getattr(job, field),)
        return tuple(value for value in values if value)

    def key(self, by: Sequence[str]) -> tuple[tuple[str, str], ...] | str:
        """Return the fields with their values; or the first field that the job does not have."""
        found = []
        for name in by:
            value = self.transition.to if name == "state" else next(iter(self.texts(name)), None)
            if value is None:
                return name
            found.append((name, _bounded(value)))
        return tuple(found)

    @cached_property
    def user_data(self) -> Mapping[str, str]:
        return user_data_keys(self.transition.job.user_data)

    def variables(self, rule: str | None, zone: ZoneInfo) -> Names:
        """Return what templates can name."""
        return variables(self.transition, rule, self._queue_names, zone=zone, in_state=self._in_state)

    def seconds(self, field: str) -> float | None:
        if field == "late":
            return None if self._in_state else self.transition.late_seconds
        return self.transition.job.seconds(self.transition.seen_at)[field]


_LONGEST_KEY = 200  # characters of one value of a key


def _bounded(value: str) -> str:
    """Return a value that is as long as a key may have; two that differ stay different."""
    return value if len(value) <= _LONGEST_KEY else f"{value[: _LONGEST_KEY - 40]}…{ident('', value)}"


@dataclass(frozen=True, slots=True)
class TextCondition:
    """Any of `wanted` (or none is asked for) and none of `unwanted`."""

    field: str
    wanted: tuple[tuple[str, Callable[[str], bool]], ...]
    unwanted: tuple[tuple[str, Callable[[str], bool]], ...]
    patterns: int = 0  # that its globs stand for
    wildcard_span: int = 0  # characters of these, from the first wildcard of each to its last

    @property
    def exact(self) -> frozenset[str] | None:
        """The only values that can match, or None when there is no such list."""
        texts = [text for text, _ in self.wanted]
        return frozenset(texts) if texts and not any(map(is_glob, texts)) else None

    def why_not(self, facts: Facts) -> str | None:
        return self.why_not_of(facts.texts(self.field))

    def why_not_of(self, values: Sequence[str]) -> str | None:
        for text, test in self.unwanted:
            if any(map(test, values)):
                return f'match.{self.field}: {_shown(values)} is excluded by "!{text}"'
        if not self.wanted or any(test(value) for _, test in self.wanted for value in values):
            return None
        texts = [text for text, _ in self.wanted]
        hint = " (* stops at a slash, ** does not)" if self.field in _PATHS and "*" in "".join(texts) else ""
        either = " or ".join(f'"{text}"' for text in texts[:5]) + (" or ..." if len(texts) > 5 else "")
        return f"match.{self.field}: {_shown(values)} is not {either}{hint}"


@dataclass(frozen=True, slots=True)
class PresenceCondition:
    """Whether the job has the field at all: match.FIELD = true, or false."""

    field: str
    present: bool

    def why_not(self, facts: Facts) -> str | None:
        values = facts.texts(self.field)
        if bool(values) == self.present:
            return None
        return f"match.{self.field}: the job has {'none' if self.present else _shown(values)}"


@dataclass(frozen=True, slots=True)
class DurationCondition:
    """Compares a time span with a limit, as in match.duration = "> 45m".

    `Job.seconds` has the spans, and `Transition.late_seconds` how late it was seen.
    """

    field: str
    sign: str  # one of < <= > >=
    limit: timedelta

    def why_not(self, facts: Facts) -> str | None:
        seconds = facts.seconds(self.field)
        if seconds is None:
            return f"match.{self.field}: CI gave no times to count it from"
        if _COMPARE[self.sign](seconds, self.limit.total_seconds()):
            return None
        return f"match.{self.field}: {seconds:.0f} s is not {self.sign} {self.limit.total_seconds():.0f} s"


_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": le, ">=": ge, "<": lt, ">": gt}

Condition = TextCondition | PresenceCondition | DurationCondition


class GlobCost:
    """What the globs of a file cost together: they may all be held against one job, and each of its outputs."""

    def __init__(self) -> None:
        self._patterns = self._wildcard_span = 0

    def add(self, conditions: Iterable[Condition]) -> None:
        for condition in conditions:
            if isinstance(condition, TextCondition):
                self._patterns += condition.patterns
                self._wildcard_span += condition.wildcard_span

    @property
    def fault(self) -> str:
        """What is wrong with that, or nothing."""
        if self._patterns > _MOST_PATTERNS:
            return f"the globs up to here expand to more than {_MOST_PATTERNS:,} patterns; write fewer braces"
        if self._wildcard_span > _MAX_WILDCARD_SPAN:
            return f"the globs up to here are too long; the limit is {_MAX_WILDCARD_SPAN:,} characters together"
        return ""


def read_match(match: Mapping[str, Any], aliases: Mapping[str, str]) -> tuple[list[Condition], dict[str, str]]:
    """Return the conditions of a `match` table, and by field what is wrong with the others."""
    conditions, faults = [], {}
    for name, value in flat(match):
        try:
            conditions.append(read_condition(name, value, aliases))
        except ValueError as error:
            faults[name] = str(error)
    return conditions, faults


def read_condition(field: str, value: object, aliases: Mapping[str, str]) -> Condition:
    """Read one `match.FIELD = value`. Raises ValueError saying what is wrong and what would be right."""
    if field in ("state", "to", "from"):
        raise ValueError('states do not belong in match: write to = "Failed" or from = "Running"')
    if not (field in TEXTS or field in DURATIONS or is_user_data(field)):
        raise ValueError(f'a job has no "{field}" to match{instead(field, (*TEXTS, *DURATIONS))}')
    if field in DURATIONS:
        text = value.strip() if isinstance(value, str) else ""
        sign = next((sign for sign in _COMPARE if text.startswith(sign)), None)
        if sign is None:
            raise ValueError(f'{shown(value)} does not compare; write for example "> 45m" or "<= 10s"')
        return DurationCondition(field, sign, duration(text.removeprefix(sign).strip()))
    if isinstance(value, bool):
        return PresenceCondition(field, value)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.strip("!") for v in values):
        raise ValueError(f"{shown(value)} is not a string, a list of strings, true or false")
    if len(values) > MOST_LISTED:
        raise ValueError(f"a list of {len(values):,} strings is too long; the limit is {MOST_LISTED:,}")
    tests: dict[bool, list[tuple[str, Glob]]] = {True: [], False: []}
    for given in values:
        text = given.removeprefix("!")
        text = aliases.get(text, text) if field == "queue" else text
        test = glob(text, path=field in _PATHS) if is_glob(text) else Glob(text.__eq__, 0, 0)
        tests[not given.startswith("!")].append((text, test))
    return TextCondition(
        field,
        wanted=tuple((text, test.test) for text, test in tests[True]),
        unwanted=tuple((text, test.test) for text, test in tests[False]),
        patterns=sum(test.patterns for found in tests.values() for _, test in found),
        wildcard_span=sum(test.wildcard_span for found in tests.values() for _, test in found),
    )


def is_user_data(field: str) -> bool:
    return field.startswith("user_data.") and field != "user_data."


def flat(match: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield each field of a `match` table with its value; those of user_data one by one."""
    for name, value in match.items():
        if name == "user_data" and isinstance(value, dict) and value:
            yield from ((f"user_data.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _shown(values: Sequence[str]) -> str:
    return " / ".join(f'"{value[:80]}"' for value in values[:3]) or "nothing"


# --- rules ----------------------------------------------------------------------------------------------------------

_MOST_KEYS = 100  # of one rule in the index

Kind = Literal["transition", "level", "recovery"]  # of messages


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSpec:
    """What makes a rule a level rule: it fires when a job has been in a state of `states` for `after`."""

    states: States
    after: timedelta
    repeat: timedelta | None = None
    recover: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An edge rule fires when a job goes from a state of `was` to a state of `to`; a level rule has a `level`.

    One with `blind` is about watches, and not about jobs: it fires when one has had no complete poll for so long.

    One with an `incident` is about several jobs: its `was`, `to` and conditions say which transitions it looks at.

    For an inferred transition it fires only if `to` names its state, as its author wants to know of that one.
    """

    name: str
    line: int
    was: States
    to: States
    conditions: tuple[Condition, ...]
    notify: tuple[str, ...]
    template: str | None = None
    stop: bool = False
    level: LevelSpec | None = None
    incident: IncidentSpec | None = None
    by: tuple[str, ...] = ()  # of an incident: one for each combination of values of these fields
    recover: bool = False  # whoever was sent an incident hears of its end
    unless: str | None = None  # it does not fire while this rule has an open incident for the same key
    escalate: Escalation | None = None  # of an incident, or of a level rule's alarm
    blind: timedelta | None = None
    group: Grouping | None = None
    throttle: Rate | None = None
    urgent: bool = False  # its messages go first
    mention: tuple[str, ...] = ()  # ids of people and groups in chats, "here", "channel"

    def is_for(self, watch: str) -> bool:
        """Tell whether a rule with `blind`, whose conditions are about the watch's name, is about this watch."""
        return not any(c.why_not_of((watch,)) for c in self.conditions if isinstance(c, TextCondition))

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
        elif transition.inferred:  # `from` is not asked: the state before it was not seen either
            if transition.to not in self.to.words:
                yield f'to: "{transition.to}" was inferred, and is not named by {self.to}'
        else:
            if transition.to not in self.to:
                yield f'to: "{transition.to}" is not among {self.to}'
            if transition.was not in self.was:
                yield f'from: "{transition.was}" is not among {self.was}'
        for condition in self.conditions:
            if why_not := condition.why_not(facts):
                yield why_not


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelEvent:
    """What a level rule notifies of: a job is in a state for longer than `after`, or (`recovered`) no longer is."""

    state: str
    since: datetime
    after: timedelta  # as long as it may be
    count: int = 0  # the number of the repetition; 0 is the first message
    again: bool = False  # an earlier message was sent
    recovered: bool = False

    @property
    def kind(self) -> Literal["level", "recovery"]:
        return "recovery" if self.recovered else "level"


class Answer(StrEnum):
    """The answer of a rule."""

    FIRED = "fired"
    WAITING = "waiting"  # a level rule: the job has not been in its state for long enough
    STOPPED = "stopped"  # it was not asked, as a rule above fired and stops
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one rule said to a transition or, with `level_event`, to a job's time in a state."""

    rule: Rule
    answer: Answer
    why_not: str | None = None  # the first condition that failed, with the value it saw; None when the rule fired
    notifiers: Sequence[str] = ()  # whom it is the first to notify
    unpicked: Mapping[str, Choice] = field(default_factory=dict)  # by notifier: a pick led there, but to none of `to`
    notified_earlier: Mapping[str, Rule] = field(default_factory=dict)  # whom a rule above notifies, and which one
    holds: Mapping[str, Hold] = field(default_factory=dict)  # by notifier: what does not let its message go out at once
    level_event: LevelEvent | None = None
    misses: Sequence[str] = ()  # by `explain` only: all conditions that failed, also of a rule that was not asked

    @property
    def fired(self) -> bool:
        return self.answer is Answer.FIRED

    @property
    def kind(self) -> Kind:
        """What its messages are about."""
        return self.level_event.kind if self.level_event else "transition"

    def drops(self, notifier: str) -> bool:
        """Tell whether its message never reaches a notifier: a mute or a silence drops it, or nobody was picked."""
        hold, choice = self.holds.get(notifier), self.unpicked.get(notifier)
        return (hold is not None and hold.drop) or (choice is not None and choice.is_dead)


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
        self._candidates = lru_cache(maxsize=1_000)(self._find)  # jobs have few tags and queues

    def candidates(self, transition: Transition) -> Sequence[Rule]:
        """Return them top to bottom."""
        return self._candidates(transition.to, transition.job.tag, transition.job.queue)

    def _find(self, to: str, tag: str | None, queue: str | None) -> Sequence[Rule]:
        keys = product((None, to), (None, tag), (None, queue, self._queue_names.get(queue or "")))
        # A job without a tag or queue makes the same key twice.
        numbers = {number for key in set(keys) for number in self._numbers.get(key, ())}
        return tuple(self._rules[number] for number in sorted(numbers))


class Matcher:
    """Asks the rules, but only those that can match.

    `match` and `explain` are about edge rules; `levels` and `incidents` (rules over several jobs) are others.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        queue_names: Mapping[str, str],
        picks: Mapping[str, Pick] = MappingProxyType({}),
    ) -> None:
        self.picks = picks
        self._edges = tuple(rule for rule in rules if not (rule.level or rule.blind or rule.incident))
        self.levels = tuple(rule for rule in rules if rule.level)
        self.incidents = tuple(rule for rule in rules if rule.incident)
        self._queue_names = queue_names
        self._edge_index = _Index(self._edges, queue_names)
        self._level_index = _Index(self.levels, queue_names)
        self._incident_index = _Index(self.incidents, queue_names)

    def facts(self, transition: Transition, *, in_state: bool = False) -> Facts:
        return Facts(transition, self._queue_names, in_state=in_state)

    @cached_property
    def pick_of(self) -> Mapping[str, str]:
        """The pick of each notifier that only a pick leads to, and of each pick itself."""
        members = {name: pick.name for pick in self.picks.values() for name in pick.to.values()}
        return members | {name: name for name in self.picks}

    def picked(
        self, names: Sequence[str], rule: str | None, facts: Facts | None
    ) -> tuple[Sequence[str], Mapping[str, Choice]]:
        """Return whom these names stand for, and by notifier what a pick led to that is none of its `to`."""
        if self.picks.keys().isdisjoint(names):
            return names, {}
        picks = [self.picks[name] for name in names if name in self.picks]
        choices = {pick.name: pick.choose(facts.variables(rule, pick.zone) if facts else None) for pick in picks}
        found = dict.fromkeys(choices[name].notifier if name in choices else name for name in names)
        return tuple(found), {choice.notifier: choice for choice in choices.values() if choice.why}

    def with_picks(self, verdict: Verdict, facts: Facts) -> Verdict:
        names, unpicked = self.picked(verdict.notifiers, verdict.rule.name, facts)
        return verdict if names is verdict.notifiers else replace(verdict, notifiers=names, unpicked=unpicked)

    def match(self, transition: Transition) -> list[Verdict]:
        """Return the verdicts of the rules that fire, top to bottom."""
        facts = self.facts(transition)
        notified: dict[str, Rule] = {}
        fired = []
        for rule in self._edge_index.candidates(transition):
            if rule.why_not(facts):
                continue
            (names, unpicked), already = self.picked(rule.notify, rule.name, facts), dict[str, Rule]()
            if not rule.group:  # a digest comes in addition to what is sent at once
                already = {name: notified[name] for name in names if name in notified}
                names = tuple(name for name in names if name not in already) if already else names
                notified.update(dict.fromkeys(names, rule))
            verdict = Verdict(rule=rule, answer=Answer.FIRED, notifiers=names, notified_earlier=already)
            fired.append(replace(verdict, unpicked=unpicked) if unpicked else verdict)
            if rule.stop:
                break
        return fired

    def levels_for(self, transition: Transition) -> Sequence[Rule]:
        """Return the level rules that may fire for the time in state that a transition began, top to bottom."""
        return self._level_index.candidates(transition)

    def incidents_for(self, transition: Transition, facts: Facts) -> Iterator[Rule]:
        """Yield the rules over several jobs that a transition, with its facts, may count for, top to bottom."""
        if self.incidents:
            for rule in self._incident_index.candidates(transition):
                if not (transition.inferred or transition.was in rule.was):
                    continue
                if not any(condition.why_not(facts) for condition in rule.conditions):
                    yield rule

    def explain(self, transition: Transition) -> Iterator[Verdict]:
        """Yield the verdict of every rule, top to bottom, with all that it misses."""
        facts = self.facts(transition)
        fired = {verdict.rule.name: verdict for verdict in self.match(transition)}
        stops: Rule | None = None
        for rule in self._edges:
            if verdict := fired.get(rule.name):
                stops = rule if rule.stop else None
                yield verdict
            else:
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
