"""Slack posts that were not answered: what becomes of their deliveries, threads and roots, with the real sender."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.record.database import Database
from bridge.record.schema import threads
from bridge.simulator.web import Answer
from tests.support.nouns import minutes, seconds
from tests.support.records import rows
from tests.support.slack_stage import Stage, losing_the_first, on_stage

POST, HISTORY = "chat.postMessage", "conversations.history"

GIVEN = """
[[watch]]
name = "vod"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
[notifier.ops]
type = "slack"
channel = "C024BE91L"
token = { env = "TOKEN" }
thread = "job"
update = true
[[rule]]
name = "all"
notify = "ops"
"""


@pytest.fixture
def stage(db: Database) -> Iterator[Stage]:
    with on_stage(db, GIVEN) as stage:
        yield stage


def test_a_root_whose_answer_was_lost_is_adopted_and_brought_to_the_newest_state(stage: Stage) -> None:
    stage.slack.spoil = losing_the_first(POST)
    stage.sees("j1", state="Submitted")
    stage.sees("j1", state="Running")
    stage.lives(seconds(30), step=seconds(2))
    assert_one_true_thread(stage)


def test_a_root_whose_worker_was_killed_before_it_was_recorded_is_adopted(stage: Stage) -> None:
    stage.has("j1", "Submitted")
    stage.poll()
    stage.is_killed_after_the_post()
    stage.sees("j1", state="Running")
    stage.lives(minutes(10), step=seconds(20))
    assert_one_true_thread(stage)


def test_a_look_up_that_slack_limits_is_not_repeated_before_its_time_and_holds_up_no_other_message(
    stage: Stage,
) -> None:
    stage.slack.spoil = losing_the_first(POST)
    stage.sees("j0", state="Submitted")
    busy = Answer(status=429, body=b'{"ok":false,"error":"ratelimited"}', headers={"Retry-After": "60"})
    stage.slack.fault = lambda request: busy if request.path.endswith(HISTORY) else None
    stage.lives(seconds(8), step=seconds(1))
    stage.sees("j1", "j2", "j3", "j4")
    stage.lives(seconds(30), step=seconds(1))
    assert len([request for request in stage.slack.requests if request.path.endswith(HISTORY)]) == 1
    assert len(stage.slack.posts) == 5
    assert [row["attempts"] for row in stage.deliveries() if row["job"] == "j0"] == [1]


def test_an_urgent_message_leaves_no_root_behind_that_shows_an_old_state(stage: Stage) -> None:
    """The first post was not answered, and the urgent message takes its place before it is looked for."""
    urgent = '[[rule]]\nname = "urgent"\nto = "Failed"\nnotify = "ops"\nurgent = true\nstop = true\n'
    stage.start(given=GIVEN.replace("[[rule]]", urgent + "[[rule]]"))
    stage.dispatcher = stage.new_dispatcher(transport=stage.new_sender())
    stage.slack.spoil = losing_the_first(POST)
    stage.sees("j1", state="Submitted")
    stage.clock.advance(seconds(1))
    stage.sees("j1", state="Failed")
    stage.lives(minutes(2), step=seconds(2))
    texts = [post.text for post in stage.slack.posts if post.thread_ts is None]
    assert not [text for text in texts if "🕓" in text], texts


def assert_one_true_thread(stage: Stage) -> None:
    root, reply = stage.slack.posts
    assert (root.thread_ts, reply.thread_ts) == (None, root.ts)
    assert "🕓" in root.versions[0].text
    assert "▶️" in root.text
    (thread,) = rows(stage.db, threads)
    assert str(thread["receipt"]).startswith(f"C024BE91L:{root.ts}:C024BE91L")
    assert thread["shown_no"] == thread["wanted_no"]
    assert stage.slack.count(POST) == 2
    assert {row["state"] for row in stage.deliveries()} == {"sent"}
