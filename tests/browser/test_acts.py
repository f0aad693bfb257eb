"""What is done on the pages is done to the bridge, and is seen."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from bridge.simulator.web import text_answer
from tests.browser.bridges import Bridge
from tests.browser.people import Person
from tests.conftest import only_sqlite

pytestmark = only_sqlite


def test_all_that_died_is_resent_as_a_batch(admin: Person, bridge: Bridge) -> None:
    dead = [bridge.dead() for _ in range(2)]
    bridge.broken.clear()
    admin.goes_to("/deliveries?state=dead&notifier=brief")
    admin.page.get_by_role("link", name=re.compile("^Resend all")).click()
    admin.reads("would be resent")
    admin.page.get_by_role("button", name=re.compile("^Resend ")).click()
    for job, delivery in dead:
        bridge.await_(lambda job=job: bridge.accepted("/next", job))
        assert [one.id for one in bridge.accepted("/next", job)] == [delivery["id"]]
    admin.looks_again()
    expect(admin.page.get_by_role("region", name="Progress")).to_contain_text("2 of 2")


def test_some_that_died_are_chosen_and_sent_again(admin: Person, bridge: Bridge) -> None:
    (job, chosen), (other, _) = bridge.dead(), bridge.dead()
    bridge.broken.clear()
    admin.goes_to("/deliveries?state=dead")
    admin.page.get_by_label(f"Select {chosen['id']}").check()
    admin.page.get_by_role("button", name="Resend selected").click()
    expect(admin.page.get_by_role("status")).to_contain_text("1 of 1 queued")
    bridge.await_(lambda: bridge.accepted("/next", job))
    assert [one["state"] for one in bridge.deliveries(other)] == ["dead"]


def test_a_silence_is_previewed_added_seen_and_ended(admin: Person, bridge: Bridge) -> None:
    before = bridge.job(input="studio/before.mp4")
    admin.goes_to("/silences")
    admin.page.get_by_role("link", name="Add a silence").first.click()
    admin.page.get_by_label("Input").fill("studio/**")
    admin.page.get_by_label("Reason").fill("编码器升级")
    admin.page.get_by_role("button", name="Preview").click()
    foreseen = admin.page.get_by_role("region", name=re.compile("it would have matched"))
    expect(foreseen.get_by_title(before)).to_be_visible()
    expect(admin.page.locator("#preview")).to_be_focused()
    expect(foreseen.get_by_role("heading", level=2)).to_be_in_viewport()
    admin.page.get_by_role("button", name="Add").click()
    active = admin.page.get_by_role("region", name="Active")
    expect(active).to_contain_text("编码器升级")

    job = bridge.job(input="studio/after.mp4")
    admin.looks_again()
    expect(active.get_by_role("link", name="1 messages")).to_be_visible()
    assert bridge.accepted("/cms", job) == []
    active.get_by_role("button", name="End").click()
    expect(admin.page.get_by_role("region", name="Over")).to_contain_text("编码器升级")
    expect(active).to_contain_text("There are no active silences.")
    bridge.await_(lambda: [one for one in bridge.stage.accepted["/cms"] if job in one.body.decode()])


def test_a_watch_is_paused_resumed_and_polled_at_once(admin: Person, bridge: Bridge) -> None:
    admin.goes_to("/watches")
    watch = admin.page.get_by_role("article", name="archive")
    calls = [one for one in bridge.stage.ci.requests if one.headers["host"].startswith("archive-")]
    watch.get_by_role("button", name="Pause").click()
    expect(watch).to_contain_text("paused")
    watch.get_by_role("button", name="Resume").click()
    expect(watch).not_to_contain_text("paused")
    watch.get_by_role("button", name="Poll now").click()
    expect(admin.page.get_by_role("status")).to_contain_text("archive is polled as soon as a worker is free")
    bridge.await_(
        lambda: (
            len([one for one in bridge.stage.ci.requests if one.headers["host"].startswith("archive-")]) > len(calls)
        )
    )


def test_a_notifier_that_was_told_to_go_away_is_resumed_and_tells_what_waited(admin: Person, bridge: Bridge) -> None:
    bridge.broken["/stuck"] = text_answer("gone", status=410)
    job = bridge.job("Concat")
    figure = admin.page.get_by_role("link", name="Failing notifiers")
    expect(figure).to_contain_text("door")
    bridge.broken.clear()
    figure.click()
    client = admin.page.get_by_role("article", name="door")
    expect(client).to_contain_text("it wants no more deliveries")
    client.get_by_role("button", name="Resume").click()
    bridge.await_(lambda: bridge.accepted("/stuck", job))
    admin.looks_again()
    expect(client).to_contain_text("fine")


def test_a_test_is_sent_and_its_attempt_is_seen(admin: Person, bridge: Bridge) -> None:
    admin.goes_to("/notifiers")
    admin.page.get_by_role("article", name="cms").get_by_role("button", name="Send a test").click()
    expect(admin.page.get_by_role("region", name="Attempts")).to_contain_text("HTTP 204")
