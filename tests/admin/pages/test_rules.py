"""The pages about rules: what they say, who may ask, and what comes of what is pasted."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from bridge.decide.rulesfile.errors import LARGEST
from bridge.decide.rulesfile.masked import masked
from bridge.record import rulesets
from bridge.wiring.parts import accept
from tests.admin.pages.conftest import page, posted, signed_in
from tests.admin.pages.reading import text_of
from tests.support.admin_world import NOON, READ, RULES, World, a_book, a_failed_job, job_number

HOSTILE = '转码 失败 <b>&"x" %41'
MORE = f"""
[[rule]]
name = {json.dumps(HOSTILE, ensure_ascii=False)}
from = ["Running", "Submitted"]
to = ["Failed", "gone"]
match.queue = "vod"
match.input = "上传/**"
notify = ["ops/1", "cms"]
throttle = "10/5m"

[[mute]]
name = "nights <i>"
between = "22:00-08:00"
match.tag = "Snapshot"
"""


# --- those in force ------------------------------------------------------------------------------------------


def test_each_rule_is_shown_in_words(world: World) -> None:
    world.sees(a_failed_job(1), job_number(2), job_number(3))
    world.now += timedelta(minutes=2)
    said = text_of(page(signed_in(world), "/rules"))
    assert world.book.sha in said
    first = said[said.index("failed line 24") : said.index("all line 33")]
    for words in (
        "1 match, last 2026-11-21 12:00:00 UTC 2 min ago", "When a job becomes Failed",
        "tag Transcode; not Snapshot", "duration more than 45 min", "user_data.asset_id is present",
        "the rules below are not evaluated", "Notifies ops/1",
    ):  # fmt: skip
        assert words in first
    assert "2 matches" in said[said.index("all line 33") :]


def test_a_rule_that_no_silence_holds_offers_none(world: World) -> None:
    world.book = a_book(f'{RULES}\n[[rule]]\nname = "blind"\nblind = "10m"\nnotify = "cms"\n')
    html = page(signed_in(world), "/rules")
    assert 'aria-label="Silence all"' in html
    assert 'aria-label="Silence blind"' not in html


def test_a_rule_of_any_name_is_found_by_its_link(world: World) -> None:
    world.book = a_book(RULES + MORE)
    html = page(signed_in(world), "/rules")
    assert 'id="rule-转码 失败 &lt;b&gt;&amp;&#34;x&#34; %41"' in html
    assert "<b>&" not in html
    assert "<i>" not in html
    said = text_of(html)
    assert "goes from Running or Submitted to Failed or gone" in said
    assert "10 in 5 min for each notifier" in said
    assert f"/deliveries?rule={quote('all')}" not in html  # it has not matched yet
    assert "22:00-08:00" in said


def test_a_template_that_did_not_render_is_counted_beside_its_rule(world: World, admin: FlaskClient) -> None:
    with world.db.write() as tx:
        for _ in range(3):
            rulesets.fault(tx, [("all", "<script>alert(1)</script> is no filter")], now=NOON)
    html = page(admin, "/rules")
    assert "Its template failed 3 times" in text_of(html)
    assert "<script>alert" not in html


def test_why_a_file_is_not_in_force_is_for_the_admin_token(world: World, admin: FlaskClient) -> None:
    world.fault = 'rules.toml:3: secret = "whsec_hush" is wrong'
    assert "whsec_hush" in page(admin, "/rules")
    said = page(signed_in(world, "read"), "/rules")
    assert "whsec_hush" not in said
    assert "the admin token shows why" in said


def test_warnings_are_shown_with_their_lines(world: World, admin: FlaskClient) -> None:
    world.book = a_book(RULES + '[[rule]]\nname = "never"\nmatch.tag = "Concat"\nnotify = "cms"\n')
    assert "1 warning about the file" in text_of(page(admin, "/rules"))


def test_where_there_is_no_rule_the_page_says_what_to_do(world: World, admin: FlaskClient) -> None:
    world.book = a_book("")
    assert "There are no rules: nobody is notified." in text_of(page(admin, "/rules"))


def test_of_very_many_rules_some_are_shown_and_a_name_finds_the_others(world: World, admin: FlaskClient) -> None:
    world.book = a_book(RULES + "".join(f'[[rule]]\nname = "r{n}."\nnotify = "cms"\n' for n in range(400)))
    said = text_of(page(admin, "/rules"))
    assert "and 102 more: filter by name" in said
    assert "r350." not in said
    assert "r350." in text_of(page(admin, "/rules?name=R350."))


# --- why, and why not ----------------------------------------------------------------------------------------


def test_a_job_on_record_is_explained(world: World) -> None:
    world.sees(a_failed_job(1))
    html = page(signed_in(world), "/rules/explain?job=j1")
    said = text_of(html)
    assert '"failed" notifies ops/1: waits for its first attempt' in said
    assert 'value="j1"' in html
    assert "#rule-failed" in html


def test_a_job_that_counts_for_an_incident_says_how_that_stands(world: World) -> None:
    sick = '[[rule]]\nname = "sick"\nto = "Failed"\nby = ["tag"]\ncount = ">= 2"\nwithin = "10m"\nnotify = "cms"\n'
    world.book = a_book(RULES + sick)
    world.accepts(world.book)
    world.sees(a_failed_job(1))
    said = text_of(page(signed_in(world), "/rules/explain?job=j1"))
    assert "counts; tag Transcode: 1 of 2 in the last" in said


def test_the_read_token_may_explain_a_job_on_record_but_no_sample_job(world: World, reader: FlaskClient) -> None:
    world.sees(a_failed_job(1))
    html = page(reader, "/rules/explain?job=j1")
    assert '"failed" notifies ops/1' in text_of(html)
    assert "<textarea" not in html
    assert "<textarea" not in page(reader, "/rules/try")
    posted(reader, "/rules/explain", 403, job="{}")
    posted(reader, "/rules/try", 403, rules=RULES)


@pytest.mark.parametrize("job", ["<script>", "转码", "%00x", "x" * 5_000])
def test_a_job_that_is_not_on_record_is_said_so_and_stays_in_the_form(
    world: World, admin: FlaskClient, job: str
) -> None:
    html = page(admin, f"/rules/explain?job={quote(job, safe='%')}", 404)
    assert "is on record: is the id right" in html
    assert "<script>" not in html[html.find("<main") :]


def test_the_example_is_a_job_that_is_watched_and_can_be_explained(world: World, admin: FlaskClient) -> None:
    example = '{ tag = "Transcode", queue = "vod", from = "Running", to = "Failed", duration = "50m" }'
    assert example in page(admin, "/rules/explain").replace("&#34;", '"')
    assert '"all" notifies cms' in text_of(posted(admin, "/rules/explain", job=example))


@pytest.mark.parametrize(
    "text",
    [
        '{"tag": "Transcode", "to": "Failed", "duration": "50m", "user_data": {"asset_id": "7"}}',
        '{ tag = "Transcode", to = "Failed", duration = "50m", user_data = { asset_id = "7" } }',
        'tag = "Transcode"\r\nto = "Failed"\r\nduration = "50m"\r\nuser_data = "asset_id=7"\r\n',
        '[[test]]\njob = { tag = "Transcode", to = "Failed", duration = "50m", user_data = "asset_id=7" }\nexpect = []',
        'job = { tag = "Transcode", to = "Failed", duration = "50m", user_data = "asset_id=7" }',
    ],
)
def test_a_sample_job_may_be_json_or_toml(world: World, admin: FlaskClient, text: str) -> None:
    assert '"failed" notifies ops/1: at once' in text_of(posted(admin, "/rules/explain", job=text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"tag": 5, "to": "Faild", "x": 1}', ['a job has no "x"', "tag: 5 is not a string", "did you mean"]),
        ('{"tag": "Transcode"', ["this is not JSON"]),
        ("{ tag = }", ["this is neither JSON nor TOML"]),
        ("tag", ["this is neither JSON nor TOML"]),
        ("", ["there is no job"]),
        ("[" * 5_000, ["brackets nest too deeply"]),
        ('{"a":' * 3_000, ["brackets nest too deeply"]),
        ('{"tag": "\\ud800"}', ["neither a text nor a usual number"]),
        ('{"tag": ' + "9" * 5_000 + "}", ["this is not JSON"]),
        ("tag = 0x" + "f" * 5_000, ["neither a text nor a usual number"]),
        ("x" * 30_000, ["this has 30,000 characters"]),
        ('{"tag": "</textarea><script>alert(1)</script>", "to": "new"}', ['no job becomes "new"']),
    ],
)
def test_every_fault_of_a_sample_job_is_shown_and_the_text_kept(
    world: World, admin: FlaskClient, text: str, said: list[str]
) -> None:
    html = posted(admin, "/rules/explain", 400, job=text)
    for words in said:
        assert words in text_of(html)
    assert "<script>alert" not in html
    assert text.replace("&", "&amp;").replace('"', "&#34;").replace("<", "&lt;").replace(">", "&gt;") in html


# --- other rules ---------------------------------------------------------------------------------------------


def test_every_fault_of_a_pasted_file_is_shown_with_its_line_and_the_text_kept(
    world: World, admin: FlaskClient
) -> None:
    text = RULES.replace('to = "Failed"', 'to = "Faild"').replace('notify = "cms"', 'notify = "<nobody>"')
    html = posted(admin, "/rules/try", rules=text.replace("\n", "\r\n"))
    said = text_of(html)
    assert "This file would be refused" in said
    assert 'error line 26 rule "failed", key "to": there is no job state "Faild" (did you mean "Failed"?)' in said
    assert 'error line 35 rule "all", key "notify": there is no notifier' in said
    assert "&lt;nobody&gt;" in html
    assert "<nobody>" not in html
    assert "What it would have told" not in said


def test_a_file_without_faults_is_tried_on_what_has_happened(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1), job_number(2), job_number(3))
    world.now += timedelta(hours=1)
    same = text_of(posted(admin, "/rules/try", rules=RULES.replace("\n", "\r\n"), span="24h"))
    assert "These are the rules in force." in same  # by their sha: a browser sends other line ends
    assert "3 transitions. No difference to what happened." in same
    other = text_of(posted(admin, "/rules/try", rules=RULES.replace('"all"', '"每个"'), span="7d"))
    assert "Messages of the last 7d with these rules" in other
    assert "Messages: 2 more, 2 fewer, 0 changed" in other
    assert "每个 → cms none 2 sent 2 more" in other


def test_of_many_differences_the_first_fifty_are_shown(world: World, admin: FlaskClient) -> None:
    world.sees(*(job_number(number) for number in range(60)))
    html = posted(admin, "/rules/try", rules=RULES.replace('"all"', '"every"'))
    assert html.count('data-label="Job"') == 50
    assert "60 more, 60 fewer" in text_of(html)


def test_failing_tests_are_shown(world: World, admin: FlaskClient) -> None:
    said = text_of(posted(admin, "/rules/try", rules=RULES + '[[test]]\njob = { to = "Success" }\nexpect = []\n'))
    assert "1 of 1 test failed." in said
    assert "notified, but not expected: all -> cms" in said


def test_one_more_rule_is_tried_without_the_file(world: World, admin: FlaskClient) -> None:
    world.sees(a_failed_job(1), job_number(2))
    world.now += timedelta(hours=1)
    more = '[[rule]]\nname = "one more"\nto = "Running"\nnotify = "ops/1"\n'
    said = text_of(posted(admin, "/rules/try", rules=more.replace("\n", "\r\n"), how="added"))
    assert "With this, the rules are valid; they are not in force" in said
    assert "Messages: 1 more, 0 fewer, 0 changed" in said
    assert "one more → ops/1 none 1 sent 1 more" in said
    assert world.book.sha in page(admin, "/rules")


def test_what_is_wrong_with_one_more_rule_shows_nothing_of_the_rules_in_force(world: World, admin: FlaskClient) -> None:
    html = posted(admin, "/rules/try", rules='[[rule]]\nname = "all"\nnotify = "<x>"\n[notifier.cms]\n', how="added")
    said = text_of(html)
    assert "With this, the rules would be refused" in said
    assert "error line 4" in said
    assert 'value="added" checked' in html
    assert "<x>" not in html
    assert "path-is-secret" not in html


def test_the_page_begins_with_an_example_of_one_more_rule(world: World, admin: FlaskClient) -> None:
    html = page(admin, "/rules/try")
    assert 'value="added" checked' in html
    assert "notify = &#34;cms&#34;" in html
    of_job = page(admin, "/rules/try?how=added&tag=%E8%BD%AC%E7%A0%81%3C%2Ftextarea%3E&to=gone")
    assert "match.tag = &#34;转码&lt;/textarea&gt;&#34;" in of_job
    assert "to = &#34;gone&#34;" in of_job
    whole = page(admin, "/rules/try?how=whole")
    assert 'value="whole" checked' in whole
    assert "[[rule]]" not in whole


def test_nothing_at_all_to_add_is_said_so(world: World, admin: FlaskClient) -> None:
    assert "There is nothing to try: paste a [[rule]]." in posted(admin, "/rules/try", 400, rules=" ", how="added")


def test_a_file_of_a_megabyte_is_taken_and_a_larger_one_refused_in_a_sentence(world: World, admin: FlaskClient) -> None:
    text = RULES + "# 转码\n" * ((LARGEST - len(RULES)) // len("# 转码\n".encode()))
    accepted = uploaded(admin, text.replace("\n", "\r\n"))
    assert f"This file is valid; it is not in force The sha of these rules is {a_book(text).sha}," in accepted
    assert "is too large: it has 1,000,001 bytes" in uploaded(admin, "#" * (LARGEST + 1))
    refused = uploaded(admin, "#" * (3 * LARGEST), 413)
    assert "This is too large: a rules file has at most 1,000,000 bytes." in refused


def uploaded(client: FlaskClient, text: str, status: int = 200) -> str:
    """Post a file as the form does; return what is said of it."""
    body = f'--b\r\nContent-Disposition: form-data; name="rules"\r\n\r\n{text}\r\n--b--\r\n'.encode()
    answer = client.post("/rules/try", data=body, content_type="multipart/form-data; boundary=b")
    assert answer.status_code == status
    return text_of(answer.text[: answer.text.find("<textarea")])


def test_other_forms_take_no_more_than_before(world: World, admin: FlaskClient) -> None:
    posted(admin, "/rules/explain", 413, job="x" * 70_000)


def test_the_rules_in_force_are_shown_where_this_process_has_read_others(world: World, admin: FlaskClient) -> None:
    other = a_book(RULES.replace('name = "all"', 'name = "everything"'))
    world.accepts(other)
    page = text_of(admin.get("/rules").text)
    assert f"sha {other.sha}" in page
    assert "everything" in page
    assert f"this process has read other rules ({world.book.sha}) than those in force ({other.sha})" in page
    found = world.client().get("/api/v1/rules").json
    assert (found["sha"], [one["name"] for one in found["items"]]) == (other.sha, ["failed", "everything"])


def test_rules_are_tried_against_those_in_force_where_this_process_has_read_others(
    world: World, admin: FlaskClient
) -> None:
    text = RULES.replace('name = "all"', 'name = "everything"')
    other = a_book(text)
    world.accepts(other)
    assert f"to add to the rules of this process ({world.book.sha}), which are not in force" in page(
        admin, "/rules/try"
    )
    assert "These are the rules in force." in text_of(posted(admin, "/rules/try", rules=text))
    own = text_of(posted(admin, "/rules/try", rules=RULES))
    assert f"The sha of these rules is {world.book.sha}, that of the rules in force {other.sha}." in own


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ('{"tag": "Transcode", "to": "Failed", "duration": "50m", "user_data": "asset_id=7"}', ("fired", "stopped")),
        ('{"tag": "Transcode", "to": "Running"}', ("no", "fired")),
    ],
)
def test_verdicts_have_the_words_of_the_api(world: World, admin: FlaskClient, job: str, words: tuple[str, str]) -> None:
    verdicts = posted(admin, "/rules/explain", job=job).partition("Verdict of each rule")[2]
    assert dict(re.findall(r"#rule-(\w+)\">.*?<span class=\"state s-\w+\">(\w+)<", verdicts, re.DOTALL)) == dict(
        zip(("failed", "all"), words, strict=True)
    )


# --- their file -------------------------------------------------------------------------------------------------------


def versions(world: World) -> list[str]:
    """Put two versions in force; return their shas, the one in force first."""
    books = [a_book(RULES), a_book(RULES + MORE)]
    for minute, book in enumerate(books):
        with world.db.write() as tx:
            accept(tx, book, now=NOON + timedelta(minutes=minute))
    return [book.sha for book in reversed(books)]


def test_the_file_in_force_is_shown_masked_with_its_changes_and_can_be_downloaded(world: World) -> None:
    new, old = versions(world)
    client = signed_in(world)
    shown = page(client, "/rules/file")
    said = text_of(shown)
    assert "https://cms.example.com:8443/***" in said
    assert "转码 失败 <b>" in said
    assert '+between = "22:00-08:00"' in said
    assert "<b>" not in shown
    assert f"since {old}" in said
    assert "Came into force" in said
    assert "+between" not in text_of(page(client, f"/rules/file/{old}"))
    answer = client.get(f"/rules/file/{new}/download")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="rules.toml"'
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.text == masked(RULES + MORE)
    assert client.get("/rules/file/<b>/download").status_code == 404
    assert client.get("/rules/file/<b>").status_code == 404


def test_a_try_begins_with_the_file_in_force(either_world: World) -> None:
    world = either_world
    _, old = versions(world)
    client = signed_in(world)
    assert "nights" in page(client, "/rules/try?how=whole")
    assert "nights" not in page(client, f"/rules/try?how=whole&sha={old}")
    assert "nights" not in page(client, "/rules/try?how=whole&sha=x%00")


def test_a_read_token_sees_nothing_of_the_file(world: World) -> None:
    new, _ = versions(world)
    client = signed_in(world, "read")
    for path in ("/rules/file", f"/rules/file/{new}", f"/rules/file/{new}/download"):
        answer = client.get(path)
        assert answer.status_code == 403
        assert "cms.example.com" not in answer.text
    assert "cms.example.com" not in client.get("/rules/try?how=whole").text
    for path in ("versions", f"versions/{new}"):
        assert world.client(READ).get(f"/api/v1/rules/{path}").status_code == 403


def test_versions_are_in_the_api(world: World) -> None:
    new, old = versions(world)
    found = world.client().get("/api/v1/rules/versions?limit=1").get_json()
    assert [(one["sha"], one["in_force"], one["kept"]) for one in found["items"]] == [(new, True, True)]
    found = world.client().get(f"/api/v1/rules/versions?cursor={found['cursor']}").get_json()
    assert [(one["sha"], one["in_force"]) for one in found["items"]] == [(old, False)]
    file = world.client().get(f"/api/v1/rules/versions/{old}").get_json()
    assert file == {"sha": old, "toml": masked(RULES)}
    assert world.client().get("/api/v1/rules/versions/nothing").status_code == 404
