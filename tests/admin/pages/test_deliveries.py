"""Deliveries: found, understood, sent again one by one; what goes out is shown without a secret."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.admin.pages.deliveries import status
from bridge.decide.messages.build import test_message as a_test_message
from bridge.model import NewDelivery, Rejected, RetryLater, Sent
from bridge.pipeline.digests import send_due_digests
from bridge.pipeline.operations import USUAL_PER_MINUTE
from bridge.record.outbox import entries, silences
from bridge.record.queries.lists import Filter
from bridge.record.schema import DELIVERY_STATES
from tests.admin.pages.reading import text_of
from tests.support.admin_world import NOON, RULES, World, a_book, a_failed_job, a_silence, job_number
from tests.support.nouns import a_message, batch_id, by_hand, new_delivery

HOSTILE = '"><script>alert(1)</script>&'
RECEIVER = f"不行 {HOSTILE}"


def a_dead_one(world: World, number: int = 1, *, answer: str = "") -> str:
    delivery = world.delivery_of(number)
    world.attempt(Rejected("no such thing"), answer=answer)
    return delivery


# --- the list -----------------------------------------------------------------------------------------------


def test_a_row_shows_a_delivery_and_its_status(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(7))
    world.attempt(Rejected("no such channel"))
    page = admin.get("/deliveries").text
    assert "dead ops/1 Failed j7 failed 1 no such channel" in text_of(page)
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
    assert f"{state} cms Running j1 all 0 {why}" in text_of(page)
    assert "<b>" not in page
    (one,) = [row["id"] for row in world.deliveries()]
    assert (f'aria-label="Resend {one}"' in admin.get(f"/deliveries/{one}").text) == (button is not None)
    assert ("Resend selected" in page) == (button is not None)


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
    assert "A delivery is created when a rule matches" in admin.get("/deliveries").text
    assert "Clear a filter" in admin.get("/deliveries?state=dead").text


def test_selected_deliveries_are_resent(world: World, admin: FlaskClient) -> None:
    first, second, third = (a_dead_one(world, number) for number in (1, 2, 3))
    page = admin.get("/deliveries").text
    assert f'value="{first}" aria-label="Select {first}"' in page
    answer = admin.post("/deliveries/redrive-chosen", data={"id": [first, second]}, follow_redirects=True)
    assert f"2 of 2 deliveries queued for resending: {first}, {second}." in text_of(answer.text)
    assert f'<a href="/deliveries/{second}">' in answer.text
    assert [world.state_of(one) for one in (first, second, third)] == ["waiting", "waiting", "dead"]


def test_selected_deliveries_are_discarded_with_a_reason(world: World, admin: FlaskClient) -> None:
    first, second, third = (a_dead_one(world, number) for number in (1, 2, 3))
    world.delivery_of(4)
    asked = admin.get(f"/deliveries/discard?selected=yes&id={first}&id={second}")
    assert "2 dead deliveries would be discarded" in text_of(asked.text)
    data = {"id": [first, second], "reason": HOSTILE}
    answer = admin.post("/deliveries/discard", data=data, follow_redirects=True)
    assert "2 deliveries discarded" in text_of(answer.text)
    assert "<script>alert" not in answer.text
    assert [world.state_of(one) for one in (first, second, third)] == ["discarded", "discarded", "dead"]
    assert f'aria-label="Resend {first}"' in admin.get(f"/deliveries/{first}").text
    assert f"discarded by dashboard: {HOSTILE}" in text_of(admin.get(f"/deliveries/{first}").text)


def test_all_dead_deliveries_that_match_are_discarded_and_come_back(world: World, admin: FlaskClient) -> None:
    dead = [a_dead_one(world, number) for number in (1, 2)]
    assert '<a class="button" href="/deliveries/discard?state=dead">Discard all 2…</a>' in (
        admin.get("/deliveries?state=dead").text
    )
    answer = admin.post("/deliveries/discard?state=dead&notifier=cms", data={"reason": "shut down"})
    assert answer.location.startswith("/deliveries?state=discarded&batch=dsc_")
    assert "Resend all 2" in text_of(admin.get(answer.location).text)
    admin.post(answer.location.replace("/deliveries?", "/deliveries/redrive?"), data={"per_minute": "6000"})
    assert [world.state_of(one) for one in dead] == ["waiting"] * 2


@pytest.mark.parametrize(
    ("path", "data", "words"),
    [
        ("/deliveries/discard", {"reason": "x"}, "Nothing was selected"),
        ("/deliveries/discard?state=dead", {"reason": " "}, "the reason is empty"),
        ("/deliveries/discard?state=waiting", {"reason": "x"}, "state:"),
        ("/deliveries/discard?notifier=other", {"reason": "x"}, "nothing left to discard"),
    ],
)
def test_nothing_is_discarded_that_was_not_meant(
    world: World, admin: FlaskClient, path: str, data: dict[str, str], words: str
) -> None:
    dead = a_dead_one(world)
    assert words in text_of(admin.post(path, data=data, follow_redirects=True).text)
    assert world.state_of(dead) == "dead"


def test_discarding_a_selection_of_nothing_asks_for_one(world: World, admin: FlaskClient) -> None:
    a_dead_one(world)
    said = admin.get("/deliveries/discard?selected=yes", follow_redirects=True).text
    assert "Nothing was selected" in said
    assert 'name="reason"' not in said


def test_of_many_chosen_ones_the_first_are_named(world: World, admin: FlaskClient) -> None:
    dead = [a_dead_one(world, number) for number in range(8)]
    answer = admin.post("/deliveries/redrive-chosen", data={"id": dead}, headers={"Referer": "http://localhost/jobs"})
    said = admin.get(answer.location).text
    assert "8 of 8 deliveries queued" in said
    assert said.count('<a href="/deliveries/dlv_') == 5
    assert '<a href="/deliveries?state=waiting">3 more</a>' in said


def test_deliveries_that_changed_meanwhile_are_counted(world: World, admin: FlaskClient) -> None:
    dead, waiting = a_dead_one(world, 1), world.delivery_of(2)
    data = {"id": [dead, dead, waiting, "dlv_\0", HOSTILE]}
    answer = admin.post("/deliveries/redrive-chosen", data=data, follow_redirects=True)
    assert text_of(answer.text).count("1 of 4 deliveries queued") == 1
    assert "3 had changed meanwhile" in answer.text


def test_selecting_nothing_is_an_error(admin: FlaskClient) -> None:
    answer = admin.post("/deliveries/redrive-chosen", follow_redirects=True)
    assert "Nothing was selected" in answer.text


def test_only_resendable_deliveries_can_be_selected(world: World, admin: FlaskClient) -> None:
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
    assert text_of(page).index("Attempt 2 rejected status 500 200 ms answered 422") < text_of(page).index(
        "Attempt 1 failed"
    )
    assert f"<pre>不行 {HOSTILE}".replace(HOSTILE, "&#34;&gt;&lt;script&gt;") in page
    assert "Gave up after 2 attempts in 2 min: answered 422. Resend to retry." in page
    assert f'aria-label="Resend {delivery}"' in page
    assert "hx-get" not in page  # nothing will change by itself


def test_what_waits_is_looked_at_again(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    page = admin.get(f"/deliveries/{delivery}").text
    assert f'hx-get="/deliveries/{delivery}"' in page
    assert "Waits for its next attempt." in page
    assert "Request to be sent" in page


def test_a_dead_delivery_is_resent(world: World, admin: FlaskClient) -> None:
    delivery = a_dead_one(world)
    answer = admin.post(f"/deliveries/{delivery}/redrive", follow_redirects=True)
    assert f"{delivery} is queued for resending." in answer.text
    assert world.state_of(delivery) == "waiting"
    again = admin.post(f"/deliveries/{delivery}/redrive", follow_redirects=True)
    assert "only a dead, dropped or discarded one can be resent" in again.text


def test_what_waits_for_a_paused_notifier_leads_to_it(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    with world.db.write() as tx:
        entries.pause(tx, "cms", f"it wants no more {HOSTILE}", now=NOON)
    page = admin.get(f"/deliveries/{delivery}").text
    assert "Waits because its notifier is paused: it wants no more" in page
    assert HOSTILE not in page
    assert '/notifiers#notifier-cms"' in page
    assert 'action="/notifiers/cms/resume"' in page


def test_a_digest_and_its_members_lead_to_each_other(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        silences.add(tx, a_silence())
    world.sees(job_number(1, state="Failed"), job_number(2, state="Failed"))
    member, *_ = (row["id"] for row in world.deliveries(state="held"))
    assert "The silence &#34;sil_1&#34; was active. Held until" in admin.get(f"/deliveries/{member}").text
    world.now = NOON + timedelta(hours=2)
    send_due_digests(world.db, world.book, world.now)
    (digest,) = (row["id"] for row in world.deliveries() if row["state"] != "merged")
    told = admin.get(f"/deliveries/{digest}").text
    assert f'href="/deliveries/{member}"' in told
    assert "Included messages" in told
    assert f'href="/deliveries/{digest}"' in admin.get(f"/deliveries/{member}").text


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
    (delivery,) = world.deliveries()
    page = admin.get(f"/deliveries/{delivery['id']}").text
    assert "To Slack, C024BE91L" in text_of(page)
    assert "curl" not in page


def test_links_and_times_of_a_slack_message_are_shown_as_such(world: World, admin: FlaskClient) -> None:
    message = a_message(
        title="j1.mp4 <b>", text="since 2026-11-21T09:00:00Z", file="j1.mp4", job_id="j1", rule="failed",
        public_url="https://bridge.example.com",
    )  # fmt: skip
    with world.db.write() as tx:
        entries.put(tx, [new_delivery("d1", to="ops/1", message=message)], now=NOON)
    page = admin.get("/deliveries/d1").text
    link = '<a href="https://bridge.example.com/jobs/j1" rel="noreferrer">j1.mp4</a>'
    assert f"<strong>{link}</strong><strong> &lt;b&gt;</strong>" in page
    assert "since 2026-11-21 09:00 UTC" in page
    assert "&lt;!date" not in page


def test_a_delivery_without_its_notifier_still_shows_its_event(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    world.book = replace(world.book, notifiers={})
    page = admin.get(f"/deliveries/{delivery}").text
    assert "rules.toml has no notifier “cms” any more" in page
    assert "ci.job.running" in page
    assert "add it again" in page


def test_a_delivery_that_is_not_there_is_not_found(admin: FlaskClient) -> None:
    answer = admin.get("/deliveries/dlv_404%3Cscript%3E")
    assert answer.status_code == 404
    assert "may have been pruned" in answer.text
    assert "<script>" not in answer.text.split("</head>")[1]


# --- who may only look --------------------------------------------------------------------------------------


def test_the_read_token_sees_no_button_and_no_response(world: World, reader: FlaskClient) -> None:
    delivery = a_dead_one(world, answer="token=of-the-receiver")
    page = reader.get(f"/deliveries/{delivery}").text
    assert "of-the-receiver" not in page
    assert "shown with the admin token only" in page
    assert f'action="/deliveries/{delivery}' not in page
    listed = reader.get("/deliveries?state=dead").text
    assert delivery in listed
    assert "checkbox" not in listed
    assert "Resend" not in listed


@pytest.mark.parametrize(("data", "words"), [({"in": "Running"}, "no longer Running"), ({}, "recovered")])
def test_a_recovery_names_the_state_that_was_left(
    world: World, admin: FlaskClient, data: dict[str, str], words: str
) -> None:
    test = a_test_message("cms", nonce="1", now=NOON)
    over = replace(test, kind="recovery", state="Success", event={"data": data})
    with world.db.write() as tx:
        entries.put(tx, [NewDelivery(id="d1", message=over, notifier="cms", ordering_key=None)], now=NOON)
    for path in ("/deliveries", "/deliveries/d1"):
        said = text_of(admin.get(path).text)
        assert words in said
        assert "no longer Success" not in said


# --- the status in words ---------------------------------------------------------------------------------------------


IDLE: dict[str, Any] = {"paused_at": None, "paused_why": None, "not_before": None, "failures": 0}
LATER, EARLIER = ((NOON + timedelta(minutes=sign)).isoformat() for sign in (5, -5))


def said(state: str, lane: dict[str, Any] | None = IDLE, *, held_by: str | None = None, in_rules: bool = True) -> str:
    facts = {"state": state, "notifier": "cms", "held_by": held_by, "attempts": 0, "why": None, "tries": []}
    return status(facts, lane, in_rules=in_rules, now=NOON)


def test_every_state_has_its_own_words() -> None:
    assert len({said(state) for state in DELIVERY_STATES}) == len(DELIVERY_STATES)


@pytest.mark.parametrize(
    ("lane", "words"),
    [
        (IDLE, "Waits for its next attempt"),
        (None, "Waits for its next attempt"),
        (IDLE | {"paused_at": EARLIER, "paused_why": "it is gone"}, "its notifier is paused: it is gone. Resume"),
        (IDLE | {"failures": 10}, "does not answer"),
        (IDLE | {"failures": 9}, "Waits for its next attempt"),
        (IDLE | {"not_before": LATER}, "asked to wait"),
        (IDLE | {"not_before": EARLIER}, "Waits for its next attempt"),
    ],
)
def test_what_waits_says_what_for(lane: dict[str, Any] | None, words: str) -> None:
    assert words in said("waiting", lane)


def test_a_notifier_that_is_gone_is_to_be_put_back() -> None:
    assert "not in rules.toml" in said("waiting", in_rules=False)


def test_why_a_receiver_is_not_asked_matters_only_while_it_waits() -> None:
    assert "paused" not in said("sent", IDLE | {"paused_at": EARLIER, "paused_why": "gone"})


@pytest.mark.parametrize(
    ("held_by", "words"),
    [
        ("group:夜间: a", 'Rule "夜间: a" sends'),
        ("throttle:t", 'The throttle of rule "t"'),
        ("mute:nights", 'The mute "nights" was active'),
        ("silence:sil_1", 'The silence "sil_1" was active'),
        ("flood:slack channel C1", "Too many messages waited for slack channel C1."),
        ("fallback:cms", "What cms did not get is sent in digests."),
        ("unheard-of:x", "Held until"),
    ],
)
def test_what_held_it_is_named(held_by: str, words: str) -> None:
    assert said("held", held_by=held_by).startswith(words)


# --- resending many --------------------------------------------------------------------------------------------------


BATCH = f"/deliveries/batches/{batch_id()}"
RATE = {"per_minute": str(USUAL_PER_MINUTE)}


@pytest.fixture
def dead(world: World) -> World:
    world.sees(*(job_number(number) for number in range(3)))
    world.attempt(Rejected("no"))
    return world


def a_batch(world: World) -> None:
    interval, which = timedelta(seconds=1), Filter(state="dead")
    by_hand(world.db, now=world.now).redrive_batch(which, interval=interval)


def test_the_list_of_the_dead_offers_all_of_them(dead: World, admin: FlaskClient) -> None:
    page = unescape(admin.get("/deliveries?state=dead&notifier=cms").text)
    assert "Resend all 3 …" in page
    assert 'href="/deliveries/redrive?state=dead&notifier=cms"' in page
    assert "Resend all" not in admin.get("/deliveries").text


def test_first_it_is_said_how_many_and_nothing_is_done(dead: World, admin: FlaskClient) -> None:
    page = admin.get("/deliveries/redrive?state=dead&notifier=cms").text
    assert "<strong>3 deliveries</strong>" in page
    assert "dead, notifier cms" in page
    assert "Resend 3" in page
    assert '<label for="per-minute">' in page
    assert [row["state"] for row in dead.deliveries()] == ["dead"] * 3


def test_it_is_said_how_long_it_takes(dead: World, admin: FlaskClient) -> None:
    dead.sees(*(job_number(number) for number in range(100, 400)))
    while dead.attempt(Rejected("no")):
        pass
    assert "At 600 per minute it takes about 30 s." in admin.get("/deliveries/redrive").text


def test_a_batch_is_made_and_watched(dead: World, admin: FlaskClient) -> None:
    answer = admin.post("/deliveries/redrive?state=dead&notifier=cms", data={"per_minute": "60"})
    assert answer.status_code == 303
    assert answer.location.startswith("/deliveries/batches/rdr_")
    page = admin.get(answer.location).text
    assert "3 deliveries queued for resending." in page
    assert '<progress max="3" value="0"' in page
    assert f'hx-get="{answer.location}"' in page
    assert f'href="{answer.location}"' in admin.get("/deliveries/batches").text
    dead.now = NOON + timedelta(seconds=2)
    dead.attempt(Sent())
    page = admin.get(answer.location).text
    assert '<progress max="3" value="3"' in page
    assert "hx-get" not in page
    assert "Nothing is being resent." in admin.get("/deliveries/batches").text


def test_a_delivery_leads_to_its_batch_and_the_batch_to_its_deliveries(dead: World, admin: FlaskClient) -> None:
    a_batch(dead)
    assert f'href="/deliveries?batch={batch_id()}"' in admin.get(BATCH).text
    deliveries = set(re.findall(r'href="(/deliveries/dlv_\w+)"', admin.get(f"/deliveries?batch={batch_id()}").text))
    assert len(deliveries) == 3
    for delivery in deliveries:
        assert f'href="{BATCH}"' in admin.get(delivery).text


def test_how_long_ago_means_the_time_when_it_was_counted(dead: World, admin: FlaskClient) -> None:
    dead.now = NOON + timedelta(hours=1)
    page = unescape(admin.get("/deliveries/redrive?state=dead&since=90m").text)
    (action,) = re.findall(r'action="(/deliveries/redrive\?[^"]+)"', page)
    assert "since=2026-11-21T11:30:00" in action
    dead.now += timedelta(hours=1)
    admin.post(action, data=RATE)
    assert [row["state"] for row in dead.deliveries()] == ["waiting"] * 3


def test_resending_warns_of_a_paused_notifier(dead: World, admin: FlaskClient) -> None:
    with dead.db.write() as tx:
        entries.pause(tx, "cms", "gone", now=NOON)
    assert "they wait until it is" in admin.get("/deliveries/redrive?notifier=cms").text


def test_nothing_to_resend_is_said(world: World, admin: FlaskClient) -> None:
    page = admin.get("/deliveries/redrive?state=dropped").text
    assert "There is nothing to resend." in page
    assert "all that are dropped" in page
    assert "<button>" not in page.split("<main")[1]
    answer = admin.post("/deliveries/redrive?state=dropped", data=RATE, follow_redirects=True)
    assert "There was nothing left to resend." in answer.text


@pytest.mark.parametrize("per_minute", ["0", "6001", "-1", "many", "", "9" * 30, "½"])
def test_an_invalid_rate_is_refused(dead: World, admin: FlaskClient, per_minute: str) -> None:
    answer = admin.post("/deliveries/redrive?state=dead", data={"per_minute": per_minute}, follow_redirects=True)
    assert "a whole number from 1 to 6000 is needed" in answer.text
    assert [row["state"] for row in dead.deliveries()] == ["dead"] * 3


@pytest.mark.parametrize("query", ["state=sent", "state=waiting", "since=soon"])
def test_a_filter_that_means_nothing_resends_nothing(dead: World, admin: FlaskClient, query: str) -> None:
    asked = admin.get(f"/deliveries/redrive?{query}")
    assert asked.status_code == 400
    assert 'role="alert"' in asked.text
    admin.post(f"/deliveries/redrive?{query}", data=RATE)
    assert [row["state"] for row in dead.deliveries()] == ["dead"] * 3


def test_what_is_left_of_a_batch_is_cancelled(dead: World, admin: FlaskClient) -> None:
    a_batch(dead)
    assert f'aria-label="Cancel the rest of {batch_id()}"' in admin.get(BATCH).text
    cancelled = admin.post(f"{BATCH}/cancel", follow_redirects=True).text
    assert "2 deliveries cancelled." in cancelled
    assert "Cancel the rest" not in cancelled
    assert sorted([row["state"] for row in dead.deliveries()]) == ["dead", "dead", "waiting"]
    again = admin.post(f"{BATCH}/cancel", follow_redirects=True).text
    assert "nothing is left to cancel" in again
    assert "there is no batch" in admin.post("/deliveries/batches/rdr_2/cancel", follow_redirects=True).text
