"""Ask CI every hour for the names and states of a bucket's queues. That it does not tell costs only the names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bridge.collect.errors import CiError
from bridge.model import Place
from bridge.record.polling import leases, queues

if TYPE_CHECKING:
    from bridge.pipeline.poller import Poller

logger = logging.getLogger(__name__)


def refresh(poller: Poller, place: Place) -> None:
    """Ask for the queues of a bucket if it is time, under its lease; another worker may have it by now.

    Raises LeaseLost, and Halted.
    """
    bucket, now = place.bucket, poller.clock()
    with poller.db.read() as tx:
        if not queues.is_due(tx, bucket, now=now):
            return
    with poller.db.write() as tx:
        if not poller.acquire(tx, bucket):
            return
        before = queues.ask(tx, bucket, now=now)
    try:
        _ask(poller, place, before)
    finally:
        poller.release(bucket)


def _ask(poller: Poller, place: Place, before: str | None) -> None:
    """Ask, and store the answer; `before` is the error of the last time."""
    bucket = place.bucket
    try:
        found = poller.source.queues(place)
    except CiError as error:
        if str(error) != before:
            logger.info("the names of queues are not known", extra={"bucket": bucket, "reason": str(error)})
        with poller.db.write() as tx:
            leases.renew(tx, bucket, poller.worker, now=poller.clock())
            queues.failed(tx, bucket, str(error))
    else:
        with poller.db.write() as tx:
            leases.renew(tx, bucket, poller.worker, now=poller.clock())
            queues.save(tx, bucket, found, now=poller.clock())
