"""One poll of one watch: plan the calls, and store each page that arrives in one transaction.

What is fresh goes first: the first page of every list, then unfinished jobs that no list is to show, by id, and what
is left of lists of unfinished jobs. Longer lists then take turns, page by page; with a bound on time, what is left of
them continues in the next poll.
"""

from __future__ import annotations

import itertools
import logging
import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from bridge.collect.errors import AuthError, BrokenReply, CiError, ClockError, ConfigError, TemporaryError, Throttled
from bridge.decide.changes.clocks import RESOLUTION, Chain, Clocks, begins_anew, believed, earlier
from bridge.decide.changes.diff import (
    ASKED_AGAIN,
    asked_again,
    count_miss,
    diff,
    gone_transitions,
    is_believed,
    latest,
    to_ask_again,
)
from bridge.decide.changes.scan import (
    DEEP,
    LISTED_STATES,
    OVERLAP,
    Listing,
    Plan,
    Span,
    Way,
    cheapest,
    due_at,
    in_tens,
    is_deep_due,
    is_due,
    is_idle,
    lag_after,
    lag_of,
    most_to_know,
    next_poll,
    overlap,
    pause,
    takes_states,
    ways,
)
from bridge.decide.routing import RoutingResult
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import iso
from bridge.model import (
    DONE,
    GONE,
    IDS_PER_CALL,
    PAGE_SIZE,
    Description,
    Job,
    JobProblem,
    ListProgress,
    MissingJob,
    Page,
    Stream,
    Transition,
    UnfinishedJob,
    Watch,
)
from bridge.pipeline import queues
from bridge.pipeline.route import route_all, route_overdue_jobs
from bridge.pipeline.sight import note_poll
from bridge.record import counters, rulesets
from bridge.record.database import Clock, Database, at, ms
from bridge.record.polling import leases, problems, snapshots
from bridge.record.polling.snapshots import Known

if TYPE_CHECKING:
    from bridge.collect.client import TencentCi

logger = logging.getLogger(__name__)

_SAME_FOR_ALL_STREAMS = (AuthError, ClockError, Throttled)  # the next stream's call would fail the same way
_REPORTED = timedelta(seconds=30)
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
    failures: int  # polls that failed in a row before this one
    waited_before_s: float = 0.0  # by calls for the bucket, for their turn
    probing: bool  # CI has not answered any call since before the last poll
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


def _meet(tx: Connection, watch: Watch, book: Rulebook, began: datetime, complete_at: datetime | None) -> None:
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


def _is_idle(poll: Poll, stream: Stream) -> bool:
    """Tell whether a stream need not be listed yet, and there is nothing else to ask of it."""
    listed = poll.streams[stream.key]
    news_at = max(listed.told_from, listed.news_at or listed.told_from)
    idle = is_idle(watch=poll.watch, mark=listed.mark, news_at=news_at, now=poll.began)
    return idle and not poll.unseen_of(stream)


def _ways(tx: Connection, poll: Poll, stream: Stream, unfinished: Sequence[UnfinishedJob]) -> list[Way]:
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


def _deep_since(tx: Connection, poll: Poll, stream: Stream) -> datetime | None:
    """Return from when on jobs are to be listed once more, if that is due."""
    listed = poll.streams[stream.key]
    if listed.mark is None or not is_deep_due(listed.deep_at, now=poll.began):
        return None
    horizon = snapshots.horizon(tx, stream.place.bucket)
    since = believed(listed.mark, now=poll.began, lookback=poll.watch.lookback) - DEEP
    return max(since, horizon + RESOLUTION) if horizon else since


def _new_listings(poll: Poll, stream: Stream, planned: Plan, deep_since: datetime | None) -> Iterator[Listing]:
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


