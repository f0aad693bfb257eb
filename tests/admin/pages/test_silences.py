"""The pages about silences: the list, the form, its preview, and ending one."""

from __future__ import annotations

import html
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.model import Silence
from bridge.record.outbox import silences
from tests.admin.pages.conftest import page, signed_in
from tests.admin.pages.reading import text_of
from tests.support.admin_world import NOON, World, a_failed_job, a_silence, job_number

WANTED = {"tag": "Trans*", "to": "Failed", "for": "1h", "mode": "hold", "author": "张伟", "reason": "换编码器"}


def posted(client: FlaskClient, status: int = 200, *, button: str = "add", **form: str) -> str:
    answer = client.post("/silences/add", data=form | {button: "1"})
    assert answer.status_code == status, answer.text
    return answer.text


def on_record(world: World) -> list[Silence]:
    with world.db.read() as tx:
        return [one for one, _ in silences.all_with_counts(tx)]


def keep(world: World, *found: Silence) -> None:
    with world.db.write() as tx:
        for one in found:
            silences.add(tx, one)


# --- the list ------------------------------------------------------------------------------------------------


def test_active_ones_come_first_and_say_what_they_match(world: World, admin: FlaskClient) -> None:
    spec = {"match": {"tag": "Trans*", "queue": "p224"}, "from": ["Running"], "rule": "all"}
    keep(world, a_silence("sil_1", spec=json.dumps(spec), reason="new encoder", author="ann", drop=True))
    keep(world, a_silence("sil_2", spec="{}", reason="long ago"))
    with world.db.write() as tx:
        silences.end(tx, "sil_2", by="bob", now=NOON)
    said = text_of(page(admin, "/silences"))
    active, over = said[said.index("Active") : said.index("Ended")], said[said.index("Ended") :]
    for words in ("When a job leaves Running", "tag Trans*", "queue vod", "Rule all", "drop", "new encoder", "ann"):
        assert words in active
    for words in ("everything", "hold", "long ago", "by bob"):
        assert words in over


def test_how_many_it_holds_leads_to_them(world: World) -> None:
    keep(world, a_silence())
    world.sees(job_number(1, state="Failed"), job_number(2, state="Failed"), job_number(3))
    html = page(signed_in(world), "/silences")
    assert "2<span" in html
    assert "/deliveries?state=held&amp;since=2026-11-21T12:00:00Z" in html


def test_where_nothing_is_silenced_the_page_says_what_to_do(world: World) -> None:
    said = text_of(page(signed_in(world), "/silences"))
    assert "There are no active silences. Add a silence" in said
    assert "Ended" not in said
    assert "Adding one needs the admin token." in text_of(page(signed_in(world, "read"), "/silences"))


def test_those_that_are_over_are_paged_and_the_active_ones_stand_on_the_first_page(
    either_world: World,
) -> None:
    made = [a_silence(f"sil_{n}", reason=f"reason {n}.", ends_at=NOON) for n in range(60)]
    keep(either_world, *made, a_silence("sil_now", reason="under way"))
    admin = signed_in(either_world)
    first = page(admin, "/silences")
    assert "under way" in first
    assert "reason 59." in first
    assert "reason 9." not in first
    older = first[first.index("/silences?cursor=") :].partition('"')[0]
    second = page(admin, older)
    assert "reason 9." in second
    assert "reason 0." in second
    assert "reason 10." not in second
    assert "under way" not in second


def test_one_is_ended_by_a_button(world: World) -> None:
    keep(world, a_silence("sil_1"))
    world.now += timedelta(minutes=5)
    admin = signed_in(world)
    assert 'action="/silences/sil_1/end"' in page(admin, "/silences")
    answer = admin.post("/silences/sil_1/end")
    assert (answer.status_code, answer.location) == (303, "/silences")
    assert "The silence has ended; it held nothing." in page(admin, "/silences")
    (ended,) = on_record(world)
    assert (ended.ends_at, ended.ended_by) == (world.now, "dashboard")


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        (False, "The silence has ended; a worker sends the 2 messages that it held, in one digest for each notifier."),
        (True, "The silence has ended; it dropped 2 messages."),
    ],
)
def test_it_is_said_what_becomes_of_what_it_held(world: World, drop: bool, said: str) -> None:
    keep(world, a_silence("sil_1", drop=drop))
    world.sees(job_number(1, state="Failed"), job_number(2, state="Failed"))
    admin = signed_in(world)
    admin.post("/silences/sil_1/end")
    assert said in text_of(page(admin, "/silences"))


