"""Rules over several jobs on made-up or past transitions, all in memory: which incidents there would be.

It is the same judgement as at the end of a poll, as if each look were a poll that sees everything.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from bridge.decide.rules.incidents import (
    Absence,
    Backlog,
    Course,
    FanIn,
    Gathered,
    Threshold,
    completion,
    deadline,
    follow,
    follow_absence,
    is_of_last,
    is_of_next,
    key_of,
    settles_at,
    still_counting,
)
from bridge.decide.rules.joining import Joined, incident_job, joined
from bridge.decide.rules.levels import TimeInState
from bridge.decide.rules.matching import Matcher, Rule
from bridge.decide.rules.rulebook import Ruleset
from bridge.model import CLOSED, IncidentJob, IncidentKey, Transition

_By = tuple[tuple[str, str], ...]
_Place = tuple[str, str]  # a job's bucket and id


class _Overdue(NamedTuple):
    """A job that is in a state too long for a rule, unless it has moved on from the transition of this number."""

    rule: str
    place: _Place
    sequence: int


class Step(NamedTuple):
    """What becomes of an incident, when that happened and when it was seen, and whom it is sent to."""

    event: Literal["opened", "escalated", "closed", "completed", "failed"]
    rule: Rule
    key: IncidentKey
    generation: int
    happened_at: datetime
    seen_at: datetime
    notifiers: Sequence[str]
    about: Transition | None  # of the job that opened it, or its last one


@dataclass(slots=True, kw_only=True)
class _Watched:
    """One key of a rule, as `bridge.model.Incident` has it."""

    rule: Rule
    key: IncidentKey
    by: _By
    since: datetime
    generation: int = 1
    jobs: dict[_Place, IncidentJob] = field(default_factory=dict)
    transitions: dict[_Place, Transition] = field(default_factory=dict)  # theirs
    told: tuple[str, ...] = ()
    opened_at: datetime | None = None
    notified_at: datetime | None = None
    escalated: bool = False
    last_at: datetime | None = None
    expected: int | None = None
    judged: int = 0

    @property
    def in_order(self) -> list[IncidentJob]:
        return sorted(self.jobs.values(), key=lambda job: (job.happened_at, job.n))

    def keep(self, jobs: dict[_Place, IncidentJob]) -> None:
        self.jobs = jobs
        self.transitions = {place: step for place, step in self.transitions.items() if place in jobs}

    @property
    def is_news(self) -> bool:
        return not all(job.silent for job in self.jobs.values())


class Incidents:
    """Feed it transitions in the order in which they were seen, and look before and after those of one moment.

    `since` is from when on absences are watched, where `began` does not say it of their rule.
    """

    def __init__(
        self, rules: Ruleset, *, since: datetime, began: Mapping[str, datetime] = MappingProxyType({})
    ) -> None:
        self._matcher: Matcher = rules.matcher
        self._zone: ZoneInfo = rules.zone
        self._rules = {rule.name: rule for rule in rules.rules if rule.incident}
        self._backlogs = [(rule, rule.incident) for rule in self._rules.values() if isinstance(rule.incident, Backlog)]
        self._watched: dict[IncidentKey, _Watched] = {}
        self._closed: dict[IncidentKey, tuple[_Watched, datetime]] = {}  # the last one of each key
        self._in_state: dict[_Place, Transition] = {}  # jobs that may be in a backlog
        self._memberships: dict[_Place, set[IncidentKey]] = defaultdict(set)  # of backlogs and fan-ins
        self._changed: set[IncidentKey] = set()  # to be judged with the next look
        self._waiting: set[IncidentKey] = set()  # for another rule's incident to close
        # A heap of what time alone may change, with when, and a number that tells those of one time apart.
        self._due: list[tuple[datetime, int, IncidentKey | _Overdue]] = []
        self._fed = self._pushed = 0
        for rule in self._rules.values():
            if isinstance(rule.incident, Absence) and not rule.by:
                self._watch(rule, key_of(rule.name, ()), (), began.get(rule.name, since))

    def feed(self, transition: Transition) -> None:
        """Take note of a transition; what follows from it is judged with the next look."""
        place = (transition.job.bucket, transition.job.id)
        if self._backlogs:
            self._note_state(transition, place)
        for one in joined(transition, self._matcher):
            self._join(one, place, transition)

    def look(self, now: datetime) -> Iterator[Step]:
        """Yield what becomes of incidents until now, in the order in which looks would find it."""
        while self._due and self._due[0][0] <= now:
            moment = self._due[0][0]
            while self._due and self._due[0][0] == moment:
                self._is_due(heapq.heappop(self._due)[2], moment)
            yield from self._judge_changed(moment)
        yield from self._judge_changed(now)

    def is_open(self, rule: str, by: Mapping[str, str]) -> bool:
        """Tell whether a rule has an open incident for the key that these values make."""
        other = self._rules.get(rule)
        if other is None or not set(other.by) <= by.keys():
            return False
        watched = self._watched.get(key_of(rule, tuple((name, by[name]) for name in other.by)))
        return watched is not None and watched.opened_at is not None

    def generation(self, key: IncidentKey) -> int | None:
        """Return that of what is watched or open of a key."""
        watched = self._watched.get(key)
        return watched.generation if watched else None

    def settling(self, transition: Transition) -> Iterator[IncidentKey]:
        """Yield the fan-ins of a job that only time is to complete, and had by when this was seen."""
        for one in joined(transition, self._matcher):
            watched, spec = self._watched.get(one.key), one.rule.incident
            if watched and watched.jobs and isinstance(spec, FanIn):
                due = settles_at(spec, self._gathered(watched))
                if due and due <= transition.seen_at:
                    yield one.key

    def is_open_for(self, rule: str, transition: Transition) -> bool:
        """Tell whether a rule has an open incident for the key of a job."""
        other = self._rules.get(rule)
        by = self._matcher.facts(transition).key(other.by) if other else ""
        return not isinstance(by, str) and self.is_open(rule, dict(by))

    def _watch(self, rule: Rule, key: IncidentKey, by: _By, since: datetime) -> _Watched:
        last = self._closed.get(key)
        watched = _Watched(rule=rule, key=key, by=by, since=since, generation=last[0].generation + 1 if last else 1)
        self._watched[key] = watched
        self._changed.add(key)
        return watched

    def _push(self, due: datetime, what: IncidentKey | _Overdue) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (due, self._pushed, what))

    def _is_due(self, what: IncidentKey | _Overdue, now: datetime) -> None:
        if isinstance(what, IncidentKey):
            self._changed.add(what)
            return
        began = self._in_state.get(what.place)
        if began is not None and began.sequence == what.sequence:
            self._join_backlog(self._rules[what.rule], began, now)

    def _judge_changed(self, now: datetime) -> Iterator[Step]:
        keys, self._changed = self._changed | self._waiting, set()
        found = [self._watched[key] for key in sorted(keys) if key in self._watched]
        for watched in sorted(found, key=lambda one: one.rule.unless is not None):
            yield from self._judge(watched, now)
            if (current := self._watched.get(watched.key)) and (due := self._next_due(current, now)):
                self._push(due, current.key)

    def _next_due(self, watched: _Watched, now: datetime) -> datetime | None:
        """Return when time alone may change something about a key."""
        rule, times = watched.rule, list[datetime]()
        told_at = watched.notified_at or (watched.since if isinstance(rule.incident, FanIn) else None)
        if rule.escalate and told_at and not watched.escalated:
            times.append(told_at + rule.escalate.after)
        match rule.incident:
            case Absence() as spec if not watched.opened_at:
                times.append(deadline(spec, watched.last_at or watched.since, self._zone))
            case Threshold(within=quiet) | Backlog(after=quiet) if quiet and watched.last_at and watched.opened_at:
                times.append(watched.last_at + quiet)
            case FanIn() as spec if watched.jobs and (due := settles_at(spec, self._gathered(watched))):
                times.append(due)
        return min((time for time in times if time > now), default=None)

    # --- joining ----------------------------------------------------------------------------------------------

    def _join(self, one: Joined, place: _Place, transition: Transition) -> None:
        self._fed += 1
        job, key = replace(one.job, n=self._fed), one.key
        is_fan_in, last = isinstance(one.rule.incident, FanIn), self._closed.get(key)
        # A job counts once; a closed incident only learns what became of it, or what is seen late.
        if last and (place in last[0].jobs or _is_of_last(one, last)):
            last[0].jobs[place] = job
            return
        watched = self._watched.get(key) or self._watch(one.rule, key, one.by, transition.seen_at)
        if is_fan_in:
            self._leave(place, [other for other in self._memberships[place] if other.rule == key.rule and other != key])
            self._memberships[place].add(key)
        if is_fan_in or place not in watched.jobs:
            self._note_job(watched, place, job, transition)
        if one.expected:
            watched.expected = max(one.expected, watched.expected or 0)
        self._changed.add(key)

    def _note_job(self, watched: _Watched, place: _Place, job: IncidentJob, transition: Transition) -> None:
        watched.jobs[place], watched.transitions[place] = job, transition

    def _note_state(self, transition: Transition, place: _Place) -> None:
        """Let a job leave the backlogs of the state before, and note when it will be too long in this one."""
        self._in_state[place] = transition
        if transition.to in CLOSED:
            del self._in_state[place]
        specs = {rule.name: spec for rule, spec in self._backlogs}
        mine = [key for key in self._memberships[place] if key.rule in specs]
        self._leave(place, [key for key in mine if transition.to not in specs[key.rule].states])
        for rule, spec in self._backlogs:
            if transition.to in spec.states:
                due = TimeInState(began=transition).since + spec.after
                what = _Overdue(rule.name, place, transition.sequence)
                self._push(max(due, transition.seen_at), what)

    def _leave(self, place: _Place, keys: Sequence[IncidentKey]) -> None:
        for key in keys:
            self._memberships[place].discard(key)
            if watched := self._watched.get(key):
                watched.jobs.pop(place, None)
                self._changed.add(key)

    def _join_backlog(self, rule: Rule, began: Transition, now: datetime) -> None:
        facts = self._matcher.facts(replace(began, seen_at=now), in_state=True)
        by = facts.key(rule.by)
        if isinstance(by, str) or any(condition.why_not(facts) for condition in rule.conditions):
            return
        key, place = key_of(rule.name, by), (began.job.bucket, began.job.id)
        watched = self._watched.get(key) or self._watch(rule, key, by, now)
        if place not in watched.jobs:
            self._note_job(watched, place, incident_job(began), began)
        self._memberships[place].add(key)
        self._changed.add(key)

    # --- judging ----------------------------------------------------------------------------------------------

    def _judge(self, watched: _Watched, now: datetime) -> Iterator[Step]:
        match watched.rule.incident:
            case Threshold() | Absence():
                yield from self._judge_times(watched, now)
            case Backlog() as spec:
                yield from self._judge_backlog(watched, spec, now)
            case FanIn() as spec if watched.jobs:
                ended = completion(spec, self._gathered(watched), known_to=now)
                if ended:
                    yield from self._complete(watched, ended, now)
        if self._watched.get(watched.key) is watched:
            yield from self._escalate(watched, now)

    def _judge_backlog(self, watched: _Watched, spec: Backlog, now: datetime) -> Iterator[Step]:
        exceeds = spec.limit.holds(len(watched.jobs))
        watched.last_at = None if exceeds else watched.last_at or now
        if watched.opened_at and watched.last_at and watched.last_at + spec.after <= now:
            yield from self._close(watched, watched.last_at + spec.after, now)
        elif not watched.opened_at and exceeds and watched.is_news and not self._waits(watched):
            yield self._open(watched, now, now)

    def _judge_times(self, watched: _Watched, now: datetime) -> Iterator[Step]:
        course = self._course(watched, now)
        opens = bool(course.opened_at and not watched.opened_at)
        if opens and self._waits(watched):
            watched.last_at = course.closed_at or course.last_at
            return
        watched.last_at, watched.judged = course.last_at, self._fed
        if opens and course.opened_at:
            yield self._open(watched, course.opened_at, now, course.by)
        if course.closed_at:
            yield from self._close(watched, course.closed_at, now)
        elif watched.opened_at is None and isinstance(watched.rule.incident, Threshold):
            kept = {job.n for job in still_counting(watched.rule.incident, watched.in_order, now)}
            watched.keep({place: job for place, job in watched.jobs.items() if job.n in kept})
            if not kept:
                del self._watched[watched.key]

    def _course(self, watched: _Watched, now: datetime) -> Course:
        spec, opened_at = watched.rule.incident, watched.opened_at
        if isinstance(spec, Absence):
            last_at = watched.last_at or watched.since
            jobs = [job for job in watched.in_order if job.happened_at > last_at]
            return follow_absence(spec, jobs, opened_at=opened_at, last_at=last_at, known_to=now, zone=self._zone)
        assert isinstance(spec, Threshold)  # noqa: S101 - as the caller has asked
        jobs = [job for job in watched.in_order if opened_at is None or spec.last or job.n > watched.judged]
        judged = watched.judged if opened_at else 0
        return follow(spec, jobs, opened_at=opened_at, last_at=watched.last_at or opened_at, judged=judged, as_of=now)

    def _gathered(self, watched: _Watched) -> Gathered:
        states: dict[str, int] = {}
        for job in watched.jobs.values():
            states[job.state] = states.get(job.state, 0) + 1
        spec = watched.rule.incident
        again = watched.generation > 1 and isinstance(spec, FanIn) and spec.expect
        last_at = max(job.happened_at for job in watched.jobs.values())
        return Gathered(states=states, expected=1 if again else watched.expected, last_at=last_at)

    def _waits(self, watched: _Watched) -> bool:
        waits = watched.rule.unless is not None and self.is_open(watched.rule.unless, dict(watched.by))
        (self._waiting.add if waits else self._waiting.discard)(watched.key)
        return waits

    # --- what an incident does --------------------------------------------------------------------------------

    def _open(self, watched: _Watched, opened_at: datetime, now: datetime, by: IncidentJob | None = None) -> Step:
        watched.opened_at, watched.notified_at = opened_at, now
        return self._step("opened", watched, opened_at, now, self._whom(watched, watched.rule.notify, by), by)

    def _whom(self, watched: _Watched, names: Sequence[str], by: IncidentJob | None = None) -> Sequence[str]:
        """Return whom an incident is sent to: the job that opened it, or its last one, picks."""
        step = _about(watched, by)
        facts = self._matcher.facts(step) if step else None
        found, unpicked = self._matcher.picked(names, watched.rule.name, facts)
        reached = [name for name in found if name not in unpicked or not unpicked[name].is_dead]
        watched.told = tuple(dict.fromkeys((*watched.told, *reached)))
        return found

    def _escalate(self, watched: _Watched, now: datetime) -> Iterator[Step]:
        escalate, is_fan_in = watched.rule.escalate, isinstance(watched.rule.incident, FanIn)
        began = watched.notified_at or (watched.since if is_fan_in and watched.is_news else None)
        if escalate and began and not watched.escalated and began + escalate.after <= now:
            watched.escalated, watched.opened_at = True, watched.opened_at or now
            yield self._step("escalated", watched, now, now, self._whom(watched, escalate.notify))

    def _close(self, watched: _Watched, closed_at: datetime, now: datetime) -> Iterator[Step]:
        rule = watched.rule
        if rule.recover and watched.notified_at and watched.notified_at < now:
            yield self._step("closed", watched, closed_at, now, watched.told)
        self._closed[watched.key] = (watched, closed_at)
        spec = rule.incident
        jobs = {
            place: job
            for place, job in watched.jobs.items()
            if isinstance(spec, Backlog) or (spec and is_of_next(spec, job.happened_at, closed_at))
        }
        del self._watched[watched.key]
        if jobs or isinstance(rule.incident, Absence):
            following = self._watch(rule, watched.key, watched.by, closed_at)
            following.transitions = watched.transitions
            following.keep(jobs)
            yield from self._judge(following, now)

    def _complete(self, watched: _Watched, ended: Literal["completed", "failed"], now: datetime) -> Iterator[Step]:
        rule = watched.rule
        if watched.is_news:
            ended_at, told = self._gathered(watched).last_at, watched.told
            whom = dict.fromkeys((*self._whom(watched, rule.notify), *told))
            yield self._step(ended, watched, ended_at, now, tuple(whom))
        self._closed[watched.key] = (watched, self._gathered(watched).last_at)
        del self._watched[watched.key]

    @staticmethod
    def _step(
        event: Literal["opened", "escalated", "closed", "completed", "failed"],
        watched: _Watched,
        happened_at: datetime,
        now: datetime,
        notifiers: Sequence[str],
        by: IncidentJob | None = None,
    ) -> Step:
        about = _about(watched, by)
        return Step(event, watched.rule, watched.key, watched.generation, happened_at, now, notifiers, about)


def _about(watched: _Watched, by: IncidentJob | None) -> Transition | None:
    """Return the transition of the job that opened an incident, or its last one."""
    job = by or next(iter(watched.in_order[-1:]), None)
    return watched.transitions.get((job.bucket, job.job_id)) if job else None


def _is_of_last(one: Joined, last: tuple[_Watched, datetime]) -> bool:
    (watched, closed_at), spec = last, one.rule.incident
    total, expected = len(watched.jobs), watched.expected
    at = one.job.happened_at
    return spec is not None and is_of_last(spec, at, closed_at=closed_at, total=total, expected=expected)
