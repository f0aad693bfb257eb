from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from bridge.decide.changes.clocks import Chain, Clocks
from bridge.decide.changes.scan import MOST_BROKEN, OVERLAP, Listing, Span, in_tens, list_since
from bridge.model import IDS_PER_CALL, PAGE_SIZE, Job, Page
from tests.support.nouns import NOON, NOW, a_listed_job, a_stream, hours, seconds

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


DAY = hours(24)
CLOCKS = Clocks(asked=NOW, answered=NOW, date=NOW)


def a_listing(**facts: object) -> Listing:
    return Listing(**{"stream": a_stream(), "chain": Chain(began=NOW), "spans": [Span(since=NOW - DAY)], **facts})  # type: ignore[arg-type]


class Ci:
    """Lists jobs as asked; a page that holds one of `bad` cannot be read. Both bounds of a time are exclusive."""

    def __init__(self, jobs: Sequence[Job], bad: Sequence[str]) -> None:
        self.jobs, self.bad, self.calls = jobs, set(bad), 0

    def page(self, listing: Listing) -> Page | None:
        self.calls += 1
        span = listing.span
        found = [
            job
            for job in self.jobs
            if job.created_at and job.created_at > span.since and (span.until is None or job.created_at < span.until)
        ]
        found.sort(key=lambda job: (job.created_at or NOW, job.id))
        if span.newest_first:
            found.reverse()
        first = int(listing.token or 0)
        shown = found[first : first + span.size]
        if self.bad & {job.id for job in shown}:
            return None
        after = first + span.size
        return Page(jobs=tuple(shown), next_token=str(after) if after < len(found) else None, served_at=NOW)


def read_all(listing: Listing, ci: Ci, most_calls: int = 3_000) -> set[str]:
    """Read a list to its end; return the jobs that were read."""
    read: set[str] = set()
    while not listing.done:
        assert ci.calls < most_calls
        assert not listing.hopeless
        page = ci.page(listing)
        if page is None:
            listing.narrow(NOW)
        else:
            listing.read(page, CLOCKS)
            read.update(job.id for job in page.jobs)
    return read


def _jobs(ages_s: Sequence[int]) -> list[Job]:
    return [a_listed_job(f"j{n}", created_at=NOW - seconds(age)) for n, age in enumerate(ages_s)]


def test_one_job_that_makes_its_page_unreadable_is_all_that_is_left_out():
    ci = Ci(_jobs(range(1, 1001)), bad=["j700"])
    listing = a_listing()
    assert read_all(listing, ci) == {f"j{n}" for n in range(1000)} - {"j700"}
    assert len(listing.unreadable) == 1
    assert listing.unreadable[0].since < NOW - seconds(701) < NOW
    assert ci.calls < 10 + 100


def test_jobs_of_the_same_second_as_one_that_cannot_be_read_are_read():
    ci = Ci(_jobs([60] * 9), bad=["j4"])
    assert read_all(a_listing(), ci) == {f"j{n}" for n in range(9)} - {"j4"}


def test_what_is_too_heavy_for_a_hundred_is_read_in_tens():
    class Heavy(Ci):
        def page(self, listing: Listing) -> Page | None:
            if listing.span.size > 10:
                self.calls += 1
                return None
            return super().page(listing)

    ci = Heavy(_jobs(range(1, 500)), bad=[])
    assert len(read_all(a_listing(), ci)) == 499
    assert ci.calls < 2 * 50 + 10


@given(
    ages_s=st.lists(st.integers(1, 86_000), min_size=1, max_size=150, unique=True),
    bad=st.lists(st.integers(0, 149), max_size=4),
)
def test_whatever_jobs_cannot_be_read_those_of_other_seconds_are(ages_s: list[int], bad: list[int]) -> None:
    jobs = _jobs(ages_s)
    ids = {f"j{n}" for n in bad} & {job.id for job in jobs}
    near = {job.created_at for job in jobs if job.id in ids}
    must = {
        job.id
        for job in jobs
        if job.created_at and all(abs(job.created_at - time) > 2 * timedelta(seconds=1) for time in near if time)
    }
    assert must <= read_all(a_listing(), Ci(jobs, sorted(ids)))


def test_a_list_of_which_nothing_can_be_read_is_given_up_soon():
    listing = a_listing()
    for _ in range(MOST_BROKEN):
        assert not listing.hopeless
        listing.narrow(NOW)
    assert listing.hopeless


def test_a_list_that_was_read_far_goes_on_by_creation_time_where_it_was_interrupted():
    ci = Ci(_jobs(range(1, 5001)), bad=[])
    listing = a_listing()
    for _ in range(30):
        listing.read(ci.page(listing) or Page(jobs=()), CLOCKS)
    assert listing.is_long
    listing.resume()
    assert listing.token is None
    assert len(read_all(listing, ci)) <= 2000 + 2
    assert ci.calls <= 51


def test_a_list_in_no_order_goes_on_from_its_beginning():
    listing = a_listing()
    for n in range(30):
        listing.read(
            Page(jobs=tuple(_jobs([n + 1])), next_token=str(n)), CLOCKS
        )  # newest first, though asked otherwise
    listing.resume()
    assert listing.span.since == NOW - DAY


def test_a_list_ends_with_a_page_without_a_token_and_its_mark_is_from_its_beginning():
    listing = a_listing()
    listing.read(Page(jobs=(), next_token="t1"), CLOCKS)
    assert not listing.done
    later = NOW + seconds(9)
    listing.read(Page(jobs=()), Clocks(asked=later, answered=later, date=later))
    assert listing.done
    assert listing.chain.mark(None) == NOW


def test_a_token_that_comes_again_makes_a_list_endless():
    listing = a_listing()
    listing.read(Page(jobs=(), next_token="t1"), CLOCKS)
    assert not listing.endless
    listing.read(Page(jobs=(), next_token="t1"), CLOCKS)
    assert listing.endless
