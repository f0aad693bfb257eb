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
from bridge.decide.text.durations import human
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
        asked = _Asked(sample_transition(trial.job, book, _NOW), book)
    except ValueError as error:
        return f"its job is wrong: {'; '.join(str(error).splitlines())}"
    expected = dict.fromkeys(map(_telling, trial.expect))
    told = dict.fromkeys(asked.told())
    missing = [one for one in expected if one not in told]
    surplus = [one for one in told if one not in expected]
    left = max(0, len(missing) - _MOST_SAID) + max(0, len(surplus) - _MOST_SAID)
    said = [f"not told: {_said(one)}: {asked.why_not(*one)}" for one in missing[:_MOST_SAID]]
    said += [f"told, and not expected: {_said(one)}" for one in surplus[:_MOST_SAID]]
    return "; ".join([*said, *([f"and {left:,} more"] if left else [])]) or None


def _telling(expected: str) -> Telling:
    rule, _, notifier = expected.rpartition("->")
    return rule.strip(), notifier.strip()


def _said(telling: Telling) -> str:
    return " -> ".join(telling)


class _Asked:
    """What all rules said of one transition, and of the stay that it began."""

    def __init__(self, step: Transition, book: Rulebook) -> None:
        self._step = step
        self._book = book
        self._staying = sample_stay(step)
        self._fired = book.matcher.match(step)
        self._overdue = [rule for rule, _ in fitting(self._staying, book.matcher, _NOW)]

    def told(self) -> Iterator[Telling]:
        for verdict in self._fired:
            yield from ((verdict.rule.name, notifier) for notifier in verdict.notifiers)
        for rule in self._overdue:
            yield from ((rule.name, notifier) for notifier in rule.notify)

    def why_not(self, name: str, notifier: str) -> str:
        rule = next(one for one in self._book.rules if one.name == name)  # the reader has seen to that
        if notifier not in rule.notify:
            why = f"it notifies {listing(rule.notify)}"
        elif said_no := rule.why_not(self._book.matcher.facts(self._step)):
            why = said_no
        else:
            why = self._too_short(rule) or self._unheard(rule, notifier)
        return f"{why if len(why) <= _LONGEST_WHY else why[: _LONGEST_WHY - 1] + '…'} (rule on line {rule.line})"

    def _too_short(self, rule: Rule) -> str | None:
        if not rule.level or stay_of(self._staying, rule, _NOW):
            return None
        stayed, after = (_NOW - self._staying.since).total_seconds(), rule.level.after.total_seconds()
        return f"the job is {self._step.to} for {human(stayed)}, which is less than {human(after)}"

    def _unheard(self, rule: Rule, notifier: str) -> str:
        """Say what came of a rule that holds: an earlier one stopped, or tells the same notifier."""
        fired = self._overdue if rule.level else [one.rule for one in self._fired]
        if rule not in fired:
            return f'rule "{fired[-1].name}" (line {fired[-1].line}) matched and stops'
        earlier = next(one.rule for one in self._fired if notifier in one.notifiers and not one.rule.group)
        return f'rule "{earlier.name}" (line {earlier.line}) tells {notifier} already'
