"""The ways in which people use a page: by keyboard, in their own time zone, copying from it."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from playwright.sync_api import expect

from bridge.record.polling import snapshots
from tests.browser.bridges import Bridge
from tests.browser.conftest import Visit
from tests.browser.people import Person
from tests.conftest import only_sqlite
from tests.support.nouns import NOON, a_job

pytestmark = only_sqlite


def test_a_job_is_found_and_opened_with_the_keyboard_alone(admin: Person, bridge: Bridge) -> None:
    job = bridge.job()
    keys, focus = admin.page.keyboard, admin.page.locator(":focus")
    keys.press("Tab")
    expect(focus).to_have_text("Skip to content")
    expect(focus).to_be_in_viewport()
    keys.press("Enter")
    expect(admin.page.get_by_role("main")).to_be_focused()
    admin.goes_to("/jobs")
    search = admin.page.get_by_label("Find a job, a delivery or an incident by its id")
    for _ in range(12):  # the skip link, the name, seven pages, and it
        keys.press("Tab")
        if search.evaluate("box => box === document.activeElement"):
            break
    expect(search).to_be_focused()
    keys.type(job)
    keys.press("Enter")
    expect(admin.page.get_by_role("heading", level=1)).to_contain_text(job)


def test_times_are_those_of_who_looks(visit: Visit, bridge: Bridge) -> None:
    job = bridge.job()
    (step,) = bridge.stage.transitions()[job]
    seen = datetime.fromisoformat(step["seen_at"])
    for zone in ("Asia/Shanghai", "America/New_York"):
        ann = visit(timezone_id=zone)
        ann.signs_in()
        ann.goes_to(f"/jobs/{job}")
        there = f"{seen.astimezone(ZoneInfo(zone)):%-d %b %Y, %H:%M:%S}"
        entry = ann.page.get_by_role("listitem").filter(has_text="seen by watch media")
        expect(entry).to_contain_text(there)
        expect(ann.page.get_by_text(re.compile(f"Times are {zone}"))).to_be_visible()


def test_without_javascript_times_say_that_they_are_utc(visit: Visit, bridge: Bridge) -> None:
    job = bridge.job()
    (step,) = bridge.stage.transitions()[job]
    ann = visit(java_script_enabled=False, timezone_id="Asia/Shanghai")
    ann.signs_in()
    ann.goes_to(f"/jobs/{job}")
    ann.reads(f"{datetime.fromisoformat(step['seen_at']):%Y-%m-%d %H:%M:%S} UTC")


pytestmark = only_sqlite

_NAME = "photo\u202egpj.exe"


def test_a_name_that_is_spelt_out_is_copied_as_it_is(admin: Person, bridge: Bridge) -> None:
    job = a_job(id="j-odd", input=_NAME, user_data="plain")
    with bridge.stage.db.write() as tx:
        snapshots.save(tx, [job], [], {}, stream="s", streams=["s"], now=NOON)
    admin.goes_to("/jobs/j-odd")
    shown = admin.page.get_by_text(r"photo\u202egpj.exe", exact=True)
    expect(shown).to_be_visible()
    admin.page.evaluate("document.addEventListener('copy', (event) => {"
                        " window.copied = event.clipboardData.getData('text/plain'); })")  # fmt: skip
    for select, copied in (
        ("one => one", _NAME),
        ("one => one.parentElement.parentElement", f"Input\n{_NAME}"),
    ):
        shown.evaluate(f"one => getSelection().selectAllChildren(({select})(one))")
        admin.page.keyboard.press("Control+C")
        assert admin.page.evaluate("window.copied").replace("\n\n", "\n") == copied
