"""Level rules: which of them a job's stay in a state has become too long for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from bridge.decide.events import Stay
from bridge.decide.matching import Matcher, Rule
from bridge.model import GONE, NEW, SUBMITTED, Transition

GONE_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class LastTold:
    """When a rule told of a stay the last time: the number of that repetition, and who has been told so far."""

    count: int
    at: datetime
    notifiers: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staying:
    """A job that is in a state: the transition that began it, with the job as it is now, and what was told of it."""

    began: Transition
    told: Mapping[str, LastTold] = field(default_factory=dict)  # by rule

    @property
    def since(self) -> datetime:
        """When it entered the state, by CI's clock where that can be meant.

        The times of a job that was paused or that came back are those of its first start: when it was seen counts.
        """
        step = self.began
        return step.happened_at if step.was in (NEW, SUBMITTED) else step.seen_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A level rule that fired for a stay in `state`, and whom it told."""

    rule: str
    state: str
    notifiers: Sequence[str]
    since: datetime


def fitting(staying: Staying, matcher: Matcher, now: datetime) -> Iterator[tuple[Rule, Stay]]:
    """Yield the level rules that hold now, top to bottom until one stops, each with the stay it would tell of."""
    facts = matcher.facts(replace(staying.began, seen_at=now))
    for rule in matcher.levels_for(staying.began):
        stay = stay_of(staying, rule, now)
        if stay is not None and rule.why_not(facts) is None:
            yield rule, stay
            if rule.stop:
                return


def stay_of(staying: Staying, rule: Rule, now: datetime) -> Stay | None:
    """Return the stay as a level rule tells of it, or None when it is not too long.

    What was too long already when a first snapshot found it is not told: it was so before anybody looked. Nor is a job
    that had been gone for too long for a day when a rule first asks.
    """
    level, since, began = rule.level, staying.since, staying.began
    if level is None or now < since + level.after or (began.silent and since + level.after <= began.seen_at):
        return None
    if began.to == GONE and now > since + level.after + GONE_FOR:
        return None
    count = (now - since - level.after) // level.repeat if level.repeat else 0
    return Stay(state=began.to, since=since, after=level.after, count=count)


def overdue(staying: Staying, matcher: Matcher, now: datetime) -> list[tuple[Rule, Stay]]:
    """Return what there is to tell now: once for each rule and stay, and once more for each repetition.

    Repetitions stand on a grid that begins with the first; a rule whose `repeat` was made longer meanwhile is next told
    that much after the last one.
    """
    found = []
    for rule, stay in fitting(staying, matcher, now):
        last, repeat = staying.told.get(rule.name), rule.level.repeat if rule.level else None
        if last is None:
            found.append((rule, stay))
        elif stay.count > last.count or (repeat and now >= last.at + repeat):
            found.append((rule, replace(stay, count=max(stay.count, last.count + 1), again=True)))
    return found
