"""What the dashboard is for, told as a person lives it: is all well, what happened to this job, send it again."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from bridge.model import RUNNING, SUCCESS
from tests.browser.bridges import ADMIN, Bridge
from tests.browser.conftest import Visit
from tests.browser.people import AGAIN, Person


def test_a_job_appears_moves_and_finishes_while_somebody_looks(visit: Visit, bridge: Bridge) -> None:
    ann = visit()
    ann.complaints.expected |= {401}
    ann.signs_in("not the token")
    expect(ann.page.get_by_role("alert")).to_contain_text("none of BRIDGE_ADMIN_TOKEN")
    ann.signs_in(ADMIN)
    expect(ann.page.get_by_role("heading", level=1)).to_be_visible()
    loaded = ann.page.evaluate("performance.timeOrigin")

    job = bridge.job()
    feed = ann.page.get_by_role("region", name="Latest transitions")
    expect(feed.get_by_title(job)).to_have_count(1)
    bridge.stage.ci.move(job, RUNNING)
    bridge.await_(lambda: len(bridge.accepted("/cms", job)) == 2)
    bridge.stage.ci.move(job, SUCCESS)
    finished = feed.get_by_role("row").filter(has=ann.page.get_by_title(job)).filter(has_text=SUCCESS)
    expect(finished).to_contain_text("sent")
    assert ann.page.evaluate("performance.timeOrigin") == loaded  # without a reload

    finished.get_by_title(job).click()
    life = ann.page.get_by_role("region", name="Timeline")
    expect(life.get_by_role("listitem").filter(has_text="Message for cms")).to_have_count(3)
    expect(life.get_by_role("listitem").filter(has_text="Attempt 1 for cms sent status 204")).to_have_count(3)
    expect(life).to_contain_text("rule transcoded")
    assert [one.json["data"]["to"] for one in bridge.accepted("/cms", job)] == ["Submitted", RUNNING, SUCCESS]


ALL_DIED_TODAY = re.compile(r"([1-9]\d*)\s*\1 in the last 24 h")  # those of other tests too


def test_a_dead_delivery_is_found_in_two_clicks_and_arrives_when_resent(admin: Person, bridge: Bridge) -> None:
    job, dead = bridge.dead()
    bridge.broken.clear()
    admin.looks_again()
    expect(admin.page.get_by_role("link", name="Dead")).to_contain_text(ALL_DIED_TODAY)
    admin.page.get_by_role("link", name="Dead").click()
    admin.page.get_by_role("row").filter(has=admin.page.get_by_title(job)).get_by_title(dead["id"]).click()
    admin.reads("answered 500 Internal Server Error")
    admin.page.get_by_role("button", name=AGAIN).click()
    bridge.await_(lambda: bridge.accepted("/next", job))
    assert [one.id for one in bridge.accepted("/next", job)] == [dead["id"]]
    expect(admin.page.get_by_role("main")).to_contain_text("sent")


def test_a_missing_notification_is_explained_in_one_click_and_sent_manually_in_another(
    admin: Person, bridge: Bridge
) -> None:
    job = bridge.job("SpeechRecognition")
    admin.looks_again()
    row = admin.page.get_by_role("row").filter(has=admin.page.get_by_title(job))
    expect(row).to_contain_text("nobody: no rule matched")
    row.get_by_role("link", name=f"Why? {job}").click()
    unsent = admin.page.get_by_role("region", name="Nobody was notified")
    expect(unsent).to_be_visible()
    unsent.get_by_label("Notify manually").select_option("cms")
    unsent.get_by_role("button", name="Notify").click()
    expect(admin.page.get_by_role("status")).to_contain_text("Queued for cms")
    bridge.await_(lambda: bridge.accepted("/cms", job))
