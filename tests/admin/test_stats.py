"""GET /api/v1/stats and what GET /api/v1/rules says of matches."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bridge.model import Sent
from tests.support.admin_world import NOON, World, a_failed_job, job_number


def test_figures_of_a_day_are_told_by_the_hour(either_world: World) -> None:
    failed = replace(a_failed_job(2), started_at=NOON - timedelta(hours=1), ended_at=NOON)
    either_world.sees(job_number(1), failed, job_number(3, tag="Snapshot", queue=None))
    either_world.now += timedelta(minutes=10)
    either_world.attempt(Sent())
    found = either_world.client().get("/api/v1/stats").json
    assert (found["span"], found["step_seconds"], len(found["slots"])) == ("24h", 3600, 24)
    assert (found["since"], found["slots"][-1]) == ("2026-11-20T13:00:00.000Z", "2026-11-21T12:00:00.000Z")
    assert found["until"] == "2026-11-21T12:10:00.000Z"
    before = [0] * 23
    assert found["jobs"] == [
        {"queue": "", "queue_name": None, "tag": "Snapshot", "state": "Running", "counts": [*before, 1]},
        {"queue": "p224", "queue_name": "vod", "tag": "Transcode", "state": "Running", "counts": [*before, 1]},
    ]
    assert [(one["to"], one["counts"][-1]) for one in found["transitions"]] == [
        ("Running", 1), ("Failed", 1), ("Running", 1),
    ]  # fmt: skip
    assert found["deliveries"] == [
        {"notifier": "cms", "outcome": "delivered", "counts": [*before, 2]},
        {"notifier": "ops/1", "outcome": "delivered", "counts": [*before, 1]},
    ]
    assert [(one["notifier"], one["count"]) for one in found["latency"]] == [("cms", 2), ("ops/1", 1)]
    assert all(300 < one["p50_seconds"] <= one["p95_seconds"] <= 1800 for one in found["latency"])


def test_a_span_a_tag_and_a_queue_can_be_asked_for(world: World) -> None:
    world.sees(job_number(1), job_number(2, tag="Snapshot", queue=None))
    found = world.client().get("/api/v1/stats?span=7d&tag=Snapshot").json
    assert (found["step_seconds"], len(found["slots"])) == (6 * 3600, 28)
    assert [one["tag"] for one in found["jobs"]] == ["Snapshot"]
    assert world.client().get("/api/v1/stats?span=1h&queue=p224").json["jobs"][0]["queue_name"] == "vod"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("span=2h", "span: Input should be '1h', '24h' or '7d'"),
        ("span=1h&limit=5", 'unknown parameter "limit"; there are: span, tag, queue'),
        ("tag=", "tag: is empty; leave it out, or give a value"),
    ],
)
def test_what_it_cannot_be_asked_is_refused_with_what_it_can(world: World, query: str, said: str) -> None:
    answer = world.client().get(f"/api/v1/stats?{query}")
    assert (answer.status_code, answer.json["detail"]) == (400, said)


def test_a_rule_says_how_often_it_fired_and_when_it_did_last(world: World) -> None:
    def told() -> dict[str, tuple[int, str | None]]:
        items = world.client().get("/api/v1/rules").json["items"]
        return {one["name"]: (one["matches"], one["last_match_at"]) for one in items}

    assert told() == {"failed": (0, None), "all": (0, None)}
    world.sees(job_number(1), a_failed_job(2))
    world.now += timedelta(seconds=90)
    world.sees(job_number(3))
    assert told() == {"failed": (1, "2026-11-21T12:00:00.000Z"), "all": (2, "2026-11-21T12:01:30.000Z")}
