"""Incidents in Slack: one message that shows how far it is, and a thread below it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bridge.model import FAILED, RUNNING, SUCCESS
from bridge.pipeline.clicks import act, button_of
from bridge.pipeline.operations import Conflict
from bridge.record.database import Database
from bridge.record.schema import SENT, deliveries, threads
from bridge.record.schema import incidents as table
from bridge.send.slack.clicks import Click, Person
from bridge.simulator.clicks import button_in
from bridge.simulator.web import Answer
from bridge.simulator.workspace import Post
from bridge.wiring import parts
from tests.conftest import on_both
from tests.support.nouns import by_hand, hours, minutes, seconds
from tests.support.records import rows
from tests.support.slack_stage import Stage, first_line, losing_the_first, on_stage, times_left_out

POST, UPDATE, HISTORY = "chat.postMessage", "chat.update", "conversations.history"
URL = "https://bridge.example.com"
GIVEN = """
[alias.queue]
vod = "p1"
[[watch]]
name = "vod"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
every = "5m"
[notifier.ops]
type = "slack"
channel = "C024BE91L"
token = { env = "TOKEN" }
[notifier.pager]
type = "slack"
channel = "C0DEF4567"
token = { env = "TOKEN" }
[notifier.cms]
type = "webhook"
url = "https://cms.example.com/hook"
"""
SICK = """
[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 3"
within = "10m"
mention = ["U024BE7LH"]
notify = "ops"
"""
TOLD = "recover = true\n"
TO_PAGER = 'escalate = { after = "30m", notify = "pager" }\n'
TO_OPS = TO_PAGER.replace("pager", "ops")
OPENED = "🔴 sick (queue vod): 3 Failed within 10 min"


@pytest.fixture
def stage(db: Database) -> Iterator[Stage]:
    with on_stage(db, GIVEN, SICK) as stage:
        yield stage


def fail(stage: Stage, *ids: str) -> None:
    """Let jobs fail within a minute, be seen, and what follows be sent and shown."""
    for id_ in ids:
        stage.has(id_, FAILED, queue="p1", message="bad input")
        stage.clock.advance(seconds(10))
    stage.poll()
    stage.lives(seconds(6))


def first_lines(root: Post) -> list[str]:
    """Return the first line of each version of a message."""
    return [times_left_out(first_line(version.text)) for version in root.versions]


def acknowledge(stage: Stage, who: str = "ann") -> None:
    (id_,) = [row["id"] for row in rows(stage.db, table) if row["opened_at"] and not row["closed_at"]]
    by_hand(stage.db, now=stage.clock(), who=who).acknowledge(id_, stage.book)
    stage.lives(seconds(6))


@on_both
def test_an_incident_is_one_message_that_shows_how_many_count_and_that_it_is_over(stage: Stage) -> None:
    fail(stage, "j1", "j2", "j3")
    fail(stage, "j4", "j5")
    fail(stage, "j6")
    stage.passes(minutes(30))
    (root,) = stage.roots()
    assert first_lines(root) == [
        OPENED,
        "🔴 sick (queue vod): 5 Failed since TIME",
        "🔴 sick (queue vod): 6 Failed since TIME",
        "🟢 sick (queue vod): 6 Failed, over after 10 min 42 s",
    ]
    assert stage.replies(root) == ["🔴 sick (queue vod): 6 by now"]  # as the number has doubled
    assert {row["state"] for row in stage.deliveries()} == {"sent"}


@on_both
def test_a_poll_edits_it_once_and_only_if_more_count(stage: Stage) -> None:
    fail(stage, "j1", "j2", "j3")
    for _ in range(3):
        stage.poll()
        stage.lives(seconds(6))
    assert stage.slack.count(UPDATE) == 0
    fail(stage, "j4", "j5")
    assert stage.slack.count(UPDATE) == 1


@on_both
def test_who_clicks_acknowledges_and_the_message_says_so(stage: Stage) -> None:
    buttons = 'token = { env = "TOKEN" }\nsigning_secret = { env = "TOKEN" }\nteam = "T000"\nactions = ["U024BE7LH"]'
    stage.restarts(given=GIVEN.replace('token = { env = "TOKEN" }', buttons, 1))
    fail(stage, "j1", "j2", "j3")
    (root,) = stage.roots()
    pressed = button_in(root, "acknowledge")
    click = Click(
        team="T000",
        person=Person(id="U024BE7LH", name="ann"),
        action_id=pressed["action_id"],
        value=pressed["value"],
    )
    button = button_of(click, [stage.book.notifiers["ops"]])
    answers = [act(click, button, by_hand(stage.db, now=stage.clock(), who=who), stage.book) for who in ("ann", "ben")]
    stage.lives(seconds(6))

    assert [answer.to_person.partition(" at ")[0] for answer in answers] == [
        "Acknowledged: it does not escalate.",
        f"Nothing was done: incident {button.target} was acknowledged by ann",
    ]
    (root,) = stage.roots()
    assert first_line(root.text).startswith("🟡 ")
    assert "Acknowledged by ann at " in root.text
    assert [one["action_id"] for block in root.blocks if block["type"] == "actions" for one in block["elements"]] == [
        "silence"
    ]


def test_its_end_is_a_reply_where_the_rule_says_recover(stage: Stage) -> None:
    stage.restarts(SICK + TOLD)
    fail(stage, "j1", "j2", "j3")
    stage.passes(minutes(30))
    (root,) = stage.roots()
    assert first_lines(root)[-1] == "🟢 sick (queue vod): 3 Failed, over after 10 min"
    assert [line.lstrip("🟢🕰️ ") for line in stage.replies(root)] == ["sick (queue vod) is over after 10 min"]


@on_both
def test_who_acknowledged_it_shows_on_the_message(stage: Stage) -> None:
    fail(stage, "j1", "j2", "j3")
    acknowledge(stage)
    (root,) = stage.roots()
    assert first_lines(root) == [OPENED, "🟡 sick (queue vod): 3 Failed since TIME"]
    assert "Acknowledged by ann at " in root.text
    assert "acknowledged by ann" in json.dumps(root.blocks)
    with pytest.raises(Conflict, match="was acknowledged by ann"):
        acknowledge(stage, "ben")
    assert len(root.versions) == 2


@on_both
def test_an_escalation_to_another_channel_is_a_message_of_its_own_that_lives_too(stage: Stage) -> None:
    stage.restarts(SICK + TO_PAGER + TOLD)
    fail(stage, "j1", "j2", "j3")
    for number in range(7):
        fail(stage, f"k{number}")
        stage.passes(minutes(5))
    stage.passes(minutes(30))
    ops, pager = stage.roots()
    assert (ops.channel, pager.channel) == ("C024BE91L", "C0DEF4567")
    assert first_lines(pager)[0] == "🔴 Nobody has acknowledged for 30 min: sick (queue vod): 9 Failed"
    assert "Escalated to pager at" in ops.text
    assert [first_lines(root)[-1] for root in (ops, pager)] == [
        "🟢 sick (queue vod): 10 Failed, over after 41 min 52 s"
    ] * 2
    assert [len(stage.replies(root)) for root in (ops, pager)] == [2, 1]


def test_an_escalation_to_the_same_channel_is_a_reply_that_mentions(stage: Stage) -> None:
    stage.restarts(SICK + TO_OPS)
    fail(stage, "j1", "j2", "j3")
    for number in range(6):
        fail(stage, f"k{number}")
        stage.passes(minutes(5))
    (root,) = stage.roots()
    replies = [post for post in stage.slack.posts if post.thread_ts]
    mentioning = [first_line(post.text) for post in replies if "<@U024BE7LH>" in post.text]
    assert mentioning == ["🔴 Nobody has acknowledged for 30 min: sick (queue vod): 9 Failed"]
    assert "<@U024BE7LH>" in root.versions[0].text
    assert not any("<@" in version.text for version in root.versions[1:])


def test_an_incident_whose_rule_is_gone_shows_that_it_is_closed(stage: Stage) -> None:
    fail(stage, "j1", "j2", "j3")
    stage.restarts(SICK.replace('"sick"', '"ill"'))
    stage.poll()
    stage.lives(seconds(6))
    (root,) = stage.roots()
    assert first_lines(root)[1:] == ["🟢 sick (queue vod): 3 jobs, over after 16 s"]
    assert ": its rule is no longer in rules.toml." in root.text


def test_another_incident_of_the_key_is_another_message(stage: Stage) -> None:
    fail(stage, "j1", "j2", "j3")
    stage.passes(minutes(30))
    fail(stage, "k1", "k2", "k3")
    assert [first_lines(root)[0] for root in stage.roots()] == [OPENED, OPENED]


# --- groups, alarms -------------------------------------------------------------------------------------------------

ASSET = """
[[rule]]
name = "asset"
all = "done"
by = ["user_data.asset"]
expect = "{{ job.user_data.parts }}"
notify = "ops"
"""


def part(stage: Stage, id_: str, state: str) -> None:
    stage.has(id_, state, user_data="asset=a1;parts=2")


def test_a_group_is_one_message_at_its_end(stage: Stage) -> None:
    stage.restarts(ASSET)
    part(stage, "p1", RUNNING)
    part(stage, "p2", SUCCESS)
    stage.passes(minutes(5))
    assert stage.slack.posts == []
    part(stage, "p1", FAILED)
    stage.passes(minutes(5))
    (root,) = stage.slack.posts
    assert first_lines(root) == ["❌ asset (user_data.asset a1) is complete: 1 Failed, 1 Success"]


@on_both
def test_the_end_of_a_group_that_was_escalated_is_a_reply(stage: Stage) -> None:
    stage.restarts(ASSET + TO_OPS)
    part(stage, "p1", RUNNING)
    stage.passes(minutes(40))
    part(stage, "p1", SUCCESS)
    part(stage, "p2", SUCCESS)
    stage.passes(minutes(5))
    stage.lives(seconds(6))
    (root,) = stage.roots()
    complete = "✅ asset (user_data.asset a1) is complete: 2 Success"
    late = "Nobody has acknowledged for 30 min: asset (user_data.asset a1): 1 of 2 jobs are there, 0 of them done"
    assert first_lines(root) == [f"🔴 {late}", complete]
    assert stage.replies(root) == [complete]


def test_a_group_that_is_closed_without_a_word_is_not_shown_as_failed(stage: Stage) -> None:
    stage.restarts(ASSET + TO_OPS)
    part(stage, "p1", RUNNING)
    stage.passes(minutes(40))
    stage.restarts(ASSET.replace("user_data.asset", "input") + TO_OPS)
    stage.passes(minutes(5))
    (root,) = stage.roots()
    assert first_lines(root)[-1].startswith("🟢 ")
    assert "its rule has another `by` now" in root.text


STUCK = f'[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nrecover = true\nnotify = "ops"\n{TO_OPS}'
NOBODY = "🔴 Nobody has acknowledged for 30 min: stuck (j1.mp4): Running for more than 30 min"


def test_the_escalation_of_an_alarm_is_a_reply_in_the_thread_of_its_job(stage: Stage) -> None:
    stage.restarts(STUCK, given=GIVEN.replace("[notifier.pager]", 'thread = "job"\n[notifier.pager]'))
    stage.has("j1", RUNNING)
    stage.passes(minutes(70))
    (root,) = stage.roots()
    assert stage.replies(root) == [NOBODY]
    stage.has("j1", SUCCESS)
    stage.passes(minutes(5))
    assert stage.replies(root)[1:] == ["🔄 Transcode Success after 1 h 10 min Running: j1.mp4"]


@pytest.mark.parametrize("keys", ["", "update = true\n"])
def test_without_threads_the_escalation_of_an_alarm_is_a_message(stage: Stage, keys: str) -> None:
    stage.restarts(STUCK, given=GIVEN.replace("[notifier.pager]", f"{keys}[notifier.pager]"))
    stage.has("j1", RUNNING)
    stage.passes(minutes(70))
    assert [first_lines(post)[0] for post in stage.slack.posts][1:] == [NOBODY]


# --- where it is shown ----------------------------------------------------------------------------------------------


def test_it_stays_in_the_channel_that_the_first_job_selected(stage: Stage) -> None:
    by_job = 'channel = "{{ job.user_data.channel }}"\nchannels = ["C024BE91L", "C0DEF4567"]'
    stage.restarts(SICK + TOLD, given=GIVEN.replace('channel = "C024BE91L"', by_job, 1))
    for number in range(8):
        stage.has(f"j{number}", FAILED, queue="p1", user_data=f"channel={'C024BE91L' if number > 2 else 'C0DEF4567'}")
        stage.clock.advance(seconds(10))
        stage.poll()
    stage.passes(minutes(30))
    (root,) = stage.roots()
    assert {post.channel for post in stage.slack.posts} == {"C0DEF4567"}
    assert len(stage.replies(root)) == 2
    assert first_lines(root)[-1] == "🟢 sick (queue vod): 8 Failed, over after 10 min 50 s"


def test_an_incoming_webhook_and_a_receiver_hear_of_it_in_order_and_of_no_number_between(stage: Stage) -> None:
    rules = (SICK + TOLD).replace('"ops"', '["hook", "cms"]')
    hook = '[notifier.hook]\ntype = "slack"\nurl = { env = "HOOK" }\n'
    stage.environ = {**stage.environ, "HOOK": stage.slack.hook_url("C024BE91L")}
    stage.restarts(rules, given=GIVEN + hook)
    fail(stage, "j1", "j2", "j3")
    fail(stage, "j4", "j5", "j6", "j7")
    stage.passes(minutes(30))
    assert [first_lines(post)[0].lstrip("🔴🟢🕰️ ") for post in stage.slack.posts] == [
        "sick (queue vod): 3 Failed within 10 min",
        "sick (queue vod) is over after 10 min 46 s",
    ]
    stored = rows(stage.db, deliveries)
    assert len({row["lane"] for row in stored}) == 1
    assert [row["notifier"] for row in stored] == ["hook", "cms"] * 2
    assert rows(stage.db, threads) == []


def test_its_jobs_are_links_to_their_pages_and_it_leads_to_its_own(stage: Stage) -> None:
    parts.share_public_url(stage.db, URL)
    fail(stage, "j1", "j2", "j3")
    (root,) = stage.roots()
    (id_,) = [row["id"] for row in rows(stage.db, table)]
    said = json.dumps(root.blocks, ensure_ascii=False)
    assert [f"Failed: <{URL}/jobs/{name}|{name}.mp4> - bad input" in said for name in ("j1", "j2", "j3")] == [True] * 3
    assert f"<{URL}/incidents/{id_}|Open the incident>" in said
    assert f"<{URL}/silences/add?rule=sick|Silence this rule>" in said


def test_names_of_files_cannot_act(stage: Stage) -> None:
    parts.share_public_url(stage.db, URL)
    for name in ("<!channel>.mp4", "a\n• b: j3.mp4", "|x>.mp4"):
        stage.has(f"j{len(stage.ci.jobs)}", FAILED, queue="p1", input=f"in/{name}", message="<@U1>")
    stage.poll()
    stage.lives(seconds(3))
    (root,) = stage.roots()
    said = json.dumps(root.blocks)
    assert "<!channel" not in said
    assert "<@U1>" not in said
    assert said.count(f"<{URL}/jobs/") == 3


# --- what goes wrong ------------------------------------------------------------------------------------------------


@on_both
def test_a_message_whose_answer_was_lost_is_adopted_and_not_repeated(stage: Stage) -> None:
    stage.slack.spoil = losing_the_first(POST)
    fail(stage, "j1", "j2", "j3")
    fail(stage, "j4", "j5", "j6")
    stage.lives(minutes(2), step=seconds(2))
    (root,) = stage.roots()
    assert first_lines(root)[-1] == "🔴 sick (queue vod): 6 Failed since TIME"
    assert stage.replies(root) == ["🔴 sick (queue vod): 6 by now"]


def test_a_message_whose_worker_was_killed_before_it_was_recorded_is_adopted(stage: Stage) -> None:
    for id_ in ("j1", "j2", "j3"):
        stage.has(id_, FAILED, queue="p1")
    stage.poll()
    stage.is_killed_after_the_post()
    fail(stage, "j4", "j5")
    stage.lives(minutes(8), step=seconds(20))
    (root,) = stage.roots()
    assert first_lines(root) == [OPENED, "🔴 sick (queue vod): 5 Failed since TIME"]
    (thread,) = rows(stage.db, threads)
    assert thread["shown_no"] == thread["wanted_no"]


def test_what_slack_did_not_take_for_an_hour_is_posted_as_it_is_by_then(stage: Stage) -> None:
    stage.slack.fault = lambda _: Answer(status=503)
    fail(stage, "j1", "j2", "j3")
    stage.passes(hours(1))
    stage.slack.fault = lambda _: None
    stage.passes(hours(1))
    (root,) = stage.slack.posts
    assert first_lines(root) == ["🟢🕰️ sick (queue vod): 3 Failed, over after 10 min"]


def test_a_silence_holds_the_messages_and_its_digest_quotes_their_titles(stage: Stage) -> None:
    stage.silence(lasts=hours(1), rule="sick")
    stage.restarts(SICK + TOLD)
    fail(stage, "j1", "j2", "j3")
    stage.passes(hours(2))
    (digest,) = stage.slack.posts
    head, *lines = digest.text.splitlines()
    assert head.endswith("The silence by ann (maintenance) is over, 2 held: 1 closed, 1 open")
    assert [times_left_out(line) for line in lines[:2]] == [
        "• TIME sick (queue vod) is over after 10 min",
        "• TIME sick (queue vod): 3 Failed within 10 min",
    ]


def test_a_silence_keeps_no_message_from_showing_that_it_is_over(stage: Stage) -> None:
    fail(stage, "j1", "j2", "j3")
    stage.silence(lasts=hours(5), rule="sick")
    stage.passes(minutes(30))
    (root,) = stage.slack.posts
    assert first_lines(root)[-1] == "🟢 sick (queue vod): 3 Failed, over after 10 min"


def test_many_incidents_are_never_folded_into_the_digest_of_a_flood(stage: Stage) -> None:
    each = SICK.replace('"queue"', '"user_data.id"').replace(">= 3", ">= 1")
    stage.restarts(each)
    for number in range(100):
        stage.has(f"j{number}", FAILED, user_data=f"id={number}")
    stage.poll()
    stage.lives(minutes(4), step=seconds(2))
    assert len(stage.roots()) == 100
    assert {row["state"] for row in rows(stage.db, deliveries)} == {SENT}


def test_what_slack_refuses_for_good_goes_to_the_fallback(stage: Stage) -> None:
    stage.restarts(given=GIVEN.replace('channel = "C024BE91L"', 'channel = "C024BE91L"\nfallback = "pager"', 1))
    refused = Answer(body=b'{"ok":false,"error":"no_text"}')
    stage.slack.fault = lambda request: refused if b"C024BE91L" in request.body else None
    fail(stage, "j1", "j2", "j3")
    stage.lives(minutes(1))
    (post,) = stage.slack.posts
    assert post.channel == "C0DEF4567"
    assert first_line(post.text).endswith(
        "Not delivered to ops (Slack says no_text): sick (queue vod): 3 Failed within 10 min"
    )
