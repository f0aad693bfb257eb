"""When: ticks on APScheduler. It knows no jobs and no deliveries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

logger = logging.getLogger(__name__)


class Ticker:
    """Calls functions at intervals, each in one thread at a time; a tick that fails is logged and comes again."""

    def __init__(self) -> None:
        # Its own warnings say that a tick is still running, which is meant.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def every(self, seconds: float, call: Callable[[], object]) -> Callable[[float], object]:
        """Call it every so many seconds; the function returned changes how many."""
        job = self._scheduler.add_job(_safely(call), "interval", seconds=seconds)
        return lambda again_s: job.reschedule("interval", seconds=again_s)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self, *, wait: bool) -> None:
        """Begin no tick more; with `wait`, return when those that run have ended."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=wait)


def _safely(call: Callable[[], object]) -> Callable[[], None]:
    def tick() -> None:
        try:
            call()
        except Exception:  # a tick is the edge: whatever failed, the next one comes
            logger.exception("tick failed", extra={"tick": call.__qualname__})

    return tick
