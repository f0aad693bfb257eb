from __future__ import annotations

import logging
from itertools import product

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bridge.admin.auth_throttle import (
    BURST,
    INTERVAL_S,
    PEER_BURST,
    PEER_INTERVAL_S,
    REMEMBERED,
    Failures,
    Source,
    counted,
)
from tests.support.admin_world import ADMIN, READ, World

STRANGER, ROUTER = "93.184.216.34", "10.1.2.3"
A = (Source("a"),)


def ask(
    client: FlaskClient, token: str | None, *, peer: str = STRANGER, forwarded: str = "", path: str = "/api/v1/jobs"
) -> TestResponse:
    headers = ({"Authorization": f"Bearer {token}"} if token else {}) | (
        {"X-Forwarded-For": forwarded} if forwarded else {}
    )
    return client.get(path, headers=headers, environ_base={"REMOTE_ADDR": peer})


def guess(client: FlaskClient, times: int = BURST, *, peer: str = STRANGER, forwarded: str = "") -> list[int]:
    return [ask(client, f"guess {n}", peer=peer, forwarded=forwarded).status_code for n in range(times)]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("8.8.8.8", "", "8.8.8.8"),
        ("8.8.8.8", "1.1.1.1", "8.8.8.8"),  # whoever comes directly says what he likes
        ("::ffff:8.8.8.8", "", "8.8.8.8"),
        ("2606:4700:1:2:3:4:5:6", "", "2606:4700:1:2::/64"),
        (ROUTER, "1.1.1.1", f"1.1.1.1 by way of {ROUTER}"),
        (
            ROUTER,
            "9.9.9.9, 1.1.1.1",
            f"1.1.1.1 by way of {ROUTER}",
        ),  # the router wrote the last one, and the sender what is before it
        (ROUTER, "9.9.9.9,\t1.1.1.1:4711", f"1.1.1.1 by way of {ROUTER}"),
        (ROUTER, "2606:4700:1:2:3::6", f"2606:4700:1:2::/64 by way of {ROUTER}"),
        (ROUTER, "[2606:4700:1:2:3::6]:443", f"2606:4700:1:2::/64 by way of {ROUTER}"),
        (ROUTER, "", ROUTER),
        (ROUTER, "unknown", ROUTER),
        (ROUTER, "1.1.1.1, ", ROUTER),
        ("100.64.0.9", "1.1.1.1", "1.1.1.1 by way of 100.64.0.9"),
        ("127.0.0.1", "1.1.1.1", "1.1.1.1 by way of 127.0.0.1"),
        ("fd00::1", "1.1.1.1", "1.1.1.1 by way of fd00::/64"),
        ("fe80::1%eth0", "", "fe80::/64"),
        ("", "1.1.1.1", "1.1.1.1 by way of unknown"),  # a socket of Unix has no address
        ("", "", "unknown"),
    ],
)
def test_the_address_that_counts(peer: str, forwarded: str, address: str) -> None:
    assert counted(peer, forwarded)[0] == Source(address)


@pytest.mark.parametrize(
    ("peer", "whole"),
    [("8.8.8.8", None), (ROUTER, ROUTER), ("fd00::1:2", "fd00::/64"), ("::ffff:10.0.0.1", "10.0.0.1"), ("", "unknown")],
)
def test_a_peer_without_a_public_address_is_counted_as_a_whole_too(peer: str, whole: str | None) -> None:
    expected = (Source(f"all by way of {whole}", PEER_BURST, PEER_INTERVAL_S),) if whole else ()
    for forwarded in ("", "1.1.1.1", "9.9.9.9"):
        assert counted(peer, forwarded)[1:] == expected


def test_so_many_failures_are_free_and_then_one_comes_back_in_each_interval() -> None:
    now = [100.0]
    failures = Failures(lambda: now[0])
    for _ in range(BURST):
        assert failures.wait_s(A) == 0
        failures.add(A)
    assert failures.wait_s(A) == INTERVAL_S
    now[0] += INTERVAL_S / 2
    assert failures.wait_s(A) == INTERVAL_S / 2
    now[0] += INTERVAL_S / 2
    assert failures.wait_s(A) == 0
    failures.add(A)
    assert failures.wait_s(A) == INTERVAL_S
    now[0] += BURST * INTERVAL_S
    for _ in range(BURST):
        assert failures.wait_s(A) == 0
        failures.add(A)
    assert failures.wait_s(A) == INTERVAL_S


def test_many_addresses_take_no_more_memory_and_the_newest_are_remembered() -> None:
    failures = Failures(lambda: 0.0)
    for n in range(3 * REMEMBERED):
        failures.add(counted(f"2606:4700:{n % 65_536:x}:{n // 65_536:x}::1", ""))
    assert len(failures) == REMEMBERED
    for _ in range(BURST):
        failures.add(A)
    assert failures.wait_s(A) > 0
    assert len(failures) == REMEMBERED


