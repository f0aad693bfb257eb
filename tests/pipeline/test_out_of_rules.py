"""A tag that was out of the rules for long begins anew, silently. An outage or a stop of any length does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.collect.errors import TemporaryError
from bridge.decide.rulesfile.read import read
from bridge.model import RUNNING, SUCCESS, Page, Stream
from bridge.pipeline.housekeeping import note_rules
from bridge.pipeline.prune import Pruner
from bridge.record.database import Database, ms
from bridge.record.polling import leases
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import streams as stream_table
from bridge.record.schema import transitions
from bridge.wiring import parts
from tests.conftest import on_both
from tests.support.fakes import FakeCi, notify_all
from tests.support.nouns import a_listed_job, hours, minutes, seconds
from tests.support.records import row_of, rows
from tests.support.rig import Rig

pytestmark = on_both

DAY = hours(24)
BOTH, WITHOUT = notify_all("Transcode", "Snapshot"), notify_all("Transcode")
NARROW = """
[[watch]]
name = "narrow"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Snapshot"]
queues = ["p1"]
"""


@pytest.fixture
def rig(db: Database) -> Rig:
    """Watches two tags, and has looked at both a minute ago."""
    rig = Rig(db, given=BOTH)
    rig.first_poll()
    return rig


def creates(rig: Rig, id_: str, state: str = SUCCESS, ago: timedelta = timedelta(0)) -> None:
    rig.ci.has(a_listed_job(id_, state, tag="Snapshot", queue="p1", created_at=rig.clock() - ago))


def is_out_for(rig: Rig, time: timedelta) -> None:
    """Let the tag be out of the rules for so long."""
    rig.use(given=WITHOUT)
    rig.clock.advance(time)
    rig.use(given=BOTH)


def test_a_tag_put_back_after_longer_than_the_lookback_is_silent_about_what_came_meanwhile(rig: Rig) -> None:
    rig.use(given=WITHOUT)
    for day in range(20):
        creates(rig, f"day{day}")
        rig.polls(1, DAY)
    rig.use(given=BOTH)
    rig.clock.advance(seconds(10))
    creates(rig, "new")
    rig.polls(1, seconds(20))
    assert rig.news() == ["new"]
    assert {why for why in rig.silent().values() if why} == {
        'first snapshot of Snapshot in watch "vod", not watched from 2026-11-21T09:01:00Z to 2026-12-11T09:01:00Z'
    }
    creates(rig, "newer")
    rig.polls()
    assert rig.news() == ["new", "newer"]
    assert row_of(rig.db, stream_table, key="clips-1250000000|Snapshot||||")["out_at"] is None


def _is_out_for_less(rig: Rig) -> None:
    is_out_for(rig, DAY - minutes(1))


def _stops(rig: Rig) -> None:
    rig.clock.advance(20 * DAY)
    rig.use()


def _cannot_ask(rig: Rig) -> None:
    rig.ci.refuses = {"Snapshot": TemporaryError("502")}
    rig.polls(20, DAY)
    rig.ci.refuses = {}


def _is_paused(rig: Rig) -> None:
    rig.clock.advance(hours(1))
    is_out_for(rig, hours(1))
    with rig.db.write() as tx:
        leases.set_watch(tx, "vod", paused=True)
    rig.clock.advance(20 * DAY)


def _is_renamed(rig: Rig) -> None:
    rig.clock.advance(20 * DAY)
    rig.use(given=BOTH.replace('name = "vod"', 'name = "media"'))


def _has_other_workers(rig: Rig) -> None:
    """Another worker, or a command, has rules without the tag, and this one goes on with it; then both stop."""
    for _ in range(20):
        parts.sync(rig.db, read(WITHOUT, {}), clock=rig.clock)
        rig.clock.advance(hours(3))
        rig.use()
        rig.poll()
    rig.clock.advance(20 * DAY)
    rig.use()


def _knows_no_rules_in_force(rig: Rig) -> None:
    """A worker of an older version has rules without the tag, and this one goes on with it."""
    with rig.db.write() as tx:
        note_rules(tx, read(WITHOUT, {}).watches, rig.clock())
    rig.polls(5, DAY)
    rig.use()


@pytest.mark.parametrize(
    "happens",
    [_is_out_for_less, _stops, _cannot_ask, _is_paused, _is_renamed, _has_other_workers, _knows_no_rules_in_force],
)
def test_nothing_else_makes_a_stream_begin_anew(rig: Rig, happens: Callable[[Rig], None]) -> None:
    creates(rig, "meanwhile")
    happens(rig)
    rig.poll()
    assert rig.news() == ["meanwhile"]


def test_a_stream_that_flaps_when_it_is_put_back_is_silent_all_the_same(rig: Rig) -> None:
    creates(rig, "old")
    is_out_for(rig, 20 * DAY)
    for text in (BOTH, WITHOUT, BOTH):
        rig.use(given=text)
        rig.clock.advance(seconds(2))
    creates(rig, "new")
    rig.poll()
    assert rig.news() == ["new"]


def test_one_that_was_never_listed_begins_anew_as_well(db: Database) -> None:
    rig = Rig(db, given=WITHOUT)
    rig.first_poll()
    rig.ci.refuses = {"Snapshot": TemporaryError("502")}
    rig.use(given=BOTH)
    rig.poll()
    rig.ci.refuses = {}
    rig.clock.advance(minutes(1))
    creates(rig, "old", ago=timedelta(seconds=-1))
    is_out_for(rig, 20 * DAY)
    rig.poll()
    assert rig.news() == []


def test_a_job_known_from_before_is_followed_to_its_end(rig: Rig) -> None:
    creates(rig, "j1", RUNNING)
    rig.poll()
    is_out_for(rig, 20 * DAY)
    creates(rig, "j1", SUCCESS, ago=20 * DAY)
    rig.poll()
    assert rig.news() == ["j1", "j1"]


def test_what_another_stream_was_to_notify_of_is_news(rig: Rig) -> None:
    rig.use(NARROW)
    rig.poll(1)
    rig.use("")
    rig.polls(1, 20 * DAY)
    rig.clock.advance(minutes(1))
    creates(rig, "j1")
    rig.clock.advance(minutes(1))
    rig.use(NARROW)
    rig.poll(1)
    assert rig.news() == ["j1"]


class _DatedCi(FakeCi):
    """CI's Date is true; the clock of the bridge is a day and an hour ahead of it."""

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), served_at=self.clock() - hours(25))


