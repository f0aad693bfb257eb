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
from bridge.pipeline.poll import Poller
from bridge.pipeline.poll_context import note_rules
from bridge.pipeline.prune import Pruner
from bridge.record.database import Database, ms
from bridge.record.polling import leases
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import stream as stream_table
from bridge.record.schema import transition
from bridge.wiring import parts
from tests.conftest import on_both
from tests.support.fakes import RULES, FakeCi
from tests.support.records import Clock, a_listed_job, hours, minutes, row_of, rows, seconds

pytestmark = on_both

DAY = hours(24)
BOTH = RULES.format(tags='"Transcode", "Snapshot"', cms="")
WITHOUT = RULES.format(tags='"Transcode"', cms="")
NARROW = """
[[watch]]
name = "narrow"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Snapshot"]
queues = ["p1"]
"""


class Bridge:
    """Watches two tags, and has looked at both a minute ago."""

    def __init__(self, db: Database, text: str = BOTH) -> None:
        self.db, self.clock = db, Clock()
        self.ci = FakeCi(self.clock)
        self.poller = Poller(db=db, source=self.ci, clock=self.clock, worker="w1")
        self.use(text)
        self.polls()
        self.clock.advance(minutes(1))

    def use(self, text: str) -> None:
        """Start, or reload, with these rules."""
        self.book = read(text, {})
        parts.sync(self.db, self.book, clock=self.clock)

    def polls(self, watch: str | None = None) -> None:
        for one in self.book.watches:
            if watch in (None, one.name):
                assert self.poller.poll_once(one, self.book) is not None

    def creates(self, id_: str, state: str = SUCCESS, ago: timedelta = timedelta(0)) -> None:
        self.ci.has(a_listed_job(id_, state, tag="Snapshot", queue="p1", created_at=self.clock() - ago))

    def told(self) -> list[str]:
        return [row["job_id"] for row in rows(self.db, transition) if row["silent"] is None]


@pytest.fixture
def bridge(db: Database) -> Bridge:
    return Bridge(db)


def test_a_tag_put_back_after_longer_than_the_lookback_is_silent_about_what_came_meanwhile(bridge: Bridge) -> None:
    bridge.use(WITHOUT)
    for day in range(20):
        bridge.creates(f"day{day}")
        bridge.clock.advance(DAY)
        bridge.polls()
    bridge.use(BOTH)
    bridge.clock.advance(seconds(10))
    bridge.creates("new")
    bridge.clock.advance(seconds(20))
    bridge.polls()
    assert bridge.told() == ["new"]
    (silent,) = {row["silent"] for row in rows(bridge.db, transition) if row["silent"]}
    assert silent == (
        'first snapshot of Snapshot in watch "vod", not watched from 2026-11-21T09:01:00Z to 2026-12-11T09:01:00Z'
    )
    bridge.creates("newer")
    bridge.clock.advance(seconds(30))
    bridge.polls()
    assert bridge.told() == ["new", "newer"]
    assert row_of(bridge.db, stream_table, key="clips-1250000000|Snapshot||||")["out_at"] is None


def test_a_tag_put_back_sooner_tells_what_came_meanwhile(bridge: Bridge) -> None:
    bridge.use(WITHOUT)
    bridge.creates("meanwhile")
    bridge.clock.advance(DAY - minutes(1))
    bridge.use(BOTH)
    bridge.polls()
    assert bridge.told() == ["meanwhile"]


def _stops(bridge: Bridge) -> None:
    bridge.clock.advance(20 * DAY)
    bridge.use(BOTH)


def _cannot_ask(bridge: Bridge) -> None:
    bridge.ci.refuses = {"Snapshot": TemporaryError("502")}
    for _ in range(20):
        bridge.clock.advance(DAY)
        bridge.polls()
    bridge.ci.refuses = {}


