"""One poll of one watch: plan the calls, and store each page that arrives in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection

from bridge.collect.errors import AuthError, CiError, ClockError, TemporaryError, Throttled
from bridge.decide.appointments import is_due, pause
from bridge.decide.clock import earlier
from bridge.decide.diff import diff, gone, latest
from bridge.decide.rulebook import Rulebook
from bridge.decide.scan import OVERLAP, in_tens, list_since
from bridge.model import Described, Job, Page, Place, Stream, Watch
from bridge.pipeline.counts import of_poll
from bridge.pipeline.round import RESOLUTION, Poll, Round, meet
from bridge.pipeline.telling import tell_all, tell_stays
from bridge.record import leases, snapshots, tallies
from bridge.record.database import Clock, Database, ms

logger = logging.getLogger(__name__)

_MOST_PAGES = 10_000  # a million jobs; CI documents no end, and a chain of pages must have one
_HOLD_FOR_ALL = (AuthError, ClockError, Throttled)  # the next stream's call would fail the same way


class Halted(Exception):
    """The process is stopping: the poll is given up, and what it has stored stays."""


class Source(Protocol):
    """Where jobs are asked for. Raises CiError."""

    def list(self, stream: Stream, *, since: datetime | None = None, token: str | None = None) -> Page: ...
    def describe(self, place: Place, ids: Sequence[str]) -> Described: ...


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
    ) -> None:
        self._db = db
        self._source = source
        self._clock = clock
        self._worker = worker
        self._on_told = on_told
        self._halted = halted

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

    def poll_once(self, watch: Watch, book: Rulebook) -> Poll | None:
        """Poll a watch now; None when another worker is at its bucket."""
        bucket = watch.place.bucket
        with self._db.write() as tx:
            if not leases.acquire(tx, bucket, self._worker, now=self._clock()):
                return None
        try:
            return self._poll(watch, book)
        except leases.LeaseLost:
            logger.warning("poll given up, another worker has the bucket", extra={"watch": watch.name})
            return None
        except Halted:
            return None
        finally:
            with self._db.write() as tx:
                leases.release(tx, bucket, self._worker)

    def _poll(self, watch: Watch, book: Rulebook) -> Poll:
        began, keys = self._clock(), [stream.key for stream in watch.streams]
        with self._transaction(watch, began) as tx:
            (row,) = leases.polls(tx, [watch.name])
            meet(tx, watch, book, began, row.ok_at)
            round_ = Round(
                watch=watch,
                book=book,
                began=began,
                still_at=row.ok_at,
                poll=Poll(watch.name),
                listed=snapshots.listed(tx, keys),
                unseen=dict(snapshots.open_ids(tx, keys)),
            )
        self._list_all(round_)
        if not isinstance(round_.poll.error, _HOLD_FOR_ALL):
            self._ask_by_id(round_)
        self._finish(round_, row.failures)
        return round_.poll

    def _list_all(self, round_: Round) -> None:
        for stream in round_.watch.streams:
            try:
                self._list(round_, stream)
            except CiError as error:
                round_.poll.error = round_.poll.error or error
                if isinstance(error, _HOLD_FOR_ALL):
                    return
                # The list may yet show these, a hundred a call; the other streams' are asked for now.
                for job_id in [job_id for job_id, key in round_.unseen.items() if key == stream.key]:
                    del round_.unseen[job_id]

    def _list(self, round_: Round, stream: Stream) -> None:
        """List a stream page by page; each is stored when it arrives, so memory is a page."""
        since = self._since(round_, stream)
        mark, token, tokens = None, None, set[str]()
        while True:
            self._go_on()
            page = self._source.list(stream, since=since, token=token)
            round_.poll.calls += 1
            if page.served_at:
                round_.compare_clocks(page.served_at, self._clock())
            mark, token = mark or page.served_at or round_.began, page.next_token
            self._store(round_, stream, page.jobs, mark=None if token else mark)
            if token is None:
                return
            if token in tokens or len(tokens) >= _MOST_PAGES:
                raise TemporaryError(
                    f"the list of {stream.tag} jobs does not end: page token {token[:40]!r} came again",
                    advice="what was read is kept, and the list is asked for again",
                )
            tokens.add(token)

    def _since(self, round_: Round, stream: Stream) -> datetime:
        listed = round_.listed[stream.key]
        if listed.mark is None:
            return list_since(mark=None, first=min(round_.began, listed.told_from) - round_.watch.lookback)
        with self._db.read() as tx:
            opened = snapshots.open_created(tx, stream.key)
            oldest = min([listed.mark, *opened[:1]])
            known = snapshots.created_since(tx, stream.key, oldest - OVERLAP)
            horizon = snapshots.horizon(tx, stream.place.bucket)
        complete = [known[0]] if len(known) == snapshots.MOST_KNOWN else []
        complete += [horizon + RESOLUTION] if horizon else []
        return list_since(
            mark=listed.mark,
            first=listed.mark,
            open_created=opened,
            known_created=known,
            known_from=max(complete, default=None),
        )

    def _store(self, round_: Round, stream: Stream, listed: Sequence[Job], *, mark: datetime | None) -> None:
        """Store in one transaction what a page changes, who is told of it, and with the last page the mark."""
        now, jobs = self._clock(), latest(listed)
        with self._transaction(round_.watch, now) as tx:
            before = snapshots.known(tx, round_.watch.place.bucket, [job.id for job in jobs])
            seen = {job_id: one.seen for job_id, one in before.items()}
            horizon = snapshots.horizon(tx, round_.watch.place.bucket) if len(before) < len(jobs) else None
            silence = round_.silence(stream, horizon)
            seen_at = earlier(now, -round_.behind)
            steps = diff(seen, jobs, watch=round_.watch.name, now=seen_at, silence=silence, still_at=round_.still_at)
            round_.poll.count(tell_all(tx, round_.book, steps, now))
            streams = {s.key for watch in round_.book.watches for s in watch.streams}
            snapshots.save(tx, jobs, steps, before, stream=stream.key, streams=streams, now=now)
            if mark:
                snapshots.set_mark(tx, stream.key, mark)
        self._on_told()
        round_.poll.jobs += len(jobs)
        for job in jobs:
            round_.unseen.pop(job.id, None)

    def _ask_by_id(self, round_: Round) -> None:
        """Ask for the unfinished jobs that no list has shown: they are older, or have left it."""
        for ids in in_tens(list(round_.unseen)):
            self._go_on()
            try:
                found = self._source.describe(round_.watch.place, ids)
            except CiError as error:
                round_.poll.error = round_.poll.error or error
                return
            round_.poll.calls += 1
            self._store_described(round_, found, ids)

    def _store_described(self, round_: Round, found: Described, asked: Sequence[str]) -> None:
        watch, now = round_.watch, self._clock()
        with self._transaction(watch, now) as tx:
            before = snapshots.known(tx, watch.place.bucket, asked)
            jobs = [job for job in latest(found.jobs) if job.id in before]
            missing = {job_id: before[job_id] for job_id in found.missing if job_id in before}
            seen = {job_id: one.seen for job_id, one in before.items()}
            seen_at = earlier(now, -round_.behind)
            steps = diff(seen, jobs, watch=watch.name, now=seen_at, still_at=round_.still_at)
            lost = gone(snapshots.jobs_of(missing), watch=watch.name, now=now, still_at=round_.still_at)
            round_.poll.count(tell_all(tx, round_.book, (*steps, *lost), now))
            streams = {one.stream for one in before.values()}
            snapshots.save(tx, jobs, steps, before, stream="", streams=streams, now=now)
            snapshots.close(tx, lost, before, now=now)
        self._on_told()
        round_.poll.jobs += len(jobs)

    def _go_on(self) -> None:
        if self._halted():
            raise Halted

    @contextmanager
    def _transaction(self, watch: Watch, now: datetime) -> Iterator[Connection]:
        """Begin by renewing the lease: it fences out a worker that was away, and lets one write at a time."""
        with self._db.write() as tx:
            leases.renew(tx, watch.place.bucket, self._worker, now=now)
            yield tx

    def _finish(self, round_: Round, failures: int) -> None:
        poll, watch = round_.poll, round_.watch
        failures = failures + 1 if poll.error else 0
        wish = poll.error.retry_after if poll.error else None
        with self._transaction(watch, self._clock()) as tx:
            if not poll.error:
                stays = tell_stays(tx, watch, round_.book, earlier(round_.began, -round_.behind), self._clock())
                poll.stays, poll.deliveries = len(stays), poll.deliveries + sum(len(one.told) for one in stays)
            leases.polled(
                tx,
                watch.name,
                began=round_.began,
                next_poll=max(self._clock(), round_.began + pause(watch.every, failures=failures, wish=wish)),
                error=str(poll.error) if poll.error else None,
                failures=failures,
                calls=poll.calls,
                jobs=poll.jobs,
            )
            tallies.count(tx, of_poll(round_, self._clock()), now=self._clock())
        if poll.stays:
            self._on_told()
