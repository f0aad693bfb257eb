"""How far a stream is known does not depend on one clock: CI's Date may be anything, and so may ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from bridge.collect.errors import CiError, ConfigError, TemporaryError
from bridge.decide.changes.scan import OVERLAP
from bridge.model import SUBMITTED, SUCCESS, Page, Stream
from bridge.record import clocks
from bridge.record.database import Database
from bridge.record.schema import watches
from tests.conftest import on_both
from tests.support.fakes import FakeCi, notify_all
from tests.support.nouns import NOW, Clock, a_listed_job, hours, minutes, seconds
from tests.support.records import row_of
from tests.support.rig import Rig

DOWN = TemporaryError("down")
QUIET = hours(1)
TICK, JUST_NOW = seconds(31), seconds(5)
Dates = Callable[[datetime], datetime | None]
DATES: dict[str, Dates] = {
    "10 min ahead": lambda now: now + minutes(10),
    "10 min behind": lambda now: now - minutes(10),
    "of a zone to the east": lambda now: now + hours(8),
    "of a zone to the west": lambda now: now - hours(8),
    "a year ahead": lambda now: now + hours(24 * 365),
    "stuck": lambda _: NOW,
    "missing": lambda _: None,
    "jumping": lambda now: now + minutes(30) * (now.second % 7 - 3),
}


@dataclass
class SkewedCi(FakeCi):
    """A CI whose jobs have true times, and whose Date is what `date` makes of those."""

    date: Dates = field(default=lambda now: now)
    now: Callable[[], datetime] = field(default=lambda: NOW)  # the true time

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), served_at=self.date(self.now()))


class Skewed(Rig):
    """Polls by `clock`, which may differ from the true time `now` of its CI."""

    ci: SkewedCi

    def __post_init__(self) -> None:
        super().__post_init__()
        self.now = Clock()
        self.ci = self.poller.source = SkewedCi(self.clock, now=self.now)

    def ticks(self, by: timedelta = TICK) -> None:
        self.clock.advance(by)
        self.now.advance(by)

    def polls_well(self) -> None:
        assert self.poll().error is None

    def creates(self, id_: str, ago: timedelta = JUST_NOW, state: str = SUCCESS) -> datetime:
        created = self.now() - ago
        self.ci.has(a_listed_job(id_, state, created_at=created))
        return created

    def known_to(self) -> datetime:
        mark = self.mark()
        assert mark is not None
        return mark

    def clock_ms(self) -> int | None:
        """How far CI's clock was ahead, as the last poll recorded it."""
        found: int | None = row_of(self.db, watches, name="vod")["clock_ms"]
        return found


@pytest.fixture
def rig(db: Database) -> Skewed:
    return Skewed(db, given=notify_all())


@pytest.mark.parametrize("date", DATES.values(), ids=DATES)
def test_no_date_of_ci_hides_a_job_and_a_quiet_stream_is_not_listed_anew(rig: Skewed, date: Dates) -> None:
    rig.poll()
    rig.ci.date = date
    for n in range(20):
        rig.ticks()
        rig.creates(f"j{n}", state=SUBMITTED if n % 2 else SUCCESS)
        rig.polls_well()
    assert {*rig.news()} == {f"j{n}" for n in range(20)}
    rig.ticks(hours(9))
    for _ in range(2):
        rig.ticks()
        rig.polls_well()
    both = min(rig.clock(), date(rig.now()) or rig.clock())
    assert both - QUIET - minutes(91) <= rig.known_to() <= both  # "jumping" looks back by up to 90 min more


@on_both
@pytest.mark.parametrize("ahead", [seconds(61), minutes(10), hours(8)])
def test_where_clocks_differ_the_mark_is_no_later_than_the_newest_job_listed(rig: Skewed, ahead: timedelta) -> None:
    rig.ci.date = lambda now: now + ahead
    rig.creates("old", minutes(40))
    newest = rig.creates("new", minutes(20))
    rig.creates("of the future", -hours(5))
    rig.poll()
    assert rig.mark() == newest
    rig.ticks(minutes(50))
    rig.poll()
    assert rig.mark() == rig.clock() - QUIET  # and moves on when nothing comes
    rig.ticks()
    rig.ci.date = lambda now: now
    rig.poll()
    assert rig.mark() == rig.clock()


def test_clocks_that_agree_within_a_minute_give_the_earlier_one(rig: Skewed) -> None:
    for ahead, mark in ((50, 0), (-50, -50)):
        rig.ci.date = lambda now, ahead=ahead: now + seconds(ahead)
        rig.poll()
        assert rig.mark() == rig.clock() + seconds(mark)
        rig.ticks()


def test_the_time_that_an_answer_takes_is_no_difference_of_clocks(rig: Skewed) -> None:
    rig.ci.before_call = lambda: rig.ticks(minutes(3))
    rig.ci.date = lambda now: now - minutes(2)  # it was made long before it arrived
    rig.poll()
    assert (rig.mark(), rig.clock_ms()) == (NOW, 0)


