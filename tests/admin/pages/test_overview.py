"""The overview: is everything fine, what moved, and who was told."""

from __future__ import annotations

from datetime import timedelta

from flask.testing import FlaskClient

from bridge.model import RetryLater, Sent
from bridge.record.outbox import silences
from tests.admin.pages.reading import text_of
from tests.support.admin_world import NOON, World, a_failed_job, a_silence, job_number


def healthy(world: World) -> World:
    world.enlist()
    world.beat()
    world.polled()
    return world


def test_at_first_it_says_what_will_be_there(world: World, admin: FlaskClient) -> None:
    page = admin.get("/").text
    assert "There are no transitions yet." in page
    assert "No transitions in this time." in page
    assert "Something is wrong: no worker runs: start `ci-bridge worker`" in page


def test_a_silence_that_is_on_is_said(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        silences.add(tx, a_silence())
        silences.add(tx, a_silence("sil_2", ends_at=NOON - timedelta(hours=1), begins_at=NOON - timedelta(hours=2)))
    assert "1 active silence" in admin.get("/").text


def test_a_job_is_known_by_its_input_too(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1))
    assert "uploads/a.mp4" in admin.get("/").text


def test_what_waits_says_for_how_long(world: World, admin: FlaskClient) -> None:
    healthy(world)
    world.sees(job_number(1))
    world.attempt(RetryLater("503"))
    world.now += timedelta(minutes=20)
    assert "oldest: 20 min" in text_of(admin.get("/").text)


def test_each_transition_stands_with_the_deliveries_it_caused(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1), job_number(2))
    world.attempt(Sent())
    page = admin.get("/").text
    row = page.split('title="j1"')[1].split("</tr>")[0]
    assert "Failed" in row
    assert ">ops/1</a>" in row
    assert "sent" in row


def test_who_was_told_nothing_is_said_with_the_way_to_the_reason(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1, state="Success"), was="Running")
    with world.db.write() as tx:
        tx.exec_driver_sql("DELETE FROM delivery")
        tx.exec_driver_sql("UPDATE transition SET silent = 'first snapshot', verdicts = '[]'")
    page = admin.get("/").text
    assert "nobody: first snapshot" in page
    assert 'aria-label="Why? j1"' in page


def test_charts_are_of_the_span_that_is_asked_for(world: World, admin: FlaskClient) -> None:
    world.now -= timedelta(hours=20)
    world.sees(a_failed_job(1))
    world.now += timedelta(hours=20)
    assert "Transitions, tag Transcode" in admin.get("/?span=24h").text
    assert "No transitions in this time." in admin.get("/?span=1h").text
    assert 'aria-current="true">24h' in admin.get("/?span=nonsense").text


def test_its_live_part_comes_alone_when_it_is_asked_for(admin: FlaskClient) -> None:
    part = admin.get("/", headers={"HX-Request": "true"}).text
    assert part.startswith('<div id="live"')
    assert "<html" not in part


def test_charts_are_at_most_fifteen_seconds_old_and_all_else_is_of_now(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1))
    assert "Transcode: Failed 1" in admin.get("/").text
    world.now += timedelta(seconds=14)
    world.sees(a_failed_job(2))
    page = admin.get("/").text
    assert 'title="j2"' in page
    assert "Transcode: Failed 1" in page
    world.now += timedelta(seconds=1)
    assert "Transcode: Failed 2" in admin.get("/").text


def test_charts_are_drawn_anew_when_the_clock_was_set_back(world: World, admin: FlaskClient) -> None:
    admin.get("/")
    world.now -= timedelta(minutes=1)
    world.sees(a_failed_job(1))
    assert "Transcode: Failed 1" in admin.get("/").text
