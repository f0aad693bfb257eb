from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.decide.changes.clocks import Chain, Clocks
from bridge.decide.changes.scan import (
    DEEP,
    LISTED_STATES,
    MOST_BROKEN,
    Listing,
    Plan,
    Span,
    cheapest,
    in_tens,
    is_deep_due,
    lag_after,
    lag_of,
    most_to_know,
    next_poll,
    overlap,
    takes_states,
    ways,
)
from bridge.model import IDS_PER_CALL, PAGE_SIZE, RUNNING, Job, ListProgress, Page, UnfinishedJob
from tests.support.nouns import NOON, NOW, a_listed_job, a_stream, hours, seconds

SECOND = timedelta(seconds=1)


def ago(minutes: float) -> datetime:
    return NOON - timedelta(minutes=minutes)


LATEST = ago(5)


def unfinished(*created: datetime, state: str = RUNNING) -> list[UnfinishedJob]:
    return [
        UnfinishedJob(job_id=f"j{n}", stream="s", state=state, created_at=time)
        for n, time in enumerate(sorted(created))
    ]


def made(
    opened: Sequence[UnfinishedJob] = (), ended: Sequence[datetime] = (), latest: datetime = LATEST, **facts: object
) -> Plan:
    known = sorted([*(job.created_at for job in opened), *ended])
    (planned,) = cheapest([ways(latest=latest, unfinished=opened, **{"known_created": known, **facts})])  # type: ignore[arg-type]
    return planned