def test_a_mark_of_a_clock_that_was_far_ahead_hides_nothing_when_it_is_right_again(rig: Skewed) -> None:
    rig.poll()
    rig.ci.date = lambda _: None
    rig.clock.advance(hours(24 * 100))
    for n in range(3):
        rig.ticks(hours(1))
        rig.creates(f"j{n}")
        rig.poll()
    rig.clock.advance(-hours(24 * 100))
    rig.ticks()
    rig.poll()
    assert {*rig.news()} == {"j0", "j1", "j2"}
    rig.ticks()
    rig.creates("j3")
    rig.poll()
    assert rig.ci.listed[-1][1] >= rig.clock() - 2 * QUIET  # and no longer looks back for a day
    assert "j3" in rig.news()


def test_where_ours_is_wrong_cis_date_keeps_the_mark(rig: Skewed) -> None:
    rig.poll()
    rig.clock.advance(hours(24 * 100))
    for n in range(3):
        rig.ticks(minutes(20))
        rig.creates(f"j{n}")
        rig.poll()
        assert rig.known_to() <= rig.now()
    assert {*rig.news()} == {"j0", "j1", "j2"}


def test_a_ci_whose_clock_was_set_back_with_its_jobs_loses_none(rig: Skewed) -> None:
    rig.poll()
    rig.ticks(minutes(20))
    rig.ci.now = rig.now = Clock(rig.now() - hours(8))
    for n in range(4):
        rig.ticks()
        rig.creates(f"j{n}", timedelta(0))
        rig.poll()
    assert {*rig.news()} == {"j0", "j1", "j2", "j3"}


def test_one_absurd_date_makes_no_news_of_jobs_from_before_the_first_snapshot(rig: Skewed) -> None:
    rig.creates("old", hours(24 * 20))
    for date in (lambda now: now, lambda now: now - hours(24 * 30), lambda now: now):
        rig.ci.date = date
        rig.poll()
        rig.ticks()
    rig.creates("new")
    rig.poll()
    assert rig.news() == ["new"]


def test_a_watch_that_looks_back_for_minutes_notifies_of_nothing_older_because_clocks_differ(rig: Skewed) -> None:
    rig.use(given=notify_all(lookback="10m"))
    rig.ci.date = lambda now: now + minutes(10)
    rig.creates("old", minutes(40))
    for _ in range(3):
        rig.poll()
        rig.ticks()
    assert rig.news() == []


# --- a first snapshot ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("date", DATES.values(), ids=DATES)
def test_a_first_snapshot_under_any_date_notifies_of_what_came_after_the_first_question_and_nothing_older(
    rig: Skewed, date: Dates
) -> None:
    old = {f"old{n}" for n in range(50)}
    for n in range(50):
        rig.creates(f"old{n}", minutes(n) + seconds(1), state=SUBMITTED)
    rig.ci.date, rig.ci.page_size = date, 25
    arrivals = iter(range(100))

    def arrives() -> None:
        if rig.ci.listed[1:]:  # after the first question
            rig.creates(f"new{next(arrivals)}", timedelta(0))
        rig.ticks(seconds(3))

    rig.ci.before_call = arrives
    rig.poll()
    rig.ci.before_call = lambda: None
    rig.ticks()
    rig.poll()
    assert {*rig.news()} == rig.ci.jobs.keys() - old


@pytest.mark.parametrize("shift", [hours(8), hours(24 * 365)])
def test_a_first_snapshot_whose_creation_times_lie_in_the_future_is_silent(rig: Skewed, shift: timedelta) -> None:
    for n in range(5):
        rig.creates(f"old{n}", minutes(n) - shift)
    rig.poll()
    assert rig.news() == []
    rig.ticks()
    rig.creates("new", -shift)
    rig.poll()
    assert rig.news() == ["new"]


def test_a_first_snapshot_goes_back_as_far_as_ever(rig: Skewed) -> None:
    rig.ci.date = lambda now: now - hours(8)
    rig.poll()
    assert rig.ci.listed[0][1] == NOW - hours(24) - OVERLAP


# --- what is shown of it ---------------------------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize(("ahead_s", "stored"), [(600, 600_000), (-28_800, -28_800_000), (0, 0)])
def test_a_poll_records_how_far_cis_clock_was_ahead(rig: Skewed, ahead_s: int, stored: int) -> None:
    rig.ci.date = lambda now: now + seconds(ahead_s)
    rig.poll()
    assert rig.clock_ms() == stored
    rig.ci.date = lambda _: None
    rig.poll()
    assert rig.clock_ms() is None


def test_a_poll_that_failed_for_one_tag_says_what_cis_clock_showed_and_one_without_answers_does_not(
    rig: Skewed,
) -> None:
    rig.use(given=notify_all("Transcode", "Snapshot"))
    wrong: CiError = ConfigError("no such tag")
    readings = []
    for refuses in ({}, {"Snapshot": wrong}, {"Transcode": DOWN, "Snapshot": DOWN}):
        rig.ticks(hours(50))
        rig.ci.refuses = refuses
        rig.poll()
        with rig.db.read() as tx:
            readings += [((reading.at - NOW) / hours(1), reading.ahead) for reading in clocks.readings(tx, ["vod"])]
    assert readings == [(50, timedelta(0)), (100, timedelta(0)), (50, timedelta(0))]
