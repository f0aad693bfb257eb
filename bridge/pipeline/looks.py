"""Early looks: halfway between two polls of a watch, the jobs that are likeliest to end are asked for by id.

That is one call at the most, and none where a poll needed more calls than usual, or `rate` is half used up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from bridge.collect.errors import CiError
from bridge.decide.changes.clocks import Clocks
from bridge.decide.changes.scan import likeliest_to_end, look_at
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Job, Watch
from bridge.pipeline.poll import Halted, Poll
from bridge.pipeline.poller import Poller
from bridge.record import counters, rulesets
from bridge.record.counters import Count
from bridge.record.database import at
from bridge.record.polling import leases, snapshots
from bridge.record.polling.leases import StoredWatch

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Looks:
    """Makes the early looks of one worker, by the leases of its poller."""

    poller: Poller

    def due(self, book: Rulebook) -> list[Watch]:
        """Return the watches whose unfinished jobs are to be looked at now."""
        now = self.poller.clock()
        found = [watch for watch, time, until in self._times(book) if time <= now < until]
        with self.poller.db.read() as tx:
            return [watch for watch in found if _unfinished(tx, watch)]

    def next_due(self, book: Rulebook) -> datetime | None:
        """Return when the first look comes due that is not due now."""
        now = self.poller.clock()
        return min((time for _, time, _ in self._times(book) if time > now), default=None)

    def _times(self, book: Rulebook) -> Iterator[tuple[Watch, datetime, datetime]]:
        """Yield from when until when each watch may be looked at."""
        with self.poller.db.read() as tx:
            rows = {row.name: row for row in leases.polls(tx, [watch.name for watch in book.watches])}
        for watch in book.watches:
            row = rows.get(watch.name)
            if row and not row.paused and row.is_complete and not self.poller.extra_calls(watch.name):
                polled, next_poll = at(row.polled_at), at(row.next_poll_at)
                time = look_at(polled, next_poll)
                if at(row.looked_at) < polled < next_poll and self._has_room(watch, book, rows):
                    yield watch, time, next_poll - (next_poll - time) / 2

    def _has_room(self, watch: Watch, book: Rulebook, rows: Mapping[str, StoredWatch]) -> bool:
        """Tell whether polls use at most half of the calls that their bucket, and the watch itself, may take."""
        alike = [other for other in book.watches if other.place.bucket == watch.place.bucket and other.name in rows]
        calls_per_s = sum(rows[other.name].answered / other.every.total_seconds() for other in alike)
        is_slow = self.poller.source.is_slowed(watch.place)
        if is_slow or 2 * calls_per_s * book.rate.interval.total_seconds() > 1:
            return False
        own, own_per_s = watch.place.watch_rate, rows[watch.name].answered / watch.every.total_seconds()
        return own is None or 2 * own_per_s * own.rate.interval.total_seconds() <= 1

    def ask(self, watch: Watch, book: Rulebook) -> None:
        """Ask for the jobs of a watch that are likeliest to end, unless another worker has its bucket."""
        poller, bucket = self.poller, watch.place.bucket
        with poller.db.write() as tx:
            if not poller.acquire(tx, bucket):
                return
            leases.looked(tx, watch.name, poller.clock())
            asked = likeliest_to_end(_unfinished(tx, watch))
            poll = Poll.between(tx, watch, book, poller.clock())
        try:
            if asked:
                self._ask(poll, asked)
        except (leases.LeaseLost, rulesets.OtherRules, Halted):
            pass
        except CiError as error:  # the next poll says it, if it lasts
            logger.info("an early look failed", extra={"watch": watch.name, "reason": str(error)})
        finally:
            if poll.result.calls:
                with poller.db.write() as tx:
                    counters.add(tx, [Count("call", (watch.name,), times=poll.result.calls)], now=poller.clock())
            poller.release(bucket)

    def _ask(self, poll: Poll, asked: tuple[str, ...]) -> None:
        poller, asked_at = self.poller, self.poller.clock()
        found = poller.source.describe(poll.watch.place, asked)
        poll.answered(Clocks(asked=asked_at, answered=poller.clock(), date=found.served_at))
        # Only polls count how often CI did not find a job.
        poller.store_described(poll, replace(found, missing=()), asked)
        if poll.result.transitions:
            facts = {"watch": poll.watch.name, "jobs": len(found.jobs), "transitions": poll.result.transitions}
            logger.info("an early look", extra=facts)


def _unfinished(tx: Connection, watch: Watch) -> list[Job]:
    return snapshots.oldest_unfinished(tx, [stream.key for stream in watch.streams])
