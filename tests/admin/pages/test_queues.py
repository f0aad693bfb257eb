"""Queues: their names on pages and in the API, and which are paused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from bridge.model import PAUSED, Place, Queue
from tests.admin.pages.reading import text_of
from tests.support.admin_world import RULES, World, a_book, job_number

EVIL = "<script>alert(1)</script>\"'\u202e"
WIDER = RULES.replace('queues = ["vod"]\n', "")


def test_jobs_are_shown_with_ci_s_name_of_their_queue_and_an_alias_comes_first(
    world: World, admin: FlaskClient
) -> None:
    world.has_queues(Queue(id="p9", name="queue-9", state="Active"), Queue(id="p224", name="queue-1", state="Active"))
    world.sees(job_number(1, queue="p9"), job_number(2), job_number(3, queue="p7"))
    for path in ("/", "/jobs"):
        page = text_of(admin.get(path).text)
        assert "queue-9" in page, path
        assert "vod" in page, path
        assert "queue-1" not in page, path
        assert "p7" in page, path
    assert "Queue queue-9" in text_of(admin.get("/jobs/j1").text)
    assert 'value="p9"' in admin.get("/jobs").text  # what the filter offers
    listed = world.client().get("/api/v1/jobs").json["items"]
    assert {job["id"]: job["queue_name"] for job in listed} == {"j1": "queue-9", "j2": "vod", "j3": None}
    assert world.client().get("/api/v1/jobs/j1").json["queue_name"] == "queue-9"


def test_a_paused_queue_is_shown_on_the_overview_and_its_watch(world: World, admin: FlaskClient) -> None:
    world.book = a_book(WIDER)
    world.has_queues(Queue(id="p9", name="queue-9", state=PAUSED), Queue(id="p8", name="queue-8", state="Active"))
    assert "queue queue-9 (media-1250000000) is paused in CI: its jobs wait" in text_of(admin.get("/").text)
    assert "Paused in CI: queue-9. Jobs of this queue wait." in text_of(admin.get("/watches").text)
    (watch,) = world.client().get("/api/v1/watches").json["items"]
    assert watch["paused_queues"] == [{"id": "p9", "name": "queue-9"}]
    assert "queue-8" not in text_of(admin.get("/").text)


@pytest.mark.parametrize("rules", [RULES, WIDER.replace("media-1250000000", "other-1250000000")])
def test_a_paused_queue_that_no_watch_polls_is_not_shown(world: World, admin: FlaskClient, rules: str) -> None:
    world.book = a_book(rules)
    world.has_queues(Queue(id="p9", name="queue-9", state=PAUSED))
    assert "paused in CI" not in admin.get("/").text
    assert "Paused in CI" not in admin.get("/watches").text


def test_a_name_of_ci_is_text_on_every_page(world: World, admin: FlaskClient) -> None:
    world.book = a_book(WIDER)
    world.has_queues(Queue(id="p9", name=EVIL, state=PAUSED))
    world.sees(job_number(1, queue="p9"))
    for path in ("/", "/jobs", "/jobs/j1", "/watches"):
        page = admin.get(path).text
        assert "alert(1)" in page, path
        assert "<script>alert" not in page, path
        assert "\u202e" not in page, path


def test_a_watch_says_whose_keys_it_has(world: World, admin: FlaskClient) -> None:
    (watch,) = world.book.watches
    place = Place(bucket=watch.place.bucket, region=watch.place.region, credentials="media")
    world.book = replace(world.book, watches=(replace(watch, place=place),))
    assert "Credentials media" in text_of(admin.get("/watches").text)
    assert world.client().get("/api/v1/watches").json["items"][0]["credentials"] == "media"
