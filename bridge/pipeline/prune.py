"""Prune: delete what ended long ago, a batch a transaction, with a pause before each.

The same walk backfills columns that older versions left empty.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.decide.changes.scan import DEEP, OVERLAP
from bridge.decide.rules.rulebook import Rulebook
from bridge.pipeline.poll import Halted
from bridge.record import counters, pruning
from bridge.record.database import Clock, Database
from bridge.record.polling import leases, snapshots
from bridge.record.pruning import Cutoffs, Found

logger = logging.getLogger(__name__)

_PAUSE_S = 0.15  # who waits to write to SQLite looks every 100 ms whether it is free
_MOST_LOOKS = 300  # at one table in one run; the next run goes on from there


@dataclass(slots=True)
class _Walk:
    """One table that is walked by its key: what is old in it, how to delete that, and where to begin."""

    table: str
    old: Callable[..., Found]
    prune: Callable[..., int]
    beginning: Any
    after: Any = None  # the key that was reached; None: begin anew


@dataclass(slots=True, kw_only=True)
class Pruner:
    """Prunes for one worker, whose id is the token of its lease. `nap` may raise Halted."""

    db: Database
    clock: Clock
    worker: str
    nap: Callable[[float], object]
    clock_fault: Callable[[Connection], str | None] = lambda _: None
    _walks: tuple[_Walk, ...] = field(
        init=False,
        default_factory=lambda: (
            _Walk("deliveries", pruning.old_deliveries, pruning.prune_deliveries, 0),
            _Walk("incidents", pruning.old_incidents, pruning.prune_incidents, 0),
            _Walk("jobs", pruning.old_jobs, pruning.prune_jobs, 0),
            _Walk("threads", pruning.old_threads, pruning.prune_threads, ("", "")),
        ),
    )
    _unfilled: _Walk = field(
        init=False, default_factory=lambda: _Walk("deliveries", pruning.without_rule, pruning.write_rules, None)
    )

    def prune(self, book: Rulebook) -> Mapping[str, int]:
        """Delete what is older than these rules keep, unless another worker does; return how many of what."""
        pruned, filled = Counter[str](), Counter[str]()
        with self.db.write() as tx:
            # A worker of a version without the horizon would list what is deleted now, and notify of it again.
            older = leases.any_older(tx, now=self.clock())
            doubted = self.clock_fault(tx)
            if not pruning.acquire(tx, self.worker, now=self.clock()):
                return pruned
        try:
            with suppress(Halted, leases.LeaseLost):
                if doubted:
                    logger.warning("nothing is pruned by a clock that is doubted", extra={"reason": doubted})
                elif not older:
                    self._delete(book, pruned)
                # Nothing that an older worker does depends on it.
                self._walk(self._unfilled, filled)
        finally:
            for what, counts in (("pruned", pruned), ("backfilled deliveries' rules", filled)):
                if counts:
                    logger.info(what, extra=dict(counts))
            with self.db.write() as tx:
                leases.release(tx, pruning.LEASE_NAME, self.worker)
        return pruned

    def _delete(self, book: Rulebook, pruned: Counter[str]) -> None:
        cut = self._cutoffs(book)
        for walk in self._walks:
            self._walk(walk, pruned, cut=cut)
        with self.db.write() as tx:
            leases.renew(tx, pruning.LEASE_NAME, self.worker, now=self.clock())
            pruning.prune_rest(tx, cut=cut)
        for _ in range(_MOST_LOOKS):
            self.nap(_PAUSE_S)
            with self.db.write() as tx:
                leases.renew(tx, pruning.LEASE_NAME, self.worker, now=self.clock())
                if counters.compact(tx, now=self.clock()) < counters.AT_ONCE:
                    return

    def _cutoffs(self, book: Rulebook) -> Cutoffs:
        """Return from when on everything stays.

        A job that a list may show again must stay, or it would look new. So none goes that was created after the
        last complete listing of any stream of its bucket, or after one began that has never been complete.
        """
        now = self.clock()
        keys = {stream.key: stream.place.bucket for watch in book.watches for stream in watch.streams}
        with self.db.read() as tx:
            listed = snapshots.listed(tx, keys)
        created: dict[str, datetime] = {}
        for key, known in listed.items():
            bucket, shown = keys[key], known.mark - DEEP if known.mark else known.told_from - OVERLAP
            created[bucket] = min(shown, created.get(bucket, shown), now - book.keep - DEEP)
        return Cutoffs(now=now, ended=now - book.keep, dead=now - book.keep_dead, created=created)

    def _walk(self, walk: _Walk, counts: Counter[str], **cut: Cutoffs) -> None:
        for _ in range(_MOST_LOOKS):
            after = walk.beginning if walk.after is None else walk.after
            with self.db.read() as tx:
                found = walk.old(tx, after=after, **cut)
            self.nap(_PAUSE_S if found.keys else 0)
            if found.keys:
                with self.db.write() as tx:
                    leases.renew(tx, pruning.LEASE_NAME, self.worker, now=self.clock())
                    count = walk.prune(tx, found.keys, **cut)
                counts.update({walk.table: count} if count else {})
            walk.after = found.after
            if walk.after is None:
                break
