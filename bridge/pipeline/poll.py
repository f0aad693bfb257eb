"""One poll of one watch: plan the calls, and store each page that arrives in one transaction.

What is fresh goes first: the first page of every list, then unfinished jobs that no list has shown, by id. Longer lists
then take turns, page by page; with a bound on time, what is left of them continues in the next poll.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

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
    OVERLAP,
    Listing,
    Span,
    in_tens,
    is_due,
    list_since,
    pause,
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
    MissingJob,
    Page,
    Stream,
    Transition,
    Watch,
)
from bridge.pipeline.route import route_all, route_overdue_jobs
from bridge.record import counters, rulesets
from bridge.record.database import Clock, Database, ms
from bridge.record.polling import leases, problems, snapshots
from bridge.record.polling.snapshots import Known

if TYPE_CHECKING:
    from bridge.collect.client import TencentCi

logger = logging.getLogger(__name__)

_HOLD_FOR_ALL = (AuthError, ClockError, Throttled)  # the next stream's call would fail the same way
_MOST_ERRORS = 5  # different ones of one poll, in its text


class Halted(Exception):
    """The process is stopping: the poll is given up, and what it has stored stays."""


@dataclass(slots=True)
class Poll:
    """The result of one poll of one watch."""

    watch: str
    calls: int = 0
    jobs: int = 0
    transitions: int = 0
    deliveries: int = 0
    overdue: int = 0  # level rules that fired, for each job
    error: CiError | None = None  # the first
    behind: list[str] = field(default_factory=list)  # tags whose list continues in the next poll

    def count(self, routings: Sequence[RoutingResult]) -> None:
        """Count transitions and their deliveries."""
        self.transitions += len(routings)
        self.deliveries += sum(len(routing.deliveries) for routing in routings)


# --- a poll under way -----------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class PollContext:
    """One poll under way: what was known when it began, what it has seen, and of which jobs it notifies nobody."""

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

    def saw(self, stream: str, began: Transition) -> bool:
        """Tell whether this poll has seen a job in the state that `began` began; or not at all, if it is gone."""
        return began.job.id in self.seen or (began.to == GONE and stream in self.complete)

    def still_at(self, *streams: str) -> datetime | None:
        """Return when the last poll began that saw the jobs of these streams as they are on record."""
        polls = [known.seen_at if (known := self.listed.get(stream)) else None for stream in streams]
        return min((began for began in polls if began), default=None) if all(polls) else None

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
        texts = [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in tags.items()]
        more = f"; and {len(texts) - _MOST_ERRORS} more" if len(texts) > _MOST_ERRORS else ""
        return "; ".join(texts[:_MOST_ERRORS]) + more

    def answered(self, clocks: Clocks | None, stream: Stream | None = None) -> None:
        """Note a call that CI answered; by CI's clock its stream may not have been out of the rules for long."""
        self.probing = False
        self.poll.calls += 1
        if clocks is None:
            return
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

    def diff(
        self,
        before: Mapping[str, Known],
        jobs: Sequence[Job],
        silence: Callable[[Job], str | None],
        *,
        now: datetime,
        still_at: datetime | None,
    ) -> Sequence[Transition]:
        seen, seen_at = {job_id: known.seen for job_id, known in before.items()}, earlier(now, self.ahead)
        return diff(seen, jobs, watch=self.watch.name, now=seen_at, silence=silence, still_at=still_at)

    def dated(self, steps: Iterable[Transition]) -> list[Transition]:
        """Return transitions with when the last poll saw the job before: of one that CI denied not since."""
        dated = []
        for step in steps:
            missing = self.missing.get(step.job.id)
            was_open = missing and (step.to == GONE or not missing.is_gone)
            dated.append(replace(step, still_at=missing.seen_at) if missing and was_open else step)
        return dated

    def show(self, tx: Connection, jobs: Iterable[Job]) -> None:
        """Take note of jobs that an answer shows: what CI denied of them counts no more."""
        shown = [job.id for job in jobs if self.missing.pop(job.id, None)]
        problems.forget_missing(tx, self.watch.place.bucket, shown)
        for job in jobs:
            self.unseen.pop(job.id, None)
            self.seen.add(job.id)

    def deny(self, tx: Connection, found: Description, before: Mapping[str, Known], now: datetime) -> list[str]:
        """Take note of which jobs of `before` an answer does not show; return those that are gone from now on."""
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

        One that was not out of the rules for so long, by CI's clock, was listed from too late: that takes another poll.
        """
        listed = self.listed[stream.key]
        if listed.out_at:
            snapshots.come_back(tx, stream.key)
        if not (listed.out_at and listed.mark):
            snapshots.set_mark(tx, stream.key, chain.mark(listed.mark))

    def silence_of_left_out(self, of_first: Collection[str]) -> Callable[[Job], str | None]:
        """Return why nobody is notified of a job that was left out until now: it is as old as when first listed."""
        streams = {stream.key: stream for stream in self.watch.streams}

        def why(job: Job) -> str | None:
            stream = streams.get(self.left_out.get(job.id, ""))
            return self.silence(stream, None, [job], of_first=of_first)(job) if stream else None

        return why

    def silence(
        self, stream: Stream, horizon: datetime | None, jobs: Iterable[Job], *, of_first: Collection[str]
    ) -> Callable[[Job], str | None]:
        """Return why nobody is notified of a job that this stream shows for the first time, in one answer with `jobs`.

        The first snapshot of a stream is silent about jobs from before it was first asked for. A later list that goes
        back further than that one did is so too. Jobs up to the horizon may have been sent and pruned. Those
        `of_first` were in the first snapshot, and left out as they could not be read.
        """
        listed, clocks = self.listed[stream.key], self.clocks
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


def _new_listing(tx: Connection, context: PollContext, stream: Stream) -> Listing:
    """Return the list of a stream, from as far back as it takes."""
    listed = context.listed[stream.key]
    if listed.mark is None:
        since = list_since(mark=None, first=min(context.began, listed.told_from) - context.watch.lookback)
    else:
        mark = believed(listed.mark, now=context.began, lookback=context.watch.lookback)
        opened = snapshots.open_created(tx, stream.key)
        known = snapshots.created_since(tx, stream.key, min([mark, *opened[:1]]) - OVERLAP)
        horizon = snapshots.horizon(tx, stream.place.bucket)
        complete = [known[0]] if len(known) == snapshots.MOST_KNOWN else []
        complete += [horizon + RESOLUTION] if horizon else []
        since = list_since(
            mark=mark,
            first=mark,
            open_created=opened,
            known_created=known,
            known_from=max(complete, default=None),
        )
    chain = Chain(began=context.began)
    return Listing(stream=stream, chain=chain, known_to=listed.mark, spans=[Span(since=since)])


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
    monotonic: Callable[[], float] = time.monotonic
    _listings: dict[str, Listing] = field(default_factory=dict, init=False)  # by stream: continue in the next poll

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

    def poll_once(self, watch: Watch, book: Rulebook, *, within: timedelta | None = None) -> Poll | None:
        """Poll a watch now; None when another worker is at its bucket.

        After `within`, or when another watch of the bucket is due, lists that go on are left for the next poll, which
        is then due at once; until then this worker keeps the bucket.
        """
        until_s = None if within is None else self.monotonic() + within.total_seconds()
        try:
            with ExitStack() as unless_ended:
                unless_ended.callback(self._release, watch.place.bucket)
                poll = self._poll(watch, book, until_s)
                unless_ended.pop_all()
                return poll
        except leases.LeaseLost:
            logger.warning("poll given up, another worker has the bucket", extra={"watch": watch.name})
        except rulesets.OtherRules as error:
            logger.warning("poll given up, other rules are in force", extra={"watch": watch.name, "reason": str(error)})
        except Halted:
            pass
        return None

    def _release(self, bucket: str) -> None:
        with self.db.write() as tx:
            leases.release(tx, bucket, self.worker)

    def _poll(self, watch: Watch, book: Rulebook, until_s: float | None) -> Poll | None:
        context = self._begin(watch, book)
        if context is None:
            return None
        try:
            self._ask(context, until_s)
        except CiError as error:  # every other call would fail the same way
            context.fail(error, context.listed)
        self._keep_listings(context)
        self._finish(context)
        return context.poll

    def _begin(self, watch: Watch, book: Rulebook) -> PollContext | None:
        """Take the bucket, and read what is known of it; None when another worker has it."""
        bucket, keys = watch.place.bucket, [stream.key for stream in watch.streams]
        with self.db.write() as tx:
            if not leases.acquire(tx, bucket, self.worker, now=self.clock()):
                return None
            began = self.clock()
            rulesets.require_in_force(tx, book.sha)
            (row,) = leases.polls(tx, [watch.name])
            _meet(tx, watch, book, began, row.ok_at)
            problems.take_over_missing(tx, bucket, since=began - ASKED_AGAIN[-1], first=ASKED_AGAIN[0])
            missing = problems.missing_jobs(tx, bucket)
            again = {job_id: key for job_id, key in to_ask_again(missing, began) if key in keys}
            left_out = dict(problems.to_ask(tx, keys, now=began))
            context = PollContext(
                watch=watch,
                book=book,
                began=began,
                poll=Poll(watch.name),
                failures=row.failures,
                probing=bool(row.failures) and not row.answered,
                listed=snapshots.listed(tx, keys),
                unseen=dict(snapshots.open_ids(tx, keys)) | again | left_out,
                left_out=left_out,
                missing=missing,
            )
            # What the last poll has left, unless somebody else has finished it meanwhile.
            left = [(self._listings.pop(key, None), known.mark) for key, known in context.listed.items()]
            context.going_on = [listing for listing, mark in left if listing and listing.known_to == mark]
            begun = {listing.stream.key for listing in context.going_on}
            new = [_new_listing(tx, context, stream) for stream in watch.streams if stream.key not in begun]
            context.listings = [*new, *context.going_on]
            return context

    def _ask(self, context: PollContext, until_s: float | None) -> None:
        """Make the calls of a poll. Raises CiError where every other call would fail the same way."""
        new = context.listings[: len(context.listings) - len(context.going_on)]
        longer = deque([*self._list(context, new), *context.going_on])
        unlisted = {listing.stream.key for listing in longer}
        portions = deque(in_tens([job_id for job_id, key in context.unseen.items() if key not in unlisted]))
        in_time = True
        while portions or (longer and in_time):
            if portions:
                self._ask_by_id(context, portions)
            if longer and (in_time := not self._is_time_up(context, until_s)):
                listing = longer.popleft()
                goes_on = [*self._list(context, [listing])]
                longer.extend(goes_on)
                portions.extend(_to_follow(context, listing, goes_on=bool(goes_on)))

    def _keep_listings(self, context: PollContext) -> None:
        """Keep what continues in the next poll; of a poll that failed, only lists that were read far."""
        for listing in context.listings:
            if listing.done:
                continue
            context.incomplete.add(listing.stream.key)
            if context.poll.error is None:
                context.poll.behind.append(listing.stream.tag)
            elif listing.is_long:
                listing.resume()
            else:
                continue
            self._listings[listing.stream.key] = listing

    def _is_time_up(self, context: PollContext, until_s: float | None) -> bool:
        if until_s is None:
            return False
        watch = context.watch
        others = [
            other for other in context.book.watches if other.place.bucket == watch.place.bucket and other != watch
        ]
        return self.monotonic() >= until_s or bool(others and self.due(others))

    def _list(self, context: PollContext, listings: Iterable[Listing]) -> Iterator[Listing]:
        """Read a page of each; yield those that go on. Raises CiError where every call would fail the same way."""
        for listing in listings:
            try:
                self._list_page(context, listing)
            except CiError as error:
                if isinstance(error, _HOLD_FOR_ALL) or (context.probing and not isinstance(error, ConfigError)):
                    raise
                _fail_listing(context, listing, error)
            else:
                if not listing.done:
                    yield listing

    def _list_page(self, context: PollContext, listing: Listing) -> None:
        """Read and store a page of a list; or let it ask for less, where the page cannot be read."""
        self._stop_if_halted()
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
            )
        except BrokenReply as error:
            page = Page(jobs=(), problems=self._narrow(listing, error))
        else:
            clocks = Clocks(asked=asked, answered=self.clock(), date=page.served_at)
            context.answered(clocks, listing.stream)
            listing.read(page, clocks)
        self._store(context, listing, page)
        if listing.endless:
            token = (listing.token or "")[:40]
            listing.spans.clear()
            raise TemporaryError(
                f"the list of {listing.stream.tag} jobs does not end: page token {token!r} came again",
                advice="what was read is kept, and the list is asked for again",
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

    def _store(self, context: PollContext, listing: Listing, page: Page) -> None:
        """Store in one transaction what a page changes, its deliveries, and with the last page the mark."""
        stream, bucket = listing.stream, context.watch.place.bucket
        now, jobs = self.clock(), latest(page.jobs)
        with self._transaction(context, now) as tx:
            before = snapshots.known(tx, bucket, [job.id for job in jobs])
            new_ids = [job.id for job in jobs if job.id not in before]
            horizon = snapshots.horizon(tx, bucket) if new_ids else None
            silence = context.silence(stream, horizon, jobs, of_first=problems.of_first(tx, bucket, new_ids))
            steps = context.diff(before, jobs, silence, now=now, still_at=context.still_at(stream.key))
            context.poll.count(route_all(tx, context.book, context.dated(steps), now))
            streams = {s.key for watch in context.book.watches for s in watch.streams}
            snapshots.save(tx, jobs, steps, before, stream=stream.key, streams=streams, now=now)
            context.show(tx, jobs)
            new = problems.record(
                tx,
                bucket,
                stream.key,
                [job.id for job in jobs],
                page.problems,
                now=now,
                first=context.listed[stream.key].mark is None,
            )
            if listing.done:
                context.end(tx, stream, listing.chain)
        self._stored(context, jobs, new)

    def _ask_by_id(self, context: PollContext, portions: deque[tuple[str, ...]]) -> None:
        """Ask by id for the first of these portions of jobs, which no list has shown: they are old, or have left it.

        Raises CiError where every other call would fail the same way.
        """
        self._stop_if_halted()
        asked, asked_at = portions.popleft(), self.clock()
        try:
            found = self.source.describe(context.watch.place, asked)
        except BrokenReply as error:
            if len(asked) > 1:
                portions.extendleft([(job_id,) for job_id in asked])
                return
            found, clocks = Description(jobs=(), problems=(JobProblem.of_whole(asked[0], error.what),)), None
        except CiError as error:
            left = {*asked, *itertools.chain.from_iterable(portions)}
            context.fail(error, {stream for job_id, stream in context.unseen.items() if job_id in left})
            if isinstance(error, _HOLD_FOR_ALL):
                raise
            portions.clear()
            return
        else:
            clocks = Clocks(asked=asked_at, answered=self.clock(), date=found.served_at)
        context.answered(clocks)
        self._store_described(context, found, asked)

    def _store_described(self, context: PollContext, found: Description, asked: Sequence[str]) -> None:
        """Store in one transaction what an answer by id changes: likewise, and of jobs that CI denies."""
        bucket, now = context.watch.place.bucket, self.clock()
        with self._transaction(context, now) as tx:
            before = snapshots.known(tx, bucket, asked)
            jobs = [job for job in latest(found.jobs) if job.id in before or job.id in context.left_out]
            still_at = context.still_at(*{known.stream for known in before.values()})
            silence = context.silence_of_left_out(problems.of_first(tx, bucket, asked))
            steps = context.diff(before, jobs, silence, now=now, still_at=still_at)
            denied_now = {job_id: before[job_id] for job_id in context.deny(tx, found, before, now)}
            lost = gone_transitions(snapshots.jobs_of(denied_now), watch=context.watch.name, now=now, still_at=still_at)
            context.poll.count(route_all(tx, context.book, context.dated((*steps, *lost)), now))
            owners = context.left_out | {job_id: known.stream for job_id, known in before.items()}
            new = []
            for key in {*owners.values()}:
                mine = [job for job in jobs if owners[job.id] == key]
                snapshots.save(tx, mine, steps, before, stream=key, streams={*owners.values()}, now=now)
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
            context.show(tx, jobs)
        self._stored(context, jobs, new)
        for job_id in asked:
            context.unseen.pop(job_id, None)

    def _stored(self, context: PollContext, jobs: Sequence[Job], new: Iterable[JobProblem]) -> None:
        for problem in new:
            what = "a job cannot be read, and is left out" if problem.left_out else "a field of a job cannot be read"
            logger.warning(what, extra={"job": problem.job_id, "field": problem.field, "value": problem.value})
        self.on_stored()
        context.poll.jobs += len(jobs)

    def _stop_if_halted(self) -> None:
        if self.halted():
            raise Halted

    @contextmanager
    def _transaction(self, context: PollContext, now: datetime) -> Iterator[Connection]:
        """Begin by renewing the lease: it fences out a worker that was away, and lets one write at a time."""
        with self.db.write() as tx:
            leases.renew(tx, context.watch.place.bucket, self.worker, now=now)
            rulesets.require_in_force(tx, context.book.sha)
            yield tx

    def _finish(self, context: PollContext) -> None:
        """Store how the poll ended, and let go of the bucket unless its lists go on at once."""
        poll, watch, error = context.poll, context.watch, context.poll.error
        refused = not poll.calls or isinstance(error, Throttled)
        retry_after = error.retry_after if error else None
        after = timedelta(0) if poll.behind else pause(watch.every, refused=refused, retry_after=retry_after)
        with self._transaction(context, self.clock()) as tx:
            as_of = earlier(context.began, context.ahead)
            overdue = route_overdue_jobs(tx, watch, context.book, as_of, self.clock(), saw=context.saw)
            poll.overdue, poll.deliveries = (
                len(overdue),
                poll.deliveries + sum(len(result.deliveries) for result in overdue),
            )
            snapshots.set_seen(tx, context.complete, context.began)
            given_up = problems.give_up(tx, context.listed, before=as_of - watch.lookback)
            leases.polled(
                tx,
                watch.name,
                began=context.began,
                next_poll=max(self.clock(), context.began + after),
                error=context.error,
                behind=poll.behind,
                clock=(context.ahead,) if context.clocks else (),
                failures=context.failures + 1 if error else 0,
                calls=poll.calls,
                jobs=poll.jobs,
            )
            took_s = (self.clock() - context.began).total_seconds()
            outcome = (watch.place.region, error.kind if error else "ok")
            counters.add(tx, [counters.timed("poll", outcome, took_s)], now=self.clock())
            if error or not poll.behind:
                leases.release(tx, watch.place.bucket, self.worker)
        for job_id in given_up:
            logger.warning("a job that cannot be read is no longer asked for", extra={"job": job_id})
        if overdue:
            self.on_stored()


def _to_follow(context: PollContext, listing: Listing, *, goes_on: bool) -> Iterable[tuple[str, ...]]:
    """Return which jobs of a list's stream to ask for by id, after a page of it was read.

    All that it has not shown, when it is at its end; ten at a time, round and round, of one that has gone on since
    the last poll: what is known to be unfinished is not to wait for its end.
    """
    ids = [job_id for job_id, key in context.unseen.items() if key == listing.stream.key]
    if not goes_on:
        return in_tens(ids)
    if listing.chain.began == context.began or not ids:
        return ()
    first = listing.followed % len(ids)
    listing.followed += IDS_PER_CALL
    return [tuple(ids[first : first + IDS_PER_CALL])]


def _fail_listing(context: PollContext, listing: Listing, error: CiError) -> None:
    key = listing.stream.key
    context.fail(error, [key])
    if isinstance(error, ConfigError | BrokenReply):
        context.listings.remove(listing)  # its jobs are asked for by id, as it is not known when it can be read
    else:
        # The next list shows them, a hundred a call; the other streams' are asked for now.
        context.unseen = {job_id: stream for job_id, stream in context.unseen.items() if stream != key}
