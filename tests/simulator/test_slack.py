"""The Slack look-alike, through Slack's own client and through plain HTTP."""

from __future__ import annotations

import threading

import pytest
import requests
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from bridge.simulator.slack import DEMO_CHANNEL, DEMO_TOKEN, SlackLookAlike
from tests.support.signed import Clock


def client(slack: SlackLookAlike, token: str = DEMO_TOKEN) -> WebClient:
    return WebClient(token=token, base_url=slack.api_url, retry_handlers=[], timeout=10)


def text(said: str, kind: str = "mrkdwn") -> dict[str, str]:
    return {"type": kind, "text": said}


def section(said: str = "hello") -> dict[str, object]:
    return {"type": "section", "text": text(said)}


def error_of(slack: SlackLookAlike, **said: object) -> str:
    """Return the error word that a post is refused with."""
    # Not by Slack's client: it warns of what these posts are wrong in.
    headers = {"Authorization": f"Bearer {DEMO_TOKEN}"}
    said = {"channel": "C1", **said}
    response = requests.post(f"{slack.api_url}chat.postMessage", json=said, headers=headers, timeout=10)
    assert (response.status_code, response.json()["ok"]) == (200, False)
    return response.json()["error"]


def test_a_message_is_kept_with_all_it_says():
    metadata = {"event_type": "delivery", "event_payload": {"id": "d1"}}
    with SlackLookAlike() as slack:
        said = client(slack).chat_postMessage(channel="C1", text="hi", blocks=[section()], metadata=metadata)
        (post,) = slack.posts
    assert (post.channel, post.ts, post.text) == ("C1", said["ts"], "hi")
    assert (post.blocks, post.metadata, post.thread_ts) == ([section()], metadata, None)


def test_forms_are_read_like_json():
    with SlackLookAlike() as slack:
        form = {"channel": "C1", "blocks": '[{"type": "divider"}]', "text": "hi"}
        said = requests.post(
            f"{slack.api_url}chat.postMessage",
            data=form,
            headers={"Authorization": f"Bearer {DEMO_TOKEN}"},
            timeout=10,
        ).json()
        assert said["ok"]
        assert slack.posts[0].blocks == [{"type": "divider"}]


def test_timestamps_are_unique_and_increase():
    with SlackLookAlike(clock=Clock()) as slack:
        for _ in range(3):
            client(slack).chat_postMessage(channel="C1", text="hi")
        stamps = [post.ts for post in slack.posts]
    assert stamps == sorted(set(stamps))


def test_a_thread_needs_its_root():
    with SlackLookAlike() as slack:
        root = client(slack).chat_postMessage(channel="C1", text="root")["ts"]
        client(slack).chat_postMessage(channel="C1", text="reply", thread_ts=root)
        assert slack.posts[1].thread_ts == root
        assert error_of(slack, text="hi", thread_ts="1.000001") == "thread_not_found"
        assert error_of(slack, channel="C2", text="hi", thread_ts=root) == "thread_not_found"


def test_a_reply_is_answered_with_its_thread_and_alone_without_where_the_root_was_deleted():
    with SlackLookAlike() as slack:
        root = client(slack).chat_postMessage(channel="C1", text="root")["ts"]
        under = client(slack).chat_postMessage(channel="C1", text="reply", thread_ts=root)
        client(slack).chat_delete(channel="C1", ts=root)
        loose = client(slack).chat_postMessage(channel="C1", text="reply", thread_ts=root)
        assert [post.thread_ts for post in slack.posts] == [root, None]
        with pytest.raises(SlackApiError, match="message_not_found"):
            client(slack).chat_update(channel="C1", ts=root, text="hi")
        with pytest.raises(SlackApiError, match="message_not_found"):
            client(slack).chat_delete(channel="C1", ts=root)
    assert under["message"]["thread_ts"] == root
    assert (loose["ok"], "thread_ts" in loose["message"]) == (True, False)


def test_an_update_without_blocks_keeps_the_old_ones():
    with SlackLookAlike() as slack:
        ts = client(slack).chat_postMessage(channel="C1", text="one", blocks=[section("1")])["ts"]
        client(slack).chat_update(channel="C1", ts=ts, text="two")
        (post,) = slack.posts
    assert (post.text, post.blocks) == ("two", [section("1")])
    assert [(e.text, e.ts) for e in post.edits] == [("one", ts)]


def test_edits_are_remembered_oldest_first():
    with SlackLookAlike() as slack:
        ts = client(slack).chat_postMessage(channel="C1", text="one")["ts"]
        for said in ("two", "three"):
            client(slack).chat_update(channel="C1", ts=ts, text=said, blocks=[section(said)])
        (post,) = slack.posts
    assert [e.text for e in post.edits] == ["one", "two"]
    assert post.blocks == [section("three")]