@pytest.mark.parametrize("name", ["sil_404", "<b>"])
def test_what_is_not_there_cannot_be_ended_and_that_is_said(world: World, name: str) -> None:
    keep(world, a_silence("sil_1"))
    admin = signed_in(world)
    assert admin.post(f"/silences/{name}/end").status_code == 303
    html = page(admin, "/silences")
    assert "there is no silence" in html
    assert "<b>" not in html
    assert on_record(world)[0].ended_by is None


# --- a new one -----------------------------------------------------------------------------------------------


def test_a_silence_is_added_and_stands_in_the_list(world: World, admin: FlaskClient) -> None:
    posted(admin, 303, **WANTED)
    (made,) = on_record(world)
    assert (made.author, made.reason, made.drop) == ("张伟", "换编码器", False)
    assert (made.begins_at, made.ends_at) == (NOON, NOON + timedelta(hours=1))
    assert json.loads(made.spec) == {"match": {"tag": "Trans*"}, "to": ["Failed"]}
    said = text_of(page(admin, "/silences"))
    assert "Holds what it matches until 2026-11-21" in said
    assert "换编码器" in said


@pytest.mark.parametrize(
    ("form", "spec"),
    [
        ({"queue": "{vod,live}", "input": "上传/**"}, {"match": {"queue": "{vod,live}", "input": "上传/**"}}),
        ({"from": "Running, Submitted"}, {"from": ["Running", "Submitted"]}),
        ({"rule": "all", "notifier": "ops/1"}, {"rule": "all", "notifier": "ops/1"}),
        ({"tag": "!Snapshot"}, {"match": {"tag": "!Snapshot"}}),
        ({"everything": "yes"}, {}),
    ],
)
def test_what_it_matches_is_what_was_typed(
    world: World, admin: FlaskClient, form: dict[str, str], spec: dict[str, Any]
) -> None:
    posted(admin, 303, reason="x", **form)
    (made,) = on_record(world)
    assert json.loads(made.spec) == spec
    assert made.author == "dashboard"


@pytest.mark.parametrize(
    ("form", "lasts"),
    [
        ({"for": "4h"}, timedelta(hours=4)),
        ({"for": "1h", "other": "2h30m"}, timedelta(hours=2, minutes=30)),
        ({"other": "2026-11-21 13:30"}, timedelta(minutes=90)),
        ({"other": "2026-11-21T23:00:00+08:00"}, timedelta(hours=3)),
        ({"other": "2026-11-22"}, timedelta(hours=12)),
        ({"mode": "drop"}, timedelta(hours=1)),
    ],
)
def test_its_end_is_a_span_or_a_time(world: World, admin: FlaskClient, form: dict[str, str], lasts: timedelta) -> None:
    posted(admin, 303, reason="x", to="Failed", **form)
    (made,) = on_record(world)
    assert made.ends_at == NOON + lasts
    assert made.drop == (form.get("mode") == "drop")


