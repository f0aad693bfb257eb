"""What a silence would have done: which of the messages that there were it matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bridge.decide.rules.conditions import Facts
from bridge.decide.rules.gates import Scope
from bridge.model import Transition

SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingResult:
    """A message that there was: the transition it was about, the rule that told it, to whom and when."""

    transition: Transition
    rule: str
    notifier: str
    told_at: datetime


@dataclass(slots=True)
class Preview:
    """The messages that a scope matches, counted by (rule, notifier); `newest` are the first few that were added."""

    scope: Scope
    queue_names: Mapping[str, str]
    since: datetime
    looked_at: int = 0
    cut: bool = False  # there were more than were looked at
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    newest: list[RoutingResult] = field(default_factory=list)

    def add(self, routings: Iterable[RoutingResult]) -> None:
        """Look at messages, the newest first."""
        for one in routings:
            self.looked_at += 1
            if self.scope.holds(Facts(one.transition, self.queue_names), one.rule, one.notifier):
                self.counts[one.rule, one.notifier] += 1
                if len(self.newest) < SHOWN:
                    self.newest.append(one)

    @property
    def matched(self) -> int:
        return self.counts.total()
