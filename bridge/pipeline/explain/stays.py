"""What each level rule says to a job's stay in a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from bridge.decide.archive import Ruleset
from bridge.decide.levels import GONE_FOR
from bridge.decide.matching import Level, Rule
from bridge.decide.text.durations import human
from bridge.decide.text.times import iso
from bridge.model import GONE, Transition
from bridge.record.alarms import Fired

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A job's stay in a state, and how it was looked at.

    `left_at` is None while it goes on. `ok_at` is the last poll that saw it; `no_poll` says why there is
    none any more.
    """

    began: Transition
    since: datetime
    now: datetime
    left_at: datetime | None = None
    ok_at: datetime | None = None
    no_poll: str | None = None

    @property
    def lasted(self) -> timedelta:
        return (self.left_at or self.now) - self.since


def levels_of(looked: Looked, ruleset: Ruleset, alarms: Mapping[str, Fired]) -> list[Facts]:
    """Return what every level rule says, top to bottom, then those that fired and are no longer among the rules."""
    found = list(_asked(looked, ruleset, alarms))
    named = {rule.name for rule in ruleset.matcher.levels}
    gone = [one for name, one in alarms.items() if name not in named]
    return found + [_facts(looked, one.rule, None, None, "fired", _fired(one, None), one) for one in gone]


def _asked(looked: Looked, ruleset: Ruleset, alarms: Mapping[str, Fired]) -> Iterator[Facts]:
    facts = ruleset.matcher.facts(replace(looked.began, seen_at=looked.left_at or looked.now))
    stopped: Rule | None = None
    for rule in ruleset.matcher.levels:
        level = rule.level
        if level is None:  # not among the level rules
            continue
        alarm, why_not = alarms.get(rule.name), rule.why_not(facts)
        if alarm:
            answer, why = "fired", _fired(alarm, level)
        elif stopped:
            answer, why = "stopped", f'rule "{stopped.name}" (line {stopped.line}) matched and stops'
        elif why_not:
            answer, why = "no", why_not
        else:
            answer, why = _timed(looked, level)
        yield _facts(looked, rule.name, rule.line, rule, answer, why, alarm) | {"judged_by": ruleset.sha}
        if stopped is None and answer in _STOPS and _stops_now(looked, rule, level, why_not):
            stopped = rule


_STOPS = ("fired", "due", "no_poll")


def _stops_now(looked: Looked, rule: Rule, level: Level, why_not: str | None) -> bool:
    """Tell whether a rule holds and stops now: one that fired once stops only for as long as it holds."""
    return rule.stop and why_not is None and _timed(looked, level)[0] in ("due", "no_poll", "unseen", "not_on_record")


def _facts(
    looked: Looked, name: str, line: int | None, rule: Rule | None, answer: str, why: str, alarm: Fired | None
) -> Facts:
    level, since = rule.level if rule else None, alarm.since if alarm else looked.since
    return {
        "rule": name,
        "line": line,
        "judged_by": None,
        "in": looked.began.to,
        "answer": answer,
        "why": why,
        "since": iso(since),
        "until": iso(looked.left_at),
        "stayed_seconds": round(max(0.0, looked.lasted.total_seconds())),
        "for_seconds": round(level.after.total_seconds()) if level else None,
        "due_at": iso(since + level.after) if level else None,
        "notifiers": list(alarm.notifiers if alarm else rule.notify if rule else ()),
        "fired_at": iso(alarm.fired_at) if alarm else None,
        "repeated": alarm.count if alarm else None,
        "ended_at": iso(alarm.recovered_at) if alarm else None,
    }


def _fired(alarm: Fired, level: Level | None) -> str:
    said = f"fired at {iso(alarm.fired_at)}"
    if alarm.count:
        times = "once more" if alarm.count == 1 else f"{alarm.count} times more"
        said += f", told {times} until {iso(alarm.told_at)}"
    if alarm.recovered_at:
        said += f", it moved on at {iso(alarm.recovered_at)}"
        said += "" if level is None or level.recover else " (recover is not set, so nobody is told of that)"
    return said


def _timed(looked: Looked, level: Level) -> tuple[str, str]:
    """Return why a rule whose conditions hold has not fired: it is about the time."""
    due, state, usual = looked.since + level.after, looked.began.to, human(level.after.total_seconds())
    if looked.began.silent and due <= looked.began.seen_at:
        return "first_snapshot", f"the first snapshot found it so: {state} since {iso(looked.since)}"
    if looked.left_at is not None:
        return _left(looked, due, usual)
    if looked.now < due:
        return "not_yet", f"{state} since {iso(looked.since)}, not yet for {usual}: due at {iso(due)}"
    if looked.began.to == GONE and looked.now > due + GONE_FOR:
        return "too_old", f"gone for too long since {iso(due)}: a rule that first asks a day later does not tell of it"
    if looked.no_poll:
        return "no_poll", f"no poll has seen it since it became too long at {iso(due)}: {looked.no_poll}"
    return "due", f"{state} for more than {usual} since {iso(due)}: told when the next poll is complete"


def _left(looked: Looked, due: datetime, usual: str) -> tuple[str, str]:
    stayed = f"left {looked.began.to} after {human(max(0.0, looked.lasted.total_seconds()))}"
    if looked.left_at is not None and looked.left_at < due:
        return "left", f"{stayed}, before {usual}"
    if looked.ok_at is None or looked.ok_at < due:
        last = f"the last poll that saw it before began at {iso(looked.ok_at)}" if looked.ok_at else "there was none"
        return "unseen", f"{stayed}, but no poll saw it for {usual}: {last}"
    return (
        "not_on_record",
        f"{stayed}, which is more than {usual}, and no telling is on record: was the rule there then?",
    )
