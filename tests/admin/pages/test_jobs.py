"""Jobs: found by what is known of them, shown with their whole life, sent by hand where nobody was."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from html import unescape
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from bridge.admin.schemas.jobs import timeline
from bridge.model import FAILED, RUNNING, SUBMITTED, JobProblem, MissingJob, Rejected, Sent
from bridge.pipeline.route import route_all
from bridge.record.polling import problems, snapshots
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from tests.admin.pages.reading import text_of
from tests.support.admin_world import BUCKET, NOON, World, a_book, a_failed_job, job_number

HOSTILE = '"><script>alert(1)</script>&'
QUIET = """
[[watch]]
name = "vod"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]

[notifier.cms]
type = "webhook"
url = "https://cms.example.com/hooks"

[[rule]]
name = "never"
match.tag = "Tts"
notify = "cms"
"""


def test_jobs_are_filtered_by_the_address(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1), a_failed_job(2), job_number(3, tag="Snapshot"))
    page = admin.get("/jobs?state=Failed").text
    assert "j2" in page
    assert "/jobs/j1?" not in page
    assert '<option value="Failed" selected>' in page
    assert "/jobs/j3?" in admin.get("/jobs?tag=Snapshot&since=2026-11-21 11:00").text


def test_nothing_found_says_what_to_do(admin: FlaskClient) -> None:
    assert "Jobs appear when a poll lists them" in admin.get("/jobs").text
    assert "Clear a filter" in admin.get("/jobs?state=Failed").text


def test_older_jobs_are_a_page_away(world: World, admin: FlaskClient) -> None:
    world.sees(*(job_number(n, created_at=NOON + timedelta(seconds=n)) for n in range(40)))
    first = admin.get("/jobs?tag=Transcode").text
    older = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert "tag=Transcode" in older
    second = admin.get(older).text
    assert "/jobs/j39?" in first
    assert "/jobs/j39?" not in second
    assert "/jobs/j0?" in second


def test_a_jobs_page_shows_its_timeline_and_explanation(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(7))
    world.attempt(Rejected("no such channel"), answer="channel_not_found")
    page = admin.get("/jobs/j7").text
    for said in (
        "uploads/a.mp4",
        "broken",
        "asset_id=7",
        "seen by watch vod",
        "Attempt 1 for ops/1",
        "no such channel",
    ):
        assert said in page
    assert "Resend" in page
    assert "Verdict of each rule (2)" in page


def test_a_jobs_page_and_lists_say_what_was_inferred(world: World, admin: FlaskClient) -> None:
    (seen,) = world.sees(a_failed_job(7))
    inferred = replace(seen.transition, was=SUBMITTED, to=RUNNING, sequence=2, inferred=True)
    with world.db.write() as tx:
        route_all(tx, world.book, [inferred], world.now)
    assert "inferred from CI's times by watch vod" in unescape(admin.get("/jobs/j7").text)
    with world.db.read() as tx:
        assert [one["inferred"] for one in lists.find_transitions(tx, Filter(job="j7")).items] == [True, False]


def test_the_read_token_sees_no_button(world: World, reader: FlaskClient) -> None:
    world.sees(a_failed_job(7))
    world.attempt(Rejected("no such channel"))
    page = reader.get("/jobs/j7").text
    assert "Attempt 1" in page
    assert "Resend" not in page
    assert "<button>Send" not in page


def test_a_job_without_notifications_says_why_and_can_be_notified_manually(world: World, admin: FlaskClient) -> None:
    world.book = a_book(QUIET)
    world.sync()
    world.register()
    world.sees(job_number(1))
    page = admin.get("/jobs/j1").text
    assert "Nobody was notified" in page
    assert "no rule" in page
    assert admin.post(f"/jobs/j1/tell?bucket={BUCKET}", data={"notifier": "cms"}).status_code == 303
    told = admin.get("/jobs/j1").text
    assert "Queued for cms: dlv_" in told
    assert "Sent manually by dashboard" in told
    assert "Nobody was notified" not in told
    assert world.attempt(Sent())
    again = admin.post(f"/jobs/j1/tell?bucket={BUCKET}", data={"notifier": "cms"})
    assert again.status_code == 303
    assert "sent" in admin.get("/jobs/j1").text


def test_notifying_manually_reports_errors(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1))
    for job, notifier in (("j1", "nobody"), ("j1", ""), ("nix", "cms")):
        admin.post(f"/jobs/{job}/tell", data={"notifier": notifier})
        assert 'class="flash refused"' in admin.get("/jobs").text


def test_two_buckets_may_have_a_job_of_one_id(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1), job_number(1, bucket="other-1250000000", input="b.mp4"))
    assert "Which job?" in admin.get("/jobs/j1").text
    assert "b.mp4" in admin.get("/jobs/j1?bucket=other-1250000000").text


def test_an_unknown_job_is_not_found_on_a_page(admin: FlaskClient) -> None:
    answer = admin.get("/jobs/nix")
    assert answer.status_code == 404
    assert "no job &#34;nix&#34; has been seen" in answer.text


SPOOF = "photo\u202egpj.exe\x9b\u2067\n\tend"
ODD_ID = "j\u202e1\x9b\u2067"
SPELT = r"photo\u202egpj.exe\x9b\u2067\n\tend"


def test_invisible_characters_are_spelt_out_and_copied_unchanged(world: World, admin: FlaskClient) -> None:
    texts = dict.fromkeys(("input", "output", "tag", "queue", "user_data", "message", "code", "workflow"), SPOOF)
    (told, *_) = world.sees(job_number(1, id=ODD_ID, state=FAILED, outputs=(SPOOF,), **texts))
    job, explain = (f"{path}{quote(ODD_ID, safe='')}" for path in ("/jobs/", "/rules/explain?job="))
    paths = ("/", "/jobs", job, explain, "/deliveries", f"/deliveries/{told.deliveries[0].id}")
    pages = {path: admin.get(path) for path in paths}
    for path, page in pages.items():
        assert page.status_code == 200, path
        shown = re.sub(r' value="[^"]*"', "", page.text)  # a form sends back what was written
        assert not {"\u202e", "\u2067", "\x9b"} & set(shown), path
    assert pages[job].text.count(SPELT) >= 3
    copied = copied_as(pages[job].text)
    assert ODD_ID in copied
    assert copied.count(SPOOF) >= 3
    asked = admin.get(f"/jobs?job={quote(SPOOF)}").text
    assert f'name="job" value="{SPOOF}"' in asked


def copied_as(page: str) -> list[str]:
    """Return what the parts of a page that do not show their text as it is are copied as."""
    return [json.loads(unescape(true)) for true in re.findall(r'data-true="([^"]*)"', page)]


def test_a_list_shows_little_of_a_long_text(world: World, admin: FlaskClient) -> None:
    for number in range(25):
        long = {"message": f"m{number}\n" * 50_000, "input": "in/" + "x" * 200_000, "user_data": "u" * 200_000}
        world.sees(job_number(number, state=FAILED, **long))
    for path in ("/jobs", "/", "/deliveries"):
        page = admin.get(path).text
        assert len(page.encode()) < 120_000, path
        assert "x" * 201 not in page
    assert re.search(r"m7 m7 [m7 ]{150,200}…", admin.get("/jobs").text)


def test_a_detail_shows_much_of_a_long_text_and_all_of_it_when_asked(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1, message="m" * 200_000, input="é\u202e" * 100, state=FAILED, code="é"))
    page = admin.get("/jobs/j1").text
    assert "m" * 9_999 + "…" in page
    assert "m" * 10_000 not in page
    assert len(page.encode()) < 80_000
    (address,) = re.findall(r'href="([^"]*)">Show all 200,000 characters</a>', page)
    asked = admin.get("/jobs/j1?_scheme=javascript&_external=1").text  # what Flask would take for its own
    assert 'href="/jobs/j1?_scheme=javascript&amp;_external=1&amp;all=yes"' in asked
    whole = admin.get(unescape(address)).text
    assert "m" * 200_000 in whole
    assert "Show all" not in whole
    assert 'hx-get="/jobs/j1?bucket=media-1250000000&amp;all=yes"' in whole  # a refresh shows all, too


def test_a_job_that_no_watch_asks_for_any_more_says_so(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1), a_failed_job(2))
    with world.db.write() as tx:
        snapshots.meet(tx, "s", world.now - timedelta(days=1))
        snapshots.leave(tx, ["another"], now=world.now)
    listed, job = admin.get("/jobs").text, text_of(admin.get("/jobs/j1").text)
    assert listed.count('<span class="pill">unwatched</span>') == 1
    assert "Not polled since 2026-11-21 12:00:00 UTC" in job
    assert "Not polled since" not in text_of(admin.get("/jobs/j2").text)


def test_an_id_leads_to_what_has_it(world: World, admin: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    assert admin.get(f"/find?id={delivery}").location == f"/deliveries/{delivery}"
    assert admin.get("/find?id= j1 ").location == "/jobs/j1"
    admin.get("/find?id=nix%00")
    assert "No job, delivery or incident has the id &#34;nix&#34;" in admin.get("/jobs").text


def test_what_cannot_be_read_of_a_job_is_on_its_page(world: World, admin: FlaskClient) -> None:
    world.sees(job_number(1), job_number(2))
    state = JobProblem(job_id="j1", field="State", value="", left_out=True)
    world.cannot_read(JobProblem(job_id="j1", field="EndTime", value=HOSTILE), state, read=["j2"])
    page = admin.get("/jobs/j1").text
    assert "Unreadable fields" in page
    assert "EndTime is <code>&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;</code>" in page
    assert "State is <code>(empty)</code>" in page
    assert "CI is asked for the job until it can be read" in page
    assert "Unreadable fields" not in admin.get("/jobs/j2").text


def test_a_job_that_was_left_out_from_the_first_is_found_and_says_why(world: World, admin: FlaskClient) -> None:
    world.cannot_read(JobProblem(job_id="j9", field="State", value=HOSTILE, left_out=True))
    answer = admin.get("/jobs/j9")
    assert answer.status_code == 404
    assert "is left out since 2026-11-21 12:00:00 UTC, as it cannot be read: its State is" in answer.text
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    ("times", "ask_at", "says"),
    [
        (1, None, "CI did not find this job 1 time"),
        (4, NOON + timedelta(minutes=30), "CI is asked for it again 2026-11-21 12:30:00 UTC"),
    ],
)
def test_a_job_that_ci_denies_says_how_often_and_when_it_is_asked_for_next(
    world: World, admin: FlaskClient, times: int, ask_at: datetime | None, says: str
) -> None:
    world.sees(job_number(1))
    assert "CI did not find this job" not in admin.get("/jobs/j1").text
    found = MissingJob(stream="s", times=times, first_at=NOON, last_at=NOON, ask_at=ask_at)
    with world.db.write() as tx:
        problems.save_missing(tx, BUCKET, {"j1": found})
    assert says in text_of(admin.get("/jobs/j1").text)
    stamp = "2026-11-21T12:00:00.000Z"
    asked = "2026-11-21T12:30:00.000Z" if ask_at else None
    assert world.client().get("/api/v1/jobs/j1").json["missing"] == {"times": times, "last_at": stamp, "ask_at": asked}


# --- the timeline ----------------------------------------------------------------------------------------------------


def a_delivery(id_: str, state: str, at: str) -> SimpleNamespace:
    return SimpleNamespace(id=id_, state=state, created_at=at)


def a_job(**facts: Any) -> Any:
    base = {"created_at": "2026-11-21T12:00:00Z", "started_at": None, "ended_at": None}
    return SimpleNamespace(**base | {"transitions": [], "deliveries": []} | facts)


def test_everything_stands_in_the_order_of_time() -> None:
    job = a_job(
        started_at="2026-11-21T12:01:00Z",
        transitions=[SimpleNamespace(seen_at="2026-11-21T12:02:00Z")],
        deliveries=[a_delivery("d", "sent", "2026-11-21T12:02:00Z")],
    )
    later = {"outcome": "later", "started_at": "2026-11-21T12:02:01Z"}
    tries = {"d": [later, {"outcome": "sent", "started_at": "2026-11-21T12:02:09Z"}]}
    assert [(one["kind"], one["style"]) for one in timeline(job, tries)] == [
        ("ci", "ci"), ("ci", "ci"), ("transition", "transition"), ("delivery", "sent"), ("try", "bad"), ("try", "sent"),
    ]  # fmt: skip


def test_unknown_times_are_not_in_the_timeline() -> None:
    assert [one["word"] for one in timeline(a_job(), {})] == ["created"]


def test_dead_and_held_deliveries_have_their_own_style() -> None:
    states = ["dead", "held", "dropped", "merged", "waiting", "sending"]
    job = a_job(deliveries=[a_delivery(state, state, "2026-11-21T12:00:01Z") for state in states])
    assert [one["style"] for one in timeline(job, {})[1:]] == ["bad", "held", "held", "held", "waiting", "waiting"]
