"""One poll of one watch under way: what it knows, what it has seen, and which lists it asks for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import Connection

from bridge.collect.errors import CiError
from bridge.decide.changes.clocks import RESOLUTION, Chain, Clocks, begins_anew, believed, earlier
from bridge.decide.changes.diff import (
    asked_again,
    count_miss,
    diff,
    is_believed,
)
from bridge.decide.changes.scan import (
    DEEP,
    OVERLAP,
    Listing,
    Plan,
    Span,
    Way,
    is_deep_due,
    is_idle,
    lag_after,
    lag_of,
    most_to_know,
    overlap,
    takes_states,
    ways,
)
from bridge.decide.routing import RoutingResult
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import iso
from bridge.model import (
    DONE,
    GONE,
    Description,
    Job,
    ListProgress,
    MissingJob,
    Stream,
    Transition,
    UnfinishedJob,
    Watch,
)
from bridge.record.polling import problems, snapshots
from bridge.record.polling.snapshots import Known

_MOST_ERRORS = 5  # different ones of one poll, in its text


class Halted(Exception):
    """The process is stopping: the poll is given up, and what it has stored stays."""


@dataclass(slots=True)
class PollResult:
    """The result of one poll of one watch."""

    watch: str
    calls: int = 0
    jobs: int = 0
    transitions: int = 0
    deliveries: int = 0
    overdue: int = 0  # level rules that fired, for each job
    error: CiError | None = None  # the first
    behind: list[str] = field(default_factory=list)  # tags whose list continues in the next poll
    progress: list[ListProgress] = field(default_factory=list)  # of lists that go on, or are kept for the next poll

    def count(self, routings: Sequence[RoutingResult]) -> None:
        """Count the transitions that were seen, and all deliveries."""
        self.transitions += sum(not routing.transition.inferred for routing in routings)
        self.deliveries += sum(len(routing.deliveries) for routing in routings)


# --- a poll under way -----------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Poll:
    """One poll under way: what was known when it began, what it has seen, and of which jobs it notifies nobody."""

    watch: Watch
    book: Rulebook
    began: datetime
    result: PollResult
    planned: int = 0  # calls by id, of the plan
    failures: int = 0  # polls that failed in a row before this one
    waited_before_s: float = 0.0  # by calls for the bucket, for their turn
    probing: bool = False  # CI has not answered any call since before the last poll
    streams: dict[str, snapshots.Listed]  # on record, by key
    listings: list[Listing] = field(default_factory=list)
    deep: list[Listing] = field(default_factory=list)  # apart from `listings`
    going_on: list[Listing] = field(default_factory=list)  # the last of `listings`: the last poll has begun them
    unseen: dict[str, str] = field(default_factory=dict)  # jobs to ask for that no answer has shown, and their stream
    idle: set[str] = field(default_factory=set)  # streams that need not be listed yet
    seen: set[str] = field(default_factory=set)  # jobs that an answer has shown
    errors: dict[str, CiError] = field(default_factory=dict)  # by stream, the first
    incomplete: set[str] = field(default_factory=set)  # streams of which not all was seen
    left_out: dict[str, str] = field(default_factory=dict)  # jobs that could not be read so far, and their stream
    missing: dict[str, MissingJob] = field(default_factory=dict)  # jobs of the whole bucket that CI did not find
    lags: dict[str, timedelta] = field(default_factory=dict)  # by stream: how long it took CI to list a job that is new
    again: frozenset[str] = frozenset()  # jobs that are gone, and asked for again
    ignored: set[str] = field(default_factory=set)  # streams of whose jobs CI has ignored the states asked for
    clocks: Clocks | None = None  # of the last answer
    ahead: timedelta | None = None  # CI's clock, where it differed most from ours

    @classmethod
    def between(cls, tx: Connection, watch: Watch, book: Rulebook, now: datetime) -> Self:
        """Return what a poll would know that began now, for answers to questions between two polls."""
        return cls(
            watch=watch,
            book=book,
            began=now,
            result=PollResult(watch.name),
            streams=snapshots.listed(tx, [stream.key for stream in watch.streams]),
            missing=problems.missing_jobs(tx, watch.place.bucket),
        )

    def unseen_of(self, stream: Stream) -> list[str]:
        """Return which jobs of a stream are still to be seen."""
        own = stream.key
        return [job_id for job_id, key in self.unseen.items() if key == own]

    @property
    def complete(self) -> set[str]:
        """The streams all of whose unfinished jobs this poll has seen."""
        return self.streams.keys() - self.incomplete - self.idle

    @property
    def extra_calls(self) -> int:
        """How many calls more than planned it took: for what no list showed, and for what is listed once more."""
        deep = sum(listing.pages for listing in self.deep)
        pages = sum(listing.pages for listing in self.listings)
        return deep + max(0, self.result.calls - deep - pages - self.planned)

    def saw(self, stream: str, began: Transition) -> bool:
        """Tell whether this poll has seen a job in the state that `began` began; or not at all, if it is gone."""
        return began.job.id in self.seen or (began.to == GONE and stream in self.complete)

    def still_at(self, *streams: str) -> datetime | None:
        """Return when the last poll began that saw the jobs of these streams as they are on record."""
        polls = [known.seen_at if (known := self.streams.get(stream)) else None for stream in streams]
        return min((began for began in polls if began), default=None) if all(polls) else None

    def fail(self, error: CiError, streams: Iterable[str]) -> None:
        """Note an error because of which not all of these streams' jobs are seen."""
        self.result.error = self.result.error or error
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
            return str(self.result.error) if self.result.error else None
        texts = [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in tags.items()]
        more = f"; and {len(texts) - _MOST_ERRORS} more" if len(texts) > _MOST_ERRORS else ""
        return "; ".join(texts[:_MOST_ERRORS]) + more

    def answered(self, clocks: Clocks | None, stream: Stream | None = None, *, calls: int = 1) -> None:
        """Note a call that CI answered; by CI's clock its stream may not have been out of the rules for long."""
        self.probing = False
        self.result.calls += calls
        if clocks is None:
            return
        self.clocks, ahead = clocks, clocks.ahead
        if ahead is None:
            return
        self.ahead = max(ahead, self.ahead or timedelta(0), key=abs)
        if stream is None:
            return
        listed = self.streams[stream.key]
        back_at = listed.told_from + min(ahead, timedelta(0))
        if listed.out_at and not begins_anew(
            out_at=listed.out_at, back_at=back_at, mark=listed.mark_before, lookback=self.watch.lookback
        ):
            self.streams[stream.key] = replace(listed, mark=listed.mark_before)

    def diff(
        self,
        before: Mapping[str, Known],
        jobs: Sequence[Job],
        silence: Callable[[Job], str | None],
        *,
        now: datetime,
        still_at: datetime | None,
    ) -> Sequence[Transition]:
        return diff(
            {job_id: known.seen for job_id, known in before.items()},
            jobs,
            watch=self.watch.name,
            now=earlier(now, self.ahead),
            silence=silence,
            still_at=still_at,
            is_possible=self.clocks.is_possible if self.clocks else lambda _: True,
        )

    def dated(self, transitions: Iterable[Transition]) -> list[Transition]:
        """Set `still_at` of jobs that CI did not find meanwhile to the last poll that did see them."""
        dated = []
        for transition in transitions:
            missing = self.missing.get(transition.job.id)
            was_open = missing and (transition.to == GONE or not missing.is_gone)
            dated.append(replace(transition, still_at=missing.seen_at) if missing and was_open else transition)
        return dated

    def show(self, tx: Connection, jobs: Iterable[Job]) -> None:
        """Take note of jobs that an answer shows; that CI did not find them before counts no more."""
        shown = [job.id for job in jobs if self.missing.pop(job.id, None)]
        problems.forget_missing(tx, self.watch.place.bucket, shown)
        for job in jobs:
            self.unseen.pop(job.id, None)
            self.seen.add(job.id)

    def note_missing(self, tx: Connection, found: Description, before: Mapping[str, Known], now: datetime) -> list[str]:
        """Take note of the jobs of `before` that an answer does not show; return those that are gone from now on."""
        shown = {job.id for job in found.jobs} | {problem.job_id for problem in found.problems}
        gone_now, kept, over = list[str](), dict[str, MissingJob](), list[str]()
        for job_id, known in before.items():
            if job_id in shown:
                continue
            missing, is_gone = self.missing.get(job_id), known.seen.state == GONE
            if job_id in found.missing and known.seen.state not in DONE:
                seen_at = self.still_at(known.stream)
                missing = count_miss(missing, stream=known.stream, began=self.began, now=now, seen_at=seen_at)
                if not is_gone and is_believed(missing, every=self.watch.every):
                    gone_now.append(job_id)
            if missing and (is_gone or job_id in gone_now):
                missing = asked_again(missing, now=now)
            if missing:
                kept[job_id] = missing
            else:
                over.append(job_id)
        problems.save_missing(tx, self.watch.place.bucket, kept)
        problems.forget_missing(tx, self.watch.place.bucket, over)
        self.missing |= kept
        return gone_now

    def end(self, tx: Connection, stream: Stream, chain: Chain) -> None:
        """Store up to when a stream is known, now that its chain has ended.

        If CI's clock shows that the stream was out of the rules only briefly, the list started too late: the stream
        keeps its mark, and the next poll lists it again.
        """
        listed = self.streams[stream.key]
        if listed.out_at:
            snapshots.come_back(tx, stream.key)
        if not (listed.out_at and listed.mark):
            snapshots.set_mark(tx, stream.key, chain.mark(listed.mark))

    def end_deep(self, tx: Connection, stream: Stream, chain: Chain) -> None:
        """Store that a chain that began well before the mark has ended: the next one need not begin so early."""
        listed = self.streams[stream.key]
        had_news = listed.deep_at and listed.news_at and listed.news_at >= listed.deep_at
        lag = max(lag_after(listed.lag), self.lags.get(stream.key, timedelta(0))) if had_news else listed.lag
        snapshots.note_deep(tx, stream.key, chain.began, lag)
        self.streams[stream.key] = replace(listed, lag=lag, deep_at=chain.began)

    def note_news(self, tx: Connection, stream: Stream, jobs: Iterable[Job], now: datetime) -> None:
        """Take note of jobs that a list shows for the first time, and of how long it took CI to list them."""
        listed = self.streams[stream.key]
        created = [job.created_at for job in jobs if job.created_at and job.id not in self.left_out]
        lag = listed.lag
        if listed.mark and (found := lag_of(min(listed.mark, self.began), created)) > timedelta(0):
            self.lags[stream.key] = lag = max(found, lag or timedelta(0))
        snapshots.note_news(tx, stream.key, now, lag)
        self.streams[stream.key] = replace(listed, lag=lag, news_at=now)

    def reason_for_silence_of_left_out(self, of_first: Collection[str]) -> Callable[[Job], str | None]:
        """Return why nobody is notified of a job that was left out until now: it is as old as when first listed."""
        streams = {stream.key: stream for stream in self.watch.streams}

        def why(job: Job) -> str | None:
            stream = streams.get(self.left_out.get(job.id, ""))
            return self.reason_for_silence(stream, None, [job], of_first=of_first)(job) if stream else None

        return why

    def reason_for_silence(
        self, stream: Stream, horizon: datetime | None, jobs: Iterable[Job], *, of_first: Collection[str]
    ) -> Callable[[Job], str | None]:
        """Return why nobody is notified of a job that this stream shows for the first time, in one answer with `jobs`.

        None: it is news. Nobody is notified of a job
        - that was created up to `horizon`: it may have been sent, and pruned;
        - that the first snapshot shows, or would have shown but for an error (`of_first`), and that was created before
          the stream was first asked for, unless the watch announces its first snapshot;
        - that a later list shows, and that was created before what the first snapshot listed.
        """
        listed, clocks = self.streams[stream.key], self.clocks
        times = [job.created_at for job in jobs if job.created_at]
        news_from = min(listed.told_from, self.began) + (clocks.jobs_ahead(times) if clocks else timedelta(0))
        looked_from = news_from - self.watch.lookback - OVERLAP
        text = f'first snapshot of {stream.tag} in watch "{self.watch.name}"'
        if listed.out_at:
            text += f", not watched from {iso(listed.out_at)} to {iso(listed.told_from)}"

        def why(job: Job) -> str | None:
            created = job.created_at
            if horizon and created and created <= horizon:
                return "older than what is kept"
            if listed.mark and job.id not in of_first:
                is_before = listed.told_from <= self.began and created and created < looked_from
                return f"older than the {text}" if is_before else None
            is_news = created and created > news_from and (clocks is None or clocks.is_possible(created))
            return None if is_news or self.watch.announce_first else text

        return why


