"""Requests and texts that nobody means well with."""

from __future__ import annotations

import json
from datetime import timedelta
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bridge.model import NEW, PAUSE, RUNNING, Rejected, Transition
from bridge.pipeline.route import route_all
from bridge.record.polling import snapshots
from tests.support.admin_world import ADMIN, BUCKET, SECRETS, World, a_book, a_failed_job, job_number

EVIL = "\"><evil x=' onload=y>&#39;{{7*7}}</textarea></pre></title>`"
RULES = f"""
[alias.queue]
{json.dumps(EVIL)} = "p224"
[[watch]]
name = {json.dumps(EVIL)}
bucket = "{BUCKET}"
region = "ap-chongqing"
tags = ["Transcode", {json.dumps(EVIL)}]
[notifier.{json.dumps(EVIL)}]
type = "webhook"
url = "https://cms.example.com/path-is-secret"
[[rule]]
name = {json.dumps(EVIL)}
notify = [{json.dumps(EVIL)}]
[[mute]]
name = {json.dumps(EVIL)}
between = "02:00-03:00"
match.tag = {json.dumps(EVIL)}
"""
PAGES = (
    "/", "/jobs", "/deliveries", "/rules", "/notifiers", "/silences", "/watches", "/deliveries/batches",
    "/rules/explain",
    "/rules/try", "/silences/add", "/actions",
)  # fmt: skip


# --- what browsers and proxies say -------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["http://[x", "http://localhost//evil.example/", "x", "http://evil.example/jobs"])
def test_where_a_form_was_is_gone_back_to_only_if_it_is_a_page_of_ours(admin: FlaskClient, page: str) -> None:
    answer = admin.post("/watches/vod/pause", headers={"Referer": page})
    assert (answer.status_code, answer.location) == (303, "/watches")


def test_a_host_with_an_underscore_is_one(world: World) -> None:
    client = world.app().test_client()
    here = "http://ci_bridge:8080"

    def post(path: str, **headers: str) -> TestResponse:
        return client.post(path, base_url=here, data={"token": ADMIN}, headers=headers)

    for elsewhere in ("null", "http://", "http://other_bridge:8080"):
        assert post("/sign-in", Origin=elsewhere).status_code == 403
    assert post("/sign-in", Origin=here).status_code == 303
    assert post("/watches/vod/pause", Origin=here, Referer=f"{here}/jobs").location == "/jobs"


@pytest.mark.parametrize("host", ["", "a b", "[::1"])
def test_an_origin_of_null_is_never_ours(world: World, host: str) -> None:
    client = world.app().test_client()
    answer = client.post("/sign-in", data={"token": ADMIN}, headers={"Host": host, "Origin": "null"})
    assert answer.status_code == 403


def test_signing_in_leads_back_to_any_address(world: World) -> None:
    wanted = "/jobs/%E6%B5%8B%3Fx%23?bucket=%E6%B5%8B"
    client = world.app().test_client()
    asked = client.get(client.get(wanted).location)
    assert f'name="next" value="{wanted}"' in asked.text


def test_no_page_has_a_secret_of_the_rules(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1), job_number(2))
    world.attempt(Rejected("no"))
    details = [f"/deliveries/{delivery['id']}" for delivery in world.deliveries()]
    assert len(details) == 2
    for path in (*PAGES, *details, "/jobs/j1", "/rules/explain?job=j1"):
        page = admin.get(path)
        assert page.status_code == 200, path
        assert [secret for secret in SECRETS if secret in page.text] == [], path


# --- how much ----------------------------------------------------------------------------------------------


def _busy(world: World, count: int) -> None:
    """Record a job that went to and fro."""
    was = NEW
    with world.db.write() as tx:
        for number in range(count):
            job, at = job_number(1, state=(RUNNING, PAUSE)[number % 2]), world.now + timedelta(seconds=number)
            step = Transition(job=job, was=was, to=job.state, sequence=number + 1, seen_at=at, watch="vod")
            before = snapshots.known(tx, BUCKET, [job.id])
            snapshots.save(tx, [job], [step], before, stream="s", streams=["s"], now=at)
            route_all(tx, world.book, [step], at)
            was = job.state


def test_of_a_job_that_went_to_and_fro_the_newest_is_shown(world: World, admin: FlaskClient) -> None:
    _busy(world, 120)
    page = admin.get("/jobs/j1").text
    assert page.count("Message for") + page.count("seen by watch") < 201
    assert "Only the newest are shown" in page
    for text in (page, admin.get("/rules/explain?job=j1").text):
        assert text.count("Verdict of each rule") == 50
        assert "Only the newest 50 are explained; 70 are older: see ci-bridge rules explain." in text


