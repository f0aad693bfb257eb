"""The [[test]]s of rules.toml: whom its rules would tell of a job, beside whom they are expected to tell.

Only the rules are asked: no mute, silence, group or throttle, which say when somebody is told and not whom.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from bridge.decide.levels import fitting, stay_of
from bridge.decide.matching import Rule
from bridge.decide.rule_tables import Trial
from bridge.decide.rulebook import Rulebook
from bridge.decide.samples import sample_stay, sample_transition
from bridge.decide.template_words import human
from bridge.decide.words import listing
from bridge.model import Transition

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)  # any: what rules ask of times are differences
_LONGEST_WHY = 300  # characters
_MOST_SAID = 20  # of each kind, of one test

Telling = tuple[str, str]  # rule, notifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A [[test]] that came out otherwise than it says; `text` says which, and why."""

    number: int
    line: int
    text: str


def run(book: Rulebook) -> list[Failed]:
    """Return the tests that fail, in their order."""
    results = ((trial, _why_failed(trial, book)) for trial in book.trials)
    return [
        Failed(number=trial.number, line=trial.line, text=f"test number {trial.number}: {why}")
        for trial, why in results
        if why
    ]


def _why_failed(trial: Trial, book: Rulebook) -> str | None:
    try:
        step = sample_transition(trial.job, book, _NOW)
    except ValueError as error:
        return f"its job is wrong: {error}"
    expected = [_telling(one) for one in trial.expect]
    told = dict.fromkeys(_told(step, book))
    missing = [one for one in dict.fromkeys(expected) if one not in told]
    surplus = [one for one in told if one not in expected]
    left = max(0, len(missing) - _MOST_SAID) + max(0, len(surplus) - _MOST_SAID)
    said = [f"not told: {_said(one)}: {_why_not(one, step, book)}" for one in missing[:_MOST_SAID]]
    said += [f"told, and not expected: {_said(one)}" for one in surplus[:_MOST_SAID]]
    return "; ".join([*said, *([f"and {left:,} more"] if left else [])]) or None


def _telling(expected: str) -> Telling:
    rule, _, notifier = expected.rpartition("->")
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
        why = f"it notifies {listing(rule.notify)}"
    elif said_no := rule.why_not(book.matcher.facts(step)):
        why = said_no
    else:
        why = _why_not_long_enough(rule, step, book) if rule.level else _why_not_heard(rule, notifier, step, book)
    return f"{why if len(why) <= _LONGEST_WHY else why[: _LONGEST_WHY - 1] + '…'} (rule on line {rule.line})"


def _why_not_heard(rule: Rule, notifier: str, step: Transition, book: Rulebook) -> str:
    fired = book.matcher.match(step)
    if all(verdict.rule.name != rule.name for verdict in fired):
        return _stops(fired[-1].rule)
    earlier = next(one.rule for one in fired if notifier in one.notifiers and not one.rule.group)
    return f'rule "{earlier.name}" (line {earlier.line}) tells {notifier} already'


def _why_not_long_enough(rule: Rule, step: Transition, book: Rulebook) -> str:
    staying = sample_stay(step)
    if rule.level and stay_of(staying, rule, _NOW) is None:
        stayed, after = (_NOW - staying.since).total_seconds(), rule.level.after.total_seconds()
        return f"the job is {step.to} for {human(stayed)}, which is less than {human(after)}"
    *_, (last, _) = fitting(staying, book.matcher, _NOW)
    return _stops(last)


def _stops(rule: Rule) -> str:
    return f'rule "{rule.name}" (line {rule.line}) matched and stops'
