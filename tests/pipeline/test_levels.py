"""Level rules, hours at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bridge.collect.errors import CiError, ConfigError, TemporaryError
from bridge.model import FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS, Description, Page, Place, Stream
from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import alarm
from tests.conftest import on_both
from tests.support.fakes import FakeCi
from tests.support.records import NOW, Clock, hours, minutes, rows
from tests.support.simulated_bridge import House

STUCK = """
[[rule]]
name = "stuck"
in = "Running"
for = "30m"
notify = "ops"
"""


@pytest.fixture
def house(db: Database, clock: Clock) -> House:
    return began(House(db, STUCK, clock))


def began(house: House, rules: str = STUCK) -> House:
    """Let the first snapshot be over."""
    house.start(rules)
    house.poll()
    house.clock.advance(minutes(1))
    return house


def test_a_job_that_runs_for_too_long_is_told_once(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(hours(3))
    (heard,) = house.heard()
    assert (heard.title, heard.notifier) == ("Transcode Running for 30 min: j1.mp4", "ops")
    assert heard.at == NOW + minutes(31)  # started at 09:01


def test_it_is_counted_from_when_ci_says_the_job_started(house: House) -> None:
    house.has("j1", RUNNING, started_at=NOW - minutes(20), created_at=NOW)
    house.passes(minutes(15))
    assert house.said() == ["09:11 ops: Transcode Running for 31 min: j1.mp4"]


def test_a_job_that_moves_on_in_time_is_not_told(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(25))
    house.has("j1", SUCCESS)
    house.passes(hours(1))
    assert house.said() == []


def test_a_restart_neither_forgets_nor_repeats_it(house: House) -> None:
    house.has("j1", RUNNING)
    house.has("j2", RUNNING)
    house.passes(minutes(20))
    house.start()
    house.passes(minutes(20))
    house.start()
    house.passes(hours(1))
    assert [one.title for one in house.heard()] == [f"Transcode Running for 30 min: {id_}.mp4" for id_ in ("j1", "j2")]


def test_each_stay_is_counted_by_itself(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(40))
    house.has("j1", PAUSE)
    house.passes(minutes(20))
    house.has("j1", RUNNING)
    house.passes(minutes(20))
    assert len(house.heard()) == 1
    house.passes(minutes(20))
    assert len(house.heard()) == 2


def test_it_is_repeated_while_it_lasts(db: Database, clock: Clock) -> None:
    house = began(House(db, "", clock), STUCK + 'repeat = "2h"\n')
    house.has("j1", RUNNING)
    house.passes(hours(5))
    assert house.said() == [
        "09:31 ops: Transcode Running for 30 min: j1.mp4",
        "11:31 ops: Transcode still Running for 2 h 30 min: j1.mp4",
        "13:31 ops: Transcode still Running for 4 h 30 min: j1.mp4",
    ]


def test_repetitions_that_were_missed_are_not_made_up_for(db: Database, clock: Clock) -> None:
    house = began(House(db, "", clock), STUCK + 'repeat = "1h"\n')
    house.has("j1", RUNNING)
    house.passes(minutes(35))
    house.clock.advance(hours(5))
    house.passes(minutes(30))
    assert [one.title.partition(":")[0] for one in house.heard()] == [
        "Transcode Running for 30 min",
        "Transcode still Running for 5 h 40 min",
    ]


def test_whoever_was_told_hears_that_it_moves_again(db: Database, clock: Clock) -> None:
    house = began(House(db, "", clock), STUCK + "recover = true\n")
    house.has("j1", RUNNING)
    house.has("j2", RUNNING)
    house.passes(minutes(20))
    house.has("j2", SUCCESS)  # was not told, so its end is no news
    house.passes(minutes(60))
    house.start()
    house.has("j1", SUCCESS)
    house.passes(minutes(20))
    assert house.said() == [
        "09:31 ops: Transcode Running for 30 min: j1.mp4",
        "10:26 ops: Transcode Success after 1 h 20 min Running: j1.mp4",
    ]
    assert [one.event["type"] for one in house.heard()] == ["ci.job.overdue", "ci.job.recovered"]
    (row,) = rows(db, alarm)
    assert row["recovered_at"]
    with db.read() as tx:
        listed = lists.find_deliveries(tx, Filter()).items
    assert [(one["kind"], one["tells"], one["left"]) for one in listed] == [
        ("recovery", SUCCESS, RUNNING),
        ("level", RUNNING, None),
    ]


def test_who_hears_of_the_transition_anyway_does_not_hear_twice_that_it_moves_again(db: Database, clock: Clock) -> None:
    rules = STUCK + 'recover = true\n[[rule]]\nname = "over"\nto = "done"\nnotify = "ops"\n'
    house = began(House(db, "", clock), rules)
    house.has("j1", RUNNING)
    house.passes(minutes(40))
    house.has("j1", FAILED)
    house.passes(minutes(10))
    assert [one.title for one in house.heard()] == ["Transcode Running for 30 min: j1.mp4", "Transcode Failed: j1.mp4"]


def test_nothing_is_told_of_stays_while_ci_does_not_answer(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(10))
    house.ci.refuses = {"Transcode": TemporaryError("down"), "Snapshot": TemporaryError("down")}
    house.passes(hours(2))
    assert house.said() == []
    house.has("j1", SUCCESS)  # meanwhile it ended, and had not been stuck
    house.ci.refuses = {}
    house.clock.advance(hours(1))
    house.poll()
    house.deliver()
    assert house.said() == []


@pytest.mark.parametrize("error", [ConfigError("no such tag"), TemporaryError("502")], ids=lambda error: error.kind)
def test_a_tag_that_ci_refuses_does_not_silence_level_rules_about_others(house: House, error: CiError) -> None:
    house.has("j1", RUNNING)
    house.has("s1", RUNNING, tag="Snapshot")
    house.passes(minutes(10))
    house.ci.refuses = {"Snapshot": error}
    house.passes(minutes(30))
    titles = [one.title for one in house.heard()]
    assert "Transcode Running for 30 min: j1.mp4" in titles
    # Where the tag itself is wrong, its job was seen by id; else it may have moved, and nobody knows.
    assert ("Snapshot Running for 30 min: s1.mp4" in titles) is isinstance(error, ConfigError)


@dataclass
class _Behind(FakeCi):
    """Whose Date is an hour behind ours, in every answer."""

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), served_at=self.clock() - hours(1))

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        return replace(super().describe(place, ids), served_at=self.clock() - hours(1))


def test_a_job_that_was_seen_by_id_alone_is_judged_by_the_earlier_clock_too(house: House) -> None:
    house.has("j1", RUNNING)
    house.poll()
    wrong = ConfigError("no such tag")
    house.ci = _Behind(house.clock, jobs=house.ci.jobs, refuses={"Transcode": wrong, "Snapshot": wrong})
    house.start()
    house.clock.advance(hours(1) + minutes(5))  # five minutes, by CI's clock
    house.poll()
    house.deliver()
    assert house.ci.described == [("j1",)]
    assert house.said() == []
    house.passes(minutes(40))
    assert [one.title for one in house.heard()] == ["Transcode Running for 30 min: j1.mp4"]


class _Silent(FakeCi):
    """Says nothing of any job: neither that it has it, nor that it has not, as where it cannot be read."""

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), jobs=())

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        return replace(super().describe(place, ids), jobs=())


def test_a_job_that_no_answer_shows_is_not_judged(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(10))
    house.poller = Poller(db=house.db, source=_Silent(house.clock, jobs=house.ci.jobs), clock=house.clock, worker="w")
    house.passes(hours(1))
    assert house.said() == []


def test_level_rules_judge_what_was_listed_before_the_questions_by_id_failed(house: House) -> None:
    house.has("old", RUNNING)
    house.poll()
    house.clock.advance(hours(1))
    house.passes(hours(3))  # by now it is asked for by id
    said = len(house.said())
    house.has("new", RUNNING)
    house.poll()
    house.ci.refuses = {"describe": TemporaryError("502")}
    house.passes(minutes(40))
    assert [one.title for one in house.heard()[said:]] == ["Transcode Running for 30 min: new.mp4"]


def test_a_job_that_is_still_stuck_after_an_outage_is_told_late_and_says_so(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(10))
    house.clock.advance(hours(2))
    house.poll()
    house.deliver()
    (heard,) = house.heard()
    assert heard.title == "Transcode Running for 2 h 10 min: j1.mp4"
    assert heard.event["time"] == "2026-11-21T09:31:00Z"  # when it became too long


def test_what_a_first_snapshot_finds_stuck_is_not_told_and_what_gets_stuck_later_is(db: Database, clock: Clock) -> None:
    house = House(db, STUCK, clock)
    house.has("old", RUNNING, created_at=NOW - hours(3), started_at=NOW - hours(3))
    house.has("young", RUNNING, created_at=NOW - minutes(10), started_at=NOW - minutes(10))
    house.poll()
    house.passes(hours(2))
    assert house.said() == ["09:20 ops: Transcode Running for 30 min: young.mp4"]


def test_a_rule_that_is_new_asks_about_jobs_that_are_there(db: Database, clock: Clock) -> None:
    house = began(House(db, "", clock), "")
    house.has("j1", RUNNING)
    house.passes(hours(1))
    house.start(STUCK)
    house.passes(minutes(5))
    assert [one.title for one in house.heard()] == ["Transcode Running for 1 h 5 min: j1.mp4"]


def test_a_level_rule_asks_for_its_conditions_too(db: Database, clock: Clock) -> None:
    house = began(House(db, "", clock), STUCK + 'match.tag = "Snapshot"\nmatch.age = "> 1h"\n')
    house.has("j1", RUNNING)
    house.has("j2", RUNNING, tag="Snapshot")
    house.passes(hours(2))
    assert house.said() == ["10:06 ops: Snapshot Running for 1 h 5 min: j2.mp4"]


def test_a_level_rule_that_stops_keeps_those_below_from_telling(db: Database, clock: Clock) -> None:
    below = STUCK.replace("stuck", "below").replace("30m", "40m")
    house = began(House(db, "", clock), f'{STUCK}match.tag = "Transcode"\nstop = true\n{below}')
    house.has("j1", RUNNING)
    house.has("j2", RUNNING, tag="Snapshot")
    house.passes(hours(2))
    assert house.said() == [
        "09:31 ops: Transcode Running for 30 min: j1.mp4",
        "09:41 ops: Snapshot Running for 40 min: j2.mp4",
    ]


@on_both
def test_jobs_that_wait_and_jobs_that_are_gone_can_be_overdue_too(db: Database, clock: Clock) -> None:
    rules = STUCK.replace('"Running"', '["Submitted", "gone"]')
    house = began(House(db, "", clock), rules)
    house.has("j1", SUBMITTED)
    house.has("j2", RUNNING)
    house.passes(minutes(10))
    house.ci.forgets("j2")
    house.passes(hours(2))
    assert house.said() == [
        "09:31 ops: Transcode Submitted for 30 min: j1.mp4",
        "09:56 ops: Transcode gone for 30 min: j2.mp4",
    ]


def test_two_workers_tell_of_a_stay_once(house: House, db: Database) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(29))
    first = house.poller
    house.start()
    second = house.poller
    house.clock.advance(minutes(5))
    for poller in (first, second, first):
        assert poller.poll_once(house.book.watches[0], house.book)
        house.deliver()
    assert len(house.heard()) == 1
    assert len(rows(db, alarm)) == 1


def test_a_job_that_was_gone_long_before_a_rule_first_asks_is_no_news(db: Database, clock: Clock) -> None:
    house = began(House(db, "", clock), "")
    house.has("old", RUNNING)
    house.passes(minutes(10))
    house.ci.forgets("old")
    house.passes(hours(30))
    house.has("young", RUNNING)
    house.passes(minutes(10))
    house.ci.forgets("young")
    house.passes(minutes(10))
    house.start(STUCK.replace("Running", "gone"))
    house.passes(hours(2))
    assert [one.title for one in house.heard()] == ["Transcode gone for 30 min: young.mp4"]
