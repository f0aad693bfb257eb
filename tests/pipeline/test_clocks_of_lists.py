"""How far a stream is known does not hang on one clock: CI's Date may be anything, and so may ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from bridge.collect.errors import CiError, ConfigError, TemporaryError
from bridge.decide.changes.scan import OVERLAP
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import SUBMITTED, SUCCESS, Job, Page, Stream
from bridge.pipeline.poll import Poller
from bridge.record import clocks
from bridge.record.database import Database
from bridge.record.polling import snapshots
from bridge.record.schema import transition, watch
from tests.conftest import on_both
from tests.support.fakes import FakeCi, a_book, watch_of
from tests.support.records import NOW, Clock, a_listed_job, a_stream, hours, know, minutes, row_of, rows, seconds

pytestmark = on_both

BOOK = a_book()
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
class Skewed(FakeCi):
    """A CI whose jobs have true times, and whose Date is what `date` makes of those."""

    date: Dates = field(default=lambda now: now)
    now: Callable[[], datetime] = field(default=lambda: NOW)  # the true time

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), served_at=self.date(self.now()))


class Bridge:
    """Polls by `clock`, which may differ from the true time `now` of its CI."""

    def __init__(self, db: Database, book: Rulebook = BOOK) -> None:
        self.db, self.clock, self.now, self.book = db, Clock(), Clock(), book
        self.ci = Skewed(self.clock, now=self.now)
        self.poller = Poller(db=db, source=self.ci, clock=self.clock, worker="w1")
        know(db, *book.notifiers.values(), watches=book.watches)

    def passes(self, by: timedelta = TICK) -> None:
        self.clock.advance(by)
        self.now.advance(by)

    def poll(self) -> None:
        found = self.poller.poll_once(watch_of(self.book), self.book)
        assert found is not None
        assert found.error is None

    def creates(self, id_: str, ago: timedelta = JUST_NOW, state: str = SUCCESS) -> Job:
        job = a_listed_job(id_, state, created_at=self.now() - ago)
        self.ci.has(job)
        return job

    @property
    def mark(self) -> datetime:
        with self.db.read() as tx:
            mark = snapshots.listed(tx, [a_stream().key])[a_stream().key].mark
        assert mark is not None
        return mark

    def told(self) -> set[str]:
        return {row["job_id"] for row in rows(self.db, transition) if row["silent"] is None}

    def seen(self) -> set[str]:
        return {row["job_id"] for row in rows(self.db, transition)}


@pytest.fixture
def bridge(db: Database) -> Bridge:
    return Bridge(db)


@pytest.mark.parametrize("date", DATES.values(), ids=DATES)
def test_no_date_of_ci_hides_a_job_and_a_quiet_stream_is_not_listed_anew(bridge: Bridge, date: Dates) -> None:
    bridge.poll()
    bridge.ci.date = date
    for n in range(30):
        bridge.passes()
        bridge.creates(f"j{n}", state=SUBMITTED if n % 2 else SUCCESS)
        bridge.poll()
    assert bridge.told() == {f"j{n}" for n in range(30)}
    bridge.passes(hours(9))
    for _ in range(2):
        bridge.passes()
        bridge.poll()
    both = min(bridge.clock(), date(bridge.now()) or bridge.clock())
    assert both - QUIET - minutes(91) <= bridge.mark <= both  # "jumping" looks back by up to 90 min more


@pytest.mark.parametrize("ahead", [seconds(61), minutes(10), hours(8)])
def test_where_clocks_differ_the_mark_is_no_later_than_the_newest_job_listed(bridge: Bridge, ahead: timedelta) -> None:
    bridge.ci.date = lambda now: now + ahead
    bridge.creates("old", minutes(40))
    newest = bridge.creates("new", minutes(20))
    bridge.creates("of the future", -hours(5))
    bridge.poll()
    assert bridge.mark == newest.created_at
    bridge.passes(minutes(50))
    bridge.poll()
    assert bridge.mark == bridge.clock() - QUIET  # and moves on when nothing comes
    bridge.passes(seconds(31))
    bridge.ci.date = lambda now: now
    bridge.poll()
    assert bridge.mark == bridge.clock()


def test_clocks_that_agree_within_a_minute_give_the_earlier_one(bridge: Bridge) -> None:
    for ahead, mark in ((50, 0), (-50, -50)):
        bridge.ci.date = lambda now, ahead=ahead: now + seconds(ahead)
        bridge.poll()
        assert bridge.mark == bridge.clock() + seconds(mark)
        bridge.passes()


def test_the_time_that_an_answer_takes_is_no_difference_of_clocks(bridge: Bridge) -> None:
    bridge.ci.before_call = lambda: bridge.passes(minutes(3))
    bridge.ci.date = lambda now: now - minutes(2)  # it was made long before it arrived
    bridge.poll()
    assert bridge.mark == NOW
    assert row_of(bridge.db, watch, name="vod")["clock_ms"] == 0


def test_a_mark_of_a_clock_that_was_far_ahead_hides_nothing_when_it_is_right_again(bridge: Bridge) -> None:
    bridge.poll()
    bridge.ci.date = lambda _: None
    bridge.clock.advance(hours(24 * 100))
    for n in range(3):
        bridge.passes(hours(1))
        bridge.creates(f"j{n}")
        bridge.poll()
    bridge.clock.advance(-hours(24 * 100))
    bridge.passes()
    bridge.poll()
    assert bridge.told() == {"j0", "j1", "j2"}
    bridge.passes()
    bridge.creates("j3")
    bridge.poll()
    assert bridge.ci.listed[-1][1] >= bridge.clock() - 2 * QUIET  # and no longer looks back for a day
    assert "j3" in bridge.told()


def test_where_ours_is_wrong_cis_date_keeps_the_mark(bridge: Bridge) -> None:
    bridge.poll()
    bridge.clock.advance(hours(24 * 100))
    for n in range(3):
        bridge.passes(minutes(20))
        bridge.creates(f"j{n}")
        bridge.poll()
        assert bridge.mark <= bridge.now()
    assert bridge.told() == {"j0", "j1", "j2"}


def test_a_ci_whose_clock_was_set_back_with_its_jobs_loses_none(bridge: Bridge) -> None:
    bridge.poll()
    bridge.passes(minutes(20))
    bridge.ci.now = Clock(bridge.now() - hours(8))  # type: ignore[assignment]
    for n in range(4):
        bridge.passes()
        bridge.ci.now.advance(seconds(31))  # type: ignore[attr-defined]
        bridge.ci.has(a_listed_job(f"j{n}", SUCCESS, created_at=bridge.ci.now()))
        bridge.poll()
    assert bridge.told() == {"j0", "j1", "j2", "j3"}


def test_one_absurd_date_does_not_tell_the_jobs_of_before_the_first_snapshot(bridge: Bridge) -> None:
    bridge.creates("old", hours(24 * 20))
    bridge.poll()
    bridge.passes()
    bridge.ci.date = lambda now: now - hours(24 * 30)
    bridge.poll()
    bridge.ci.date = lambda now: now
    bridge.passes()
    bridge.creates("new")
    bridge.poll()
    assert bridge.told() == {"new"}


def test_a_watch_that_looks_back_for_minutes_tells_nothing_older_because_clocks_differ(db: Database) -> None:
    watch_ = replace(watch_of(BOOK), lookback=minutes(10))
    bridge = Bridge(db, replace(BOOK, watches=(watch_,)))
    bridge.ci.date = lambda now: now + minutes(10)
    bridge.creates("old", minutes(40))
    for _ in range(3):
        bridge.poll()
        bridge.passes()
    assert bridge.told() == set()


# --- a first snapshot ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("date", DATES.values(), ids=DATES)
def test_a_first_snapshot_under_any_date_tells_what_came_after_the_first_question_and_nothing_older(
    bridge: Bridge, date: Dates
) -> None:
    for n in range(50):
        bridge.creates(f"old{n}", minutes(n) + seconds(1), state=SUBMITTED)
    bridge.ci.date, bridge.ci.page_size = date, 25
    arrivals = iter(range(100))

    def arrives() -> None:
        if bridge.ci.listed[1:]:  # after the first question
            bridge.creates(f"new{next(arrivals)}", timedelta(0))
        bridge.passes(seconds(3))

    bridge.ci.before_call = arrives
    bridge.poll()
    bridge.ci.before_call = lambda: None
    bridge.passes()
    bridge.poll()
    assert bridge.told() == bridge.ci.jobs.keys() - {f"old{n}" for n in range(50)}


@pytest.mark.parametrize("shift", [hours(8), hours(24 * 365)])
def test_a_first_snapshot_whose_creation_times_lie_in_the_future_is_silent(bridge: Bridge, shift: timedelta) -> None:
    for n in range(5):
        bridge.creates(f"old{n}", minutes(n) - shift)
    bridge.poll()
    assert bridge.told() == set()
    bridge.passes()
    bridge.creates("new", -shift)
    bridge.poll()
    assert bridge.told() == {"new"}


def test_a_first_snapshot_goes_back_as_far_as_ever(bridge: Bridge) -> None:
    bridge.ci.date = lambda now: now - hours(8)
    bridge.poll()
    assert bridge.ci.listed[0][1] == NOW - hours(24) - OVERLAP


# --- what is shown of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_s", "stored"), [(600, 600_000), (-28_800, -28_800_000), (0, 0)])
def test_a_poll_records_how_far_cis_clock_was_ahead(bridge: Bridge, ahead_s: int, stored: int) -> None:
    bridge.ci.date = lambda now: now + seconds(ahead_s)
    bridge.poll()
    assert row_of(bridge.db, watch, name="vod")["clock_ms"] == stored
    bridge.ci.date = lambda _: None
    bridge.poll()
    assert row_of(bridge.db, watch, name="vod")["clock_ms"] is None


def test_a_poll_that_failed_for_one_tag_says_what_cis_clock_showed_and_one_without_answers_does_not(
    db: Database,
) -> None:
    bridge = Bridge(db, a_book("Transcode", "Snapshot"))
    readings = []
    refusals: list[dict[str, CiError]] = [
        {},
        {"Snapshot": ConfigError("no such tag")},
        {"Transcode": DOWN, "Snapshot": DOWN},
    ]
    for refuses in refusals:
        bridge.passes(hours(50))
        bridge.ci.refuses = refuses
        bridge.poller.poll_once(watch_of(bridge.book), bridge.book)
        with db.read() as tx:
            readings += [(one.at, one.ahead) for one in clocks.readings(tx, ["vod"])]
    assert readings == [
        (NOW + hours(50), timedelta(0)),
        (NOW + hours(100), timedelta(0)),
        (NOW + hours(50), timedelta(0)),
    ]
