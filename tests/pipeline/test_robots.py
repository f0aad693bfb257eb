"""Storms to group robots, in simulated time, with the real sender: within their limits, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests

from bridge.record.database import Database
from bridge.send.client import HttpClient
from bridge.send.sender import Sender
from bridge.simulator.robots import ROBOTS, Robot
from tests.support.nouns import minutes, seconds
from tests.support.receivers import LOOPBACK, NOBODY
from tests.support.rig import Rig

GIVEN = """
[[watch]]
name = "vod"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
[notifier.ops]
type = "{tool}"
url = {{ env = "URL" }}
{keys}
[[rule]]
name = "failed"
to = "Failed"
notify = "ops"
"""
OTHERS = {"msgtype": "markdown", "markdown": {"title": "x", "text": "x"}}  # of somebody else who uses DingTalk's robot


class Stage(Rig):
    """A rig whose dispatcher sends to a robot by the same clock."""

    robot: Robot
    sender: Sender

    def deliver(self) -> None:
        busy = True
        while busy:
            self.dispatcher.wake()  # it does not wait where nothing is to come
            busy = bool(self.dispatcher.run_once() or self.dispatcher.unfinished)

    def sends(self) -> None:
        """Send with the real sender from now on."""
        self.sender = Sender(
            client=HttpClient(allow=LOOPBACK), notifiers=self.book.notifiers, clock=self.clock, slack_api_url=NOBODY
        )
        self.dispatcher = self.new_dispatcher(transport=self.sender)

    def fail(self, jobs: int) -> None:
        """Let so many jobs fail at once, and be seen."""
        for n in range(jobs):
            self.has(f"j{n:03}", "Failed")
        self.poll()

    def counts(self) -> tuple[int, int, int]:
        """Return how many jobs were told of alone, and with others; and how many messages there were."""
        rows = self.deliveries()
        assert {row["state"] for row in rows} <= {"sent", "merged"}
        alone = sum(row["state"] == "sent" and bool(row["job"]) for row in rows)
        return alone, sum(row["state"] == "merged" for row in rows), sum(row["state"] == "sent" for row in rows)


@pytest.fixture
def staged(db: Database) -> Iterator[Callable[..., Stage]]:
    """Return what makes the stage with a tool's robot."""

    def make(tool: str, keys: str = "") -> Stage:
        stage = Stage(db)
        stage.robot = stack.enter_context(ROBOTS[tool](clock=lambda: stage.clock().timestamp()))
        stage.start(given=GIVEN.format(tool=tool, keys=keys), environ={"URL": stage.robot.webhook})
        stage.sends()
        stack.callback(stage.sender.close, 1)
        stage.first_poll()
        return stage

    with ExitStack() as stack:
        yield make


@pytest.mark.parametrize("tool", ROBOTS)
def test_499_failures_at_once_are_a_minute_of_messages_and_a_digest(staged, tool):
    stage = staged(tool)
    stage.fail(499)
    stage.lives(seconds(80), step=seconds(0.2))
    alone, together, messages = stage.counts()
    assert alone + together == 499
    places = minutes(1) / stage.book.notifiers["ops"].limit_of(None).interval  # 18.5 of WeCom's
    assert places - 2 < alone < places + 1
    assert stage.robot.answers == {0: messages}
    assert len(stage.robot.posts) == messages


@pytest.mark.parametrize("tool", ["wecom", "dingtalk"])
def test_without_digests_the_messages_of_many_minutes_stay_within_the_limit(staged, tool):
    stage = staged(tool, "flood = false")
    stage.fail(100)
    stage.lives(seconds(100 * 4), step=seconds(1))
    assert stage.counts() == (100, 0, 100)
    assert stage.robot.answers == {0: 100}


def test_where_others_use_up_dingtalks_limit_the_bridge_waits_for_ten_minutes_and_loses_nothing(staged):
    stage = staged("dingtalk")
    for _ in range(20):
        assert requests.post(stage.robot.webhook, json=OTHERS, timeout=10).json()["errcode"] == 0
    stage.fail(30)
    stage.lives(minutes(12), step=seconds(2))
    alone, together, messages = stage.counts()
    assert alone + together == 30
    assert stage.robot.answers == {0: 20 + messages, 130101: 1}
    assert {row["attempts"] for row in stage.deliveries() if row["state"] == "sent"} == {1}