def test_a_clock_that_leaps_ahead_just_then_makes_no_stream_begin_anew(rig: Rig) -> None:
    creates(rig, "meanwhile")
    is_out_for(rig, minutes(1) + hours(25))
    rig.poller = rig.new_poller(source=_DatedCi(rig.clock, jobs=rig.ci.jobs))
    for _ in range(2):
        rig.poll()
        rig.clock.advance(seconds(30))
    assert rig.news() == ["meanwhile"]


# --- unfinished jobs of a tag that was taken out ----------------------------------------------------------------


@pytest.fixture
def running(rig: Rig) -> Rig:
    """Has seen the unfinished job s1 of the tag."""
    creates(rig, "s1", RUNNING)
    rig.poll()
    return rig


def unfinished(rig: Rig) -> tuple[int, str | None]:
    """How many unfinished jobs are counted, and since when s1 is unwatched."""
    with rig.db.read() as tx:
        (listed,) = [row for row in lists.find_jobs(tx, Filter()).items if row["id"] == "s1"]
        (whole,) = lists.job_details(tx, "s1")
        assert listed["unwatched_since"] == whole["unwatched_since"]
        return sum(gauges.open_jobs(tx).values()), whole["unwatched_since"]


def prunes(rig: Rig) -> dict[str, int]:
    return dict(Pruner(db=rig.db, clock=rig.clock, worker="w1", nap=lambda _: None).prune(rig.book))


def test_an_unfinished_job_of_a_tag_that_is_taken_out_is_unwatched_and_not_counted_until_that_is_back(
    running: Rig,
) -> None:
    assert unfinished(running) == (1, None)
    running.use(given=WITHOUT)
    out_at = lists.iso(ms(running.clock()))
    running.polls(1, hours(1))
    assert (unfinished(running), running.news()) == ((0, out_at), ["s1"])
    running.use(given=BOTH)
    assert unfinished(running) == (1, None)
    creates(running, "s1", SUCCESS, ago=hours(1))
    running.poll()
    assert (unfinished(running), running.news()) == ((0, None), ["s1", "s1"])
    running.use(given=WITHOUT)
    assert unfinished(running) == (0, None)  # a finished one is just finished


def test_an_unwatched_job_that_another_watch_covers_is_watched_by_that(running: Rig) -> None:
    running.use(given=WITHOUT)
    running.use(NARROW)
    for watch in range(2):
        running.poll(watch)
    assert unfinished(running) == (1, None)


def test_an_unwatched_job_is_pruned_by_age_and_is_no_news_when_the_tag_is_back(running: Rig) -> None:
    running.polls(1, 40 * DAY)  # it is old, and watched
    running.use(given=WITHOUT)
    running.polls(1, 29 * DAY)
    assert prunes(running) == {}
    running.polls(1, 2 * DAY)
    assert prunes(running) == {"jobs": 1}
    assert rows(running.db, transitions) == []
    running.use(given=BOTH)
    running.poll()
    assert running.news() == []


def test_an_unfinished_job_that_is_watched_again_is_never_pruned(running: Rig) -> None:
    is_out_for(running, 20 * DAY)
    running.polls(1, 20 * DAY)
    assert prunes(running) == {}