def test_every_fault_is_said_at_once_and_the_form_keeps_what_was_typed(world: World, admin: FlaskClient) -> None:
    typed = {"tag": '"><script>alert(1)</script>', "to": "Faild", "other": "99d", "author": "张伟", "mode": "drop"}
    html = posted(admin, 400, **typed)
    said = text_of(html)
    for words in (
        'To state: there is no job state "Faild" (did you mean "Failed"?)', "Duration: 99d is too far in the future",
        "Reason: give a reason",
    ):  # fmt: skip
        assert words in said
    assert "<script>alert" not in html
    for value in ("&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;", "Faild", "99d", "张伟"):
        assert f'value="{value}"' in html
    assert 'value="drop" checked' in html
    assert on_record(world) == []


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, "Everything: say what it matches, or tick that it matches everything"),
        ({"everything": "yes", "tag": "x"}, "Everything: with it nothing else that it matches can be named"),
        ({"to": "Failed", "other": "never"}, 'Duration: "never" is not a duration'),
        ({"to": "Failed", "other": "2026-13-45"}, "is not a time such as"),
        ({"to": "Failed", "other": "2026-11-21 09:00"}, "has passed"),
        ({"to": "Failed", "mode": "loud"}, 'Messages: "loud" is neither'),
        ({"to": "Failed", "author": "x" * 200}, "Author: has 200 characters; at most 100 are kept"),
        ({"to": "Failed", "reason": "a\0b"}, "Reason:"),
        ({"to": ","}, "To state:"),
        ({"tag": "!"}, "Tag:"),
        ({"tag": "{a,b}" * 300}, "Tag:"),
    ],
)
def test_what_is_no_silence_says_which_field_is_wrong(
    world: World, admin: FlaskClient, form: dict[str, str], said: str
) -> None:
    assert said in text_of(posted(admin, 400, **{"reason": "x"} | form))
    assert on_record(world) == []


@pytest.mark.parametrize("typed", ["failed, RUNNING ,Done", "Failed,Running,done"])
def test_states_may_be_typed_in_any_case(world: World, admin: FlaskClient, typed: str) -> None:
    posted(admin, 303, reason="x", to=typed)
    (made,) = on_record(world)
    assert json.loads(made.spec) == {"to": ["Failed", "Running", "done"]}


@pytest.mark.parametrize("typed", ["2026-11-22 09:00", "now", "Failed, 2h"])
@pytest.mark.parametrize(("field", "label"), [("from", "From state"), ("to", "To state")])
def test_a_time_where_a_state_belongs_is_said_to_be_one(
    world: World, admin: FlaskClient, field: str, label: str, typed: str
) -> None:
    said = text_of(posted(admin, 400, reason="x", **{field: typed}))
    assert said.count(f"{label}: ") == 1
    assert "is no state of a job, such as Failed" in said
    assert "it would match every message" not in said
    assert on_record(world) == []


def test_two_clicks_add_one_silence(world: World) -> None:
    admin = signed_in(world)
    nonce = page(admin, "/silences/add").split('name="nonce" value="')[1].split('"')[0]
    for _ in range(2):
        posted(admin, 303, nonce=nonce, **WANTED)
    assert len(on_record(world)) == 1
    posted(admin, 303, nonce=nonce, **WANTED | {"reason": "another"})  # after going back
    assert len(on_record(world)) == 2
    posted(admin, 303, **WANTED)
    assert len(on_record(world)) == 3


def test_a_form_of_before_adds_nothing_once_its_silence_is_over(world: World, admin: FlaskClient) -> None:
    posted(admin, 303, nonce="n", **WANTED)
    world.now += timedelta(hours=2)
    posted(admin, 303, nonce="n", **WANTED)
    assert "its silence has ended: fill in a new form" in page(admin, "/silences")
    assert len(on_record(world)) == 1


def test_the_form_keeps_its_nonce_where_it_is_not_right(admin: FlaskClient) -> None:
    assert 'name="nonce" value="mine&#34;"' in posted(admin, 400, nonce='mine"', reason="x")
    assert 'name="nonce" value="mine"' in posted(admin, button="preview", nonce="mine", to="Failed")


def test_the_preview_says_what_it_would_have_matched_and_adds_nothing(world: World) -> None:
    world.sees(a_failed_job(1), job_number(2), job_number(3, state="Failed", tag="Snapshot"))
    admin = signed_in(world)
    html = posted(admin, button="preview", tag="Trans*")  # a reason is not needed yet
    said = text_of(html)
    assert "In the last 24 hours it would have matched 2 of 3 messages" in said
    assert "failed ops/1 1" in said
    assert 'href="/jobs/j1?' in html
    assert 'value="Trans*"' in html
    assert "since 2026-11-20 12:00:00 UTC" in said
    assert on_record(world) == []


