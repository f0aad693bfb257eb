"""Slack over real sockets: the simulated one, and answers that the API alone does not show."""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from bridge.model import Delivery, Rate, Reason, Rejected, RetryLater, Sent
from bridge.send.client import HttpClient
from bridge.send.integration import Egress
from bridge.send.slack import Slack
from bridge.send.slack.client import SlackTransport, SlackWebClient
from bridge.simulator.slack import DEMO_TOKEN, Limits, SlackLookAlike
from bridge.simulator.workspace import Channel
from tests.support.receivers import NOBODY, NOON, Receiver, a_content, a_delivery, a_root_edit, a_slack, accepting
from tests.support.strict_slack import StrictSlack


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
    assert outcome == Sent(receipt="C1:171.9:C1")


def test_a_thread_of_the_simulated_slack_goes_on_under_its_root_which_is_edited(client: HttpClient) -> None:
    slack = Slack(a_slack(token=DEMO_TOKEN, thread="job", update=True))
    with StrictSlack() as look_alike:
        egress = Egress(client, look_alike.api_url)
        running = a_content(state="Running", title="Transcode runs")
        first, _ = slack.send(a_delivery(wanted=running, wanted_no=2), NOON, egress)
        assert isinstance(first, Sent)
        later, _ = slack.send(a_delivery(id="d_2", root=first.receipt), NOON, egress)
        edited, _ = slack.send(a_root_edit(root=first.receipt), NOON, egress)
    root, reply = look_alike.posts
    assert (root.thread_ts, reply.thread_ts) == (None, root.ts)
    assert (first, later, edited) == (Sent(f"C1:{root.ts}:C1", 2), Sent(), Sent(f"C1:{root.ts}:C1", 3))
    assert [version.text[:1] for version in root.versions] == ["▶", "❌"]


def test_a_root_that_a_person_deleted_is_gone_for_an_edit_and_a_reply_takes_its_place(client: HttpClient) -> None:
    slack = Slack(a_slack(token=DEMO_TOKEN, thread="job", update=True))
    with StrictSlack() as look_alike:
        egress = Egress(client, look_alike.api_url)
        first, _ = slack.send(a_delivery(), NOON, egress)
        assert isinstance(first, Sent)
        look_alike.workspace.delete(look_alike.posts[0])
        edited, _ = slack.send(a_root_edit(root=first.receipt), NOON, egress)
        later, _ = slack.send(a_delivery(id="d_2", root=first.receipt), NOON, egress)
    (reply,) = look_alike.posts
    assert edited == Rejected("Slack says message_not_found: the root cannot be edited any more", Reason.GONE)
    assert later == Sent(f"C1:{reply.ts}:C1")


def test_a_channel_by_name_is_posted_to_and_its_root_is_found_by_the_id_that_slack_said(client: HttpClient) -> None:
    slack = Slack(a_slack(token=DEMO_TOKEN, channel="general", thread="job", update=True))
    with StrictSlack(channels=[Channel(id="C7", name="general")]) as look_alike:
        egress = Egress(client, look_alike.api_url)
        first, _ = slack.send(a_delivery(), NOON, egress)
        assert isinstance(first, Sent)
        edited, _ = slack.send(a_root_edit(root=first.receipt), NOON, egress)
        later, _ = slack.send(a_delivery(id="d_2", root=first.receipt), NOON, egress)
    root, reply = look_alike.posts
    assert (first, edited) == (Sent(f"C7:{root.ts}:general"), Sent(f"C7:{root.ts}:general", 3))
    assert (later, reply.thread_ts) == (Sent(), root.ts)


@pytest.mark.parametrize(
    ("make", "limit"), [(a_delivery, "slack channel C1 of "), (a_root_edit, "slack edits ")], ids=["post", "edit"]
)
def test_what_slacks_limits_do_not_let_through_waits_for_the_limit_that_slack_kept(
    make: Callable[..., Delivery], limit: str, client: HttpClient
) -> None:
    slack, once = Slack(a_slack(token=DEMO_TOKEN, update=True)), Rate(count=1, per=timedelta(seconds=30))
    with StrictSlack(limits=Limits(posts=once, burst=1, tier3=once)) as look_alike:
        egress = Egress(client, look_alike.api_url)
        posted, _ = slack.send(a_delivery(), NOON, egress)
        assert isinstance(posted, Sent)
        first, _ = slack.send(a_root_edit(root=posted.receipt), NOON, egress)
        outcome, last = slack.send(make(root=None if make is a_delivery else posted.receipt), NOON, egress)
    assert isinstance(first, Sent)
    assert isinstance(outcome, RetryLater)
    assert (outcome.limit or "").startswith(limit)
    assert outcome.after is not None
    assert timedelta(seconds=20) < outcome.after <= timedelta(seconds=30)
    assert (last.status if last else None) == 429


class Illiterate(SlackLookAlike):
    """It refuses all blocks."""

    def refusal_of(self, text: str, blocks: Any, *, edit: bool = False) -> str | None:
        return "invalid_blocks" if blocks else None


@pytest.mark.parametrize("way", ["post", "edit", "webhook"])
def test_a_message_without_its_blocks_gets_through_although_the_refusal_used_up_the_limit(
    way: str, client: HttpClient
) -> None:
    clock, once = [NOON.timestamp()], Rate(count=1, per=timedelta(seconds=30))
    with Illiterate(clock=lambda: clock[0], limits=Limits(posts=once, burst=1, tier3=once)) as look_alike:
        if way == "webhook":
            slack = Slack(a_slack(url=look_alike.hook_url("C1"), token=None, channel=None))
        else:
            slack = Slack(a_slack(token=DEMO_TOKEN, update=True))
        place = look_alike.workspace.post(look_alike.workspace.channel("C1"), "U000", "here", [])
        make = partial(a_root_edit, root=f"C1:{place.ts}:C1") if way == "edit" else a_delivery
        egress = Egress(client, look_alike.api_url)
        limited, _ = slack.send(make(), NOON, egress)
        assert isinstance(limited, RetryLater)
        assert limited.limit
        clock[0] += 31
        assert isinstance(slack.send(make(), NOON, egress)[0], Sent)
        clock[0] += 31
        newer, _ = slack.send(make(id="d_2", wanted_no=4), NOON, egress)  # its blocks are tried
        assert isinstance(newer, RetryLater)
    assert look_alike.posts[-1].text.startswith("❌ Transcode failed")


def test_what_is_read_of_slack_is_asked_for_by_a_form(client: HttpClient) -> None:
    metadata = {"event_type": "delivery", "event_payload": {"id": "d1"}}
    with SlackLookAlike() as look_alike:
        web = SlackWebClient(SlackTransport(client), token=DEMO_TOKEN, base_url=look_alike.api_url)
        ts = web.chat_postMessage(channel="C1", text="a & b", metadata=metadata)["ts"]
        found = web.conversations_history(channel="C1", oldest=ts, inclusive=True, include_all_metadata=True)
        without = web.conversations_history(channel="C1", oldest=ts, inclusive=False)
    assert [message["metadata"] for message in found["messages"]] == [metadata]
    assert without["messages"] == []
