"""What is done on the pages is done to the bridge, and is seen."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from bridge.record.outbox import entries
from tests.browser.bridges import Bridge
from tests.browser.people import Person
from tests.conftest import only_sqlite

pytestmark = only_sqlite


def test_all_dead_deliveries_are_resent_as_a_batch(admin: Person, bridge: Bridge) -> None:
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
    expect(admin.page.get_by_role("region", name="Progress")).to_contain_text(
        re.compile(r"\b(\d+) of \1\b")
    )  # with those of other tests


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
    expect(admin.page.get_by_role("region", name="Ended")).to_contain_text("编码器升级")
    expect(active).to_contain_text("There are no active silences.")
    bridge.await_(lambda: [one for one in bridge.stage.accepted["/cms"] if job in one.body.decode()])


def test_a_range_of_deliveries_is_selected_with_shift_and_discarded(admin: Person, bridge: Bridge) -> None:
    dead = [bridge.dead()[1]["id"] for _ in range(4)]
    admin.goes_to("/deliveries?state=dead&notifier=brief")
    boxes = admin.page.get_by_role("table").get_by_role("checkbox")
    newest_first = [boxes.nth(place).get_attribute("value") for place in range(4)]
    assert newest_first == dead[::-1]
    boxes.nth(2).click()
    boxes.nth(0).click(modifiers=["Shift"])
    assert [boxes.nth(place).is_checked() for place in range(4)] == [True, True, True, False]
    boxes.nth(1).click(modifiers=["Shift"])  # a range is also cleared
    assert [boxes.nth(place).is_checked() for place in range(4)] == [False, False, True, False]
    boxes.nth(0).focus()
    admin.page.keyboard.press("Space")
    boxes.nth(1).focus()
    admin.page.keyboard.press("Shift+Space")
    admin.page.get_by_role("button", name="Discard selected").click()
    admin.page.get_by_label("Reason").fill("not needed")
    admin.page.get_by_role("button", name="Discard 3").click()
    admin.reads("3 deliveries discarded")
    with bridge.stage.db.read() as tx:
        assert entries.states(tx, dead) == dict.fromkeys(dead[1:], "discarded") | {dead[0]: "dead"}
