"""The overview: is everything fine, what moved, and who was told."""

from __future__ import annotations

import re
from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest
from flask.testing import FlaskClient
from markupsafe import Markup

from bridge.admin.pages.overview import HEIGHT, WIDTH, bars
from bridge.model import RetryLater, Sent
from bridge.record.outbox import claims, silences
from tests.admin.pages.reading import text_of
from tests.support.admin_world import NOON, World, a_failed_job, a_silence, job_number


def healthy(world: World) -> World:
    world.register()
    world.beat()
    world.polled()
    return world


def test_at_first_it_says_what_will_be_there(world: World, admin: FlaskClient) -> None:
    page = admin.get("/").text
    assert "There are no transitions yet." in page
    assert "No transitions in this period." in page
    assert "Something is wrong: no worker runs: start `ci-bridge worker`" in page


def test_a_silence_that_is_on_is_said(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        silences.add(tx, a_silence())
        silences.add(tx, a_silence("sil_2", ends_at=NOON - timedelta(hours=1), begins_at=NOON - timedelta(hours=2)))
    assert "1 active silence" in admin.get("/").text


def test_a_job_is_known_by_its_input_too(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1))
    assert "uploads/a.mp4" in admin.get("/").text


def test_what_is_being_sent_does_not_wait(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1), job_number(2))
    with world.db.write() as tx:
        claims.claim(tx, free=64, lease="w1.1", lease_for=timedelta(minutes=1), now=world.now)
    assert "Waiting 0 2 being sent" in text_of(admin.get("/").text)


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


def test_a_transition_without_notification_links_to_its_explanation(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1, state="Success"), was="Running")
    with world.db.write() as tx:
        tx.exec_driver_sql("DELETE FROM delivery")
        tx.exec_driver_sql("UPDATE transition SET silent = 'first snapshot', verdicts = '[]'")
    page = admin.get("/").text
    assert "nobody: first snapshot" in page
    assert 'aria-label="Why? j1"' in page


def test_a_transition_whose_deliveries_were_pruned_does_not_say_that_nobody_was_notified(
    world: World, admin: FlaskClient
) -> None:
    world.sees(job_number(1))
    with world.db.write() as tx:
        tx.exec_driver_sql("DELETE FROM delivery")
    assert "no delivery on record" in admin.get("/").text


def test_charts_are_of_the_span_that_is_asked_for(world: World, admin: FlaskClient) -> None:
    world.now -= timedelta(hours=20)
    world.sees(a_failed_job(1))
    world.now += timedelta(hours=20)
    assert "Transitions, tag Transcode" in admin.get("/?span=24h").text
    assert "No transitions in this period." in admin.get("/?span=1h").text
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


# --- charts ----------------------------------------------------------------------------------------------------------


SLOTS = [NOON + timedelta(hours=n) for n in range(3)]
BAR = re.compile(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-([\d.]+)z")


def drawn(svg: Markup) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  (our own)


def boxes(svg: Markup) -> dict[str, list[tuple[float, float, float, float]]]:
    """Return (left, top, width, height) of each bar, by what its path is titled."""
    paths = [path for path in drawn(svg).findall("path") if path.attrib["class"] != "axis"]
    found = {}
    for path in paths:
        bars_ = [tuple(map(float, one)) for one in BAR.findall(path.attrib["d"])]
        found[str(path.findtext("title"))] = [(left, top, wide, tall) for left, top, wide, tall, _ in bars_]
    return found


def test_a_bar_is_as_high_as_its_count() -> None:
    found = boxes(bars({"Success": [1, 0, 2], "Failed": [0, 0, 2]}, SLOTS, label="vod"))
    one, two = found["Success 3"]
    (other,) = found["Failed 2"]
    assert two[3] == pytest.approx(2 * one[3], abs=0.2)
    assert other[3] == two[3]
    assert one[0] < two[0] == other[0]


def test_bars_of_a_slot_stand_on_each_other_and_stay_inside() -> None:
    found = boxes(bars({"Success": [0, 0, 3], "Failed": [0, 0, 4]}, SLOTS, label="vod"))
    (lower,), (upper,) = found["Success 3"], found["Failed 4"]
    assert upper[1] + upper[3] == pytest.approx(lower[1], abs=0.2)
    for left, top, wide, tall in (lower, upper):
        assert 0 <= top <= top + tall <= HEIGHT
        assert 0 <= left <= left + wide <= WIDTH


def test_each_word_has_its_colour_and_an_unknown_one_the_last() -> None:
    paths = drawn(bars({"Success": [1], "Weird": [1]}, SLOTS[:1], label="x")).findall("path")
    assert [path.attrib["class"] for path in paths] == ["axis", "c-success", "c-other"]


def test_screen_readers_get_the_sums() -> None:
    assert drawn(bars({"Success": [1, 0, 2]}, SLOTS, label="Queue vod")).attrib["aria-label"] == "Queue vod: Success 3"
    assert drawn(bars({}, SLOTS, label="Queue vod")).attrib["aria-label"] == "Queue vod: nothing"


def test_names_are_text_whatever_they_hold() -> None:
    svg = bars({'<script>"&': [1, 0, 0]}, SLOTS, label='"><script>alert(1)</script>')
    assert "<script>" not in svg
    assert drawn(svg).attrib["aria-label"].startswith('"><script>alert(1)</script>: <script>"&')


def test_nothing_at_all_is_an_empty_chart() -> None:
    assert boxes(bars({}, [], label="x")) == {}
