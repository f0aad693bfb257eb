"""Notifiers and watches: how each does, testing and resuming, polling and pausing."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import timedelta
from html import unescape

import pytest
from flask.testing import FlaskClient

from bridge.model import ListProgress, Rejected, RetryLater, Sent
from bridge.notifiers import WebhookNotifier
from bridge.record import counters
from bridge.record.counters import Count
from bridge.record.outbox import entries
from bridge.record.polling import hints, leases
from bridge.simulator.clicks import SIGNING_SECRET
from bridge.wiring import parts
from tests.admin.pages.reading import text_of
from tests.support.admin_world import NOON, RULES, World, a_book, a_failed_job, job_number
from tests.support.slack_desk import with_buttons

HOSTILE = '"><script>alert(1)</script>&'


def card(page: str, name: str) -> str:
    """Return the part of the page that is about one notifier."""
    return page.split(f'id="notifier-{name}"')[1].split("</article>")[0]


def test_a_card_says_how_a_notifier_does(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1), job_number(2))
    said = text_of(card(admin.get("/notifiers").text, "cms"))
    assert "cms ok waiting 2 sending 0 held 0 dead 0" in said
    assert "Type webhook Target https://cms.example.com:8443 Signed yes" in said
    assert "Limit in flight 4" in said
    assert "Oldest waiting 2026-11-21 12:00:00 UTC" in said
    assert "Sent, last 24 h nothing" in said


def test_each_number_leads_to_those_deliveries(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1), job_number(2))
    world.attempt(Rejected("no"))
    page = unescape(admin.get("/notifiers").text)
    for state in ("waiting", "sending", "held", "dead"):
        assert f'href="/deliveries?notifier=ops/1&state={state}"' in card(page, "ops/1")
    assert 'aria-label="1 dead, ops/1"' in page
    assert 'href="/deliveries/redrive?state=dead&notifier=ops/1"' in page
    assert "Resend the dead one …" in page


@pytest.mark.parametrize(
    ("rate", "words"),
    [("1/s", "1 a second"), ("2000/1m", "2,000 a minute"), ("3/60m", "3 an hour"), ("5/90s", "5 in 1")],
)
def test_its_rate_is_said_in_words(world: World, admin: FlaskClient, rate: str, words: str) -> None:
    world.book = a_book(RULES.replace("[notifier.cms]", f'[notifier.cms]\nrate = "{rate}"'))
    assert f"Rate {words}" in text_of(card(admin.get("/notifiers").text, "cms"))


def test_a_name_leads_to_its_deliveries_and_a_button_to_a_silence_of_it(world: World, admin: FlaskClient) -> None:
    page = unescape(card(admin.get("/notifiers").text, "ops/1"))
    assert '<a href="/deliveries?notifier=ops/1"' in page
    assert 'href="/silences/add?notifier=ops/1" aria-label="Silence ops/1"' in page


def test_a_notifier_says_for_whom_the_buttons_of_its_messages_act(world: World, admin: FlaskClient) -> None:
    assert "Buttons act for" not in admin.get("/notifiers").text
    world.book = with_buttons()
    assert "Buttons act for U024BE7LH, U0DEF4567" in text_of(card(admin.get("/notifiers").text, "ops/1"))
    items = world.client().get("/api/v1/notifiers").get_json()["items"]
    assert {one["name"]: one["actions"] for one in items} == {"cms": [], "ops/1": ["U024BE7LH", "U0DEF4567"]}
    assert SIGNING_SECRET not in f"{items} {admin.get('/notifiers').text}"


def test_the_latency_of_a_notifier_is_shown(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1))
    world.now = NOON + timedelta(seconds=40)
    world.attempt(Sent())
    said = text_of(card(admin.get("/notifiers").text, "cms"))
    assert "1 sent" in said
    assert "half within" in said
    assert 'href="/deliveries?notifier=cms&state=sent&since=24h"' in unescape(admin.get("/notifiers").text)


def test_how_soon_a_watch_sees_changes_and_what_that_costs_is_shown(world: World, admin: FlaskClient) -> None:
    world.sync()
    said = text_of(admin.get("/watches").text)
    assert "24 h" not in said  # nothing is known
    with world.db.write() as tx:
        counters.add(tx, [Count("call", ("vod",), times=1_200)], now=NOON)
    assert "Calls, last 24 h 1,200 " in text_of(admin.get("/watches").text) + " "
    with world.db.write() as tx:
        counters.add(tx, [*counters.all_timed("detected", ("vod",), [2.5] * 4_000)], now=NOON)
    said = text_of(admin.get("/watches").text)
    assert "Changes seen, last 24 h half within 2.5 s, 99 % within 3.0 s" in said
    assert "Calls, last 24 h 1,200 for 4,000 changes: 0.30 per change" in said


def test_a_paused_notifier_says_why_and_is_resumed(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        entries.pause(tx, "ops/1", f"频道没有了 {HOSTILE}", now=NOON)
    page = admin.get("/notifiers").text
    assert "频道没有了" in card(page, "ops/1")
    assert "<script>alert" not in page
    assert 'action="/notifiers/ops/1/resume"' in page
    assert 'aria-label="Resume ops/1"' in page
    assert "ops/1 is resumed." in admin.post("/notifiers/ops/1/resume", follow_redirects=True).text
    assert world.notifier("ops/1")["paused_at"] is None


def test_a_notifier_is_paused_with_a_reason_and_says_who_did_it(world: World, admin: FlaskClient) -> None:
    assert "the reason is empty" in text_of(admin.post("/notifiers/ops/1/pause", follow_redirects=True).text)
    said = admin.post("/notifiers/ops/1/pause", data={"reason": f"moved {HOSTILE}"}, follow_redirects=True).text
    assert "ops/1 is paused: its deliveries wait." in said
    assert "by dashboard: moved" in card(said, "ops/1")
    assert "<script>alert" not in said
    assert world.notifier("ops/1")["paused_reason"] == "manual"
    assert 'action="/notifiers/ops/1/pause"' not in said
    assert "paused already: by dashboard" in text_of(
        admin.post("/notifiers/ops/1/pause", data={"reason": "again"}, follow_redirects=True).text
    )


def test_a_read_token_pauses_no_notifier(world: World, reader: FlaskClient) -> None:
    assert "/pause" not in reader.get("/notifiers").text
    assert reader.post("/notifiers/cms/pause", data={"reason": "moved"}).status_code == 403
    assert world.notifier("cms")["paused_at"] is None


@pytest.mark.parametrize(("failures", "alone"), [(1, False), (9, False), (10, True)])
def test_a_receiver_that_does_not_answer_is_seen(world: World, admin: FlaskClient, failures: int, alone: bool) -> None:
    with world.db.write() as tx:
        entries.failed(tx, "cms", failures, threshold=10, run=timedelta())
    said = text_of(card(admin.get("/notifiers").text, "cms"))
    assert "does not answer" in said
    assert f"{failures} attempt{'s' if failures > 1 else ''} in a row got no response." in said
    assert ("One delivery at a time" in said) is alone


@pytest.mark.parametrize("name", ["cms", "ops/1"])
def test_a_test_leads_to_its_delivery(world: World, admin: FlaskClient, name: str) -> None:
    here = {"Referer": "http://localhost/notifiers"}
    world.register()
    answer = admin.post(f"/notifiers/{name}/test", headers=here)
    (sent,) = world.deliveries(notifier=name)
    assert (answer.status_code, answer.location) == (303, f"/deliveries/{sent['id']}")
    assert sent["kind"] == "test"
    page = admin.get(answer.location).text
    assert f"A test for {name} is queued." in page


@pytest.mark.parametrize("deed", ["test", "resume"])
def test_a_notifier_that_is_not_there_is_said_so(admin: FlaskClient, deed: str) -> None:
    answer = admin.post(f"/notifiers/cmx%22%3E/{deed}", follow_redirects=True)
    assert "rules.toml has no notifier &#34;cmx&#34;&gt;&#34;" in answer.text


def test_what_only_the_record_knows_is_marked_and_can_be_resumed(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        leases.sync(tx, [], [(WebhookNotifier(name="旧的", url="https://old.example"), "webhook")])
        entries.pause(tx, "旧的", "gone", now=NOON)
    old = card(admin.get("/notifiers").text, "旧的")
    assert "not in rules.toml" in old
    assert "Send a test" not in old
    assert "旧的 is resumed." in admin.post("/notifiers/旧的/resume", follow_redirects=True).text


def test_the_read_token_sees_no_button(world: World, reader: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    with world.db.write() as tx:
        entries.pause(tx, "cms", "gone", now=NOON)
    page = reader.get("/notifiers").text
    assert "paused" in card(page, "cms")
    assert "<button" not in card(page, "cms")
    assert "/silences/add" not in page
    assert page.count("Sign in with the admin token to send a test") == 1
    assert reader.post("/notifiers/cms/test").status_code == 403
    assert reader.post("/notifiers/cms/resume").status_code == 403
    assert world.notifier("cms")["paused_at"] is not None
    assert [row["id"] for row in world.deliveries()] == [delivery]


def test_a_test_that_is_not_sent_now_says_why(world: World, admin: FlaskClient) -> None:
    page = admin.get(admin.post("/notifiers/cms/test").location).text
    assert "The test waits: no worker is running" in page
    world.register()
    with world.db.write() as tx:
        entries.pause(tx, "cms", "the receiver answered 410 Gone", now=NOON)
    page = admin.get(admin.post("/notifiers/cms/test").location).text
    assert "The test waits: notifier cms is paused: the receiver answered 410 Gone" in page


def test_one_that_answers_with_errors_says_which_and_is_not_ok(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1))
    world.attempt(RetryLater("answered 500 Internal Server Error"))
    said = text_of(card(admin.get("/notifiers").text, "cms"))
    assert "cms answers with errors" in said
    assert ": answered 500 Internal Server Error" in said


# --- watches ---------------------------------------------------------------------------------------------------------


HOSTILE = '"><script>alert(1)</script>&'
SECOND = """
[[watch]]
name = "归档/1"
bucket = "archive-1250000000"
region = "ap-beijing"
tags = ["Tts"]
"""


def watch_card(page: str, name: str) -> str:
    """Return the part of the page that is about one watch."""
    return page.split(f'id="watch-{name}"')[1].split("</article>")[0]


def test_a_card_says_what_is_polled_and_how_it_went(world: World, admin: FlaskClient) -> None:
    world.polled()
    page = admin.get("/watches").text
    said = text_of(watch_card(page, "vod"))
    assert "vod ok Bucket media-1250000000 Region ap-chongqing Tags Transcode, Snapshot Queues vod p224" in said
    assert "Last complete poll 2026-11-21 12:00:00 UTC now Next poll 2026-11-21 12:00:30 UTC in 30 s" in said
    assert "In the last poll 2 calls, 3 jobs" in said
    assert 'hx-get="/watches"' in page


def test_a_card_says_how_far_a_long_list_has_come(world: World, admin: FlaskClient) -> None:
    world.polled()
    list_ = ListProgress(tag="Transcode", queue="p224", pages=12, jobs=1_200, created_to=world.now - timedelta(hours=2))
    with world.db.write() as tx:
        leases.note_progress(tx, "vod", [list_])
    said = text_of(watch_card(admin.get("/watches").text, "vod"))
    assert "A long list is being read: Transcode, queue p224, so far 12 pages with 1,200 jobs, up to those cr" in said
    assert "2026-11-21 10:00:00 UTC" in said


def test_a_watch_without_queues_looks_at_all(world: World, admin: FlaskClient) -> None:
    world.book = a_book(SECOND + RULES)
    said = text_of(watch_card(admin.get("/watches").text, "归档/1"))
    assert "归档/1 not polled yet" in said
    assert "Queues all" in said
    assert "Next poll as soon as a worker is free" in said


def test_a_poll_that_failed_shows_ci_s_advice(world: World, admin: FlaskClient) -> None:
    world.polled(error=f"CI refuses the key; allow ci:DescribeMediaJobs\n{HOSTILE}")
    page = admin.get("/watches").text
    assert "1 poll in a row failed: CI refuses the key; allow ci:DescribeMediaJobs" in text_of(watch_card(page, "vod"))
    assert "<script>alert" not in page


def test_a_watch_is_polled_now(world: World, admin: FlaskClient) -> None:
    world.polled()
    assert 'aria-label="Poll now: vod"' in admin.get("/watches").text
    assert "vod is polled as soon as a worker is free." in admin.post("/watches/vod/poll", follow_redirects=True).text
    assert world.watch("vod")["next_poll_at"] is None


def test_a_watch_is_paused_and_goes_on(world: World, admin: FlaskClient) -> None:
    paused = admin.post("/watches/vod/pause", follow_redirects=True).text
    assert world.watch("vod")["paused"] is True
    assert "its jobs are not polled" in watch_card(paused, "vod")
    assert "Poll now" not in watch_card(paused, "vod")
    assert "is paused; resume it" in admin.post("/watches/vod/poll", follow_redirects=True).text
    assert "vod is polled again." in admin.post("/watches/vod/resume", follow_redirects=True).text
    assert world.watch("vod")["paused"] is False


def test_a_name_may_have_a_slash_and_be_chinese(world: World, admin: FlaskClient) -> None:
    world.book = a_book(SECOND + RULES)
    admin.post("/watches/归档/1/pause")
    assert world.watch("归档/1")["paused"] is True


def test_what_only_the_record_knows_is_marked(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        leases.sync(tx, a_book(SECOND + RULES).watches, [])
        leases.polled(
            tx, "归档/1", began=NOON, next_poll=NOON + timedelta(minutes=1), error=None, failures=0, calls=1, jobs=1
        )
    old = watch_card(admin.get("/watches").text, "归档/1")
    assert "not in rules.toml" in old
    assert "1 call, 1 job" in text_of(old)
    assert "<button" not in old


def test_without_a_watch_it_is_said_how_to_make_one(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        tx.exec_driver_sql("DELETE FROM watch")
    world.book = replace(world.book, watches=())
    assert "Add a [[watch]] to rules.toml" in admin.get("/watches").text


@pytest.mark.parametrize(("ahead_s", "says"), [(600, "CI's clock is 10 min ahead of ours"), (60, None), (None, None)])
def test_a_difference_of_clocks_is_said_on_its_card_the_overview_and_readyz(
    world: World, admin: FlaskClient, ahead_s: float | None, says: str | None
) -> None:
    clock = None if ahead_s is None else timedelta(seconds=ahead_s)
    with world.db.write() as tx:
        leases.polled(
            tx, "vod", began=NOON, next_poll=NOON, error=None, failures=0, calls=1, jobs=0, clock=(clock,)
        )  # fmt: skip
    pages = [
        text_of(watch_card(admin.get("/watches").text, "vod")),
        text_of(admin.get("/").text),
        admin.get("/readyz").text,
    ]
    assert all((says or "CI's clock is") in html.unescape(page) for page in pages) == (says is not None)
    assert world.watch("vod")["clock_ahead_seconds"] == ahead_s
    scraped = world.client().get("/metrics").text
    found = re.findall(r'ci_bridge_watch_clock_ahead_seconds{[^}]*watch="vod"[^}]*} (\S+)', scraped)
    assert found == ([] if ahead_s is None else [f"{ahead_s:.1f}"])


def test_a_watch_says_when_the_last_callback_came_if_one_did(world: World, admin: FlaskClient) -> None:
    world.sync()
    assert "Last callback" not in text_of(admin.get("/watches").text)
    with world.db.write() as tx:
        hints.received(tx, ["vod"], now=NOON)
    assert "Last callback 2026-11-21 12:00:00 UTC" in text_of(admin.get("/watches").text)


PICK = """
[notifier.customer]
pick = "{{ job.user_data.customer }}"

