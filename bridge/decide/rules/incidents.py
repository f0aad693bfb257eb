"""Rules over several jobs: which jobs count, and when an incident of one key opens and closes.

What happened counts when it happened, not when it was seen, so a late look comes to the same incidents.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from bridge.decide.templates.rendering import Template
from bridge.decide.text.times import Window
from bridge.decide.text.values import States, ident, shown
from bridge.model import CLOSED, SUCCESS, IncidentJob, IncidentKey, Transition

# --- the rules as data ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """`> 50` or `>= 5`."""

    sign: Literal[">", ">="]
    number: float

    def holds(self, value: float) -> bool:
        return value > self.number or (self.sign == ">=" and value == self.number)

    @property
    def least(self) -> int:
        """The least number that it holds for."""
        return int(self.number) + (self.sign == ">")

    def __str__(self) -> str:
        return f"{self.sign} {self.number:g}"


_COUNT = re.compile(r"(>=?)\s*(\d{1,7})")
_SHARE = re.compile(r"(>=?)\s*(\d{1,3}(?:\.\d{1,3})?)\s*%\s*of\s*(\d{1,4})")
_MOST_SHARED = 1_000  # jobs of which a share is taken


def read_count(value: str) -> Comparison:
    """Read ">= 5" or "> 50". Raises ValueError saying what would be right."""
    found = _COUNT.fullmatch(value.strip())
    if not found:
        raise ValueError(f'{shown(value)} is no number to exceed; write for example ">= 5" or "> 50"')
    limit = Comparison(">" if found[1] == ">" else ">=", int(found[2]))
    if not limit.holds(0):
        return limit
    raise ValueError(f'{shown(value)} always holds; the least is ">= 1"')


def read_share(value: str) -> tuple[Comparison, int]:
    """Read "> 20% of 50": the share in per cent, and of how many jobs. Raises ValueError likewise."""
    found = _SHARE.fullmatch(value.strip())
    if not found:
        raise ValueError(f'{shown(value)} is no share; write for example "> 20% of 50": of the last 50 jobs that ended')
    limit, last = Comparison(">" if found[1] == ">" else ">=", float(found[2])), int(found[3])
    if not 2 <= last <= _MOST_SHARED:
        raise ValueError(f"{shown(value)} is of {last:,} jobs; it can be of 2 to {_MOST_SHARED:,}")
    if limit.holds(0) or not limit.holds(100):
        raise ValueError(f"{shown(value)} {'always' if limit.holds(0) else 'never'} holds")
    return limit, last


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """Whom an incident is sent to that is neither acknowledged nor closed `after` it was sent first."""

    after: timedelta
    notify: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Many jobs that came to a state of `wanted` within a time.

    `limit` compares their number; with `last` their share (per cent) of the last so many jobs that ended. With
    `in_a_row` only those count that no job that ended otherwise came between.
    """

    wanted: States
    limit: Comparison
    within: timedelta | None = None
    last: int | None = None
    in_a_row: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """No job came to a state of `wanted` for as long as `after`; with a `window`, only time inside it counts."""

    wanted: States
    after: timedelta
    window: Window | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Many jobs have been in a state of `states` for longer than `after`; it ends when they were few for as long."""

    states: States
    after: timedelta
    limit: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class FanIn:
    """All jobs of a key are done: as many as `expect` says, or all that there are when none came for `settle`.

    With `success` all must be successful, and the first that is not ends it.
    """

    success: bool = False
    expect: Template | None = None
    settle: timedelta | None = None


IncidentSpec = Threshold | Absence | Backlog | FanIn


def kind_of(spec: IncidentSpec | None) -> str:
    """Return the kind of a rule that has incidents; those of a level rule are its alarms."""
    return type(spec).__name__.lower() if spec else "alarm"


def counts(spec: IncidentSpec, transition: Transition) -> bool | None:
    """Tell whether a transition counts for a rule, or (False) is compared with those that do; None: neither."""
    to = transition.to
    match spec:
        case Threshold() | Absence():
            if to in spec.wanted and (not transition.inferred or to in spec.wanted.words):
                return True
            is_compared = isinstance(spec, Threshold) and (spec.in_a_row or spec.last is not None)
            return False if is_compared and to in CLOSED else None
        case FanIn():
            return to in CLOSED
    return None  # a backlog counts the jobs that stay in a state


@lru_cache(maxsize=10_000)
def key_of(rule: str, by: tuple[tuple[str, str], ...]) -> IncidentKey:
    """Return the key that the values of these fields make."""
    return IncidentKey(rule, ident("key", *(part for pair in by for part in pair)))


ALARM_FIELDS = ("bucket", "job", "sequence")  # of the key of a level rule's alarm that escalates


def incident_id(key: IncidentKey, generation: int) -> str:
    return ident("inc", *key, str(generation))


def is_of_last(spec: IncidentSpec, job_at: datetime, *, closed_at: datetime, total: int, expected: int | None) -> bool:
    """Tell whether a job that comes now belongs to the last incident of its key, which is over, and opens no other.

    What happened before it was over is seen late. A group that has failed before all of its jobs had come takes the
    others in: it has `total` of those that are expected.
    """
    match spec:
        case Threshold() | Absence():
            return not is_of_next(spec, job_at, closed_at)
        case FanIn(success=True, settle=settle):
            return total < expected if expected is not None else settle is not None and job_at <= closed_at + settle
    return False


def is_of_next(spec: IncidentSpec, job_at: datetime, closed_at: datetime) -> bool:
    """Tell whether what happened then comes after an incident that was over at `closed_at`.

    One that closed because it was quiet had nothing of that moment.
    """
    is_quiet = isinstance(spec, Threshold) and not spec.in_a_row
    return job_at > closed_at or (is_quiet and job_at == closed_at)


# --- thresholds -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Recent:
    """The jobs that a threshold looks at, as of the last one added."""

    spec: Threshold
    jobs: deque[IncidentJob] = field(default_factory=deque)
    counting: int = 0

    def add(self, job: IncidentJob) -> bool:
        """Add the next job; tell whether the limit is exceeded then."""
        spec = self.spec
        self.jobs.append(job)
        self.counting += job.counts
        if spec.in_a_row and not job.counts:
            self._drop(len(self.jobs))
        while spec.within and self.jobs and self.jobs[0].happened_at <= job.happened_at - spec.within:
            self._drop(1)
        if spec.last is None:
            return job.counts and spec.limit.holds(self.counting)
        self._drop(len(self.jobs) - spec.last)
        return len(self.jobs) == spec.last and spec.limit.holds(100 * self.counting / spec.last)

    def _drop(self, number: int) -> None:
        for _ in range(number):
            self.counting -= self.jobs.popleft().counts


class Course(NamedTuple):
    """How an incident went on: `by` is the job that opened it, `last_at` when what it is about happened last."""

    opened_at: datetime | None
    last_at: datetime | None
    closed_at: datetime | None = None
    by: IncidentJob | None = None


def follow(
    spec: Threshold,
    jobs: Iterable[IncidentJob],
    *,
    opened_at: datetime | None = None,
    last_at: datetime | None = None,
    judged: int = 0,
    as_of: datetime,
) -> Course:
    """Return what becomes of a key of a threshold: it opens, goes on, or closes before it opens again.

    `jobs` are in the order in which they ended; those up to number `judged` only say what came before. Jobs that
    nobody is notified of count, but open nothing.
    """
    recent, by = _Recent(spec), None
    for job in jobs:
        if opened_at and (end := _ended(spec, last_at, job.happened_at)):
            return Course(opened_at, last_at, end, by)
        exceeds = recent.add(job)
        if opened_at is None:
            if exceeds and not job.silent:
                opened_at, last_at, by = job.happened_at, job.happened_at, job
        elif job.n > judged or by:
            if spec.in_a_row and not job.counts and job.happened_at >= opened_at:
                return Course(opened_at, last_at, job.happened_at, by)
            if exceeds if spec.last else job.counts:
                last_at = max(last_at or job.happened_at, job.happened_at)
    return Course(opened_at, last_at, _ended(spec, last_at, as_of) if opened_at else None, by)


def _ended(spec: Threshold, last_at: datetime | None, now: datetime) -> datetime | None:
    """Return when an incident has ended because it was quiet for long enough, if it has by now."""
    end = last_at + spec.within if last_at and spec.within else None
    return end if end and end <= now else None


_MOST_KEPT = 1_000  # jobs of a key, beside as many as open it


def still_counting(spec: Threshold, jobs: Sequence[IncidentJob], known_to: datetime | None) -> Sequence[IncidentJob]:
    """Return those of the jobs of a key that is not open which may still count.

    Up to `known_to` all is known that may happen together with them (None: nobody knows), but for what CI lists late:
    they are kept for twice the time.
    """
    known = known_to - spec.within if known_to and spec.within else None
    if not jobs or (spec.within and known and jobs[-1].happened_at + spec.within <= known):
        return ()
    if spec.in_a_row:
        others = [place for place, job in enumerate(jobs) if not job.counts]
        jobs = jobs[others[-1] + 1 :] if others else jobs
    if spec.last:
        jobs = jobs[-spec.last :]
    since = min(known, jobs[-1].happened_at) - spec.within if jobs and spec.within and known else None
    kept = [job for job in jobs if since is None or job.happened_at > since]
    return kept[-_MOST_KEPT - int(spec.limit.number) :]


def how_far(spec: Threshold, jobs: Sequence[IncidentJob], now: datetime) -> list[IncidentJob]:
    """Return the jobs that count towards the limit now, the oldest first."""
    recent = _Recent(spec)
    for job in jobs:
        recent.add(job)
    return [job for job in recent.jobs if job.counts and (not spec.within or job.happened_at > now - spec.within)]


# --- absences -------------------------------------------------------------------------------------------------------

_MOST_WINDOWS = 4_000  # that are looked through: ten years of days


def deadline(spec: Absence, since: datetime, zone: ZoneInfo) -> datetime:
    """Return when nothing has happened for too long, if nothing does; the time outside the window does not count."""
    if spec.window is None:
        return since + spec.after
    moment, left = since, spec.after
    for _ in range(_MOST_WINDOWS):
        end = spec.window.ends(moment, zone)
        if end is None:
            moment = spec.window.next_start(moment, zone)
            continue
        if end - moment >= left:
            return moment + left
        moment, left = end, left - (end - moment)
    return moment


def follow_absence(
    spec: Absence,
    jobs: Iterable[IncidentJob],
    *,
    opened_at: datetime | None = None,
    last_at: datetime,
    known_to: datetime | None,
    zone: ZoneInfo,
) -> Course:
    """Return what becomes of a key of an absence: it opens when nothing came in time, and the next job closes it.

    `jobs` are in the order in which they ended. What came after `known_to` is not known of all streams: it does not
    tell that nothing came before.
    """
    for job in jobs:
        if opened_at:
            if job.happened_at > last_at:  # also before it was due, if it is seen only now
                return Course(opened_at, last_at, max(job.happened_at, opened_at))
            continue
        if known_to is None or job.happened_at > known_to:
            return Course(None, last_at)
        due = deadline(spec, last_at, zone)
        if job.happened_at > due:
            return Course(due, last_at, job.happened_at)
        last_at = max(last_at, job.happened_at)
    if opened_at or known_to is None:
        return Course(opened_at, last_at)
    due = deadline(spec, last_at, zone)
    return Course(due if due <= known_to else None, last_at)


# --- fan-in ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The jobs of one key of a fan-in, by state; `last_at` is when the last one came."""

    states: dict[str, int]
    expected: int | None
    last_at: datetime

    @property
    def total(self) -> int:
        return sum(self.states.values())

    @property
    def unfinished(self) -> int:
        return sum(number for state, number in self.states.items() if state not in CLOSED)

    @property
    def failed(self) -> int:
        return sum(number for state, number in self.states.items() if state in CLOSED and state != SUCCESS)


Completion = Literal["completed", "failed"]


def completion(spec: FanIn, found: Gathered, *, known_to: datetime | None) -> Completion | None:
    """Return how a fan-in has ended, if it has; up to `known_to` all is known that may belong to it."""
    if spec.success and found.failed:
        return "failed"
    if found.unfinished or not found.total:
        return None
    if found.expected is not None:
        return "completed" if found.total >= found.expected else None
    is_settled = spec.settle and known_to and found.last_at + spec.settle <= known_to
    return "completed" if is_settled else None


def settles_at(spec: FanIn, found: Gathered) -> datetime | None:
    """Return when a fan-in is complete if no other job comes, if time alone can complete it."""
    if found.unfinished or found.expected is not None or not spec.settle:
        return None
    return found.last_at + spec.settle
