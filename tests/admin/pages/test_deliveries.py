"""Deliveries: found, understood, sent again one by one; what goes out is shown without a secret."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html import unescape

import pytest
from flask.testing import FlaskClient

from bridge.decide.messages.build import test_message as a_test_message
from bridge.model import NewDelivery, Rejected, RetryLater, Sent
from bridge.pipeline.digests import DigestDispatcher
from bridge.record.outbox import entries, silences
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from tests.admin.pages.reading import text_of
from tests.support.admin_world import NOON, RULES, SECRETS, World, a_book, a_failed_job, a_silence, job_number

HOSTILE = '"><script>alert(1)</script>&'
RECEIVER = f"不行 {HOSTILE}"


def ids(world: World, **which: str) -> list[str]:
    with world.db.read() as tx:
        return [one["id"] for one in lists.find_deliveries(tx, Filter(**which)).items]


def state(world: World, delivery: str) -> str:
    with world.db.read() as tx:
        found = lists.delivery_details(tx, delivery)
    assert found
    return str(found["state"])


def a_dead_one(world: World, number: int = 1, *, answer: str = "") -> str:
    delivery = world.delivery_of(number)
    world.attempt(Rejected("no such thing"), answer=answer)
    return delivery


def text(page: str) -> str:
    """Return what a page says, without what it is made of."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


# --- the list -----------------------------------------------------------------------------------------------


def test_a_row_says_what_was_told_to_whom_and_how_it_went(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(7))
    world.attempt(Rejected("no such channel"))
    page = admin.get("/deliveries").text
    assert "dead ops/1 Failed j7 failed 1 no such channel" in text(page)
    assert '/jobs/j7?bucket=media-1250000000"' in page
    assert '/rules#rule-failed"' in page
    assert '/notifiers#notifier-ops/1"' in page


@pytest.mark.parametrize(
    ("mode", "state", "why", "button"),
    [("hold", "held", "mute “ nights <b> ”", None), ("drop", "dropped", "mute “ nights <b> ”", "Resend")],
)
def test_what_a_gate_kept_says_which(
    world: World, admin: FlaskClient, mode: str, state: str, why: str, button: str | None
) -> None:
    world.book = a_book(f'{RULES}[[mute]]\nname = "nights <b>"\nbetween = "00:00-23:59"\nmode = "{mode}"\n')
    world.sees(job_number(1))
    page = admin.get(f"/deliveries?state={state}").text
    assert f"{state} cms Running j1 all 0 {why}" in text(page)
    assert "<b>" not in page
    (one,) = ids(world)
    assert (f'aria-label="Resend {one}"' in admin.get(f"/deliveries/{one}").text) == (button is not None)
    assert ("Resend the chosen ones" in page) == (button is not None)


