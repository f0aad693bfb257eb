"""What becomes of an open page while the bridge does not answer."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.bridges import Bridge
from tests.browser.people import Person
from tests.conftest import only_sqlite

pytestmark = only_sqlite


@pytest.mark.parametrize("status", [502, 503])
def test_a_page_stays_while_nothing_answers_and_goes_on_afterwards(admin: Person, bridge: Bridge, status: int) -> None:
    admin.complaints.expected |= {status}
    admin.goes_to("/jobs")
    refreshes = f"{bridge.url}/jobs"
    admin.page.route(refreshes, lambda route: route.fulfill(status=status, body="<h1>the router says this</h1>"))
    with admin.page.expect_response(refreshes):
        admin.looks_again()
    admin.page.unroute(refreshes)
    job = bridge.job()
    admin.looks_again()
    expect(admin.page.get_by_title(job)).to_have_count(1)
    expect(admin.page.get_by_role("heading", level=1)).to_have_text("Jobs")
