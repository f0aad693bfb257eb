from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.admin.auth import Keys, Scope
from tests.support.admin_world import ADMIN, READ, World

JOBS = "/api/v1/jobs"
RESUME = "/api/v1/watches/vod/resume"


def local(world: World, read: str | None = None) -> FlaskClient:
    return world.app(admin=None, read=read).test_client()


def test_without_a_token_nothing_but_health_answers(world: World) -> None:
    client = world.client(token=None)
    for path in ("/openapi.json", "/metrics", JOBS, "/api/v1/rules", "/api/v1/deliveries/x"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="ci-bridge"'
    assert client.post(RESUME).status_code == 401
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_a_wrong_token_and_a_missing_one_are_distinguished(world: World) -> None:
    answer = world.client(token="guessed").get(JOBS)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("given", ["Basic YTpi", "Bearer", "Bearer ", ADMIN, f"Bearer{ADMIN}"])
def test_what_is_no_bearer_token_does_not_open(world: World, given: str) -> None:
    assert world.client(token=None).get(JOBS, headers={"Authorization": given}).status_code == 401


def test_the_scheme_is_known_in_any_case(world: World) -> None:
    answer = world.client(token=None).get(JOBS, headers={"Authorization": f"bearer {ADMIN}"})
    assert answer.status_code == 200


def test_the_read_token_reads_and_changes_nothing(world: World) -> None:
    client = world.client(READ)
    assert client.get(JOBS).status_code == 200
    assert client.get("/metrics").status_code == 200
    answer = client.post(RESUME)
    assert answer.status_code == 403
    assert "BRIDGE_ADMIN_TOKEN" in answer.get_json()["detail"]


def test_the_admin_token_may_both(world: World) -> None:
    client = world.client(ADMIN)
    assert client.get(JOBS).status_code == 200
    assert client.post(RESUME).status_code == 202


def test_a_token_that_is_no_ascii_is_compared_as_bytes() -> None:
    keys = Keys.of("пароль", None)
    assert keys.scope("пароль".encode()) is Scope.ADMIN
    assert keys.scope(b"password") is None
    assert "пароль" not in repr(keys)


@pytest.mark.parametrize("token", ["voilà", "Å", "…", "short", "x" * 5_000])
def test_a_token_that_ends_in_any_letter_opens(world: World, token: str) -> None:
    """The last bytes of some letters look like white space when read as Latin-1."""
    client = world.app(admin=token).test_client()
    header = f"Bearer  {token.encode().decode('latin-1')} "
    assert client.get(JOBS, environ_base={"HTTP_AUTHORIZATION": header}).status_code == 200


def test_what_is_compared_is_of_one_length_whatever_was_sent() -> None:
    keys = Keys.of("a", "b" * 1_000)
    assert {len(key) for key in (keys.admin, keys.read) if key} == {32}
    assert (keys.scope(b"a"), keys.scope(b"b" * 1_000), keys.scope(b"b" * 999)) == (Scope.ADMIN, Scope.READ, None)


def test_an_empty_token_of_the_environment_opens_nothing() -> None:
    assert Keys.of("", "").scope(b"") is None


def test_with_no_admin_token_this_machine_may_do_everything(world: World) -> None:
    assert local(world).get(JOBS).status_code == 200
    assert local(world).post(RESUME).status_code == 202


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_every_loopback_address_is_this_machine(world: World, peer: str) -> None:
    assert local(world).get(JOBS, environ_base={"REMOTE_ADDR": peer}).status_code == 200


@pytest.mark.parametrize("peer", ["10.0.0.7", "93.184.216.34", "::ffff:10.0.0.7", "", "unix", "127.0.0.1.evil.example"])
def test_with_no_admin_token_nobody_else_may_do_anything(world: World, peer: str) -> None:
    answer = local(world, read=READ).get(
        JOBS, environ_base={"REMOTE_ADDR": peer}, headers={"Authorization": f"Bearer {READ}"}
    )
    assert answer.status_code == 403
    assert "BRIDGE_ADMIN_TOKEN" in answer.get_json()["detail"]
    assert local(world).get("/healthz", environ_base={"REMOTE_ADDR": peer}).status_code == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via"]
)
def test_what_came_through_a_proxy_on_this_machine_is_not_local(world: World, header: str) -> None:
    answer = local(world).get(JOBS, headers={header: "127.0.0.1"})
    assert answer.status_code == 403
    assert "proxy" in answer.get_json()["detail"]


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", ""])
def test_what_a_bare_proxy_on_this_machine_would_send_is_not_local(world: World, version: str) -> None:
    """nginx with nothing but `proxy_pass http://127.0.0.1:8000`: no header of its own, and HTTP/1.0."""
    answer = local(world).post(
        RESUME, headers={"Host": "127.0.0.1:8000"}, environ_overrides={"SERVER_PROTOCOL": version}
    )
    assert answer.status_code == 403
    assert "proxy" in answer.get_json()["detail"]
    assert "HTTP/1.1" in answer.get_json()["detail"]


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:8000", "127.0.0.1.evil.example", "localhost:x"])
def test_a_name_that_was_rebound_to_this_machine_is_not_local(world: World, host: str) -> None:
    assert local(world).get(JOBS, headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_the_names_of_this_machine_are_local(world: World, host: str) -> None:
    assert local(world).get(JOBS, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "http://[broken"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_use_the_browser_of_this_machine(world: World, headers: Any) -> None:
    assert local(world).post(RESUME, headers={"Host": "localhost:8000", **headers}).status_code == 403


def test_a_page_of_this_application_can(world: World) -> None:
    headers = {"Host": "localhost:8000", "Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}
    assert local(world).post(RESUME, headers=headers).status_code == 202
