"""Level rules, hours at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bridge.collect.errors import CiError, ConfigError, TemporaryError
from bridge.model import FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS, Description, Page, Place, Stream
from bridge.record.database import Database
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import alarms
from tests.conftest import on_both
from tests.support.fakes import FakeCi
from tests.support.nouns import NOW, hours, minutes
from tests.support.records import rows
from tests.support.rig import OVER, STUCK, Rig

TITLE = "Transcode Running for 30 min: j1.mp4"
DOWN = TemporaryError("down")


@pytest.fixture
def rig(db: Database) -> Rig:
    rig = Rig(db, STUCK)
    rig.first_poll()
    return rig


def runs(rig: Rig, *rules: str) -> None:
    """Let j1 run from 09:01 on, perhaps under other rules."""
    if rules:
        rig.start("".join(rules))
    rig.has("j1", RUNNING)


def test_a_job_that_runs_for_too_long_notifies_once(rig: Rig) -> None:
    runs(rig)
    rig.passes(hours(3))
    assert rig.lines() == [f"09:31 ops: {TITLE}"]


def test_it_is_counted_from_when_ci_says_the_job_started(rig: Rig) -> None:
    rig.has("j1", RUNNING, started_at=NOW - minutes(20), created_at=NOW)
    rig.passes(minutes(15))
    assert rig.lines() == ["09:11 ops: Transcode Running for 31 min: j1.mp4"]


@on_both
def test_the_end_of_an_alarm_comes_with_what_was_seen_and_not_with_what_is_inferred(rig: Rig) -> None:
    rig.start(STUCK.replace("Running", "Submitted") + "recover = true\n")
    rig.has("j1", SUBMITTED)
    rig.passes(minutes(40))
    rig.has("j1", SUCCESS)
    rig.passes(minutes(5))
    assert rig.steps(inferred=True) == [("j1", "Submitted", "Running")]
    assert rig.lines()[1:] == ["09:46 ops: Transcode Success after 40 min Submitted: j1.mp4"]


def test_a_job_that_moves_on_in_time_is_not_overdue(rig: Rig) -> None:
    runs(rig)
    rig.passes(minutes(25))
    rig.has("j1", SUCCESS)
    rig.passes(hours(1))
    assert rig.lines() == []


def test_a_restart_neither_forgets_nor_repeats_it(rig: Rig) -> None:
    runs(rig)
    for _ in range(3):
        rig.passes(minutes(20))
        rig.start()
    rig.passes(hours(1))
    assert rig.titles() == [TITLE]


def test_each_time_in_state_is_counted_by_itself(rig: Rig) -> None:
    runs(rig)
    rig.passes(minutes(40))
    rig.has("j1", PAUSE)
    rig.passes(minutes(20))
    rig.has("j1", RUNNING)
    rig.passes(minutes(20))
    assert len(rig.titles()) == 1
    rig.passes(minutes(20))
    assert len(rig.titles()) == 2


def test_it_is_repeated_while_it_lasts_and_repetitions_that_were_missed_are_not_made_up_for(rig: Rig) -> None:
    runs(rig, STUCK, 'repeat = "2h"\n')
    rig.passes(hours(3))
    rig.clock.advance(hours(5))
    rig.passes(minutes(25))
    assert rig.lines() == [
        "09:31 ops: Transcode Running for 30 min: j1.mp4",
        "11:31 ops: Transcode still Running for 2 h 30 min: j1.mp4",
        "17:06 ops: Transcode still Running for 8 h 5 min: j1.mp4",
    ]


@on_both
def test_whoever_was_notified_hears_that_it_moves_again(rig: Rig) -> None:
    runs(rig, STUCK, "recover = true\n")
    rig.has("j2", RUNNING)
    rig.passes(minutes(20))
    rig.has("j2", SUCCESS)  # nobody was notified of it, so its end is no news
    rig.passes(minutes(60))
    rig.start()
    rig.has("j1", SUCCESS)
    rig.passes(minutes(20))
    assert rig.lines() == [f"09:31 ops: {TITLE}", "10:26 ops: Transcode Success after 1 h 20 min Running: j1.mp4"]
    assert [message.event["type"] for message in rig.received()] == ["ci.job.overdue", "ci.job.recovered"]
    (row,) = rows(rig.db, alarms)
    assert row["recovered_at"]
    with rig.db.read() as tx:
        listed = lists.find_deliveries(tx, Filter()).items
    assert [(row["kind"], row["tells"], row["left"]) for row in listed] == [
        ("recovery", SUCCESS, RUNNING),
        ("level", RUNNING, None),
    ]


def test_who_hears_of_the_transition_anyway_does_not_hear_twice_that_it_moves_again(rig: Rig) -> None:
    runs(rig, STUCK, "recover = true\n", OVER)
    rig.passes(minutes(40))
    rig.has("j1", FAILED)
    rig.passes(minutes(10))
    assert rig.titles() == [TITLE, "Transcode Failed: j1.mp4"]


def test_nobody_is_notified_while_ci_does_not_answer(rig: Rig) -> None:
    runs(rig)
    rig.passes(minutes(10))
    rig.ci.refuses = {"Transcode": DOWN, "Snapshot": DOWN}
    rig.passes(hours(2))
    rig.has("j1", SUCCESS)  # meanwhile it ended, and had not been stuck
    rig.ci.refuses = {}
    rig.passes(minutes(5))
    assert rig.lines() == []


@pytest.mark.parametrize("error", [ConfigError("no such tag"), DOWN], ids=lambda error: error.kind)
def test_a_tag_that_ci_refuses_does_not_silence_level_rules_about_others(rig: Rig, error: CiError) -> None:
    runs(rig)
    rig.has("s1", RUNNING, tag="Snapshot")
    rig.passes(minutes(10))
    rig.ci.refuses = {"Snapshot": error}
    rig.passes(minutes(30))
    assert TITLE in rig.titles()
    # Where the tag itself is wrong, its job was seen by id; else it may have moved, and nobody knows.
    assert ("Snapshot Running for 30 min: s1.mp4" in rig.titles()) is isinstance(error, ConfigError)


@dataclass
class _Behind(FakeCi):
    """Whose Date is an hour behind ours, in every answer."""

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), served_at=self.clock() - hours(1))

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        return replace(super().describe(place, ids), served_at=self.clock() - hours(1))


def test_a_job_that_was_seen_by_id_alone_is_judged_by_the_earlier_clock_too(rig: Rig) -> None:
    runs(rig)
    rig.poll()
    wrong = ConfigError("no such tag")
    rig.ci = _Behind(rig.clock, jobs=rig.ci.jobs, refuses={"Transcode": wrong, "Snapshot": wrong})
    rig.start()
    rig.clock.advance(hours(1) + minutes(5))  # five minutes, by CI's clock
    rig.sees()
    assert (rig.ci.described, rig.lines()) == ([("j1",)], [])
    rig.passes(minutes(40))
    assert rig.titles() == [TITLE]


class _Silent(FakeCi):
    """Says nothing of any job: neither that it has it, nor that it has not, as where it cannot be read."""

    def list(self, stream: Stream, **asked: Any) -> Page:
        return replace(super().list(stream, **asked), jobs=())

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        return replace(super().describe(place, ids), jobs=())


def test_a_job_that_no_answer_shows_is_not_judged(rig: Rig) -> None:
    runs(rig)
    rig.passes(minutes(10))
    rig.poller = rig.new_poller(source=_Silent(rig.clock, jobs=rig.ci.jobs))
    rig.passes(hours(1))
    assert rig.lines() == []


def test_level_rules_judge_what_was_listed_before_the_questions_by_id_failed(rig: Rig) -> None:
    rig.has("old", RUNNING)
    rig.poll()
    rig.passes(hours(4))  # by now it is asked for by id
    before = len(rig.titles())
    rig.has("j1", RUNNING)
    rig.poll()
    rig.ci.refuses = {"describe": DOWN}
    rig.passes(minutes(40))
    assert rig.titles()[before:] == [TITLE]


def test_a_job_that_is_still_stuck_after_an_outage_is_late_and_says_so(rig: Rig) -> None:
    runs(rig)
    rig.passes(minutes(10))
    rig.clock.advance(hours(2))
    rig.sees()
    (message,) = rig.received()
    assert message.title == "Transcode Running for 2 h 10 min: j1.mp4"
    assert message.event["time"] == "2026-11-21T09:31:00Z"  # when it became too long


def test_what_a_first_snapshot_finds_stuck_is_no_news_and_what_gets_stuck_later_is(db: Database) -> None:
    rig = Rig(db, STUCK)
    for id_, ago in (("old", hours(3)), ("young", minutes(10))):
        rig.has(id_, RUNNING, created_at=NOW - ago, started_at=NOW - ago)
    rig.poll()
    rig.passes(hours(2))
    assert rig.lines() == ["09:20 ops: Transcode Running for 30 min: young.mp4"]


def test_a_rule_that_is_new_asks_about_jobs_that_are_there(rig: Rig) -> None:
    runs(rig, "")
    rig.passes(hours(1))
    rig.start(STUCK)
    rig.passes(minutes(5))
    assert rig.titles() == ["Transcode Running for 1 h 5 min: j1.mp4"]


def test_a_level_rule_asks_for_its_conditions_too(rig: Rig) -> None:
    runs(rig, STUCK, 'match.tag = "Snapshot"\nmatch.age = "> 1h"\n')
    rig.has("j2", RUNNING, tag="Snapshot")
    rig.passes(hours(2))
    assert rig.lines() == ["10:06 ops: Snapshot Running for 1 h 5 min: j2.mp4"]


def test_a_level_rule_that_stops_keeps_those_below_from_notifying(rig: Rig) -> None:
    runs(rig, STUCK, 'match.tag = "Transcode"\nstop = true\n', STUCK.replace("stuck", "below").replace("30m", "40m"))
    rig.has("j2", RUNNING, tag="Snapshot")
    rig.passes(hours(2))
    assert rig.lines() == [f"09:31 ops: {TITLE}", "09:41 ops: Snapshot Running for 40 min: j2.mp4"]


@on_both
def test_jobs_that_wait_and_jobs_that_are_gone_can_be_overdue_too(rig: Rig) -> None:
    rig.start(STUCK.replace('"Running"', '["Submitted", "gone"]'))
    rig.has("j1", SUBMITTED)
    rig.has("j2", RUNNING)
    rig.passes(minutes(10))
    rig.ci.forgets("j2")
    rig.passes(hours(2))
    assert rig.lines() == [
        "09:31 ops: Transcode Submitted for 30 min: j1.mp4",
        "09:56 ops: Transcode gone for 30 min: j2.mp4",
    ]


@on_both
def test_level_rules_notify_of_a_job_while_it_is_gone_when_it_is_back_and_again(rig: Rig) -> None:
    lost = '[[rule]]\nname = "lost"\nin = "gone"\nfor = "20m"\nrecover = true\nnotify = "ops"\n'
    runs(rig, STUCK.replace("30m", "1h"), lost)
    rig.passes(minutes(20))
    job = rig.ci.jobs["j1"]
    rig.ci.forgets("j1")
    rig.passes(minutes(40))
    rig.ci.has(job)
    rig.passes(hours(2))
    assert rig.lines() == [
        "09:56 ops: Transcode gone for 20 min: j1.mp4",
        "10:06 ops: Transcode Running after 30 min gone: j1.mp4",
        "11:06 ops: Transcode Running for 1 h: j1.mp4",
    ]


def test_two_workers_notify_once(rig: Rig) -> None:
    runs(rig)
    rig.passes(minutes(29))
    first, second = rig.poller, rig.new_poller()
    rig.clock.advance(minutes(5))
    for rig.poller in (first, second, first):
        rig.sees()
    assert (rig.titles(), len(rows(rig.db, alarms))) == ([TITLE.replace("30 min", "34 min")], 1)


def test_a_job_that_was_gone_long_before_a_rule_first_asks_is_no_news(rig: Rig) -> None:
    rig.start("")
    for id_, time in (("old", hours(30)), ("young", minutes(10))):
        rig.has(id_, RUNNING)
        rig.passes(minutes(10))
        rig.ci.forgets(id_)
        rig.passes(time)
    rig.start(STUCK.replace("Running", "gone"))
    rig.passes(hours(2))
    assert rig.titles() == ["Transcode gone for 30 min: young.mp4"]
