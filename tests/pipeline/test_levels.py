"""Level rules, hours at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bridge.collect.errors import CiError, ConfigError, TemporaryError
from bridge.model import FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS, Described, Page, Place, Stream
from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import alarm
from tests.conftest import on_both
from tests.support.fakes import FakeCi
from tests.support.records import NOW, Clock, hours, minutes, rows
from tests.support.rig import Rig

STUCK = """
[[rule]]
name = "stuck"
in = "Running"
for = "30m"
notify = "ops"
"""


@pytest.fixture
def rig(db: Database, clock: Clock) -> Rig:
    return began(Rig(db, STUCK, clock))


def began(rig: Rig, rules: str = STUCK) -> Rig:
    """Let the first snapshot be over."""
    rig.start(rules)
    rig.poll()
    rig.clock.advance(minutes(1))
    return rig


def test_a_job_that_runs_for_too_long_is_told_once(rig: Rig) -> None:
    rig.has("j1", RUNNING)
    rig.passes(hours(3))
    (heard,) = rig.received()
    assert (heard.title, heard.notifier) == ("Transcode Running for 30 min: j1.mp4", "ops")
    assert heard.at == NOW + minutes(31)  # started at 09:01


def test_it_is_counted_from_when_ci_says_the_job_started(rig: Rig) -> None:
    rig.has("j1", RUNNING, started_at=NOW - minutes(20), created_at=NOW)
    rig.passes(minutes(15))
    assert rig.lines() == ["09:11 ops: Transcode Running for 31 min: j1.mp4"]


def test_a_job_that_moves_on_in_time_is_not_told(rig: Rig) -> None:
    rig.has("j1", RUNNING)
    rig.passes(minutes(25))
    rig.has("j1", SUCCESS)
    rig.passes(hours(1))
    assert rig.lines() == []


def test_a_restart_neither_forgets_nor_repeats_it(rig: Rig) -> None:
    rig.has("j1", RUNNING)
    rig.has("j2", RUNNING)
    rig.passes(minutes(20))
    rig.start()
    rig.passes(minutes(20))
    rig.start()
    rig.passes(hours(1))
    assert rig.titles() == [f"Transcode Running for 30 min: {id_}.mp4" for id_ in ("j1", "j2")]


def test_each_stay_is_counted_by_itself(rig: Rig) -> None:
    rig.has("j1", RUNNING)
    rig.passes(minutes(40))
    rig.has("j1", PAUSE)
    rig.passes(minutes(20))
    rig.has("j1", RUNNING)
    rig.passes(minutes(20))
    assert len(rig.received()) == 1
    rig.passes(minutes(20))
    assert len(rig.received()) == 2


def test_it_is_repeated_while_it_lasts(db: Database, clock: Clock) -> None:
    rig = began(Rig(db, "", clock), STUCK + 'repeat = "2h"\n')
    rig.has("j1", RUNNING)
    rig.passes(hours(5))
    assert rig.lines() == [
        "09:31 ops: Transcode Running for 30 min: j1.mp4",
        "11:31 ops: Transcode still Running for 2 h 30 min: j1.mp4",
        "13:31 ops: Transcode still Running for 4 h 30 min: j1.mp4",
    ]


def test_repetitions_that_were_missed_are_not_made_up_for(db: Database, clock: Clock) -> None:
    rig = began(Rig(db, "", clock), STUCK + 'repeat = "1h"\n')
    rig.has("j1", RUNNING)
    rig.passes(minutes(35))
    rig.clock.advance(hours(5))
    rig.passes(minutes(30))
    assert [one.title.partition(":")[0] for one in rig.received()] == [
        "Transcode Running for 30 min",
        "Transcode still Running for 5 h 40 min",
    ]


def test_whoever_was_told_hears_that_it_moves_again(db: Database, clock: Clock) -> None:
    rig = began(Rig(db, "", clock), STUCK + "recover = true\n")
    rig.has("j1", RUNNING)
    rig.has("j2", RUNNING)
    rig.passes(minutes(20))
    rig.has("j2", SUCCESS)  # was not told, so its end is no news
    rig.passes(minutes(60))
    rig.start()
    rig.has("j1", SUCCESS)
    rig.passes(minutes(20))
    assert rig.lines() == [
        "09:31 ops: Transcode Running for 30 min: j1.mp4",
        "10:26 ops: Transcode Success after 1 h 20 min Running: j1.mp4",
    ]
    assert [one.event["type"] for one in rig.received()] == ["ci.job.overdue", "ci.job.recovered"]
    (row,) = rows(db, alarm)
    assert row["recovered_at"]
    with db.read() as tx:
        listed = lists.deliveries(tx, Filter()).items
    assert [(one["kind"], one["tells"], one["left"]) for one in listed] == [
        ("recovery", SUCCESS, RUNNING),
        ("level", RUNNING, None),
    ]


def test_who_hears_of_the_transition_anyway_does_not_hear_twice_that_it_moves_again(db: Database, clock: Clock) -> None:
    rules = STUCK + 'recover = true\n[[rule]]\nname = "over"\nto = "done"\nnotify = "ops"\n'
    rig = began(Rig(db, "", clock), rules)
    rig.has("j1", RUNNING)
    rig.passes(minutes(40))
    rig.has("j1", FAILED)
    rig.passes(minutes(10))
    assert rig.titles() == ["Transcode Running for 30 min: j1.mp4", "Transcode Failed: j1.mp4"]


def test_nothing_is_told_of_stays_while_ci_does_not_answer(rig: Rig) -> None:
    rig.has("j1", RUNNING)
    rig.passes(minutes(10))
    rig.ci.refuses = {"Transcode": TemporaryError("down"), "Snapshot": TemporaryError("down")}
    rig.passes(hours(2))
    assert rig.lines() == []
    rig.has("j1", SUCCESS)  # meanwhile it ended, and had not been stuck
    rig.ci.refuses = {}
    rig.clock.advance(hours(1))
    rig.poll()
    rig.deliver()
    assert rig.lines() == []


@pytest.mark.parametrize("error", [ConfigError("no such tag"), TemporaryError("502")], ids=lambda error: error.kind)
def test_a_tag_that_ci_refuses_does_not_silence_level_rules_about_others(rig: Rig, error: CiError) -> None:
    rig.has("j1", RUNNING)
    rig.has("s1", RUNNING, tag="Snapshot")
    rig.passes(minutes(10))
    rig.ci.refuses = {"Snapshot": error}
    rig.passes(minutes(30))
    titles = rig.titles()
    assert "Transcode Running for 30 min: j1.mp4" in titles
    # Where the tag itself is wrong, its job was seen by id; else it may have moved, and nobody knows.
    assert ("Snapshot Running for 30 min: s1.mp4" in titles) is isinstance(error, ConfigError)


@dataclass
class _Behind(FakeCi):
    """Whose Date is an hour behind ours, in every answer."""

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), served_at=self.clock() - hours(1))

    def describe(self, place: Place, ids: Sequence[str]) -> Described:
        return replace(super().describe(place, ids), served_at=self.clock() - hours(1))


def test_a_job_that_was_seen_by_id_alone_is_judged_by_the_earlier_clock_too(rig: Rig) -> None:
    rig.has("j1", RUNNING)
    rig.poll()
    wrong = ConfigError("no such tag")
    rig.ci = _Behind(rig.clock, jobs=rig.ci.jobs, refuses={"Transcode": wrong, "Snapshot": wrong})
    rig.start()
    rig.clock.advance(hours(1) + minutes(5))  # five minutes, by CI's clock
    rig.poll()
    rig.deliver()
    assert rig.ci.described == [("j1",)]
    assert rig.lines() == []
    rig.passes(minutes(40))
    assert rig.titles() == ["Transcode Running for 30 min: j1.mp4"]


class _Silent(FakeCi):
    """Says nothing of any job: neither that it has it, nor that it has not, as where it cannot be read."""

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), jobs=())

    def describe(self, place: Place, ids: Sequence[str]) -> Described:
        return replace(super().describe(place, ids), jobs=())


def test_a_job_that_no_answer_shows_is_not_judged(rig: Rig) -> None:
    rig.has("j1", RUNNING)
    rig.passes(minutes(10))
    rig.poller = Poller(db=rig.db, source=_Silent(rig.clock, jobs=rig.ci.jobs), clock=rig.clock, worker="w")
    rig.passes(hours(1))
    assert rig.lines() == []


def test_level_rules_judge_what_was_listed_before_the_questions_by_id_failed(rig: Rig) -> None:
    rig.has("old", RUNNING)
    rig.poll()
    rig.clock.advance(hours(1))
    rig.passes(hours(3))  # by now it is asked for by id
    said = len(rig.lines())
    rig.has("new", RUNNING)
    rig.poll()
    rig.ci.refuses = {"describe": TemporaryError("502")}
    rig.passes(minutes(40))
    assert [one.title for one in rig.received()[said:]] == ["Transcode Running for 30 min: new.mp4"]


def test_a_job_that_is_still_stuck_after_an_outage_is_told_late_and_says_so(rig: Rig) -> None:
    rig.has("j1", RUNNING)
    rig.passes(minutes(10))
    rig.clock.advance(hours(2))
    rig.poll()
    rig.deliver()
    (heard,) = rig.received()
    assert heard.title == "Transcode Running for 2 h 10 min: j1.mp4"
    assert heard.event["time"] == "2026-11-21T09:31:00Z"  # when it became too long


def test_what_a_first_snapshot_finds_stuck_is_not_told_and_what_gets_stuck_later_is(db: Database, clock: Clock) -> None:
    rig = Rig(db, STUCK, clock)
    rig.has("old", RUNNING, created_at=NOW - hours(3), started_at=NOW - hours(3))
    rig.has("young", RUNNING, created_at=NOW - minutes(10), started_at=NOW - minutes(10))
    rig.poll()
    rig.passes(hours(2))
    assert rig.lines() == ["09:20 ops: Transcode Running for 30 min: young.mp4"]


def test_a_rule_that_is_new_asks_about_jobs_that_are_there(db: Database, clock: Clock) -> None:
    rig = began(Rig(db, "", clock), "")
    rig.has("j1", RUNNING)
    rig.passes(hours(1))
    rig.start(STUCK)
    rig.passes(minutes(5))
    assert rig.titles() == ["Transcode Running for 1 h 5 min: j1.mp4"]


def test_a_level_rule_asks_for_its_conditions_too(db: Database, clock: Clock) -> None:
    rig = began(Rig(db, "", clock), STUCK + 'match.tag = "Snapshot"\nmatch.age = "> 1h"\n')
    rig.has("j1", RUNNING)
    rig.has("j2", RUNNING, tag="Snapshot")
    rig.passes(hours(2))
    assert rig.lines() == ["10:06 ops: Snapshot Running for 1 h 5 min: j2.mp4"]


def test_a_level_rule_that_stops_keeps_those_below_from_telling(db: Database, clock: Clock) -> None:
    below = STUCK.replace("stuck", "below").replace("30m", "40m")
    rig = began(Rig(db, "", clock), f'{STUCK}match.tag = "Transcode"\nstop = true\n{below}')
    rig.has("j1", RUNNING)
    rig.has("j2", RUNNING, tag="Snapshot")
    rig.passes(hours(2))
    assert rig.lines() == [
        "09:31 ops: Transcode Running for 30 min: j1.mp4",
        "09:41 ops: Snapshot Running for 40 min: j2.mp4",
    ]


@on_both
def test_jobs_that_wait_and_jobs_that_are_gone_can_be_overdue_too(db: Database, clock: Clock) -> None:
    rules = STUCK.replace('"Running"', '["Submitted", "gone"]')
    rig = began(Rig(db, "", clock), rules)
    rig.has("j1", SUBMITTED)
    rig.has("j2", RUNNING)
    rig.passes(minutes(10))
    rig.ci.forgets("j2")
    rig.passes(hours(2))
    assert rig.lines() == [
        "09:31 ops: Transcode Submitted for 30 min: j1.mp4",
        "09:56 ops: Transcode gone for 30 min: j2.mp4",
    ]


def test_two_workers_tell_of_a_stay_once(rig: Rig, db: Database) -> None:
    rig.has("j1", RUNNING)
    rig.passes(minutes(29))
    first = rig.poller
    rig.start()
    second = rig.poller
    rig.clock.advance(minutes(5))
    for poller in (first, second, first):
        assert poller.poll_once(rig.book.watches[0], rig.book)
        rig.deliver()
    assert len(rig.received()) == 1
    assert len(rows(db, alarm)) == 1


def test_a_job_that_was_gone_long_before_a_rule_first_asks_is_no_news(db: Database, clock: Clock) -> None:
    rig = began(Rig(db, "", clock), "")
    rig.has("old", RUNNING)
    rig.passes(minutes(10))
    rig.ci.forgets("old")
    rig.passes(hours(30))
    rig.has("young", RUNNING)
    rig.passes(minutes(10))
    rig.ci.forgets("young")
    rig.passes(minutes(10))
    rig.start(STUCK.replace("Running", "gone"))
    rig.passes(hours(2))
    assert rig.titles() == ["Transcode gone for 30 min: young.mp4"]
