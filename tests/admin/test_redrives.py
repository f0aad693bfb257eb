from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.model import Rejected, Sent
from bridge.pipeline.redriving import MOST, carry_out
from bridge.record import outbox
from tests.admin.builders import NOON, READ, World, a_failed_job, a_job


def bury(world: World, *numbers: int) -> list[str]:
    """Record jobs whose deliveries to cms are dead; return the ids of these."""
    ids = [world.delivery_of(number) for number in numbers]
    world.attempt(Rejected("no"))
    return ids


def ask(world: World, path: str, status: int, **said: Any) -> Any:
    answer = world.client().post(f"/api/v1/{path}", json=said)
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True) | ({"location": answer.location} if answer.location else {})


def order(world: World, status: int = 202, **said: Any) -> Any:
    return ask(world, "deliveries/redrive", status, **said)


def refused(world: World, **said: Any) -> str:
    return str(order(world, 400, **said)["detail"])


def read(world: World, path: str, status: int = 200) -> Any:
    answer = world.client(READ).get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def test_an_order_is_given_carried_out_and_read(either_world: World) -> None:
    world = either_world
    bury(world, 1, 2, 3)
    given = order(world, notifier="cms", since="2026-11-21T12:00:00Z", per_minute=60)
    assert given == {
        "id": given["id"], "filter": {"state": "dead", "notifier": "cms", "since": "2026-11-21T12:00:00Z"},
        "author": "api", "per_minute": 60, "created_at": "2026-11-21T12:00:00.000Z", "total": 3, "done": 0, "left": 3,
        "ended_at": None, "ended_by": None, "location": f"/api/v1/redrives/{given['id']}",
    }  # fmt: skip
    assert carry_out(world.db, NOON + timedelta(seconds=1)) == 2
    now = read(world, f"redrives/{given['id']}")
    assert (now["done"], now["left"]) == (2, 1)
    assert carry_out(world.db, NOON + timedelta(seconds=2)) == 1
    after = read(world, f"redrives/{given['id']}")
    assert (after["done"], after["left"], after["ended_at"]) == (3, 0, "2026-11-21T12:00:02.000Z")
    assert read(world, "redrives") == {"items": [after], "cursor": None}
    assert {one["state"] for one in read(world, "deliveries")["items"]} == {"waiting"}


def test_a_dry_run_counts_and_does_nothing(world: World) -> None:
    bury(world, 1, 2)
    foreseen = order(world, 200, rule="all", dry_run=True)
    assert (foreseen["id"], foreseen["total"], foreseen["filter"]) == (None, 2, {"state": "dead", "rule": "all"})
    assert read(world, "redrives")["items"] == []


def test_an_order_is_ended_by_hand_once(world: World) -> None:
    bury(world, 1, 2)
    path = f"/api/v1/redrives/{order(world, notifier='cms')['id']}"
    ended = world.client().delete(path).get_json()
    assert (ended["ended_by"], ended["ended_at"], ended["left"]) == ("api", "2026-11-21T12:00:00.000Z", 2)
    again = world.client().delete(path)
    assert (again.status_code, "is over since 2026-11-21T12:00:00Z" in again.text) == (409, True)
    assert carry_out(world.db, NOON + timedelta(hours=1)) == 0


def test_an_order_under_a_key_is_given_once(world: World) -> None:
    bury(world, 1)
    said = {"json": {"notifier": "cms"}, "headers": {"Idempotency-Key": "k1"}}
    first, second = (world.client().post("/api/v1/deliveries/redrive", **said) for _ in range(2))
    assert first.get_json() == second.get_json()
    assert len(read(world, "redrives")["items"]) == 1


def test_an_order_says_which_deliveries(world: World) -> None:
    assert refused(world) == "say which deliveries, with at least one of since, until, notifier, rule, job, digest"
    assert refused(world, state="dropped").startswith("say which deliveries")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"notifer": "cms"}, 'unknown key "notifer" (did you mean "notifier"?); there are: since, until, notifier'),
        ({"notifier": 7}, "notifier: a text is needed"),
        ({"notifier": ""}, 'notifier: "" is no value'),
        ({"job": "a\0b"}, "is no value"),
        ({"since": "2h"}, 'since: "2h" is not a time such as'),
        ({"rule": "all", "state": "sent"}, "state: only what is dead or dropped is sent again"),
        ({"rule": "all", "per_minute": 6001}, "per_minute: a whole number from 1 to 6000 is needed"),
        ({"rule": "all", "per_minute": True}, "per_minute: a whole number"),
        ({"rule": "all", "per_minute": 1.5}, "per_minute: a whole number"),
        ({"rule": "all", "dry_run": "yes"}, "dry_run: true or false is needed"),
        ({"x": 1, "y": 2}, 'unknown key "y"'),
    ],
)
def test_what_is_wrong_with_an_order_is_said(world: World, said: dict[str, Any], fault: str) -> None:
    assert fault in refused(world, **said)


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_at_the_end_of_time_is_one(either_world: World, since: str) -> None:
    given = order(either_world, since=since)
    assert given["filter"]["since"] == since
    carry_out(either_world.db, NOON)


