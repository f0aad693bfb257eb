"""Orders to send again: first how many, then the order, then how far it is; and a way to stop it."""

from __future__ import annotations

from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.model import Rejected
from bridge.pipeline.redriving import MOST, USUAL_PER_MINUTE, carry_out, order
from bridge.record import outbox, redrives
from bridge.record.reading import Filter
from bridge.record.redrives import Order
from tests.admin.builders import NOON, World, a_job

HOSTILE = '"><script>alert(1)</script>&'
RATE = {"per_minute": str(USUAL_PER_MINUTE)}


@pytest.fixture
def dead(world: World) -> World:
    world.sees(*(a_job(number) for number in range(3)))
    world.attempt(Rejected("no"))
    return world


def orders(world: World) -> list[Order]:
    with world.db.read() as tx:
        return redrives.page(tx)[0]


def an_order(world: World, **facts: Any) -> str:
    given: dict[str, Any] = {"per_minute": 60, "author": "ann 张", "id_": "rdr_1", "now": world.now}
    with world.db.write() as tx:
        return order(tx, Filter(state="dead"), **(given | facts)).id


def test_the_list_of_the_dead_offers_all_of_them(dead: World, admin: FlaskClient) -> None:
    page = unescape(admin.get("/deliveries?state=dead&notifier=cms").text)
    assert "Send all 3 again …" in page
    assert 'href="/redrives/new?state=dead&notifier=cms"' in page
    assert "again …" not in admin.get("/deliveries").text


def test_first_it_is_said_how_many_and_nothing_is_done(dead: World, admin: FlaskClient) -> None:
    page = admin.get("/redrives/new?state=dead&notifier=cms").text
    assert "<strong>3 deliveries</strong>" in page
    assert "dead, notifier cms" in page
    assert "Send 3 again" in page
    assert '<label for="per-minute">' in page
    assert orders(dead) == []


def test_an_order_says_how_long_it_takes(dead: World, admin: FlaskClient) -> None:
    dead.sees(*(a_job(number) for number in range(100, 400)))
    while dead.attempt(Rejected("no")):
        pass
    assert "At 600 a minute it takes about 30 s." in admin.get("/redrives/new").text


def test_an_order_is_given_and_carried_out(dead: World, admin: FlaskClient) -> None:
    answer = admin.post("/redrives?state=dead&notifier=cms", data={"per_minute": "90"})
    assert (answer.status_code, answer.location) == (303, "/redrives")
    (given,) = orders(dead)
    assert (given.total, given.per_minute, given.author) == (3, 90, "dashboard")
    page = admin.get("/redrives").text
    assert "3 will be sent again, 90 a minute at most." in page
    assert '<progress max="3" value="0"' in page
    assert carry_out(dead.db, NOON) == 1
    assert '<progress max="3" value="1"' in admin.get("/redrives").text


def test_how_long_ago_means_the_time_when_it_was_counted(dead: World, admin: FlaskClient) -> None:
    dead.now = NOON + timedelta(hours=1)
    page = unescape(admin.get("/redrives/new?state=dead&since=90m").text)
    assert 'action="/redrives?state=dead&since=2026-11-21T11:30:00Z"' in page


def test_a_paused_notifier_is_told_of_before(dead: World, admin: FlaskClient) -> None:
    with dead.db.write() as tx:
        outbox.pause(tx, "cms", "gone", now=NOON)
    assert "they will wait until it is" in admin.get("/redrives/new?notifier=cms").text


def test_nothing_to_send_again_is_said(world: World, admin: FlaskClient) -> None:
    page = admin.get("/redrives/new?state=dropped").text
    assert "There is nothing to send." in page
    assert "all that are dropped" in page
    assert "<button>" not in page.split("<main")[1]


@pytest.mark.parametrize("per_minute", ["0", "6001", "-1", "many", "", "9" * 30, "½"])
def test_a_rate_that_is_none_is_refused(dead: World, admin: FlaskClient, per_minute: str) -> None:
    answer = admin.post("/redrives?state=dead", data={"per_minute": per_minute}, follow_redirects=True)
    assert "a whole number from 1 to 6000 is needed" in answer.text
    assert orders(dead) == []


@pytest.mark.parametrize("query", ["state=sent", "state=waiting", "since=soon"])
def test_a_filter_that_means_nothing_sends_nothing_again(dead: World, admin: FlaskClient, query: str) -> None:
    asked = admin.get(f"/redrives/new?{query}")
    assert asked.status_code == 400
    assert 'role="alert"' in asked.text
    admin.post(f"/redrives?{query}", data=RATE)
    assert orders(dead) == []


def test_too_many_orders_are_refused(dead: World, admin: FlaskClient) -> None:
    for number in range(MOST):
        an_order(dead, id_=f"rdr_{number}")
    answer = admin.post("/redrives?state=dead", data=RATE, follow_redirects=True)
    assert f"{MOST} orders have not ended" in answer.text


def test_an_order_is_stopped_once(dead: World, admin: FlaskClient) -> None:
    an_order(dead)
    assert 'aria-label="Stop rdr_1"' in admin.get("/redrives").text
    stopped = admin.post("/redrives/rdr_1/stop", follow_redirects=True).text
    assert "Stopped: 0 of 3 are sent again." in stopped
    assert "by dashboard" in stopped
    assert 'aria-label="Stop rdr_1"' not in stopped
    assert "The order is over" in admin.post("/redrives/rdr_1/stop", follow_redirects=True).text
    assert "There is no order" in admin.post("/redrives/rdr_2/stop", follow_redirects=True).text


def test_orders_are_listed_newest_first_with_who_gave_them(dead: World, admin: FlaskClient) -> None:
    for number in range(60):
        an_order(dead, id_=f"rdr_{number}", author=f"张{HOSTILE}")
        with dead.db.write() as tx:
            redrives.end(tx, f"rdr_{number}", by=HOSTILE, now=NOON)
    page = admin.get("/redrives").text
    assert "<script>alert" not in page
    assert page.index("rdr_59") < page.index("rdr_58")
    assert "rdr_0" not in page
    older = unescape(page.split('rel="next" href="')[1].split('"')[0])
    assert "Progress of rdr_0" in admin.get(older).text


@pytest.mark.parametrize("cursor", ["x", "9" * 40, "-1", "½"])
def test_a_cursor_that_is_none_is_the_beginning(dead: World, admin: FlaskClient, cursor: str) -> None:
    an_order(dead)
    assert "rdr_1" in admin.get(f"/redrives?cursor={cursor}").text


def test_without_an_order_it_is_said_where_they_are_given(admin: FlaskClient) -> None:
    assert "No order has been given." in admin.get("/redrives").text


def test_who_may_only_look_orders_and_stops_nothing(dead: World, reader: FlaskClient) -> None:
    an_order(dead)
    assert "0 of 3" in reader.get("/redrives").text
    assert "<button" not in reader.get("/redrives").text.split("<main")[1]
    assert "<form" not in reader.get("/redrives/new?state=dead").text.split("<main")[1]
    assert reader.post("/redrives?state=dead", data=RATE).status_code == 403
    assert reader.post("/redrives/rdr_1/stop").status_code == 403
    assert [one.ended_at for one in orders(dead)] == [None]
