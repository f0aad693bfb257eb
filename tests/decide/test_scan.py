from datetime import timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from bridge.decide.changes.scan import IDS_PER_CALL, OVERLAP, PAGE_SIZE, in_tens, list_since
from tests.support.nouns import NOON

SECOND = timedelta(seconds=1)


def ago(minutes: float):
    return NOON - timedelta(minutes=minutes)


def calls(since, opened, known) -> int:
    """Count what a poll costs that lists from `since` and asks for the older unfinished jobs by id."""
    listed = sum(created >= since for created in known)
    asked = sum(created < since for created in opened)
    return max(1, -(-listed // PAGE_SIZE)) + -(-asked // IDS_PER_CALL)


def test_the_first_listing_looks_back_as_far_as_it_is_told_and_a_little_further():
    assert list_since(mark=None, first=ago(60)) == ago(60) - OVERLAP


def test_with_nothing_unfinished_a_listing_begins_a_little_before_the_last_one_did():
    assert list_since(mark=NOON, first=NOON) == NOON - OVERLAP


def test_an_unfinished_job_within_the_overlap_costs_nothing():
    assert list_since(mark=NOON, first=NOON, open_created=[ago(3)], known_created=[ago(3)]) == NOON - OVERLAP


def test_one_call_that_lists_further_back_is_cheaper_than_a_list_and_a_question():
    since = list_since(mark=NOON, first=NOON, open_created=[ago(30)], known_created=[ago(30), ago(20)])
    assert since == ago(30) - SECOND


def test_one_old_unfinished_job_is_asked_by_id_when_thousands_came_after_it():
    known = [ago(1000 - n / 10) for n in range(5000)]
    assert list_since(mark=NOON, first=NOON, open_created=known[:1], known_created=known) == NOON - OVERLAP


def test_a_few_old_jobs_are_asked_by_id_while_the_many_young_ones_are_listed():
    old, young = [ago(900 + n) for n in range(9, -1, -1)], [ago(60 - n / 10) for n in range(90)]
    between = [ago(800 - n / 10) for n in range(1000)]
    since = list_since(mark=NOON, first=NOON, open_created=old + young, known_created=old + between + young)
    assert since == young[0] - SECOND
    # 1 page of 90 and 1 call for the 10 old ones; listing them too is 11 pages, asking for all is 1 + 10 calls
    assert calls(since, old + young, old + between + young) == 2


def test_a_listing_does_not_begin_before_what_is_known_whole():
    # 3 calls would do from the oldest unfinished job on, but what was pruned since then would look new.
    opened, known = (
        [ago(900), *(ago(60 + n) for n in range(20, -1, -1))],
        [ago(60 + n / 10) for n in range(250, -1, -1)],
    )
    facts = {"mark": NOON, "first": NOON, "open_created": opened, "known_created": known}
    assert list_since(**facts) == ago(900) - SECOND
    since = list_since(**facts, known_from=ago(100))
    assert ago(100) <= since < ago(60)


def test_a_listing_begins_with_the_last_one_even_before_what_is_known_whole():
    mark = ago(600)
    assert list_since(mark=mark, first=NOON, open_created=[ago(700)], known_from=ago(60)) == mark - OVERLAP


MINUTES = st.lists(st.integers(0, 400), max_size=300)


@given(MINUTES, MINUTES, st.integers(0, 400))
@example([400] * 40, [300] * 300 + [10] * 10, 0)
def test_no_other_beginning_takes_fewer_calls(open_minutes, ended_minutes, mark_minutes):
    opened = sorted(map(ago, open_minutes))
    known = sorted([*opened, *map(ago, ended_minutes)])
    latest = ago(mark_minutes) - OVERLAP
    since = list_since(mark=ago(mark_minutes), first=NOON, open_created=opened, known_created=known)
    others = [latest, *(created - SECOND for created in opened if created < latest)]
    assert since <= latest
    assert calls(since, opened, known) == min(calls(other, opened, known) for other in others)


@given(MINUTES, MINUTES, st.integers(0, 400), st.integers(0, 400))
def test_no_beginning_is_before_what_is_known_whole_but_that_of_the_last_one(opened, ended, mark, known_from):
    open_created = sorted(map(ago, opened))
    since = list_since(
        mark=ago(mark),
        first=NOON,
        open_created=open_created,
        known_created=sorted([*open_created, *map(ago, ended)]),
        known_from=ago(known_from),
    )
    assert since == ago(mark) - OVERLAP or since >= ago(known_from)


def test_ids_are_asked_in_tens():
    ids = [f"j{n}" for n in range(23)]
    portions = list(in_tens(ids))
    assert [len(portion) for portion in portions] == [10, 10, 3]
    assert [one for portion in portions for one in portion] == ids