def meet_streams(tx: Connection, watch: Watch, book: Rulebook, began: datetime, complete_at: datetime | None) -> None:
    """Record the streams that are asked for the first time, and from when on their jobs are news.

    That is now; or since another stream's last complete listing that covers this one (a watch that overlaps, a queue
    taken out); or since this watch's last complete poll (a tag added): nobody was notified of what came after it.
    """
    streams = [stream for other in book.watches for stream in other.streams]
    listed = snapshots.listed(tx, {stream.key for stream in (*streams, *watch.streams)})
    for stream in watch.streams:
        if stream.key not in listed:
            marks = [known.mark for s in streams if (known := listed.get(s.key)) and known.mark and s.covers(stream)]
            since = max(marks, default=complete_at)
            snapshots.meet(tx, stream.key, min(since - RESOLUTION, began) if since else began)


def can_wait(poll: Poll, stream: Stream) -> bool:
    """Tell whether a stream need not be listed yet, and there is nothing else to ask of it."""
    listed = poll.streams[stream.key]
    news_at = max(listed.told_from, listed.news_at or listed.told_from)
    idle = is_idle(watch=poll.watch, mark=listed.mark, news_at=news_at, now=poll.began)
    return idle and not poll.unseen_of(stream)


def ways_of(tx: Connection, poll: Poll, stream: Stream, unfinished: Sequence[UnfinishedJob]) -> list[Way]:
    """Return which lists may be asked for of a stream, whose unfinished jobs these are."""
    listed = poll.streams[stream.key]
    by_state = takes_states(listed.states_ignored_at, now=poll.began)
    if listed.mark is None:
        first = min(poll.began, listed.told_from) - poll.watch.lookback
        return ways(latest=first - OVERLAP, unfinished=unfinished, known_from=poll.began, by_state=by_state)
    mark = believed(listed.mark, now=poll.began, lookback=poll.watch.lookback)
    latest = mark - overlap(listed.lag)
    older = [job for job in unfinished if job.created_at < latest]
    if not older:
        return ways(latest=latest, unfinished=unfinished)
    most = snapshots.count_since(tx, stream.key, latest) + most_to_know(len(older), by_state=by_state)
    most, before = min(most, snapshots.MOST_KNOWN), mark - (poll.began - mark)
    known = snapshots.created_since(tx, stream.key, min(older[0].created_at - RESOLUTION, before), most=most)
    horizon = snapshots.horizon(tx, stream.place.bucket)
    complete = [known[0]] if len(known) == most else []
    complete += [horizon + RESOLUTION] if horizon else []
    return ways(
        latest=latest,
        unfinished=unfinished,
        known_created=known,
        known_from=max(complete, default=None),
        arrivals=len(known) - bisect_left(known, before),
        by_state=by_state,
    )


