"""What other rules, or a silence, would make of what has happened: their verdicts, beside the deliveries on record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from bridge.decide.routing import evaluate
from bridge.decide.rules.gates import Gates, Scope
from bridge.decide.rules.levels import TimeInState, firing_levels
from bridge.decide.rules.matching import Facts, Kind, Rule, Verdict
from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.whatif.incidents import Incidents
from bridge.decide.whatif.replay_incidents import IncidentChange, IncidentReplay, PastNews
from bridge.model import Alarm, Hold, Silence, Transition

STATUSES = ("told", "group", "throttle", "mute", "silence", "dropped")
FIRST = 20  # differences that are kept, usually

Line = tuple[str, str, str]  # kind of message, rule, notifier


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTransition:
    """A transition on record, the deliveries of it and of the time in state that it began, and how long that lasted.

    `still_at` is the last poll that found the job in that state, None when none did. The deliveries may no longer be
    known in full (`is_known`), nor that poll (`is_time_known`): then nothing is compared.
    """

    transition: Transition
    messages: Mapping[Line, str]  # and what became of each
    alarms: Mapping[str, Alarm] = field(default_factory=dict)
    still_at: datetime | None = None
    has_ended: bool = False
    is_known: bool = True
    is_time_known: bool = True


@dataclass(frozen=True, slots=True)
class Status:
    """What becomes of a message, one of STATUSES; of a level rule's also how often it is repeated (None: not known)."""

    status: str
    repeats: int | None = 0

    def __str__(self) -> str:
        return f"{self.status}, repeated {self.repeats}x" if self.repeats else self.status


@dataclass(frozen=True, slots=True)
class Difference:
    about: Transition | IncidentChange
    line: Line
    before: Status | None
    after: Status | None


@dataclass(slots=True)
class Row:
    """The messages of one kind by one rule to one notifier; `after` are those of the rules that are tried."""

    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    added: int = 0
    removed: int = 0
    changed: int = 0


@dataclass(slots=True)
class Tally:
    """What a backtest comes to. `unknown`, `unknown_times` and `unknown_incidents` could not be compared."""

    most: int = FIRST  # differences that are kept
    rows: dict[Line, Row] = field(default_factory=dict)
    first: list[Difference] = field(default_factory=list)
    unknown: int = 0
    unknown_times: int = 0
    unknown_incidents: int = 0  # messages about incidents

    @property
    def differs(self) -> bool:
        return bool(self.first)

    def add(
        self,
        step: Transition | IncidentChange,
        line: Line,
        before: Status | None,
        after: Status | None,
        *,
        has_throttle: bool,
    ) -> None:
        """Count a message. Where its rule has a throttle, it is the same whether that held it or not."""
        row = self.rows.get(line) or self.rows.setdefault(line, Row())
        if before:
            row.before[before.status] += 1
        if after:
            row.after[after.status] += 1
        if before and after and _alike(before, after, has_throttle=has_throttle):
            return
        row.added += before is None
        row.removed += after is None
        row.changed += bool(before and after)
        if len(self.first) < self.most:
            self.first.append(Difference(step, line, before, after))


