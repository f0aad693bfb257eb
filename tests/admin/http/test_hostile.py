"""Queries and paths that nobody means well with, against both databases."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from bridge.model import Sent
from tests.support.admin_world import World, a_failed_job, job_number

GARBAGE = {
    "a NUL": "%00",
    "half a surrogate": "%ED%A0%80",
    "no UTF-8": "%FF%FE%80",
    "broken percents": "%%%1%zz%",
    "raw bytes": "\xff\xfe",
    "SQL": quote("' OR 1=1; DROP TABLE job; --"),
    "wildcards": "%25_%25",
    "ten thousand letters": "x" * 10_000,
    "a thousand emoji": quote("\U0001f3ac" * 1_000),
    "a line break": "%0D%0ASet-Cookie:%20a=b",
    "dots": "..%2F..%2F..%2Fetc%2Fpasswd",
    "an overlong number": "9" * 5_000,
    "digits of another script": quote("١٢٣"),
    "brackets": "[]{}()<>",
}
LISTS = ("watches", "jobs", "transitions", "deliveries", "rules", "notifiers")
NAMES = ("state", "tag", "queue", "notifier", "rule", "job", "since", "until", "cursor", "limit", "bucket", "nobody")


def busy(world: World) -> World:
    world.sees(job_number(1), a_failed_job(2))
    world.attempt(Sent(), answer="thanks")
    return world


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_a_query_is_refused_or_finds_nothing(either_world: World, kind: str) -> None:
    client = busy(either_world).client()
    for path in (*LISTS, "jobs/j1"):
        for name in NAMES:
            answer = client.get(f"/api/v1/{path}?{name}={GARBAGE[kind]}")
            assert answer.status_code in (200, 400, 404), answer.text
            if answer.status_code == 200:
                assert answer.get_json()["items"] == []
            assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_a_path_is_not_found(either_world: World, kind: str) -> None:
    client = busy(either_world).client()
    for method, path in (
        ("GET", "jobs/{}"), ("GET", "deliveries/{}"), ("POST", "deliveries/{}/redrive"),
        ("POST", "notifiers/{}/test"), ("POST", "watches/{}/pause"), ("DELETE", "silences/{}"), ("GET", "{}"),
    ):  # fmt: skip
        answer = client.open(f"/api/v1/{path.format(GARBAGE[kind])}", method=method)
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
        assert len(answer.data) < 2_000


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_the_name_of_a_parameter_is_a_short_400(world: World, kind: str) -> None:
    answer = world.client().get(f"/api/v1/jobs?{GARBAGE[kind]}=1")
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert len(answer.data) < 2_000


@pytest.mark.parametrize(
    "query", ["&".join(f"p{n}=1" for n in range(10_000)), "state=x&" * 10_000, "&" * 10_000 + "a=1", "=&" * 10_000]
)
def test_ten_thousand_parameters_are_not_answered_one_by_one(world: World, query: str) -> None:
    answer = world.client().get(f"/api/v1/jobs?{query}")
    assert answer.status_code == 400
    assert len(answer.data) < 500


@pytest.mark.parametrize(
    "host",
    ["", " ", "a b", "a/b", "a@b", "evil.example\\", "[::1", "[::1]:x", "localhost:99999999", "%00", "\xff",
     "x" * 5_000, "localhost,evil.example", "<script>"],
)  # fmt: skip
def test_an_invalid_host_header_causes_no_error(world: World, host: str) -> None:
    for path in ("/healthz", "/openapi.json", "/api/v1/jobs", "/api/v1/jobs/j0", "/nowhere"):
        answer = world.client().get(path, headers={"Host": host})
        assert answer.status_code in (200, 400, 404)
        assert "<script>" not in answer.text
    assert world.app(admin=None).test_client().get("/api/v1/jobs", headers={"Host": host}).status_code in (400, 403)


def test_nobody_is_redirected_by_slashes(world: World) -> None:
    client = world.client()
    for path in ("/api//v1/jobs", "/api/v1/jobs/", "/healthz/", "//evil.example/", "/api/v1/../jobs"):
        answer = client.get("/", environ_overrides={"PATH_INFO": path})  # as it is, not as a client would tidy it
        assert (answer.status_code, answer.headers.get("Location")) == (404, None)


@pytest.mark.parametrize(
    "token", ["\xff" * 100, "x" * 100_000, "тест".encode().decode("latin-1"), "a b c", ",;,;", "\x7f"]
)
def test_a_token_of_any_bytes_is_only_wrong(world: World, token: str) -> None:
    answer = world.client(token=None).get(
        "/api/v1/jobs", environ_base={"HTTP_AUTHORIZATION": f"Bearer {token}", "REMOTE_ADDR": token}
    )
    assert answer.status_code == 401
    assert token not in answer.text


@pytest.mark.parametrize("forwarded", ["", ",", "\xff", "x" * 100_000, "1.2.3.4," * 10_000, "[", "::::", "1.2.3.4:x:y"])
def test_a_chain_of_proxies_of_any_shape_is_read(world: World, forwarded: str) -> None:
    client = world.client(token="wrong")
    assert client.get("/openapi.json", environ_base={"HTTP_X_FORWARDED_FOR": forwarded}).status_code == 401
