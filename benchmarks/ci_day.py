"""A day of CI in a time of its own: jobs whose states follow from what time it is, and the calls that ask for them."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from bridge.collect.client import DEFAULT_RATE
from bridge.collect.rate_limit import RateLimit
from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS, Description, Job, Pace, Page, Place, Queue, Stream

TAGS = ("Transcode", "Snapshot", "SpeechRecognition", "Concat", "PicProcess")
PLACE = Place(bucket="media-1250000000", region="ap-chongqing")
BEGAN = datetime(2026, 11, 21, tzinfo=UTC)
_DAY_S = 86_400.0
CALL_S = 0.15  # that CI takes to answer


@dataclass(frozen=True, slots=True, kw_only=True)
class DayJob:
    """One job; times are seconds since the day began. Lists show it from `listed` on."""

    id: str
    tag: str
    created: float
    listed: float
    started: float
    ended: float
    final: str
    input: str = "input/demo.mp4"

    def state(self, now: float) -> str:
        if now < self.started:
            return SUBMITTED
        return RUNNING if now < self.ended else self.final


def a_day(random: Random, jobs: int) -> list[DayJob]:
    """Return jobs as they are created over a day, oldest first: more of them at noon than at night.

    They wait for seconds, run for a minute as a median and for hours in one of two hundred; lists show them within two
    seconds.
    """
    made = []
    for created in sorted(_creation(random) for _ in range(jobs)):
        started = created + random.expovariate(1 / 8)
        ran = random.uniform(3600, 20_000) if random.random() < 0.005 else random.lognormvariate(math.log(60), 1)
        made.append((created, started, started + ran))
    return [
        DayJob(
            id=f"j{number:032x}",
            tag=random.choice(TAGS),
            created=created,
            listed=created + random.uniform(0, 2),
            started=started,
            ended=ended,
            final=FAILED if random.random() < 0.03 else SUCCESS,
        )
        for number, (created, started, ended) in enumerate(made)
    ]


def _creation(random: Random) -> float:
    while True:
        at = random.uniform(0, _DAY_S)
        if random.random() < 0.6 - 0.4 * math.cos(2 * math.pi * at / _DAY_S):
            return at


@dataclass(slots=True)
class _Tag:
    """The jobs of one tag: all by creation, and those that have not ended yet."""

    jobs: list[DayJob]
    created: list[float] = field(init=False)
    known: int = 0  # of `jobs`: created so far
    unfinished: dict[str, DayJob] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.created = [job.created for job in self.jobs]

    def advance(self, now: float) -> None:
        while self.known < len(self.jobs) and self.created[self.known] <= now:
            job = self.jobs[self.known]
            self.unfinished[job.id] = job
            self.known += 1
        for job in [job for job in self.unfinished.values() if job.ended <= now]:
            del self.unfinished[job.id]


class CiDay:
    """CI's list and describe calls over a day's jobs, on a clock that each call moves on by CALL_S."""

    def __init__(self, jobs: Sequence[DayJob]) -> None:
        self.now = 0.0
        self.calls = 0
        self.jobs = {job.id: job for job in jobs}
        self.tags = {tag: _Tag([job for job in jobs if job.tag == tag]) for tag in TAGS}
        self._rate_limit = RateLimit(DEFAULT_RATE, monotonic=lambda: self.now, sleep=self._pass)

    def clock(self) -> datetime:
        return BEGAN + timedelta(seconds=self.now)

    def list(
        self,
        stream: Stream,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        token: str | None = None,
        order: str = "Asc",
        size: int = 100,
        states: Collection[str] = (),
    ) -> Page:
        """Return a page as CI does: both bounds are exclusive, in whole seconds."""
        self._call(stream.place)
        after = math.floor(seconds(since)) + 1 if since else 0
        before = math.ceil(seconds(until)) if until else math.inf
        found = [job for job in self._matching(stream.tag, states, after, before) if job.listed <= self.now]
        if order == "Desc":
            found.reverse()
        begin = next((n for n, job in enumerate(found) if job.id == token), -1) + 1 if token else 0
        page = found[begin : begin + size]
        more = len(found) > begin + size
        return Page(jobs=tuple(map(self._seen, page)), next_token=page[-1].id if more else None, served_at=self._date())

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        self._call(place)
        known = tuple(self._seen(self.jobs[job_id]) for job_id in ids if job_id in self.jobs)
        missing = tuple(job_id for job_id in ids if job_id not in self.jobs)
        return Description(jobs=known, missing=missing, served_at=self._date())

    def queues(self, place: Place) -> tuple[Queue, ...]:
        self._call(place)
        return ()

    def count(self, tag: str, since: float) -> int:
        """Return how many jobs of a tag a list from then on has now."""
        return sum(job.listed <= self.now for job in self._matching(tag, (), since, math.inf))

    def _call(self, place: Place) -> None:
        if place != PLACE:
            raise ValueError(f"there is no {place}")
        self._rate_limit.wait(place.bucket)
        self._pass(CALL_S)
        self.calls += 1
        for tag in self.tags.values():
            tag.advance(self.now)

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    # What callers ask of the pace.

    def pace(self, bucket: str, *, now: datetime) -> Pace:
        return self._rate_limit.pace(bucket, now=now)

    def set_pace(self, bucket: str, pace: Pace, *, now: datetime) -> None:
        self._rate_limit.set_pace(bucket, pace, now=now)

    def waited_s(self, bucket: str) -> float:
        return self._rate_limit.waited_s(bucket)

    def is_slowed(self, place: Place) -> bool:
        return self._rate_limit.is_slowed(place.bucket)

    def _matching(self, name: str, states: Collection[str], after: float, before: float) -> Iterator[DayJob]:
        tag = self.tags[name]
        if states and not {SUCCESS, FAILED} & set(states):
            jobs: Sequence[DayJob] = sorted(tag.unfinished.values(), key=lambda job: job.created)
        else:
            jobs = tag.jobs[bisect_left(tag.created, after) : bisect_right(tag.created, min(before, self.now))]
        for job in jobs:
            if after <= job.created < before and (not states or job.state(self.now) in states):
                yield job

    def _seen(self, job: DayJob) -> Job:
        state = job.state(self.now)
        return Job(
            id=job.id,
            bucket=PLACE.bucket,
            region=PLACE.region,
            state=state,
            tag=job.tag,
            queue="p1",
            created_at=at(job.created),
            started_at=at(job.started) if self.now >= job.started else None,
            ended_at=at(job.ended) if self.now >= job.ended else None,
            input=job.input,
        )

    def _date(self) -> datetime:
        return at(self.now)


def at(seconds: float) -> datetime:
    """Return a time as CI gives it, in whole seconds."""
    return BEGAN + timedelta(seconds=math.floor(seconds))


def seconds(time: datetime) -> float:
    """Return how long after the beginning of the day a time is."""
    return (time - BEGAN).total_seconds()
