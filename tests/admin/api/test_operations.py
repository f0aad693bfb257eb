"""What people do manually, as programs ask for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest

from bridge.model import Rejected, Sent
from bridge.record.database import ms
from bridge.record.outbox import entries
from bridge.record.schema import actions
from tests.support.admin_world import NOON, READ, World, a_failed_job, job_number
from tests.support.records import rows


def post(world: World, path: str, status: int = 202, **body: Any) -> Any:
    answer = world.client().post(f"/api/v1/{path}", **body)
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def test_a_dead_delivery_is_resent_under_its_own_id(world: World) -> None:
    delivery = world.delivery_of(1)
    world.attempt(Rejected("not today"))
    assert world.state_of(delivery) == "dead"
    assert post(world, f"deliveries/{delivery}/redrive") == {"delivery": delivery}
    assert world.state_of(delivery) == "waiting"
    assert world.attempt(Sent()) == [delivery]
    assert world.state_of(delivery) == "sent"


def test_dead_deliveries_are_discarded_one_or_all_that_match(world: World) -> None:
    first, second, third = (world.delivery_of(number) for number in (1, 2, 3))
    world.attempt(Rejected("no"))
    assert post(world, f"deliveries/{first}/discard", 200, json={"reason": "sent by hand"}) == {"delivery": first}
    assert (
        "is discarded; only a dead" in post(world, f"deliveries/{first}/discard", 409, json={"reason": "x"})["detail"]
    )
    assert "no delivery" in post(world, "deliveries/dlv_1/discard", 404, json={"reason": "x"})["detail"]
    wanted = {"notifier": "cms", "reason": "cms was shut down"}
    counted = post(world, "deliveries/discard", 200, json=wanted | {"dry_run": True})
    assert (counted["id"], counted["total"], counted["dead"]) == (None, 2, 2)
    made = post(world, "deliveries/discard", 200, json=wanted)
    assert (made["total"], made["discarded"]) == (2, 2)
    assert {row["id"] for row in world.deliveries(batch=made["id"])} == {second, third}
    assert post(world, "deliveries/discard", 200, json=wanted)["id"] is None
    assert world.notifier("cms")["dead"] == 0
    back = post(world, "deliveries/redrive", json={"batch": made["id"], "state": "discarded"})
    assert (back["total"], world.state_of(first), world.state_of(second)) == (2, "discarded", "waiting")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"notifier": "cms"}, "reason: Field required"),
        ({"reason": "x"}, "say which deliveries"),
        ({"notifier": "cms", "reason": ""}, "reason:"),
        ({"notifier": "cms", "reason": "a\nb"}, "invisible character"),
        ({"notifier": "cms", "reason": "x", "state": "waiting"}, "state:"),
    ],
)
def test_what_is_discarded_needs_filters_and_a_reason(world: World, body: Any, said: str) -> None:
    world.delivery_of(1)
    world.attempt(Rejected("no"))
    assert said in post(world, "deliveries/discard", 400, json=body)["detail"]
    assert world.notifier("cms")["dead"] == 1


def test_only_dead_or_dropped_deliveries_are_resent(world: World) -> None:
    delivery = world.delivery_of(1)
    assert "is waiting" in post(world, f"deliveries/{delivery}/redrive", 409)["detail"]
    world.attempt(Sent())
    assert "is sent" in post(world, f"deliveries/{delivery}/redrive", 409)["detail"]
    assert world.state_of(delivery) == "sent"


@pytest.mark.parametrize("name", ["cms", "ops/1"])
def test_a_test_goes_through_the_outbox_like_everything_else(world: World, name: str) -> None:
    answer = world.client().post(f"/api/v1/notifiers/{name}/test")
    delivery = answer.get_json()["delivery"]
    assert answer.headers["Location"] == f"/api/v1/deliveries/{delivery}"
    shown = world.client().get(answer.headers["Location"]).get_json()
    assert (shown["kind"], shown["notifier"], shown["event"]["type"]) == ("test", name, "ci.test")
    assert world.attempt(Sent()) == [delivery]


def test_a_test_that_is_asked_for_again_under_its_id_is_sent_once(world: World) -> None:
    first, again = (post(world, "notifiers/cms/test", json={"id": "t1"}) for _ in range(2))
    assert first == again
    assert world.attempt(Sent()) == [first["delivery"]]
    assert post(world, "notifiers/cms/test", json={"id": "t1"})["delivery"] == first["delivery"]
    assert world.attempt(Sent()) == []
    others = [
        post(world, path, json={"id": id_})["delivery"]
        for path, id_ in (("notifiers/cms/test", "t2"), ("notifiers/ops%2F1/test", "t1"))
    ]
    assert len({first["delivery"], *others}) == 3


def test_two_tests_at_once_under_one_id_are_one(either_world: World) -> None:
    together = Barrier(2, timeout=30)

    def ask(_: int) -> Any:
        together.wait()
        return post(either_world, "notifiers/cms/test", json={"id": "t1"})

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(ask, range(2))
    assert first == second
    assert either_world.attempt(Sent()) == [first["delivery"]]


@pytest.mark.parametrize("body", [{}, {"json": {}}, {"data": b"{}", "content_type": "application/json"}])
def test_a_test_needs_no_id(world: World, body: dict[str, Any]) -> None:
    assert post(world, "notifiers/cms/test", **body)["delivery"]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"id": ""}, "id: "),
        ({"id": "x" * 256}, "id: "),
        ({"id": 7}, "id: "),
        ({"id": "a\0b"}, "id: "),
        ({"ids": "t1"}, 'unknown key "ids"'),
    ],
)
def test_an_invalid_id_is_refused(world: World, said: dict[str, Any], fault: str) -> None:
    assert fault in post(world, "notifiers/cms/test", 400, json=said)["detail"]
    assert world.attempt(Sent()) == []


def test_a_notifier_that_is_resumed_goes_on(world: World) -> None:
    delivery = world.delivery_of(1)
    with world.db.write() as tx:
        entries.pause(tx, "cms", "it wants no more", now=NOON)
    assert world.attempt(Sent()) == []
    assert post(world, "notifiers/cms/resume") == {"notifier": "cms", "paused": False}
    assert world.attempt(Sent()) == [delivery]


def test_a_notifier_that_is_paused_waits_and_says_by_whom(world: World) -> None:
    world.delivery_of(1)
    why = {"reason": "moved"}
    assert post(world, "notifiers/cms/pause", json=why) == {"notifier": "cms", "paused": True}
    assert world.attempt(Sent()) == []
    assert world.notifier("cms")["paused_why"] == "by api: moved"
    assert "is paused already" in post(world, "notifiers/cms/pause", 409, json=why)["detail"]
    assert "reason" in post(world, "notifiers/cms/pause", 400, json={})["detail"]
    assert post(world, "notifiers/nobody/pause", 404, json=why)


def test_a_watch_is_paused_and_goes_on(world: World) -> None:
    assert post(world, "watches/vod/pause") == {"watch": "vod", "paused": True}
    assert world.watch()["paused"] is True
    assert "is paused" in post(world, "watches/vod/poll", 409)["detail"]
    assert post(world, "watches/vod/resume") == {"watch": "vod", "paused": False}
    assert world.watch()["paused"] is False


def test_a_watch_is_polled_now(world: World) -> None:
    world.polled()
    assert world.watch()["next_poll_at"] is not None
    post(world, "watches/vod/poll")
    assert world.watch()["next_poll_at"] is None  # no time to wait for: now


def test_a_watch_can_be_paused_before_any_worker_has_started(world: World) -> None:
    with world.db.write() as tx:
        tx.exec_driver_sql("DELETE FROM watch")
    post(world, "watches/vod/pause")
    assert world.watch()["paused"] is True


def test_the_author_of_an_operation_is_recorded(world: World) -> None:
    post(world, "watches/vod/pause")
    client, own_page = world.app(admin=None).test_client(), {"Origin": "http://localhost"}
    assert client.post("/watches/vod/resume", headers=own_page).status_code == 303
    done = [(row["who"], row["what"], row["subject"], row["at"]) for row in rows(world.db, actions)]
    assert done == [("api", "pause_watch", "vod", ms(NOON)), ("dashboard", "resume_watch", "vod", ms(NOON))]


# --- resending many, and notifying manually --------------------------------------------------------------------------


def bury(world: World, *numbers: int) -> list[str]:
    """Record jobs whose deliveries to cms are dead; return the ids of these."""
    ids = [world.delivery_of(number) for number in numbers]
    world.attempt(Rejected("no"))
    return ids


def ask(world: World, path: str, status: int, **said: Any) -> Any:
    answer = world.client().post(f"/api/v1/{path}", json=said)
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True) | ({"location": answer.location} if answer.location else {})


def resend(world: World, status: int = 202, **said: Any) -> Any:
    return ask(world, "deliveries/redrive", status, **said)


def refused(world: World, **said: Any) -> str:
    return str(resend(world, 400, **said)["detail"])


def read(world: World, path: str, status: int = 200) -> Any:
    answer = world.client(READ).get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def test_what_a_filter_finds_is_resent_at_a_rate_and_watched(either_world: World) -> None:
    world = either_world
    bury(world, 1, 2, 3)
    given = resend(world, notifier="cms", since="2026-11-21T12:00:00Z", per_minute=60)
    batch = {
        "id": given["id"], "total": 3, "scheduled": 2, "waiting": 1, "sending": 0, "sent": 0, "dead": 0, "discarded": 0,
        "last_due_at": "2026-11-21T12:00:02.000Z",
    }  # fmt: skip
    path = f"deliveries/batches/{given['id']}"
    assert given == batch | {"location": f"/api/v1/{path}"}
    assert read(world, path) == batch
    world.now += timedelta(seconds=1)
    world.attempt(Sent())
    assert read(world, path) == batch | {"scheduled": 1, "waiting": 0, "sent": 2}
    world.now += timedelta(seconds=1)
    world.attempt(Rejected("no"))
    assert read(world, path) == batch | {"scheduled": 0, "waiting": 0, "sent": 2, "dead": 1, "last_due_at": None}
    listed = read(world, f"deliveries?batch={given['id']}&state=dead")["items"]
    assert [one["batch"] for one in listed] == [given["id"]]


def test_a_dry_run_counts_and_does_nothing(world: World) -> None:
    bury(world, 1, 2)
    foreseen = resend(world, 200, rule="all", per_minute=600.0, dry_run=True)
    assert (foreseen["id"], foreseen["total"]) == (None, 2)
    assert {one["state"] for one in read(world, "deliveries")["items"]} == {"dead"}


def test_where_nothing_is_found_there_is_no_batch(world: World) -> None:
    assert resend(world, 200, rule="all")["id"] is None


def test_what_is_not_due_yet_of_a_batch_is_cancelled(world: World) -> None:
    bury(world, 1, 2, 3)
    path = f"/api/v1/deliveries/batches/{resend(world, notifier='cms')['id']}"
    cancelled, again = (world.client().delete(path).get_json() for _ in range(2))
    assert (cancelled["cancelled"], cancelled["waiting"], cancelled["dead"]) == (2, 1, 2)
    assert again == cancelled | {"cancelled": 0}


def test_what_is_resent_is_said(world: World) -> None:
    assert (
        refused(world)
        == "the body: say which deliveries, with at least one of since, until, notifier, rule, job, digest, batch"
    )
    assert refused(world, state="dropped").startswith("the body: say which deliveries")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"notifer": "cms"}, 'unknown key "notifer" (did you mean "notifier"?); there are: since, until, notifier'),
        ({"notifier": 7}, "notifier: a string is needed"),
        ({"notifier": ""}, "notifier: is empty"),
        ({"job": "a\0b"}, "job: contains a NUL"),
        ({"since": "2h"}, 'since: "2h" is not a time such as'),
        ({"rule": "all", "state": "sent"}, "state: Input should be 'dead', 'dropped' or 'discarded', not \"sent\""),
        ({"rule": "all", "per_minute": 6001}, "per_minute: Input should be less than or equal to 6000, not 6001"),
        ({"rule": "all", "per_minute": True}, "per_minute: Input should be a valid integer, not true"),
        ({"rule": "all", "per_minute": 1.5}, "per_minute: Input should be a valid integer, not 1.5"),
        ({"rule": "all", "dry_run": "yes"}, "dry_run: Input should be a valid boolean"),
        ({"x": 1, "y": 2}, 'unknown key "y"'),
    ],
)
def test_what_is_wrong_with_a_question_is_said(world: World, said: dict[str, Any], fault: str) -> None:
    assert fault in refused(world, **said)


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_at_the_end_of_time_is_one(either_world: World, since: str) -> None:
    bury(either_world, 1)
    assert resend(either_world, 200, since=since, dry_run=True)["total"] == (1 if since.startswith("0001") else 0)


@pytest.mark.parametrize("method", ["get", "delete"])
def test_an_unknown_batch_is_not_found(world: World, method: str) -> None:
    answer = world.client().open("/api/v1/deliveries/batches/rdr_0", method=method)
    assert (answer.status_code, answer.get_json(force=True)["detail"]) == (404, 'there is no batch "rdr_0"')


@pytest.mark.parametrize(("method", "path"), [("get", "redrives"), ("delete", "redrives/rdr_1")])
def test_orders_are_gone_and_the_answer_says_what_to_ask_instead(world: World, method: str, path: str) -> None:
    answer = world.client().open(f"/api/v1/{path}", method=method)
    assert (answer.status_code, answer.content_type) == (410, "application/problem+json")
    assert "POST /api/v1/deliveries/redrive resends a batch" in answer.get_json(force=True)["detail"]
    assert world.client(None).open(f"/api/v1/{path}", method=method).status_code == 401


def test_a_job_is_notified_manually_once(world: World) -> None:
    world.register()
    world.sees(a_failed_job(1))  # which only ops/1 hears of
    asked = ask(world, "jobs/j1/tell", 202, notifier="cms")
    assert asked == {
        "delivery": asked["delivery"],
        "waits": None,
        "location": f"/api/v1/deliveries/{asked['delivery']}",
    }
    told = read(world, f"deliveries/{asked['delivery']}")
    assert (told["state"], told["notifier"], told["note"]) == ("waiting", "cms", "Sent manually by api.")
    assert f"delivery {asked['delivery']} is waiting" in ask(world, "jobs/j1/tell", 409, notifier="cms")["detail"]
    world.attempt(Sent())
    assert "is sent" in ask(world, "jobs/j1/tell", 409, notifier="cms", sequence=1)["detail"]


def test_a_dead_manual_notification_is_resent(world: World) -> None:
    world.sees(a_failed_job(1))
    first = ask(world, "jobs/j1/tell", 202, notifier="cms")
    world.attempt(Rejected("no"))
    assert ask(world, "jobs/j1/tell", 202, notifier="cms") == first
    assert read(world, f"deliveries/{first['delivery']}")["state"] == "waiting"


@pytest.mark.parametrize(
    ("job", "said", "status", "fault"),
    [
        ("j1", {"notifier": "cmss"}, 404, 'rules.toml has no notifier "cmss" (did you mean "cms"?); there are: cms'),
        ("j1", {"notifier": "cms", "sequence": 2}, 404, 'job "j1" has no transition 2; there are: 1 (Running)'),
        ("j1", {"notifier": "cms", "bucket": "x"}, 404, 'no transition of a job "j1" in bucket x is on record'),
        ("j9", {"notifier": "cms"}, 404, 'no transition of a job "j9" is on record'),
        ("j1", {}, 400, "notifier: Field required"),
        ("j1", {"notifer": "cms"}, 400, 'unknown key "notifer" (did you mean "notifier"?)'),
        ("j1", {"notifier": "cms", "sequence": 0}, 400, "sequence: Input should be greater than or equal to 1, not 0"),
        ("two", {"notifier": "cms"}, 409, 'several buckets have a job "two"; name one of them: a-1, b-1'),
    ],
)
def test_an_impossible_manual_notification_is_refused(
    world: World, job: str, said: dict[str, Any], status: int, fault: str
) -> None:
    world.sees(job_number(1))
    world.sees(job_number(2, id="two", bucket="a-1"), job_number(2, id="two", bucket="b-1"))
    assert fault in ask(world, f"jobs/{job}/tell", status, **said)["detail"]
