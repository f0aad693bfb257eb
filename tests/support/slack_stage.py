"""A rig whose dispatcher sends to a Slack look-alike by the same clock, with the real sender."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bridge.record.database import Database
from bridge.send.client import HttpClient
from bridge.send.sender import Sender
from bridge.simulator.slack import DEMO_TOKEN
from bridge.simulator.web import Answer, Request
from bridge.simulator.workspace import Post
from tests.support.receivers import LOOPBACK
from tests.support.rig import Rig
from tests.support.strict_slack import StrictSlack
from tests.support.waiting import wait_until


class Stage(Rig):
    slack: StrictSlack
    senders: list[Sender]

    def deliver(self) -> None:
        busy = True
        while busy:
            self.dispatcher.wake()  # it does not wait where nothing is to come
            busy = bool(self.dispatcher.run_once() or self.dispatcher.unfinished)

    def is_killed_after_the_post(self) -> None:
        """Let the worker end when Slack has the message and before that is recorded."""
        self.dispatcher.run_once()
        wait_until(lambda: self.slack.posts)
        self.dispatcher = self.new_dispatcher(transport=self.new_sender())

    def restarts(self, rules: str | None = None, *, given: str | None = None) -> None:
        """Start anew, perhaps with other rules."""
        self.start(rules, given=given)
        self.dispatcher = self.new_dispatcher(transport=self.new_sender())

    def new_sender(self) -> Sender:
        sender = Sender(
            client=HttpClient(allow=LOOPBACK),
            notifiers=self.book.notifiers,
            clock=self.clock,
            slack_api_url=self.slack.api_url,
        )
        self.senders.append(sender)
        return sender

    # --- what Slack shows -----------------------------------------------------------------------------------

    def roots(self) -> list[Post]:
        return [post for post in self.slack.posts if post.thread_ts is None]

    def replies(self, root: Post) -> list[str]:
        """Return the first lines of the messages under a root."""
        return [first_line(post.text) for post in self.slack.posts if post.thread_ts == root.ts]


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def times_left_out(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME", text)


@contextmanager
def on_stage(db: Database, given: str, rules: str = "") -> Iterator[Stage]:
    """Yield a stage whose first snapshot was a minute ago."""
    stage = Stage(db, rules, given=given, environ={"TOKEN": DEMO_TOKEN})
    stage.senders = []
    with StrictSlack(clock=lambda: stage.clock().timestamp()) as slack:
        stage.slack = slack
        stage.dispatcher = stage.new_dispatcher(transport=stage.new_sender())
        stage.first_poll()
        yield stage
        for sender in stage.senders:
            sender.close(1)


def losing_the_first(method: str) -> Callable[[Request, Answer], Answer]:
    """Return what loses the first answer to a method."""
    lost: list[Request] = []

    def spoil(request: Request, answer: Answer) -> Answer:
        if lost or not request.path.endswith(method):
            return answer
        lost.append(request)
        return Answer(hang_up=True)

    return spoil
