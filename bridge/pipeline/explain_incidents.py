"""Does a job count for the rules over several jobs, and how do their incidents stand?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.decide.messages.incidents import Event, message_id
from bridge.decide.rules.incidents import (
    ALARM_FIELDS,
    Absence,
    Backlog,
    FanIn,
    Gathered,
    Threshold,
    counts,
    deadline,
    how_far,
    key_of,
    settles_at,
)
from bridge.decide.rules.joining import expected_jobs
from bridge.decide.rules.levels import TimeInState
from bridge.decide.rules.matching import Answer, Rule
from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.text.times import human, iso
from bridge.model import CLOSED, Incident, IncidentJob, IncidentKey, Transition
from bridge.record import incidents
from bridge.record.queries import explanations

Facts = dict[str, Any]
COUNTS, COMPARED = "counts", "compared"
_MOST_COUNTED = 1_000  # jobs that are looked through
_MOST_NAMED = 20  # of these, in JSON
_MOST_QUOTED = 5  # in a sentence
_EVENTS: Sequence[Event] = ("opened", "escalated", "closed", "completed", "failed")  # somebody may be notified of


@dataclass(frozen=True, slots=True)
class Membership:
    incident: Incident
    job: IncidentJob


@dataclass(slots=True)
class IncidentRecord:
    """What is on record of incidents; without `tx` nothing is."""

    tx: Connection | None
    now: datetime
    _of_jobs: dict[tuple[str, str], list[Membership]] = field(default_factory=dict)
    _newest: dict[IncidentKey, Incident | None] = field(default_factory=dict)
    _jobs: dict[int, list[IncidentJob]] = field(default_factory=dict)

    def memberships(self, bucket: str, job_id: str) -> list[Membership]:
        """Return for which incidents a job counts, the newest first."""
        if self.tx is None:
            return []
        key = (bucket, job_id)
        if key not in self._of_jobs:
            found = explanations.incidents_of_job(self.tx, bucket, job_id)
            self._of_jobs[key] = [Membership(incident, job) for incident, job in found]
        return self._of_jobs[key]

    def messages(self, bucket: str, job_id: str, sequence: int | None = None) -> list[str]:
        """Return the ids that the messages about a job's incidents have; of one transition, if a sequence is given."""
        return [
            message_id(one.incident.of, one.incident.generation, event)
            for one in self.memberships(bucket, job_id)
            if sequence in (None, one.job.sequence)
            for event in _EVENTS
        ]

    def newest(self, key: IncidentKey) -> Incident | None:
        """Return what is watched, open or closed last of a key."""
        if self.tx and key not in self._newest:
            self._newest[key] = explanations.newest_incident(self.tx, key)
        return self._newest.get(key)

    def jobs(self, incident: Incident) -> list[IncidentJob]:
        if self.tx and incident.n not in self._jobs:
            self._jobs[incident.n] = incidents.last_jobs(self.tx, incident.n, most=_MOST_COUNTED)
        return self._jobs.get(incident.n, [])

    def states(self, incident: Incident) -> dict[str, int]:
        found = incidents.counts(self.tx, [incident.n]).get(incident.n) if self.tx else None
        return found.states if found else {}


