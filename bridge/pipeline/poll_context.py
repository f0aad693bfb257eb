"""One poll under way: what was known when it began, and which jobs it tells of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.collect.errors import CiError
from bridge.decide.changes.clocks import RESOLUTION, Chain, Clocks, begins_anew
from bridge.decide.changes.diff import asked_again, denied, is_believed
from bridge.decide.changes.scan import OVERLAP, Listing
from bridge.decide.routing import RoutingResult
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import iso
from bridge.model import DONE, GONE, Description, Job, MissingJob, Stream, Transition, Watch
from bridge.record.polling import problems, snapshots
from bridge.record.polling.snapshots import Known

logger = logging.getLogger(__name__)

_MOST_SAID = 5  # different errors of one poll


@dataclass(slots=True)
class Poll:
    """What one poll of one watch came to."""

    watch: str
    calls: int = 0
    jobs: int = 0
    transitions: int = 0
    deliveries: int = 0
    stays: int = 0  # that a level rule told of
    error: CiError | None = None  # the first
    behind: list[str] = field(default_factory=list)  # tags whose list goes on in the next poll

    def count(self, routings: Sequence[RoutingResult]) -> None:
        """Count transitions, and what is told of them."""
        self.transitions += len(routings)
        self.deliveries += sum(len(routing.deliveries) for routing in routings)


@dataclass(slots=True, kw_only=True)
class PollContext:
    """One poll under way."""

    watch: Watch
    book: Rulebook
    began: datetime
    poll: Poll
    failures: int  # polls that failed in a row before this one
    probing: bool  # CI answered nothing in the last poll, nor yet in this one
    listed: dict[str, snapshots.Listed]
    listings: list[Listing] = field(default_factory=list)
    going_on: list[Listing] = field(default_factory=list)  # the last of `listings`: the last poll has begun them
    unseen: dict[str, str] = field(default_factory=dict)  # jobs to ask for that no answer has shown, and their stream
    seen: set[str] = field(default_factory=set)  # jobs that an answer has shown
    errors: dict[str, CiError] = field(default_factory=dict)  # by stream, the first
    incomplete: set[str] = field(default_factory=set)  # streams of which not all was seen
    left_out: dict[str, str] = field(default_factory=dict)  # jobs that could not be read so far, and their stream
    missing: dict[str, MissingJob] = field(default_factory=dict)  # what CI denied, of the whole bucket
    clocks: Clocks | None = None  # of the last answer
    ahead: timedelta | None = None  # CI's clock, where it differed most from ours

    @property
    def complete(self) -> set[str]:
        """The streams all of whose unfinished jobs this poll has seen."""
        return self.listed.keys() - self.incomplete

    def saw(self, stream: str, stay: Transition) -> bool:
        """Tell whether this poll has seen a job of a stream in the state that `stay` began; or not, if it is gone."""
        return stay.job.id in self.seen or (stay.to == GONE and stream in self.complete)

    def still_at(self, *streams: str) -> datetime | None:
        """Return when the last poll began that saw the jobs of these streams as they are on record."""
        polls = [known.seen_at if (known := self.listed.get(stream)) else None for stream in streams]
        return min((one for one in polls if one), default=None) if all(polls) else None

    def answered(self) -> None:
        """Note a call that CI answered."""
        self.probing = False
        self.poll.calls += 1

    def fail(self, error: CiError, streams: Iterable[str]) -> None:
        """Note an error because of which not all of these streams' jobs are seen."""
        self.poll.error = self.poll.error or error
        for key in streams:
            self.errors.setdefault(key, error)
        self.incomplete.update(streams)

    @property
    def error(self) -> str | None:
        """What went wrong, with the tags that it is about unless it is about all."""
        tags: dict[str, list[str]] = {}
        for stream in self.watch.streams:
            if stream.key in self.errors:
                tags.setdefault(str(self.errors[stream.key]), []).append(stream.tag)
        of_all = len(tags) == 1 and all(stream.key in self.errors for stream in self.watch.streams)
        if not tags or of_all:
            return str(self.poll.error) if self.poll.error else None
        said = [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in tags.items()]
        more = f"; and {len(said) - _MOST_SAID} more" if len(said) > _MOST_SAID else ""
        return "; ".join(said[:_MOST_SAID]) + more

    def compare(self, clocks: Clocks, stream: Stream | None = None) -> None:
        """Take note of the clocks of an answer: by CI's its stream may not have been out of the rules for long."""
        self.clocks, ahead = clocks, clocks.ahead
        if ahead is None:
            return
        self.ahead = max(ahead, self.ahead or timedelta(0), key=abs)
        if stream is None:
            return
        listed = self.listed[stream.key]
        back_at = listed.told_from + min(ahead, timedelta(0))
        if listed.out_at and not begins_anew(
            out_at=listed.out_at, back_at=back_at, mark=listed.mark_before, lookback=self.watch.lookback
        ):
            self.listed[stream.key] = replace(listed, mark=listed.mark_before)

    def show(self, tx: Connection, jobs: Iterable[Job]) -> None:
        """Take note of jobs that an answer shows: what CI denied of them counts no more."""
        shown = [job.id for job in jobs if self.missing.pop(job.id, None)]
        problems.forget_denials(tx, self.watch.place.bucket, shown)
        for job in jobs:
            self.unseen.pop(job.id, None)
            self.seen.add(job.id)

    def dated(self, steps: Iterable[Transition]) -> list[Transition]:
        """Return transitions with when the last poll saw the job before: of one that CI denied not since."""
        found = []
        for step in steps:
            denied = self.missing.get(step.job.id)
            was_open = denied and (step.to == GONE or not denied.is_gone)
            found.append(replace(step, still_at=denied.seen_at) if denied and was_open else step)
        return found

    def deny(self, tx: Connection, found: Description, before: Mapping[str, Known], now: datetime) -> list[str]:
        """Take note of which jobs of `before` an answer does not show; return those that are gone from now on."""
        shown, denials = {job.id for job in found.jobs} | {one.job_id for one in found.problems}, set(found.missing)
        bucket, gone_now, kept, over = self.watch.place.bucket, list[str](), dict[str, MissingJob](), list[str]()
        for job_id in [job_id for job_id in before if job_id not in shown]:
            one, is_gone = self.missing.get(job_id), before[job_id].seen.state == GONE
            if job_id in denials and before[job_id].seen.state not in DONE:
                stream = before[job_id].stream
                one = denied(one, stream=stream, began=self.began, now=now, seen_at=self.still_at(stream))
                if not is_gone and is_believed(one, every=self.watch.every):
                    gone_now.append(job_id)
            if one and (is_gone or job_id in gone_now):
                one = asked_again(one, now=now)
            if one:
                kept[job_id] = one
            else:
                over.append(job_id)
        problems.save_denials(tx, bucket, kept)
        problems.forget_denials(tx, bucket, over)
        self.missing |= kept
        return gone_now

    def end(self, tx: Connection, stream: Stream, chain: Chain) -> None:
        """Store up to when a stream is known, now that its chain has ended.

        One that was not out of the rules for so long, by CI's clock, was listed from too late: that takes another poll.
        """
        listed = self.listed[stream.key]
        if listed.out_at:
            snapshots.come_back(tx, stream.key)
        if not (listed.out_at and listed.mark):
            snapshots.set_mark(tx, stream.key, chain.mark(listed.mark))

    def silence_of_left_out(self, of_first: Collection[str]) -> Callable[[Job], str | None]:
        """Return why a job that was left out until now is told to nobody: it is as old as when it was first listed."""
        streams = {stream.key: stream for stream in self.watch.streams}

        def why(job: Job) -> str | None:
            stream = streams.get(self.left_out.get(job.id, ""))
            return self.silence(stream, None, [job], of_first=of_first)(job) if stream else None

        return why

    def silence(
        self,
        stream: Stream,
        horizon: datetime | None,
        jobs: Iterable[Job] = (),
        *,
        of_first: Collection[str] = frozenset(),
    ) -> Callable[[Job], str | None]:
        """Return why a job that this stream shows for the first time, in one answer with `jobs`, is told to nobody.

        The first snapshot of a stream is silent about jobs from before it was first asked for. A later list that goes
        back further than that one did is so too. Jobs up to the horizon may have been told and pruned. Those
        `of_first` were in the first snapshot, and left out as they could not be read.
        """
        listed, clocks = self.listed[stream.key], self.clocks
        times = [job.created_at for job in jobs if job.created_at]
        told_from = min(listed.told_from, self.began) + (clocks.jobs_ahead(times) if clocks else timedelta(0))
        looked_from = told_from - self.watch.lookback - OVERLAP
        said = f'first snapshot of {stream.tag} in watch "{self.watch.name}"'
        if listed.out_at:
            said += f", not watched from {iso(listed.out_at)} to {iso(listed.told_from)}"

        def why(job: Job) -> str | None:
            created = job.created_at
            if horizon and created and created <= horizon:
                return "older than what is kept"
            if listed.mark and job.id not in of_first:
                is_before = listed.told_from <= self.began and created and created < looked_from
                return f"older than the {said}" if is_before else None
            is_news = created and created > told_from and (clocks is None or clocks.is_possible(created))
            return None if is_news or self.watch.announce_first else said

        return why