def _is_paused(bridge: Bridge) -> None:
    bridge.clock.advance(hours(1))
    bridge.use(WITHOUT)
    bridge.clock.advance(hours(1))
    bridge.use(BOTH)
    with bridge.db.write() as tx:
        leases.set_watch(tx, "vod", paused=True)
    bridge.clock.advance(20 * DAY)


def _is_renamed(bridge: Bridge) -> None:
    bridge.clock.advance(20 * DAY)
    bridge.use(BOTH.replace('name = "vod"', 'name = "media"'))


def _has_other_workers(bridge: Bridge) -> None:
    """Another worker, or a command, has rules without the tag, and this one goes on with it; then both stop."""
    for _ in range(20):
        parts.sync(bridge.db, read(WITHOUT, {}), clock=bridge.clock)
        bridge.clock.advance(hours(3))
        parts.sync(bridge.db, bridge.book, clock=bridge.clock)
        bridge.polls()
    bridge.clock.advance(20 * DAY)
    bridge.use(BOTH)


@pytest.mark.parametrize("happens", [_stops, _cannot_ask, _is_paused, _is_renamed, _has_other_workers])
def test_nothing_else_makes_a_stream_begin_anew(bridge: Bridge, happens: Callable[[Bridge], None]) -> None:
    bridge.creates("meanwhile")
    happens(bridge)
    bridge.polls()
    assert bridge.told() == ["meanwhile"]


def test_a_worker_that_still_has_the_tag_keeps_it_from_beginning_anew(bridge: Bridge) -> None:
    with bridge.db.write() as tx:  # as a worker of a version does that knows of no rules in force
        note_rules(tx, read(WITHOUT, {}).watches, bridge.clock())
    for _ in range(5):
        bridge.clock.advance(DAY)
        bridge.polls()
    bridge.creates("news")
    bridge.use(BOTH)
    bridge.polls()
    assert bridge.told() == ["news"]


def test_a_stream_that_flaps_when_it_is_put_back_is_silent_all_the_same(bridge: Bridge) -> None:
    bridge.use(WITHOUT)
    bridge.creates("old")
    bridge.clock.advance(20 * DAY)
    for text in (BOTH, WITHOUT, BOTH):
        bridge.use(text)
        bridge.clock.advance(seconds(2))
    bridge.creates("new")
    bridge.polls()
    assert bridge.told() == ["new"]


def test_one_that_was_never_listed_begins_anew_as_well(db: Database) -> None:
    bridge = Bridge(db, WITHOUT)
    bridge.ci.refuses = {"Snapshot": TemporaryError("502")}
    bridge.use(BOTH)
    bridge.polls()
    bridge.ci.refuses = {}
    bridge.clock.advance(minutes(1))
    bridge.use(WITHOUT)
    bridge.creates("old")
    bridge.clock.advance(20 * DAY)
    bridge.use(BOTH)
    bridge.polls()
    assert bridge.told() == []


def test_a_job_known_from_before_is_followed_to_its_end(bridge: Bridge) -> None:
    bridge.creates("j1", RUNNING)
    bridge.polls()
    bridge.use(WITHOUT)
    bridge.clock.advance(20 * DAY)
    bridge.creates("j1", SUCCESS, ago=20 * DAY)
    bridge.use(BOTH)
    bridge.polls()
    assert bridge.told() == ["j1", "j1"]


def test_what_another_stream_was_to_tell_is_news(db: Database) -> None:
    bridge = Bridge(db, BOTH + NARROW)
    bridge.use(BOTH)
    bridge.clock.advance(20 * DAY)
    bridge.polls()
    bridge.clock.advance(minutes(1))
    bridge.creates("j1")
    bridge.clock.advance(minutes(1))
    bridge.use(BOTH + NARROW)
    bridge.polls("narrow")
    assert bridge.told() == ["j1"]


class _DatedCi(FakeCi):
    """CI's Date is true; the clock of the bridge is a day and an hour ahead of it."""

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), served_at=self.clock() - hours(25))


