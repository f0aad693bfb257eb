"""What becomes of an open page while the bridge does not answer."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Route, expect

from tests.browser.bridges import Bridge
from tests.browser.conftest import Visit
from tests.browser.people import Person
from tests.conftest import only_sqlite

pytestmark = only_sqlite

SINCE = re.compile(r"No response since \d\d:\d\d")


def router(status: int) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status, body="<h1>the router says this</h1>", content_type="text/html")


@pytest.mark.parametrize("status", [503, 200])
def test_a_page_stays_while_a_router_answers_and_goes_on_afterwards(admin: Person, bridge: Bridge, status: int) -> None:
    admin.complaints.expected |= {status}
    admin.goes_to("/jobs")
    refreshes = f"{bridge.url}/jobs"
    admin.page.route(refreshes, router(status))
    admin.looks_again()
    expect(admin.page.get_by_role("alert")).to_contain_text(SINCE)
    expect(admin.page.get_by_role("heading", level=1)).to_have_text("Jobs")
    admin.page.unroute(refreshes)
    job = bridge.job()
    admin.looks_again()
    expect(admin.page.get_by_title(job)).to_have_count(1)
    expect(admin.page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("hangs", [False, True])
def test_while_nothing_answers_the_overview_says_since_when_and_its_ages_go_on(
    visit: Visit, bridge: Bridge, hangs: bool
) -> None:
    ann = visit()
    ann.page.clock.install()
    ann.signs_in()
    ann.complaints.meant = True  # the browser says of each refresh that it failed
    polled = ann.page.get_by_role("link", name="Last complete poll")
    expect(polled).to_contain_text(re.compile(r"\d s ago"))
    ann.page.route(f"{bridge.url}/*", (lambda _: None) if hangs else (lambda route: route.abort("connectionrefused")))
    ann.page.clock.fast_forward("01:15")
    expect(polled).to_contain_text(re.compile(r"1 min [12]\d s ago"))
    ann.page.clock.run_for(12_000)
    expect(ann.page.get_by_role("alert")).to_contain_text(SINCE)
    ann.page.clock.fast_forward("02:00:00")
    expect(polled).to_contain_text(re.compile(r"2 h 1 min ago"))
    ann.page.unroute_all(behavior="ignoreErrors")
    ann.page.clock.run_for(12_000)
    expect(ann.page.get_by_role("alert")).to_have_count(0)
