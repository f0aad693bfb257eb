"""Ask CI every hour for the names and states of a bucket's queues. That it does not tell costs only the names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bridge.collect.errors import CiError
from bridge.model import Place
from bridge.record.database import Clock, Database
from bridge.record.polling import leases, queues

if TYPE_CHECKING:
    from bridge.collect.client import TencentCi

logger = logging.getLogger(__name__)


def refresh(db: Database, source: TencentCi, place: Place, *, worker: str, clock: Clock) -> None:
    """Ask for the queues of a bucket if it is time, under its lease; another worker may have it by now."""
    bucket, now = place.bucket, clock()
    with db.read() as tx:
        if not queues.is_due(tx, bucket, now=now):
            return
    with db.write() as tx:
        if not leases.acquire(tx, bucket, worker, now=now):
            return
        before = queues.ask(tx, bucket, now=now)
    try:
        found = source.queues(place)
    except CiError as error:
        if str(error) != before:
            logger.info("the names of queues are not known", extra={"bucket": bucket, "reason": str(error)})
        with db.write() as tx:
            leases.renew(tx, bucket, worker, now=clock())
            queues.failed(tx, bucket, str(error))
            leases.release(tx, bucket, worker)
        return
    with db.write() as tx:
        leases.renew(tx, bucket, worker, now=clock())
        queues.save(tx, bucket, found, now=clock())
        leases.release(tx, bucket, worker)