def test_an_update_of_an_unknown_message_is_refused():
    with SlackLookAlike() as slack, pytest.raises(SlackApiError, match="message_not_found"):
        client(slack).chat_update(channel="C1", ts="1.000001", text="hi")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({}, "no_text"),
        ({"text": "x" * 40_001}, "msg_too_long"),
        ({"blocks": [section()] * 51}, "invalid_blocks"),
        ({"blocks": [section("x" * 3001)]}, "invalid_blocks"),
        ({"blocks": [section("")]}, "invalid_blocks"),
        ({"blocks": [{"type": "section"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "header", "text": text("x" * 151, "plain_text")}]}, "invalid_blocks"),
        ({"blocks": [{"type": "header", "text": text("x")}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "fields": [text("x")] * 11}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "fields": [text("x" * 2001)]}]}, "invalid_blocks"),
        ({"blocks": [{"type": "context", "elements": [text("x")] * 11}]}, "invalid_blocks"),
        ({"blocks": [{"type": "sektion"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "divider", "block_id": "a"}] * 2}, "invalid_blocks"),
        ({"blocks": [section("x" * 3000)] * 5}, "msg_blocks_too_long"),
        ({"text": "hi", "metadata": {"event_type": "x"}}, "invalid_metadata_format"),
    ],
)
def test_a_message_over_a_limit_is_refused_whole(said, error):
    with SlackLookAlike() as slack:
        assert error_of(slack, **said) == error
        assert slack.posts == []


@pytest.mark.parametrize(
    "blocks",
    [
        [{"type": "divider"}] * 50,
        [section("x" * 3000)],
        [{"type": "header", "text": text("x" * 150, "plain_text")}],
        [{"type": "section", "fields": [text("x" * 1000)] * 10}],
        [{"type": "section", "fields": [text("x" * 2000)]}],
        [{"type": "context", "elements": [text("x")] * 10}],
    ],
)
def test_a_message_at_a_limit_is_taken(blocks):
    with SlackLookAlike() as slack:
        assert client(slack).chat_postMessage(channel="C1", text="hi", blocks=blocks)["ok"]


def test_an_unknown_token_or_channel_and_an_archived_channel_are_refused():
    with SlackLookAlike(channels={"C1", "C9"}, archived={"C9"}) as slack:
        assert error_of(slack, channel="C2", text="hi") == "channel_not_found"
        assert error_of(slack, channel="C9", text="hi") == "is_archived"
        slack.tokens.clear()
        assert error_of(slack, text="hi") == "invalid_auth"
        assert requests.post(f"{slack.api_url}auth.test", timeout=10).json()["error"] == "not_authed"


def test_a_token_can_be_tested():
    with SlackLookAlike() as slack:
        assert client(slack).auth_test()["ok"]


def test_a_channel_takes_a_message_a_second_where_that_is_asked():
    clock = Clock()
    with SlackLookAlike(rate_limited=True, clock=clock) as slack:
        client(slack).chat_postMessage(channel="C1", text="1")
        client(slack).chat_postMessage(channel="C2", text="1")
        with pytest.raises(SlackApiError) as caught:
            client(slack).chat_postMessage(channel="C1", text="2")
        clock.at += 1
        client(slack).chat_postMessage(channel="C1", text="3")
        assert [post.text for post in slack.posts] == ["1", "1", "3"]
    response = caught.value.response
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    assert response.data == {"ok": False, "error": "ratelimited"}


def test_an_incoming_webhook_says_ok_in_plain_text():
    with SlackLookAlike() as slack:
        response = requests.post(slack.hook_url, json={"text": "hi"}, timeout=10)
        assert (response.status_code, response.text) == (200, "ok")
        (post,) = slack.posts
    assert (post.channel, post.text, post.hook) == (DEMO_CHANNEL, "hi", True)


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/services/none", 404, "no_service"),
        ("/services/old", 410, "channel_is_archived"),
        ("/services/closed", 403, "action_prohibited"),
    ],
)
def test_an_incoming_webhook_that_is_gone_says_so(path, status, word):
    hooks = {"/services/old": "C9", "/services/closed": "C8"}
    with SlackLookAlike(hooks=hooks, archived={"C9"}, prohibited={"C8"}) as slack:
        response = requests.post(slack.url + path, json={"text": "hi"}, timeout=10)
    assert (response.status_code, response.text) == (status, word)


@pytest.mark.parametrize(
    ("body", "word"),
    [("{", "invalid_payload"), ("{}", "no_text"), ('{"blocks": [{"type": "x"}]}', "invalid_blocks")],
)
def test_an_incoming_webhook_refuses_what_it_cannot_read(body, word):
    with SlackLookAlike() as slack:
        headers = {"content-type": "application/json"}
        response = requests.post(slack.hook_url, data=body, headers=headers, timeout=10)
    assert (response.status_code, response.text) == (400, word)


def test_one_can_wait_for_a_post():
    with SlackLookAlike() as slack:
        sender = threading.Thread(target=lambda: client(slack).chat_postMessage(channel="C1", text="hi"))
        sender.start()
        assert slack.wait_for(lambda posts: len(posts) == 1)[0].text == "hi"
        sender.join()


def test_a_post_is_rendered_as_a_person_reads_it():
    blocks = [
        {"type": "header", "text": text("Transcode <Failed>", "plain_text")},
        section("*intro.mp4*: moov &lt;atom&gt; not found, see <https://ci.example/j1|the job>"),
        {"type": "section", "fields": [text("*queue*\nvod"), text("code")]},
        {"type": "divider"},
        {"type": "context", "elements": [text("rule failed"), text("d1")]},
    ]
    with SlackLookAlike() as slack:
        client(slack).chat_postMessage(channel="C1", text="hi", blocks=blocks)
        (post,) = slack.posts
        assert slack.render(post).splitlines() == [
            "Transcode <Failed>",
            "==================",
            "intro.mp4: moov <atom> not found, see the job (https://ci.example/j1)",
            "  queue vod",
            "  code",
            "-" * 20,
            "  rule failed · d1",
        ]
