"""What level rules say to a job's time in a state, and what polls have to do with that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.decide.routing import Waits
from bridge.decide.rules.levels import TimeInState, evaluate_time_in_state
from bridge.decide.rules.matching import Answer, Rule, Verdict
from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.text.times import human, iso
from bridge.model import Alarm

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InState:
    """A job's time in a state: `left_at` is None while it goes on.

    `seen_at` is when the last poll began that saw it so; `no_poll` says why none has come since.
    """

    time: TimeInState
    now: datetime
    left_at: datetime | None = None
    seen_at: datetime | None = None
    no_poll: str | None = None

    @property
    def lasted_s(self) -> float:
        return max(0.0, ((self.left_at or self.now) - self.time.since).total_seconds())

    @property
    def asked_at(self) -> datetime:
        """When level rules were asked the last time: once it has ended, by the last poll that saw it."""
        return max(self.seen_at or self.time.began.seen_at, self.time.began.seen_at) if self.left_at else self.now


def explain_levels(
    period: InState, ruleset: Ruleset, fired: Mapping[str, Alarm], *, waits: Waits | None = None
) -> list[Facts]:
    """Return what every level rule says, top to bottom, then those that fired and are no longer among the rules.

    `waits` tells whether one waits for another rule's incident to close.
    """
    matcher = ruleset.matcher
    levels = []
    for verdict in evaluate_time_in_state(period.time, matcher, period.asked_at, matcher.levels):
        alarm = fired.get(verdict.rule.name)
        answer, why = (Answer.FIRED, _fired(alarm, verdict.rule)) if alarm else _not_fired(verdict, period)
        if waits and answer is Answer.WAITING and verdict.fired and waits(verdict.rule, period.time.began):
            why = f'waits: rule "{verdict.rule.unless}" has an open incident (unless)'
        levels.append(_level_facts(period, verdict.rule, answer, why, alarm) | {"judged_by": ruleset.sha})
    named = {rule.name for rule in matcher.levels}
    gone = [alarm for name, alarm in fired.items() if name not in named]
    return levels + [_level_facts(period, None, Answer.FIRED, _fired(alarm, None), alarm) for alarm in gone]


def _not_fired(verdict: Verdict, period: InState) -> tuple[Answer, str]:
    """Return what a rule that has not fired says, with what polls have to do with that."""
    level = verdict.rule.level
    if level is None or verdict.answer in (Answer.NO, Answer.STOPPED):
        return verdict.answer, verdict.why_not or ""
    state, limit, due = period.time.began.to, human(level.after.total_seconds()), period.time.since + level.after
    if period.left_at is None:
        if not verdict.fired:
            return Answer.WAITING, f"{verdict.why_not}: due at {iso(due)}"
        if period.no_poll:
            return Answer.WAITING, f"no poll has seen the job since it became overdue at {iso(due)}: {period.no_poll}"
        return Answer.WAITING, f"{state} for more than {limit} since {iso(due)}: fires when the next poll is complete"
    left = f"left {state} after {human(period.lasted_s)}"
    if period.left_at < due:
        return Answer.NO, f"{left}, before {limit}"
    if period.seen_at is None or period.seen_at < due:
        last = f"; the last poll that saw it there began at {iso(period.seen_at)}" if period.seen_at else ""
        return Answer.NO, f"{left}, but no poll saw the job in that state after {limit}{last}"
    return Answer.NO, f"{left}, which is more than {limit}, but no message is on record: was the rule there then?"


def _fired(alarm: Alarm, rule: Rule | None) -> str:
    text = f"fired at {iso(alarm.fired_at)}"
    if alarm.count:
        text += f", repeated {'once' if alarm.count == 1 else f'{alarm.count} times'} until {iso(alarm.last_at)}"
    if alarm.recovered_at:
        text += f", it moved on at {iso(alarm.recovered_at)}"
        recovers = rule is None or rule.level is None or rule.level.recover
        text += "" if recovers else " (recover is not set, so nobody is notified of that)"
    return text


def _level_facts(period: InState, rule: Rule | None, answer: Answer, why: str, alarm: Alarm | None) -> Facts:
    level, since = rule.level if rule else None, alarm.since if alarm else period.time.since
    return {
        "rule": rule.name if rule else alarm and alarm.rule,
        "line": rule.line if rule else None,
        "judged_by": None,
        "in": period.time.began.to,
        "answer": answer,
        "why": why,
        "since": iso(since),
        "until": iso(period.left_at),
        "stayed_seconds": round(period.lasted_s),
        "for_seconds": round(level.after.total_seconds()) if level else None,
        "due_at": iso(since + level.after) if level else None,
        "notifiers": list(alarm.notifiers if alarm else rule.notify if rule else ()),
        "fired_at": iso(alarm.fired_at) if alarm else None,
        "repeated": alarm.count if alarm else None,
        "ended_at": iso(alarm.recovered_at) if alarm else None,
    }