def test_htmx_gets_the_preview_alone(world: World, admin: FlaskClient) -> None:
    hx = {"HX-Request": "true"}
    seen = admin.post("/silences/add", data={"preview": "1", "to": "Failed"}, headers=hx)
    assert "it would have matched 0 of 0 messages" in seen.text
    assert "<form" not in seen.text
    wrong = admin.post("/silences/add", data={"preview": "1", "to": "Faild"}, headers=hx)
    assert (wrong.status_code, "<form" in wrong.text) == (400, False)
    assert "did you mean" in wrong.text


def test_the_address_fills_in_the_form(world: World, admin: FlaskClient) -> None:
    html = page(admin, "/silences/add?rule=all&to=Failed&for=3h&reason=%E6%8D%A2&mode=drop&author=ann")
    assert "<option selected>all</option>" in html
    for value in ("Failed", "3h", "换", "ann"):
        assert f'value="{value}"' in html
    assert 'value="drop" checked' in html
    plain = page(admin, "/silences/add")
    assert 'value="1h" checked' in plain
    assert 'value="hold" checked' in plain
    assert 'value="dashboard"' in plain


def test_a_rule_that_there_is_not_stays_chosen_when_the_address_names_it(world: World, admin: FlaskClient) -> None:
    html = page(admin, "/silences/add?rule=%3Cb%3E")
    assert '<option value="&lt;b&gt;" selected>&lt;b&gt;</option>' in html


def test_the_read_token_sees_silences_and_adds_and_ends_none(world: World, reader: FlaskClient) -> None:
    keep(world, a_silence("sil_1"))
    html = page(reader, "/silences")
    assert "new encoder" in html
    assert "/end" not in html
    assert "/silences/add" not in html
    form = page(reader, "/silences/add")
    assert "needs the admin token" in form
    assert "reason" not in form
    posted(reader, 403, **WANTED)
    posted(reader, 403, button="preview", **WANTED)
    assert reader.post("/silences/sil_1/end").status_code == 403
    assert [one.ended_by for one in on_record(world)] == [None]


# --- later, longer and again ------------------------------------------------------------------------------------------


def test_one_that_begins_later_is_shown_and_changed(world: World, admin: FlaskClient) -> None:
    said = admin.post("/silences/add", data=WANTED | {"begins": "2h", "add": "1"}, follow_redirects=True).text
    assert "Holds what it matches from 2026-11-21 14:00:00 UTC in 2 h until 2026-11-21 15:00:00 UTC in 3 h." in text_of(
        said
    )
    assert "holds nothing yet" in said
    (made,) = on_record(world)
    changed = {"until": "1h", "reason": 'moved <script>alert("1")</script>'}
    said = admin.post(f"/silences/{made.id}/change", data=changed, follow_redirects=True).text
    assert "The silence ends at 2026-11-21 16:00:00 UTC in 4 h: moved" in text_of(said)
    assert "<script>alert" not in said
    for until, fault in (("2026-11-20 09:00", "has passed"), ("soon", "is not a duration"), ("", "say what changes")):
        said = admin.post(f"/silences/{made.id}/change", data={"until": until}, follow_redirects=True).text
        assert fault in text_of(said)
    assert on_record(world)[0].ends_at == NOON + timedelta(hours=4)


def test_a_beginning_that_makes_no_sense_is_named_by_its_field(world: World, admin: FlaskClient) -> None:
    assert "Begins:" in text_of(posted(admin, 400, **WANTED, begins="soon"))


def test_an_ended_one_is_made_again_from_the_form(world: World, admin: FlaskClient) -> None:
    spec = {"match": {"tag": "Trans*"}, "from": ["Running", "Failed"], "rule": "all"}
    keep(world, a_silence("sil_1", spec=json.dumps(spec), reason="moved", ends_at=NOON, begins_at=NOON - timedelta(1)))
    (link,) = re.findall(r'href="(/silences/add[?][^"]+)"', page(admin, "/silences"))
    form = page(admin, html.unescape(link))
    for value in ("Trans*", "Running, Failed", "moved"):
        assert f'value="{value}"' in form
