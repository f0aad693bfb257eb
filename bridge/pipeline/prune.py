"""Prune: what has ended long ago is taken out, a batch a transaction, with a pause before each.

In the same way what older versions did not write down is filled in.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.decide.changes.scan import OVERLAP
from bridge.decide.rules.rulebook import Rulebook
from bridge.pipeline.poll import Halted
from bridge.record import counters, pruning
from bridge.record.database import Clock, Database
from bridge.record.polling import leases, snapshots
from bridge.record.pruning import Cutoffs, Found

logger = logging.getLogger(__name__)

_PAUSE_S = 0.15  # who waits to write to SQLite looks every 100 ms whether it is free
_MOST_LOOKS = 300  # at one table in one run; the next run goes on from there

_Old = Callable[..., Found]
_Prune = Callable[..., int]


class _Walk:
    """One table, and how far it has been walked."""

    def __init__(self, old: _Old, prune: _Prune, beginning: Any) -> None:
        self.old = old
        self.prune = prune
        self._beginning = beginning
        self.after = beginning

    def go_on(self, after: Any) -> bool:
        """Go on after this key, or at the beginning again; return whether there is more this time."""
        self.after = self._beginning if after is None else after
        return after is not None


class Pruner:
    """Prunes for one worker, whose id is the token of its lease. `nap` may raise Halted."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        worker: str,
        nap: Callable[[float], object],
        clock_fault: Callable[[Connection], str | None] = lambda _: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._worker = worker
        self._nap = nap
        self._clock_fault = clock_fault
        self._walks = {
            "deliveries": _Walk(pruning.old_deliveries, pruning.prune_deliveries, 0),
            "jobs": _Walk(pruning.old_jobs, pruning.prune_jobs, 0),
            "threads": _Walk(pruning.old_threads, pruning.prune_threads, ("", "")),
        }
        self._unsaid = _Walk(pruning.without_rule, pruning.write_rules, None)

    def prune(self, book: Rulebook) -> Mapping[str, int]:
        """Take out what is older than these rules keep, unless another worker does; return how many of what."""
        pruned, filled = Counter[str](), Counter[str]()
        with self._db.write() as tx:
            # A worker of before there was a horizon would list what goes now, and tell it again.
            older = leases.any_older(tx, now=self._clock())
            doubted = self._clock_fault(tx)
            if not pruning.acquire(tx, self._worker, now=self._clock()):
                return pruned
        try:
            with suppress(Halted, leases.LeaseLost):
                if doubted:
                    logger.warning("nothing is pruned by a clock that is doubted", extra={"reason": doubted})
                elif not older:
                    self._take_out(book, pruned)
                # Nothing that an older worker does depends on it.
                self._walk(self._unsaid, "deliveries", filled)
        finally:
            for said, counts in (("pruned", pruned), ("wrote down the rules of deliveries", filled)):
                if counts:
                    logger.info(said, extra=dict(counts))
            with self._db.write() as tx:
                leases.release(tx, pruning.LEASE, self._worker)
        return pruned

    def _take_out(self, book: Rulebook, pruned: Counter[str]) -> None:
        cut = self._cutoffs(book)
        for table, walk in self._walks.items():
            self._walk(walk, table, pruned, cut=cut)
        with self._db.write() as tx:
            leases.renew(tx, pruning.LEASE, self._worker, now=self._clock())
            pruning.prune_rest(tx, cut=cut)
        self._compact()

    def _cutoffs(self, book: Rulebook) -> Cutoffs:
        """Return from when on everything stays.

        A job that a list may show again must stay, or it would look new. So none goes that was created after the
        last complete listing of any stream of its bucket, or after one began that has never been complete.
        """
        now = self._clock()
        keys = {stream.key: stream.place.bucket for watch in book.watches for stream in watch.streams}
        with self._db.read() as tx:
            listed = snapshots.listed(tx, keys)
        created: dict[str, datetime] = {}
        for key, known in listed.items():
            bucket, shown = keys[key], (known.mark or known.told_from) - OVERLAP
            created[bucket] = min(shown, created.get(bucket, shown), now - book.keep - OVERLAP)
        return Cutoffs(now=now, ended=now - book.keep, dead=now - book.keep_dead, created=created)

    def _walk(self, walk: _Walk, table: str, counts: Counter[str], **cut: Cutoffs) -> None:
        for _ in range(_MOST_LOOKS):
            with self._db.read() as tx:
                found = walk.old(tx, after=walk.after, **cut)
            self._nap(_PAUSE_S if found.keys else 0)
            if found.keys:
                with self._db.write() as tx:
                    leases.renew(tx, pruning.LEASE, self._worker, now=self._clock())
                    count = walk.prune(tx, found.keys, **cut)
                counts.update({table: count} if count else {})
            if not walk.go_on(found.after):
                break

    def _compact(self) -> None:
        for _ in range(_MOST_LOOKS):
            self._nap(_PAUSE_S)
            with self._db.write() as tx:
                leases.renew(tx, pruning.LEASE, self._worker, now=self._clock())
                if counters.compact(tx, now=self._clock()) < counters.AT_ONCE:
                    return
