from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.decide.retries import next_try
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