def test_what_a_silence_holds_leads_to_it(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        silences.add(tx, a_silence("sil_1"))
    world.sees(job_number(1, state="Failed"))
    assert 'href="/silences#silence-sil_1"' in admin.get("/deliveries").text
    assert 'id="silence-sil_1"' in admin.get("/silences").text


def test_deliveries_are_filtered_by_the_address(world: World, admin: FlaskClient) -> None:
    dead = a_dead_one(world, 1)
    waiting = world.delivery_of(2)
    for query, found in (
        ("state=dead", {dead}), ("state=waiting", {waiting}), ("notifier=cms", {dead, waiting}), ("notifier=x", set()),
        ("job=j2", {waiting}), ("rule=all", {dead, waiting}), ("rule=failed", set()), ("digest=dlv_1", set()),
        ("since=2026-11-21 12:01", set()), ("until=2026-11-21T12:00:01Z&state=dead", {dead}),
    ):  # fmt: skip
        page = admin.get(f"/deliveries?{query}").text
        assert {one for one in (dead, waiting) if f"/deliveries/{one}" in page} == found, query


@pytest.mark.parametrize("query", ["state=lost", "since=soon", "until=%00x"])
def test_a_filter_that_cannot_be_read_is_named_and_the_rest_is_shown(
    world: World, admin: FlaskClient, query: str
) -> None:
    delivery = world.delivery_of(1)
    page = admin.get(f"/deliveries?{query}").text
    assert 'role="alert"' in page
    assert delivery in page


def test_nothing_found_says_what_to_do(admin: FlaskClient) -> None:
    assert "as soon as a rule tells somebody" in admin.get("/deliveries").text
    assert "Clear a filter" in admin.get("/deliveries?state=dead").text


def test_older_deliveries_are_a_page_away(world: World, admin: FlaskClient) -> None:
    world.sees(*(job_number(n) for n in range(40)))
    first = admin.get("/deliveries?notifier=cms").text
    older = unescape(first.split('rel="next" href="')[1].split('"')[0])
    second = admin.get(older).text
    assert "/jobs/j39?" in first
    assert "/jobs/j39?" not in second
    assert "/jobs/j0?" in second
    assert "hx-get" not in second  # it would move under the reader


def test_the_chosen_ones_are_sent_again(world: World, admin: FlaskClient) -> None:
    first, second, third = (a_dead_one(world, number) for number in (1, 2, 3))
    page = admin.get("/deliveries").text
    assert f'value="{first}" aria-label="Choose {first}"' in page
    answer = admin.post("/deliveries/redrive-chosen", data={"id": [first, second]}, follow_redirects=True)
    assert f"2 of 2 are on the way: {first}, {second}.".replace(", ", " , ") in text(answer.text).replace(" .", ".")
    assert f'<a href="/deliveries/{second}">' in answer.text
    assert [state(world, one) for one in (first, second, third)] == ["waiting", "waiting", "dead"]


def test_of_many_chosen_ones_the_first_are_named(world: World, admin: FlaskClient) -> None:
    dead = [a_dead_one(world, number) for number in range(8)]
    answer = admin.post("/deliveries/redrive-chosen", data={"id": dead}, headers={"Referer": "http://localhost/jobs"})
    said = admin.get(answer.location).text
    assert "8 of 8 are on the way" in said
    assert said.count('<a href="/deliveries/dlv_') == 5
    assert '<a href="/deliveries?state=waiting">3 more</a>' in said


def test_what_changed_before_it_was_chosen_is_told(world: World, admin: FlaskClient) -> None:
    dead, waiting = a_dead_one(world, 1), world.delivery_of(2)
    data = {"id": [dead, dead, waiting, "dlv_\0", HOSTILE]}
    answer = admin.post("/deliveries/redrive-chosen", data=data, follow_redirects=True)
    assert text(answer.text).count("1 of 4 is on the way") == 1
    assert "3 had changed meanwhile" in answer.text


def test_who_chose_nothing_is_told_so(admin: FlaskClient) -> None:
    answer = admin.post("/deliveries/redrive-chosen", follow_redirects=True)
    assert "Nothing was chosen" in answer.text


def test_only_what_can_be_sent_again_can_be_chosen(world: World, admin: FlaskClient) -> None:
    world.delivery_of(1)
    world.attempt(Sent())
    assert 'type="checkbox"' not in admin.get("/deliveries").text


# --- one of them --------------------------------------------------------------------------------------------


def test_a_delivery_shows_each_attempt_and_what_the_receiver_said(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    world.attempt(RetryLater("no answer within 15 s"))
    world.now = NOON + timedelta(minutes=2)
    world.attempt(Rejected("answered 422"), answer=RECEIVER)
    page = admin.get(f"/deliveries/{delivery}").text
    assert text(page).index("Attempt 2 refused HTTP 500 200 ms answered 422") < text(page).index("Attempt 1 later")
    assert f"<pre>不行 {HOSTILE}".replace(HOSTILE, "&#34;&gt;&lt;script&gt;") in page
    assert "It died" in page
    assert f'aria-label="Resend {delivery}"' in page
    assert "hx-get" not in page  # nothing will change by itself


def test_what_waits_is_looked_at_again(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    page = admin.get(f"/deliveries/{delivery}").text
    assert f'hx-get="/deliveries/{delivery}"' in page
    assert "It waits for its next attempt." in page
    assert "What will be sent" in page


def test_a_dead_delivery_is_sent_again(world: World, admin: FlaskClient) -> None:
    delivery = a_dead_one(world)
    answer = admin.post(f"/deliveries/{delivery}/redrive", follow_redirects=True)
    assert f"{delivery} is on its way." in answer.text
    assert state(world, delivery) == "waiting"
    again = admin.post(f"/deliveries/{delivery}/redrive", follow_redirects=True)
    assert "only a dead or a dropped one can be resent" in again.text


def test_what_waits_for_a_paused_notifier_leads_to_it(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    with world.db.write() as tx:
        entries.pause(tx, "cms", f"it wants no more {HOSTILE}", now=NOON)
    page = admin.get(f"/deliveries/{delivery}").text
    assert "It waits because its notifier is paused: it wants no more" in page
    assert HOSTILE not in page
    assert '/notifiers#notifier-cms"' in page
    assert 'action="/notifiers/cms/resume"' in page


def test_a_digest_and_its_members_lead_to_each_other(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        silences.add(tx, a_silence())
    world.sees(job_number(1, state="Failed"), job_number(2, state="Failed"))
    member = ids(world, state="held")[0]
    assert "The silence &#34;sil_1&#34; was on. It is held back" in admin.get(f"/deliveries/{member}").text
    world.now = NOON + timedelta(hours=2)
    DigestDispatcher(db=world.db, book=lambda: world.book, clock=lambda: world.now, monotonic=lambda: 0.0).tell_due()
    (digest,) = set(ids(world)) - set(ids(world, state="merged"))
    told = admin.get(f"/deliveries/{digest}").text
    assert f'href="/deliveries/{member}"' in told
    assert "What it tells of" in told
    assert f'href="/deliveries/{digest}"' in admin.get(f"/deliveries/{member}").text


def test_no_page_of_a_delivery_has_a_secret(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1), job_number(2))
    world.attempt(Rejected("no"))
    for delivery in ids(world):
        page = admin.get(f"/deliveries/{delivery}").text
        assert [secret for secret in SECRETS if secret in page] == []


def test_a_webhook_is_shown_as_a_request_and_as_curl(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    page = unescape(admin.get(f"/deliveries/{delivery}").text)
    assert "curl -X POST https://cms.example.com:8443/PATH \\\n" in page
    assert f"-H 'webhook-id: {delivery}'" in page
    assert "-H 'user-agent: ci-bridge/9.9.9'" in page
    assert '  "specversion": "1.0",\n' in page
    assert 'data-copy="curl" aria-label="Copy the curl command"' in page


def test_slack_is_shown_as_text(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1))
    page = admin.get(f"/deliveries/{ids(world)[0]}").text
    assert "To Slack, C024BE91L" in text(page)
    assert "curl" not in page


def test_without_its_notifier_a_delivery_still_says_what_it_tells(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    world.book = replace(world.book, notifiers={})
    page = admin.get(f"/deliveries/{delivery}").text
    assert "rules.toml has no notifier “cms” now" in page
    assert "ci.job.running" in page
    assert "put it back" in page


def test_hostile_and_chinese_texts_are_texts(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1, input=f"上传/电影 预告片{HOSTILE}'$(id)'.mp4", queue=HOSTILE, user_data=HOSTILE))
    (delivery,) = ids(world)
    for path in ("/deliveries", f"/deliveries/{delivery}", f"/deliveries?rule={HOSTILE}&state=dead"):
        page = admin.get(path).text
        assert "<script>alert" not in page
    assert "上传/电影 预告片" in admin.get(f"/deliveries/{delivery}").text


def test_a_delivery_that_is_not_there_is_not_found(admin: FlaskClient) -> None:
    answer = admin.get("/deliveries/dlv_404%3Cscript%3E")
    assert answer.status_code == 404
    assert "may have been pruned" in answer.text
    assert "<script>" not in answer.text.split("</head>")[1]


# --- who may only look --------------------------------------------------------------------------------------


def test_who_may_only_look_finds_no_button_and_no_answer(world: World, reader: FlaskClient) -> None:
    delivery = a_dead_one(world, answer="token=of-the-receiver")
    page = reader.get(f"/deliveries/{delivery}").text
    assert "of-the-receiver" not in page
    assert "shown to the admin token only" in page
    assert f'action="/deliveries/{delivery}' not in page
    listed = reader.get("/deliveries?state=dead").text
    assert delivery in listed
    assert "checkbox" not in listed
    assert "Resend" not in listed


def test_who_may_only_look_sends_nothing_again(world: World, reader: FlaskClient) -> None:
    delivery = a_dead_one(world)
    assert reader.post(f"/deliveries/{delivery}/redrive").status_code == 403
    assert reader.post("/deliveries/redrive-chosen", data={"id": delivery}).status_code == 403
    assert state(world, delivery) == "dead"


def test_a_recovery_names_the_state_that_was_left(world: World, admin: FlaskClient) -> None:
    over = replace(
        a_test_message("cms", nonce="1", now=NOON), kind="recovery", state="Success", event={"data": {"in": "Running"}}
    )
    with world.db.write() as tx:
        entries.put(tx, [NewDelivery(id="d1", message=over, notifier="cms", ordering_key=None)], now=NOON)
    for path in ("/deliveries", "/deliveries/d1"):
        said = text_of(admin.get(path).text)
        assert "no longer Running" in said
        assert "no longer Success" not in said
