"""One poll of one watch: plan the calls, and store each page that arrives in one transaction.

What is fresh goes first: the first page of every list, then unfinished jobs that no list has shown, by id. Longer lists
then take turns, page by page; with a bound on time, what is left of them goes on in the next poll.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Literal, Protocol

from sqlalchemy import Connection

from bridge.collect.errors import AuthError, BrokenReply, CiError, ClockError, ConfigError, TemporaryError, Throttled
from bridge.decide.changes.clocks import RESOLUTION, Chain, Clocks, believed, earlier
from bridge.decide.changes.diff import ASKED_AGAIN, diff, due, gone, latest
from bridge.decide.changes.scan import (
    IDS_PER_CALL,
    OVERLAP,
    PAGE_SIZE,
    Listing,
    Span,
    in_tens,
    is_due,
    list_since,
    pause,
)
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Description, JobProblem, Page, Place, Stream, Watch
from bridge.pipeline.poll_context import Poll, PollContext, meet
from bridge.pipeline.route import of_poll, route_all, route_overdue_jobs
from bridge.record import counters, rulesets
from bridge.record.database import Clock, Database, ms
from bridge.record.polling import leases, problems, snapshots

logger = logging.getLogger(__name__)

_HOLD_FOR_ALL = (AuthError, ClockError, Throttled)  # the next stream's call would fail the same way


class Halted(Exception):
    """The process is stopping: the poll is given up, and what it has stored stays."""


def _log_problems(new: Iterable[JobProblem]) -> None:
    for one in new:
        text = "a job cannot be read, and is left out" if one.left_out else "a field of a job cannot be read"
        logger.warning(text, extra={"job": one.job_id, "field": one.field, "value": one.value})


class Source(Protocol):
    """Where jobs are asked for. Raises CiError."""

    def list(
        self,
        stream: Stream,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        token: str | None = None,
        order: Literal["Asc", "Desc"] = "Asc",
        size: int = PAGE_SIZE,
    ) -> Page: ...
    def describe(self, place: Place, ids: Sequence[str]) -> Description: ...


class Poller:
    """Polls watches for one worker, whose id is the token of its leases."""

    def __init__(
        self,
        *,
        db: Database,
        source: Source,
        clock: Clock,
        worker: str,
        on_told: Callable[[], None] = lambda: None,
        halted: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._source = source
        self._clock = clock
        self._worker = worker
        self._on_told = on_told
        self._halted = halted
        self._monotonic = monotonic
        self._listings: dict[str, Listing] = {}  # by stream: what goes on in the next poll

    def due(self, watches: Iterable[Watch], *, early: timedelta = timedelta(0)) -> list[Watch]:
        """Return the watches whose time has come, or comes within `early`, the one that waits longest first."""
        by_name = {watch.name: watch for watch in watches}
        with self._db.read() as tx:
            rows = leases.polls(tx, by_name)
        soon = ms(self._clock() + early)
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
        until_s = None if within is None else self._monotonic() + within.total_seconds()
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
        with self._db.write() as tx:
            leases.release(tx, bucket, self._worker)

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
        with self._db.write() as tx:
            if not leases.acquire(tx, bucket, self._worker, now=self._clock()):
                return None
            began = self._clock()
            rulesets.require_in_force(tx, book.sha)
            (row,) = leases.polls(tx, [watch.name])
            meet(tx, watch, book, began, row.ok_at)
            problems.take_over_denials(tx, bucket, since=began - ASKED_AGAIN[-1], first=ASKED_AGAIN[0])
            denied = problems.denials(tx, bucket)
            asked_again = {job_id: key for job_id, key in due(denied, began) if key in keys}
            left_out = dict(problems.to_ask(tx, keys, now=began))
            context = PollContext(
                watch=watch,
                book=book,
                began=began,
                poll=Poll(watch.name),
                failures=row.failures,
                probing=bool(row.failures) and not row.answered,
                listed=snapshots.listed(tx, keys),
                unseen=dict(snapshots.open_ids(tx, keys)) | asked_again | left_out,
                left_out=left_out,
                missing=denied,
            )
            going_on = self._going_on(context)
            new = [_new_listing(tx, context, stream) for stream in watch.streams if stream.key not in going_on]
            context.listings, context.going_on = [*new, *going_on.values()], [*going_on.values()]
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
                portions.extend(self._to_follow(context, listing, goes_on=bool(goes_on)))

    def _to_follow(self, context: PollContext, listing: Listing, *, goes_on: bool) -> Iterable[tuple[str, ...]]:
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

    def _going_on(self, context: PollContext) -> dict[str, Listing]:
        """Return the lists that the last poll has left, unless somebody else has finished them meanwhile."""
        left = [(key, self._listings.pop(key, None), known) for key, known in context.listed.items()]
        return {key: listing for key, listing, known in left if listing and listing.known_to == known.mark}

    def _keep_listings(self, context: PollContext) -> None:
        """Keep what is to go on in the next poll; of a poll that failed, only lists that were read far."""
        for listing in context.listings:
            if listing.done:
                continue
            context.incomplete.add(listing.stream.key)
            if context.poll.error is None:
                context.poll.behind.append(listing.stream.tag)
            elif not listing.is_long:
                continue
            else:
                listing.resume()
            self._listings[listing.stream.key] = listing

    def _is_time_up(self, context: PollContext, until_s: float | None) -> bool:
        if until_s is None:
            return False
        watch = context.watch
        others = [one for one in context.book.watches if one.place.bucket == watch.place.bucket and one != watch]
        return self._monotonic() >= until_s or bool(others and self.due(others))

    def _list(self, context: PollContext, listings: Iterable[Listing]) -> Iterator[Listing]:
        """Read a page of each; yield those that go on. Raises CiError where every call would fail the same way."""
        for listing in listings:
            try:
                self._list_page(context, listing)
            except CiError as error:
                if isinstance(error, _HOLD_FOR_ALL) or (context.probing and not isinstance(error, ConfigError)):
                    raise
                self._fail_listing(context, listing, error)
            else:
                if not listing.done:
                    yield listing

    def _fail_listing(self, context: PollContext, listing: Listing, error: CiError) -> None:
        key = listing.stream.key
        context.fail(error, [key])
        if isinstance(error, ConfigError | BrokenReply):
            context.listings.remove(listing)  # its jobs are asked for by id, as it is not known when it can be read
        else:
            # The next list shows them, a hundred a call; the other streams' are asked for now.
            context.unseen = {job_id: stream for job_id, stream in context.unseen.items() if stream != key}

    def _list_page(self, context: PollContext, listing: Listing) -> None:
        """Read and store a page of a list; or let it ask for less, where the page cannot be read."""
        self._go_on()
        span, asked = listing.span, self._clock()
        page = Page(jobs=())
        try:
            page = self._source.list(
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
            clocks = Clocks(asked=asked, answered=self._clock(), date=page.served_at)
            context.answered()
            context.compare(clocks, listing.stream)
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
        listing.narrow(self._clock())
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
        """Store in one transaction what a page changes, who is told of it, and with the last page the mark."""
        stream = listing.stream
        now, jobs = self._clock(), latest(page.jobs)
        with self._transaction(context.watch, context.book, now) as tx:
            before = snapshots.known(tx, context.watch.place.bucket, [job.id for job in jobs])
            seen = {job_id: one.seen for job_id, one in before.items()}
            new_ids = [job.id for job in jobs if job.id not in before]
            horizon = snapshots.horizon(tx, context.watch.place.bucket) if new_ids else None
            of_first = problems.of_first(tx, context.watch.place.bucket, new_ids)
            silence = context.silence(stream, horizon, jobs, of_first=of_first)
            still_at = context.still_at(stream.key)
            seen_at = earlier(now, context.ahead)
            steps = diff(seen, jobs, watch=context.watch.name, now=seen_at, silence=silence, still_at=still_at)
            context.poll.count(route_all(tx, context.book, context.dated(steps), now))
            streams = {s.key for watch in context.book.watches for s in watch.streams}
            snapshots.save(tx, jobs, steps, before, stream=stream.key, streams=streams, now=now)
            context.show(tx, jobs)
            new = problems.record(
                tx,
                context.watch.place.bucket,
                stream.key,
                [job.id for job in jobs],
                page.problems,
                now=now,
                first=context.listed[stream.key].mark is None,
            )
            if listing.done:
                context.end(tx, stream, listing.chain)
        _log_problems(new)
        self._on_told()
        context.poll.jobs += len(jobs)

    def _ask_by_id(self, context: PollContext, portions: deque[tuple[str, ...]]) -> None:
        """Ask by id for the first of these portions of jobs, which no list has shown: they are old, or have left it.

        Raises CiError where every other call would fail the same way.
        """
        self._go_on()
        asked, asked_at = portions.popleft(), self._clock()
        try:
            found = self._source.describe(context.watch.place, asked)
        except BrokenReply as error:
            if len(asked) > 1:
                portions.extendleft([(job_id,) for job_id in asked])
                return
            found = Description(jobs=(), problems=(JobProblem.of_whole(asked[0], error.what),))
        except CiError as error:
            left = {*asked, *itertools.chain.from_iterable(portions)}
            context.fail(error, {stream for job_id, stream in context.unseen.items() if job_id in left})
            if isinstance(error, _HOLD_FOR_ALL):
                raise
            portions.clear()
            return
        else:
            context.compare(Clocks(asked=asked_at, answered=self._clock(), date=found.served_at))
        context.answered()
        self._store_described(context, found, asked)

    def _store_described(self, context: PollContext, found: Description, asked: Sequence[str]) -> None:
        watch, now = context.watch, self._clock()
        with self._transaction(watch, context.book, now) as tx:
            before = snapshots.known(tx, watch.place.bucket, asked)
            asked_for = {job.id: job for job in latest(found.jobs) if job.id in {*before, *context.left_out}}
            jobs = list(asked_for.values())
            seen = {job_id: one.seen for job_id, one in before.items()}
            still_at = context.still_at(*{one.stream for one in before.values()})
            seen_at = earlier(now, context.ahead)
            silence = context.silence_of_left_out(problems.of_first(tx, watch.place.bucket, asked))
            steps = diff(seen, jobs, watch=watch.name, now=seen_at, silence=silence, still_at=still_at)
            denied = {job_id: before[job_id] for job_id in context.deny(tx, found, before, now)}
            lost = gone(snapshots.jobs_of(denied), watch=watch.name, now=now, still_at=still_at)
            context.poll.count(route_all(tx, context.book, context.dated((*steps, *lost)), now))
            owners = context.left_out | {job_id: one.stream for job_id, one in before.items()}
            new = []
            for key in {*owners.values()}:
                mine = [job for job in jobs if owners[job.id] == key]
                snapshots.save(tx, mine, steps, before, stream=key, streams={*owners.values()}, now=now)
                new += problems.record(
                    tx,
                    watch.place.bucket,
                    key,
                    [job.id for job in mine],
                    [one for one in found.problems if owners.get(one.job_id) == key],
                    asked=[job_id for job_id in asked if owners.get(job_id) == key],
                    now=now,
                )
            snapshots.close(tx, lost, before, now=now)
            context.show(tx, jobs)
        _log_problems(new)
        self._on_told()
        context.poll.jobs += len(jobs)
        for job_id in asked:
            context.unseen.pop(job_id, None)

    def _go_on(self) -> None:
        if self._halted():
            raise Halted

    @contextmanager
    def _transaction(self, watch: Watch, book: Rulebook, now: datetime) -> Iterator[Connection]:
        """Begin by renewing the lease: it fences out a worker that was away, and lets one write at a time."""
        with self._db.write() as tx:
            leases.renew(tx, watch.place.bucket, self._worker, now=now)
            rulesets.require_in_force(tx, book.sha)
            yield tx

    def _finish(self, context: PollContext) -> None:
        """Store how the poll ended, and let go of the bucket unless its lists go on at once."""
        poll, watch, error = context.poll, context.watch, context.poll.error
        refused = not poll.calls or isinstance(error, Throttled)
        wish = error.retry_after if error else None
        after = timedelta(0) if poll.behind else pause(watch.every, refused=refused, wish=wish)
        with self._transaction(watch, context.book, self._clock()) as tx:
            as_of = earlier(context.began, context.ahead)
            stays = route_overdue_jobs(tx, watch, context.book, as_of, self._clock(), saw=context.saw)
            poll.stays, poll.deliveries = (
                len(stays),
                poll.deliveries + sum(len(routing.deliveries) for routing in stays),
            )
            snapshots.set_seen(tx, context.complete, context.began)
            given_up = problems.give_up(tx, context.listed, before=as_of - watch.lookback)
            leases.polled(
                tx,
                watch.name,
                began=context.began,
                next_poll=max(self._clock(), context.began + after),
                error=context.error,
                behind=poll.behind,
                clock=(context.ahead,) if context.clocks else (),
                failures=context.failures + 1 if error else 0,
                calls=poll.calls,
                jobs=poll.jobs,
            )
            counters.add(tx, of_poll(context, self._clock()), now=self._clock())
            if error or not poll.behind:
                leases.release(tx, watch.place.bucket, self._worker)
        for job_id in given_up:
            logger.warning("a job that cannot be read is no longer asked for", extra={"job": job_id})
        if poll.stays:
            self._on_told()


def _new_listing(tx: Connection, context: PollContext, stream: Stream) -> Listing:
    mark = context.listed[stream.key].mark
    span = Span(since=_since(tx, context, stream))
    return Listing(stream=stream, chain=Chain(began=context.began), known_to=mark, spans=[span])


def _since(tx: Connection, context: PollContext, stream: Stream) -> datetime:
    listed = context.listed[stream.key]
    if listed.mark is None:
        return list_since(mark=None, first=min(context.began, listed.told_from) - context.watch.lookback)
    mark = believed(listed.mark, now=context.began, lookback=context.watch.lookback)
    opened = snapshots.open_created(tx, stream.key)
    oldest = min([mark, *opened[:1]])
    known = snapshots.created_since(tx, stream.key, oldest - OVERLAP)
    horizon = snapshots.horizon(tx, stream.place.bucket)
    complete = [known[0]] if len(known) == snapshots.MOST_KNOWN else []
    complete += [horizon + RESOLUTION] if horizon else []
    return list_since(
        mark=mark,
        first=mark,
        open_created=opened,
        known_created=known,
        known_from=max(complete, default=None),
    )
