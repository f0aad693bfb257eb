from datetime import timedelta

import pytest

from bridge.collect.rate_limit import RateLimit
from bridge.model import Rate
from tests.collect.conftest import Clock


def limited(clock: Clock, count: int = 5, seconds: int = 1) -> RateLimit:
    return RateLimit(Rate(count=count, per=timedelta(seconds=seconds)), monotonic=clock, sleep=clock.sleep)


def test_a_bucket_is_asked_no_more_often_than_the_rate(clock: Clock) -> None:
    limit = limited(clock, 2, 10)
    for _ in range(5):
        limit.wait("clips")
    # Two at once; the third and the fifth each wait until 10 s have gone since the one two before.
    assert clock.slept == [10, 10]
    limit.wait("stills")  # another bucket does not wait
    assert len(clock.slept) == 2


def test_threads_start_one_after_the_other() -> None:
    """The clock stands still, as for threads that ask at the same moment."""
    slept: list[float] = []
    limit = RateLimit(Rate(count=1, per=timedelta(seconds=10)), monotonic=lambda: 0.0, sleep=slept.append)
    for _ in range(3):
        limit.wait("clips")
    assert slept == [10, 20]


class Limited:
    """A CI that takes one call a second, and the calls that it was asked, each with whether it took it."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.interval_s = clock, 1.0
        self.free_at = 0.0
        self.taken: list[bool] = []

    def ask(self, limit: RateLimit) -> None:
        start = limit.wait("clips")
        self.taken.append(self.clock.now >= self.free_at)
        if self.taken[-1]:
            self.free_at = self.clock.now + self.interval_s
            limit.accepted("clips")
        else:
            limit.refused("clips", start)


def test_of_the_calls_to_a_ci_that_takes_fewer_than_we_ask_few_are_refused(clock: Clock) -> None:
    ci, limit = Limited(clock), limited(clock)
    began = clock.now
    for _ in range(500):
        ci.ask(limit)
    assert ci.taken.count(False) < 0.03 * 500
    assert clock.now - began < 2 * 500  # and no slower than half of what it takes


def test_the_pace_comes_back_step_by_step_when_ci_takes_more(clock: Clock) -> None:
    ci, limit = Limited(clock), limited(clock)
    for _ in range(200):
        ci.ask(limit)
    ci.interval_s = ci.free_at = 0
    took = []
    for _ in range(40):
        began = clock.now
        for _ in range(20):
            ci.ask(limit)
        took.append(clock.now - began)
    assert took == sorted(took, reverse=True)
    assert took[-1] <= 4.1  # twenty calls at five a second again
    assert len({round(seconds, 3) for seconds in took}) > 3


def test_calls_of_two_threads_that_are_refused_together_slow_the_bucket_once(clock: Clock) -> None:
    limit = limited(clock)
    starts = [limit.wait("clips"), limit.wait("clips")]
    for start in starts:
        limit.refused("clips", start)
    # Five a second is one each 0.2 s, and twice as long from now on, whichever thread asks.
    for _ in range(2):
        limit.wait("clips")
    assert clock.slept == [pytest.approx(0.4), pytest.approx(0.4)]
    limit.wait("stills")
    assert len(clock.slept) == 2


def test_a_ci_that_refuses_everything_is_asked_every_few_seconds(clock: Clock) -> None:
    limit = limited(clock)
    for _ in range(50):
        limit.refused("clips", limit.wait("clips"))
    assert clock.slept[-1] == pytest.approx(5)