def test_there_is_a_bound_to_open_orders(world: World) -> None:
    bury(world, 1)
    for _ in range(MOST):
        order(world, notifier="cms")
    assert "20 orders have not ended" in order(world, 409, notifier="cms")["detail"]


@pytest.mark.parametrize("method", ["get", "delete"])
def test_an_order_that_nobody_gave_is_not_found(world: World, method: str) -> None:
    answer = world.client().open("/api/v1/redrives/rdr_0", method=method)
    assert (answer.status_code, answer.get_json(force=True)["detail"]) == (404, 'there is no order "rdr_0"')


def test_who_may_only_read_gives_no_order(world: World) -> None:
    client = world.client(READ)
    assert client.post("/api/v1/deliveries/redrive", json={"notifier": "cms"}).status_code == 403
    assert client.post("/api/v1/jobs/j1/tell", json={"notifier": "cms"}).status_code == 403


def test_a_job_is_told_by_hand_once(either_world: World) -> None:
    world = either_world
    world.sees(a_failed_job(1))  # which only ops/1 hears of
    asked = ask(world, "jobs/j1/tell", 202, notifier="cms")
    assert asked == {
        "delivery": asked["delivery"],
        "waits": None,
        "location": f"/api/v1/deliveries/{asked['delivery']}",
    }
    told = read(world, f"deliveries/{asked['delivery']}")
    assert (told["state"], told["notifier"], told["note"]) == ("waiting", "cms", "Sent by hand by api.")
    assert f"delivery {asked['delivery']} is waiting" in ask(world, "jobs/j1/tell", 409, notifier="cms")["detail"]
    world.attempt(Sent())
    assert "is sent" in ask(world, "jobs/j1/tell", 409, notifier="cms", sequence=1)["detail"]


def test_one_that_was_told_by_hand_in_vain_is_sent_again(world: World) -> None:
    world.sees(a_failed_job(1))
    first = ask(world, "jobs/j1/tell", 202, notifier="cms")
    world.attempt(Rejected("no"))
    assert ask(world, "jobs/j1/tell", 202, notifier="cms") == first
    assert read(world, f"deliveries/{first['delivery']}")["state"] == "waiting"


def test_who_is_paused_is_told_later_and_the_answer_says_so(world: World) -> None:
    world.sees(a_failed_job(1))
    with world.db.write() as tx:
        outbox.pause(tx, "cms", "it answered 410", now=NOON)
    assert "notifier cms is paused: it answered 410" in ask(world, "jobs/j1/tell", 202, notifier="cms")["waits"]


@pytest.mark.parametrize(
    ("job", "said", "status", "fault"),
    [
        ("j1", {"notifier": "cmss"}, 404, 'rules.toml has no notifier "cmss" (did you mean "cms"?); there are: cms'),
        ("j1", {"notifier": "cms", "sequence": 2}, 404, 'job "j1" has no transition 2; there are: 1 (Running)'),
        ("j1", {"notifier": "cms", "bucket": "x"}, 404, 'no transition of a job "j1" in bucket x is on record'),
        ("j9", {"notifier": "cms"}, 404, 'no transition of a job "j9" is on record'),
        ("j1", {}, 400, "notifier: say which one is to be told"),
        ("j1", {"notifer": "cms"}, 400, 'unknown key "notifer" (did you mean "notifier"?)'),
        ("j1", {"notifier": "cms", "sequence": 0}, 400, "sequence: a whole number from 1"),
        ("two", {"notifier": "cms"}, 409, 'several buckets have a job "two"; name one of them: a-1, b-1'),
    ],
)
def test_what_cannot_be_told_by_hand_is_said(
    world: World, job: str, said: dict[str, Any], status: int, fault: str
) -> None:
    world.sees(a_job(1))
    world.sees(a_job(2, id="two", bucket="a-1"), a_job(2, id="two", bucket="b-1"))
    assert fault in ask(world, f"jobs/{job}/tell", status, **said)["detail"]
