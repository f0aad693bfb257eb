from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.admin.auth import Keys, Scope
from bridge.record.schema import actions
from tests.support.admin_world import ADMIN, READ, World
from tests.support.records import rows

JOBS = "/api/v1/jobs"
RESUME = "/api/v1/watches/vod/resume"


def scope(keys: Keys, given: bytes) -> Scope | None:
    key = keys.find(given)
    return key and key.scope


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
    assert scope(keys, "пароль".encode()) is Scope.ADMIN
    assert scope(keys, b"password") is None
    assert "пароль" not in repr(keys)


@pytest.mark.parametrize("token", ["voilà", "Å", "…", "short", "x" * 5_000])
def test_a_token_that_ends_in_any_letter_opens(world: World, token: str) -> None:
    """The last bytes of some letters look like white space when read as Latin-1."""
    client = world.app(admin=token).test_client()
    header = f"Bearer  {token.encode().decode('latin-1')} "
    assert client.get(JOBS, environ_base={"HTTP_AUTHORIZATION": header}).status_code == 200


def test_what_is_compared_is_of_one_length_whatever_was_sent() -> None:
    keys = Keys.of("a", "b" * 1_000)
    assert {len(key.digest) for key in keys.all} == {32}
    assert [scope(keys, given) for given in (b"a", b"b" * 1_000, b"b" * 999)] == [Scope.ADMIN, Scope.READ, None]


def test_an_empty_token_of_the_environment_opens_nothing() -> None:
    assert Keys.of("", "").find(b"") is None


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


# --- named tokens, and who acts ---------------------------------------------------------------------------------------


OPS, DESK = "token-of-ops", "token-of-the-desk"
NAMED = (("ops", "admin", OPS), ("desk", "read", DESK))


def named(world: World, token: str, *, admin: str | None = None, **headers: str) -> FlaskClient:
    client = world.app(admin=admin, read=None, tokens=NAMED).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    client.environ_base |= {f"HTTP_{name}": value for name, value in headers.items()}
    return client


def authors(world: World) -> list[tuple[str, str | None]]:
    return [(row["who"], row["claimed"]) for row in rows(world.db, actions)]


def test_each_named_token_has_its_role_and_an_admin_is_one_that_is_set(world: World) -> None:
    world.sync()
    assert named(world, OPS).post(RESUME).status_code == 202
    assert named(world, DESK).get(JOBS).status_code == 200
    refused = named(world, DESK).post(RESUME)
    assert (refused.status_code, "BRIDGE_TOKENS" in refused.get_json()["detail"]) == (403, True)
    assert named(world, "guessed").get(JOBS).status_code == 401
    assert world.app(admin=None, read=None, tokens=NAMED).test_client().get(JOBS).status_code == 401
    assert authors(world) == [("ops", None)]


def test_named_tokens_without_an_admin_leave_it_to_this_machine(world: World) -> None:
    client = world.app(admin=None, read=None, tokens=[("desk", "read", DESK)]).test_client()
    assert client.get(JOBS).status_code == 200
    elsewhere = client.get(JOBS, environ_base={"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": f"Bearer {DESK}"})
    assert elsewhere.status_code == 403


def test_the_name_that_a_request_gives_is_recorded_beside_the_token(either_world: World) -> None:
    world = either_world
    world.sync()
    name = "李雷".encode().decode("latin-1")
    assert named(world, OPS, X_ACTOR=name).post(RESUME).status_code == 202
    assert named(world, ADMIN, admin=ADMIN, X_ACTOR="ann").post(RESUME).status_code == 202
    silence = {"for": "1h", "reason": "x", "everything": True}
    made = named(world, OPS, X_ACTOR=name).post("/api/v1/silences", json=silence).get_json()["silence"]
    assert made["author"] == "李雷 (token ops)"
    other = named(world, OPS).post(
        "/api/v1/silences", json=silence | {"author": "ben", "to": "Failed"} | {"everything": False}
    )
    assert other.get_json()["silence"]["author"] == "ben (token ops)"
    assert authors(world) == [("ops", "李雷"), ("api", "ann"), ("ops", "李雷"), ("ops", "ben")]


@pytest.mark.parametrize(
    ("given", "said"),
    [("", "is empty"), (" ", "is empty"), ("x" * 101, "101 characters"), ("\xff\xfe", "not UTF-8"),
     ("a\u202eb".encode().decode("latin-1"), "invisible character"), ("a\x00b", "invisible character")],
)  # fmt: skip
def test_a_name_that_cannot_be_recorded_is_refused_and_nothing_is_done(world: World, given: str, said: str) -> None:
    answer = named(world, OPS, X_ACTOR=given).post(RESUME)
    assert answer.status_code == 400
    assert "X-Actor" in answer.get_json()["detail"]
    assert said in answer.get_json()["detail"]
    assert authors(world) == []


def test_keys_show_no_token() -> None:
    assert "token-of" not in repr(Keys.of(None, None, NAMED))
