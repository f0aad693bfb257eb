"""Resending many deliveries that died or were dropped: they are due one after the other, at a rate."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import Any

from bridge.record.database import Database, ms
from bridge.record.outbox import batches
from bridge.record.outbox.batches import Batch
from bridge.record.queries.lists import Filter, iso

logger = logging.getLogger(__name__)

Facts = dict[str, Any]

USUAL_PER_MINUTE, MOST_PER_MINUTE = 600, 6_000
STATES = ("dead", "dropped")
LARGEST = 100_000  # deliveries of a batch: some seconds' work for whoever asks
AT_ONCE = 500  # deliveries in a transaction: some 50 ms of writing on SQLite
_PAUSE_S = 0.02  # in which somebody else may write to SQLite


class TooMany(Exception):
    """There are too many for one batch; the text says what to do."""


def resend(
    db: Database,
    which: Filter,
    *,
    id_: str,
    interval: timedelta,
    author: str,
    now: datetime,
    largest: int = LARGEST,
    at_once: int = AT_ONCE,
) -> Batch:
    """Resend what a filter finds (its state is one of STATES) as a batch, one each interval. Raises TooMany.

    A process that dies on the way has resent the first of them; the same filter finds the others.
    """
    with db.read() as tx:
        numbers = batches.numbers(tx, which, most=largest + 1)
    if len(numbers) > largest:
        raise TooMany(
            f"there are more such deliveries than the {largest:,} that one batch may have; narrow them down, as with "
            "since and until"
        )
    given = 0
    for start in range(0, len(numbers), at_once):
        due = {n: now + (start + place) * interval for place, n in enumerate(numbers[start : start + at_once])}
        with db.write() as tx:
            given += batches.resend(tx, id_, due)
        _let_others_write(db)
    logger.info("resent", extra={"batch": id_, "deliveries": given, "author": author})
    with db.read() as tx:
        return batches.progress(tx, id_, now=now) or Batch(id=id_)


def cancel(db: Database, id_: str, *, author: str, now: datetime, at_once: int = AT_ONCE) -> tuple[Batch | None, int]:
    """Let what is not due yet of a batch be dead again; return the batch as it stands, and how many those were."""
    with db.read() as tx:
        numbers = batches.not_due(tx, id_, now=now)
    cancelled = 0
    for start in range(0, len(numbers), at_once):
        with db.write() as tx:
            cancelled += batches.cancel(tx, id_, numbers[start : start + at_once], now=now)
        _let_others_write(db)
    logger.info("batch cancelled", extra={"batch": id_, "deliveries": cancelled, "author": author})
    with db.read() as tx:
        return batches.progress(tx, id_, now=now), cancelled


def _let_others_write(db: Database) -> None:
    if db.sqlite:  # who waits for PostgreSQL's rows is woken
        time.sleep(_PAUSE_S)


def batch_facts(batch: Batch) -> Facts:
    return {
        "id": batch.id,
        "total": batch.total,
        "scheduled": batch.scheduled,
        "waiting": batch.waiting,
        "sending": batch.sending,
        "sent": batch.sent,
        "dead": batch.dead,
        "last_due_at": iso(ms(batch.last_due_at)) if batch.last_due_at else None,
    }
