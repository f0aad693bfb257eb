"""Polls watches: one poll makes its calls, and stores each page that arrives in one transaction.

What is fresh goes first: the first page of every list, then unfinished jobs that no list is to show, by id, and what
is left of lists of unfinished jobs. Longer lists then take turns, page by page; with a bound on time, what is left of
them continues in the next poll.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from bridge.collect.errors import AuthError, BrokenReply, CiError, ClockError, ConfigError, TemporaryError, Throttled
from bridge.decide.changes.clocks import Clocks, earlier
from bridge.decide.changes.diff import (
    ASKED_AGAIN,
    gone_transitions,
    latest,
    to_ask_again,
)
from bridge.decide.changes.scan import (
    LISTED_STATES,
    Listing,
    cheapest,
    due_at,
    in_tens,
    is_due,
    next_poll,
    pause,
)
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import iso
from bridge.model import (
    DONE,
    IDS_PER_CALL,
    PAGE_SIZE,
    Description,
    Job,
    JobProblem,
    Page,
    Stream,
    UnfinishedJob,
    Watch,
)
from bridge.pipeline import incidents, queues
from bridge.pipeline.poll import (
    Halted,
    Poll,
    PollResult,
    can_wait,
    deep_list_since,
    meet_streams,
    new_listings,
    ways_of,
)
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
    _adopted: str | None = None  # the ruleset whose incidents this worker has adopted
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
            meet_streams(tx, watch, book, began, row.ok_at)
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
            self._plan(tx, poll, unfinished, whole=whole or not row.next_poll_at)
            return poll

    def _plan(self, tx: Connection, poll: Poll, unfinished: Sequence[UnfinishedJob], *, whole: bool) -> None:
        """Set which lists a poll asks for: what the last one has left, and new ones; `whole`: of idle streams too."""
        watch = poll.watch
        # What the last poll has left, unless somebody else has finished it meanwhile.
        left = [(self._listings.pop(key, None), known.mark) for key, known in poll.streams.items()]
        current = {*watch.streams}  # a list goes on only with the keys and rates that the rules have now
        going_on = [(listing, mark) for listing, mark in left if listing and listing.stream in current]
        poll.going_on = [listing for listing, mark in going_on if listing.known_to == mark]
        begun = {listing.stream.key for listing in poll.going_on}
        for listing in poll.going_on:
            listing.job_ids = frozenset(poll.unseen_of(listing.stream))
        new = list[Listing]()
        if not whole:
            poll.idle = {s.key for s in watch.streams if s.key not in begun and can_wait(poll, s)}
        left_deep = self._left_deep(poll, current)
        streams = [stream for stream in watch.streams if stream.key not in begun | poll.idle]
        mine = defaultdict[str, list[UnfinishedJob]](list)
        for job in unfinished:
            mine[job.stream].append(job)
        plans = cheapest([ways_of(tx, poll, stream, mine[stream.key]) for stream in streams])
        for stream, plan in zip(streams, plans, strict=True):
            deep_since = None if stream.key in left_deep else deep_list_since(tx, poll, stream)
            new += new_listings(poll, stream, plan, deep_since)
        poll.deep = [*left_deep.values(), *(listing for listing in new if listing.deep and not listing.moves_mark)]
        new = [listing for listing in new if listing not in poll.deep]
        listed_ids = {job_id for listing in (*new, *poll.going_on) for job_id in listing.job_ids}
        poll.planned = -(-len(poll.unseen.keys() - listed_ids) // IDS_PER_CALL)
        new.sort(key=lambda listing: listing.by_state)  # what is new comes first
        poll.listings = [*new, *poll.going_on]

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

    def _judge(self, tx: Connection, poll: Poll, as_of: datetime) -> int:
        """Judge the incidents, after those of rules that have changed were adopted; return the number of deliveries."""
        if self._adopted != poll.book.sha:
            incidents.adopt(tx, poll.book, self.clock())
        return incidents.judge(tx, poll.watch, poll.book, as_of=as_of, now=self.clock(), saw=poll.saw)

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
            snapshots.set_seen(tx, poll.complete, poll.began)
            of_incidents = self._judge(tx, poll, as_of)
            waits = incidents.inhibited_levels(tx, poll.book)
            overdue = route_overdue_jobs(tx, watch, poll.book, as_of, self.clock(), saw=poll.saw, waits=waits)
            result.overdue = len(overdue)
            result.deliveries += of_incidents + sum(len(routing.deliveries) for routing in overdue)
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
        self._adopted = poll.book.sha
        for job_id in given_up:
            logger.warning("a job that cannot be read is no longer asked for", extra={"job": job_id})
        if overdue or said or of_incidents:
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
