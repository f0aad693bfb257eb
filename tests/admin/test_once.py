"""Idempotency-Key: a deed that is asked for again is not done again, and answered as before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection, event
from werkzeug.test import TestResponse

from bridge.model import Rejected
from bridge.record import answered, reading, silences
from bridge.record.answered import Answer, Asked
from bridge.record.reading import Filter
from tests.admin.builders import World

A_SILENCE = {"to": "Failed", "for": "2h", "author": "ann", "reason": "new encoder"}
TEST = "notifiers/cms/test"


def post(world: World, path: str, key: str | None = "k1", **body: Any) -> TestResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return world.client().post(f"/api/v1/{path}", headers=headers, **body)


def deliveries(world: World) -> list[str]:
    with world.db.read() as tx:
        return [one["id"] for one in reading.deliveries(tx, Filter()).items]


def replayed(answer: TestResponse) -> bool:
    return answer.headers.get("Idempotent-Replayed") == "true"


def test_what_is_asked_again_under_its_key_is_answered_as_before_and_not_done_again(either_world: World) -> None:
    first, second = (post(either_world, TEST) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.data == second.data
    assert first.headers["Location"] == second.headers["Location"]
    assert first.content_type == second.content_type
    assert (replayed(first), replayed(second)) == (False, True)
    assert len(deliveries(either_world)) == 1


def test_without_a_key_or_with_another_one_it_is_done_again(world: World) -> None:
    for key in ("k1", "k2", None, None):
        assert not replayed(post(world, TEST, key))
    assert len(deliveries(world)) == 4


def test_an_end_is_answered_again_although_it_could_not_be_made_again(either_world: World) -> None:
    made = post(either_world, "silences", json=A_SILENCE).get_json()["silence"]
    ends = [
        either_world.client().delete(f"/api/v1/silences/{made['id']}", headers={"Idempotency-Key": key})
        for key in ("end", "end", "another")
    ]
    assert [one.status_code for one in ends] == [200, 200, 409]
    assert ends[0].data == ends[1].data


@pytest.mark.parametrize(
    ("path", "body"),
    [("notifiers/ops%2F1/test", {}), (TEST, {"data": b"{}", "content_type": "application/json"}),
     ("silences", {"json": A_SILENCE}), ("silences", {"json": A_SILENCE | {"dry_run": True}})],
)  # fmt: skip
def test_a_key_is_for_one_request(world: World, path: str, body: dict[str, Any]) -> None:
    post(world, TEST)
    answer = post(world, path, **body)
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert "used for another request" in answer.get_json(force=True)["detail"]
    assert len(deliveries(world)) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "kö", "a\tb", "a\x7f", " "])
def test_a_key_that_is_none_is_a_400(world: World, key: str) -> None:
    answer = post(world, TEST, key)
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert "Idempotency-Key" in answer.get_json(force=True)["detail"]
    assert deliveries(world) == []


def test_a_key_may_be_as_long_as_that(world: World) -> None:
    assert [replayed(post(world, TEST, f"{'x' * 250} y z")) for _ in range(2)] == [False, True]


def test_what_was_refused_is_not_stored(either_world: World) -> None:
    delivery = either_world.delivery_of(1)
    assert post(either_world, f"deliveries/{delivery}/redrive").status_code == 409
    either_world.attempt(Rejected("no"))
    answer = post(either_world, f"deliveries/{delivery}/redrive")
    assert (answer.status_code, replayed(answer)) == (202, False)


def test_what_would_be_done_is_not_stored(world: World) -> None:
    foreseen = [post(world, "silences", json=A_SILENCE | {"dry_run": True}) for _ in range(2)]
    assert [(one.status_code, replayed(one)) for one in foreseen] == [(200, False)] * 2
    assert post(world, "silences", json=A_SILENCE).status_code == 201
    with world.db.read() as tx:
        assert len(silences.every(tx)) == 1


def test_after_a_day_a_key_is_new(either_world: World) -> None:
    assert not replayed(post(either_world, TEST))
    either_world.now += timedelta(hours=24, milliseconds=-1)
    assert replayed(post(either_world, TEST))
    either_world.now += timedelta(milliseconds=1)
    assert not replayed(post(either_world, TEST))
    assert len(deliveries(either_world)) == 2


def test_two_at_once_do_it_once(either_world: World) -> None:
    """Both have looked for an answer, and found none, before one of them writes."""
    both, nonce = Barrier(2, timeout=30), either_world.nonce

    def meet() -> str:
        both.wait()
        return nonce()

    either_world.nonce = meet
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: post(either_world, TEST), range(2)))
    assert [one.status_code for one in answers] == [202, 202]
    assert answers[0].data == answers[1].data
    assert sorted(map(replayed, answers)) == [False, True]
    assert len(deliveries(either_world)) == 1


def test_a_process_that_dies_leaves_neither_deed_nor_answer(either_world: World) -> None:
    """Its connection breaks after the deed and before the commit; the same key does it then."""
    asked, answer = Asked("k" * 64, "r" * 64), Answer(202, "{}", None)
    tx = either_world.db.engine.connect()
    tx.begin()
    assert answered.take(tx, asked, now=either_world.now)
    answered.keep(tx, asked, answer)
    tx.invalidate()
    tx.close()
    with either_world.db.write() as again:
        assert answered.find(again, asked, now=either_world.now) is None
        assert answered.take(again, asked, now=either_world.now)
        answered.keep(again, asked, answer)
    with either_world.db.write() as late:
        assert not answered.take(late, asked, now=either_world.now)
        assert answered.find(late, asked, now=either_world.now) == answer


def test_a_transaction_that_does_not_end_leaves_neither_deed_nor_answer(either_world: World) -> None:
    def fail(connection: Connection) -> None:
        if not connection.get_execution_options().get("reading"):
            raise RuntimeError("no luck")

    event.listen(either_world.db.engine, "commit", fail)
    assert post(either_world, TEST).status_code == 500
    event.remove(either_world.db.engine, "commit", fail)
    assert deliveries(either_world) == []
    answer = post(either_world, TEST)
    assert (answer.status_code, replayed(answer)) == (202, False)
    assert len(deliveries(either_world)) == 1


def test_answers_go_after_a_day(world: World) -> None:
    post(world, TEST)
    with world.db.write() as tx:
        assert answered.prune(tx, now=world.now + timedelta(hours=23)) == 0
        assert answered.prune(tx, now=world.now + timedelta(hours=24)) == 1


def test_questions_take_no_key(world: World) -> None:
    """They are posted, and change nothing, so they are answered anew."""
    checks = [post(world, "rules/check", json={"toml": text}) for text in ("", "[[rule]]")]
    assert [one.get_json()["ok"] for one in checks] == [True, False]