def _alike(before: Status, after: Status, *, has_throttle: bool) -> bool:
    same = before.status == after.status or (has_throttle and (before.status, after.status) == ("throttle", "told"))
    return same and (before.repeats == after.repeats or after.repeats is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overdue:
    """A level rule that fires for a time in state, and when; `repeats` is None when that is not known."""

    verdict: Verdict
    alarm: Alarm
    repeats: int | None


class Replay:
    """Puts what has happened through other rules: `feed` each transition in order, `tally` is what it comes to.

    Gates are those of the moment, from mutes, silences and `group`. What a throttle would hold depends on all that the
    outbox got before, so it counts as "told".

    A level rule's message is evaluated when the rule fires: where that rule is the same in force, this is the moment on
    record, else the one when the time is over, as if there were a poll just then.
    """

    def __init__(
        self, rules: Ruleset, *, in_force: Ruleset, silences: Sequence[Silence] = (), first: int = FIRST
    ) -> None:
        self.tally = Tally(most=first)
        self._rules = rules
        self._silences = silences
        self._throttled = {rule.name for rule in rules.rules if rule.throttle}
        levels = {rule.name: rule.level for rule in in_force.matcher.levels}
        self._unchanged = {rule.name for rule in rules.matcher.levels if rule.level == levels.get(rule.name)}
        self._same_mutes = rules.mutes == in_force.mutes
        self._waiting = {rule.name for all_ in (rules, in_force) for rule in all_.matcher.levels if rule.unless}
        self._alarms: dict[tuple[str, str, int], list[Alarm]] = {}  # by the transition that ends them

    def feed(self, past: PastTransition) -> None:
        step = past.transition
        alarms = self._alarms.pop((step.job.bucket, step.job.id, step.sequence), None)
        if step.inferred and alarms is not None:  # they end with the transition that was seen
            self._alarms[step.job.bucket, step.job.id, step.sequence + 1] = alarms
            alarms = None
        verdicts = evaluate(step, self._rules.matcher, self._gates(step.seen_at), alarms or ())
        if past.is_known:
            self._compare(past, "transition", _statuses(verdicts, "transition"))
        else:
            self.tally.unknown += 1
        if alarms is not None:
            self._compare(past, "recovery", _statuses(verdicts, "recovery"))
        if not step.inferred:
            self._feed_time_in_state(past)

    def incidents(self, *, since: datetime, began: Mapping[str, datetime]) -> IncidentReplay:
        """Return the replay of the rules over several jobs; `since` and `began` as of `Incidents`."""
        return IncidentReplay(self._rules, Incidents(self._rules, since=since, began=began), self._gates)

    def compare_incidents(self, replay: IncidentReplay, past: Iterable[PastNews], *, since: datetime) -> None:
        changes, self.tally.unknown_incidents = replay.changes(past, since=since)
        for change in changes:
            for name in {**change.before, **change.after}:
                before, after = (
                    Status(found[name]) if name in found else None for found in (change.before, change.after)
                )
                self.tally.add(change, ("incident", change.key.rule, name), before, after, has_throttle=False)

    def _gates(self, now: datetime) -> Gates:
        rules = self._rules
        pick_of = rules.matcher.pick_of
        return Gates(mutes=rules.mutes, silences=self._silences, zone=rules.zone, now=now, pick_of=pick_of)

    def _compare(self, past: PastTransition, kind: Kind, after: Mapping[Line, Status]) -> None:
        repeats = {rule: alarm.count for rule, alarm in past.alarms.items()} if kind == "level" else {}
        before = {
            line: Status(status, repeats.get(line[1], 0)) for line, status in past.messages.items() if line[0] == kind
        }
        for line in {**before, **after}:
            throttled = line[1] in self._throttled
            self.tally.add(past.transition, line, before.get(line), after.get(line), has_throttle=throttled)

    # --- time in state ----------------------------------------------------------------------------------------

    def _feed_time_in_state(self, past: PastTransition) -> None:
        step = past.transition
        rules = [rule for rule in self._rules.matcher.levels_for(step) if rule.level and step.to in rule.level.states]
        if not rules and not any(kind == "level" for kind, *_ in past.messages):
            return
        waits = self._waiting & (
            {rule.name for rule in rules} | {rule for kind, rule, _ in past.messages if kind == "level"}
        )
        if not past.is_time_known or waits:  # when another rule's incident was open is not on record
            self.tally.unknown_times += 1
            return
        fired = self._overdue(past, rules)
        after: dict[Line, Status] = {}
        for each in fired:
            after |= _statuses([each.verdict], "level", each.repeats)
        self._compare(past, "level", after)
        if past.has_ended:
            key = (step.job.bucket, step.job.id, step.sequence + 1)
            self._alarms[key] = [self._alarm(step, each) for each in fired]

    def _overdue(self, past: PastTransition, rules: Iterable[Rule]) -> list[_Overdue]:
        """Return the level rules that fire, in that order: asked when the time is over for each, and at the end."""
        step, still_at, time = past.transition, past.still_at, TimeInState(began=past.transition)
        if still_at is None:
            return []
        due = [at for rule in rules if rule.level and (at := time.since + rule.level.after) <= still_at]
        if not due:
            return []
        first: dict[str, tuple[Verdict, datetime]] = {}
        counts: dict[str, int] = {}
        for moment in sorted({*(min(max(at, step.seen_at), still_at) for at in due), still_at}):
            for verdict in firing_levels(time, self._rules.matcher, moment):
                first.setdefault(verdict.rule.name, (verdict, moment))
                if moment == still_at and verdict.level_event:
                    counts[verdict.rule.name] = verdict.level_event.count
        places = [rule.name for rule in self._rules.matcher.levels]
        found = [self._at_its_moment(past, *at, counts.get(name)) for name, at in first.items()]
        return sorted(found, key=lambda each: (each.alarm.fired_at, places.index(each.verdict.rule.name)))

    def _at_its_moment(self, past: PastTransition, verdict: Verdict, moment: datetime, count: int | None) -> _Overdue:
        rule = verdict.rule
        alarm = past.alarms.get(rule.name) if rule.name in self._unchanged else None
        if alarm is None:
            last_at = moment + (count or 0) * ((rule.level and rule.level.repeat) or timedelta())
            since = TimeInState(began=past.transition).since
            alarm = Alarm(rule=rule.name, since=since, count=count or 0, fired_at=moment, last_at=last_at)
        return _Overdue(verdict=self._held(past.transition, verdict, alarm.fired_at), alarm=alarm, repeats=count)

    def _held(self, began: Transition, verdict: Verdict, moment: datetime) -> Verdict:
        return self._gates(moment).held(
            verdict, self._rules.matcher.facts(replace(began, seen_at=moment), in_state=True)
        )

    def _alarm(self, began: Transition, each: _Overdue) -> Alarm:
        """Return an alarm with those who hear of its end: whom not every message was kept from for good.

        Of those between the first and the last the moments are not on record, but whom they were for.
        """
        first, last = each.verdict, self._held(began, each.verdict, each.alarm.last_at)
        on_record = each.alarm.notifiers if self._same_mutes else ()
        names = [name for name in first.notifiers if name in on_record or not (first.drops(name) and last.drops(name))]
        return replace(each.alarm, state=began.to, notifiers=names, since=TimeInState(began=began).since)


def _statuses(verdicts: Iterable[Verdict], kind: Kind, repeats: int | None = 0) -> dict[Line, Status]:
    return {
        (kind, verdict.rule.name, name): Status(_status(verdict.holds.get(name)), repeats)
        for verdict in verdicts
        if verdict.kind == kind
        for name in verdict.notifiers
    }


def _status(hold: Hold | None) -> str:
    if hold is None:
        return "told"
    return "dropped" if hold.drop else hold.gate


# --- what a silence would have done ---------------------------------------------------------------------------------

SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PastMessage:
    """A message on record: the transition it was about, the rule that sent it, to whom and when."""

    transition: Transition
    rule: str
    notifier: str
    sent_at: datetime


@dataclass(slots=True)
class Preview:
    """The messages that a scope matches, counted by (rule, notifier); `newest` are the first few that were added."""

    scope: Scope
    queue_names: Mapping[str, str]
    since: datetime
    pick_of: Mapping[str, str] = field(default_factory=dict)
    looked_at: int = 0
    cut: bool = False  # there were more than were looked at
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    newest: list[PastMessage] = field(default_factory=list)

    def add(self, messages: Iterable[PastMessage]) -> None:
        """Look at messages, the newest first."""
        for message in messages:
            self.looked_at += 1
            facts, pick = Facts(message.transition, self.queue_names), self.pick_of.get(message.notifier)
            if self.scope.holds(facts, message.rule, message.notifier, pick):
                self.counts[message.rule, message.notifier] += 1
                if len(self.newest) < SHOWN:
                    self.newest.append(message)

    @property
    def matched(self) -> int:
        return self.counts.total()