[notifier.customer.to."<b>"]
type = "webhook"
url = "https://b.example.com/hook"

[[rule]]
name = "customers"
notify = "customer"
"""


def test_a_pick_shows_where_it_leads_and_its_dead_letters(world: World, admin: FlaskClient) -> None:
    world.book = a_book(RULES + PICK)
    parts.sync(world.db, world.book, clock=lambda: world.now)
    world.sees(job_number(1, user_data="customer=\u202efoo"))
    page = admin.get("/notifiers").text
    said = text_of(card(page, "customer"))
    assert "waiting 0 sending 0 held 0 dead 1 1 in 24 h Type pick Picked by {{ job.user_data.customer }}" in said
    assert "Notifiers customer.<b> Otherwise a dead letter" in said
    assert "Send a test" not in said
    assert "Send a test" in text_of(card(page, "customer.&lt;b&gt;"))
    (dead,) = world.deliveries(state="dead")
    said = text_of(admin.get(f"/deliveries/{dead['id']}").text)
    assert 'Gave up without an attempt: pick gave "\\u202efoo", which is not among to: <b>. Resend to retry.' in said
    assert admin.get(f"/jobs/{dead['job']}").status_code == 200


def test_nobody_sends_a_test_to_a_pick(world: World, admin: FlaskClient) -> None:
    world.book = a_book(RULES + PICK)
    answer = admin.post("/notifiers/customer/test", follow_redirects=True)
    assert "is a pick; name one of the notifiers that it leads to" in text_of(answer.text)
