from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.decide.retries import BROKEN_AT, next_try, rest
from tests.builders import NOON

DAY = timedelta(hours=24)


def pause(attempts: int, *, chance: float = 0, **facts) -> timedelta:
    given = {"created_at": NOON, "now": NOON, "retry": 30 * DAY, "chance": chance, **facts}
    when = next_try(attempts=attempts, **given)
    assert when is not None
    return when - NOON


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 5), (2, 30), (3, 120), (4, 600), (5, 1800), (6, 3600), (7, 3600), (500, 3600)],
)
def test_pauses_grow_to_an_hour_and_stay_there(attempts, seconds):
    assert pause(attempts) == timedelta(seconds=seconds)


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_chance_makes_a_pause_longer_by_a_fifth_at_most_and_never_shorter(attempts, chance):
    assert pause(attempts) <= pause(attempts, chance=chance) <= pause(attempts) * 1.2


def test_the_receivers_wish_lengthens_a_pause():
    assert pause(1, wish=timedelta(minutes=7)) == timedelta(minutes=7)


def test_the_receivers_wish_does_not_shorten_a_pause():
    assert pause(6, wish=timedelta(seconds=1)) == timedelta(hours=1)


def test_nobody_waits_longer_than_a_day_for_a_wish():
    assert pause(1, wish=timedelta(days=400)) == DAY


def test_the_last_try_is_made_when_the_time_ends_and_not_given_up_before():
    assert pause(9, retry=timedelta(minutes=20)) == timedelta(minutes=20)  # not after the hour it would pause


def test_when_the_time_is_over_there_is_no_next_try():
    late = {"attempts": 1, "created_at": NOON, "retry": DAY, "chance": 0.0}
    assert next_try(now=NOON + DAY, **late) is None
    assert next_try(now=NOON + 2 * DAY, **late) is None
    assert next_try(now=NOON + DAY - timedelta(seconds=1), **late) == NOON + DAY


def test_a_receiver_that_failed_a_few_times_is_not_left_alone():
    assert rest(failures=BROKEN_AT - 1, chance=0.0) is None


@pytest.mark.parametrize(("more", "seconds"), [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (1_000_000, 60)])
def test_the_longer_a_receiver_fails_the_longer_it_is_left_alone_up_to_a_minute(more, seconds):
    assert rest(failures=BROKEN_AT + more, chance=0.0) == timedelta(seconds=seconds)


@given(st.integers(BROKEN_AT, 100), st.floats(0, 0.999))
def test_chance_makes_a_rest_longer_by_a_fifth_at_most(failures, chance):
    shortest = rest(failures=failures, chance=0.0)
    assert shortest <= rest(failures=failures, chance=chance) <= shortest * 1.2