def deep_list_since(tx: Connection, poll: Poll, stream: Stream) -> datetime | None:
    """Return from when on jobs are to be listed once more, if that is due."""
    listed = poll.streams[stream.key]
    if listed.mark is None or not is_deep_due(listed.deep_at, now=poll.began):
        return None
    horizon = snapshots.horizon(tx, stream.place.bucket)
    since = believed(listed.mark, now=poll.began, lookback=poll.watch.lookback) - DEEP
    return max(since, horizon + RESOLUTION) if horizon else since


def new_listings(poll: Poll, stream: Stream, planned: Plan, deep_since: datetime | None) -> Iterator[Listing]:
    """Yield the lists of a stream: of all jobs, of the unfinished ones before that, and of what is listed once more."""
    key = stream.key
    known_to, left = poll.streams[key].mark, {*poll.left_out, *poll.again}
    also = {job_id for job_id in left if poll.unseen.get(job_id) == key}
    until = planned.since + RESOLUTION

    def listing(span: Span, **facts: Any) -> Listing:
        return Listing(stream=stream, chain=Chain(began=poll.began), spans=[span], **facts)

    is_deep = known_to is None or (deep_since is not None and planned.since <= deep_since)
    yield listing(Span(since=planned.since), known_to=known_to, job_ids=planned.shown | also, deep=is_deep)
    if planned.unfinished_since:
        span = Span(since=planned.unfinished_since, until=until)
        yield listing(span, job_ids=planned.by_state, by_state=True, moves_mark=False)
    if deep_since and not is_deep:
        yield listing(Span(since=deep_since, until=until), deep=True, moves_mark=False)
