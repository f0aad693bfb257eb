"""Storms to group robots and by mail, in simulated time, with the real sender: within limits, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests

from bridge.record.database import Database
from bridge.send.client import HttpClient
from bridge.send.sender import Sender
from bridge.simulator.robots import CHATS, Robot
from bridge.simulator.smtp import MailServer
from tests.support.mail import PASSWORD, USER, a_mail_server, trusting
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
MAIL = f"""server = "{{place}}"
username = "{USER}"
password = {{{{ env = "SERVER_PASSWORD" }}}}
from = "{USER}"
to = "ops@example.com"
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

    def sends(self, client: HttpClient | None = None) -> None:
        """Send with the real sender from now on."""
        client = client or HttpClient(allow=LOOPBACK)
        self.sender = Sender(client=client, notifiers=self.book.notifiers, clock=self.clock, slack_api_url=NOBODY)
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
def staged_mail(db: Database) -> Iterator[tuple[Stage, MailServer]]:
    """Return the stage with a mail server."""
    stage = Stage(db)
    with a_mail_server() as server:
        given = GIVEN.replace('url = {{ env = "URL" }}', MAIL).format(tool="email", keys="", place=server.place)
        stage.start(given=given, environ={"SERVER_PASSWORD": PASSWORD})
        stage.sends(trusting())
        stage.first_poll()
        yield stage, server
        stage.sender.close(1)


@pytest.fixture
def staged(db: Database) -> Iterator[Callable[..., Stage]]:
    """Return what makes the stage with a tool's robot."""

    def make(tool: str, keys: str = "") -> Stage:
        stage = Stage(db)
        stage.robot = stack.enter_context(CHATS[tool](clock=lambda: stage.clock().timestamp()))
        stage.start(given=GIVEN.format(tool=tool, keys=keys), environ={"URL": stage.robot.webhook})
        stage.sends()
        stack.callback(stage.sender.close, 1)
        stage.first_poll()
        return stage

    with ExitStack() as stack:
        yield make


@pytest.mark.parametrize("tool", CHATS)
def test_499_failures_at_once_are_a_minute_of_messages_and_a_digest(staged, tool):
    stage = staged(tool)
    stage.fail(499)
    stage.lives(seconds(80), step=seconds(0.2))
    assert_told(stage)
    assert stage.robot.answers == {0: len(stage.robot.posts)}


def test_499_failures_at_once_are_a_minute_of_mails_and_a_digest(staged_mail):
    stage, server = staged_mail
    stage.fail(499)
    stage.lives(seconds(80), step=seconds(0.5))
    assert_told(stage, len(server.mails))
    assert len({mail.message["Message-ID"] for mail in server.mails}) == len(server.mails)


def assert_told(stage, told=None):
    alone, together, messages = stage.counts()
    assert alone + together == 499
    places = minutes(1) / stage.book.notifiers["ops"].limit_of(None).interval  # 18.5 of WeCom's
    assert places - 2 < alone < places + 1
    assert messages == (len(stage.robot.posts) if told is None else told)


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
