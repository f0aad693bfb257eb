"""Resending many: first how many, then the batch, then how far it is; and cancelling the rest of it."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest
from flask.testing import FlaskClient

from bridge.model import Rejected, Sent
from bridge.pipeline.operations import USUAL_PER_MINUTE
from bridge.record.outbox import entries
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from tests.support.admin_world import NOON, World, job_number
from tests.support.nouns import batch_id, by_hand

BATCH = f"/deliveries/batches/{batch_id()}"
RATE = {"per_minute": str(USUAL_PER_MINUTE)}


@pytest.fixture
def dead(world: World) -> World:
    world.sees(*(job_number(number) for number in range(3)))
    world.attempt(Rejected("no"))
    return world


def states(world: World) -> list[str]:
    with world.db.read() as tx:
        return [one["state"] for one in lists.deliveries(tx, Filter()).items]


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
    assert states(dead) == ["dead"] * 3


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
    assert "Queued: 3." in page
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
    assert states(dead) == ["waiting"] * 3


def test_a_paused_notifier_is_told_of_before(dead: World, admin: FlaskClient) -> None:
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
def test_a_rate_that_is_none_is_refused(dead: World, admin: FlaskClient, per_minute: str) -> None:
    answer = admin.post("/deliveries/redrive?state=dead", data={"per_minute": per_minute}, follow_redirects=True)
    assert "a whole number from 1 to 6000 is needed" in answer.text
    assert states(dead) == ["dead"] * 3


@pytest.mark.parametrize("query", ["state=sent", "state=waiting", "since=soon"])
def test_a_filter_that_means_nothing_resends_nothing(dead: World, admin: FlaskClient, query: str) -> None:
    asked = admin.get(f"/deliveries/redrive?{query}")
    assert asked.status_code == 400
    assert 'role="alert"' in asked.text
    admin.post(f"/deliveries/redrive?{query}", data=RATE)
    assert states(dead) == ["dead"] * 3


def test_what_is_left_of_a_batch_is_cancelled(dead: World, admin: FlaskClient) -> None:
    a_batch(dead)
    assert f'aria-label="Cancel the rest of {batch_id()}"' in admin.get(BATCH).text
    cancelled = admin.post(f"{BATCH}/cancel", follow_redirects=True).text
    assert "Cancelled: 2." in cancelled
    assert "Cancel the rest" not in cancelled
    assert sorted(states(dead)) == ["dead", "dead", "waiting"]
    again = admin.post(f"{BATCH}/cancel", follow_redirects=True).text
    assert "there is nothing left to cancel" in again
    assert "there is no batch" in admin.post("/deliveries/batches/rdr_2/cancel", follow_redirects=True).text


def test_a_batch_that_is_not_there_is_not_found(admin: FlaskClient) -> None:
    answer = admin.get("/deliveries/batches/rdr_404%3Cscript%3E")
    assert answer.status_code == 404
    assert "<script>" not in answer.text.split("</head>")[1]


def test_who_may_only_look_resends_and_cancels_nothing(dead: World, reader: FlaskClient) -> None:
    assert "<form" not in reader.get("/deliveries/redrive?state=dead").text.split("<main")[1]
    assert reader.post("/deliveries/redrive?state=dead", data=RATE).status_code == 403
    assert states(dead) == ["dead"] * 3
    a_batch(dead)
    assert "0 of 3" in reader.get(BATCH).text
    assert "<button" not in reader.get(BATCH).text.split("<main")[1]
    assert reader.post(f"{BATCH}/cancel").status_code == 403
    assert states(dead) == ["waiting"] * 3