# --- polling --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Poller:
    """Polls watches for one worker, whose id is the token of its leases."""

    db: Database
    source: TencentCi
    clock: Clock
    worker: str
    on_stored: Callable[[], None] = lambda: None
    halted: Callable[[], bool] = lambda: False
    between_calls: Callable[[Poll], None] = lambda _: None  # what else is asked of CI meanwhile
    monotonic: Callable[[], float] = time.monotonic
    # By stream, when its long list said last how far it has come.
    _reported: dict[str, datetime] = field(default_factory=dict, init=False)
    _listings: dict[str, Listing] = field(default_factory=dict, init=False)  # by stream: continue in the next poll
    _extra: dict[str, int] = field(
        default_factory=dict, init=False
    )  # by watch: calls, one of which an interval may cost
    _paces: dict[str, str] = field(default_factory=dict, init=False)  # by bucket: as this process stored it last
    _deep: dict[str, Listing] = field(default_factory=dict, init=False)  # by stream: likewise

    def due(self, watches: Iterable[Watch], *, early: timedelta = timedelta(0)) -> list[Watch]:
        """Return the watches whose time has come, or comes within `early`, the one that waits longest first."""
        by_name = {watch.name: watch for watch in watches}
        with self.db.read() as tx:
            rows = leases.polls(tx, by_name)
        soon = ms(self.clock() + early)
        return [
            by_name[row.name]
            for row in rows
            if not row.paused
            and is_due(
                next_poll_at=row.next_poll_at,
                polled_at=row.polled_at,
                failures=row.failures,
                every=by_name[row.name].every,
                now=soon,
            )
        ]

    def next_due(self, watches: Iterable[Watch]) -> datetime | None:
        """Return when the first of those of these watches comes due that are not due now; None without any."""
        by_name = {watch.name: watch for watch in watches}
        with self.db.read() as tx:
            rows = [row for row in leases.polls(tx, by_name) if not row.paused]
        times = [
            due_at(
                next_poll_at=row.next_poll_at,
                polled_at=row.polled_at,
                failures=row.failures,
                every=by_name[row.name].every,
            )
            for row in rows
        ]
        return min((at(time) for time in times if time > ms(self.clock())), default=None)

    def poll_once(self, watch: Watch, book: Rulebook, *, within: timedelta | None = None) -> PollResult | None:
        """Poll a watch now; None when another worker is at its bucket.

        After `within`, or when another watch of the bucket is due, lists that go on are left for the next poll, which
        is then due at once; until then this worker keeps the bucket.
        """
        result = self._poll_once(watch, book, within)
        if result and not result.error and not result.behind:
            with suppress(leases.LeaseLost, Halted):
                queues.refresh(self, watch.place)
        return result

    def _poll_once(self, watch: Watch, book: Rulebook, within: timedelta | None) -> PollResult | None:
        until_s = None if within is None else self.monotonic() + within.total_seconds()
        try:
            with ExitStack() as unless_ended:
                unless_ended.callback(self.release, watch.place.bucket)
                result = self._poll(watch, book, until_s)
                unless_ended.pop_all()
                return result
        except leases.LeaseLost:
            logger.warning("poll given up, another worker has the bucket", extra={"watch": watch.name})
        except rulesets.OtherRules as error:
            logger.warning("poll given up, other rules are in force", extra={"watch": watch.name, "reason": str(error)})
        except Halted:
            pass
        return None

    def extra_calls(self, watch: str) -> int:
        """Return how many calls more than planned this worker's polls of a watch took, less one for each interval."""
        return self._extra.get(watch, 0)

    def acquire(self, tx: Connection, bucket: str) -> bool:
        """Take a bucket, with the pace at which it was asked for of late; False if another worker has it."""
        if not leases.acquire(tx, bucket, self.worker, now=self.clock()):
            return False
        if (text := leases.pace_text(tx, bucket)) != self._paces.get(bucket):
            self.source.set_pace(bucket, leases.pace_of(text), now=self.clock())
        return True

    def release(self, bucket: str) -> None:
        """Let go of a bucket, if it is still ours."""
        with self.db.write() as tx:
            if leases.holds(tx, bucket, self.worker):
                self._store_pace(tx, bucket)
                leases.release(tx, bucket, self.worker)

    def _store_pace(self, tx: Connection, bucket: str) -> None:
        self._paces[bucket] = leases.text_of(self.source.pace(bucket, now=self.clock()))
        leases.set_pace(tx, bucket, self._paces[bucket])

    def note_crash(self, watch: Watch, book: Rulebook, error: Exception) -> None:
        """Store that a poll ended by a fault of the bridge itself: it was not complete. Raises OtherRules."""
        text = f"the poll was given up, as the bridge failed with {type(error).__name__}; the log says more"
        with self.db.write() as tx:
            if not self.acquire(tx, watch.place.bucket):
                return
            rulesets.require_in_force(tx, book.sha)
            (row,), now = leases.polls(tx, [watch.name]), self.clock()
            said = note_poll(tx, watch, book, began=now, error=text, goes_on=False, now=now)
            leases.polled(
                tx,
                watch.name,
                began=now,
                next_poll=now + watch.every,
                error=text,
                failures=row.failures + 1,
                calls=0,
                jobs=0,
            )
            leases.release(tx, watch.place.bucket, self.worker)
        if said:
            self.on_stored()

    def _poll(self, watch: Watch, book: Rulebook, until_s: float | None) -> PollResult | None:
        poll = self._begin(watch, book, whole=until_s is None)
        if poll is None:
            return None
        try:
            self._ask(poll, until_s)
        except CiError as error:  # every other call would fail the same way
            poll.fail(error, poll.streams)
        self._keep_listings(poll)
        self._extra[watch.name] = max(0, self._extra.get(watch.name, 0) - 1) + poll.extra_calls
        self._finish(poll)
        return poll.result

    def _begin(self, watch: Watch, book: Rulebook, *, whole: bool) -> Poll | None:
        """Take the bucket, and read what is known of it; None when another worker has it.

        `whole`: ask for idle streams too, as when a person asks for a poll.
        """
        bucket, keys = watch.place.bucket, [stream.key for stream in watch.streams]
        with self.db.write() as tx:
            if not self.acquire(tx, bucket):
                return None
            began = self.clock()
            rulesets.require_in_force(tx, book.sha)
            (row,) = leases.polls(tx, [watch.name])
            _meet(tx, watch, book, began, row.ok_at)
            problems.take_over_missing(tx, bucket, since=began - ASKED_AGAIN[-1], first=ASKED_AGAIN[0])
            missing = problems.missing_jobs(tx, bucket)
            again = {job_id: key for job_id, key in to_ask_again(missing, began) if key in keys}
            left_out = dict(problems.to_ask(tx, keys, now=began))
            unfinished = snapshots.unfinished(tx, keys)
            poll = Poll(
                watch=watch,
                book=book,
                began=began,
                result=PollResult(watch.name),
                failures=row.failures,
                waited_before_s=self.source.waited_s(bucket),
                probing=bool(row.failures) and not row.answered,
                streams=snapshots.listed(tx, keys),
                unseen={job.job_id: job.stream for job in unfinished} | again | left_out,
                again=frozenset(again),
                left_out=left_out,
                missing=missing,
            )
            # What the last poll has left, unless somebody else has finished it meanwhile.
            left = [(self._listings.pop(key, None), known.mark) for key, known in poll.streams.items()]
            current = {*watch.streams}  # a list goes on only with the keys and rates that the rules have now
            going_on = [(listing, mark) for listing, mark in left if listing and listing.stream in current]
            poll.going_on = [listing for listing, mark in going_on if listing.known_to == mark]
            begun = {listing.stream.key for listing in poll.going_on}
            for listing in poll.going_on:
                listing.job_ids = frozenset(poll.unseen_of(listing.stream))
            new = list[Listing]()
            if not whole and row.next_poll_at:
                poll.idle = {s.key for s in watch.streams if s.key not in begun and _is_idle(poll, s)}
            left_deep = self._left_deep(poll, current)
            streams = [stream for stream in watch.streams if stream.key not in begun | poll.idle]
            mine = defaultdict[str, list[UnfinishedJob]](list)
            for job in unfinished:
                mine[job.stream].append(job)
            plans = cheapest([_ways(tx, poll, stream, mine[stream.key]) for stream in streams])
            for stream, plan in zip(streams, plans, strict=True):
                deep_since = None if stream.key in left_deep else _deep_since(tx, poll, stream)
                new += _new_listings(poll, stream, plan, deep_since)
            poll.deep = [*left_deep.values(), *(listing for listing in new if listing.deep and not listing.moves_mark)]
            new = [listing for listing in new if listing not in poll.deep]
            listed_ids = {job_id for listing in (*new, *poll.going_on) for job_id in listing.job_ids}
            poll.planned = -(-len(poll.unseen.keys() - listed_ids) // IDS_PER_CALL)
            new.sort(key=lambda listing: listing.by_state)  # what is new comes first
            poll.listings = [*new, *poll.going_on]
            return poll

    def _left_deep(self, poll: Poll, current: Collection[Stream]) -> dict[str, Listing]:
        """Return by stream the lists from before the mark to go on with, unless another worker has ended one since."""
        found = dict[str, Listing]()
        for key in [key for key in poll.streams if key not in poll.idle]:
            listing, deep_at = self._deep.pop(key, None), poll.streams[key].deep_at
            if listing and listing.stream in current and (deep_at is None or deep_at < listing.chain.began):
                found[key] = listing
        return found

    def _ask(self, poll: Poll, until_s: float | None) -> None:
        """Make the calls of a poll. Raises CiError where every other call would fail the same way."""
        new = poll.listings[: len(poll.listings) - len(poll.going_on)]
        longer = deque(sorted(self._list(poll, new), key=lambda listing: not listing.by_state))
        longer.extend((*poll.going_on, *poll.deep))
        waiting = {job_id for listing in longer for job_id in listing.job_ids}
        portions = deque(in_tens([job_id for job_id in poll.unseen if job_id not in waiting]))
        while portions or longer:
            if portions:
                self._ask_by_id(poll, portions)
            if longer and not longer[0].by_state and self._is_time_up(poll, until_s):
                longer.clear()
            if longer:
                listing = longer.popleft()
                goes_on = [*self._list(poll, [listing])]
                (longer.extendleft if listing.by_state else longer.extend)(goes_on)
                portions.extend(_to_follow(poll, listing, goes_on=bool(goes_on)))

    def _keep_listings(self, poll: Poll) -> None:
        """Keep what continues in the next poll; of a poll that failed, only lists that were read far."""
        self._deep |= {listing.stream.key: listing for listing in poll.deep if not listing.done and not poll.errors}
        for listing in poll.listings:
            if listing.done:
                continue
            poll.incomplete.add(listing.stream.key)
            if listing.by_state:
                continue
            if poll.result.error is None:
                poll.result.behind.append(listing.stream.tag)
            elif listing.is_long:
                listing.resume()
            else:
                continue
            self._listings[listing.stream.key] = listing
            poll.result.progress.append(listing.progress)

    def _is_time_up(self, poll: Poll, until_s: float | None) -> bool:
        if until_s is None:
            return False
        watch = poll.watch
        others = [other for other in poll.book.watches if other.place.bucket == watch.place.bucket and other != watch]
        return self.monotonic() >= until_s or bool(others and self.due(others))

    def _list(self, poll: Poll, listings: Iterable[Listing]) -> Iterator[Listing]:
        """Read a page of each; yield those that go on. Raises CiError where every call would fail the same way."""
        for listing in listings:
            try:
                self._list_page(poll, listing)
            except CiError as error:
                if isinstance(error, _SAME_FOR_ALL_STREAMS) or (poll.probing and not isinstance(error, ConfigError)):
                    raise
                if listing.by_state and isinstance(error, ConfigError | BrokenReply):
                    self._give_up_states(poll, listing, str(error))
                else:
                    _fail_listing(poll, listing, error)
            else:
                if not listing.done:
                    yield listing

    def _list_page(self, poll: Poll, listing: Listing) -> None:
        """Read and store a page of a list; or let it ask for less, where the page cannot be read."""
        self._stop_if_halted()
        self.between_calls(poll)
        span, asked = listing.span, self.clock()
        page = Page(jobs=())
        try:
            page = self.source.list(
                listing.stream,
                since=span.since,
                until=span.until,
                token=listing.token,
                order="Desc" if span.newest_first else "Asc",
                size=span.size,
                states=LISTED_STATES if listing.by_state else (),
            )
        except BrokenReply as error:
            if listing.by_state:
                raise
            page = Page(jobs=(), problems=self._narrow(listing, error))
        else:
            clocks = Clocks(asked=asked, answered=self.clock(), date=page.served_at)
            poll.answered(clocks, listing.stream)
            listing.read(page, clocks)
        self._store(poll, listing, page)
        self._report(poll, listing)
        if listing.by_state and (listing.endless or listing.ignores_states):
            self._give_up_states(poll, listing, "it shows jobs in other states, or does not end")
        elif listing.endless:
            token = (listing.token or "")[:40]
            listing.spans.clear()
            raise TemporaryError(
                f"the list of {listing.stream.tag} jobs does not end: page token {token!r} came again",
                advice="what was read is kept, and the list is asked for again",
            )

    def _report(self, poll: Poll, listing: Listing) -> None:
        """Say every half a minute how far a long list has come, also over several polls."""
        key, now = listing.stream.key, self.clock()
        if listing.done or now < self._reported.setdefault(key, now):  # the clock was set back
            self._reported.pop(key, None)
        elif now - self._reported[key] >= _REPORTED:
            self._reported[key], found = now, listing.progress
            with self._transaction(poll, now) as tx:
                leases.note_progress(tx, poll.watch.name, [one.progress for one in poll.listings if one.is_long])
            facts = asdict(found) | {"watch": poll.watch.name, "created_to": iso(found.created_to)}
            logger.info("a long list goes on", extra=facts)

    def _give_up_states(self, poll: Poll, listing: Listing, reason: str) -> None:
        """Let a list by states end, and ask for no other one for some hours; its jobs are asked for by id."""
        listing.spans.clear()
        stream = listing.stream
        if stream.key in poll.ignored or stream.key in poll.errors:
            return
        poll.ignored.add(stream.key)
        with self._transaction(poll, self.clock()) as tx:
            snapshots.note_states_ignored(tx, stream.key, self.clock())
        logger.warning(
            "CI does not list jobs by their states: unfinished ones are asked for by id",
            extra={"watch": poll.watch.name, "tag": stream.tag, "reason": reason},
        )

    def _narrow(self, listing: Listing, error: BrokenReply) -> tuple[JobProblem, ...]:
        """Let a list ask for less; return the jobs that are left out, if any. Raises the error if all is broken."""
        span, given_up = listing.span, len(listing.unreadable)
        listing.narrow(self.clock())
        if listing.hopeless:
            raise error
        facts = {"tag": listing.stream.tag, "since": span.since.isoformat(), "reason": str(error)}
        if len(listing.unreadable) > given_up:
            logger.error("a job created about then makes its page unreadable, and is left out", extra=facts)
            return listing.left_out(error.ids[-1:], error.what)
        if not listing.done and listing.span.newest_first:
            listing.first_unreadable = error.ids[-1:]
        if span.size == PAGE_SIZE and not span.halved:
            logger.warning("a page cannot be read, smaller ones are asked for", extra=facts)
        return ()

    def _store(self, poll: Poll, listing: Listing, page: Page) -> None:
        """Store in one transaction what a page changes, its deliveries, and with the last page the mark."""
        stream, bucket = listing.stream, poll.watch.place.bucket
        now, jobs = self.clock(), latest(page.jobs)
        with self._transaction(poll, now) as tx:
            before = snapshots.known(tx, bucket, [job.id for job in jobs])
            if listing.by_state:
                listing.ended += sum(_had_ended(job, before.get(job.id)) for job in jobs)
            new_ids = [job.id for job in jobs if job.id not in before]
            horizon = snapshots.horizon(tx, bucket) if new_ids else None
            silence = poll.reason_for_silence(stream, horizon, jobs, of_first=problems.of_first(tx, bucket, new_ids))
            transitions = poll.diff(before, jobs, silence, now=now, still_at=poll.still_at(stream.key))
            poll.result.count(route_all(tx, poll.book, poll.dated(transitions), now))
            streams = {s.key for watch in poll.book.watches for s in watch.streams}
            snapshots.save(tx, jobs, transitions, before, stream=stream.key, streams=streams, now=now)
            poll.show(tx, jobs)
            new = problems.record(
                tx,
                bucket,
                stream.key,
                [job.id for job in jobs],
                page.problems,
                now=now,
                first=poll.streams[stream.key].mark is None,
            )
            if new_ids:
                poll.note_news(tx, stream, [job for job in jobs if job.id in {*new_ids}], now)
            if listing.done and listing.deep:
                poll.end_deep(tx, stream, listing.chain)
            if listing.done and listing.moves_mark:
                poll.end(tx, stream, listing.chain)
        self._stored(poll, jobs, new)

    def _ask_by_id(self, poll: Poll, portions: deque[tuple[str, ...]]) -> None:
        """Ask by id for the first of these portions of jobs, which no list has shown: they are old, or have left it.

        Raises CiError where every other call would fail the same way.
        """
        self._stop_if_halted()
        self.between_calls(poll)
        asked, asked_at = portions.popleft(), self.clock()
        try:
            found = self.source.describe(poll.watch.place, asked)
        except BrokenReply as error:
            if len(asked) > 1:
                portions.extendleft([(job_id,) for job_id in asked])
                return
            found, clocks = Description(jobs=(), problems=(JobProblem.of_whole(asked[0], error.what),)), None
        except CiError as error:
            left = {*asked, *itertools.chain.from_iterable(portions)}
            poll.fail(error, {stream for job_id, stream in poll.unseen.items() if job_id in left})
            if isinstance(error, _SAME_FOR_ALL_STREAMS):
                raise
            portions.clear()
            return
        else:
            clocks = Clocks(asked=asked_at, answered=self.clock(), date=found.served_at)
        poll.answered(clocks)
        self.store_described(poll, found, asked)

    def store_described(self, poll: Poll, found: Description, asked: Sequence[str]) -> None:
        """Like `_store`, for an answer by id; also record the jobs that CI did not find."""
        bucket, now = poll.watch.place.bucket, self.clock()
        with self._transaction(poll, now) as tx:
            before = snapshots.known(tx, bucket, asked)
            jobs = [job for job in latest(found.jobs) if job.id in before or job.id in poll.left_out]
            still_at = poll.still_at(*{known.stream for known in before.values()})
            silence = poll.reason_for_silence_of_left_out(problems.of_first(tx, bucket, asked))
            transitions = poll.diff(before, jobs, silence, now=now, still_at=still_at)
            gone_now = {job_id: before[job_id] for job_id in poll.note_missing(tx, found, before, now)}
            lost = gone_transitions(snapshots.jobs_of(gone_now), watch=poll.watch.name, now=now, still_at=still_at)
            poll.result.count(route_all(tx, poll.book, poll.dated((*transitions, *lost)), now))
            owners = poll.left_out | {job_id: known.stream for job_id, known in before.items()}
            new = []
            for key in {*owners.values()}:
                mine = [job for job in jobs if owners[job.id] == key]
                snapshots.save(tx, mine, transitions, before, stream=key, streams={*owners.values()}, now=now)
                new += problems.record(
                    tx,
                    bucket,
                    key,
                    [job.id for job in mine],
                    [problem for problem in found.problems if owners.get(problem.job_id) == key],
                    asked=[job_id for job_id in asked if owners.get(job_id) == key],
                    now=now,
                )
            snapshots.close(tx, lost, before, now=now)
            poll.show(tx, jobs)
        self._stored(poll, jobs, new)
        for listing in [listing for listing in poll.listings if listing.by_state]:
            listing.left_out_jobs += sum(job.id in listing.job_ids and job.state in LISTED_STATES for job in jobs)
            if listing.ignores_states:
                self._give_up_states(poll, listing, "it leaves out jobs that are in these states")
        for job_id in asked:
            poll.unseen.pop(job_id, None)

    def _stored(self, poll: Poll, jobs: Sequence[Job], new: Iterable[JobProblem]) -> None:
        for problem in new:
            what = "a job cannot be read, and is left out" if problem.left_out else "a field of a job cannot be read"
            logger.warning(what, extra={"job": problem.job_id, "field": problem.field, "value": problem.value})
        self.on_stored()
        poll.result.jobs += len(jobs)

    def _stop_if_halted(self) -> None:
        if self.halted():
            raise Halted

    @contextmanager
    def _transaction(self, poll: Poll, now: datetime) -> Iterator[Connection]:
        """Begin by renewing the lease: it fences out a worker that was away, and lets one write at a time."""
        with self.db.write() as tx:
            leases.renew(tx, poll.watch.place.bucket, self.worker, now=now)
            rulesets.require_in_force(tx, poll.book.sha)
            yield tx

    def _next_poll(self, tx: Connection, poll: Poll, took: timedelta) -> datetime:
        """Return when the next poll is due: in time, and apart from those of watches that are polled as often."""
        alike = [watch.name for watch in poll.book.watches if watch.every == poll.watch.every]
        rows = {row.name: row for row in leases.polls(tx, alike)}
        place, first = alike.index(poll.watch.name), rows.get(alike[0])
        longest = max([took, *(row.took for row in rows.values() if row.name != poll.watch.name)])
        others = (at(first.next_poll_at), place / len(alike)) if first and place else None
        return next_poll(began=poll.began, every=poll.watch.every, took=longest, others=others)

    def _finish(self, poll: Poll) -> None:
        """Store how the poll ended, and let go of the bucket unless its lists go on at once."""
        result, watch, error = poll.result, poll.watch, poll.result.error
        is_idle = poll.idle == poll.streams.keys() and not error
        refused = (not result.calls and not is_idle) or isinstance(error, Throttled)
        retry_after = error.retry_after if error else None
        after = timedelta(0) if result.behind else pause(watch.every, refused=refused, retry_after=retry_after)
        took = self.clock() - poll.began
        with self._transaction(poll, self.clock()) as tx:
            as_of = earlier(poll.began, poll.ahead)
            overdue = route_overdue_jobs(tx, watch, poll.book, as_of, self.clock(), saw=poll.saw)
            result.overdue = len(overdue)
            result.deliveries += sum(len(routing.deliveries) for routing in overdue)
            snapshots.set_seen(tx, poll.complete, poll.began)
            said = note_poll(
                tx, watch, poll.book, began=poll.began, error=poll.error, goes_on=bool(result.behind), now=self.clock()
            )
            result.deliveries += said
            given_up = problems.give_up(tx, poll.streams, before=as_of - watch.lookback)
            leases.polled(
                tx,
                watch.name,
                began=poll.began,
                next_poll=max(
                    self.clock(), self._next_poll(tx, poll, took) if after == watch.every else poll.began + after
                ),
                error=poll.error,
                behind=result.behind,
                progress=result.progress,
                clock=(poll.ahead,) if poll.clocks else (),
                failures=poll.failures + 1 if error else 0,
                calls=result.calls,
                jobs=result.jobs,
                took=took,
            )
            self._store_pace(tx, watch.place.bucket)
            if not error and not result.behind:
                waited_s = self.source.waited_s(watch.place.bucket) - poll.waited_before_s
                leases.waited(tx, watch.name, timedelta(seconds=waited_s))
            outcome = (watch.place.region, error.kind if error else "ok")
            calls = counters.Count("call", (watch.name,), times=result.calls)
            counters.add(tx, [counters.timed("poll", outcome, took.total_seconds()), calls], now=self.clock())
            if error or not result.behind:
                leases.release(tx, watch.place.bucket, self.worker)
        for job_id in given_up:
            logger.warning("a job that cannot be read is no longer asked for", extra={"job": job_id})
        if overdue or said:
            self.on_stored()


def _had_ended(job: Job, known: Known | None) -> bool:
    """Tell whether a job ended before it was asked for: what ended just now may still be listed as unfinished."""
    return job.state in DONE and (known is None or known.seen.state in DONE)


def _to_follow(poll: Poll, listing: Listing, *, goes_on: bool) -> Iterable[tuple[str, ...]]:
    """Return which jobs of a list's stream to ask for by id, after a page of it was read.

    At the end of the list, all that it has not shown. While a list continues from an earlier poll, ten of its stream's
    unfinished jobs per page, in rotation, so that they need not wait until it ends.
    """
    ids = [job_id for job_id in poll.unseen if job_id in listing.job_ids]
    if not goes_on:
        return in_tens(ids)
    if listing.chain.began == poll.began or not ids:
        return ()
    first = listing.followed % len(ids)
    listing.followed += IDS_PER_CALL
    return [tuple(ids[first : first + IDS_PER_CALL])]


def _fail_listing(poll: Poll, listing: Listing, error: CiError) -> None:
    poll.fail(error, [listing.stream.key])
    if listing.deep and not listing.moves_mark:
        return
    if isinstance(error, ConfigError | BrokenReply):
        poll.listings.remove(listing)  # its jobs are asked for by id, as it is not known when it can be read
    else:
        # The next list shows them, a hundred a call; what other lists do not show is asked for now.
        poll.unseen = {job_id: key for job_id, key in poll.unseen.items() if job_id not in listing.job_ids}
