"""What must be on record and be sent, worked out from the answers that CI gave in whole.

It is written from what the bridge promises and uses none of its code. The promises, as they are counted here:

- What an answer shows in whole is seen; what was cut off, refused or came to a worker that had lost its bucket is not.
- A job's first state is a transition from "new". A later one is a transition if it differs from the last, unless
  the last is final. So a stale answer never reopens what has ended.
  A stale answer about an unfinished job cannot be told from news (a job may be Submitted again), and is news:
  one transition to what it shows, one back when a true answer comes, and no more than these.
- A job's times prove states that no answer showed: one that is first seen running or ended, and was created, was
  Submitted; one that ended, and had only waited as far as anybody saw, was Running if it has a time of start. These
  transitions come before the one that was seen, which says from where that was seen. Times out of order, or later than
  both clocks by more than a minute, prove nothing. Of such a state hears who asked for it by its name.
- A job that comes twice on one page counts once, by the state that is further on.
- A job with a field that cannot be understood counts as if CI had not said it. One without a usable state is not seen,
  and costs the others nothing. It is asked for by id until it can be read, for the lookback, after a quarter of the
  time that it was left out at the latest; nobody is notified of it then if nobody would have been notified at first.
- An answer whose structure is broken is not seen. The one job that makes it so is left out in the same arrival.
- An unfinished job is `gone` when CI has denied it three times (once a poll), the first and the last at least two
  intervals apart, with no answer between them that shows it. It is asked for again 5 min, 30 min, 2 h, 8 h and 24 h
  later. When it lives again, it comes from the last state that CI named, or from `gone` if it is in that state again.
- A callback is a question by id about the jobs that it names, and nothing else: what CI answers is seen. That CI denies
  a job then counts for nothing. A job that is seen so for the first time is one of a stream that was listed to the end,
  or it is left to the first such list, and left alone if no stream in force has it.
- Nobody is notified of jobs from before a stream of lists was first asked for, as long as it has not been listed to the
  end. "Before" is CI's CreationTime against the first call; or, for a stream that came later, against the last
  complete listing of one that covers it, or the last complete poll of its watch. One that was out of the rules for
  longer than the lookback comes as if for the first time. CI's Date may be anything: what was created after that moment
  is sent, and between it and what it would be by another clock of those that are known both are right.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

FINAL = ("Success", "Failed", "Cancel")
NEW, GONE = "new", "gone"
EVERY = timedelta(seconds=30)
LOOKBACK = timedelta(hours=24)
ASKED_AGAIN = tuple(timedelta(minutes=minutes) for minutes in (5, 30, 120, 480, 1440))
_NONE = timedelta(0)
_GRACE = timedelta(seconds=2)  # CI's times are whole seconds
LATER = timedelta(minutes=2)  # than it was seen here, at the most, it is stored: a question may be repeated
_AGREE = timedelta(seconds=30)  # clocks that agree for certain: a minute apart they do not
_POSSIBLE = timedelta(minutes=1)
_QUIET = timedelta(hours=1)  # by which a mark may lie further back where they do not
_FEW = 20  # pages
_FAR_ON = {"Running": 1, **dict.fromkeys(FINAL, 2)}
_NUMBER = re.compile(r"&#(x[0-9A-Fa-f]+|[0-9]+);")
_FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_BAD = "\N{REPLACEMENT CHARACTER}"


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
    """`state` None: it cannot be made out. `created_at` None: nor can that."""

    id: str
    state: str | None
    queue: str
    created_at: datetime | None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    tag: str = ""

    def proves(self, now: datetime) -> bool:
        """Tell whether its times prove anything, at an answer of then."""
        times = [time for time in (self.created_at, self.started_at, self.ended_at) if time]
        return times == sorted(times) and all(time <= now + _POSSIBLE for time in times)


@dataclass(frozen=True)
class Whole:
    """An answer, as anybody would read it. `broken`: as far as the ids of its jobs can be made out, and no further."""

    jobs: tuple[Shown, ...]
    missing: tuple[str, ...] = ()
    next_token: str | None = None
    broken: bool = False

    @classmethod
    def read(cls, body: bytes) -> Whole:
        text = _NUMBER.sub(_allowed, _FORBIDDEN.sub(_BAD, body.decode(errors="replace")))
        try:
            root = ET.fromstring(text)  # noqa: S314  our own simulator's
        except ET.ParseError:
            ids = re.findall("<JobId>(.*?)</JobId>", text)
            return cls(tuple(Shown(one, None, "", None) for one in ids), broken=True)
        missing = tuple(one.text or "" for one in root.findall("NonExistJobIds"))
        return cls(tuple(map(_shown, root.findall("JobsDetail"))), missing, root.findtext("NextToken"))


def _shown(job: ET.Element) -> Shown:
    state = job.findtext("State")
    return Shown(
        id=job.findtext("JobId", ""),
        state=state if state and state != "null" and _BAD not in state else None,
        queue=job.findtext("QueueId", ""),
        created_at=_time(job, "CreationTime"),
        started_at=_time(job, "StartTime"),
        ended_at=_time(job, "EndTime"),
        tag=job.findtext("Tag", ""),
    )


def _time(job: ET.Element, name: str) -> datetime | None:
    with suppress(ValueError):
        time = datetime.fromisoformat(job.findtext(name, ""))
        return time if time.tzinfo else None
    return None


def _allowed(reference: re.Match[str]) -> str:
    code = int("0" + reference[1], 16) if reference[1][0] == "x" else int(reference[1])
    return reference[0] if code < 0x110000 and not _FORBIDDEN.match(chr(code)) else _BAD


@dataclass
class Step:
    """One transition. `silent` None: it may be sent or not."""

    was: str
    to: str
    queue: str
    seen_at: datetime
    earliest: datetime  # that it may have happened
    latest: datetime
    silent: bool | None = False
    inferred: bool = False


@dataclass
class Known:
    """Of one stream: between when its jobs are surely old and surely news, and its last complete listing."""

    asked_at: datetime  # first, by the bridge's clock
    old_until: datetime
    news_from: datetime
    began: datetime  # the poll under way
    complete_at: datetime | None = None  # a complete listing began, by the bridge's clock
    mark: datetime | None = None  # the earliest time that it may be known as
    maybe: bool = False  # it is not known whether there was a complete listing
    out_at: datetime | None = None
    away: timedelta | None = None  # it was out of the rules for so long, and comes as if for the first time
    dates: list[datetime] = field(default_factory=list)  # of the chain, as far back as its mark may lie
    narrowed: bool = False  # in this poll not every page could be read
    ended: bool = False  # the last page was that of a list, or of a part of one


@dataclass
class LeftOut:
    at: datetime
    asked_at: datetime
    known: Known
    first: bool  # the stream's first listing was under way

    def is_due(self, now: datetime) -> bool:
        return now - self.asked_at >= (self.asked_at - self.at) / 4


@dataclass
class Denial:
    times: int
    first: datetime
    last: datetime


@dataclass
class Gone:
    gone_at: datetime
    asked_at: datetime

    def is_due(self, now: datetime) -> bool:
        return any(self.asked_at < self.gone_at + pause <= now for pause in ASKED_AGAIN)

    @property
    def given_up(self) -> bool:
        return self.asked_at - self.gone_at >= ASKED_AGAIN[-1]


@dataclass
class Oracle:
    skew: timedelta
    announce: bool
    clock: Callable[[], datetime]  # the bridge's
    steps: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    streams: dict[Stream, Known] = field(default_factory=dict)
    polled: dict[str, datetime] = field(default_factory=dict)  # by watch: its last complete poll began
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    denials: dict[str, Denial] = field(default_factory=dict)
    gone: dict[str, Gone] = field(default_factory=dict)
    began: datetime | None = None  # the poll under way
    behind: timedelta = _NONE  # by so much, at the most, CI's clock was behind in it
    started: dict[str, bool] = field(default_factory=dict)  # whether it had a time of start when it was last seen

    # --- streams -----------------------------------------------------------------------------------------------------

    def rules_change(self, in_force: Iterable[Stream]) -> None:
        in_force, now = set(in_force), self.clock()
        for stream, known in self.streams.items():
            if stream not in in_force:
                known.out_at = known.out_at or now
        back = {s: known.out_at for s in in_force if (known := self.streams.get(s)) and known.out_at}
        anew = {stream: out_at for stream, out_at in back.items() if now - out_at > LOOKBACK}
        for stream in back:
            self.streams[stream].out_at = None
        for stream, out_at in anew.items():
            covering = [self.streams[s] for s in in_force - anew.keys() if s in self.streams and s.covers(stream)]
            known = self._met(covering, None, now)
            known.news_from = max(known.news_from, out_at + self.skew + _GRACE)
            known.away = now - out_at
            self.streams[stream] = known

    def poll_begins(self, watch: str, asks: Iterable[Stream], in_force: Iterable[Stream], now: datetime) -> None:
        in_force, met, self.began = list(in_force), dict(self.streams), now
        self.behind = min(self.skew, _NONE)
        for stream in asks:
            if stream not in met:
                covering = [met[s] for s in in_force if s in met and s.covers(stream)]
                self.streams[stream] = self._met(covering, self.polled.get(watch), now)
            known = self.streams[stream]
            known.began, known.narrowed, known.ended = now, False, False

    def _met(self, covering: list[Known], polled: datetime | None, now: datetime) -> Known:
        """Return a stream that is asked for the first time: what it shows is news since others saw all that it has."""
        unsure = any(one.maybe and not one.mark for one in covering)
        marks = [one.mark for one in covering if one.mark]
        moments = [one.complete_at for one in covering if one.complete_at]
        earliest = max(marks) - abs(self.skew) if marks else polled or now
        latest = now if unsure else max(moments, default=polled or now)
        return Known(
            asked_at=now,
            old_until=min(earliest, earliest + self.skew) - _GRACE - (400 * LOOKBACK if unsure else _NONE),
            news_from=latest + self.skew + _GRACE,
            began=now,
        )

    def poll_ends(self, watch: str, asks: Iterable[Stream], began: datetime, *, complete: bool) -> None:
        if complete:
            self.polled[watch] = began
        for known in (self.streams[stream] for stream in asks):
            if known.narrowed and complete:
                self._complete(known)
            elif known.narrowed:
                known.maybe |= known.ended

    def _complete(self, known: Known) -> None:
        now = self.clock()
        earliest = min([known.began, *known.dates])
        agree = known.dates and all(abs(date - now) <= _AGREE for date in known.dates)
        known.mark = earliest if agree else earliest - _QUIET
        known.complete_at, known.dates, known.away = known.began, [], None

    # --- answers -----------------------------------------------------------------------------------------------------

    def misses(self, question: Question) -> None:
        """Take note of an answer that did not arrive in whole."""
        if question.stream:
            known = self.streams[question.stream]
            known.narrowed = known.ended = True

    def takes_in(self, question: Question, body: bytes, date: datetime | None) -> None:
        """Take in an answer that arrived in whole; `date` is its Date."""
        whole = Whole.read(body)
        self._hears(date)
        if question.stream is None:
            self._takes_in_by_id(question, whole, date)
            return
        known = self.streams[question.stream]
        if whole.broken:
            known.narrowed = known.ended = True
            if len(whole.jobs) == 1:
                self._leaves_out(whole.jobs[0], known)
            return
        off = date - self.clock() if date else _NONE
        if known.away and known.away + min(off, _NONE) - abs(self.skew) <= LOOKBACK:
            known.maybe = True  # by CI's clock it was not away for so long
        for job in _once(whole.jobs):
            if job.state is None:
                self._leaves_out(job, known)
            else:
                self._sees(job, date, silent=self._silent(job, known, not known.mark, abs(off - self.skew)))
        if question.token is None and not known.narrowed and len(known.dates) < _FEW:
            known.dates = []  # a longer list may go on where it was
        known.dates.append(date or self.clock() - _QUIET)
        known.ended = whole.next_token is None
        if known.ended and not known.narrowed:
            self._complete(known)

    def _takes_in_by_id(self, question: Question, whole: Whole, date: datetime | None) -> None:
        now = self.clock()
        if whole.broken and len(question.ids) > 1:
            return  # each is asked for alone
        for job_id in question.ids:
            if job_id in self.gone:
                self.gone[job_id].asked_at = now
            if job_id in self.left_out:
                self.left_out[job_id].asked_at = now
        if whole.broken:
            return
        shown = [job for job in _once(whole.jobs) if job.id in question.ids]
        for job in shown:
            if job.state is not None:
                known = self.left_out[job.id].known if job.id in self.left_out else None
                self._sees(job, date, silent=self._silent(job, known, False, _NONE) if known else False)
        for job_id in {*question.ids} & {*whole.missing} - {job.id for job in shown}:
            if self.steps.get(job_id) and self.steps[job_id][-1].to not in (*FINAL, GONE):
                self._denies(job_id, now)

    def takes_in_hinted(
        self, question: Question, body: bytes, date: datetime | None, in_force: Sequence[Stream]
    ) -> None:
        """Take in an answer about jobs that a callback named."""
        whole = Whole.read(body)
        self._hears(date)
        for job in _once(whole.jobs) if not whole.broken else ():
            known = self.streams_of(Stream(job.tag, job.queue), in_force)
            if job.id not in question.ids or job.state is None or not known:
                continue
            if self.steps.get(job.id):
                self._sees(job, date)
            elif known[0] and known[0].mark:
                left_out, known_from = self.left_out.get(job.id), max(known[0].old_until, known[0].news_from)
                silent = self._silent(job, left_out.known if left_out else known[0], False, _NONE)
                if job.created_at and job.created_at < known_from - LOOKBACK + _QUIET:  # by one of the clocks
                    silent = None
                self._sees(job, date, silent=silent)

    def streams_of(self, which: Stream, in_force: Sequence[Stream]) -> list[Known | None]:
        """Return what is known of the streams that have such jobs, in their order; None: it was never asked for."""
        return [self.streams.get(stream) for stream in in_force if stream.covers(which)]

    def is_unsure_of(self, which: Stream, in_force: Sequence[Stream]) -> bool:
        """Tell whether nobody knows if a stream that has such jobs was listed to the end."""
        known = self.streams_of(which, in_force)
        listed = {bool(one and one.mark) for one in known}
        return len(listed) > 1 or any(one and (one.maybe or one.away) for one in known)

    def _denies(self, job_id: str, now: datetime) -> None:
        one = self.denials.setdefault(job_id, Denial(0, now, now))
        if one.times and self.began and one.last >= self.began:
            return
        one.times, one.last = one.times + 1, now
        if one.times >= 3 and one.last - one.first >= 2 * EVERY:
            last = self.steps[job_id][-1]
            self.steps[job_id].append(Step(last.to, GONE, last.queue, now, now, now))
            self.gone[job_id] = Gone(now, now)

    def _leaves_out(self, job: Shown, known: Known) -> None:
        if not self.steps.get(job.id):
            self.left_out.setdefault(job.id, LeftOut(self.clock(), self.clock(), known, not known.mark))

    def _sees(self, job: Shown, date: datetime | None, *, silent: bool | None = False) -> None:
        steps, state = self.steps[job.id], str(job.state)
        self.left_out.pop(job.id, None)
        self.denials.pop(job.id, None)
        self.gone.pop(job.id, None)
        last = steps[-1].to if steps else NEW
        if last in FINAL:
            return
        had_started, self.started[job.id] = self.started.get(job.id, False), bool(job.started_at)
        if last == state:
            return
        named = self._named(steps) if last == GONE else last
        was = named if named != state else last
        now, silent = self.clock(), silent if last == NEW else False
        if silent is not True and job.proves(max(now, date or now)):
            before = was
            for proved in _proved(job, named, had_started):
                steps.append(Step(before, proved, job.queue, now, now, now, silent, inferred=True))
                before = proved
        steps.append(Step(was, state, job.queue, now, *self._happened(job, last, now), silent))

    def _hears(self, date: datetime | None) -> None:
        if date:
            self.behind = min(self.behind, date - self.clock())

    def _happened(self, job: Shown, last: str, now: datetime) -> tuple[datetime, datetime]:
        """Return between which times a job came to its state: when CI says, but not later than by either clock."""
        was_new = (last, job.state) == (NEW, "Submitted")
        said = job.ended_at if job.state in FINAL else job.created_at if was_new else None
        is_certain = said and said <= now and job.proves(now)
        return min(said or now, now + self.behind), said if said and is_certain else now + LATER

    def _named(self, steps: list[Step]) -> str:
        return next(step.to for step in reversed(steps) if step.to != GONE)

    def _silent(self, job: Shown, known: Known, first: bool, off: timedelta) -> bool | None:
        if job.id in self.left_out:
            first = self.left_out[job.id].first
        created = job.created_at
        if self.announce or not first:  # a list that goes back further than the first one shows nothing that is news
            return None if created and created < known.old_until - LOOKBACK + _QUIET else False
        if created is None:
            return None
        if created > known.news_from:
            return False
        return None if known.maybe or created >= known.old_until - off else True

    def groups(self) -> set[str]:
        """Return the jobs that a rule over several jobs tells of, if each is a group of its own: those that are over.

        Nobody is notified of a group that was over before anybody looked.
        """
        over = {job_id for job_id, steps in self.steps.items() if any(step.to in (*FINAL, GONE) for step in steps)}
        return {job_id for job_id in over if not self._was_over(self.steps[job_id])}

    @staticmethod
    def _was_over(steps: list[Step]) -> bool:
        return bool(steps[0].silent) and steps[0].to in (*FINAL, GONE)

    def must_receive(self) -> dict[tuple[str, str, int], Step]:
        """Return what is sent to whom, by (notifier, job, number of the transition)."""
        return {
            (notifier, job_id, number): step
            for job_id, steps in self.steps.items()
            for number, step in enumerate(steps, 1)
            for notifier in _notifiers(step)
        }


def _proved(job: Shown, last: str, had_started: bool) -> Iterable[str]:
    if last == NEW and job.created_at and job.state in ("Running", *FINAL):
        yield "Submitted"
    if job.started_at and job.state in FINAL and (last in (NEW, "Submitted") or (last == "Pause" and not had_started)):
        yield "Running"


def _notifiers(step: Step) -> tuple[str, ...]:
    """The rules of every world: `cms` gets all that is seen, `next` the starts and ends of what was in queue p1."""
    if step.silent:
        return ()
    cms = () if step.inferred else ("cms",)
    return (*cms, "next") if step.to in ("Running", *FINAL) and step.queue == "p1" else cms


def _once(jobs: Iterable[Shown]) -> list[Shown]:
    found: dict[str, Shown] = {}
    for job in jobs:
        if job.id not in found or _far(job) > _far(found[job.id]):
            found[job.id] = job
    return list(found.values())


def _far(job: Shown) -> int:
    return -1 if job.state is None else _FAR_ON.get(job.state, 0)
