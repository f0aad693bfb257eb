"""Callbacks as hints: the jobs that they name are asked for by id, between polls and between the calls of a poll.

What CI answers is stored as if a poll had asked. A callback is not believed, so a lie costs a call and changes nothing.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.collect.errors import BrokenReply, CiError
from bridge.decide.changes.clocks import Clocks
from bridge.decide.changes.diff import latest
from bridge.decide.changes.hints import stream_of, to_ask
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import DONE, Description, Job, JobProblem, Stream, Transition, Watch
from bridge.pipeline.callbacks import Answered
from bridge.pipeline.poll import Halted, Poll
from bridge.pipeline.poller import Poller
from bridge.pipeline.route import route_all
from bridge.record import counters, rulesets
from bridge.record.counters import Count
from bridge.record.polling import hints, leases, problems, snapshots
from bridge.record.polling.snapshots import Known

logger = logging.getLogger(__name__)

_PUT_OFF = timedelta(seconds=30)  # where CI does not answer
_LOOK_EVERY_S = 0.5  # between the calls of a poll


@dataclass(slots=True, kw_only=True)
class Hints:
    """Asks CI for the jobs that callbacks name, for one worker and by the leases of its poller."""

    poller: Poller
    monotonic: Callable[[], float] = time.monotonic
    _look_at_s: dict[str, float] = field(default_factory=dict, init=False)  # by bucket, between the calls of a poll

    def due(self, watches: Iterable[Watch]) -> list[str]:
        """Return the buckets of these watches in which there is a job to ask for now."""
        by_bucket, now = defaultdict[str, list[Watch]](list), self.poller.clock()
        for watch in watches:
            by_bucket[watch.place.bucket].append(watch)
        with self.poller.db.read() as tx:
            found = [bucket for bucket in hints.buckets_due(tx, now=now) if bucket in by_bucket]
            return [bucket for bucket in found if any(_look(tx, bucket, _not_paused(tx, by_bucket[bucket]), now))]

    def ask(self, bucket: str, book: Rulebook) -> None:
        """Ask for the jobs of a bucket that are due. If another worker has it, that one's poll asks for them."""
        poller = self.poller
        with poller.db.write() as tx:
            is_kept = leases.holds(tx, bucket, poller.worker)  # for lists that go on in the next poll
            if not poller.acquire(tx, bucket):
                return
        watches = [watch for watch in book.watches if watch.place.bucket == bucket]
        try:
            # A poll that is due asks for the others between its calls.
            self._ask(bucket, book, {}, enough=lambda: bool(poller.due(watches)))
        except (leases.LeaseLost, rulesets.OtherRules) as error:
            facts = {"bucket": bucket, "reason": str(error)}
            logger.warning("jobs that a callback names are left to the next poll", extra=facts)
        except Halted:
            pass
        finally:
            if not is_kept:
                poller.release(bucket)

    def ask_between(self, poll: Poll) -> None:
        """Make one such call between two of a poll, which has the bucket. Raises LeaseLost, OtherRules and Halted."""
        bucket, now_s = poll.watch.place.bucket, self.monotonic()
        if now_s >= self._look_at_s.get(bucket, now_s):
            is_all = self._ask(bucket, poll.book, {poll.watch.name: poll}, enough=lambda: True)
            self._look_at_s[bucket] = now_s + _LOOK_EVERY_S if is_all else now_s

    def _ask(self, bucket: str, book: Rulebook, polls: dict[str, Poll], *, enough: Callable[[], bool]) -> bool:
        """Ask for what is due until it is `enough`, and store it; return whether that was all.

        `polls` are those under way, by watch.
        """
        poller = self.poller
        with poller.db.read() as tx:
            watches = _not_paused(tx, [watch for watch in book.watches if watch.place.bucket == bucket])
            found_due, ended = _look(tx, bucket, watches, poller.clock())
        if ended:
            with poller.db.write() as tx:
                hints.forget(tx, bucket, ended)
        portions = deque(found_due)
        while portions:
            if poller.halted():
                raise Halted
            asked, at = portions.popleft(), poller.clock()
            try:
                found = poller.source.describe(watches[0].place, asked)
            except BrokenReply as error:
                if len(asked) > 1:
                    portions.extendleft([(job_id,) for job_id in asked])
                    continue
                found = Description(jobs=(), problems=(JobProblem.of_whole(asked[0], error.what),))
            except CiError as error:
                self._put_off(bucket, [job_id for ids in (asked, *portions) for job_id in ids], error)
                return True
            answer = _Answer(poller=poller, book=book, watches=watches, polls=polls, found=found, asked=asked, at=at)
            answer.store()
            if enough():
                break
        return not portions

    def _put_off(self, bucket: str, ids: Sequence[str], error: CiError) -> None:
        with self.poller.db.write() as tx:
            hints.put_off(tx, bucket, ids, until=self.poller.clock() + _PUT_OFF)
        facts = {"bucket": bucket, "jobs": len(ids), "reason": str(error)}
        logger.warning("CI was asked in vain for jobs that a callback names", extra=facts)


def _not_paused(tx: Connection, watches: Sequence[Watch]) -> list[Watch]:
    paused = {row.name for row in leases.polls(tx, [watch.name for watch in watches]) if row.paused}
    return [watch for watch in watches if watch.name not in paused]