def meet(tx: Connection, watch: Watch, book: Rulebook, began: datetime, complete_at: datetime | None) -> None:
    """Make the streams known that are asked for the first time, and say from when on their jobs are news.

    That is now; or since another stream's last complete listing that covers this one (a watch that overlaps, a queue
    taken out); or since this watch's last complete poll (a tag added): what came after it nobody has told.
    """
    streams = [stream for one in book.watches for stream in one.streams]
    listed = snapshots.listed(tx, {stream.key for stream in (*streams, *watch.streams)})
    for stream in watch.streams:
        if stream.key not in listed:
            marks = [known.mark for s in streams if (known := listed.get(s.key)) and known.mark and s.covers(stream)]
            since = max(marks, default=complete_at)
            snapshots.meet(tx, stream.key, min(since - RESOLUTION, began) if since else began)


def note_rules(tx: Connection, watches: Sequence[Watch], now: datetime) -> None:
    """Remember which streams are in the rules. One that was out of them for longer than its watch's `lookback` begins
    anew, silently: what happened meanwhile is no news, unless another stream that covers it was to tell it.
    """
    streams = {stream.key: (stream, watch) for watch in watches for stream in watch.streams}
    snapshots.leave(tx, streams, now=now)
    left = snapshots.left(tx, streams)
    anew = {
        key: out_at
        for key, (out_at, mark) in left.items()
        if begins_anew(out_at=out_at, back_at=now, mark=mark, lookback=streams[key][1].lookback)
    }
    marks = {key: known.mark for key, known in snapshots.listed(tx, streams.keys() - anew).items() if known.mark}
    for key in left.keys() - anew:
        snapshots.come_back(tx, key)
    for key, out_at in anew.items():
        stream, watch = streams[key]
        covered = [mark - RESOLUTION for other, mark in marks.items() if streams[other][0].covers(stream)]
        told_from = max(min(max(covered, default=now), now), out_at + RESOLUTION)
        snapshots.come_back(tx, key, told_from=told_from)
        facts = {"watch": watch.name, "tag": stream.tag, "out_from": iso(out_at), "out_to": iso(told_from)}
        logger.warning("a stream that was out of the rules begins anew, silently", extra=facts)
