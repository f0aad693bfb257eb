"""A post whose answer was lost: it is looked for in Slack's history, and where that cannot be read, it says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pytest

from bridge.model import Outcome, Reason, RetryLater, Sent
from bridge.send.client import HttpClient
from bridge.send.http_types import Failure, Reply, Request
from bridge.send.integration import Egress
from bridge.send.slack import Slack
from bridge.simulator import web
from bridge.simulator.slack import ALL_SCOPES, DEMO_TOKEN, HISTORY_SCOPES, Limits
from bridge.simulator.workspace import Channel, Post
from tests.support.receivers import AGAIN, NOON, REPETITION, a_content, a_delivery, a_slack, of_delivery
from tests.support.slack_servers import HOOK, ScriptedSlack
from tests.support.strict_slack import StrictSlack
from tests.support.waiting import wait_until

POST, HISTORY, REPLIES = "chat.postMessage", "conversations.history", "conversations.replies"
UPDATE = {"update": True}


@dataclass
class Channels:
    """A Slack at noon, and who sends there."""

    slack: StrictSlack
    client: HttpClient

    def send(self, notifier: dict[str, Any] | None = None, **delivery: Any) -> Outcome:
        sender = Slack(a_slack(**{"token": DEMO_TOKEN, "thread": "job"} | (notifier or {})))
        outcome, self.last = sender.send(
            a_delivery(**{"thread": "b/j1", "since": NOON} | delivery), NOON, Egress(self.client, self.slack.api_url)
        )
        return outcome

    def lose(self, notifier: dict[str, Any] | None = None, **delivery: Any) -> Post:
        """Send what Slack accepts and does not answer; return the message."""
        self.slack.spoil = lambda *_: web.Answer(hang_up=True)
        assert isinstance(self.send(notifier, **delivery), RetryLater)
        self.slack.spoil = lambda _, answer: answer
        return self.slack.posts[-1]

    def talk(self, count: int) -> None:
        """Let others post to the channel."""
        workspace = self.slack.workspace
        for n in range(count):
            workspace.post(workspace.channel("C1"), "U2", f"talk {n}", [], metadata=of_delivery(f"d_t{n}"))

    @property
    def noted(self) -> list[bool]:
        """Whether each message says that it may be a repetition."""
        return [REPETITION in json.dumps(post.blocks) for post in self.slack.posts]


@pytest.fixture
def channels(client: HttpClient) -> Iterator[Channels]:
    with StrictSlack(clock=NOON.timestamp) as slack:
        yield Channels(slack, client)


def test_a_root_that_was_not_answered_is_found_and_adopted_and_is_yet_to_show_what_is_newest(
    channels: Channels,
) -> None:
    root = channels.lose(UPDATE)
    channels.talk(3)
    found = channels.send(UPDATE, **AGAIN, wanted=a_content(state="Success"), wanted_no=3)
    assert found == Sent(f"C1:{root.ts}:C1", shown_no=0)
    assert channels.slack.count(POST) == 1


def test_a_reply_that_was_not_answered_is_found_in_its_thread(channels: Channels) -> None:
    root = channels.send(id="d_0")
    assert isinstance(root, Sent)
    reply = channels.lose(root=root.receipt)
    assert channels.send(**AGAIN, root=root.receipt) == Sent()
    assert [post.ts for post in channels.slack.posts if post.thread_ts] == [reply.ts]
    assert channels.slack.count(HISTORY) == 0


def test_a_message_is_found_on_a_later_page_with_the_newest_pages_first(channels: Channels) -> None:
    channels.talk(9)
    root = channels.lose()
    channels.talk(7)
    channels.slack.workspace.page_cap = 2
    assert channels.send(**AGAIN) == Sent(f"C1:{root.ts}:C1")
    assert channels.slack.count(HISTORY) == 4


def test_a_message_behind_more_pages_than_are_read_is_posted_again_and_says_so(channels: Channels) -> None:
    channels.lose()
    channels.talk(10)
    channels.slack.workspace.page_cap = 2
    assert isinstance(channels.send(**AGAIN), Sent)
    assert channels.slack.count(HISTORY) == 5
    assert channels.noted == [False, *[False] * 10, True]


def test_what_is_not_there_is_posted_without_a_note_and_nothing_else_is_taken_for_it(channels: Channels) -> None:
    channels.send(id="d_2")
    channels.talk(1)
    sent = channels.send(**AGAIN)
    assert sent == Sent(f"C1:{channels.slack.posts[-1].ts}:C1")
    assert channels.noted == [False] * 3
    assert channels.slack.count(HISTORY) == 1


def test_what_was_sent_before_a_person_resent_it_is_not_taken_for_it(channels: Channels) -> None:
    channels.send()
    resent = channels.send(**AGAIN | {"since": NOON + timedelta(minutes=1)})
    first, second = channels.slack.posts
    assert resent == Sent(f"C1:{second.ts}:C1")
    assert first.ts != second.ts


def test_what_an_older_version_posted_is_found(channels: Channels) -> None:
    workspace = channels.slack.workspace
    root = workspace.post(workspace.channel("C1"), "U000", "x", [], metadata=of_delivery("d_1"))
    assert channels.send(**AGAIN) == Sent(f"C1:{root.ts}:C1")


def without_scope(slack: StrictSlack) -> None:
    slack.tokens = {DEMO_TOKEN: ALL_SCOPES - HISTORY_SCOPES}


def without_membership(slack: StrictSlack) -> None:
    slack.workspace.change_channel("C1", is_member=False)


@pytest.mark.parametrize("prevent", [without_scope, without_membership])
@pytest.mark.parametrize("reply", [False, True])
def test_where_history_may_not_be_read_the_second_message_says_that_it_may_be_a_repetition(
    channels: Channels, prevent: Callable[[StrictSlack], None], reply: bool
) -> None:
    root = channels.send(id="d_0") if reply else Sent()
    assert isinstance(root, Sent)
    prevent(channels.slack)
    channels.lose(root=root.receipt)
    sent = channels.send(**AGAIN, root=root.receipt, note="Sent by ann.")
    assert isinstance(sent, Sent)
    assert channels.noted == [False] * reply + [False, True]
    assert f"Sent by ann. {REPETITION}" in json.dumps(channels.slack.posts[-1].blocks)
    assert channels.slack.posts[-1].thread_ts == (channels.slack.posts[0].ts if reply else None)


def test_a_channel_by_name_has_no_history_that_can_be_read(client: HttpClient) -> None:
    with StrictSlack(channels=[Channel(id="C7", name="general")], clock=NOON.timestamp) as slack:
        channels = Channels(slack, client)
        channels.lose({"channel": "general"})
        assert isinstance(channels.send({"channel": "general"}, **AGAIN), Sent)
        assert channels.noted == [False, True]


def test_an_incoming_webhook_always_says_that_it_may_be_a_repetition() -> None:
    slack = ScriptedSlack()
    assert slack.send(HOOK, **AGAIN) == Sent()
    assert REPETITION in json.dumps(slack.contents[0]["blocks"])


def test_a_first_attempt_looks_for_nothing(channels: Channels) -> None:
    channels.send()
    assert channels.slack.count() == channels.slack.count(POST) == 1


def test_a_look_up_that_slack_is_too_busy_for_waits_for_the_limit_of_reads_and_posts_nothing(
    channels: Channels,
) -> None:
    channels.lose()
    channels.slack.limits = Limits(tier3=replace(Limits().tier3, count=1))
    channels.send(**AGAIN)
    busy = channels.send(**AGAIN | {"attempts": 9})
    assert isinstance(busy, RetryLater)
    assert (busy.limit or "").startswith("slack reads ")
    assert (busy.reason, busy.after) == (Reason.RATE_LIMITED, timedelta(seconds=60))
    assert channels.slack.count(POST) == 1


@dataclass(frozen=True)
class Hasty:
    """A client that is in a hurry: it gives up a hundred times as soon."""

    client: HttpClient

    @property
    def policy(self) -> Any:
        return self.client.policy

    def fetch(self, request: Request) -> Reply | Failure:
        return self.client.fetch(replace(request, deadline_s=request.deadline_s / 100))


def test_a_post_that_slack_makes_after_we_gave_up_is_found_and_not_repeated(channels: Channels) -> None:
    slack, patient = channels.slack, channels.client
    slack.late_s = lambda _: 0.3
    channels.client = cast(HttpClient, Hasty(patient))
    late = channels.send(UPDATE)
    assert isinstance(late, RetryLater)
    assert (late.reason, late.after) == (Reason.TIMEOUT, timedelta(seconds=10))
    assert slack.posts == []
    wait_until(lambda: slack.posts)
    slack.late_s, channels.client = lambda _: 0.0, patient
    assert channels.send(UPDATE, **AGAIN) == Sent(f"C1:{slack.posts[0].ts}:C1")
    assert slack.count(POST) == 1


def test_an_edit_in_place_of_a_message_is_made_again_without_looking_and_without_a_note(channels: Channels) -> None:
    notifier = {"thread": "none", "update": True}
    root = channels.send(notifier, id="d_0")
    assert isinstance(root, Sent)
    assert channels.send(notifier, **AGAIN, root=root.receipt) == Sent(root.receipt)
    assert channels.noted == [False]
    assert channels.slack.count(HISTORY) == channels.slack.count(REPLIES) == 0


def test_a_new_root_in_place_of_one_that_was_deleted_is_found_in_the_channel(channels: Channels) -> None:
    first = channels.send(id="d_0")
    assert isinstance(first, Sent)
    channels.slack.workspace.delete(channels.slack.posts[0])
    begun = channels.lose(root=first.receipt)  # in the channel, as its root is gone
    assert begun.thread_ts is None
    again = channels.send(**AGAIN, root=first.receipt)
    assert isinstance(again, Sent)
    assert len(channels.slack.posts) == 1
    assert again == Sent(f"C1:{begun.ts}:C1")


def test_a_reply_beside_a_thread_whose_root_was_deleted_is_found_although_the_thread_has_others(
    channels: Channels,
) -> None:
    first = channels.send(id="d_0")
    assert isinstance(first, Sent)
    channels.send(id="d_01", root=first.receipt)
    channels.slack.workspace.delete(channels.slack.posts[0])
    begun = channels.lose(root=first.receipt)
    assert channels.send(**AGAIN, root=first.receipt) == Sent(f"C1:{begun.ts}:C1")
    assert channels.slack.count(POST) == 3


def test_a_message_under_a_root_that_was_deleted_begins_a_new_thread_when_it_was_not_posted(
    channels: Channels,
) -> None:
    first = channels.send(id="d_0")
    assert isinstance(first, Sent)
    channels.slack.workspace.delete(channels.slack.posts[0])
    again = channels.send(UPDATE, **AGAIN, root=first.receipt, wanted=a_content(state="Success"), wanted_no=3)
    (root,) = channels.slack.posts
    assert again == Sent(f"C1:{root.ts}:C1", shown_no=3)
    assert channels.noted == [False]


def test_a_history_of_ten_megabytes_is_not_read_to_its_end_and_the_message_is_posted(channels: Channels) -> None:
    channels.lose()
    huge = web.json_answer({"ok": True, "messages": [{"text": "x" * 10_000_000}]})
    channels.slack.spoil = lambda request, answer: huge if request.path.endswith(HISTORY) else answer
    assert isinstance(channels.send(**AGAIN), Sent)
    assert channels.noted == [False, True]


def test_a_post_whose_answer_is_too_long_to_be_read_is_found(channels: Channels) -> None:
    huge = web.json_answer({"ok": True, "channel": "C1", "ts": "1.2", "message": {"text": "x" * 10_000_000}})
    channels.slack.spoil = lambda request, answer: huge if request.path.endswith(POST) else answer
    assert channels.send() == RetryLater("Slack's answer is not understood")
    assert channels.send(**AGAIN) == Sent(f"C1:{channels.slack.posts[0].ts}:C1")
    assert channels.slack.count(POST) == 1


def test_nothing_that_people_wrote_in_the_channel_is_kept(channels: Channels) -> None:
    channels.talk(2)
    channels.lose()
    channels.send(**AGAIN)
    assert channels.last
    assert (channels.last.status, channels.last.body) == (200, b"")


def test_a_message_that_may_still_appear_is_waited_for(channels: Channels) -> None:
    outcome = channels.send(**AGAIN | {"unsure_at": NOON - timedelta(seconds=4)})
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after) == (Reason.UNCONFIRMED, timedelta(seconds=6))
    assert channels.slack.posts == []


@pytest.mark.parametrize(
    "ago", [timedelta(seconds=10), timedelta(hours=-5)], ids=["long ago", "the clock was set back"]
)
def test_a_message_that_did_not_appear_in_time_is_posted(channels: Channels, ago: timedelta) -> None:
    assert isinstance(channels.send(**AGAIN | {"unsure_at": NOON - ago}), Sent)
    assert len(channels.slack.posts) == 1