def test_of_many_attempts_the_newest_are_shown(world: World, admin: FlaskClient) -> None:
    id_ = world.delivery_of(1)
    for _ in range(103):
        world.attempt(Rejected("no"))
        admin.post(f"/deliveries/{id_}/redrive")
    page = admin.get(f"/deliveries/{id_}").text
    assert "Attempt 103<" in page
    assert "Attempt 4<" in page
    assert "Attempt 3<" not in page
    assert "… and 3 earlier" in page


# --- markup in texts ---------------------------------------------------------------------------------------


class _Markup(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag, *(name for name, _ in attrs)]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "action", "src", "hx-get")]


@pytest.fixture
def evil(world: World) -> World:
    world.book = a_book(RULES)
    world.sync()
    world.polled(error=EVIL)
    facts = dict.fromkeys(("tag", "queue", "input", "output", "message", "code", "user_data", "workflow_name"), EVIL)
    world.sees(job_number(1, id=f"j{EVIL}", state="Failed", **facts), job_number(2, id="javascript:alert(1)"))
    world.attempt(Rejected(EVIL), answer=EVIL)
    return world


def test_no_text_becomes_markup_on_any_page(evil: World, admin: FlaskClient) -> None:
    silence = {"tag": EVIL, "rule": EVIL, "notifier": EVIL, "for": "1h", "reason": EVIL, "author": EVIL, "add": "1"}
    assert admin.post("/silences/add", data=silence).status_code == 303
    asked = quote(EVIL)
    with evil.db.read() as tx:
        ids = [row[0] for row in tx.exec_driver_sql("SELECT id FROM delivery")]
    for path in (
        *PAGES, f"/jobs/j{asked}", f"/jobs?tag={asked}&since={asked}&state={asked}", f"/find?id={asked}",
        f"/deliveries?state={asked}&until={asked}", f"/rules?name={asked}", f"/rules/explain?job=j{asked}",
        f"/rules/explain?job={asked}&bucket={asked}", f"/silences/add?tag={asked}&other={asked}&reason={asked}",
        f"/deliveries/redrive?notifier={asked}", f"/deliveries/batches/{asked}",
        f"/deliveries/{asked}", *(f"/deliveries/{one}" for one in ids),
    ):  # fmt: skip
        _is_harmless(admin.get(path).text)
        _is_harmless(admin.get(path, headers={"HX-Request": "true"}).text)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/rules/try", {"rules": RULES, "span": EVIL}),
        ("/rules/try", {"rules": f"[notifier.{json.dumps(EVIL)}]\ntype = {json.dumps(EVIL)}\n"}),
        ("/rules/try", {"rules": EVIL}),
        ("/rules/explain", {"job": json.dumps({"tag": EVIL, "input": EVIL})}),
        ("/rules/explain", {"job": json.dumps({EVIL: EVIL})}),
        ("/rules/explain", {"job": EVIL}),
        ("/silences/add", {"preview": "1", "tag": EVIL, "for": EVIL, "from": EVIL}),
        ("/silences/add", {"preview": "1", "tag": EVIL, "for": "1h"}),
        ("/sign-in", {"token": EVIL, "next": f"/{EVIL}"}),
    ],
)
def test_no_text_of_a_form_becomes_markup(evil: World, admin: FlaskClient, path: str, data: dict[str, str]) -> None:
    assert evil.book.rules[0].name == EVIL
    _is_harmless(admin.post(path, data=data).text)
    _is_harmless(admin.post(path, data=data, headers={"HX-Request": "true"}).text)


def _is_harmless(page: str) -> None:
    markup = _Markup(page)
    assert not {"evil", "onload", "onerror", "style", "iframe"} & set(markup.found)
    assert all(one.startswith(("/", "#")) and not one.startswith("//") for one in markup.addresses)
    assert "path-is-secret" not in page or "<textarea" in page  # which has what was pasted


# --- addresses that are none ---------------------------------------------------------------------------------

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_an_unknown_address_in_a_browser_is_a_page(admin: FlaskClient) -> None:
    answer = admin.get("/nowhere", headers=BROWSER)
    assert answer.status_code == 404
    assert "there is nothing at" in answer.text
    assert "Back to the overview" in answer.text
    assert "style-src 'self'" in answer.headers["Content-Security-Policy"]


def test_a_stranger_with_a_browser_learns_of_no_address_whether_it_is_there(world: World) -> None:
    client = world.app().test_client()
    assert client.get("/nowhere", headers=BROWSER).status_code == 303
    assert client.get("/api/v1/nowhere", headers=BROWSER).status_code == 401


def test_a_program_gets_json_for_an_unknown_address(admin: FlaskClient) -> None:
    answer = admin.get("/nowhere")
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
