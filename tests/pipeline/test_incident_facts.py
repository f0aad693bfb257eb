"""What people see of incidents: lists, one with its jobs and messages, how far a key is, and acknowledging."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.model import FAILED, RUNNING, SUCCESS
from bridge.pipeline.incident_facts import find_incidents, incident_details, incidents_of_job, rules_in_force
from bridge.pipeline.operations import Conflict, NotFound
from bridge.record.database import Database
from bridge.record.queries import incidents
from bridge.record.queries.lists import Cursor, Filter
from bridge.record.schema import actions
from tests.conftest import on_both
from tests.pipeline.test_incidents import (
    ASSET,
    BACKLOG,
    ESCALATE,
    ROW,
    SETTLE,
    SHARE,
    SICK,
    SILENT,
    a_rig,
    fail,
    part,
)
from tests.support.nouns import BUCKET, by_hand, hours, minutes
from tests.support.records import rows
from tests.support.rig import STUCK, Rig

pytestmark = on_both


def listed(rig: Rig, cursor: Cursor | None = None, limit: int = 50, **which: str) -> list[dict[str, Any]]:
    with rig.db.read() as tx:
        rules = rules_in_force(tx)
        return find_incidents(tx, Filter(**which), rules, now=rig.clock(), cursor=cursor, limit=limit).items


def shown(rig: Rig, id_: str, **how: Any) -> dict[str, Any]:
    with rig.db.read() as tx:
        found = incident_details(tx, id_, rules_in_force(tx), now=rig.clock(), **how)
    assert found is not None
    return found[0]


def standing(rig: Rig) -> list[str]:
    """Return how far the keys are that are only watched."""
    return [one["what"] for one in listed(rig, state="watched")]


def acknowledge(rig: Rig, id_: str, who: str = "ann") -> None:
    by_hand(rig.db, now=rig.clock(), who=who).acknowledge(id_, rig.book)


# --- lists and one of them ------------------------------------------------------------------------------------------


def test_incidents_are_listed_by_state_and_rule_those_that_opened_last_first(db: Database) -> None:
    rig = a_rig(db, SICK, SILENT)
    fail(rig, "a1", "a2", "a3", queue="p1")
    rig.passes(minutes(5))
    fail(rig, "b1", "b2", "b3", queue="p2")
    fail(rig, "c1", queue="p3")
    rig.poll()
    rig.passes(minutes(5))
    assert [(one["rule"], one["key"], one["state"]) for one in listed(rig)] == [
        ("sick", "queue p2", "open"), ("sick", "queue vod", "closed")
    ]  # fmt: skip
    assert [one["key"] for one in listed(rig, state="open")] == ["queue p2"]
    assert [one["key"] for one in listed(rig, state="closed", rule="sick")] == ["queue vod"]
    assert listed(rig, rule="silent") == []
    assert {one["rule"] for one in listed(rig, state="watched")} == {"sick", "silent"}
    assert [one["key"] for one in listed(rig, state="watched", rule="silent")] == [""]


@pytest.mark.parametrize("which", [{}, {"state": "open"}, {"rule": "sick"}, {"state": "watched"}])
def test_pages_of_incidents_follow_each_other_without_a_gap(db: Database, which: dict[str, str]) -> None:
    rig = a_rig(db, SICK)
    for number in range(7):
        failing = 1 if which.get("state") == "watched" else 3
        fail(rig, *(f"j{number}{place}" for place in range(failing)), queue=f"q{number}", every=0)
    rig.poll()
    with db.read() as tx:
        whole, end = incidents.find(tx, Filter(**which), limit=50)
        assert end is None
        found, cursor = incidents.find(tx, Filter(**which), limit=3)
        while cursor:
            more, cursor = incidents.find(tx, Filter(**which), cursor=cursor, limit=3)
            found += more
    assert len(whole) == 7
    assert found == whole


def test_an_incident_is_shown_with_its_jobs_and_all_of_its_messages(db: Database) -> None:
    rig = a_rig(db, SICK.replace('notify = "ops"', 'notify = ["ops", "cms"]'))
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    fail(rig, "k1", "k2", "k3", "k4", every=0)
    rig.passes(minutes(20))
    (one,) = listed(rig)
    found = shown(rig, one["id"], limit=3)
    assert (found["what"], found["count"], found["states"]) == ("7 Failed", 7, {"Failed": 7})
    newest, *others = found["jobs"]
    assert (newest["job"], newest["state"], newest["input"]) == ("k4", "Failed", "in/k4.mp4")
    assert len(others) == 2
    told = {(one["kind"], one["notifier"]) for one in found["deliveries"]}
    assert told == {("incident", "ops"), ("incident", "cms")}
    assert {one["id"] for one in found["deliveries"]} == {one["id"] for one in rig.deliveries()}
    assert found["notifiers"] == ["ops", "cms"]


def test_the_jobs_of_an_incident_are_paged(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, *(f"j{number}" for number in range(5)))
    rig.poll()
    (one,) = listed(rig)
    with db.read() as tx:
        first, cursor = incident_details(tx, one["id"], None, now=rig.clock(), limit=3) or ({}, None)
        second, end = incident_details(tx, one["id"], None, now=rig.clock(), cursor=cursor, limit=3) or ({}, None)
    assert [job["job"] for job in first["jobs"] + second["jobs"]] == ["j4", "j3", "j2", "j1", "j0"]
    assert end is None
    assert first["what"] is None  # no rules are known


def test_a_job_names_what_it_counts_for(db: Database) -> None:
    rig = a_rig(db, SICK, ROW)
    fail(rig, "j1", "j2", "j3")
    rig.poll()
    with db.read() as tx:
        found = incidents_of_job(tx, BUCKET, "j1", rig.book)
        assert incidents_of_job(tx, BUCKET, "j9", None) == []
    assert {(one["rule"], one["key"], one["is"], one["state"], one["counts"]) for one in found} == {
        ("sick", "queue vod", "open", "Failed", True), ("row", "queue vod", "open", "Failed", True)
    }  # fmt: skip


def test_what_no_rule_is_about_any_more_says_why_it_closed(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.poll()
    rig.start("")
    rig.passes(minutes(5))
    (one,) = listed(rig)
    assert (one["state"], one["what"], one["closed_why"]) == ("closed", None, "its rule is no longer in rules.toml")


# --- how far a key is -----------------------------------------------------------------------------------------------


def test_a_threshold_says_how_many_of_how_many_there_are_in_its_time(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", every=6)
    rig.poll()
    assert standing(rig) == ["1 of 3 in the last 10 min"]


def test_a_row_and_a_share_say_how_far_they_are(db: Database) -> None:
    rig = a_rig(db, ROW, SHARE)
    fail(rig, "j1")
    rig.has("j2", SUCCESS, queue="p1")
    fail(rig, "j3")
    rig.poll()
    assert set(standing(rig)) == {
        "1 of 3 in a row", "2 of 3 jobs are Failed in the last 10 min; the limit is > 20 % of 5"
    }  # fmt: skip


def test_an_absence_says_when_it_opens(db: Database) -> None:
    rig = a_rig(db, SILENT)
    assert standing(rig) == ["watched since 2026-11-21T09:00:00Z; opens at 2026-11-21T11:00:00Z, unless one comes"]
    rig.sees("j1", state=SUCCESS)
    rig.passes(minutes(5))
    assert standing(rig) == [
        "the last Success was at 2026-11-21T09:01:00Z; opens at 2026-11-21T11:01:00Z, unless one comes"
    ]


def test_a_backlog_and_a_group_say_how_many_there_are(db: Database) -> None:
    rig = a_rig(db, BACKLOG, ASSET)
    rig.has("j1", "Submitted", queue="p1")
    part(rig, "k1", SUCCESS)
    part(rig, "k2", RUNNING)
    rig.passes(minutes(15))
    assert set(standing(rig)) == {
        "1 of 3 jobs are Submitted for more than 10 min", "2 of 3 jobs are there, 1 of them done"
    }  # fmt: skip


# --- acknowledging --------------------------------------------------------------------------------------------------


def test_an_incident_that_is_acknowledged_does_not_escalate_and_says_who_did_it(db: Database) -> None:
    rig = a_rig(db, SICK + ESCALATE)
    fail(rig, "j1", "j2", "j3")
    rig.poll()
    (one,) = listed(rig)
    acknowledge(rig, one["id"])
    with pytest.raises(Conflict, match=f"incident {one['id']} was acknowledged by ann at 2026-11-21T09:04:00Z"):
        acknowledge(rig, one["id"], "ben")
    for number in range(10):
        rig.has(f"k{number}", FAILED, queue="p1")
        rig.passes(minutes(5))
    assert "cms" not in {message.notifier for message in rig.received()}
    found = shown(rig, one["id"])
    assert (found["state"], found["acknowledged_by"], found["escalated_at"]) == ("open", "ann", None)
    (action,) = rows(db, actions)
    assert (action["who"], action["what"], action["subject"]) == ("ann", "acknowledge_incident", one["id"])
    assert json.loads(action["after"]) == {"acknowledged_by": "ann"}


def test_a_group_is_acknowledged_before_it_is_complete_and_other_keys_are_not(db: Database) -> None:
    rig = a_rig(db, SICK, SETTLE + ESCALATE.replace('"cms"', '"ops"'))
    part(rig, "k1", RUNNING)
    fail(rig, "j1", queue="p1")
    rig.poll()
    ids = {one["rule"]: one["id"] for one in listed(rig, state="watched")}
    acknowledge(rig, ids["asset"])
    with pytest.raises(Conflict, match="has not opened yet; only a group can be acknowledged before"):
        acknowledge(rig, ids["sick"])
    rig.passes(hours(2))
    assert rig.received() == []


def test_what_is_closed_or_unknown_cannot_be_acknowledged(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(30))
    (one,) = listed(rig)
    with pytest.raises(Conflict, match=f"incident {one['id']} has been closed since 2026-11-21T09:13:00Z"):
        acknowledge(rig, one["id"])
    with pytest.raises(NotFound, match='there is no incident "inc_none"'):
        acknowledge(rig, "inc_none")
    assert rows(db, actions) == []


def test_an_alarm_that_escalates_is_acknowledged_too(db: Database) -> None:
    rig = a_rig(db, STUCK + ESCALATE)
    rig.has("j1", RUNNING)
    rig.passes(minutes(40))
    (one,) = listed(rig, state="open")
    assert (one["key"], one["what"]) == ("j1", "Running for more than 30 min")
    acknowledge(rig, one["id"])
    rig.passes(hours(2))
    assert {message.notifier for message in rig.received()} == {"ops"}
