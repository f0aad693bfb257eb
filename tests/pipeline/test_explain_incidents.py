"""Why did a rule over several jobs (not) count this job, and how far is it?"""

from __future__ import annotations

from typing import Any

import pytest

from bridge.admin.schemas.explanations import Explanation
from bridge.cli.explain import as_text
from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS
from bridge.record import incidents
from bridge.record.database import Database
from bridge.record.schema import incidents as table
from tests.conftest import on_both
from tests.pipeline.test_incidents import ASSET, BACKLOG, ESCALATE, ROW, SETTLE, SHARE, SICK, SILENT, fail, part
from tests.support.explained import Explained, level
from tests.support.nouns import hours, minutes
from tests.support.records import rows
from tests.support.rig import GIVEN, STUCK


def a_rig(db: Database, *rules: str) -> Explained:
    rig = Explained(db, "".join(rules), given=GIVEN)
    rig.first_poll()
    return rig


def explained(rig: Explained, id_: str = "j1", rule: str | None = None) -> dict[str, Any]:
    """Return what is said of a job's last transition by a rule over several jobs."""
    (found,) = [one for one in rig.last(id_)["incidents"] if rule in (None, one["rule"])]
    return found  # type: ignore[no-any-return]  # plain values


def verdict(rig: Explained, id_: str = "j1", rule: str | None = None) -> tuple[str, str, str | None]:
    found = explained(rig, id_, rule)
    return found["answer"], found["why"], found["standing"]


@on_both
def test_a_threshold_says_how_far_it_is_and_then_that_it_is_open(db: Database) -> None:
    rig = a_rig(db, SICK + ESCALATE)
    fail(rig, "j1", "j2")
    rig.poll_on()
    assert verdict(rig) == ("counts", "counts", "2 of 3 in the last 10 min: j1, j2")
    assert explained(rig)["by"] == {"queue": "p1"}
    assert rig.headline() == '"sick" (line 18): counts; 2 of 3 in the last 10 min: j1, j2'
    fail(rig, "j3")
    rig.poll()
    rig.deliver()
    standing = "open since 2026-11-21T09:03:30Z, told to ops at 2026-11-21T09:04:30Z; goes to cms at"
    assert explained(rig)["standing"] == f"{standing} 2026-11-21T09:34:30Z, unless it is acknowledged or closed"
    facts = rig.last()
    assert facts["headline"] == '"sick" notifies ops: sent'
    assert [(one["kind"], one["answer"]) for one in facts["deliveries"]] == [("incident", "sent")]
    assert explained(rig)["jobs"] == ["j1", "j2", "j3"]
    rig.passes(minutes(20))
    found = explained(rig)
    assert (found["state"], found["standing"].split(", ")[-1]) == ("closed", "closed at 2026-11-21T09:13:30Z")


def test_an_acknowledged_incident_says_by_whom(db: Database) -> None:
    rig = a_rig(db, SICK + ESCALATE)
    fail(rig, "j1", "j2", "j3")
    rig.poll_on()
    with db.write() as tx:
        incidents.change(tx, rows(db, table)[0]["n"], acknowledged_at=rig.clock(), acknowledged_by="ann")
    assert explained(rig)["standing"].endswith(f"acknowledged by ann at {rig.clock():%Y-%m-%dT%H:%M:%SZ}")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"state": RUNNING}, 'to: "Running" is not among Failed'),
        ({"state": FAILED, "queue": None}, "the job has no queue, which `by` needs"),
        ({"state": FAILED, "tag": "Snapshot"}, 'match.tag: "Snapshot" is not "Transcode"'),
    ],
)
def test_what_does_not_count_says_why(db: Database, facts: dict[str, Any], why: str) -> None:
    rig = a_rig(db, SICK + 'match.tag = "Transcode"\n')
    rig.has("j1", **facts)
    rig.poll_on()
    assert verdict(rig) == ("no", why, None)
    assert rig.headline() == f'no rule matched; nearest: "sick" (line 18): {why}'


def test_a_rule_that_names_the_state_before_says_that_it_was_another(db: Database) -> None:
    rig = a_rig(db, SICK + 'from = "Running"\n')
    fail(rig, "j1")
    rig.poll_on()
    assert verdict(rig) == ("no", 'from: "new" is not among Running', None)


def test_what_a_first_snapshot_finds_counts_but_opens_nothing(db: Database) -> None:
    rig = Explained(db, SICK, given=GIVEN)
    rig.has("j1", FAILED, queue="p1")
    rig.poll_on()
    answer, why, standing = verdict(rig)
    assert (answer, standing) == ("counts", "1 of 3 in the last 10 min: j1")
    assert why.startswith("counts, but opens nothing: ")


