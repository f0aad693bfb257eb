"""Incidents in the API: lists, one of them, acknowledging it; and rules over several jobs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.admin_world import READ, RULES, World, a_book, a_failed_job

KINDS = """
[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 3"
within = "10m"
recover = true
notify = "cms"
escalate = { after = "30m", notify = "ops/1" }

[[rule]]
name = "share"
to = "Failed"
share = "> 20% of 50"
within = "1h"
notify = "cms"

[[rule]]
name = "silent"
absent = "Success"
for = "2h"
between = "09:00-18:00"
notify = "cms"

[[rule]]
name = "backlog"
in = "Submitted"
for = "10m"
by = ["queue"]
count = "> 50"
unless = "sick"
notify = "cms"

[[rule]]
name = "asset"
all = "done"
by = ["user_data.asset_id"]
settle = "1m"
notify = "cms"
"""


@pytest.fixture
def many(either_world: World) -> World:
    """The rules in force have one of every kind."""
    either_world.book = a_book(RULES + KINDS)
    either_world.sync()
    either_world.accepts(either_world.book)
    return either_world


def get(world: World, path: str, status: int = 200) -> Any:
    answer = world.client(READ).get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def acknowledge(world: World, id_: str, status: int = 200, **body: Any) -> Any:
    answer = world.client().post(f"/api/v1/incidents/{id_}/acknowledge", **body)
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def test_incidents_are_listed_filtered_and_paged(many: World) -> None:
    ids = [many.incident("j1", rule="sick", key=f"k{number}") for number in range(3)]
    first = get(many, "incidents?state=open&rule=sick&limit=2")
    second = get(many, f"incidents?state=open&rule=sick&limit=2&cursor={first['cursor']}")
    assert [one["id"] for one in first["items"] + second["items"]] == ids[::-1]
    assert second["cursor"] is None
    assert get(many, "incidents?state=closed") == {"items": [], "cursor": None}
    assert "use open, closed, watched" in get(many, "incidents?state=dead", 400)["detail"]
    assert first["items"][0] == {
        "id": ids[2], "rule": "sick", "state": "open", "key": "queue vod", "by": {"queue": "p224"}, "generation": 1,
        "what": "1 Failed", "group": False, "count": 1, "expected": None, "since": "2026-11-21T12:00:00Z",
        "opened_at": "2026-11-21T12:00:00Z", "notified_at": "2026-11-21T12:00:00Z", "acknowledged_at": None,
        "acknowledged_by": None, "escalated_at": None, "closed_at": None, "closed_why": None, "last_at": None,
        "notifiers": [],
    }  # fmt: skip


def test_one_incident_has_its_jobs_and_a_job_its_incidents(many: World) -> None:
    many.sees(a_failed_job(1))
    id_ = many.incident("j1", "j2", rule="sick")
    found = get(many, f"incidents/{id_}?limit=1")
    assert (found["states"], found["deliveries"], [job["job"] for job in found["jobs"]]) == ({"Failed": 2}, [], ["j2"])
    older = get(many, f"incidents/{id_}?limit=1&cursor={found['cursor']}")
    assert [(job["job"], job["input"]) for job in older["jobs"]] == [("j1", "uploads/a.mp4")]
    assert older["cursor"] is None
    counts = next(one for one in get(many, "jobs/j1")["incidents"] if one["incident"] == id_)
    assert (counts["incident"], counts["rule"], counts["is"], counts["state"]) == (id_, "sick", "open", "Failed")
    assert "no incident" in get(many, "incidents/inc_none", 404)["detail"]


def test_an_incident_is_acknowledged_once_by_who_is_named(many: World) -> None:
    id_ = many.incident("j1", rule="sick")
    found = acknowledge(many, id_, json={"author": "ann"})
    assert (found["acknowledged_by"], found["acknowledged_at"]) == ("ann", "2026-11-21T12:00:00Z")
    refused = acknowledge(many, id_, 409, json={"author": "ben"})
    assert refused["detail"] == f"incident {id_} was acknowledged by ann at 2026-11-21T12:00:00Z"
    other = many.incident("j1", rule="sick", key="k2")
    assert acknowledge(many, other)["acknowledged_by"] == "api"
    acknowledge(many, "inc_none", 404)
    for wrong in ("", " ", "a\nb", "x" * 101):
        acknowledge(many, id_, 400, json={"author": wrong})
    assert many.client(READ).post(f"/api/v1/incidents/{id_}/acknowledge").status_code == 403


def test_rules_over_several_jobs_are_shown_as_they_are(many: World) -> None:
    rules = {rule["name"]: rule for rule in get(many, "rules")["items"]}
    known = {"by": [], "count": None, "share": None, "in_a_row": False, "within_seconds": None, "absent": None}
    known |= {"between": None, "all": None, "expect": False, "settle_seconds": None, "unless": None, "escalate": None}
    escalate = {"after_seconds": 1800.0, "notify": ["ops/1"]}
    for name, facts in (
        ("all", {"recover": False, "in": None}),
        (
            "sick",
            {"count": ">= 3", "within_seconds": 600.0, "by": ["queue"], "escalate": escalate, "recover": True},
        ),
        ("share", {"share": "> 20% of 50", "within_seconds": 3600.0}),
        ("silent", {"absent": ["Success"], "for_seconds": 7200.0, "between": "09:00-18:00"}),
        (
            "backlog",
            {"in": ["Submitted"], "for_seconds": 600.0, "count": "> 50", "by": ["queue"], "unless": "sick"},
        ),
        ("asset", {"all": "done", "settle_seconds": 60.0, "by": ["user_data.asset_id"]}),
    ):
        assert {key: rules[name][key] for key in known | facts} == known | facts, name
