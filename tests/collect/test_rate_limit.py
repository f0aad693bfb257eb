from datetime import UTC, datetime, timedelta

import pytest

from bridge.collect.rate_limit import RateLimit
from bridge.model import Pace, Rate, WatchRate
from bridge.record.polling import leases
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


# --- a watch's own rate -----------------------------------------------------------------------------------------------


def own(watch: str, count: int, seconds: int = 60) -> WatchRate:
    return WatchRate(watch=watch, rate=Rate(count=count, per=timedelta(seconds=seconds)))


def test_a_watch_keeps_to_its_own_rate_beside_the_bucket_s(clock: Clock) -> None:
    limit = limited(clock, 100, 1)
    for _ in range(3):
        limit.wait("clips", own("slow", 2))
    assert clock.slept == [60]
    for _ in range(10):
        limit.wait("clips")  # the bucket's other watches
        limit.wait("clips", own("other", 100))
        limit.wait("stills", own("slow", 100))
    assert clock.slept == [60]


def test_calls_of_a_watch_count_in_its_bucket_when_they_are_made(clock: Clock) -> None:
    limit = limited(clock, 2, 10)
    for _ in range(2):
        limit.wait("clips", own("slow", 1, 20))
    assert clock.slept == [20]
    limit.wait("clips")
    # The one 20 s ago counts no more.
    assert clock.slept == [20]
    limit.wait("clips")
    assert clock.slept == [20, 10]


def test_how_long_calls_waited_is_counted_by_bucket(clock: Clock) -> None:
    limit = limited(clock, 1, 10)
    for _ in range(3):
        limit.wait("clips", own("slow", 1, 30))
    limit.wait("stills")
    assert limit.waited_s("clips") == 60
    assert limit.waited_s("stills") == 0


# --- what processes tell each other -----------------------------------------------------------------------------------


def now_of(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now, UTC)


def handed_over(limit: RateLimit, clock: Clock, new: RateLimit) -> Pace:
    """Let another process, with another monotonic clock, go on from where `limit` stopped."""
    told = leases.pace_of(leases.text_of(limit.pace("clips", now=now_of(clock))))
    new.set_pace("clips", told, now=now_of(clock))
    return told


def another(clock: Clock, count: int, seconds: int = 1) -> RateLimit:
    rate = Rate(count=count, per=timedelta(seconds=seconds))
    return RateLimit(rate, monotonic=lambda: clock.now - 1_000_000, sleep=clock.sleep)


def test_another_process_does_not_begin_with_a_burst(clock: Clock) -> None:
    old, new = limited(clock, 3, 10), another(clock, 3, 10)
    for _ in range(3):
        old.wait("clips", own("slow", 3))
    clock.now += 4
    handed_over(old, clock, new)
    new.wait("clips")
    assert clock.slept == [pytest.approx(6)]
    new.wait("clips", own("slow", 3))
    # Three in a minute: the first was 10 s ago.
    assert clock.slept == [pytest.approx(6), pytest.approx(50)]


def test_another_process_goes_on_as_slowly_as_ci_made_the_last_one(clock: Clock) -> None:
    old, new = limited(clock, 1, 1), another(clock, 1)
    for _ in range(2):
        old.refused("clips", old.wait("clips"))
    handed_over(old, clock, new)
    new.wait("clips")
    assert clock.slept[-1] == pytest.approx(4)  # twice twice as long


def test_what_is_told_is_short_and_never_means_fewer_calls_than_there_were(clock: Clock) -> None:
    old, new = limited(clock, 10_000, 3600), another(clock, 10_000, 3600)
    for _ in range(10_000):
        old.wait("clips")
        clock.now += 0.1
    told = handed_over(old, clock, new)
    assert len(told.calls) == 100
    assert sum(count for _, count in told.calls) == 10_000
    new.wait("clips")
    # The first hundred share the time of the last of them: 9.9 s later than the first call's.
    assert clock.slept == [pytest.approx(3600 - 1000 + 9.9, abs=0.2)]


def test_what_is_old_is_not_told(clock: Clock) -> None:
    old, new = limited(clock, 5, 1), another(clock, 5)
    for _ in range(5):
        old.wait("clips", own("slow", 5))
    clock.now += 61
    assert handed_over(old, clock, new) == Pace()


def test_times_in_the_future_are_another_clock_s_and_count_as_now(clock: Clock) -> None:
    new = another(clock, 1, 10)
    new.set_pace("clips", Pace(calls=((now_of(clock) + timedelta(hours=1), 1),)), now=now_of(clock))
    new.wait("clips")
    assert clock.slept == [10]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        '{"calls": 5}',
        '{"calls": [["x", 1]]}',
        '{"slowdown": "fast"}',
        '{"calls":[[1e99,1]]}',
    ],
)
def test_a_stored_pace_in_another_form_counts_as_none(text: str) -> None:
    assert leases.pace_of(text) == Pace()


def test_a_slowdown_is_bounded_as_ever(clock: Clock) -> None:
    new = another(clock, 1)
    new.set_pace("clips", Pace(slowdown=1e9), now=now_of(clock))
    new.wait("clips")
    new.wait("clips")
    assert clock.slept == [5]
