"""What must be on record and be told, worked out from the answers that CI gave in whole.

It is written from what the bridge promises and uses none of its code. The promises, as they are counted here:

- What an answer shows in whole is seen; what was cut off, refused or came to a worker that had lost its bucket is not.
- A job's first state is a transition from "new". A later one is a transition if it differs from the last, unless
  the last is final. So a stale answer never reopens what has ended. What was `gone` goes on from the state that CI
  named last; if it is in that again, from `gone`.
  A stale answer about an unfinished job cannot be told from news (a job may be Submitted again), and is news:
  one transition to what it shows, one back when a true answer comes, and no more than these.
- A job that comes twice on one page counts once, by the state that is further on.
- An unfinished job that CI denies in three polls, the first and the last answer at least two intervals apart, and that
  no answer shows in between, is `gone`; of a job that is not on record nothing is known by its id.
- Nobody is told of jobs from before a stream of lists was first asked for, as long as it has not been listed to the
  end. "Before" is CI's CreationTime against the first call; or, for a stream that came later, against the last
  complete listing of one that covers it, or the last complete poll of its watch. The bridge compares CI's clock
  with its own there, and CI's times are whole seconds: so near to that moment both are right.
  Where the clocks differ by more than a minute the last complete listing may count as up to an hour older.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

FINAL = ("Success", "Failed", "Cancel")
NEW, GONE = "new", "gone"
_SECOND = timedelta(seconds=1)
_GRACE = 2 * _SECOND
_CLOCKS_AGREE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DENIALS, _INTERVALS = 3, 2
_NEVER = datetime.min.replace(tzinfo=UTC)
_FAR_ON = {"Running": 1, **dict.fromkeys(FINAL, 2)}


@dataclass(frozen=True)
class Stream:
    """What one chain of lists is about."""

    tag: str
    queue: str | None

    def covers(self, other: Stream) -> bool:
        return self.tag == other.tag and self.queue in (None, other.queue)


@dataclass(frozen=True)
class Question:
    """A list call (`stream`, and `token` for a later page) or a question by id (`ids`)."""

    stream: Stream | None = None
    token: str | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    id: str
    state: str
    queue: str
    created_at: datetime


@dataclass(frozen=True)
class Whole:
    """An answer, as anybody would read it."""

    jobs: tuple[Shown, ...]
    missing: tuple[str, ...]
    next_token: str | None

    @classmethod
    def read(cls, body: bytes) -> Whole:
        root = ET.fromstring(body)  # noqa: S314  our own simulator's
        jobs = [
            Shown(
                id=job.findtext("JobId", ""),
                state=job.findtext("State", ""),
                queue=job.findtext("QueueId", ""),
                created_at=datetime.fromisoformat(job.findtext("CreationTime", "")),
            )
            for job in root.findall("JobsDetail")
        ]
        return cls(
            tuple(jobs), tuple(one.text or "" for one in root.findall("NonExistJobIds")), root.findtext("NextToken")
        )


@dataclass
class Step:
    """One transition. `silent` None: it may be told or not."""

    was: str
    to: str
    queue: str
    silent: bool | None = False


@dataclass
class Heard:
    """Of one stream: from when on its jobs are news, give or take `band`, and its last complete listing."""

    asked_at: datetime  # first, by the bridge's clock
    news_from: datetime
    band: timedelta
    mark: datetime | None = None
    unsure: timedelta = 0 * _SECOND  # how much older that may count as
    chain: list[datetime | None] = field(default_factory=list)  # CI's clock at each page of the chain under way


@dataclass
class Denial:
    times: int
    first: datetime
    last: datetime


@dataclass
class Oracle:
    skew: timedelta
    announce: bool
    steps: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    streams: dict[Stream, Heard] = field(default_factory=dict)
    polled: dict[str, datetime] = field(default_factory=dict)  # by watch: its last complete poll began
    denied: dict[str, Denial] = field(default_factory=dict)
    chain_agreed: bool = True
    began: datetime = _NEVER  # the poll under way
    every: timedelta = 0 * _SECOND  # of its watch

    def poll_begins(
        self, watch: str, asks: Iterable[Stream], in_force: Iterable[Stream], now: datetime, every: timedelta
    ) -> None:
        self.began, self.every, in_force = now, every, list(in_force)
        met, behind = dict(self.streams), self.skew < -_CLOCKS_AGREE
        for stream in asks:
            if stream in met:
                continue
            known = [met[s] for s in in_force if s in met and s.covers(stream) and met[s].mark]
            if known:
                newest = max(one.mark for one in known if one.mark)
                unsure = max(one.unsure for one in known) + abs(self.skew)
                self.streams[stream] = Heard(now, newest, _GRACE + unsure)
            else:
                ours = self.polled.get(watch, now)
                # Of a CI whose clock is ahead, jobs a little older may be told; of one that is behind, none is missed.
                self.streams[stream] = Heard(now, ours + self.skew, _GRACE if behind else abs(self.skew) + _GRACE)

    def poll_completes(self, watch: str, began: datetime) -> None:
        self.polled[watch] = began

    def hears(self, question: Question, whole: Whole, date: datetime | None, now: datetime) -> None:
        """Take in an answer that arrived in whole; `date` is its Date."""
        if question.stream is None:
            self._hears_by_id(question, whole, now)
            return
        heard = self.streams[question.stream]
        if question.token is None:
            heard.chain, self.chain_agreed = [], True
        heard.chain.append(date)
        if date is None or abs(date - now) > _CLOCKS_AGREE - _GRACE:
            self.chain_agreed = False
            heard.band = max(heard.band, abs(date - now) + _GRACE if date else heard.band)
        for job in _once(whole.jobs):
            self._sees(job, silent=self._silent(heard, job))
        if whole.next_token is None:
            heard.mark = min(self.began, *(one or self.began for one in heard.chain))
            heard.unsure = 0 * _SECOND if self.chain_agreed else _HOUR

    def _hears_by_id(self, question: Question, whole: Whole, now: datetime) -> None:
        for job in _once(whole.jobs):
            if job.id in question.ids and self.steps.get(job.id):
                self._sees(job)
        for job_id in whole.missing:
            steps = self.steps.get(job_id)
            is_open = job_id in question.ids and steps and steps[-1].to not in (*FINAL, GONE)
            if is_open and self._is_believed(job_id, now):
                steps.append(Step(steps[-1].to, GONE, steps[-1].queue))

    def _is_believed(self, job_id: str, now: datetime) -> bool:
        found = self.denied.setdefault(job_id, Denial(0, now, _NEVER))
        if found.last < self.began:
            found.times, found.last = found.times + 1, now
        return found.times >= _DENIALS and found.last - found.first >= _INTERVALS * self.every

    def _sees(self, job: Shown, *, silent: bool | None = False) -> None:
        steps = self.steps[job.id]
        self.denied.pop(job.id, None)
        if not steps:
            steps.append(Step(NEW, job.state, job.queue, silent))
            return
        last = steps[-1].to
        if last == job.state or last in FINAL:
            return
        named = next(one.to for one in reversed(steps) if one.to != GONE)
        steps.append(Step(named if named != job.state else last, job.state, job.queue))

    def _silent(self, heard: Heard, job: Shown) -> bool | None:
        if heard.mark or self.announce:
            return False
        if abs(job.created_at - heard.news_from) <= heard.band:
            return None
        return job.created_at < heard.news_from

    def must_hear(self) -> dict[tuple[str, str, int], Step]:
        """Return what is told to whom, by (notifier, job, number of the transition)."""
        return {
            (notifier, job_id, number): step
            for job_id, steps in self.steps.items()
            for number, step in enumerate(steps, 1)
            for notifier in _notifiers(step)
        }


def _notifiers(step: Step) -> tuple[str, ...]:
    """The rules of every world: `cms` hears everything, `next` the end of what was in queue p1."""
    if step.silent:
        return ()
    return ("cms", "next") if step.to in FINAL and step.queue == "p1" else ("cms",)


def _once(jobs: Iterable[Shown]) -> list[Shown]:
    found: dict[str, Shown] = {}
    for job in jobs:
        if job.id not in found or _FAR_ON.get(job.state, 0) > _FAR_ON.get(found[job.id].state, 0):
            found[job.id] = job
    return list(found.values())