def _look(
    tx: Connection, bucket: str, watches: Sequence[Watch], now: datetime
) -> tuple[Sequence[tuple[str, ...]], Sequence[str]]:
    """Return the ids of each call to make in a bucket now, and the jobs that have ended since they were named."""
    if not watches:
        return (), ()
    due, every = hints.due(tx, bucket, now=now), min(watch.every for watch in watches)
    return to_ask(due.known, due.unknown, denied_at=due.denied_at, every=every, now=now), due.ended


def _silence(tx: Connection, poll: Poll, stream: Stream, new: Sequence[Job]) -> Callable[[Job], str | None]:
    """Return why nobody is notified of a new job. Without any, the stream may be one that was never listed."""
    if not new:
        return lambda _: None
    bucket = stream.place.bucket
    horizon, of_first = snapshots.horizon(tx, bucket), problems.of_first(tx, bucket, [job.id for job in new])
    return poll.reason_for_silence(stream, horizon, new, of_first=of_first)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """CI's answer about the jobs `asked` for `at` a time, and what is known of the watches of their bucket."""

    poller: Poller
    book: Rulebook
    watches: Sequence[Watch]
    polls: dict[str, Poll]  # by watch: under way, or what one would know that began now
    found: Description
    asked: Sequence[str]
    at: datetime

    def store(self) -> None:
        """Store in one transaction what the answer changes, its deliveries, and that CI was asked."""
        bucket, now = self.watches[0].place.bucket, self.poller.clock()
        jobs = [job for job in latest(self.found.jobs) if job.id in self.asked]
        with self.poller.db.write() as tx:
            leases.renew(tx, bucket, self.poller.worker, now=now)
            rulesets.require_in_force(tx, self.book.sha)
            before = snapshots.known(tx, bucket, self.asked)
            owned = self._owned(tx, jobs, before)
            steps = [self._store(tx, stream, mine, before, now) for stream, mine in owned.items()]
            transitions = list(itertools.chain.from_iterable(steps))
            stored = [job for mine in owned.values() for job in mine]
            for poll in self.polls.values():
                poll.show(tx, stored)
            self._count(tx, stored, transitions, now, self._watch_of(next(iter(owned), None)).name)
            over = [job.id for job in stored if job.state in DONE]
            left_alone = {*self.asked} - {job.id for job in stored} - self._unreadable
            hints.answered(tx, bucket, self.asked, ended=over, denied=left_alone, asked=self.at)
        if transitions:
            self.poller.on_stored()
            facts = {"bucket": bucket, "jobs": len(jobs), "transitions": len(transitions)}
            logger.info("jobs that a callback names", extra=facts)

    @property
    def _unreadable(self) -> set[str]:
        return {problem.job_id for problem in self.found.problems if problem.left_out}

    def _owned(self, tx: Connection, jobs: Sequence[Job], before: Mapping[str, Known]) -> dict[Stream, list[Job]]:
        """Return by stream the jobs to store.

        A new one is left to its stream's first snapshot until that is complete, and left alone if no stream has it.
        """
        streams = {stream.key: stream for watch in self.watches for stream in watch.streams}
        listed = snapshots.listed(tx, streams)
        owned = defaultdict[Stream, list[Job]](list)
        for job in jobs:
            known = before.get(job.id)
            stream = (streams.get(known.stream) if known else None) or stream_of(job, streams.values())
            if stream and (known or (stream.key in listed and listed[stream.key].mark)):
                owned[stream].append(job)
        return owned

    def _store(
        self, tx: Connection, stream: Stream, jobs: Sequence[Job], before: Mapping[str, Known], now: datetime
    ) -> Sequence[Transition]:
        """Store the jobs of one stream by the rules of a list that shows them; its mark stays."""
        bucket, ids = stream.place.bucket, [job.id for job in jobs]
        poll = self._poll_of(tx, stream, now)
        silence = _silence(tx, poll, stream, [job for job in jobs if job.id not in before])
        transitions = poll.diff(before, jobs, silence, now=now, still_at=poll.still_at(stream.key))
        poll.result.count(route_all(tx, self.book, poll.dated(transitions), now))
        streams = {one.key for watch in self.book.watches for one in watch.streams}
        snapshots.save(tx, jobs, transitions, before, stream=stream.key, streams=streams, now=now)
        of_jobs = [problem for problem in self.found.problems if problem.job_id in ids]
        problems.record(tx, bucket, stream.key, ids, of_jobs, now=now)
        return transitions

    def _poll_of(self, tx: Connection, stream: Stream, now: datetime) -> Poll:
        """Return the poll under way of a stream's watch, or what one would know that began now."""
        watch = self._watch_of(stream)
        if watch.name not in self.polls:
            self.polls[watch.name] = Poll.between(tx, watch, self.book, now)
        poll = self.polls[watch.name]
        poll.answered(Clocks(asked=self.at, answered=now, date=self.found.served_at), calls=0)
        return poll

    def _watch_of(self, stream: Stream | None) -> Watch:
        """Return the watch of a stream; the bucket's first where it is about none."""
        return next((watch for watch in self.watches if stream in watch.streams), self.watches[0])

    def _count(
        self, tx: Connection, stored: Sequence[Job], transitions: Sequence[Transition], now: datetime, watch: str
    ) -> None:
        moved, found = len({step.job.id for step in transitions}), len({job.id for job in self.found.jobs})
        counts: dict[Answered, int] = {
            "news": moved,
            "no_news": len(stored) - moved,
            "not_watched": found - len(stored),
        }
        counts["denied"] = len(self.asked) - found - len(self._unreadable)
        answers = [Count("hint", (what,), times=times) for what, times in counts.items() if times > 0]
        counters.add(tx, [*answers, Count("call", (watch,))], now=now)
