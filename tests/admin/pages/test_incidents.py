"""Incidents on pages: the list, one of them, acknowledging it, and where else they are shown."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from tests.admin.pages.conftest import page, posted, signed_in
from tests.admin.pages.reading import text_of
from tests.support.admin_world import RULES, World, a_book, a_failed_job

SICK = """
[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 3"
within = "10m"
notify = "cms"
escalate = { after = "30m", notify = "ops/1" }
"""


@pytest.fixture
def world(world: World) -> World:
    world.book = a_book(RULES + SICK)
    world.sync()
    world.accepts(world.book)
    return world


def healthy(world: World) -> None:
    world.register()
    world.beat()
    world.polled()


def test_open_incidents_are_listed_first_on_the_overview_whose_verdict_stays_well(
    world: World, admin: FlaskClient
) -> None:
    healthy(world)
    assert text_of(page(admin, "/")).startswith("All is well database answers")
    world.incident("j1", "j2", "j3", rule="sick")
    seen = text_of(page(admin, "/"))
    assert seen.startswith("All is well Open incidents")
    assert "queue vod open sick 3 Failed 3" in seen
    assert "nobody yet" in seen


def test_an_incident_is_shown_with_its_jobs_and_who_acknowledged_it(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1))
    incident = world.incident("j1", rule="sick")
    whole = page(admin, f"/incidents/{incident}")
    seen = text_of(whole)
    assert "sick queue vod open 1 Failed" in seen
    assert 'href="/jobs/j1?bucket=media-1250000000"' in whole
    assert "uploads/a.mp4" in seen
    posted(admin, f"/incidents/{incident}/acknowledge", 303, author="安 <ann>\u202e")
    seen = text_of(page(admin, f"/incidents/{incident}"))
    assert "Acknowledged by 安 <ann>" in seen
    assert "Your name" not in seen
    posted(admin, f"/incidents/{incident}/acknowledge", 303)
    assert re.search("was acknowledged by 安 <ann> at 2026", text_of(page(admin, f"/incidents/{incident}")))


def test_who_gives_no_name_acknowledges_as_the_dashboard(world: World, admin: FlaskClient) -> None:
    incident = world.incident("j1", rule="sick")
    posted(admin, f"/incidents/{incident}/acknowledge", 303, author=" ")
    assert "Acknowledged by dashboard" in text_of(page(admin, f"/incidents/{incident}"))


def test_who_only_reads_is_offered_no_button_and_other_sites_cannot_press_it(world: World, reader: FlaskClient) -> None:
    incident = world.incident("j1", rule="sick")
    seen = text_of(page(reader, f"/incidents/{incident}"))
    assert "Sign in with the admin token to acknowledge it." in seen
    posted(reader, f"/incidents/{incident}/acknowledge", 403)
    other = signed_in(world)
    other.environ_base["HTTP_ORIGIN"] = "https://evil.example"
    posted(other, f"/incidents/{incident}/acknowledge", 403)
    assert "Acknowledged by" not in text_of(page(reader, f"/incidents/{incident}"))


def test_the_list_is_filtered_and_says_when_nothing_matches(world: World, admin: FlaskClient) -> None:
    assert "There are no incidents." in page(admin, "/incidents")
    world.incident("j1", rule="sick")
    assert "queue vod" in text_of(page(admin, "/incidents?state=open&rule=sick"))
    assert "No incident matches." in page(admin, "/incidents?state=closed")
    assert "state: &#34;ill&#34; is none; use open, closed, watched" in page(admin, "/incidents?state=ill")
    page(admin, "/incidents/inc_none", 404)


def test_a_list_has_pages(world: World, admin: FlaskClient) -> None:
    for number in range(26):
        world.incident(rule="sick", key=f"k{number:02}")
    first = page(admin, "/incidents")
    assert "inc_k25" in first
    assert "inc_k00" not in first
    (older,) = re.findall('rel="next" href="([^"]+)"', first)
    assert "inc_k00" in page(admin, older)


def test_a_job_says_what_it_counts_for_and_an_id_leads_to_its_incident(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1))
    incident = world.incident("j1", rule="sick")
    assert f'href="/incidents/{incident}"' in page(admin, "/jobs/j1")
    assert "open incident sick (queue vod), as Failed" in text_of(page(admin, "/jobs/j1"))
    assert admin.get(f"/find?id={incident}").location == f"/incidents/{incident}"


def test_text_of_others_is_shown_and_not_obeyed(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1))
    incident = world.incident("<b>j1", rule="sick", by="<script>alert(1)</script>\u202e")
    for path in ("/", "/incidents", f"/incidents/{incident}"):
        seen = page(admin, path)
        assert "<script>alert" not in seen
        assert "\u202e" not in seen
    assert "<b>j1" not in page(admin, f"/incidents/{incident}")
