"""Signing in: who gets a session, what it lets them do, and how it ends."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urljoin, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bridge.admin.auth_throttle import BURST
from bridge.admin.pages.session import COOKIE, LASTS
from bridge.links import Links
from bridge.record.schema import actions, silences
from tests.admin.pages.reading import text_of
from tests.support.admin_world import ADMIN, READ, World
from tests.support.records import rows

HERE = {"Origin": "http://localhost"}
LINKS = Links("https://bridge.example.com")
# What Chromium sends when somebody follows a link of another site.
FROM_A_CHAT = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def sign_in(client: FlaskClient, token: str, *, then: str = "/", **headers: str) -> TestResponse:
    return client.post("/sign-in", data={"token": token, "next": then}, headers=HERE | headers)


@pytest.fixture
def client(world: World) -> FlaskClient:
    return world.app().test_client()


def test_signing_in_leads_back_to_the_requested_page(client: FlaskClient) -> None:
    asked = client.get("/jobs?state=Failed")
    assert (asked.status_code, asked.location) == (303, "/sign-in?next=/jobs?state%3DFailed")
    form = client.get(asked.location)
    assert 'name="next" value="/jobs?state=Failed"' in form.text
    entered = sign_in(client, ADMIN, then="/jobs?state=Failed")
    assert (entered.status_code, entered.location) == (303, "/jobs?state=Failed")
    assert client.get("/jobs?state=Failed").status_code == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "jobs", "/a\nb", "",
        "\\\\evil.example", "/\t/evil.example", " //evil.example", "/\r\nLocation: https://evil.example",
        "///evil.example", "http:evil.example", "\u2044\u2044evil.example", "/\u2028/evil.example",
        "https:/\\evil.example", "%2f%2fevil.example",
    ],
)  # fmt: skip
def test_nobody_is_led_to_another_site(client: FlaskClient, elsewhere: str) -> None:
    assert sign_in(client, ADMIN, then=elsewhere).location == "/"
    assert client.get("/sign-in", query_string={"next": elsewhere}).location == "/"  # signed in already


@pytest.mark.parametrize(
    "path", ["//evil.example", "//evil.example/jobs", "/\\evil.example", "/%5cevil.example", "///"]
)
def test_an_address_that_looks_like_another_site_leads_nowhere_after_signing_in(client: FlaskClient, path: str) -> None:
    asked = client.get(path, headers={"Accept": "text/html"}, base_url="http://localhost")
    assert asked.status_code in (303, 404)
    led_to = parse_qs(urlsplit(asked.location or "").query).get("next", ["/"])[0]
    entered = sign_in(client, ADMIN, then=led_to).location
    assert urlsplit(urljoin("http://localhost/", entered)).netloc == "localhost"


@pytest.mark.parametrize(
    "link",
    [
        LINKS.job("je27bb668da8f11ee"), LINKS.job("a/b?c#d e"), LINKS.delivery("dlv_1"), LINKS.digest("dlv_1"),
        LINKS.silence("failed"), LINKS.silence("100% & more; \u4e2d\u6587 #1 +"), LINKS.overview(),
    ],
)  # fmt: skip
def test_a_link_of_a_message_opens_its_page_after_signing_in(client: FlaskClient, link: str) -> None:
    target = link.removeprefix(LINKS.base or "")
    asked = client.get(target, headers=FROM_A_CHAT)
    form = client.get(asked.location)
    (then,) = re.findall(r'name="next" value="([^"]*)"', form.text)
    entered = sign_in(client, ADMIN, then=html.unescape(then))
    assert unquote_plus(entered.location) == unquote_plus(target)
    again = client.get(target, headers=FROM_A_CHAT)
    assert again.status_code in (200, 404)  # no such job; but nobody signs in again
    assert "sign-in" not in (again.location or "")


def test_the_link_that_silences_a_rule_fills_in_the_form(client: FlaskClient) -> None:
    sign_in(client, ADMIN)
    name = 'all "of" it & <more>'
    form = client.get((LINKS.silence(name) or "").removeprefix(LINKS.base or ""), headers=FROM_A_CHAT)
    assert name in [html.unescape(value) for value in re.findall(r'value="([^"]*)"', form.text)]


def test_the_cookie_is_kept_from_scripts_and_from_other_sites(client: FlaskClient) -> None:
    given = sign_in(client, ADMIN).headers["Set-Cookie"]
    assert given.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(given.split("; "))
    assert "Secure" not in given


def test_behind_tls_the_cookie_is_for_tls_only(client: FlaskClient) -> None:
    assert "Secure" in sign_in(client, ADMIN, **{"X-Forwarded-Proto": "https"}).headers["Set-Cookie"]
    https = "https://localhost"
    over_tls = client.post("/sign-in", base_url=https, data={"token": ADMIN}, headers={"Origin": https})
    assert "Secure" in over_tls.headers["Set-Cookie"]


def test_a_wrong_token_opens_nothing_and_says_so(client: FlaskClient) -> None:
    answer = sign_in(client, "wrong")
    assert answer.status_code == 401
    assert "none of BRIDGE_ADMIN_TOKEN, BRIDGE_READ_TOKEN and BRIDGE_TOKENS" in answer.text
    assert client.get("/").status_code == 303


def test_guessing_is_slow_on_the_form_as_on_the_api(client: FlaskClient) -> None:
    statuses = [sign_in(client, f"guess {n}").status_code for n in range(int(BURST) + 1)]
    assert statuses[-1] == 429
    assert sign_in(client, ADMIN).status_code == 429
    assert client.get("/api/v1/jobs", headers={"Authorization": "Bearer x"}).status_code == 429


def test_the_read_token_shows_everything_and_changes_nothing(client: FlaskClient) -> None:
    sign_in(client, READ)
    page = client.get("/")
    assert page.status_code == 200
    assert "read only" in page.text
    refused = client.post("/jobs/j1/tell", headers=HERE)
    assert refused.status_code == 403
    assert "signed in with a read token" in refused.text


def test_a_session_ends_by_itself(world: World, client: FlaskClient) -> None:
    sign_in(client, ADMIN)
    world.now += LASTS - timedelta(seconds=1)
    assert client.get("/").status_code == 200
    world.now += timedelta(seconds=1)
    assert client.get("/").status_code == 303


def test_signing_out_ends_it_and_empties_the_browsers_cache(client: FlaskClient) -> None:
    sign_in(client, ADMIN)
    answer = client.post("/sign-out", headers=HERE)
    assert (answer.location, answer.headers["Clear-Site-Data"]) == ("/sign-in", '"cache"')
    assert client.get("/").status_code == 303


def cookie_of(world: World, token: str, **tokens: Any) -> str:
    client = world.app(**tokens).test_client()
    assert sign_in(client, token).status_code == 303
    cookie = client.get_cookie(COOKIE)
    assert cookie
    return cookie.value


def shows(world: World, cookie: str, **tokens: Any) -> int:
    client = world.app(**tokens).test_client()
    client.set_cookie(COOKIE, cookie)
    return client.get("/").status_code


OPS, DESK = ("ops", "admin", "token-of-ops"), ("desk", "read", "token-of-the-desk")


def test_a_session_ends_with_its_token_and_with_no_other(world: World) -> None:
    cookies = {token: cookie_of(world, token, tokens=[OPS, DESK]) for token in (ADMIN, READ, OPS[2], DESK[2])}

    def left(**tokens: Any) -> set[str]:
        return {token for token, cookie in cookies.items() if shows(world, cookie, **tokens) == 200}

    every = set(cookies)
    assert left(tokens=[DESK, OPS]) == every
    assert left(tokens=[OPS]) == every - {DESK[2]}
    assert left(tokens=[("ops", "admin", "another"), DESK]) == every - {OPS[2]}
    assert left(admin=None, tokens=[OPS, DESK]) == every - {ADMIN}
    assert left(read="another", tokens=[OPS, DESK]) == every - {READ}
    assert left(tokens=[("ops", "admin", DESK[2]), ("desk", "read", OPS[2])]) == {ADMIN, READ}


def test_a_session_has_the_role_that_its_token_has_now(world: World) -> None:
    cookie = cookie_of(world, OPS[2], tokens=[OPS])
    client = world.app(tokens=[("ops", "read", OPS[2])]).test_client()
    client.set_cookie(COOKIE, cookie)
    assert client.post("/watches/vod/poll", headers=HERE).status_code == 403


def test_who_has_a_token_makes_no_session_of_another(world: World) -> None:
    """A session is signed with a key of its own token: it can only be signed by who has that."""
    mine = cookie_of(world, DESK[2], tokens=[OPS, DESK])
    forger = world.app(tokens=[("admin", "admin", DESK[2])], admin=None, read=None)
    client = forger.test_client()
    sign_in(client, DESK[2])
    forged = client.get_cookie(COOKIE)
    assert forged
    for cookie in (f"ops:{mine.partition(':')[2]}", f"admin:{mine.partition(':')[2]}", mine.partition(":")[2]):
        assert shows(world, cookie, tokens=[OPS, DESK]) == 303
    assert shows(world, forged.value, tokens=[OPS, DESK]) == 303
    assert shows(world, forged.value.replace("admin:", "desk:", 1), tokens=[OPS, DESK]) == 303


def test_the_name_that_is_given_when_signing_in_is_recorded_as_a_claim(world: World) -> None:
    world.sync()
    client = world.app(tokens=[OPS]).test_client()
    client.post("/sign-in", data={"token": OPS[2], "name": " 李雷 "}, headers=HERE)
    client.post("/watches/vod/pause", headers=HERE)
    client.post("/silences/add", data={"everything": "yes", "for": "1h", "reason": "x"}, headers=HERE)
    found = [(row["who"], row["claimed"]) for row in rows(world.db, actions)]
    assert found == [("ops", "李雷"), ("ops", "李雷")]
    (silence,) = rows(world.db, silences)
    assert silence["author"] == "李雷 (token ops)"
    assert "ops claimed: 李雷" in text_of(client.get("/actions").text)


def test_a_name_that_cannot_be_recorded_is_refused_and_nobody_is_signed_in(client: FlaskClient) -> None:
    answer = client.post("/sign-in", data={"token": ADMIN, "name": "a\u202eb"}, headers=HERE)
    assert answer.status_code == 400
    assert "Your name:" in answer.text
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("claimed", ["x" * 101, "a\nb", "\u202egnp", 7, ["ann"]])
def test_a_name_that_a_cookie_could_not_have_is_left_out(world: World, claimed: object) -> None:
    app = world.app(tokens=[OPS])
    made = app.session_interface.get_signing_serializer(app)
    assert made
    until = (world.now + LASTS).timestamp()
    client = app.test_client()
    client.set_cookie(COOKIE, made.dumps({"token": OPS[0], "claimed": claimed, "until": until, "_permanent": True}))
    assert client.post("/watches/vod/pause", headers=HERE).status_code == 303
    assert [(row["who"], row["claimed"]) for row in rows(world.db, actions)] == [(OPS[0], None)]


def test_a_cookie_that_was_changed_is_none(client: FlaskClient) -> None:
    sign_in(client, READ)
    cookie = client.get_cookie(COOKIE)
    assert cookie is not None
    for forged in (cookie.value[:-2] + "AA", cookie.value.replace(".", "A", 1), "x", "", "." * 50):
        client.set_cookie(COOKIE, forged)
        assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_a_post_that_no_page_of_ours_makes_is_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    sign_in(client, ADMIN)
    for path in ("/jobs/j1/tell", "/sign-out", "/sign-in"):
        refused = client.post(path, data={"token": ADMIN}, headers=headers)
        assert refused.status_code == 403
        assert "not made by a page of this bridge" in refused.text


def test_a_proxy_may_have_changed_the_host_where_the_browser_says_it_is_the_same_site(client: FlaskClient) -> None:
    headers = {"Origin": "https://bridge.example", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/sign-in", data={"token": ADMIN}, headers=headers).status_code == 303


def test_the_cookie_opens_no_api(client: FlaskClient) -> None:
    sign_in(client, ADMIN)
    assert client.get("/api/v1/jobs").status_code == 401
    assert client.post("/api/v1/watches/vod/poll", headers=HERE).status_code == 401


def test_a_token_in_the_header_opens_no_page(client: FlaskClient) -> None:
    assert client.get("/", headers={"Authorization": f"Bearer {ADMIN}"}).status_code == 303


def test_while_no_token_is_set_this_machine_needs_none_and_no_other_gets_in(world: World) -> None:
    client = world.app(admin=None, read=None).test_client()
    client.environ_base["SERVER_PROTOCOL"] = "HTTP/1.1"
    assert client.get("/").status_code == 200
    assert client.get("/sign-in").status_code == 303
    assert "Sign out" not in client.get("/").text
    assert client.get("/", headers=FROM_A_CHAT).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/", headers=FROM_A_CHAT | {"Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert client.post("/watches/vod/poll", headers=FROM_A_CHAT).status_code == 403
    client.environ_base["REMOTE_ADDR"] = "203.0.113.9"
    refused = client.get("/")
    assert refused.status_code == 403
    assert "BRIDGE_ADMIN_TOKEN" in refused.text
    assert client.post("/sign-in", data={"token": ""}, headers=HERE).status_code == 403


def test_a_refresh_redirects_when_the_session_is_over(client: FlaskClient) -> None:
    answer = client.get("/", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/sign-in")


def test_pages_and_files_say_what_a_browser_may_do(client: FlaskClient) -> None:
    page = client.get("/sign-in")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "private, no-cache"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    script = client.get("/static/app.js")
    assert "immutable" in script.headers["Cache-Control"]
    assert script.headers["Content-Type"].startswith("text/javascript")
    script.close()
    assert client.get("/static/../session.py").status_code == 404
    assert client.get("/static/%2e%2e/session.py").status_code == 404


def test_an_unchanged_page_is_answered_304(client: FlaskClient) -> None:
    first = client.get("/sign-in")
    again = client.get("/sign-in", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_a_nul_in_an_address_is_nothing_on_either_database(either_world: World) -> None:
    client = either_world.app().test_client()
    sign_in(client, ADMIN)
    for path in ("/jobs/%00", "/deliveries/%00", "/jobs/a%00b"):
        assert client.get(path).status_code == 404


def test_the_page_somebody_is_on_is_marked(client: FlaskClient) -> None:
    sign_in(client, ADMIN)
    for path, name in (
        ("/", "Overview"),
        ("/jobs", "Jobs"),
        ("/deliveries/batches", "Deliveries"),
        ("/rules", "Rules"),
    ):
        assert f'aria-current="page">{name}</a>' in client.get(path).text
