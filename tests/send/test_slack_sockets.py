"""Slack over real sockets: the simulated one, and answers that the API alone does not show."""

import json

from bridge.model import Sent
from bridge.send.client import HttpClient
from bridge.send.integration import Egress
from bridge.send.slack import Slack
from bridge.send.slack.client import SlackTransport, SlackWebClient
from bridge.simulator.slack import DEMO_TOKEN, SlackLookAlike
from tests.send.test_slack_threads import state
from tests.support.receivers import NOBODY, NOON, Receiver, a_delivery, a_slack, accepting


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


def test_a_thread_of_the_simulated_slack_goes_on_under_its_updated_root(client: HttpClient) -> None:
    slack = Slack(a_slack(token=DEMO_TOKEN, thread="job", update=True))
    with SlackLookAlike() as look_alike:
        egress = Egress(client, look_alike.api_url)
        first, _ = slack.send(a_delivery(**state(1)), NOON, egress)
        assert isinstance(first, Sent)
        later, _ = slack.send(a_delivery(**state(2), root=first.receipt), NOON, egress)
    root, reply = look_alike.posts
    assert (root.thread_ts, reply.thread_ts) == (None, root.ts)
    assert (first, later) == (Sent(f"C1:{root.ts}:C1:1"), Sent(f"C1:{root.ts}:C1:2"))


def test_what_is_read_of_slack_is_asked_for_by_a_form(client: HttpClient) -> None:
    metadata = {"event_type": "delivery", "event_payload": {"id": "d1"}}
    with SlackLookAlike() as look_alike:
        web = SlackWebClient(SlackTransport(client), token=DEMO_TOKEN, base_url=look_alike.api_url)
        ts = web.chat_postMessage(channel="C1", text="a & b", metadata=metadata)["ts"]
        found = web.conversations_history(channel="C1", oldest=ts, inclusive=True, include_all_metadata=True)
        without = web.conversations_history(channel="C1", oldest=ts, inclusive=False)
    assert [message["metadata"] for message in found["messages"]] == [metadata]
    assert without["messages"] == []
