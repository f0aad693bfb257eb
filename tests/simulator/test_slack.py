"""The Slack look-alike, through Slack's own client and through plain HTTP."""

from __future__ import annotations

import pytest
import requests
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from bridge.simulator.slack import DEMO_TOKEN
from tests.support.strict_slack import StrictSlack


def client(slack: StrictSlack, token: str = DEMO_TOKEN) -> WebClient:
    return WebClient(token=token, base_url=slack.api_url, retry_handlers=[], timeout=10)


def text(said: str, kind: str = "mrkdwn") -> dict[str, str]:
    return {"type": kind, "text": said}


def section(said: str = "hello") -> dict[str, object]:
    return {"type": "section", "text": text(said)}


def error_of(slack: StrictSlack, **said: object) -> str:
    """Return the error word that a post is refused with."""
    # Not by Slack's client: it warns of what these posts are wrong in.
    headers = {"Authorization": f"Bearer {DEMO_TOKEN}"}
    said = {"channel": "C1", **said}
    response = requests.post(f"{slack.api_url}chat.postMessage", json=said, headers=headers, timeout=10)
    assert (response.status_code, response.json()["ok"]) == (200, False)
    return response.json()["error"]


def test_a_message_is_kept_with_all_it_says():
    metadata = {"event_type": "delivery", "event_payload": {"id": "d1"}}
    with StrictSlack() as slack:
        said = client(slack).chat_postMessage(channel="C1", text="hi", blocks=[section()], metadata=metadata)
        (post,) = slack.posts
    assert (post.channel, post.ts, post.text) == ("C1", said["ts"], "hi")
    assert (post.blocks, post.metadata, post.thread_ts) == ([section()], metadata, None)


def test_timestamps_are_unique_and_increase():
    with StrictSlack() as slack:
        for _ in range(3):
            client(slack).chat_postMessage(channel="C1", text="hi")
        stamps = [post.ts for post in slack.posts]
    assert stamps == sorted(set(stamps))


def test_a_thread_needs_its_root():
    with StrictSlack() as slack:
        root = client(slack).chat_postMessage(channel="C1", text="root")["ts"]
        client(slack).chat_postMessage(channel="C1", text="reply", thread_ts=root)
        assert slack.posts[1].thread_ts == root
        assert error_of(slack, text="hi", thread_ts="1.000001") == "thread_not_found"
        assert error_of(slack, channel="C2", text="hi", thread_ts=root) == "thread_not_found"


def test_an_update_without_blocks_keeps_the_old_ones():
    with StrictSlack() as slack:
        ts = client(slack).chat_postMessage(channel="C1", text="one", blocks=[section("1")])["ts"]
        client(slack).chat_update(channel="C1", ts=ts, text="two")
        (post,) = slack.posts
        with pytest.raises(SlackApiError, match="message_not_found"):
            client(slack).chat_update(channel="C1", ts="1.000001", text="hi")
    assert (post.text, post.blocks) == ("two", [section("1")])


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({}, "no_text"),
        ({"text": "x" * 40_001}, "msg_too_long"),
        ({"blocks": [section()] * 51}, "invalid_blocks"),
        ({"blocks": [section("x" * 3001)]}, "invalid_blocks"),
        ({"blocks": [section("")]}, "invalid_blocks"),
        ({"blocks": [{"type": "section"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "fields": [text("x")] * 11}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "fields": [text("x" * 2001)]}]}, "invalid_blocks"),
        ({"blocks": [{"type": "context", "elements": [text("x")] * 11}]}, "invalid_blocks"),
        ({"blocks": [{"type": "sektion"}]}, "invalid_blocks"),
        ({"blocks": [section("x" * 3000)] * 5}, "msg_blocks_too_long"),
        ({"text": "hi", "metadata": {"event_type": "x"}}, "invalid_metadata_format"),
    ],
)
def test_a_message_over_a_limit_is_refused_whole(said, error):
    with StrictSlack() as slack:
        assert error_of(slack, **said) == error
        assert slack.posts == []


@pytest.mark.parametrize(
    "blocks",
    [
        [section()] * 50,
        [section("x" * 3000)],
        [{"type": "section", "fields": [text("x" * 1000)] * 10}],
        [{"type": "section", "fields": [text("x" * 2000)]}],
        [{"type": "context", "elements": [text("x")] * 10}],
    ],
)
def test_a_message_at_a_limit_is_taken(blocks):
    with StrictSlack() as slack:
        assert client(slack).chat_postMessage(channel="C1", text="hi", blocks=blocks)["ok"]


def test_an_unknown_token_method_or_channel_is_refused():
    with StrictSlack() as slack:
        assert error_of(slack, channel="", text="hi") == "channel_not_found"
        with pytest.raises(SlackApiError, match="invalid_auth"):
            client(slack, "xoxb-unknown").auth_test()
        assert requests.post(f"{slack.api_url}auth.test", timeout=10).json()["error"] == "not_authed"
        assert requests.post(f"{slack.api_url}chat.scheduleMessage", timeout=10).json()["error"] == "unknown_method"


def test_a_token_can_be_tested():
    with StrictSlack() as slack:
        assert client(slack).auth_test()["ok"]
