"""What every page owes to everybody: it can be read, by any eyes and ears, on any screen."""

from __future__ import annotations

import pytest

from tests.browser.axe import CONTRAST, SERIOUS, violations
from tests.browser.bridges import Bridge
from tests.browser.conftest import Visit
from tests.browser.people import Person
from tests.browser.walk import LONG, LivedIn, lived_in
from tests.conftest import only_sqlite

pytestmark = only_sqlite


@pytest.fixture
def house(bridge: Bridge) -> LivedIn:
    return lived_in(bridge)


def test_no_page_has_a_serious_fault_for_who_cannot_see_it_well(admin: Person, house: LivedIn, visit: Visit) -> None:
    faults = []
    for path in house.paths:
        person = visit() if path == "/sign-in" else admin
        person.goes_to(path)
        faults += [(path, fault) for fault in violations(person.page)]
        person.page.emulate_media(color_scheme="dark")
        faults += [(f"{path} in the dark", fault) for fault in violations(person.page, rules=CONTRAST)]
        person.page.emulate_media(color_scheme="light")
    serious = [f"{where}: {fault}" for where, fault in faults if fault.impact in SERIOUS]
    assert not serious, "\n".join(serious)


def test_no_page_scrolls_sideways_on_a_phone(admin: Person, house: LivedIn) -> None:
    admin.page.set_viewport_size({"width": 360, "height": 740})
    widths = {}
    for path in house.paths:
        admin.goes_to(path)
        widths[path] = admin.page.evaluate("document.scrollingElement.scrollWidth")
    assert {path: width for path, width in widths.items() if width > 360} == {}


@pytest.mark.parametrize("path", ["/jobs", "/deliveries", "/deliveries?state=dead", "/silences", "/deliveries/batches"])
def test_no_table_is_cut_on_a_usual_screen(admin: Person, house: LivedIn, path: str) -> None:
    admin.page.set_viewport_size({"width": 1280, "height": 800})
    admin.goes_to(path)
    tables = admin.page.locator(".scroll").evaluate_all("all => all.map((one) => one.scrollWidth - one.clientWidth)")
    assert [hidden for hidden in tables if hidden > 0] == []


def test_chinese_names_are_shown_whole(admin: Person, house: LivedIn) -> None:
    admin.goes_to(f"/jobs/{house.job}")
    admin.reads(LONG)
    admin.reads("视频转码")
