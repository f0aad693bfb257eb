"""The judgement of rules over several jobs: pure functions of what happened and when."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.decide.rules.incidents import (
    Absence,
    Comparison,
    FanIn,
    Gathered,
    Threshold,
    completion,
    deadline,
    follow,
    follow_absence,
    how_far,
    still_counting,
)
from bridge.decide.text.times import window
from bridge.decide.text.values import states
from bridge.model import IncidentJob
from tests.support.nouns import NOW, hours, minutes

FAILS = states(["Failed"])
UTC = ZoneInfo("UTC")


def job(minute: float, number: int = 0, *, counts: bool = True, silent: bool = False) -> IncidentJob:
    return IncidentJob(
        bucket="b", job_id=f"j{number}", sequence=1, state="Failed" if counts else "Success",
        happened_at=NOW + minutes(minute), counts=counts, silent=silent, n=number,
    )  # fmt: skip


def jobs(*given: tuple[float, bool]) -> list[IncidentJob]:
    made = [job(minute, number, counts=counts) for number, (minute, counts) in enumerate(given, 1)]
    return sorted(made, key=lambda one: (one.happened_at, one.n))


def incidents(spec: Threshold, found: Sequence[IncidentJob], as_of: datetime) -> list[tuple[datetime, datetime | None]]:
    """Return the incidents of a key, one after the other, as one look at all of it finds them."""
    opened, rest = [], list(found)
    while True:
        course = follow(spec, rest, as_of=as_of)
        if course.opened_at is None:
            return opened
        opened.append((course.opened_at, course.closed_at))
        if course.closed_at is None:
            return opened
        rest = [one for one in rest if one.happened_at > course.closed_at]


many = st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=25).map(lambda pairs: jobs(*pairs))


def by_brute_force(
    found: Sequence[IncidentJob], least: int, within: timedelta, as_of: datetime
) -> list[tuple[datetime, datetime | None]]:
    """Count each window that ends with a failure; what begins is over when no failure follows in time."""
    times = [one.happened_at for one in found if one.counts]
    opened: list[tuple[datetime, datetime | None]] = []
    since = datetime.min.replace(tzinfo=UTC)
    while True:
        left = [time for time in times if time > since]
        began = next((t for t in left if sum(t - within < other <= t for other in left) >= least), None)
        # Several at one time: the one that completes the number opens it, at that time.
        if began is None:
            return opened
        last = began
        for time in [time for time in left if time >= began]:
            if time >= last + within:
                break
            last = time
        end = last + within
        opened.append((began, end if end <= as_of else None))
        if end > as_of:
            return opened
        since = end


@given(many, st.integers(1, 5), st.integers(1, 20))
def test_a_count_opens_and_closes_as_brute_force_over_all_windows_says(
    found: list[IncidentJob], least: int, within: int
) -> None:
    spec = Threshold(wanted=FAILS, limit=Comparison(">=", least), within=minutes(within))
    as_of = NOW + minutes(70)
    mine = [one for one in found if one.counts]
    assert incidents(spec, mine, as_of) == by_brute_force(mine, least, minutes(within), as_of)


@given(many, st.integers(2, 4), st.lists(st.integers(0, 70), max_size=6))
def test_looking_now_and_then_comes_to_the_same_as_looking_once(
    found: list[IncidentJob], least: int, looks: list[int]
) -> None:
    spec = Threshold(wanted=FAILS, limit=Comparison(">=", least), within=minutes(7))
    whole = incidents(spec, [one for one in found if one.counts], NOW + minutes(80))
    opened: list[tuple[datetime, datetime | None]] = []
    opened_at, last_at = None, None
    kept, left = list[IncidentJob](), [one for one in found if one.counts]
    for minute in [*sorted(looks), 80]:
        as_of = NOW + minutes(minute)
        new = [one for one in left if one.happened_at <= as_of]
        left = [one for one in left if one.happened_at > as_of]
        while True:
            seen = [*kept, *new]
            course = follow(spec, seen, opened_at=opened_at, last_at=last_at, as_of=as_of)
            opened_at, last_at = course.opened_at, course.last_at
            if course.closed_at is None:
                break
            opened.append((opened_at or NOW, course.closed_at))
            kept, new = [], [one for one in seen if one.happened_at > (course.closed_at or NOW)]
            opened_at = last_at = None
        kept = [] if opened_at else list(still_counting(spec, seen, as_of))
    assert opened + ([(opened_at, None)] if opened_at else []) == whole


@given(many, st.integers(2, 4))
def test_a_row_opens_only_where_nothing_else_came_between(found: list[IncidentJob], least: int) -> None:
    spec = Threshold(wanted=FAILS, limit=Comparison(">=", least), in_a_row=True)
    course = follow(spec, found, as_of=NOW + hours(2))
    words = "".join("F" if one.counts else "s" for one in found)
    first = words.find("F" * least)
    assert (course.opened_at is None) == (first < 0)
    if first >= 0:
        assert course.opened_at == found[first + least - 1].happened_at
        ends = [one.happened_at for one in found[first + least :] if not one.counts]
        assert course.closed_at == (ends[0] if ends else None)


def test_how_far_a_key_is_are_the_jobs_that_count_now() -> None:
    spec = Threshold(wanted=FAILS, limit=Comparison(">=", 5), within=minutes(10))
    found = jobs((0, True), (5, True), (9, True))
    assert [one.n for one in how_far(spec, found, NOW + minutes(12))] == [2, 3]


def test_a_silent_job_counts_but_does_not_open() -> None:
    spec = Threshold(wanted=FAILS, limit=Comparison(">=", 2), within=minutes(10))
    silent = [job(0, 1, silent=True), job(1, 2, silent=True)]
    assert follow(spec, silent, as_of=NOW + minutes(2)).opened_at is None
    assert follow(spec, [*silent, job(2, 3)], as_of=NOW + minutes(2)).opened_at == NOW + minutes(2)


# --- absences -------------------------------------------------------------------------------------------------------

WORK = window("09:00-18:00", ["mon", "tue", "wed", "thu", "fri"])  # NOW is Saturday, 2026-11-21 09:00 UTC


@pytest.mark.parametrize(
    ("since", "after", "zone", "due"),
    [
        ("2026-11-20T16:00:00Z", 1, "UTC", "2026-11-20T17:00:00Z"),
        ("2026-11-20T17:30:00Z", 1, "UTC", "2026-11-23T09:30:00Z"),  # over the weekend
        ("2026-11-21T03:00:00Z", 12, "UTC", "2026-11-24T12:00:00Z"),
        ("2026-11-20T09:30:00Z", 1, "Asia/Shanghai", "2026-11-23T01:30:00Z"),
        ("2026-03-27T16:30:00Z", 1, "Europe/Berlin", "2026-03-30T07:30:00Z"),  # the clock is set forward meanwhile
    ],
)
def test_only_time_in_the_window_counts(since: str, after: int, zone: str, due: str) -> None:
    spec = Absence(wanted=states(["Success"]), after=hours(after), window=WORK)
    assert deadline(spec, datetime.fromisoformat(since), ZoneInfo(zone)) == datetime.fromisoformat(due)


@given(st.lists(st.integers(1, 300), max_size=12), st.integers(5, 60), st.integers(0, 320))
def test_an_absence_is_each_gap_that_is_longer_than_allowed(gone: list[int], after: int, known: int) -> None:
    spec, last = Absence(wanted=states(["Success"]), after=minutes(after)), NOW
    rest, known_to = [job(minute, n) for n, minute in enumerate(sorted(gone), 1)], NOW + minutes(known)
    opened: list[tuple[datetime, datetime | None]] = []
    while True:
        course = follow_absence(spec, rest, last_at=last, known_to=known_to, zone=UTC)
        if course.opened_at is None:
            break
        opened.append((course.opened_at, course.closed_at))
        if course.closed_at is None:
            break
        last, closed_at = course.closed_at, course.closed_at
        rest = [one for one in rest if one.happened_at > closed_at]
    times = [0, *(minute for minute in sorted(gone) if minute <= known)]
    gaps = [(a, b) for a, b in itertools.pairwise(times) if b - a > after]
    wanted: list[tuple[datetime, datetime | None]] = [(NOW + minutes(a + after), NOW + minutes(b)) for a, b in gaps]
    is_known = not any(minute > known for minute in gone)  # what is not known of all says nothing of the end
    if is_known and times[-1] + after <= known:
        wanted.append((NOW + minutes(times[-1] + after), None))
    assert opened == wanted


# --- fan-in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "found", "expected", "ended"),
    [
        (FanIn(), {"Success": 2, "Failed": 1}, 3, "completed"),
        (FanIn(), {"Success": 4}, 3, "completed"),
        (FanIn(), {"Success": 2}, 3, None),
        (FanIn(), {"Success": 2, "Running": 1}, 3, None),
        (FanIn(), {"Success": 2, "gone": 1}, 3, "completed"),
        (FanIn(success=True), {"Success": 1, "Failed": 1, "Running": 1}, 3, "failed"),
        (FanIn(success=True), {"Success": 1, "Cancel": 1}, 3, "failed"),
        (FanIn(settle=minutes(5)), {"Success": 2}, None, "completed"),
        (FanIn(settle=minutes(15)), {"Success": 2}, None, None),
        (FanIn(settle=minutes(5)), {"Success": 2}, 3, None),  # the number is known, and not there
        (FanIn(), {}, 1, None),
    ],
)
def test_a_fan_in_is_complete_when_all_that_are_expected_are_done(
    spec: FanIn, found: dict[str, int], expected: int | None, ended: str | None
) -> None:
    gathered = Gathered(states=found, expected=expected, last_at=NOW)
    assert completion(spec, gathered, known_to=NOW + minutes(10)) == ended
