"""Calls functions at intervals, with APScheduler. It knows neither jobs nor deliveries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

logger = logging.getLogger(__name__)

_SET_S = 0.5  # a clock that is only slewed changes less between two checks


class Ticker:
    """Calls functions at intervals, each in one thread at a time; a failed tick is logged, and the next one comes."""

    def __init__(
        self, *, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._apart_s = wall() - monotonic()
        # It warns that a tick is still running, which is intended.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def every(self, seconds: float, call: Callable[[], object]) -> Callable[[float], object]:
        """Call `call` every so many seconds; the returned function changes the interval."""
        job = self._scheduler.add_job(_safely(call), "interval", seconds=seconds)
        return lambda new_s: job.reschedule("interval", seconds=new_s)

    def start(self) -> None:
        self._scheduler.start()

    def mind_the_clock(self) -> None:
        """Call regularly: ticks follow the wall clock, so if it was set back, none would come for as long."""
        apart_s = self._wall() - self._monotonic()
        if abs(apart_s - self._apart_s) > _SET_S:
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))
        self._apart_s = apart_s

    def stop(self, *, wait: bool) -> None:
        """Start no more ticks; with `wait`, return when running ones have ended."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=wait)


def _safely(call: Callable[[], object]) -> Callable[[], None]:
    def tick() -> None:
        try:
            call()
        except Exception:  # the edge of a thread
            logger.exception("tick failed", extra={"tick": call.__qualname__})

    return tick