def test_a_guesser_has_to_wait_and_may_try_again_later(world: World) -> None:
    client = world.app().test_client()
    assert guess(client, BURST + 3) == [401] * BURST + [429] * 3
    answer = ask(client, "guess")
    assert (answer.content_type, answer.headers["Retry-After"]) == ("application/problem+json", "2")
    assert "try again in 2 s" in answer.get_json(force=True)["detail"]
    world.ticks += INTERVAL_S
    assert guess(client, 2) == [401, 429]


def test_while_an_address_has_to_wait_the_right_token_is_not_looked_at_either(world: World) -> None:
    client = world.app().test_client()
    guess(client)
    assert [ask(client, token).status_code for token in (ADMIN, READ)] == [429, 429]
    world.ticks += INTERVAL_S
    assert [ask(client, token).status_code for token in (ADMIN, READ, ADMIN)] == [200, 200, 200]  # it costs nothing


@pytest.mark.parametrize(("peer", "forwarded"), [("203.0.113.8", ""), (ROUTER, "203.0.113.7"), (ROUTER, "")])
def test_nobody_waits_for_the_failures_of_another_address(world: World, peer: str, forwarded: str) -> None:
    client = world.app().test_client()
    guess(client)
    guess(client, peer=ROUTER, forwarded="203.0.113.6")
    assert ask(client, ADMIN, peer=peer, forwarded=forwarded).status_code == 200


def test_nobody_makes_another_address_wait_by_naming_it(world: World) -> None:
    client = world.app().test_client()
    guess(client, 2 * PEER_BURST, peer="192.168.1.50", forwarded="93.184.216.7")
    assert ask(client, ADMIN, peer=ROUTER, forwarded="93.184.216.7").status_code == 200
    assert ask(client, ADMIN, peer="93.184.216.7").status_code == 200


def test_the_bound_of_a_peer_is_remembered_whatever_addresses_it_invents() -> None:
    now = [0.0]
    failures = Failures(lambda: now[0])
    tried = 0
    for n in range(3 * REMEMBERED):
        sources = counted(ROUTER, f"1.{n // 65_536}.{n // 256 % 256}.{n % 256}")
        if not failures.wait_s(sources):
            tried += 1
            failures.add(sources)
    assert tried == PEER_BURST
    assert len(failures) == PEER_BURST + 1


def test_health_is_never_refused_and_a_missing_token_is_no_guess(world: World) -> None:
    client = world.app().test_client()
    assert [ask(client, None).status_code for _ in range(3 * BURST)] == [401] * 3 * BURST
    guess(client)
    assert ask(client, "guess", path="/healthz").status_code == 200
    assert ask(client, None).status_code == 401


def test_a_path_that_is_not_there_is_no_way_to_guess_for_free(world: World) -> None:
    client = world.app().test_client()
    for _ in range(BURST):
        assert ask(client, "guess", path="/nowhere").status_code == 401
    assert ask(client, "guess", path="/nowhere").status_code == 429


def test_the_log_says_whose_tokens_are_wrong_and_no_token(world: World, caplog: pytest.LogCaptureFixture) -> None:
    client = world.app().test_client()
    with caplog.at_level(logging.WARNING):
        guess(client, BURST - 1)
        assert caplog.records == []
        guess(client, 5)
    [record] = caplog.records
    assert record.__dict__["address"] == STRANGER
    assert "guess" not in caplog.text


def test_every_stranger_is_refused_everything_but_health_and_guesses_at_callbacks(world: World) -> None:
    """With no token set: every path there is and one there is not, by every method, from everywhere else."""
    app = world.app(admin=None)
    places = {rule.rule: rule.endpoint for rule in app.url_map.iter_rules()}
    client = app.test_client()
    methods = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW")
    ways = [
        {"REMOTE_ADDR": STRANGER}, {"REMOTE_ADDR": ROUTER}, {"REMOTE_ADDR": "2606:4700::1"}, {"REMOTE_ADDR": ""},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"REMOTE_ADDR": STRANGER, "HTTP_AUTHORIZATION": f"Bearer {READ}"},
    ]  # fmt: skip
    served = set()
    for path, method, way in product((*places, "/nowhere"), methods, ways):
        answer = client.open(path.replace("<", "").replace(">", ""), method=method, environ_base=way)
        if answer.status_code != 403:
            served.add((path, method))
    # The form says nothing but that there is one, and what it is posted is refused.
    public = set(product(("/healthz", "/readyz", "/sign-in", "/static/<path:filename>"), ("GET", "HEAD", "OPTIONS")))
    # A guess at the address of callbacks gets the answer of nothing there, and so does a click without buttons.
    hooks = product(("/hooks/ci/<token>", "/hooks/ci/<token>/<watch>", "/hooks/slack"), ("POST", "OPTIONS"))
    assert served == {*public, *hooks, ("/sign-out", "OPTIONS")}
    assert len(places) >= 19