def _ceil(count: int, per: int) -> int:
    return -(-count // per)


def calls(made: Plan, opened: Sequence[UnfinishedJob], known: Sequence[datetime], arrivals: int = 0) -> int:
    """Count what a plan costs if nothing ends and so many jobs arrive meanwhile."""
    listed = sum(created >= made.since for created in known) + arrivals
    by_state = [
        job
        for job in opened
        if made.unfinished_since and job.state in LISTED_STATES and made.unfinished_since <= job.created_at < made.since
    ]
    asked = [job for job in opened if job.job_id not in made.shown | made.by_state]
    assert made.shown == {job.job_id for job in opened if job.created_at >= made.since}
    assert made.by_state == {job.job_id for job in by_state}
    return max(1, _ceil(listed, PAGE_SIZE)) + _ceil(len(by_state), PAGE_SIZE) + _ceil(len(asked), IDS_PER_CALL)


def fewest(
    opened: Sequence[UnfinishedJob], known: Sequence[datetime], latest: datetime, arrivals: int, *, by_state: bool
) -> int:
    """Return the calls of the cheapest of all plans: any beginning, and any part of the rest listed by states."""
    beginnings = [latest, *(job.created_at - SECOND for job in opened if job.created_at < latest)]
    costs = []
    for since in beginnings:
        rest = [job for job in opened if job.created_at < since]
        listable = sum(job.state in LISTED_STATES for job in rest) if by_state else 0
        listed = max(1, _ceil(sum(created >= since for created in known) + arrivals, PAGE_SIZE))
        costs += [
            listed + _ceil(number, PAGE_SIZE) + _ceil(len(rest) - number, IDS_PER_CALL)
            for number in range(listable + 1)
        ]
    return min(costs)


def test_with_nothing_unfinished_one_list_is_enough() -> None:
    assert made() == Plan(since=LATEST)


def test_unfinished_jobs_since_the_beginning_of_the_list_cost_nothing() -> None:
    assert made(unfinished(ago(3))) == Plan(since=LATEST, shown=frozenset({"j0"}))


def test_one_list_that_goes_further_back_is_cheaper_than_a_list_and_a_question() -> None:
    planned = made(unfinished(ago(30)), [ago(20)])
    assert planned == Plan(since=ago(30) - SECOND, shown=frozenset({"j0"}))


def test_a_few_old_jobs_are_asked_by_id_when_thousands_came_after_them() -> None:
    assert made(unfinished(*map(ago, range(991, 1001))), [ago(900 - n / 10) for n in range(5000)]) == Plan(since=LATEST)


def test_more_old_jobs_are_listed_by_their_states() -> None:
    opened = unfinished(*(ago(1000 - n) for n in range(50)))
    planned = made(opened, [ago(900 - n / 10) for n in range(5000)])
    assert (planned.since, planned.unfinished_since) == (LATEST, ago(1000) - SECOND)
    assert planned.by_state == {f"j{n}" for n in range(50)}
    assert not planned.shown


def test_jobs_in_a_state_that_no_list_can_be_asked_for_are_asked_by_id() -> None:
    odd = unfinished(ago(2000), state="Mending")
    opened = [*odd, *(replace(job, job_id=f"k{job.job_id}") for job in unfinished(*map(ago, range(900, 950))))]
    planned = made(opened, [ago(800 - n / 10) for n in range(5000)])
    assert planned.by_state == {job.job_id for job in opened[1:]}
    assert planned.unfinished_since == ago(949) - SECOND


def test_a_ci_that_ignores_states_is_asked_by_id() -> None:
    opened = unfinished(*(ago(1000 - n) for n in range(50)))
    assert made(opened, [ago(900 - n / 10) for n in range(5000)], by_state=False) == Plan(since=LATEST)


def test_two_pages_of_all_jobs_are_preferred_to_one_of_all_and_one_of_unfinished_ones() -> None:
    opened = unfinished(*(ago(20 - n / 10) for n in range(50)))
    planned = made(opened, [ago(20 - n / 20) for n in range(1, 100)])
    assert planned.shown == {job.job_id for job in opened}


def test_a_list_leaves_room_for_jobs_that_arrive_meanwhile() -> None:
    opened = unfinished(ago(30))
    ended = [ago(20)] * 94
    assert made(opened, ended, arrivals=5).shown
    assert not made(opened, ended, arrivals=6).shown


def test_a_list_does_not_begin_before_what_is_known_whole() -> None:
    opened = unfinished(*map(ago, (900, *range(60, 81))))
    known_from = ago(100)
    planned = made(opened, [ago(60 + n / 10) for n in range(75)], known_from=known_from, by_state=False)
    assert planned.since == ago(80) - SECOND
    assert made(opened, known_from=ago(70), by_state=False).since >= ago(70)


MINUTES = st.lists(st.integers(0, 400), max_size=300)


@settings(max_examples=60)
@given(MINUTES, MINUTES, st.integers(0, 400), st.integers(0, 30), st.booleans())
@example([400] * 40, [300] * 300 + [10] * 10, 0, 0, True)
@example([400] * 40, [300] * 300 + [10] * 10, 0, 0, False)
@example([200] * 120, [100] * 80, 5, 0, True)
def test_no_other_plan_takes_fewer_calls(
    opened: list[int], ended: list[int], latest: int, arrivals: int, by_state: bool
) -> None:
    jobs = unfinished(*map(ago, opened))
    known = sorted([*(job.created_at for job in jobs), *map(ago, ended)])
    planned = made(jobs, list(map(ago, ended)), ago(latest), arrivals=arrivals, by_state=by_state)
    assert planned.since <= ago(latest)
    assert calls(planned, jobs, known, arrivals) == fewest(jobs, known, ago(latest), arrivals, by_state=by_state)


STREAMS = st.lists(st.tuples(st.lists(st.integers(0, 400), max_size=25), st.integers(0, 300)), min_size=1, max_size=4)


@settings(max_examples=60)
@given(STREAMS)
@example([([200, 210, 220], 150)] * 4)
def test_no_other_plans_of_several_streams_take_fewer_calls(streams: list[tuple[list[int], int]]) -> None:
    opened = [unfinished(*map(ago, minutes)) for minutes, _ in streams]
    known = [
        sorted([*(job.created_at for job in jobs), *(ago(n) for n in range(ended))])
        for jobs, (_, ended) in zip(opened, streams, strict=True)
    ]
    plans = cheapest(
        [ways(latest=LATEST, unfinished=jobs, known_created=times) for jobs, times in zip(opened, known, strict=True)]
    )
    best = {0: 0}  # calls for lists -> the fewest jobs that they leave
    made_calls = left = 0
    for jobs, times, planned in zip(opened, known, plans, strict=True):
        asked = len(jobs) - len(planned.shown) - len(planned.by_state)
        made_calls += calls(planned, jobs, times) - _ceil(asked, IDS_PER_CALL)
        left += asked
        longer: dict[int, int] = {}
        for of_lists, of_ids in lists_and_rest(jobs, times):
            for before, left_before in best.items():
                key = before + of_lists
                longer[key] = min(longer.get(key, left_before + of_ids), left_before + of_ids)
        best = longer
    assert made_calls + _ceil(left, IDS_PER_CALL) == min(of + _ceil(rest, IDS_PER_CALL) for of, rest in best.items())


def lists_and_rest(opened: Sequence[UnfinishedJob], known: Sequence[datetime]) -> Iterator[tuple[int, int]]:
    """Yield the calls for lists of every plan of a stream, and how many jobs it leaves to be asked for by id."""
    for since in [LATEST, *(job.created_at - SECOND for job in opened if job.created_at < LATEST)]:
        rest = sum(job.created_at < since for job in opened)
        listed = max(1, _ceil(sum(created >= since for created in known), PAGE_SIZE))
        yield from ((listed + _ceil(number, PAGE_SIZE), rest - number) for number in range(rest + 1))


@given(MINUTES, MINUTES, st.integers(0, 400), st.integers(0, 400), st.booleans())
def test_no_list_begins_before_what_is_known_whole_but_where_it_must(
    opened: list[int], ended: list[int], latest: int, known_from: int, by_state: bool
) -> None:
    jobs = unfinished(*map(ago, opened))
    planned = made(jobs, list(map(ago, ended)), ago(latest), known_from=ago(known_from), by_state=by_state)
    assert planned.since == ago(latest) or planned.since >= ago(known_from)


@settings(max_examples=60)
@given(MINUTES, MINUTES, st.booleans())
def test_the_times_that_are_read_are_enough_for_the_best_plan(
    opened: list[int], ended: list[int], by_state: bool
) -> None:
    jobs = unfinished(*map(ago, opened))
    known = sorted([*(job.created_at for job in jobs), *map(ago, ended)])
    older = sum(job.created_at < LATEST for job in jobs)
    most = sum(created >= LATEST for created in known) + most_to_know(older, by_state=by_state)
    some = known[-most:]
    known_from = some[0] if len(some) < len(known) else None
    planned = made(jobs, known_created=some, known_from=known_from, by_state=by_state)
    assert calls(planned, jobs, known) == fewest(jobs, known, LATEST, 0, by_state=by_state)


TIMES = st.integers(0, 600).map(seconds)


@given(every=st.integers(1, 600).map(seconds), took=TIMES, first=TIMES, part=st.floats(0, 1))
def test_a_poll_is_never_later_than_promised_and_little_earlier(
    every: timedelta, took: timedelta, first: timedelta, part: float
) -> None:
    at = next_poll(began=NOW, every=every, took=took, others=(NOW + first, part))
    assert NOW + every / 2 < at <= NOW + every - min(took, every / 4)


@given(n=st.integers(2, 5), begin=st.lists(TIMES, min_size=5, max_size=5), took_s=st.integers(0, 20))
def test_watches_that_are_polled_as_often_come_to_be_as_far_apart_as_they_can(
    n: int, begin: list[timedelta], took_s: int
) -> None:
    every, took = seconds(60), seconds(took_s)
    interval = every - min(took, every / 4)
    times = [NOW + begin[place] for place in range(n)]
    for _ in range(40):
        times[0] = next_poll(began=times[0], every=every, took=took)
        for place in range(1, n):
            times[place] = next_poll(began=times[place], every=every, took=took, others=(times[0], place / n))
    for place in range(n):
        off = (times[place] - times[0] - interval * (place / n)) % interval
        assert min(off, interval - off) <= interval / 10


@pytest.mark.parametrize(("lag_s", "overlap_s"), [(None, 300), (0, 10), (60, 100), (7200, 3600)])
def test_lists_overlap_by_somewhat_more_than_ci_took_to_list_a_job(lag_s: int | None, overlap_s: int) -> None:
    assert overlap(None if lag_s is None else seconds(lag_s)) == seconds(overlap_s)


def test_a_lag_is_how_long_before_the_mark_a_job_was_created() -> None:
    assert lag_of(NOW, [NOW - seconds(40), NOW - seconds(90), NOW + seconds(5)]) == seconds(90)
    assert lag_of(NOW, [NOW + seconds(5)]) < seconds(0)
    assert overlap(lag_of(NOW, [NOW - hours(30)])) == DEEP
    assert lag_of(NOW, []) == seconds(0)


def test_a_lag_that_is_not_seen_again_is_expected_to_be_shorter_and_would_still_be_measured() -> None:
    assert [overlap(lag_after(None)), overlap(lag_after(seconds(60)))] == [seconds(210), seconds(70)]


def test_a_list_goes_well_before_the_mark_every_ten_minutes_and_after_the_clock_was_set_back() -> None:
    assert [is_deep_due(NOW - seconds(ago), now=NOW) for ago in (0, 599, 600, -1)] == [False, False, True, True]
    assert is_deep_due(None, now=NOW)


def test_states_that_ci_ignored_are_asked_for_again_after_some_hours() -> None:
    assert [takes_states(NOW - hours(ago), now=NOW) for ago in (0, 5, 7, -1)] == [False, False, True, True]
    assert takes_states(None, now=NOW)


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


def test_the_progress_of_a_list_is_the_time_up_to_which_its_jobs_have_been_read_while_they_ascend():
    listing = a_listing()
    assert listing.progress.created_to is None
    listing.read(Page(jobs=tuple(_jobs([90, 60])), next_token="2"), CLOCKS)
    assert listing.progress == ListProgress(tag="Transcode", queue=None, pages=1, jobs=2, created_to=NOW - seconds(60))
    listing.read(Page(jobs=tuple(_jobs([70])), next_token="3"), CLOCKS)
    assert (listing.progress.jobs, listing.progress.created_to) == (3, None)


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
