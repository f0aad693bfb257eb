from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from bridge.model import Rejected, Sent
from bridge.record.database import ms
from bridge.record.outbox import entries
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import action
from tests.support.admin_world import NOON, World
from tests.support.records import rows


def post(world: World, path: str, status: int = 202, **body: Any) -> Any:
    answer = world.client().post(f"/api/v1/{path}", **body)
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def state(world: World, delivery: str) -> Any:
    with world.db.read() as tx:
        found = lists.delivery(tx, delivery)
    assert found
    return found["state"]


def watch(world: World) -> Any:
    with world.db.read() as tx:
        return gauges.watches(tx)[0]


def test_a_dead_delivery_is_sent_again_under_its_own_id(either_world: World) -> None:
    delivery = either_world.delivery_of(1)
    either_world.attempt(Rejected("not today"))
    assert state(either_world, delivery) == "dead"
    assert post(either_world, f"deliveries/{delivery}/redrive") == {"delivery": delivery}
    assert state(either_world, delivery) == "waiting"
    assert either_world.attempt(Sent()) == [delivery]
    assert state(either_world, delivery) == "sent"


def test_what_is_not_dead_is_not_sent_again(either_world: World) -> None:
    delivery = either_world.delivery_of(1)
    assert "is waiting" in post(either_world, f"deliveries/{delivery}/redrive", 409)["detail"]
    either_world.attempt(Sent())
    assert "is sent" in post(either_world, f"deliveries/{delivery}/redrive", 409)["detail"]
    assert state(either_world, delivery) == "sent"


@pytest.mark.parametrize("name", ["cms", "ops/1"])
def test_a_test_goes_through_the_outbox_like_everything_else(either_world: World, name: str) -> None:
    answer = either_world.client().post(f"/api/v1/notifiers/{name}/test")
    delivery = answer.get_json()["delivery"]
    assert answer.headers["Location"] == f"/api/v1/deliveries/{delivery}"
    shown = either_world.client().get(answer.headers["Location"]).get_json()
    assert (shown["kind"], shown["notifier"], shown["event"]["type"]) == ("test", name, "ci.test")
    assert either_world.attempt(Sent()) == [delivery]


def test_two_tests_are_two_deliveries(world: World) -> None:
    first, second = (post(world, "notifiers/cms/test")["delivery"] for _ in range(2))
    assert first != second


def test_a_test_that_is_asked_for_again_under_its_id_is_sent_once(either_world: World) -> None:
    first, again = (post(either_world, "notifiers/cms/test", json={"id": "t1"}) for _ in range(2))
    assert first == again
    assert either_world.attempt(Sent()) == [first["delivery"]]
    assert post(either_world, "notifiers/cms/test", json={"id": "t1"})["delivery"] == first["delivery"]
    assert either_world.attempt(Sent()) == []
    others = [
        post(either_world, path, json={"id": id_})["delivery"]
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
def test_an_id_that_is_none_is_refused(world: World, said: dict[str, Any], fault: str) -> None:
    assert fault in post(world, "notifiers/cms/test", 400, json=said)["detail"]
    assert world.attempt(Sent()) == []


def test_a_notifier_that_is_resumed_goes_on(either_world: World) -> None:
    delivery = either_world.delivery_of(1)
    with either_world.db.write() as tx:
        entries.pause(tx, "cms", "it wants no more", now=NOON)
    assert either_world.attempt(Sent()) == []
    assert post(either_world, "notifiers/cms/resume") == {"notifier": "cms", "paused": False}
    assert either_world.attempt(Sent()) == [delivery]


def test_a_watch_is_paused_and_goes_on(either_world: World) -> None:
    assert post(either_world, "watches/vod/pause") == {"watch": "vod", "paused": True}
    assert watch(either_world)["paused"] is True
    assert "is paused" in post(either_world, "watches/vod/poll", 409)["detail"]
    assert post(either_world, "watches/vod/resume") == {"watch": "vod", "paused": False}
    assert watch(either_world)["paused"] is False


def test_a_watch_is_polled_now(either_world: World) -> None:
    either_world.polled()
    assert watch(either_world)["next_poll_at"] is not None
    post(either_world, "watches/vod/poll")
    assert watch(either_world)["next_poll_at"] is None  # no time to wait for: now


def test_a_watch_can_be_paused_before_any_worker_has_started(world: World) -> None:
    with world.db.write() as tx:
        tx.exec_driver_sql("DELETE FROM watch")
    post(world, "watches/vod/pause")
    assert watch(world)["paused"] is True


def test_who_did_it_is_written_down(either_world: World) -> None:
    post(either_world, "watches/vod/pause")
    client, own_page = either_world.app(admin=None).test_client(), {"Origin": "http://localhost"}
    assert client.post("/watches/vod/resume", headers=own_page).status_code == 303
    done = [(row["who"], row["what"], row["subject"], row["at"]) for row in rows(either_world.db, action)]
    assert done == [("api", "pause_watch", "vod", ms(NOON)), ("dashboard", "resume_watch", "vod", ms(NOON))]


def test_a_refused_request_leaves_nothing_behind(world: World) -> None:
    post(world, "notifiers/cms/test?loud=1", 400)
    with world.db.read() as tx:
        assert lists.deliveries(tx, Filter()).items == []
