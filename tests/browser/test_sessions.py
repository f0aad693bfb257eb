"""Who may do what: the read token, pages of others, signing out; and a browser without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from bridge.links import Links
from bridge.simulator.web import Answer, Request, WebServer
from tests.browser.bridges import ADMIN, Bridge
from tests.browser.conftest import Visit
from tests.browser.people import AGAIN, Person
from tests.conftest import only_sqlite

pytestmark = only_sqlite


class Forger(WebServer):
    """Another site, whose page posts to ours as soon as it is opened."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    def respond(self, request: Request) -> Answer:
        body = f'<form method="post" action="{self._target}"><button>A prize</button></form>'
        return Answer(body=body.encode(), headers={"Content-Type": "text/html"})


@pytest.fixture
def forged(bridge: Bridge) -> Iterator[tuple[str, str, str]]:
    """A dead delivery, and pages of another site and of another port of this one that want it sent again."""
    job, dead = bridge.dead()
    with Forger(f"{bridge.url}/deliveries/{dead['id']}/redrive") as forger:
        yield job, forger.url, forger.url.replace("127.0.0.1", "localhost")


def test_a_page_of_another_origin_cannot_post_with_the_cookie(
    admin: Person, bridge: Bridge, forged: tuple[str, str, str]
) -> None:
    job, *origins = forged
    cookies = []
    for origin in origins:
        page = admin.page.context.new_page()
        admin.complaints.origins.add(origin)
        admin.complaints.expected |= {403, 303}
        page.goto(origin)
        with page.expect_navigation() as answered:
            page.get_by_role("button").click()
        assert answered.value.status == 403
        cookies.append("cookie" in answered.value.request.all_headers())
    assert cookies == [True, False]  # one site whatever the port; another name is another site
    assert [one["state"] for one in bridge.deliveries(job)] == ["dead"]


class Chat(WebServer):
    """Another site, where somebody has posted links to ours."""

    def __init__(self, *targets: str) -> None:
        super().__init__()
        self._targets = targets

    def respond(self, request: Request) -> Answer:
        body = "".join(f'<a href="{target}">{place}</a> ' for place, target in enumerate(self._targets))
        return Answer(body=body.encode(), headers={"Content-Type": "text/html"})


def test_a_link_in_a_chat_opens_the_page_that_was_meant(visit: Visit, bridge: Bridge) -> None:
    job, dead = bridge.dead()
    links = Links(bridge.url)
    pages = [links.job(job), links.delivery(dead["id"]), links.digest(dead["id"]), links.silence("thumbnails")]
    with Chat(*map(str, pages)) as chat:
        ann, elsewhere = visit(), chat.url.replace("127.0.0.1", "localhost")  # which is another site
        ann.complaints.origins.add(elsewhere)
        for place, page in enumerate(pages):
            ann.page.goto(elsewhere)
            ann.page.get_by_role("link", name=str(place)).click()
            if place == 0:  # later ones find a session
                ann.page.get_by_label("Token").fill(ADMIN)
                ann.page.get_by_role("button", name="Sign in").click()
            expect(ann.page).to_have_url(str(page))
            expect(ann.page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(ann.page.get_by_label("Rule")).to_have_value("thumbnails")


def test_going_back_after_signing_out_shows_nothing(admin: Person, bridge: Bridge) -> None:
    admin.goes_to(f"/jobs/{bridge.job(input='uploads/nobody-else.mp4')}")
    admin.reads("uploads/nobody-else.mp4")
    admin.page.get_by_role("button", name="Sign out").click()
    expect(admin.page).to_have_url(f"{bridge.url}/sign-in")
    admin.page.go_back()
    expect(admin.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert "nobody-else" not in admin.page.content()


def test_without_javascript_signing_in_and_sending_again_work(visit: Visit, bridge: Bridge) -> None:
    job, dead = bridge.dead()
    bridge.broken.clear()
    ann = visit(java_script_enabled=False)
    ann.signs_in()
    ann.page.get_by_role("link", name="Dead").click()
    ann.page.get_by_role("row").filter(has=ann.page.get_by_title(job)).get_by_title(dead["id"]).click()
    ann.page.get_by_role("button", name=AGAIN).click()
    bridge.await_(lambda: bridge.accepted("/next", job))
    assert [one.id for one in bridge.accepted("/next", job)] == [dead["id"]]
