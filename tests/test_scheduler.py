from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bridge.scheduler import Ticker
from tests.support.waiting import wait_until

HOUR_S = 3600.0


class Clocks:
    """The machine's clock, which can be set, and its monotonic one, which cannot."""

    def __init__(self) -> None:
        self.off_s = 0.0

    def wall(self) -> float:
        return 1_000_000.0 + self.off_s

    def monotonic(self) -> float:
        return 50.0


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def ticker(clocks: Clocks) -> Iterator[Ticker]:
    ticker = Ticker(wall=clocks.wall, monotonic=clocks.monotonic)
    ticker.start()
    yield ticker
    ticker.stop(wait=True)


def test_a_failing_tick_comes_again(ticker: Ticker) -> None:
    came = threading.Semaphore(0)

    def tick() -> None:
        came.release()
        raise ValueError("bad day")

    ticker.every(0.01, tick)
    assert all(came.acquire(timeout=10) for _ in range(3))


@pytest.mark.parametrize("off_s", [-HOUR_S, HOUR_S])
def test_after_the_clock_was_set_the_next_tick_comes_now(ticker: Ticker, clocks: Clocks, off_s: float) -> None:
    came = threading.Event()
    ticker.every(HOUR_S, came.set)
    clocks.off_s = off_s
    ticker.mind_the_clock()
    wait_until(came.is_set)


def test_a_slewed_clock_moves_no_tick(ticker: Ticker, clocks: Clocks) -> None:
    hourly, often = threading.Event(), threading.Semaphore(0)
    ticker.every(HOUR_S, hourly.set)
    ticker.every(0.01, often.release)
    for _ in range(3):
        clocks.off_s += 0.1
        ticker.mind_the_clock()
        assert often.acquire(timeout=10)
    assert not hourly.is_set()
