"""Level rules: what each of them says to a job's time in a state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from bridge.decide.rules.matching import Answer, Facts, LevelEvent, Matcher, Rule, Verdict, stopped
from bridge.decide.text.times import human
from bridge.model import GONE, NEW, SUBMITTED, Alarm, Transition

GONE_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeInState:
    """A job in a state: the transition that began it, with the job as it is now, and the alarms so far."""

    began: Transition
    alarms: Mapping[str, Alarm] = field(default_factory=dict)  # by rule

    @property
    def since(self) -> datetime:
        """When it entered the state, by CI's clock where that can be meant.

        The times of a job that was paused or that came back are those of its first start: when it was seen counts.
        """
        step = self.began
        return step.happened_at if step.was in (NEW, SUBMITTED) else step.seen_at


def evaluate_time_in_state(
    time: TimeInState, matcher: Matcher, now: datetime, rules: Sequence[Rule]
) -> Iterator[Verdict]:
    """Yield what each of these level rules says now, top to bottom."""
    facts = matcher.facts(replace(time.began, seen_at=now), in_state=True)
    stops: Rule | None = None
    for rule in rules:
        verdict = stopped(rule, stops) if stops else matcher.with_picks(_evaluated(time, rule, facts, now), facts)
        yield verdict
        if verdict.fired and rule.stop:
            stops = rule


def _evaluated(time: TimeInState, rule: Rule, facts: Facts, now: datetime) -> Verdict:
    level, began, since = rule.level, time.began, time.since
    if (why_not := rule.why_not(facts)) or level is None:
        return Verdict(rule=rule, answer=Answer.NO, why_not=why_not)
    due = since + level.after
    if began.silent and due <= began.seen_at:  # it was so before anybody looked
        return Verdict(rule=rule, answer=Answer.NO, why_not=f"the first snapshot found it so, {began.to} for too long")
    if now < due:
        lasted = human(max(0.0, (now - since).total_seconds()))
        why_not = f"{began.to} for {lasted}, which is less than {human(level.after.total_seconds())}"
        return Verdict(rule=rule, answer=Answer.WAITING, why_not=why_not)
    if began.to == GONE and now > due + GONE_FOR:
        return Verdict(rule=rule, answer=Answer.NO, why_not="gone for a day longer than `for` says")
    count = (now - due) // level.repeat if level.repeat else 0
    level_event = LevelEvent(state=began.to, since=since, after=level.after, count=count)
    return Verdict(rule=rule, answer=Answer.FIRED, notifiers=rule.notify, level_event=level_event)


def firing_levels(time: TimeInState, matcher: Matcher, now: datetime) -> list[Verdict]:
    """Return the verdicts of the level rules that fire now, repetitions or not."""
    since = time.since
    # A rule whose time is not over cannot fire: it is not asked, as there may be many jobs and many rules.
    due = [rule for rule in matcher.levels_for(time.began) if rule.level and since + rule.level.after <= now]
    return [verdict for verdict in evaluate_time_in_state(time, matcher, now, due) if verdict.fired] if due else []


def newly_overdue(time: TimeInState, matcher: Matcher, now: datetime) -> Iterator[Verdict]:
    """Yield what there is to notify of now: once for each rule and time in state, and once more for each repetition.

    Repetitions stand on a grid that begins with the first; a rule whose `repeat` was made longer meanwhile comes next
    that much after the last one.
    """
    for verdict in firing_levels(time, matcher, now):
        rule, level_event = verdict.rule, verdict.level_event
        last, repeat = time.alarms.get(rule.name), rule.level.repeat if rule.level else None
        if last is None:
            yield verdict
        elif level_event and (level_event.count > last.count or (repeat and now >= last.last_at + repeat)):
            yield replace(
                verdict, level_event=replace(level_event, count=max(level_event.count, last.count + 1), again=True)
            )


def recoveries(alarms: Iterable[Alarm], matcher: Matcher, notified: Iterable[str]) -> Iterator[Verdict]:
    """Yield what rules with `recover` say to the transition that ends these alarms.

    Whoever the alarm was for hears of its end, except who is `notified` of the transition anyway.
    """
    seen = set(notified)
    for alarm in alarms:
        rule = next((rule for rule in matcher.levels if rule.name == alarm.rule), None)
        if rule and rule.level and rule.level.recover:
            names = tuple(name for name in alarm.notifiers if name not in seen)
            level_event = LevelEvent(state=alarm.state, since=alarm.since, after=rule.level.after, recovered=True)
            yield Verdict(rule=rule, answer=Answer.FIRED, notifiers=names, level_event=level_event)
            seen.update(alarm.notifiers)
