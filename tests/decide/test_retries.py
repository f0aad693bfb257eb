from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.decide.retries import BREAKER_THRESHOLD, breaker_pause, counts_from, next_pause, over_at, was_tried_enough
from bridge.model import Breaker

DAY = timedelta(hours=24)
OPEN = Breaker()


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def pause(attempts: int, *, used: timedelta = timedelta(), **facts) -> timedelta | None:
    return next_pause(attempts=attempts, used=used, **{"retry": 30 * DAY, "chance": 0.0, **facts})


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 5), (2, 30), (3, 120), (4, 600), (5, 1800), (6, 3600), (7, 3600), (500, 3600)],
)
def test_pauses_grow_to_an_hour_and_stay_there(attempts, seconds):
    assert pause(attempts) == s(seconds)


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_chance_makes_a_pause_longer_by_a_fifth_at_most_and_never_shorter(attempts, chance):
    assert pause(attempts) <= pause(attempts, chance=chance) <= pause(attempts) * 1.2


def test_a_retry_after_lengthens_a_pause_up_to_a_day_and_never_shortens_it():
    assert pause(1, retry_after=timedelta(minutes=7)) == timedelta(minutes=7)
    assert pause(6, retry_after=s(1)) == timedelta(hours=1)
    assert pause(1, retry_after=timedelta(days=400)) == DAY


def test_the_last_attempt_is_made_when_the_time_ends_and_not_given_up_before():
    assert pause(9, retry=timedelta(minutes=20)) == timedelta(minutes=20)  # not after the hour it would pause
    assert pause(9, used=DAY - s(1), retry=DAY) == s(1)


@pytest.mark.parametrize("used", [DAY - s(0.9), DAY, 2 * DAY])
def test_when_the_time_is_over_there_is_no_next_attempt(used):
    assert pause(2, used=used, retry=DAY) is None


def test_there_are_two_attempts_at_least_however_long_the_first_one_took():
    assert pause(1, used=s(15), retry=s(10)) == s(5)
    assert pause(2, used=s(35), retry=s(10)) is None
    assert pause(1, used=s(15), retry=s(10), probed=True) is None


@pytest.mark.parametrize("used", [s(0), DAY])
def test_more_attempts_than_are_of_use_are_not_made(used):
    assert pause(4, used=used, most=5) == s(600)
    assert pause(5, used=used, most=5) is None
    assert pause(5, used=used, most=5, may_end=False) is None  # which no clock can be wrong about


def test_a_retry_after_prolongs_the_retry_time_up_to_three_times():
    assert pause(1, retry=s(45), retry_after=s(100)) == s(100)
    assert pause(1, retry=s(45), retry_after=DAY) == s(3 * 45)
    assert pause(2, used=s(100), retry=s(45), retry_after=DAY) == s(3 * 45 - 100)
    assert pause(3, used=s(3 * 45), retry=s(45), retry_after=DAY) is None
    assert pause(3, used=s(100), retry=s(45)) is None  # it was attempted after the time that the receiver asked for


def test_while_nothing_may_be_given_up_the_pauses_go_on():
    assert pause(7, used=2 * DAY, retry=DAY, may_end=False) == timedelta(hours=1)


def test_time_in_our_own_queue_uses_up_no_retry_time():
    # Tried at 0 s, due again at 5 s, its turn came at 500 s.
    assert counts_from(first=s(0), due=s(5), breaker=OPEN, now=s(500)) == s(495)
    assert counts_from(first=s(0), due=s(5), breaker=OPEN, now=s(8)) == s(0)  # we look every few seconds


def test_the_time_of_an_open_breaker_is_no_time_in_our_queue():
    broken = Breaker(opened=s(100))
    assert counts_from(first=s(0), due=s(5), breaker=broken, now=s(500)) == s(95)
    assert counts_from(first=s(0), due=s(200), breaker=broken, now=s(500)) == s(0)


def test_the_time_that_a_receiver_asked_for_is_no_time_in_our_queue():
    asked = Breaker(asked_until=s(400))
    assert counts_from(first=s(0), due=s(5), breaker=asked, now=s(400)) == s(0)
    assert counts_from(first=s(0), due=s(5), breaker=asked, now=s(500)) == s(100)


def over(*, due: float = 5, now: float = 30, **breaker: timedelta) -> timedelta:
    return over_at(first=s(0), due=s(due), retry=s(45), breaker=Breaker(**breaker), now=s(now))


def enough(attempts: int, probed: float | None = None) -> bool:
    breaker = Breaker(opened=s(0), probed=None if probed is None else s(probed))
    return was_tried_enough(attempts=attempts, due=s(5), breaker=breaker)


def test_it_is_given_up_after_two_attempts_or_a_probe_since_it_was_due():
    assert [enough(1), enough(1, probed=4), enough(1, probed=6), enough(2)] == [False, False, True, True]
    assert [enough(0, probed=5), enough(0, probed=6)] == [False, True]  # its time began with a probe


def test_a_notifier_with_an_open_breaker_has_its_retry_time_and_one_that_asked_for_time_up_to_three_times_as_long():
    assert over(opened=s(0)) == s(45)
    assert over(asked_until=s(40)) == s(45)
    assert over(asked_until=s(110)) == s(110)
    assert over(asked_until=DAY) == s(3 * 45)


@pytest.mark.parametrize(("more", "seconds"), [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (1_000_000, 60)])
def test_the_longer_a_receiver_fails_the_longer_its_breaker_stays_open_up_to_a_minute(more, seconds):
    assert breaker_pause(failures=BREAKER_THRESHOLD - 1, chance=0.0) is None
    assert breaker_pause(failures=BREAKER_THRESHOLD + more, chance=0.0) == timedelta(seconds=seconds)


@given(st.integers(BREAKER_THRESHOLD, 100), st.floats(0, 0.999))
def test_chance_makes_a_breakers_pause_longer_by_a_fifth_at_most(failures, chance):
    shortest = breaker_pause(failures=failures, chance=0.0)
    assert shortest <= breaker_pause(failures=failures, chance=chance) <= shortest * 1.2
