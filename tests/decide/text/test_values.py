from datetime import timedelta

import pytest

from bridge.decide.text.times import duration, rate
from bridge.decide.text.values import shown, states, suggest
from bridge.model import DONE, GONE, NEW, Rate


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("1h30m", 5400), ("7d", 604_800), ("1d1s", 86_401)]
)
def test_a_duration_is_numbers_with_units(text, seconds):
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "45", "m", "45 m", "-5m", "1.5h", "1w", "5M", "5m!", "٣x"])
def test_what_is_no_duration_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r'is not a duration; write for example "30s", "45m", "1h30m" or "7d"'):
        duration(text)


@pytest.mark.parametrize("text", ["0s", "0h0m", "9999d", "99999999999999999999d"])
def test_nothing_and_more_than_ten_years_are_no_durations(text):
    with pytest.raises(ValueError, match="more than nothing and at most ten years"):
        duration(text)


def test_a_rate_is_a_number_in_a_time():
    assert rate("10/s") == Rate(count=10, per=timedelta(seconds=1))
    assert rate("100/5m") == Rate(count=100, per=timedelta(minutes=5))
    assert rate("10/s").interval == timedelta(milliseconds=100)


@pytest.mark.parametrize("text", ["", "10", "/s", "0/s", "10/", "ten/s", "10/s/s", "-1/s"])
def test_what_is_no_rate_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r'is not a rate; write for example "10/s" or "100/5m"'):
        rate(text)


@pytest.mark.parametrize("text", ["1000001/s", "99999999999999999999/s", "1/2d", "1/9999d"])
def test_a_rate_beyond_what_can_be_reckoned_with_is_refused(text):
    with pytest.raises(ValueError, match=r"out of range"):
        rate(text)


def test_a_near_word_is_suggested_whatever_its_case_and_a_far_one_is_not():
    assert suggest("sucess", ["Success", "Failed"]) == ' (did you mean "Success"?)'
    assert suggest("Elephant", ["Success", "Failed"]) == ""


def test_done_is_every_end():
    assert all(state in states(["done"]) for state in DONE)
    assert "Running" not in states(["done"])
    assert GONE not in states(["done"])


def test_active_is_every_state_that_is_no_end_even_one_that_ci_adds_later():
    active = states(["active"])
    assert all(state in active for state in ("Submitted", "Running", "Pause", "Reviewing"))
    assert not any(state in active for state in (*DONE, NEW, GONE))


def test_a_star_is_every_state():
    assert all(state in states(["*"]) for state in (*DONE, "Running", NEW, GONE, "Reviewing"))


def test_only_a_closed_set_of_states_can_be_looked_up():
    assert states(["done", "Running"]).exact == DONE | {"Running"}
    assert states(["active", "Failed"]).exact is None
    assert states(["*"]).exact is None


def test_a_value_is_shown_as_toml_has_it_and_at_a_sights_length():
    assert shown(True) == "true"
    assert shown("媒体") == '"媒体"'
    assert len(shown("x" * 1000)) == 80
    assert shown([int("f" * 5000, 16)]) == "a number of thousands of digits"