def test_what_came_of_nothing_says_so(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1")
    rig.passes(hours(1))
    why = "counts; it is no longer on record as such: too little came of it, or it was before this rule"
    assert verdict(rig) == ("counts", why, None)


def test_rows_and_shares_say_what_they_compare(db: Database) -> None:
    rig = a_rig(db, ROW, SHARE)
    fail(rig, "j1", "j2")
    rig.poll_on()
    assert verdict(rig, "j2", "row")[2] == "2 of 3 in a row: j1, j2"
    share = "2 of the last 2 jobs in the last 10 min, asks for > 20 % of 5: j1, j2"
    assert verdict(rig, "j2", "share")[2] == share
    rig.has("j3", SUCCESS, queue="p1")
    rig.poll_on()
    assert verdict(rig, "j3", "row")[:2] == ("compared", "does not count, and ends the row")


def test_an_absence_says_when_it_is_due(db: Database) -> None:
    rig = a_rig(db, SILENT)
    rig.has("j1", SUCCESS)
    rig.poll_on()
    assert verdict(rig) == ("counts", "counts", "last Success at 2026-11-21T09:01:00Z, due at 2026-11-21T11:01:00Z")


def test_a_backlog_says_since_when_a_job_is_one_of_it(db: Database) -> None:
    rig = a_rig(db, BACKLOG)
    rig.has("j1", SUBMITTED, queue="p1")
    rig.poll_on()
    why = "it was in Submitted for less than 10 min: counts from 2026-11-21T09:11:00Z on"
    assert verdict(rig) == ("waiting", why, None)
    rig.passes(minutes(15))
    assert verdict(rig) == ("counts", "counts: Submitted for more than 10 min", "1 so far, asks for > 2")
    rig.has("j1", RUNNING, queue="p1")
    rig.poll_on()
    (found,) = rig.all()[0]["incidents"]
    assert (found["answer"], found["why"]) == ("no", "left Submitted after 15 min 30 s, and counts no longer")


def test_a_rule_that_waits_for_another_says_so(db: Database) -> None:
    rig = a_rig(db, SICK, BACKLOG + 'unless = "sick"\n', STUCK.replace("30m", "12m") + 'unless = "sick"\n')
    for number in range(3):
        rig.has(f"s{number}", SUBMITTED, queue="p1")
    rig.has("r1", RUNNING, queue="p1")
    rig.passes(minutes(5))
    fail(rig, "j0", "j1", "j2")
    rig.passes(minutes(6))
    waits = 'waits: rule "sick" has an open incident (unless)'
    assert explained(rig, "j0", "sick")["state"] == "open"
    found = explained(rig, "s1", "backlog")
    assert (found["waits_for"], found["standing"]) == ("sick", f"3 so far, asks for > 2; {waits}")
    stuck = level(rig.last("r1"))
    assert (stuck["answer"], stuck["why"]) == ("waiting", waits)


@on_both
def test_a_fan_in_says_how_many_are_there_and_which_generation_it_is(db: Database) -> None:
    rig = a_rig(db, ASSET)
    part(rig, "j1", SUCCESS)
    part(rig, "j2", RUNNING)
    rig.poll_on()
    standing = "2 of 3 are there, 1 is not done; the number comes from `expect`"
    assert verdict(rig) == ("counts", "counts, and is done", standing)
    assert verdict(rig, "j2") == ("counts", "counts, and is not done", standing)
    part(rig, "j2", SUCCESS)
    part(rig, "j3", SUCCESS)
    rig.poll_on()
    assert explained(rig)["standing"].startswith("opened at ")
    assert [one["kind"] for one in rig.last("j3")["deliveries"]] == ["incident"]
    part(rig, "j4", SUBMITTED)
    rig.poll_on()
    again = "it came after generation 1 was complete: generation 2; 1 is there, 1 is not done"
    assert explained(rig, "j4")["standing"] == again


def test_a_fan_in_whose_number_is_none_says_what_is_wrong_and_when_it_settles(db: Database) -> None:
    rig = a_rig(db, ASSET, SETTLE.replace('"asset"', '"settled"'))
    part(rig, "j1", SUCCESS, parts="many")
    rig.poll_on()
    _, why, standing = verdict(rig, rule="asset")
    assert why.startswith("counts, and is done; expect: ")
    assert standing == "1 of ? are there, 0 are not done; `expect` has given no number"
    settled = verdict(rig, rule="settled")[2]
    assert settled == "1 is there, 0 are not done; complete at 2026-11-21T09:21:00Z, if no other comes"


def test_an_incident_whose_rule_was_renamed_says_that_it_is_gone(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.poll_on()
    rig.use(SICK.replace('"sick"', '"ill"'))
    rig.poll_on()
    found = explained(rig)
    assert (found["rule"], found["closed_why"]) == ("sick", "its rule is no longer in rules.toml")
    assert found["standing"].endswith("(its rule is no longer in rules.toml)")


def test_a_sample_job_says_for_which_key_it_would_count(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2")
    rig.poll_on()
    facts = rig.sample(tag="Transcode", queue="p1", to="Failed")
    (found,) = facts["incidents"]
    assert (found["answer"], found["standing"]) == ("counts", "2 of 3 in the last 10 min: j1, j2")
    (unknown,) = rig.sample(known=False, tag="Transcode", queue="p1", to="Failed")["incidents"]
    assert (unknown["answer"], unknown["by"], unknown["standing"]) == ("counts", {"queue": "p1"}, None)


def test_the_text_names_the_key_and_how_far_it_is(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2")
    rig.poll_on()
    line = as_text(rig.last()).splitlines()[-1].split()
    assert " ".join(line) == 'counts rule "sick" (line 18) counts; queue p1: 2 of 3 in the last 10 min: j1, j2'
    fail(rig, "j3")
    rig.poll_on()
    assert Explanation.model_validate(rig.last()).incidents[0].state == "open"