def explain_incidents(
    time: TimeInState, left_at: datetime | None, ruleset: Ruleset, record: IncidentRecord, *, is_sample: bool = False
) -> list[Facts]:
    """Return what each rule over several jobs says, top to bottom; then the incidents of rules that say no longer so.

    `left_at` is when the job left the state that `time` is about.
    """
    step = time.began
    known = record.memberships(step.job.bucket, step.job.id)
    told = _Asked(time, left_at, ruleset, record, known, is_sample)
    found = [told.of(rule) for rule in ruleset.matcher.incidents]
    listed = {one["incident"] for one in found}
    rest = [one for one in known if one.job.sequence == step.sequence and one.incident.id not in listed]
    return found + [told.of_other(one) for one in rest]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A transition, with the time in state that it began, and the rules that are asked about it."""

    time: TimeInState
    left_at: datetime | None
    rules: Ruleset
    record: IncidentRecord
    known: Sequence[Membership]
    is_sample: bool

    @property
    def step(self) -> Transition:
        return self.time.began

    def of(self, rule: Rule) -> Facts:
        answer, why, by = self._verdict(rule)
        if by is None:
            return self._facts(rule, rule.name, answer, why, by, None)
        key = key_of(rule.name, by)
        same = [one for one in self.known if one.incident.of == key]
        mine = next((one for one in same if self._is_of(rule, one)), None)
        if isinstance(rule.incident, Backlog):
            if mine is None and answer is Answer.NO:
                return self._facts(rule, rule.name, answer, why, None, None)
            answer, why = (COUNTS, self._why_overdue(rule.incident)) if mine else (answer, why)
        elif mine is None and not self.is_sample:
            answer, why = self._not_kept(rule, answer, why, same)
        incident = mine.incident if mine else self.record.newest(key)
        return self._facts(rule, rule.name, answer, why, by, incident)

    def _is_of(self, rule: Rule, one: Membership) -> bool:
        return isinstance(rule.incident, FanIn) or one.job.sequence == self.step.sequence

    def of_other(self, one: Membership) -> Facts:
        """Return the facts of an incident that the job counts for, though no rule over several jobs says so."""
        incident = one.incident
        rule = next((rule for rule in self.rules.rules if rule.name == incident.rule), None)
        is_alarm = tuple(name for name, _ in incident.by) == ALARM_FIELDS
        why = "its alarm escalates" if is_alarm else "it counts, though this rule does not say so of it"
        return self._facts(rule, incident.rule, COUNTS, why, incident.by, incident)

    def _facts(
        self,
        rule: Rule | None,
        name: str,
        answer: str,
        why: str,
        by: Sequence[tuple[str, str]] | None,
        incident: Incident | None,
    ) -> Facts:
        standing = list(self._standing(rule, incident)) if incident else []
        jobs = [] if incident is None else self.record.jobs(incident)
        return {
            "rule": name,
            "line": rule.line if rule else None,
            "judged_by": self.rules.sha if rule else None,
            "answer": answer,
            "why": why,
            "by": dict(by) if by is not None else None,
            "incident": incident.id if incident else None,
            "generation": incident.generation if incident else None,
            "state": incident.state if incident else None,
            "standing": "; ".join(standing) or None,
            "waits_for": rule.unless if rule and incident and self._waits(rule, incident) else None,
            "jobs": [job.job_id for job in jobs if job.counts or job.state not in CLOSED][-_MOST_NAMED:],
            "jobs_total": incident.total if incident else 0,
            "expected": incident.expected if incident else None,
            "notifiers": list(incident.notifiers if incident else ()),
            "opened_at": iso(incident.opened_at) if incident else None,
            "closed_at": iso(incident.closed_at) if incident else None,
            "closed_why": incident.closed_why if incident else None,
            "acknowledged_by": incident.acknowledged_by if incident else None,
            "escalated_at": iso(incident.escalated_at) if incident else None,
        }

    # --- does it count? ---------------------------------------------------------------------------------------

    def _verdict(self, rule: Rule) -> tuple[str, str, Sequence[tuple[str, str]] | None]:
        """Return the answer, why, and for which key."""
        spec, in_state = rule.incident, isinstance(rule.incident, Backlog)
        seen_at = (self.left_at or self.record.now) if in_state else self.step.seen_at
        facts = self.rules.matcher.facts(replace(self.step, seen_at=seen_at), in_state=in_state)
        misses = (condition.why_not(facts) for condition in rule.conditions)
        by = facts.key(rule.by)
        if why_not := self._state_missed(rule) or next((miss for miss in misses if miss), None):
            return Answer.NO, why_not, None
        if isinstance(by, str):
            return Answer.NO, f"the job has no {by}, which `by` needs", None
        if isinstance(spec, Backlog):
            return *self._overdue(spec), by
        return *self._counts(rule), by

    def _state_missed(self, rule: Rule) -> str | None:
        spec, step = rule.incident, self.step
        if isinstance(spec, Backlog):
            if step.inferred:
                return f'in: "{step.to}" was inferred, no poll saw the job in it'
            return None if step.to in spec.states else f'in: "{step.to}" is not among {spec.states}'
        if isinstance(spec, Threshold | Absence) and counts(spec, step) is None:
            name = "absent" if isinstance(spec, Absence) else "to"
            if step.inferred and step.to in spec.wanted:
                return f'{name}: "{step.to}" was inferred, and is not named by {spec.wanted}'
            return f'{name}: "{step.to}" is not among {spec.wanted}'
        is_from = step.inferred or step.was in rule.was
        return None if is_from else f'from: "{step.was}" is not among {rule.was}'

    def _counts(self, rule: Rule) -> tuple[str, str]:
        spec, step = rule.incident, self.step
        silent = f", but opens nothing: {step.silent}" if step.silent else ""
        if isinstance(spec, FanIn):
            _, fault = expected_jobs(spec, step, rule)
            done = "is done" if step.to in CLOSED else "is not done"
            return COUNTS, f"counts, and {done}{silent}" + (f"; {fault}" if fault else "")
        if spec is not None and counts(spec, step) is False:
            ends = isinstance(spec, Threshold) and spec.in_a_row
            return (
                COMPARED,
                "does not count, and ends the row" if ends else "does not count: one of those to compare with",
            )
        return COUNTS, f"counts{silent}"

    def _overdue(self, spec: Backlog) -> tuple[str, str]:
        due, after = self.time.since + spec.after, human(spec.after.total_seconds())
        lasted = human(max(0.0, ((self.left_at or self.record.now) - self.time.since).total_seconds()))
        if self.left_at:
            end = f", before {after}" if self.left_at < due else ", and counts no longer"
            return Answer.NO, f"left {self.step.to} after {lasted}{end}"
        if self.record.now < due:
            return Answer.WAITING, f"it was in {self.step.to} for less than {after}: counts from {iso(due)} on"
        if self.is_sample:
            return COUNTS, self._why_overdue(spec)
        return Answer.WAITING, f"{self.step.to} for more than {after}: counts when the next poll is complete"

    def _why_overdue(self, spec: Backlog) -> str:
        silent = f", but opens nothing: {self.step.silent}" if self.step.silent else ""
        left = f" until it left at {iso(self.left_at)}" if self.left_at else ""
        return f"counts: {self.step.to} for more than {human(spec.after.total_seconds())}{left}{silent}"

    def _not_kept(self, rule: Rule, answer: str, why: str, same: Sequence[Membership]) -> tuple[str, str]:
        """Say of what counted why it is not on record that it does."""
        if answer == COMPARED:
            return answer, why
        if same:
            return Answer.NO, f"the job counts already, by its transition number {same[0].job.sequence}"
        spec = rule.incident
        if isinstance(spec, Absence):
            return answer, f"{why}; a later one is on record"
        return answer, f"{why}; it is no longer on record as such: too little came of it, or it was before this rule"

    # --- how its incident stands ------------------------------------------------------------------------------

    def _standing(self, rule: Rule | None, incident: Incident) -> Iterator[str]:
        if incident.generation > 1 and rule and isinstance(rule.incident, FanIn):
            yield f"it came after generation {incident.generation - 1} was complete: generation {incident.generation}"
        if incident.opened_at or incident.closed_at:
            yield ", ".join(_opened(incident))
        if incident.is_open:
            yield from _reaction(rule, incident)
        if incident.state == "watched" and rule:
            yield from self._watched(rule, incident)

    def _watched(self, rule: Rule, incident: Incident) -> Iterator[str]:
        now = self.record.now
        match rule.incident:
            case Threshold() as spec:
                yield _progress(spec, self.record.jobs(incident), now)
            case Absence() as spec:
                due = deadline(spec, incident.last_at or incident.since, self.rules.zone)
                last = f"last {spec.wanted} at {iso(incident.last_at)}" if incident.last_at else "none so far"
                yield f"{last}, due at {iso(due)}"
            case Backlog() as spec:
                yield f"{incident.counted:,} so far, asks for {spec.limit}"
            case FanIn() as spec:
                yield _gathered(spec, incident, self.record)
        if self._waits(rule, incident):
            yield f'waits: rule "{rule.unless}" has an open incident (unless)'

    def _waits(self, rule: Rule, incident: Incident) -> bool:
        other = next((other for other in self.rules.rules if other.name == rule.unless), None)
        values = dict(incident.by)
        if incident.state != "watched" or other is None or not set(other.by) <= values.keys():
            return False
        found = self.record.newest(key_of(other.name, tuple((name, values[name]) for name in other.by)))
        return found is not None and found.is_open


def _opened(incident: Incident) -> Iterator[str]:
    if incident.is_open:
        yield f"open since {iso(incident.opened_at)}"
    elif incident.opened_at:
        yield f"opened at {iso(incident.opened_at)}"
    if incident.notifiers:
        yield f"told to {', '.join(incident.notifiers)} at {iso(incident.notified_at)}"
    if incident.closed_at:
        yield f"closed at {iso(incident.closed_at)}" + (f" ({incident.closed_why})" if incident.closed_why else "")


def _reaction(rule: Rule | None, incident: Incident) -> Iterator[str]:
    if incident.escalated_at:
        yield f"escalated at {iso(incident.escalated_at)}"
    if incident.acknowledged_at:
        yield f"acknowledged by {incident.acknowledged_by} at {iso(incident.acknowledged_at)}"
    elif rule and rule.escalate and incident.notified_at and not incident.escalated_at:
        due, names = incident.notified_at + rule.escalate.after, ", ".join(rule.escalate.notify)
        yield f"goes to {names} at {iso(due)}, unless it is acknowledged or closed"


def _progress(spec: Threshold, jobs: Sequence[IncidentJob], now: datetime) -> str:
    counting = how_far(spec, jobs, now)
    named = ", ".join(job.job_id for job in counting[:_MOST_QUOTED])
    named += f" and {len(counting) - _MOST_QUOTED:,} more" if len(counting) > _MOST_QUOTED else ""
    within = f" in the last {human(spec.within.total_seconds())}" if spec.within else ""
    names = f": {named}" if named else ""
    if spec.last is not None:
        latest = len(jobs[-spec.last :])
        return f"{len(counting)} of the last {latest} jobs{within}, asks for {spec.limit} % of {spec.last}{names}"
    return f"{len(counting)} of {spec.limit.least}{' in a row' if spec.in_a_row else ''}{within}{names}"


def _gathered(spec: FanIn, incident: Incident, record: IncidentRecord) -> str:
    states = record.states(incident)
    last_at = incident.last_at or incident.since
    found = Gathered(states=states, expected=incident.expected, last_at=last_at)
    open_ = f"{found.unfinished:,} {'is' if found.unfinished == 1 else 'are'} not done"
    if spec.expect and incident.generation == 1:
        known = "the number comes from `expect`" if incident.expected else "`expect` has given no number"
        return f"{found.total:,} of {incident.expected or '?'} are there, {open_}; {known}"
    due = settles_at(spec, found)
    waits = f"; complete at {iso(due)}, if no other comes" if due else ""
    return f"{found.total:,} {'is' if found.total == 1 else 'are'} there, {open_}{waits}"
