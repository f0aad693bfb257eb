"""What the rules, mutes and silences make of what has happened: the verdicts that all else reads.

Messages are made of them, and explain, backtest and the [[test]]s of rules.toml show them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from bridge.decide.rules.gates import Gates
from bridge.decide.rules.levels import Alarm, Staying, overdue, recoveries
from bridge.decide.rules.matching import Matcher, Verdict
from bridge.model import Transition


def judge(transition: Transition, matcher: Matcher, gates: Gates, alarms: Iterable[Alarm] = ()) -> list[Verdict]:
    """Return the verdicts of the rules that fire for a transition; a silent one is matched by none.

    `alarms` are those of the time in state that it ends; what recovers from them comes last.
    """
    if transition.silent:
        return []
    fired, facts = matcher.match(transition), matcher.facts(transition)
    edges = [gates.held(verdict, facts) for verdict in fired]
    notified = [
        name for verdict in edges if not verdict.rule.group for name in verdict.notifiers if not verdict.drops(name)
    ]
    return edges + [gates.held(verdict, facts) for verdict in recoveries(alarms, matcher, notified)]


def judge_overdue(staying: Staying, matcher: Matcher, gates: Gates, now: datetime) -> list[Verdict]:
    """Return the verdicts of the level rules that have something new to notify of."""
    verdicts = list(overdue(staying, matcher, now))
    return gates_at(verdicts, staying, matcher, gates, now) if verdicts else []


def gates_at(
    verdicts: Iterable[Verdict], staying: Staying, matcher: Matcher, gates: Gates, now: datetime
) -> list[Verdict]:
    """Return verdicts on a time in state with what holds their messages back."""
    facts = matcher.facts(replace(staying.began, seen_at=now))
    return [gates.held(verdict, facts) for verdict in verdicts]
