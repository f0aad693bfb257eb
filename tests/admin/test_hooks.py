"""CI's callbacks over HTTP: who is let in, what is stored of them, and what nobody can do with them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from bridge.admin.auth_throttle import BURST, INTERVAL_S
from bridge.collect.callbacks import CALLBACK_LIMIT
from bridge.record.counters import totals
from bridge.record.database import Database
from bridge.record.schema import hints, jobs
from tests.support.admin_world import ADMIN, BUCKET, CALLBACK, World, job_number
from tests.support.records import rows

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ci"
NOBODY = "93.184.216.34"
BODY = json.dumps({"JobsDetail": [{"JobId": "j1", "State": "Success", "Input": {"BucketId": BUCKET}}]}).encode()
NOT_THERE = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is nothing here"}


def post(client: FlaskClient, path: str = CALLBACK, body: bytes = BODY, **headers: str) -> TestResponse:
    return client.post(f"/hooks/ci/{path}", data=body, headers=headers, environ_base={"REMOTE_ADDR": NOBODY})


def counts(world: World, metric: str = "callback") -> dict[str, int]:
    with world.db.read() as tx:
        return {total.labels[0]: total.count for total in totals(tx, [metric])}


def named(world: World) -> list[str]:
    return sorted(row["job_id"] for row in rows(world.db, hints))


def test_a_callback_needs_no_login_and_is_answered_at_once(either_world: World) -> None:
    either_world.sync()

    answer = post(either_world.client(None))

    assert (answer.status_code, answer.data) == (200, b"ok\n")
    assert named(either_world) == ["j1"]
    assert counts(either_world) == {"taken": 1}
    assert either_world.watch()["callback_at"] == "2026-11-21T12:00:00.000Z"


def test_nothing_but_the_id_is_stored(either_world: World) -> None:
    either_world.sync()
    post(
        either_world.client(None), body=(FIXTURES / "callback_task_finish.xml").read_bytes().replace(b"clips", b"media")
    )

    assert named(either_world) == ["j12c57ee0da9411ee800c525400a1b2c3"]
    assert rows(either_world.db, jobs) == []


@pytest.mark.parametrize("kind", ["application/xml", "text/plain", "application/json", "multipart/form-data", "x"])
def test_the_content_type_is_not_believed(world: World, kind: str) -> None:
    world.sync()

    assert post(world.client(None), **{"Content-Type": kind}).status_code == 200
    assert named(world) == ["j1"]


@pytest.mark.parametrize(
    "path", ["guess", f"{CALLBACK}x", CALLBACK.upper(), "%00", "%ff", "x" * 5000, f"guess/{'vod'}"]
)
def test_a_wrong_token_gets_the_answer_of_nothing_there(world: World, path: str) -> None:
    answer = post(world.client(None), path)

    assert (answer.status_code, answer.get_json()) == (404, NOT_THERE)
    assert named(world) == []


def test_without_a_token_nothing_is_there_and_guesses_do_not_count(world: World) -> None:
    client = world.app(callbacks=()).test_client()

    for _ in range(3 * BURST):
        assert (post(client).status_code, post(client).get_json()) == (404, NOT_THERE)


def test_two_tokens_are_taken_while_they_are_rotated(world: World) -> None:
    client = world.app(callbacks=("the-new-one", "the-old-one")).test_client()

    assert [post(client, token).status_code for token in ("the-new-one", "the-old-one", "a-third")] == [200, 200, 404]


def test_guessers_have_to_wait_and_lock_nobody_out_of_the_api(world: World) -> None:
    short = "a-short-token"
    client = world.app(callbacks=(short, CALLBACK)).test_client()
    for n in range(BURST):
        assert post(client, f"guess-{n}").status_code == 404

    for guess in ("another", short):  # a short one can be guessed
        refused = post(client, guess)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, str(int(INTERVAL_S)))
    api = client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {ADMIN}"}, environ_base={"REMOTE_ADDR": NOBODY})
    assert api.status_code == 200
    world.ticks += INTERVAL_S
    assert post(client, short).status_code == 200


def test_a_queue_with_an_old_token_locks_out_no_other_queue(world: World) -> None:
    world.sync()
    client = world.client(None)
    answers = [post(client, path).status_code for _ in range(2 * BURST) for path in ("an-old-token", CALLBACK)]

    assert answers[1::2] == [200] * 2 * BURST
    assert set(answers[::2]) == {404, 429}


def test_the_address_is_in_no_answer_and_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    client = world.client(None)
    with caplog.at_level(logging.DEBUG):
        answers = [
            post(client, "almost-the-token"), post(client, f"{CALLBACK}/a/b"), client.get(f"/hooks/ci/{CALLBACK}"),
            client.get("/hooks/ci/almost-the-token"), client.put(f"/hooks/ci/{CALLBACK}/vod", data=BODY),
            post(client, f"{CALLBACK}/nobody"), post(client, body=b"<script>"), post(client, body=b"x" * 400_000),
        ]  # fmt: skip

    for answer in answers:
        assert CALLBACK not in answer.text
        assert "almost" not in answer.text
        assert "script" not in answer.text
    assert CALLBACK not in caplog.text
    assert "almost" not in caplog.text


def test_without_the_database_a_callback_is_a_503_and_its_address_in_no_log(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gone").mkdir()
    world.db = Database(f"sqlite:///{tmp_path}/gone/bridge.db")
    (tmp_path / "gone").rmdir()

    answer = post(world.client(None))

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    logged = [vars(record).get("path") for record in caplog.records]
    assert "/hooks/ci/..." in logged
    assert CALLBACK not in f"{caplog.text} {logged} {answer.text}"


def test_an_address_with_a_watch_says_where_the_jobs_are(world: World) -> None:
    world.sync()

    answer = post(world.client(None), f"{CALLBACK}/vod", b'{"JobsDetail": {"JobId": "j1"}}')

    assert answer.status_code == 200
    assert [(row["bucket"], row["job_id"]) for row in rows(world.db, hints)] == [(BUCKET, "j1")]


def test_an_unknown_watch_is_counted_and_not_an_error_for_ci(world: World) -> None:
    world.sync()

    assert post(world.client(None), f"{CALLBACK}/gone").status_code == 200
    assert named(world) == []
    assert counts(world) == {"unknown_watch": 1}


def test_what_cannot_be_read_is_counted_and_not_an_error_for_ci(world: World) -> None:
    world.sync()

    for body in (b"", b"ok", b"<html>", b"{}"):
        assert post(world.client(None), body=body).status_code == 200

    assert counts(world) == {"unreadable": 4}
    assert world.watch()["callback_at"] is None


def test_a_body_may_be_larger_than_one_of_the_api_and_not_larger_than_its_limit(world: World) -> None:
    world.sync()
    client = world.client(None)

    assert post(client, body=BODY + b" " * (CALLBACK_LIMIT - len(BODY))).status_code == 200
    assert named(world) == ["j1"]
    refused = post(client, body=BODY + b" " * CALLBACK_LIMIT)

    assert refused.status_code == 413
    assert refused.get_json()["detail"] == f"a callback is at most {CALLBACK_LIMIT} bytes"
    assert counts(world) == {"taken": 1, "too_large": 1}


def test_a_job_that_has_ended_is_counted_alone(world: World) -> None:
    world.sync()
    world.sees(job_number(1, state="Success"))

    post(world.client(None))

    assert named(world) == []
    assert counts(world, "callback_job") == {"ended": 1}


_LETTERS = st.text(st.characters(codec=None), max_size=30)
_BODIES = st.binary(max_size=200) | st.builds(
    lambda ids, bucket: json.dumps({"JobsDetail": [{"JobId": one, "BucketId": bucket} for one in ids]}).encode(),
    st.lists(_LETTERS | st.sampled_from(["j1", "j2", "x" * 200]), max_size=5),
    _LETTERS | st.just(BUCKET) | st.none(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_BODIES, watch=st.sampled_from(["", "/vod", "/nobody", "/%00", "/%ff"]))
def test_no_body_is_an_error_of_ours(either_world: World, body: bytes, watch: str) -> None:
    either_world.sync()

    assert post(either_world.client(None), CALLBACK + watch, body).status_code == 200
