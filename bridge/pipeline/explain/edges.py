"""What each edge rule says to a transition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.decide.archive import Ruleset
from bridge.decide.matching import Rule, Verdict
from bridge.model import Transition

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Edge:
    """A verdict. `stopped`: the rule was not asked; `misses` is then what it would have said no to."""

    verdict: Verdict
    stopped: bool
    misses: Sequence[str]

    @property
    def rule(self) -> Rule:
        return self.verdict.rule

    @property
    def fired(self) -> bool:
        return self.verdict.why_not is None

    def facts(self) -> Facts:
        return {
            "rule": self.rule.name,
            "line": self.rule.line,
            "matches": self.fired,
            "answer": "fired" if self.fired else "stopped" if self.stopped else "no",
            "why_not": self.verdict.why_not,
            "misses": len(self.misses),
            "notifiers": list(self.verdict.notifiers),
            "already_told": list(self.verdict.already),
        }


def edges_of(step: Transition, ruleset: Ruleset) -> list[Edge]:
    """Return what every edge rule says, top to bottom; when all say no, the nearest miss first."""
    found = list(_asked(step, ruleset))
    if not any(one.fired for one in found):
        found.sort(key=lambda one: _distance(one, step))
    return found


def _asked(step: Transition, ruleset: Ruleset) -> Iterator[Edge]:
    facts, stopped = ruleset.matcher.facts(step), False
    for verdict in ruleset.matcher.explain(step):
        fired = verdict.why_not is None
        yield Edge(verdict, stopped, () if fired else tuple(verdict.rule.misses(facts)))
        stopped = stopped or (fired and verdict.rule.stop)


def _distance(one: Edge, step: Transition) -> tuple[int, bool]:
    # Of two that miss by as much, the one about this change is rather what a person means.
    return len(one.misses), step.to not in one.rule.to or step.was not in one.rule.was


def tells(step: Transition, ruleset: Ruleset) -> list[Facts]:
    """Return which rules tell whom of a transition."""
    fired = ruleset.matcher.match(step)
    return [{"rule": one.rule.name, "notifiers": list(one.notifiers)} for one in fired if one.notifiers]
