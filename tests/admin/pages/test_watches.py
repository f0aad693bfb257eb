"""Watches: what is polled and how it goes, and polling, pausing and resuming by hand."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from bridge.record.polling import leases
from bridge.record.queries import gauges
from bridge.record.queries.lists import Facts
from tests.admin.pages.test_deliveries import text
from tests.support.admin_world import NOON, RULES, World, a_book

HOSTILE = '"><script>alert(1)</script>&'
SECOND = """
[[watch]]
name = "归档/1"
bucket = "archive-1250000000"
region = "ap-beijing"
tags = ["Tts"]
"""


def card(page: str, name: str) -> str:
    """Return the part of the page that is about one watch."""
    return page.split(f'id="watch-{name}"')[1].split("</article>")[0]


def row(world: World, name: str) -> Facts:
    with world.db.read() as tx:
        return next(one for one in gauges.watches(tx) if one["name"] == name)


def test_a_card_says_what_is_polled_and_how_it_went(world: World, admin: FlaskClient) -> None:
    world.polled()
    page = admin.get("/watches").text
    said = text(card(page, "vod"))
    assert "vod fine Bucket media-1250000000 Region ap-chongqing Tags Transcode, Snapshot Queues vod p224" in said
    assert "Last complete poll 2026-11-21 12:00:00 UTC now Next poll 2026-11-21 12:00:30 UTC in 30 s" in said
    assert "In the last poll 2 calls, 3 jobs" in said
    assert 'hx-get="/watches"' in page


def test_a_watch_without_queues_looks_at_all(world: World, admin: FlaskClient) -> None:
    world.book = a_book(SECOND + RULES)
    said = text(card(admin.get("/watches").text, "归档/1"))
    assert "归档/1 not polled yet" in said
    assert "Queues all" in said
    assert "Next poll as soon as a worker is free" in said


def test_a_poll_that_failed_shows_ci_s_advice(world: World, admin: FlaskClient) -> None:
    world.polled(error=f"CI refuses the key; allow ci:DescribeMediaJobs\n{HOSTILE}")
    page = admin.get("/watches").text
    assert "1 poll in a row failed: CI refuses the key; allow ci:DescribeMediaJobs" in text(card(page, "vod"))
    assert "<script>alert" not in page


def test_a_watch_is_polled_now(world: World, admin: FlaskClient) -> None:
    world.polled()
    assert 'aria-label="Poll now: vod"' in admin.get("/watches").text
    assert "vod is polled as soon as a worker is free." in admin.post("/watches/vod/poll", follow_redirects=True).text
    assert row(world, "vod")["next_poll_at"] is None


def test_a_watch_is_paused_and_goes_on(world: World, admin: FlaskClient) -> None:
    paused = admin.post("/watches/vod/pause", follow_redirects=True).text
    assert row(world, "vod")["paused"] is True
    assert "its jobs are not polled" in card(paused, "vod")
    assert "Poll now" not in card(paused, "vod")
    assert "is paused; resume it" in admin.post("/watches/vod/poll", follow_redirects=True).text
    assert "vod is polled again." in admin.post("/watches/vod/resume", follow_redirects=True).text
    assert row(world, "vod")["paused"] is False


def test_a_name_may_have_a_slash_and_be_chinese(world: World, admin: FlaskClient) -> None:
    world.book = a_book(SECOND + RULES)
    admin.post("/watches/归档/1/pause")
    assert row(world, "归档/1")["paused"] is True


@pytest.mark.parametrize("deed", ["poll", "pause", "resume"])
def test_a_watch_that_is_not_there_is_said_so(admin: FlaskClient, deed: str) -> None:
    answer = admin.post(f"/watches/vox%3C/{deed}", follow_redirects=True)
    assert "rules.toml has no watch &#34;vox&lt;&#34;" in answer.text


def test_what_only_the_record_knows_is_marked(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        leases.sync(tx, a_book(SECOND + RULES).watches, [])
        leases.polled(
            tx, "归档/1", began=NOON, next_poll=NOON + timedelta(minutes=1), error=None, failures=0, calls=1, jobs=1
        )
    old = card(admin.get("/watches").text, "归档/1")
    assert "not in rules.toml" in old
    assert "1 call, 1 job" in text(old)
    assert "<button" not in old


def test_without_a_watch_it_is_said_how_to_make_one(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        tx.exec_driver_sql("DELETE FROM watch")
    world.book = replace(world.book, watches=())
    assert "Add a [[watch]] to rules.toml" in admin.get("/watches").text


def test_who_may_only_look_finds_no_button(world: World, reader: FlaskClient) -> None:
    page = reader.get("/watches").text
    assert "<button" not in card(page, "vod")
    for deed in ("poll", "pause", "resume"):
        assert reader.post(f"/watches/vod/{deed}").status_code == 403
    assert row(world, "vod")["paused"] is False


@pytest.mark.parametrize(("ahead_s", "says"), [(600, "CI's clock is 10 min ahead of ours"), (60, None), (None, None)])
def test_a_difference_of_clocks_is_said_on_its_card_the_overview_and_readyz(
    world: World, admin: FlaskClient, ahead_s: float | None, says: str | None
) -> None:
    clock = None if ahead_s is None else timedelta(seconds=ahead_s)
    with world.db.write() as tx:
        leases.polled(
            tx, "vod", began=NOON, next_poll=NOON, error=None, failures=0, calls=1, jobs=0, clock=(clock,)
        )  # fmt: skip
    pages = [text(card(admin.get("/watches").text, "vod")), text(admin.get("/").text), admin.get("/readyz").text]
    assert all((says or "CI's clock is") in html.unescape(page) for page in pages) == (says is not None)
    assert row(world, "vod")["clock_ahead_seconds"] == ahead_s
    scraped = world.client().get("/metrics").text
    found = re.findall(r'bridge_watch_clock_ahead_seconds{[^}]*watch="vod"[^}]*} (\S+)', scraped)
    assert found == ([] if ahead_s is None else [f"{ahead_s:.1f}"])
