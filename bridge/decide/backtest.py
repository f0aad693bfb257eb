"""What other rules would have made of what has happened: told, held or dropped, beside what was."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from heapq import heappop, heappush
from zoneinfo import ZoneInfo

from bridge.decide.archive import Ruleset
from bridge.decide.calendar import next_at
from bridge.decide.comparing import FIRST, Fired, Happened, Line, Said, Tally
from bridge.decide.conditions import Facts
from bridge.decide.levels import Staying, fitting
from bridge.decide.matching import Rule
from bridge.decide.mutes import Gates, Mute
from bridge.model import Rate, Silence, Transition

_NEVER = datetime.min.replace(tzinfo=UTC)
_FOR_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Window:
    """The window of a throttle: what has passed of what came since it was opened."""

    opened_at: datetime
    due_at: datetime
    passed: int = 0


class Throttles:
    """The windows of throttles, as `record.digests` keeps them. `standing` are those that were open at the start."""

    def __init__(self, standing: Mapping[tuple[str, str], Window]) -> None:
        self._standing = dict(standing)
        self._windows = dict(standing)

    def forget_others(self) -> None:
        """Close the windows that were not open at the start: those of a run-up that began within one."""
        self._windows = {key: one for key, one in self._windows.items() if self._standing.get(key) is one}

    def passes(self, rule: str, rate: Rate, notifier: str, now: datetime) -> bool:
        """Book a message; tell whether it passes."""
        key = (rule, notifier)
        window = self._windows.get(key)
        if window is not None and now < window.opened_at and self._standing.get(key) is window:
            return True  # a run-up may begin in the window before it
        if window is None or window.due_at <= now:
            window = self._windows[key] = Window(now, now + rate.per)
        if window.passed >= rate.count:
            return False
        window.passed += 1
        return True


class _Quiet:
    """The mutes and silences of each moment, worked out anew only when one begins or ends."""

    def __init__(self, mutes: Sequence[Mute], silences: Sequence[Silence], zone: ZoneInfo) -> None:
        self.drops = any(mute.drop for mute in mutes) or any(silence.drop for silence in silences)
        self._mutes = mutes
        self._silences = silences
        self._zone = zone
        self._from, self._until = _FOR_EVER, _NEVER
        self._gates = Gates(mutes=(), silences=(), zone=zone, now=_NEVER)

    def at(self, now: datetime) -> Gates:
        if not self._from <= now < self._until:
            self._gates, self._from, self._until = self.of(now), now, min(self._changes(now), default=_FOR_EVER)
        return self._gates

    def of(self, now: datetime) -> Gates:
        return Gates(mutes=self._mutes, silences=self._silences, zone=self._zone, now=now)

    def _changes(self, now: datetime) -> Iterator[datetime]:
        for silence in self._silences:
            yield from (edge for edge in (silence.begins_at, silence.ends_at) if edge > now)
        for mute in self._mutes:
            yield mute.window.ends(now, self._zone) or next_at(mute.window.start, after=now, zone=self._zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alarm:
    """A level rule that fires for a stay."""

    rule: Rule
    began: Transition
    fired: Fired
    is_count_known: bool
    before: Mapping[str, Said]  # notifier -> what it was told


class Replay:
    """Puts what happened through other rules, in order. `feed` each, then `finish`; `tally` has the result.

    A level rule's message is judged when it fires: `in_force` says of which rules the moment on record is the right
    one; of others it is the moment when the stay becomes too long, as if there were a poll just then.
    """

    def __init__(
        self,
        rules: Ruleset,
        *,
        in_force: Ruleset,
        silences: Sequence[Silence] = (),
        standing: Mapping[tuple[str, str], Window] | None = None,
        first: int = FIRST,
    ) -> None:
        self.tally = Tally(most=first)
        self._matcher = rules.matcher
        self._quiet = _Quiet(rules.mutes, silences, rules.zone)
        self._throttles = Throttles(standing or {})
        levels = {rule.name: rule.level for rule in in_force.matcher.levels}
        self._unchanged = {rule.name for rule in rules.matcher.levels if rule.level == levels.get(rule.name)}
        self._same_mutes = rules.mutes == in_force.mutes
        self._places = {rule.name: place for place, rule in enumerate(rules.matcher.levels)}
        self._due: list[tuple[datetime, int, _Alarm]] = []  # a heap; the number decides between equal moments
        self._numbers = itertools.count()
        self._over: dict[tuple[str, str, int], list[_Alarm]] = {}  # by the transition that ends the stay

    def run_up(self, step: Transition) -> None:
        """Book what came before the start with the throttles."""
        if not step.silent:
            self._edges(step)

    def begin(self) -> None:
        """The run-up is over."""
        self._throttles.forget_others()

    def feed(self, happened: Happened) -> None:
        step = happened.transition
        self._tell_due(step.seen_at)
        alarms = self._over.pop((step.job.bucket, step.job.id, step.sequence), None)
        if not step.silent:
            fates, heard = self._edges(step)
            if happened.is_known:
                self._compare(step, "transition", happened.told, fates)
            else:
                self.tally.unknown += 1
        if alarms is not None:
            fates = self._recoveries(step, alarms, heard if not step.silent else set())
            loose = {alarm.rule.name for alarm in alarms if alarm.rule.throttle}
            self._compare(step, "recovery", happened.told, fates, loose)
        self._begin_stay(happened)

    def finish(self) -> Tally:
        self._tell_due(_FOR_EVER)
        return self.tally

    def _edges(self, step: Transition) -> tuple[dict[Line, str], set[str]]:
        """Return what becomes of a transition's messages, and who hears of it by itself, be it later."""
        facts, fates, heard = self._matcher.facts(step), {}, set[str]()
        for verdict in self._matcher.match(step):
            for name in verdict.notifiers:
                fate = self._fate(facts, verdict.rule, name, step.seen_at)
                fates["transition", verdict.rule.name, name] = fate
                if fate != "dropped" and not verdict.rule.group:
                    heard.add(name)
        return fates, heard

    def _fate(self, facts: Facts, rule: Rule, name: str, now: datetime) -> str:
        """Ask the gates in the order of `Gates.hold` and the outbox, less when a digest will be told."""
        if hold := self._quiet.at(now).quiet(facts, rule.name, name):
            return "dropped" if hold.drop else hold.gate
        if rule.group:
            return "group"
        if rule.throttle and not self._throttles.passes(rule.name, rule.throttle, name, now):
            return "throttle"
        return "told"

    def _compare(
        self,
        step: Transition,
        kind: str,
        told: Mapping[Line, str],
        fates: Mapping[Line, str],
        loose: Collection[str] = (),
    ) -> None:
        for line in {**told, **fates}:
            if line[0] == kind:
                before, after = (Said(one[line]) if line in one else None for one in (told, fates))
                self.tally.add(step, line, before, after, loose=line[1] in loose)

    # --- stays ------------------------------------------------------------------------------------------------

    def _begin_stay(self, happened: Happened) -> None:
        step = happened.transition
        told = {line: fate for line, fate in happened.told.items() if line[0] == "level"}
        levels = [rule for rule in self._matcher.levels_for(step) if rule.level and step.to in rule.level.states]
        if not (levels or told):
            return
        if not happened.is_stay_known:
            self.tally.unknown_stays += 1
            return
        alarms = self._alarms(happened, levels)
        for alarm in alarms:
            heappush(self._due, (alarm.fired.first_at, next(self._numbers), alarm))
        fires = {("level", alarm.rule.name, name) for alarm in alarms for name in alarm.rule.notify}
        for line in told.keys() - fires:
            self.tally.add(step, line, _said(happened, line), None)
        if happened.has_ended and (alarms or told):
            self._over[step.job.bucket, step.job.id, step.sequence + 1] = alarms

    def _alarms(self, happened: Happened, levels: Iterable[Rule]) -> list[_Alarm]:
        """Return the level rules that fire, in that order: asked when the stay becomes too long for each of them."""
        step, still_at = happened.transition, happened.still_at
        staying = Staying(began=step)
        after = [staying.since + rule.level.after for rule in levels if rule.level]
        moments = {min(max(one, step.seen_at), still_at) for one in after if one <= still_at} if still_at else set()
        first: dict[str, tuple[Rule, datetime]] = {}
        counts: dict[str, int] = {}
        for moment in sorted({*moments, still_at} if still_at and moments else ()):
            for rule, stay in fitting(staying, self._matcher, moment):
                first.setdefault(rule.name, (rule, moment))
                if moment == still_at:
                    counts[rule.name] = stay.count
        alarms = [self._alarm(happened, rule, moment, counts.get(rule.name)) for rule, moment in first.values()]
        return sorted(alarms, key=lambda one: (one.fired.first_at, self._places[one.rule.name]))

    def _alarm(self, happened: Happened, rule: Rule, moment: datetime, count: int | None) -> _Alarm:
        fired = happened.fired.get(rule.name) if rule.name in self._unchanged else None
        if fired is None:
            repeat = rule.level.repeat if rule.level else None
            fired = Fired(
                count=count or 0, first_at=moment, last_at=moment + (count or 0) * repeat if repeat else moment
            )
        before = {name: said for name in rule.notify if (said := _said(happened, ("level", rule.name, name)))}
        fired = replace(fired, count=count or 0)
        return _Alarm(
            rule=rule, began=happened.transition, fired=fired, is_count_known=count is not None, before=before
        )

    def _tell_due(self, now: datetime) -> None:
        while self._due and self._due[0][0] <= now:
            moment, _, alarm = heappop(self._due)
            facts = self._matcher.facts(replace(alarm.began, seen_at=moment))
            for name in alarm.rule.notify:
                fate = self._fate(facts, alarm.rule, name, moment)
                after = Said(fate, alarm.fired.count if alarm.is_count_known else None)
                line, loose = ("level", alarm.rule.name, name), alarm.rule.throttle is not None
                self.tally.add(alarm.began, line, alarm.before.get(name), after, loose=loose)

    def _recoveries(self, step: Transition, alarms: Iterable[_Alarm], heard: set[str]) -> dict[Line, str]:
        facts, fates = self._matcher.facts(step), {}
        for alarm in alarms:
            if alarm.rule.level and alarm.rule.level.recover:
                names = self._hearers(alarm)
                for name in names:
                    if name not in heard:
                        fates["recovery", alarm.rule.name, name] = self._fate(facts, alarm.rule, name, step.seen_at)
                heard.update(names)
        return fates

    def _hearers(self, alarm: _Alarm) -> Sequence[str]:
        """Return who hears when it is over: whom not every message was kept from for good.

        Of those between the first and the last the moments are not on record, but whom they told.
        """
        if not self._quiet.drops:
            return alarm.rule.notify
        on_record = alarm.fired.notifiers if self._same_mutes else ()
        moments = {alarm.fired.first_at, alarm.fired.last_at}
        reached = {*on_record, *(name for moment in moments for name in self._not_dropped(alarm, moment))}
        return [name for name in alarm.rule.notify if name in reached]

    def _not_dropped(self, alarm: _Alarm, moment: datetime) -> list[str]:
        gates, facts = self._quiet.of(moment), self._matcher.facts(replace(alarm.began, seen_at=moment))
        holds = ((name, gates.quiet(facts, alarm.rule.name, name)) for name in alarm.rule.notify)
        return [name for name, hold in holds if not (hold and hold.drop)]


def _said(happened: Happened, line: Line) -> Said | None:
    fate, fired = happened.told.get(line), happened.fired.get(line[1])
    return Said(fate, fired.count if fired else 0) if fate else None
