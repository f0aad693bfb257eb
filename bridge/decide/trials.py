"""The [[test]]s of rules.toml: whom its rules would tell of a job, beside whom they are expected to tell.

Only the rules are asked: no mute, silence, group or throttle, which say when somebody is told and not whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bridge.decide.levels import Staying, fitting, stay_of
from bridge.decide.matching import Rule
from bridge.decide.rule_tables import Trial
from bridge.decide.rulebook import Rulebook
from bridge.decide.samples import sample_stay, sample_transition
from bridge.decide.words import listing
from bridge.model import Transition

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)  # any: what rules ask of times are differences
_LONGEST_WHY = 300  # characters

Telling = tuple[str, str]  # rule, notifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A [[test]] that came out otherwise than it says, and why."""

    number: int
    line: int
    text: str
    file: str = "rules.toml"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: test number {self.number}: {self.text}"


def run(book: Rulebook, *, file: str = "rules.toml") -> list[Failed]:
    """Return the tests that fail, in their order."""
    results = ((trial, _why_failed(trial, book)) for trial in book.trials)
    return [Failed(number=trial.number, line=trial.line, text=why, file=file) for trial, why in results if why]


def _why_failed(trial: Trial, book: Rulebook) -> str | None:
    try:
        step = sample_transition(trial.job, book, _NOW)
    except ValueError as error:
        return f"its job is wrong: {error}"
    expected = [_telling(one) for one in trial.expect]
    told = list(_told(step, book))
    missing = [one for one in dict.fromkeys(expected) if one not in told]
    surplus = [one for one in told if one not in expected]
    faults = [f"not told: {_said(one)}: {_why_not(one, step, book)}" for one in missing]
    faults += [f"told, and not expected: {_said(one)}" for one in surplus]
    return "; ".join(faults) or None


def _telling(expected: str) -> Telling:
    rule, _, notifier = expected.partition("->")
    return rule.strip(), notifier.strip()


def _said(telling: Telling) -> str:
    return " -> ".join(telling)


def _told(step: Transition, book: Rulebook) -> Iterator[Telling]:
    """Yield what is told of the transition at once, then what of the stay that it began."""
    for verdict in book.matcher.match(step):
        yield from ((verdict.rule.name, notifier) for notifier in verdict.notifiers)
    for rule, _ in fitting(sample_stay(step), book.matcher, _NOW):
        yield from ((rule.name, notifier) for notifier in rule.notify)


def _why_not(telling: Telling, step: Transition, book: Rulebook) -> str:
    name, notifier = telling
    rule = next(one for one in book.rules if one.name == name)  # the reader has seen to that
    if notifier not in rule.notify:
        return f"the rule (line {rule.line}) notifies {listing(rule.notify)}"
    why = _why_too_early(rule, step, book) if rule.level else _why_not_at_once(rule, notifier, step, book)
    return f"{why[:_LONGEST_WHY]} (line {rule.line})"


def _why_not_at_once(rule: Rule, notifier: str, step: Transition, book: Rulebook) -> str:
    facts = book.matcher.facts(step)
    if why := rule.why_not(facts):
        return why
    fired = book.matcher.match(step)
    if all(verdict.rule is not rule for verdict in fired):
        return _stopped_by(fired[-1].rule)
    first = next(verdict.rule for verdict in fired if notifier in verdict.notifiers and verdict.rule.group is None)
    return f'rule "{first.name}" (line {first.line}) tells {notifier} already'


def _why_too_early(rule: Rule, step: Transition, book: Rulebook) -> str:
    staying = sample_stay(step)
    if why := rule.why_not(book.matcher.facts(step)):
        return why
    if stay_of(staying, rule, _NOW) is None:
        return f"the job is {step.to} for {_span(_NOW - staying.since)}, and for is {_span(_after(rule))}"
    return _stopped_by(_last(one for one, _ in fitting(staying, book.matcher, _NOW)))
