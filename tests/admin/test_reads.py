import re
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.model import FAILED, JobProblem, Rejected, RetryLater
from bridge.record.outbox import entries
from tests.support.admin_world import ADMIN, BUCKET, NOON, READ, SECRETS, World, a_book, a_failed_job, job_number


def get(client: FlaskClient, path: str) -> Any:
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def ids(page: Any, key: str = "id") -> list[str]:
    return [item[key] for item in page["items"]]


def test_a_list_is_newest_first_and_its_pages_meet(either_world: World) -> None:
    either_world.sees(*(job_number(n) for n in range(7)))
    client = either_world.client()
    first = get(client, "jobs?limit=3")
    second = get(client, f"jobs?limit=3&cursor={first['cursor']}")
    third = get(client, f"jobs?limit=3&cursor={second['cursor']}")
    assert [ids(first), ids(second), ids(third)] == [["j6", "j5", "j4"], ["j3", "j2", "j1"], ["j0"]]
    assert third["cursor"] is None


@pytest.mark.parametrize(("path", "key"), [("jobs", "id"), ("transitions", "job"), ("deliveries", "job")])
def test_rows_that_arrive_between_two_pages_shift_nothing(either_world: World, path: str, key: str) -> None:
    either_world.sees(*(job_number(n) for n in range(4)))
    client = either_world.client()
    first = get(client, f"{path}?limit=2")
    either_world.sees(*(job_number(n) for n in range(4, 9)))
    second = get(client, f"{path}?limit=2&cursor={first['cursor']}")
    assert ids(first, key) + ids(second, key) == ["j3", "j2", "j1", "j0"]
    assert second["cursor"] is None


@pytest.mark.parametrize(("path", "key"), [("jobs", "id"), ("transitions", "job"), ("deliveries", "job")])
@pytest.mark.parametrize("limit", [1, 3])
def test_who_turns_pages_sees_all_that_was_there_once_whatever_arrives(
    either_world: World, path: str, key: str, limit: int
) -> None:
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
        page = get(world.client(), f"{path}?limit={limit}{cursor and f'&cursor={cursor}'}")
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
        ("tag=Transcode&state=Running", ["j0"]),
        ("since=2026-11-21T12:00:00Z", ["j2", "j1", "j0"]),
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


def test_deliveries_are_filtered_by_state_notifier_rule_and_job(either_world: World) -> None:
    either_world.sees(job_number(0), a_failed_job(1))
    either_world.attempt(Rejected("no"), free=1)
    client = either_world.client()
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
        ("jobs?cursor=next", 'cursor: "next" is not one'),
        ("jobs?cursor=1000000000000000000", "is not one"),
        ("jobs?since=yesterday", 'since: "yesterday" is not a time such as 2026-11-21T09:00:00Z'),
        ("jobs?since=2026-11-21T09:00:00", "is not a time"),
        ("jobs?since=2026-06-31T09:00:00Z", "is not a time"),
        ("jobs?until=2026-11-21T09:00:00+08:00", "%2B"),
        ("jobs?state=", "leave the parameter out"),
        ("jobs?state=%00", "is no value"),
        ("jobs?state=Failed&state=Running", "state is there 2 times"),
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
    get(either_world.client(), f"jobs?{query}")


def test_a_job_has_its_transitions_and_deliveries(either_world: World) -> None:
    either_world.sees(a_failed_job(1))
    job = get(either_world.client(), "jobs/j1")
    assert (job["state"], job["message"], job["created_at"]) == (FAILED, "broken", "2026-11-21T12:00:00.000Z")
    assert [(t["from"], t["to"], t["rules"]) for t in job["transitions"]] == [
        ("new", FAILED, [{"rule": "failed", "notifiers": ["ops/1"]}])
    ]
    assert [d["notifier"] for d in job["deliveries"]] == ["ops/1"]


def test_an_id_that_two_buckets_know_asks_which(world: World) -> None:
    world.sees(job_number(1), job_number(1, bucket="other-1250000000"))
    client = world.client()
    answer = client.get("/api/v1/jobs/j1")
    assert answer.status_code == 409
    assert "other-1250000000" in answer.get_json(force=True)["detail"]
    assert get(client, f"jobs/j1?bucket={BUCKET}")["bucket"] == BUCKET
    assert client.get("/api/v1/jobs/j1?bucket=third-1250000000").status_code == 404


def test_what_a_receiver_answered_is_for_the_admin_alone(either_world: World) -> None:
    delivery = either_world.delivery_of(1)
    either_world.attempt(RetryLater("answered 500"), answer="stack trace of theirs")
    seen = get(either_world.client(), f"deliveries/{delivery}")["tries"][0]
    assert (seen["outcome"], seen["answer"]) == ("later", "stack trace of theirs")
    answer = either_world.client(READ).get(f"/api/v1/deliveries/{delivery}")
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
    assert get(world.client(READ), "rules")["fault"] == "rules.toml is wrong; the admin token shows why"


def test_no_secret_is_in_any_answer(world: World) -> None:
    world.sees(job_number(1), a_failed_job(2))
    delivered = world.attempt(Rejected("no"))
    client = world.client()
    described = client.get("/openapi.json").get_json()["paths"]
    paths = [path for path, methods in described.items() if "get" in methods and "batch_id" not in path]
    assert {"/metrics", "/readyz", "/api/v1/jobs/{job_id}", "/api/v1/deliveries/{delivery_id}"} <= set(paths)
    for path in paths:
        answer = client.get(path.format(job_id="j1", delivery_id=delivered[0]))
        assert answer.status_code == (503 if path == "/readyz" else 200)
        assert [secret for secret in SECRETS if secret in answer.text + str(answer.headers)] == []


LISTS = ["watches", "jobs", "transitions", "deliveries", "rules", "notifiers", "silences"]


@pytest.mark.parametrize("path", [*(f"/api/v1/{name}" for name in LISTS), "/api/v1/jobs/j1", "/openapi.json"])
def test_who_has_an_answer_asks_whether_it_is_still_right(either_world: World, path: str) -> None:
    either_world.sees(job_number(1))
    client = either_world.client()
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
def test_what_has_changed_is_answered_anew(world: World, path: str) -> None:
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
def test_what_is_not_to_be_kept_has_no_tag(world: World, path: str) -> None:
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


def test_a_job_that_was_left_out_is_not_found_and_says_why(either_world: World) -> None:
    either_world.cannot_read(JobProblem(job_id="j9", field="State", value="", left_out=True))
    answer = either_world.client().get("/api/v1/jobs/j9")
    assert answer.status_code == 404
    assert 'job "j9" in bucket media-1250000000 is left out since' in answer.get_json()["detail"]


def test_what_cannot_be_read_is_a_counter(either_world: World) -> None:
    either_world.cannot_read(JobProblem(job_id="j9", field="State", value="", left_out=True))
    text = either_world.client().get("/metrics").text
    assert 'bridge_job_problems_total{field="State",kind="left_out"} 1.0' in text
    assert 'bridge_job_problems_total{field="EndTime",kind="field"} 0.0' in text