def test_a_clock_that_leaps_ahead_just_then_makes_no_stream_begin_anew(bridge: Bridge) -> None:
    bridge.use(WITHOUT)
    bridge.creates("meanwhile")
    bridge.clock.advance(minutes(1) + hours(25))
    bridge.use(BOTH)
    ci = _DatedCi(bridge.clock, jobs=bridge.ci.jobs)
    bridge.poller = Poller(db=bridge.db, source=ci, clock=bridge.clock, worker="w1")
    for _ in range(2):
        bridge.polls()
        bridge.clock.advance(seconds(30))
    assert bridge.told() == ["meanwhile"]


# --- unfinished jobs of a tag that was taken out ----------------------------------------------------------------


def _unfinished(bridge: Bridge) -> tuple[int, str | None]:
    """How many unfinished jobs are counted, and since when s1 is unwatched."""
    with bridge.db.read() as tx:
        (listed,) = [one for one in lists.find_jobs(tx, Filter()).items if one["id"] == "s1"]
        (whole,) = lists.job_details(tx, "s1")
        assert listed["unwatched_since"] == whole["unwatched_since"]
        return sum(gauges.open_jobs(tx).values()), whole["unwatched_since"]


def _prunes(bridge: Bridge) -> dict[str, int]:
    return dict(Pruner(db=bridge.db, clock=bridge.clock, worker="w1", nap=lambda _: None).prune(bridge.book))


def test_an_unfinished_job_of_a_tag_that_is_taken_out_is_unwatched_and_not_counted_until_that_is_back(
    bridge: Bridge,
) -> None:
    bridge.creates("s1", RUNNING)
    bridge.polls()
    assert _unfinished(bridge) == (1, None)
    bridge.use(WITHOUT)
    out_at = lists.iso(ms(bridge.clock()))
    bridge.clock.advance(hours(1))
    bridge.polls()
    assert _unfinished(bridge) == (0, out_at)
    assert bridge.told() == ["s1"]
    bridge.use(BOTH)
    assert _unfinished(bridge) == (1, None)
    bridge.ci.has(a_listed_job("s1", SUCCESS, tag="Snapshot", queue="p1", created_at=bridge.clock() - hours(1)))
    bridge.polls()
    assert _unfinished(bridge) == (0, None)
    assert bridge.told() == ["s1", "s1"]


def test_a_finished_job_of_a_tag_that_is_taken_out_is_just_finished(bridge: Bridge) -> None:
    bridge.creates("s1", SUCCESS)
    bridge.polls()
    bridge.use(WITHOUT)
    assert _unfinished(bridge) == (0, None)


def test_an_unwatched_job_that_another_watch_covers_is_watched_by_that(bridge: Bridge) -> None:
    bridge.creates("s1", RUNNING)
    bridge.polls()
    bridge.use(WITHOUT)
    bridge.use(WITHOUT + NARROW)
    bridge.polls()
    assert _unfinished(bridge) == (1, None)


def test_an_unwatched_job_is_pruned_by_age_and_is_no_news_when_the_tag_is_back(bridge: Bridge) -> None:
    bridge.creates("s1", RUNNING)
    bridge.polls()
    bridge.clock.advance(40 * DAY)  # it is old, and watched
    bridge.polls()
    bridge.use(WITHOUT)
    bridge.clock.advance(29 * DAY)
    bridge.polls()
    assert _prunes(bridge) == {}
    bridge.clock.advance(2 * DAY)
    bridge.polls()
    assert _prunes(bridge) == {"jobs": 1}
    assert rows(bridge.db, transition) == []
    bridge.use(BOTH)
    bridge.polls()
    assert bridge.told() == []


def test_an_unfinished_job_that_is_watched_is_never_pruned(bridge: Bridge) -> None:
    bridge.creates("s1", RUNNING)
    bridge.polls()
    bridge.use(WITHOUT)
    bridge.clock.advance(20 * DAY)
    bridge.use(BOTH)
    bridge.clock.advance(20 * DAY)
    bridge.polls()
    assert _prunes(bridge) == {}
