"""Slack over real sockets: the simulated one, and answers that the API alone does not show."""

import json
from contextlib import closing
from typing import Any

import pytest
from slack_sdk import WebClient

from bridge.model import Outcome, Rejected, Sent
from bridge.send.client import HttpClient
from bridge.send.integration import Egress
from bridge.send.slack import Slack
from bridge.simulator.slack import DEMO_TOKEN, Post, SlackLookAlike
from tests.send.test_slack_threads import BOTH, THREAD, state
from tests.support.receivers import LOOPBACK, NOBODY, NOON, Receiver, a_delivery, a_slack, accepting


def test_an_incoming_webhook_gets_the_same_message_and_gives_no_receipt(client: HttpClient) -> None:
    with Receiver(accepting()) as receiver:
        hook = Slack(a_slack(url=receiver.url, token=None, channel=None))
        outcome, _ = hook.send(a_delivery(), NOON, Egress(client, NOBODY))
    assert outcome == Sent()
    (seen,) = receiver.requests
    assert seen.path == "/hook?token=hush"
    assert seen.json["blocks"][0]["type"] == "section"
    assert "authorization" not in seen.headers


def test_an_answer_longer_than_what_is_stored_is_still_read_whole(client: HttpClient) -> None:
    body = json.dumps({"ok": True, "message": {"text": "x" * 500_000}, "channel": "C1", "ts": "171.9"}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with Receiver(lambda connection, _seen, _over: connection.sendall(head + body)) as receiver:
        egress = Egress(client, f"http://127.0.0.1:{receiver.port}/api/")
        outcome, _ = Slack(a_slack()).send(a_delivery(), NOON, egress)
    assert outcome == Sent(receipt="C1:171.9:C1:0")


class LookAlike(SlackLookAlike):
    """The simulated Slack, over a real socket."""

    def send(self, channel: str = "C1", *, notifier: dict[str, Any] = THREAD, **delivery: Any) -> Outcome:
        slack = Slack(a_slack(channel=channel, token=DEMO_TOKEN, **notifier))
        with closing(HttpClient(allow=LOOPBACK)) as client:
            return slack.send(a_delivery(**{"thread": "b/j1"} | delivery), NOON, Egress(client, self.api_url))[0]

    def delete(self, post: Post) -> None:
        WebClient(token=DEMO_TOKEN, base_url=self.api_url).chat_delete(channel=post.channel, ts=post.ts)


def test_after_a_move_to_another_channel_the_thread_goes_on_there() -> None:
    with LookAlike(archived=["C1"]) as slack:
        assert isinstance(slack.send("C1", root="C1:170.5:C1:1"), Rejected)
        moved = slack.send("C2", root="C1:170.5:C1:1")
        assert slack.send("C2", root=moved.receipt) == Sent()
    assert [post.channel for post in slack.posts] == ["C2", "C2"]
    assert slack.posts[1].thread_ts == slack.posts[0].ts


@pytest.mark.parametrize("thread", ["job", "workflow"])
def test_a_reply_whose_root_was_deleted_is_the_root_from_then_on(thread: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="bridge")
    with LookAlike() as slack:
        first = slack.send(notifier={"thread": thread})
        assert slack.send(notifier={"thread": thread}, root=first.receipt) == Sent()
        slack.delete(slack.posts[0])
        loose = slack.send(notifier={"thread": thread}, root=first.receipt)
        assert loose.receipt not in (None, first.receipt)
        assert slack.send(notifier={"thread": thread}, root=loose.receipt) == Sent()
    _, root, reply = slack.posts
    assert (root.thread_ts, reply.thread_ts) == (None, root.ts)
    assert [(record.getMessage(), vars(record)["why"]) for record in caplog.records] == [
        ("the root of a slack thread is gone, a new one begins", "deleted")
    ]


def test_an_updated_root_that_was_deleted_is_followed_by_one_that_is_updated() -> None:
    with LookAlike() as slack:
        first = slack.send(notifier=BOTH, **state(1))
        slack.delete(slack.posts[0])
        again = slack.send(notifier=BOTH, root=first.receipt, **state(2))
        moved = slack.send(notifier=BOTH, root=again.receipt, **state(3))
    root, reply = slack.posts
    assert (root.thread_ts, len(root.edits), reply.thread_ts) == (None, 1, root.ts)
    assert (again.receipt, moved.receipt) == (f"C1:{root.ts}:C1:2", f"C1:{root.ts}:C1:3")
