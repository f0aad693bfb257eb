"""Rules over several jobs: each incident opens, goes on and closes by what happened, and is told once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest

from bridge.collect.errors import TemporaryError
from bridge.model import CANCEL, FAILED, RUNNING, SUBMITTED, SUCCESS
from bridge.record import incidents
from bridge.record.database import Database
from bridge.record.incidents import IncidentKey, NewKey
from bridge.record.schema import incident_jobs, rule_faults
from bridge.record.schema import incidents as table
from tests.conftest import on_both, only_postgresql
from tests.support.fakes import FakeCi
from tests.support.nouns import NOW, hours, minutes, seconds
from tests.support.records import rows
from tests.support.rig import GIVEN, Rig

SICK = """
[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 3"
within = "10m"
recover = true
notify = "ops"
"""
ROW = SICK.replace('within = "10m"', "in_a_row = true").replace('"sick"', '"row"')
SHARE = SICK.replace('count = ">= 3"', 'share = "> 20% of 5"').replace('"sick"', '"share"')
SILENT = """
[[rule]]
name = "silent"
absent = "Success"
for = "2h"
recover = true
notify = "ops"
"""
BACKLOG = """
[[rule]]
name = "backlog"
in = "Submitted"
for = "10m"
by = ["queue"]
count = "> 2"
recover = true
notify = "ops"
"""
ASSET = """
[[rule]]
name = "asset"
all = "done"
by = ["user_data.asset"]
expect = "{{ job.user_data.parts }}"
notify = "cms"
"""
SETTLE = ASSET.replace('expect = "{{ job.user_data.parts }}"', 'settle = "20m"')
ESCALATE = 'escalate = { after = "30m", notify = "cms" }\n'
DOWN = TemporaryError("CI is down")


def a_rig(db: Database, *rules: str, **facts: Any) -> Rig:
    rig = Rig(db, "".join(rules), **facts)
    rig.first_poll()
    return rig


def fail(rig: Rig, *ids: str, every: int = 1, queue: str = "p1", **facts: Any) -> None:
    """Let jobs fail, one every so many minutes."""
    for id_ in ids:
        rig.has(id_, FAILED, queue=queue, **facts)
        rig.clock.advance(minutes(every))


def part(rig: Rig, id_: str, state: str, *, asset: str = "a1", parts: object = 3) -> None:
    rig.has(id_, state, user_data=f"asset={asset};parts={parts}")


def stored(db: Database) -> list[tuple[str, int, bool]]:
    """Return the incidents that opened: the rule, the generation, and whether it has closed."""
    return [
        (row["rule"], row["generation"], row["closed_at"] is not None) for row in rows(db, table) if row["opened_at"]
    ]


# --- thresholds -----------------------------------------------------------------------------------------------------


@on_both
def test_many_failures_of_a_queue_are_told_once_until_it_is_quiet(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    assert rig.titles() == ["sick (queue vod): 3 Failed within 10 min"]
    for number in range(4):
        rig.has(f"k{number}", FAILED, queue="p1")
        rig.passes(minutes(5))
    rig.passes(minutes(15))
    assert rig.titles()[1:] == ["sick (queue vod) is over after 31 min"]
    opened, closed = (message.event for message in rig.received())
    assert [opened["type"], closed["type"]] == ["ci.incident.opened", "ci.incident.closed"]
    assert (opened["time"], closed["time"]) == ("2026-11-21T09:03:00Z", "2026-11-21T09:34:00Z")
    assert [job["id"] for job in opened["data"]["jobs"]] == ["j1", "j2", "j3"]
    assert closed["data"]["states"] == {"Failed": 7}
    fail(rig, "m1", "m2", "m3")
    rig.passes(minutes(5))
    assert rig.received()[-1].event["data"]["generation"] == 2


@on_both
def test_failures_that_are_too_few_or_too_far_apart_are_told_to_nobody_and_forgotten(db: Database) -> None:
    rig = a_rig(db, SICK)
    for number in range(6):
        rig.has(f"j{number}", FAILED, queue="p1")
        rig.passes(minutes(5))
    rig.passes(hours(1))
    assert rig.titles() == []
    assert rows(db, table) == rows(db, incident_jobs) == []


def test_each_queue_is_its_own_and_a_job_without_one_is_of_none(db: Database) -> None:
    rig = a_rig(db, SICK)
    for number in range(2):
        fail(rig, f"a{number}", queue="p1", every=0)
        fail(rig, f"b{number}", queue="p2", every=0)
        rig.has(f"c{number}", FAILED, queue=None)
        rig.has(f"d{number}", FAILED, queue=None)
    rig.passes(minutes(5))
    assert rig.titles() == []
    fail(rig, "b2", queue="p2")
    rig.passes(minutes(5))
    assert rig.titles() == ["sick (queue p2): 3 Failed within 10 min"]


@on_both
def test_a_storm_that_is_found_late_is_told_once_as_over(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3", "j4")
    rig.clock.advance(hours(3))
    rig.passes(minutes(10))
    (message,) = rig.received()
    assert message.title == ("sick (queue vod): 4 Failed, 3 of them within 10 min, over since 2026-11-21T09:14:00Z")
    assert message.event["data"]["closed_at"] == "2026-11-21T09:14:00Z"
    assert message.event["data"]["late_seconds"] == 11_220


def test_what_one_tag_shows_late_counts_with_what_others_showed_in_time(db: Database) -> None:
    rig = a_rig(db, SICK)
    rig.ci.refuses = {"Snapshot": DOWN}  # type: ignore[dict-item]
    fail(rig, "j1", "j2")
    rig.has("j3", FAILED, tag="Snapshot", queue="p1")
    rig.passes(hours(2))
    assert rig.titles() == []
    rig.ci.refuses = {}
    rig.passes(minutes(5))
    assert rig.titles() == ["sick (queue vod): 3 Failed within 10 min, over since 2026-11-21T09:13:00Z"]


def test_two_storms_that_are_found_late_are_two_and_each_has_its_own_jobs(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3", "j4")
    rig.clock.advance(hours(1))
    fail(rig, "k1", "k2", "k3")
    rig.passes(minutes(5))
    assert rig.titles() == [
        "sick (queue vod): 4 Failed, 3 of them within 10 min, over since 2026-11-21T09:14:00Z",
        "sick (queue vod): 3 Failed within 10 min",
    ]
    told = [message.event["data"] for message in rig.received()]
    assert [(one["generation"], one["count"], one["jobs_total"]) for one in told] == [(1, 4, 4), (2, 3, 3)]


def test_jobs_of_a_first_snapshot_count_but_open_nothing(db: Database) -> None:
    rig = Rig(db, SICK)
    for number in range(4):
        rig.has(f"old{number}", FAILED, queue="p1")
    rig.passes(minutes(5))
    assert rig.titles() == []
    fail(rig, "new")
    rig.passes(minutes(5))
    assert rig.received()[0].event["data"]["count"] == 5


def test_a_failure_of_before_the_close_that_is_seen_late_opens_no_other(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(20))
    for number in range(3):
        rig.has(f"late{number}", FAILED, queue="p1", ended_at=NOW + minutes(4), created_at=NOW + minutes(2))
    rig.passes(minutes(20))
    assert len(rig.received()) == 2
    assert stored(db) == [("sick", 1, True)]


def test_failures_in_a_row_open_and_the_first_success_closes(db: Database) -> None:
    rig = a_rig(db, ROW)
    fail(rig, "j1", "j2")
    rig.has("good", SUCCESS, queue="p1")
    rig.clock.advance(minutes(1))
    fail(rig, "j3", "j4")
    rig.passes(minutes(60))
    assert rig.titles() == []
    fail(rig, "j5")
    rig.passes(minutes(60))
    assert rig.titles() == ["row (queue vod): 3 Failed in a row"]
    rig.has("better", SUCCESS, queue="p1")
    rig.passes(minutes(5))
    assert rig.titles()[1:] == ["row (queue vod) is over after 1 h 1 min"]


def test_a_share_of_the_last_jobs_opens_when_so_many_have_ended(db: Database) -> None:
    rig = a_rig(db, SHARE)
    fail(rig, "j1", "j2", every=0)
    rig.passes(minutes(5))
    assert rig.titles() == []
    for number in range(3):
        rig.has(f"good{number}", SUCCESS, queue="p1")
    rig.passes(minutes(5))
    assert rig.titles() == ["share (queue vod): > 20 % of the last 5 jobs are Failed"]
    for number in range(8):
        rig.has(f"better{number}", SUCCESS, queue="p1")
        rig.passes(minutes(5))
    assert rig.titles()[1:] == ["share (queue vod) is over after 10 min"]


# --- escalation, acknowledging, unless ------------------------------------------------------------------------------


@on_both
def test_what_nobody_acknowledges_is_escalated_once_and_its_end_is_told_to_both(db: Database) -> None:
    rig = a_rig(db, SICK + ESCALATE)
    fail(rig, "j1", "j2", "j3")
    for number in range(10):
        rig.has(f"k{number}", FAILED, queue="p1")
        rig.passes(minutes(5))
    rig.passes(minutes(20))
    assert rig.titles("cms") == [
        "Nobody has acknowledged for 30 min: sick (queue vod): 10 Failed",
        "sick (queue vod) is over after 56 min",
    ]
    assert rig.titles("ops")[-1] == "sick (queue vod) is over after 56 min"


@pytest.mark.parametrize("reaction", ["acknowledged", "closed"])
def test_what_is_acknowledged_or_over_is_not_escalated(db: Database, reaction: str) -> None:
    rig = a_rig(db, SICK + ESCALATE)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    if reaction == "acknowledged":
        with db.write() as tx:
            incidents.change(tx, rows(db, table)[0]["n"], acknowledged_at=rig.clock(), acknowledged_by="ann")
        for number in range(10):
            rig.has(f"k{number}", FAILED, queue="p1")
            rig.passes(minutes(5))
    rig.passes(hours(1))
    assert rig.titles("cms") == []


@on_both
def test_an_alarm_of_a_level_rule_is_escalated_and_its_end_is_told_to_both(db: Database) -> None:
    stuck = f'[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nrecover = true\nnotify = "ops"\n{ESCALATE}'
    rig = a_rig(db, stuck)
    rig.has("j1", RUNNING)
    rig.passes(minutes(90))
    assert rig.titles("cms") == ["Nobody has acknowledged for 30 min: stuck (j1.mp4): Running for more than 30 min"]
    rig.has("j1", SUCCESS)
    rig.passes(minutes(5))
    assert rig.titles("cms")[1:] == rig.titles("ops")[1:] == ["Transcode Success after 1 h 30 min Running: j1.mp4"]
    assert stored(db) == [("stuck", 1, True)]


def test_a_level_rule_waits_while_another_has_an_open_incident_for_the_same_key(db: Database) -> None:
    stuck = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "10m"\nunless = "sick"\nnotify = "cms"\n'
    rig = a_rig(db, SICK, stuck)
    rig.has("j", RUNNING, queue="p1")
    rig.has("other", RUNNING, queue="p2")
    rig.passes(minutes(5))
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    assert rig.titles("cms") == ["Transcode Running for 13 min: other.mp4"]
    rig.passes(minutes(5))
    assert rig.titles("cms")[1:] == ["Transcode Running for 18 min: j.mp4"]


def test_a_backlog_waits_while_another_has_an_open_incident_for_the_same_key(db: Database) -> None:
    rig = a_rig(db, BACKLOG + 'unless = "sick"\n', SICK)
    for number in range(3):
        rig.has(f"w{number}", SUBMITTED, queue="p1")
    rig.passes(minutes(5))
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    assert rig.titles() == ["sick (queue vod): 3 Failed within 10 min"]
    rig.passes(minutes(5))
    assert rig.titles()[1:] == [
        "sick (queue vod) is over after 10 min",
        "backlog (queue vod): 3 jobs are Submitted for more than 10 min",
    ]


# --- absences -------------------------------------------------------------------------------------------------------


@on_both
def test_that_nothing_has_succeeded_for_too_long_is_told_once_and_once_when_it_does(db: Database) -> None:
    rig = a_rig(db, SILENT)
    rig.has("j1", SUCCESS)
    rig.passes(hours(5))
    assert rig.titles() == ["silent: no Success for 2 h"]
    rig.has("j2", SUCCESS)
    rig.passes(hours(1))
    assert rig.titles()[1:] == ["silent is over after 3 h"]
    rig.passes(hours(3))
    assert rig.received()[-1].event["data"]["generation"] == 2


@pytest.mark.parametrize("came", [True, False])
def test_an_absence_says_when_the_last_one_came_if_one_did(db: Database, came: bool) -> None:
    rig = a_rig(db, SILENT)
    if came:
        rig.has("j1", SUCCESS)
    rig.passes(hours(3))
    assert rig.received()[0].text.splitlines()[0 if not came else 1] == (
        "The last one was at 2026-11-21T09:01:00Z." if came else "None was seen since the start."
    )


def test_only_the_time_in_the_window_counts_for_an_absence(db: Database) -> None:
    rig = a_rig(db, SILENT + 'between = "09:00-10:30"\n')  # it is 09:01
    rig.has("j1", SUCCESS)
    rig.passes(hours(22), every=minutes(30))
    assert rig.titles() == []
    rig.passes(hours(3))
    assert [message.event["time"] for message in rig.received()] == ["2026-11-22T09:31:00Z"]


def test_an_absence_waits_until_all_that_could_show_it_has_been_seen(db: Database) -> None:
    rig = a_rig(db, SILENT)
    rig.ci.refuses = {"Snapshot": DOWN}  # type: ignore[dict-item]
    rig.passes(hours(4))
    assert rig.titles() == []
    rig.ci.refuses = {}
    rig.has(
        "j1", SUCCESS, tag="Snapshot", created_at=NOW + hours(1), started_at=NOW + hours(1), ended_at=NOW + hours(1.5)
    )
    rig.passes(minutes(5))
    (message,) = rig.received()
    assert message.event["time"] == "2026-11-21T12:30:00Z"


def test_an_absence_that_was_over_before_it_was_seen_is_told_as_over(db: Database) -> None:
    rig = a_rig(db, SILENT)
    rig.clock.advance(hours(3))
    rig.has("j1", SUCCESS)
    rig.clock.advance(minutes(30))
    rig.passes(minutes(5))
    (message,) = rig.received()
    assert (message.event["time"], message.event["data"]["closed_at"]) == (
        "2026-11-21T11:00:00Z",
        "2026-11-21T12:01:00Z",
    )


# --- backlogs -------------------------------------------------------------------------------------------------------


def test_a_backlog_that_an_outage_hid_says_since_when_it_is_there(db: Database) -> None:
    rig = a_rig(db, BACKLOG)
    rig.ci.refuses = {"Transcode": DOWN, "Snapshot": DOWN}  # type: ignore[dict-item]
    for number in range(4):
        rig.has(f"w{number}", SUBMITTED, queue="p1")
        rig.passes(minutes(10))
    rig.passes(hours(3))
    rig.ci.refuses = {}
    rig.passes(minutes(5))
    (message,) = rig.received()
    assert message.event["data"]["opened_at"] == "2026-11-21T09:31:00Z"  # the third waited for ten minutes then
    assert message.title == "backlog (queue vod): 4 jobs are Submitted for more than 10 min"


@on_both
def test_many_waiting_jobs_are_told_once_until_they_are_fewer(db: Database) -> None:
    rig = a_rig(db, BACKLOG)
    for number in range(4):
        rig.has(f"w{number}", SUBMITTED, queue="p1")
    rig.passes(minutes(30))
    assert rig.titles() == ["backlog (queue vod): 4 jobs are Submitted for more than 10 min"]
    rig.has("w0", RUNNING)
    rig.passes(minutes(5))
    assert len(rig.titles()) == 1
    rig.has("w1", RUNNING)
    rig.passes(minutes(5))
    rig.has("w5", SUBMITTED, queue="p1")
    rig.passes(minutes(15))
    assert rig.titles()[1:] == []  # it was small for a moment only
    rig.has("w2", RUNNING)
    rig.passes(minutes(20))
    assert rig.titles()[1:] == ["backlog (queue vod) is over after 1 h"]
    for id_ in ("w6", "w7"):
        rig.has(id_, SUBMITTED, queue="p1")
    rig.passes(minutes(15))
    assert rig.titles()[2:] == ["backlog (queue vod): 4 jobs are Submitted for more than 10 min"]
    for id_ in ("w3", "w5", "w6", "w7"):
        rig.has(id_, SUCCESS)
    rig.passes(minutes(20))
    assert stored(db) == [("backlog", 1, True), ("backlog", 2, True)]
    assert len(rows(db, table)) == 2


# --- fan-in ---------------------------------------------------------------------------------------------------------


@on_both
def test_an_asset_whose_parts_are_all_done_is_told_once(db: Database) -> None:
    rig = a_rig(db, ASSET)
    for number in range(2):
        part(rig, f"p{number}", SUBMITTED)
    rig.passes(minutes(5))
    part(rig, "p0", SUCCESS)
    part(rig, "p1", FAILED)
    rig.passes(minutes(5))
    assert rig.titles() == []
    part(rig, "p2", SUCCESS)
    rig.passes(minutes(20))
    assert rig.titles() == ["asset (user_data.asset a1) is complete: 1 Failed, 2 Success"]
    event = rig.received()[0].event
    assert event["type"] == "ci.group.completed"
    assert event["data"]["states"] == {"Failed": 1, "Success": 2}
    assert sorted(job["id"] for job in event["data"]["jobs"]) == ["p0", "p1", "p2"]
    assert (event["data"]["expected"], event["data"]["by"]) == (3, {"user_data.asset": "a1"})


def test_a_part_that_comes_after_its_asset_was_complete_is_a_second_generation(db: Database) -> None:
    rig = a_rig(db, ASSET)
    for number in range(3):
        part(rig, f"p{number}", SUCCESS)
    rig.passes(minutes(5))
    part(rig, "late", RUNNING)
    rig.passes(minutes(5))
    part(rig, "late", SUCCESS)
    rig.passes(minutes(5))
    assert rig.titles() == [
        "asset (user_data.asset a1) is complete: 3 Success",
        "asset (user_data.asset a1) is complete, again (number 2): 1 Success",
    ]


def test_a_failure_ends_an_asset_that_must_be_successful_and_what_ends_later_is_not_told(db: Database) -> None:
    rig = a_rig(db, ASSET.replace('"done"', '"Success"'))
    part(rig, "p0", RUNNING)
    part(rig, "p1", FAILED)
    rig.passes(minutes(5))
    assert rig.titles() == ["asset (user_data.asset a1) has failed: 1 Failed, 1 Running"]
    assert rig.received()[0].event["type"] == "ci.group.failed"
    part(rig, "p0", SUCCESS)
    rig.passes(minutes(20))
    assert len(rig.titles()) == 1


@pytest.mark.parametrize("parts", ["many", "-1", "1.5", "", "9" * 50])
def test_a_number_that_cannot_be_read_is_said_and_nothing_is_complete(db: Database, parts: str) -> None:
    rig = a_rig(db, ASSET)
    part(rig, "p0", SUCCESS, parts=parts)
    rig.passes(minutes(30))
    assert rig.titles() == []
    (fault,) = rows(db, rule_faults)
    assert fault["rule"] == "asset"
    assert fault["why"].startswith("expect: ")


def test_a_number_that_shrinks_is_not_believed(db: Database) -> None:
    rig = a_rig(db, ASSET)
    part(rig, "p0", SUCCESS, parts=3)
    rig.passes(minutes(5))
    part(rig, "p1", SUCCESS, parts=2)
    rig.passes(minutes(30))
    assert rig.titles() == []
    part(rig, "p2", SUCCESS, parts=1)
    rig.passes(minutes(5))
    assert len(rig.titles()) == 1


def test_without_a_number_an_asset_is_complete_when_nothing_more_comes(db: Database) -> None:
    rig = a_rig(db, SETTLE)
    part(rig, "p0", SUCCESS)
    rig.passes(minutes(15))
    part(rig, "p1", CANCEL)
    rig.passes(minutes(15))
    assert rig.titles() == []
    rig.passes(minutes(10))
    assert rig.titles() == ["asset (user_data.asset a1) is complete: 1 Cancel, 1 Success"]


def test_what_settles_waits_until_all_that_could_show_more_has_been_seen(db: Database) -> None:
    rig = a_rig(db, SETTLE)
    part(rig, "p0", SUCCESS)
    rig.passes(minutes(5))
    rig.ci.refuses = {"Snapshot": DOWN}  # type: ignore[dict-item]
    rig.passes(hours(1))
    assert rig.titles() == []
    rig.ci.refuses = {}
    rig.passes(minutes(5))
    assert len(rig.titles()) == 1


def test_a_part_that_ci_no_longer_knows_counts_as_done(db: Database) -> None:
    rig = a_rig(db, ASSET)
    part(rig, "p0", SUCCESS, parts=2)
    part(rig, "p1", RUNNING, parts=2)
    rig.passes(minutes(5))
    rig.ci.forgets("p1")
    rig.passes(hours(1))
    assert rig.titles() == ["asset (user_data.asset a1) is complete: 1 gone, 1 Success"]


def test_a_part_whose_key_changes_counts_for_the_new_one_only(db: Database) -> None:
    rig = a_rig(db, SETTLE)
    part(rig, "p0", SUBMITTED, asset="a1")
    rig.passes(minutes(5))
    part(rig, "p0", SUCCESS, asset="a2")
    rig.passes(minutes(30))
    assert rig.titles() == ["asset (user_data.asset a2) is complete: 1 Success"]
    assert len(rows(db, table)) == 1


def test_jobs_of_a_first_snapshot_alone_are_told_to_nobody(db: Database) -> None:
    rig = Rig(db, ASSET)
    for number in range(3):
        part(rig, f"p{number}", SUCCESS)
    rig.passes(minutes(20))
    assert rig.titles() == []
    assert [row["closed_why"] for row in rows(db, table)] == ["a first snapshot found all of its jobs"]


def test_an_asset_that_hangs_is_escalated_and_told_to_both_when_it_is_complete(db: Database) -> None:
    rig = a_rig(db, ASSET + ESCALATE.replace('"cms"', '"ops"'))
    part(rig, "p0", RUNNING, parts=1)
    rig.passes(minutes(40))
    assert rig.titles() == [
        "Nobody has acknowledged for 30 min: asset (user_data.asset a1): 1 of 1 jobs are there, 0 of them done"
    ]
    part(rig, "p0", SUCCESS, parts=1)
    rig.passes(minutes(5))
    assert sorted(str(line)[6:] for line in rig.received()[1:]) == [
        "cms: asset (user_data.asset a1) is complete: 1 Success",
        "ops: asset (user_data.asset a1) is complete: 1 Success",
    ]


# --- rules that change, restarts, many keys -------------------------------------------------------------------------


@on_both
def test_an_incident_for_all_jobs_outlives_restarts_too(db: Database) -> None:
    rig = a_rig(db, SICK.replace('by = ["queue"]\n', ""), SILENT)
    for number in range(3):
        fail(rig, f"j{number}")
        rig.start()
        rig.poll()
    rig.start()
    rig.passes(hours(1))
    rig.start()
    rig.passes(hours(1))
    assert rig.titles() == [
        "sick: 3 Failed within 10 min",
        "sick is over after 10 min",
        "silent: no Success for 2 h",
    ]


@on_both
def test_an_incident_outlives_restarts_and_an_edited_rule(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2")
    rig.poll()
    rig.start()
    fail(rig, "j3")
    rig.poll()
    rig.start(SICK.replace(">= 3", ">= 2"))
    rig.passes(minutes(5))
    assert rig.titles() == ["sick (queue vod): 3 Failed within 10 min"]
    rig.start()
    rig.passes(minutes(20))
    assert len(rig.titles()) == 2


@pytest.mark.parametrize(
    ("edited", "why"),
    [
        (SICK.replace('"sick"', '"ill"'), "its rule is no longer in rules.toml"),
        (SICK.replace('["queue"]', '["tag"]'), "its rule has another `by` now"),
        (BACKLOG.replace('"backlog"', '"sick"'), "its rule is of another kind now"),
    ],
)
def test_an_incident_whose_rule_is_renamed_or_becomes_another_closes_without_a_word(
    db: Database, edited: str, why: str
) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    rig.start(edited)
    rig.passes(hours(1))
    assert len(rig.titles()) == 1
    assert [row["closed_why"] for row in rows(db, table)] == [why]


def test_an_incident_of_jobs_that_no_watch_lists_any_more_closes_without_a_word(db: Database) -> None:
    rig = a_rig(db, SICK.replace('by = ["queue"]', 'match.tag = "Snapshot"'))
    fail(rig, "j1", "j2", "j3", tag="Snapshot")
    rig.passes(minutes(5))
    rig.use(given=GIVEN.replace('"Transcode", "Snapshot"', '"Transcode"'))
    rig.passes(minutes(30))
    assert rig.titles() == ["sick: 3 Failed within 10 min"]
    assert [row["closed_why"] for row in rows(db, table)] == ["no watch lists such jobs any more"]


def test_who_was_not_sent_an_incident_because_of_a_mute_does_not_hear_of_its_end(db: Database) -> None:
    mute = '[[mute]]\nname = "quiet"\nbetween = "09:00-09:15"\nto = "Failed"\nmode = "drop"\n'
    rig = a_rig(db, SICK, mute)
    fail(rig, "j1", "j2", "j3")
    rig.passes(hours(1))
    assert rig.titles() == []


def test_a_silence_holds_what_is_told_of_an_incident(db: Database) -> None:
    rig = a_rig(db, SICK)
    rig.silence(lasts=hours(1), rule="sick")
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(30))
    assert rig.titles() == []
    rig.passes(hours(1))
    assert len(rig.titles()) == 1


def test_the_oldest_keys_without_an_open_incident_make_room(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    others = [_a_key(f"q{number}", rig) for number in range(incidents.MOST_KEYS - 1)]
    with db.write() as tx:
        incidents.begin(tx, others)
    fail(rig, "n1", queue="new1", every=0)
    fail(rig, "n2", queue="new2", every=0)
    rig.poll()
    found = rows(db, table)
    assert len(found) == incidents.MOST_KEYS
    assert found[0]["opened_at"] is not None
    assert [row["by"] for row in found[1:2] + found[-2:]] == [
        '[["queue","q10"]]', '[["queue","new1"]]', '[["queue","new2"]]',
    ]  # fmt: skip
    assert [row["why"] for row in rows(db, rule_faults)] == [
        "it has more than 10,000 keys: the oldest without an open incident are forgotten"
    ]


def _a_key(queue: str, rig: Rig) -> NewKey:
    key = IncidentKey("sick", f"key_{queue}")
    # Judged much later than this test looks.
    return NewKey(
        key=key,
        id=f"inc_{queue}",
        kind="threshold",
        by=[("queue", queue)],
        generation=1,
        since=rig.clock(),
        due_at=rig.clock() + hours(9),
    )


@only_postgresql
def test_two_workers_whose_buckets_share_a_key_count_all_of_its_jobs(db: Database) -> None:
    other = (
        GIVEN[GIVEN.index("[[watch]]") : GIVEN.index("[notifier.ops]")].replace("vod", "other").replace("clips", "more")
    )
    rig = Rig(db, SICK + other)
    second = FakeCi(rig.clock)
    pollers = [rig.poller, rig.new_poller(source=second)]
    for place, poller in enumerate(pollers):
        poller.poll_once(rig.book.watches[place], rig.book)
    for number in range(8):
        rig.clock.advance(seconds(1))
        rig.has(f"a{number}", FAILED, queue="p1")
        second.has(replace(rig.ci.jobs[f"a{number}"], id=f"b{number}", bucket="more-1250000000"))
        _at_once([partial(poller.poll_once, rig.book.watches[at], rig.book) for at, poller in enumerate(pollers)])
    rig.deliver()
    assert len(rig.titles()) == 1
    assert [row["counted"] for row in rows(db, table)] == [16]


@only_postgresql
def test_two_workers_with_many_keys_in_common_never_wait_for_each_other_in_a_circle(db: Database) -> None:
    watch = GIVEN[GIVEN.index("[[watch]]") : GIVEN.index("[notifier.ops]")]
    rig = Rig(db, SICK + BACKLOG + ASSET + watch.replace("vod", "other").replace("clips", "more"))
    second, random = FakeCi(rig.clock), Random(7)
    pollers = [rig.poller, rig.new_poller(source=second)]
    for place, poller in enumerate(pollers):
        poller.poll_once(rig.book.watches[place], rig.book)
    for round_ in range(12):
        rig.clock.advance(seconds(30))
        for number in range(30):
            id_, asset = f"{round_}x{number}", random.randrange(200)
            queue, data = f"p{random.randrange(40)}", f"asset=z{asset};parts={random.randrange(1, 6)}"
            rig.has(f"a{id_}", random.choice([FAILED, SUCCESS]), queue=queue, user_data=data)
            second.has(replace(rig.ci.jobs[f"a{id_}"], id=f"b{id_}", bucket="more-1250000000"))
        _at_once([partial(poller.poll_once, rig.book.watches[at], rig.book) for at, poller in enumerate(pollers)])


def _at_once(calls: Sequence[Any]) -> None:
    failed: list[BaseException] = []

    def run(call: Any) -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# --- what is odd ----------------------------------------------------------------------------------------------------


def test_a_job_that_ends_in_the_future_by_ci_keeps_nothing_open(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3", ended_at=NOW + hours(9_000))
    rig.passes(minutes(30))
    assert len(rig.titles()) == 2


def test_two_long_keys_that_begin_alike_are_two(db: Database) -> None:
    rig = a_rig(db, ASSET.replace("user_data.asset", "input"))
    for number in range(2):
        data = {"input": f"{'资' * 2_000}{number}.mp4", "user_data": "parts=1"}
        rig.has(f"p{number}", SUCCESS, **data)
    rig.passes(minutes(5))
    assert [message.event["data"]["jobs_total"] for message in rig.received()] == [1, 1]
    assert all(len(row["by"]) < 1_000 for row in rows(db, table))


def test_a_group_that_only_a_first_snapshot_found_is_not_escalated(db: Database) -> None:
    rig = Rig(db, ASSET + ESCALATE.replace('"cms"', '"ops"'))
    part(rig, "p0", RUNNING)
    rig.passes(hours(2))
    assert rig.titles() == []


def test_jobs_that_no_watch_has_any_more_leave_a_backlog(db: Database) -> None:
    rig = a_rig(db, BACKLOG)
    for number in range(3):
        rig.has(f"w{number}", SUBMITTED, queue="p1", tag="Snapshot")
    rig.passes(minutes(15))
    rig.use(given=GIVEN.replace('"Transcode", "Snapshot"', '"Transcode"'))
    rig.passes(minutes(20))
    assert rig.titles()[1:] == ["backlog (queue vod) is over after 20 min"]


def test_the_clock_may_be_set_back_while_an_incident_is_open(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    rig.leaps(-hours(1))
    rig.passes(hours(1))
    fail(rig, "j4", "j5", "j6")
    rig.passes(minutes(30))
    assert [title.partition(" is over")[0] for title in rig.titles()] == [
        "sick (queue vod): 3 Failed within 10 min",
        "sick (queue vod)",
    ]


# --- what comes late, or to an edited rule --------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize("first", [True, False])
def test_parts_that_come_after_their_asset_has_failed_complete_nothing(db: Database, first: bool) -> None:
    rig = Rig(db, ASSET.replace('"done"', '"Success"'))
    if not first:
        rig.first_poll()
    part(rig, "p0", FAILED)
    rig.passes(minutes(5))
    for number in (1, 2):
        part(rig, f"p{number}", SUCCESS)
        rig.passes(minutes(5))
    assert rig.titles() == ([] if first else ["asset (user_data.asset a1) has failed: 1 Failed"])
    part(rig, "again", SUCCESS)
    rig.passes(minutes(5))
    assert rig.titles()[-1] == "asset (user_data.asset a1) is complete, again (number 2): 1 Success"


def test_a_storm_that_begins_when_the_last_one_is_over_is_another(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.clock.advance(minutes(9))
    fail(rig, "k1", "k2", "k3", every=0)
    rig.passes(minutes(5))
    assert [message.event["data"]["generation"] for message in rig.received()] == [1, 2]


@pytest.mark.parametrize(
    ("rules", "edit", "told"),
    [
        (BACKLOG, ("> 2", "> 1"), "backlog (queue vod): 2 jobs are Submitted for more than 10 min"),
        (SILENT, ('for = "2h"', 'for = "1h"'), "silent: no Success for 1 h"),
    ],
)
def test_an_edited_rule_is_asked_at_once(db: Database, rules: str, edit: tuple[str, str], told: str) -> None:
    rig = a_rig(db, rules)
    for number in range(2):
        rig.has(f"w{number}", SUBMITTED, queue="p1")
    rig.passes(minutes(75))
    assert rig.titles() == []
    rig.use(rules.replace(*edit))
    rig.passes(minutes(5))
    assert rig.titles() == [told]


def test_a_success_that_is_seen_late_ends_the_row_it_was_in(db: Database) -> None:
    rig = a_rig(db, ROW)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    rig.has("good", SUCCESS, queue="p1", tag="Snapshot")
    rig.ci.refuses = {"Snapshot": DOWN}  # type: ignore[dict-item]
    rig.clock.advance(minutes(1))
    fail(rig, "j4")
    rig.passes(minutes(5))
    rig.ci.refuses = {}
    rig.passes(minutes(5))
    assert rig.titles()[1:] == ["row (queue vod) is over after 6 min"]


def test_a_success_of_before_an_absence_that_is_seen_late_ends_it(db: Database) -> None:
    rig = a_rig(db, SILENT)
    rig.passes(hours(2))
    assert rig.titles() == ["silent: no Success for 2 h"]
    then = {name: NOW + hours(1.9) for name in ("created_at", "started_at", "ended_at")}
    rig.has("late", SUCCESS, **then)
    rig.passes(minutes(15))
    assert len(rig.titles()) == 2


def test_a_group_that_a_first_snapshot_found_is_escalated_when_more_of_it_hangs(db: Database) -> None:
    rig = Rig(db, ASSET + ESCALATE.replace('"cms"', '"ops"'))
    part(rig, "p0", RUNNING)
    rig.first_poll()
    part(rig, "p1", RUNNING)
    rig.passes(hours(1))
    assert len(rig.titles("ops")) == 1
