import logging
from pathlib import Path
from typing import Any

import pytest

from bridge.record.database import Database
from tests.support.admin_world import World

GIVEN = [
    ("GET", "/nowhere", 404),
    ("GET", "/api/v1/nowhere", 404),
    ("GET", "/api/v1/jobs/", 404),
    ("GET", "/api/v1/jobs/%00", 404),
    ("GET", "/api/v1/jobs/j0", 404),
    ("GET", "/api/v1/deliveries/dlv_0", 404),
    ("DELETE", "/api/v1/jobs", 405),
    ("POST", "/healthz", 405),
    ("GET", "/api/v1/jobs?stat=x", 400),
    ("POST", "/api/v1/watches/nobody/poll", 404),
    ("POST", "/api/v1/notifiers/nobody/test", 404),
    ("POST", "/api/v1/notifiers/nobody/resume", 404),
    ("POST", "/api/v1/deliveries/dlv_0/redrive", 404),
    ("POST", "/api/v1/watches/vod/poll?now=1", 400),
]


@pytest.mark.parametrize(("method", "path", "status"), GIVEN)
def test_every_error_is_a_problem_of_one_shape(world: World, method: str, path: str, status: int) -> None:
    answer = world.client().open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    facts = answer.get_json(force=True)
    assert list(facts) == ["type", "title", "status", "detail", *(["errors"] if "?" in path else [])]
    assert facts["status"] == status
    assert facts["detail"]
    assert "Traceback" not in answer.text


def errors(answer: Any) -> Any:
    facts = answer.get_json(force=True)
    assert facts["detail"] == "; ".join(error["detail"] for error in facts["errors"])
    return [{name: value for name, value in error.items() if name != "detail"} for error in facts["errors"]]


def test_each_wrong_parameter_is_an_error_of_its_own(world: World) -> None:
    answer = world.client().get("/api/v1/jobs?limit=x&stat=x&since=1&since=2")
    assert errors(answer) == [{"parameter": "limit"}, {"parameter": "stat"}, {"parameter": "since"}]


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("deliveries/redrive", {"job": 1, "a~/ü": 2}, ["#/job", "#/a~0~1%C3%BC"]),
        ("deliveries/redrive", [], ["#"]),
        ("silences", {"reason": 1, "everything": True}, ["#/reason"]),
        ("silences", {"reason": "it is quiet", "everything": True, "match": {}, "minutes": 5, "odd": 1}, ["#"]),
        ("rules/explain", {"job": {"tag": "Transcode", "to": "Failed", "age": "soon"}}, ["#/job"]),
    ],
)
def test_each_wrong_member_of_a_body_is_pointed_at(world: World, path: str, body: Any, pointers: list[str]) -> None:
    answer = world.client().post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 400
    assert [error["pointer"] for error in errors(answer)][: len(pointers)] == pointers


def test_a_method_that_is_not_possible_says_which_are(world: World) -> None:
    answer = world.client().delete("/api/v1/jobs")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert "GET" in answer.get_json(force=True)["detail"]


def test_a_body_that_is_too_large_is_a_413(world: World) -> None:
    answer = world.client().post("/api/v1/watches/vod/poll", data=b"x" * 65_537)
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


def test_a_body_that_is_not_json_is_a_415(world: World) -> None:
    answer = world.client().post("/api/v1/watches/vod/poll", data={"now": "1"})
    assert (answer.status_code, answer.content_type) == (415, "application/problem+json")


def test_an_unexpected_body_is_a_400(world: World) -> None:
    client = world.client()
    assert client.post("/api/v1/watches/vod/poll", json={"now": True}).status_code == 400
    assert client.post("/api/v1/watches/vod/poll", json={}).status_code == 202


def test_a_name_that_is_nearly_right_is_suggested(world: World) -> None:
    detail = world.client().post("/api/v1/watches/vood/poll").get_json(force=True)["detail"]
    assert detail == 'rules.toml has no watch "vood" (did you mean "vod"?); there are: vod'


def test_a_fault_of_ours_is_logged_and_not_shown(world: World, caplog: pytest.LogCaptureFixture) -> None:
    app = world.app()

    def broken() -> str:
        raise RuntimeError("the inside of it")

    app.add_url_rule("/broken", "healthz2", broken)
    with caplog.at_level(logging.ERROR):
        answer = app.test_client().get("/broken", headers={"Authorization": "Bearer admin-token-of-the-tests"})
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "inside" not in answer.text
    assert "the inside of it" in caplog.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_database_that_does_not_answer_is_a_503_to_try_again(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gone").mkdir()
    world.db = Database(f"sqlite:///{tmp_path}/gone/bridge.db")
    (tmp_path / "gone").rmdir()
    for path in ("/api/v1/jobs", "/metrics"):
        answer = world.client().get(path)
        assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
        assert answer.headers["Retry-After"] == "5"
        assert "the database does not answer" in answer.get_json(force=True)["detail"]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/v1/jobs", "/openapi.json", "/nowhere"])
def test_the_security_headers_are_on_every_answer(world: World, path: str) -> None:
    headers = world.client().get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_404_names_the_description_of_the_api(world: World) -> None:
    detail = world.client().get("/nowhere").get_json(force=True)["detail"]
    assert detail == 'there is nothing at "/nowhere"; /openapi.json lists the endpoints'
