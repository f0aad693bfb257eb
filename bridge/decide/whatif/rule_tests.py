"""The [[test]]s of rules.toml: whom its rules would tell of a job, beside whom they are expected to tell.

Only the rules are asked: no mute, silence, group or throttle, which say when somebody is told and not whom.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from bridge.decide.rules.levels import judge_stay, matching
from bridge.decide.rules.matching import Verdict
from bridge.decide.rules.rulebook import Rulebook, Trial
from bridge.decide.text.values import listing
from bridge.decide.whatif.sample_job import sample_stay, sample_transition
from bridge.model import Transition

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)  # any: what rules ask of times are differences
_LONGEST_WHY = 300  # characters
_MOST_SAID = 20  # of each kind, of one test

Pair = tuple[str, str]  # rule, notifier


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
        return f"its job is wrong: {'; '.join(str(error).splitlines())}"
    fired = [*book.matcher.match(step), *matching(sample_stay(step), book.matcher, _NOW)]
    told = list(dict.fromkeys((verdict.rule.name, name) for verdict in fired for name in verdict.notifiers))
    expected = list(dict.fromkeys(map(_pair, trial.expect)))
    missing = [line for line in expected if line not in told]
    surplus = [line for line in told if line not in expected]
    left = max(0, len(missing) - _MOST_SAID) + max(0, len(surplus) - _MOST_SAID)
    verdicts = _verdicts(step, book) if missing else {}
    faults = [f"not told: {_said(line)}: {_why_not(verdicts[line[0]], line[1])}" for line in missing[:_MOST_SAID]]
    faults += [f"told, and not expected: {_said(line)}" for line in surplus[:_MOST_SAID]]
    return "; ".join([*faults, *([f"and {left:,} more"] if left else [])]) or None


def _pair(expected: str) -> Pair:
    rule, _, notifier = expected.rpartition("->")
    return rule.strip(), notifier.strip()


def _said(pair: Pair) -> str:
    return " -> ".join(pair)


def _verdicts(step: Transition, book: Rulebook) -> dict[str, Verdict]:
    """Return by rule what it said."""
    levels = judge_stay(sample_stay(step), book.matcher, _NOW, book.matcher.levels)
    return {verdict.rule.name: verdict for verdict in (*book.matcher.explain(step), *levels)}


def _why_not(verdict: Verdict, notifier: str) -> str:
    rule, earlier = verdict.rule, verdict.already.get(notifier)
    if notifier not in rule.notify:
        why = f"it notifies {listing(rule.notify)}"
    elif earlier:
        why = f'rule "{earlier.name}" (line {earlier.line}) tells {notifier} already'
    else:
        why = verdict.why_not or ""
    return f"{why if len(why) <= _LONGEST_WHY else why[: _LONGEST_WHY - 1] + '…'} (rule on line {rule.line})"
