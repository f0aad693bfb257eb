"""GET /api/v1/...: lists, details, statistics and ETags."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.model import FAILED, Job, JobProblem, Rejected, RetryLater, Sent
from bridge.record import counters
from bridge.record.counters import Count
from bridge.record.outbox import entries
from tests.support.admin_world import ADMIN, BUCKET, NOON, READ, RULES, World, a_book, a_failed_job, job_number


def get(client: FlaskClient, path: str) -> Any:
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def ids(page: Any, key: str = "id") -> list[str]:
    return [item[key] for item in page["items"]]


def test_a_list_is_newest_first_and_its_pages_meet(world: World) -> None:
    world.sees(*(job_number(n) for n in range(7)))
    client = world.client()
    first = get(client, "jobs?limit=3")
    second = get(client, f"jobs?limit=3&cursor={first['cursor']}")
    third = get(client, f"jobs?limit=3&cursor={second['cursor']}")
    assert [ids(first), ids(second), ids(third)] == [["j6", "j5", "j4"], ["j3", "j2", "j1"], ["j0"]]
    assert third["cursor"] is None


@pytest.mark.parametrize(("path", "key"), [("jobs", "id"), ("transitions", "job"), ("deliveries", "job")])
def test_paging_shows_every_row_once_whatever_arrives(either_world: World, path: str, key: str) -> None:
    """Between two pages rows arrive with times before, among and after those on record, equal ones too."""
    world, new = either_world, count(100)

    def arrive(*minutes: int) -> list[str]:
        moments = [NOON + timedelta(minutes=minute) for minute in minutes]
        names = []
        for world.now in moments:  # in whatever order: clocks of two workers differ
            job = job_number(next(new), created_at=world.now)
            world.sees(job)
            names.append(job.id)
        return names

    there = arrive(3, 0, 1, 1, 2, 1, 0, 2)
    seen, cursor = [], ""
    while cursor is not None:
        page = get(world.client(), f"{path}?limit=3{cursor and f'&cursor={cursor}'}")
        seen += ids(page, key)
        cursor = page["cursor"]
        if len(seen) < 12:
            arrive(-1, 1, 4)
    assert sorted(one for one in seen if one in there) == sorted(there)
    assert len(seen) == len(set(seen))


def test_lists_made_from_the_rules_are_paged_too(world: World) -> None:
    client = world.client()
    first = get(client, "rules?limit=1")
    second = get(client, f"rules?limit=1&cursor={first['cursor']}")
    assert ids(first, "name") + ids(second, "name") == ["failed", "all"]
    assert (second["cursor"], get(client, "rules?cursor=99")["items"]) == (None, [])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["j2", "j1", "j0"]),
        ("state=Failed", ["j1"]),
        ("tag=Snapshot", ["j2"]),
        ("queue=p224", ["j1", "j0"]),
        ("job=j0", ["j0"]),
        ("since=2026-11-21T12:00:00.001Z", ["j2"]),
        ("until=2026-11-21T20:00:01%2B08:00", ["j1", "j0"]),
        ("state=Sleeping", []),
    ],
)
def test_jobs_and_transitions_are_filtered(either_world: World, query: str, expected: list[str]) -> None:
    either_world.sees(job_number(0), a_failed_job(1))
    either_world.now += timedelta(minutes=5)
    either_world.sees(job_number(2, tag="Snapshot", queue="p999", created_at=either_world.now))
    client = either_world.client()
    assert ids(get(client, f"jobs?{query}")) == expected
    assert ids(get(client, f"transitions?{query}"), "job") == expected


def test_deliveries_are_filtered_by_state_notifier_rule_and_job(world: World) -> None:
    world.sees(job_number(0), a_failed_job(1))
    world.attempt(Rejected("no"), free=1)
    client = world.client()
    assert ids(get(client, "deliveries?notifier=cms"), "job") == ["j0"]
    assert ids(get(client, "deliveries?rule=failed"), "notifier") == ["ops/1"]
    assert ids(get(client, "deliveries?job=j1"), "rule") == ["failed"]
    assert len(get(client, "deliveries?state=dead")["items"]) == 1
    assert len(get(client, "deliveries?state=waiting&since=2026-11-21T12:00:00Z")["items"]) == 1
    assert get(client, "deliveries?state=sent")["items"] == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("jobs?stat=Failed", 'unknown parameter "stat" (did you mean "state"?); there are: state, tag, queue, job'),
        ("jobs?notifier=cms", 'unknown parameter "notifier"'),
        ("deliveries?tag=Transcode", 'unknown parameter "tag"'),
        ("deliveries?state=daed", 'there is no "daed" (did you mean "dead"?); use waiting, sending, sent, dead'),
        ("jobs?limit=0", 'limit: "0" is not a number from 1 to 500'),
        ("jobs?limit=501", 'limit: "501" is not a number from 1 to 500'),
        ("jobs?limit=ten", 'limit: "ten" is not'),
        ("jobs?limit=-1", 'limit: "-1" is not'),
        ("jobs?limit=%C2%B2", "is not a number"),
        ("jobs?cursor=next", 'cursor: "next" is none'),
        ("jobs?cursor=1000000000000000000", "is none"),
        ("jobs?since=yesterday", 'since: "yesterday" is not a time such as 2026-11-21T09:00:00Z'),
        ("jobs?since=2026-11-21T09:00:00", "is not a time"),
        ("jobs?since=2026-06-31T09:00:00Z", "is not a time"),
        ("jobs?until=2026-11-21T09:00:00+08:00", "%2B"),
        ("jobs?state=", "state: is empty; leave it out"),
        ("jobs?state=%00", "state: contains a NUL"),
        ("jobs?state=Failed&state=Running", "state: given 2 times"),
        ("jobs?limit=0&since=x", 'limit: "0" is not a number from 1 to 500; since: "x" is not a time'),
        ("watches?state=x", "there are: cursor, limit"),
        ("deliveries/dlv_1?x=1", 'unknown parameter "x"'),
    ],
)
def test_a_wrong_parameter_is_a_400_that_says_what_would_be_right(world: World, query: str, said: str) -> None:
    answer = world.client().get(f"/api/v1/{query}")
    assert answer.status_code == 400
    assert said in answer.get_json(force=True)["detail"]


@pytest.mark.parametrize("query", ["cursor=999999999999999999", "cursor=0", "since=0001-01-01T00:00:00%2B14:00"])
def test_the_furthest_values_are_no_fault_of_the_database(either_world: World, query: str) -> None:
    assert get(either_world.client(), f"jobs?{query}")["items"] == []


def test_a_job_has_its_transitions_and_deliveries(world: World) -> None:
    world.sees(a_failed_job(1))
    job = get(world.client(), "jobs/j1")
    assert (job["state"], job["message"], job["created_at"]) == (FAILED, "broken", "2026-11-21T12:00:00.000Z")
    assert [(t["from"], t["to"], t["rules"]) for t in job["transitions"]] == [
        ("new", FAILED, [{"rule": "failed", "notifiers": ["ops/1"]}])
    ]
    assert [d["notifier"] for d in job["deliveries"]] == ["ops/1"]


def test_a_job_has_the_members_of_a_webhooks_job_with_the_same_values(world: World) -> None:
    facts: dict[str, Any] = {"outputs": ("a.mp4",), "outputs_total": 1, "workflow": "w1", "progress": 100}
    world.sees(replace(a_failed_job(1), **facts), job_number(2))
    for job_id in ("j1", "j2"):
        job = get(world.client(), f"jobs/{job_id}")
        webhook = get(world.client(), f"deliveries/{job['deliveries'][0]['id']}")["event"]["data"]["job"]
        times = {name: value and value.replace("Z", ".000Z") for name, value in webhook.items() if name.endswith("_at")}
        assert {name: job[name] for name in webhook} == webhook | times
    assert {field.name for field in fields(Job)} <= job.keys()
    listed = get(world.client(), "jobs")["items"][-1]
    assert (listed["queue_name"], listed["wait_seconds"], listed["duration_seconds"]) == ("vod", 0, 3600)


def test_an_id_that_two_buckets_know_asks_which(world: World) -> None:
    world.sees(job_number(1), job_number(1, bucket="other-1250000000"))
    client = world.client()
    answer = client.get("/api/v1/jobs/j1")
    assert answer.status_code == 409
    assert "other-1250000000" in answer.get_json(force=True)["detail"]
    assert get(client, f"jobs/j1?bucket={BUCKET}")["bucket"] == BUCKET
    assert client.get("/api/v1/jobs/j1?bucket=third-1250000000").status_code == 404


def test_what_a_receiver_answered_is_for_the_admin_alone(world: World) -> None:
    delivery = world.delivery_of(1)
    world.attempt(RetryLater("answered 500"), answer="stack trace of theirs")
    seen = get(world.client(), f"deliveries/{delivery}")["tries"][0]
    assert (seen["outcome"], seen["answer"]) == ("later", "stack trace of theirs")
    answer = world.client(READ).get(f"/api/v1/deliveries/{delivery}")
    seen = answer.get_json()["tries"][0]
    assert (seen["why"], seen["answer"]) == ("answered 500", None)
    assert "stack trace of theirs" not in answer.text


def test_watches_show_the_rules_and_how_their_polls_go(world: World) -> None:
    world.polled(error="CI says AccessDenied")
    [watch] = get(world.client(), "watches")["items"]
    assert (watch["name"], watch["bucket"], watch["tags"]) == ("vod", BUCKET, ["Transcode", "Snapshot"])
    assert watch["queues"] == [{"id": "p224", "name": "vod"}]
    assert (watch["every_seconds"], watch["failures"], watch["error"]) == (30, 1, "CI says AccessDenied")


def test_what_left_the_rules_is_still_shown_as_such(world: World) -> None:
    world.book = a_book('[[watch]]\nname="new"\nbucket="b-1250000000"\nregion="r-1"\ntags=["x"]')
    client = world.client()
    assert [(w["name"], w["in_rules"]) for w in get(client, "watches")["items"]] == [("new", True), ("vod", False)]
    assert [(n["name"], n["in_rules"]) for n in get(client, "notifiers")["items"]] == [("cms", False), ("ops/1", False)]


def test_a_pick_is_a_notifier_that_names_those_it_leads_to(world: World) -> None:
    pick = '[notifier.customer]\npick = "{{ job.user_data.customer }}"\notherwise = "cms"\n'
    acme = '[notifier.customer.to.acme]\ntype = "webhook"\nurl = "https://acme.example.com"\n'
    world.book = a_book(f"{RULES}\n{pick}{acme}")
    found = {one["name"]: one for one in get(world.client(), "notifiers")["items"]}
    assert found["customer.acme"]["type"] == "webhook"
    said = {name: found["customer"][name] for name in ("type", "in_rules", "pick", "to", "otherwise", "dead")}
    assert said == {
        "type": "pick",
        "in_rules": True,
        "pick": "{{ job.user_data.customer }}",
        "to": ["customer.acme"],
        "otherwise": "cms",
        "dead": 0,
    }


def test_notifiers_show_where_they_lead_by_host_alone(world: World) -> None:
    world.delivery_of(1)
    with world.db.write() as tx:
        entries.pause(tx, "cms", "it wants no more", now=NOON)
    cms, ops = get(world.client(), "notifiers")["items"]
    assert (cms["target"], cms["signed"], cms["waiting"]) == ("https://cms.example.com:8443", True, 1)
    assert (cms["paused_at"], cms["paused_why"]) == ("2026-11-21T12:00:00.000Z", "it wants no more")
    assert (ops["name"], ops["type"], ops["target"]) == ("ops/1", "slack", "C024BE91L")


def test_rules_are_shown_as_they_are_written(world: World) -> None:
    page = get(world.client(), "rules")
    failed = page["items"][0]
    assert (failed["from"], failed["to"], failed["notify"], failed["stop"]) == (["*"], ["Failed"], ["ops/1"], True)
    assert failed["match"] == {"tag": ["Transcode", "!Snapshot"], "duration": "> 2700s", "user_data.asset_id": True}
    assert (page["sha"], page["fault"], page["cursor"]) == (world.book.sha, None, None)


def test_what_is_wrong_with_the_rules_is_for_the_admin_alone(world: World) -> None:
    world.fault = 'rules.toml:3: "xoxb-1" is not ...'
    assert get(world.client(), "rules")["fault"] == world.fault
    assert get(world.client(READ), "rules")["fault"] == "rules.toml has errors; the admin token shows why"


LISTS = ["watches", "jobs", "transitions", "deliveries", "rules", "notifiers", "silences"]


@pytest.mark.parametrize("path", [*(f"/api/v1/{name}" for name in LISTS), "/api/v1/jobs/j1", "/openapi.json"])
def test_an_answer_is_revalidated_by_its_etag(world: World, path: str) -> None:
    world.sees(job_number(1))
    client = world.client()
    first = client.get(path)
    assert first.headers["Cache-Control"] == "private, no-cache"
    tag = first.headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{40}"', tag)  # a strong one
    for asked in (tag, f'"other", W/{tag}', "*"):
        again = client.get(path, headers={"If-None-Match": asked})
        assert (again.status_code, again.data) == (304, b"")
        assert (again.headers["ETag"], again.headers["Cache-Control"]) == (tag, "private, no-cache")
    other = client.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.data) == (200, first.data)
    head = client.head(path)
    assert (head.status_code, head.headers["ETag"], head.data) == (200, tag, b"")


@pytest.mark.parametrize("path", ["jobs", "transitions", "deliveries", "notifiers", "jobs/j1"])
def test_a_changed_answer_has_another_etag(world: World, path: str) -> None:
    world.sees(job_number(1))
    client = world.client()
    tag = client.get(f"/api/v1/{path}").headers["ETag"]
    world.sees(job_number(1, bucket="other-1250000000"), job_number(2))
    answer = client.get(f"/api/v1/{path}", query_string={}, headers={"If-None-Match": tag})
    assert answer.status_code == (409 if path == "jobs/j1" else 200)
    assert answer.headers.get("ETag") != tag


def test_a_tag_differs_by_token_only_where_the_answer_does(world: World) -> None:
    delivery = world.delivery_of(1)

    def tags() -> set[str]:
        answers = [world.client(token).get(f"/api/v1/deliveries/{delivery}") for token in (ADMIN, READ)]
        return {one.headers["ETag"] for one in answers}

    assert len(tags()) == 1
    world.attempt(RetryLater("answered 500"), answer="stack trace of theirs")
    assert len(tags()) == 2


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/v1/jobs/nobody", "/api/v1/jobs?limit=0"])
def test_uncacheable_answers_have_no_etag(world: World, path: str) -> None:
    answer = world.client().get(path, headers={"If-None-Match": "*"})
    assert answer.status_code != 304
    assert ("ETag" in answer.headers, answer.headers["Cache-Control"]) == (False, "no-store")


def test_a_job_says_what_of_it_cannot_be_read(either_world: World) -> None:
    either_world.sees(job_number(1), job_number(2))
    either_world.cannot_read(JobProblem(job_id="j1", field="EndTime", value="null"), read=["j1", "j2"])
    client = either_world.client()
    assert get(client, "jobs/j1")["problems"] == [
        {
            "field": "EndTime", "value": "null", "left_out": False, "since": "2026-11-21T12:00:00.000Z",
            "seen_at": "2026-11-21T12:00:00.000Z", "ask_at": None,
        }
    ]  # fmt: skip
    assert get(client, "jobs/j2")["problems"] == []


def test_what_cannot_be_read_is_a_counter(world: World) -> None:
    world.cannot_read(JobProblem(job_id="j9", field="State", value="", left_out=True))
    text = world.client().get("/metrics").text
    assert 'ci_bridge_job_problems_total{field="State",kind="left_out"} 1.0' in text
    assert 'ci_bridge_job_problems_total{field="EndTime",kind="field"} 0.0' in text


def test_a_watch_says_how_soon_changes_are_seen_and_at_which_cost(either_world: World) -> None:
    world = either_world
    world.sync()
    (watch,) = world.client().get("/api/v1/watches").json["items"]
    assert watch["detection"] is None
    world.now += timedelta(seconds=2)
    world.sees(job_number(1, state="Submitted"), job_number(2, state="Submitted"), job_number(3, state="Cancel"))
    with world.db.write() as tx:
        counters.add(tx, [Count("call", ("vod",), times=6)], now=world.now)
    (watch,) = world.client().get("/api/v1/watches").json["items"]
    assert watch["detection"] == {
        "watch": "vod", "transitions": 3, "calls": 6, "calls_per_transition": 2.0, "p50_seconds": 1.75,
        "p99_seconds": 1.995,
    }  # fmt: skip
    assert world.client().get("/api/v1/stats").json["detection"] == [watch["detection"]]
    world.now += timedelta(hours=25)
    (watch,) = world.client().get("/api/v1/watches").json["items"]
    assert watch["detection"] is None


# --- statistics ------------------------------------------------------------------------------------------------------


def test_a_day_is_shown_in_slots_of_an_hour(world: World) -> None:
    failed = replace(a_failed_job(2), started_at=NOON - timedelta(hours=1), ended_at=NOON)
    world.sees(job_number(1), failed, job_number(3, tag="Snapshot", queue=None))
    world.now += timedelta(minutes=10)
    world.attempt(Sent())
    found = world.client().get("/api/v1/stats").json
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


def test_a_word_that_a_newer_version_stored_is_shown_as_it_is(world: World) -> None:
    with world.db.write() as tx:
        counters.add(tx, [Count("delivery", ("cms", "parked"))], now=world.now)
    stats = world.client().get("/api/v1/stats").get_json()
    assert [line["outcome"] for line in stats["deliveries"]] == ["parked"]
