"""The Slack look-alike, through Slack's own client and through plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from bridge.simulator.clicks import Whisper
from bridge.simulator.slack import ALL_SCOPES, DEMO_TOKEN, WEBHOOK, Limits
from bridge.simulator.web import Answer, text_answer
from bridge.simulator.workspace import Channel, Post
from tests.support.strict_slack import StrictSlack

CHANNELS = (
    Channel(id="C1", name="general"),
    Channel(id="C2", name="old", is_archived=True),
    Channel(id="C3", name="elsewhere", is_member=False),
    Channel(id="C4", name="secret", is_private=True),
    Channel(id="C5", name="hidden", is_private=True, is_member=False),
)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.0

    def __call__(self) -> float:
        return self.now


def client(slack: StrictSlack, token: str = DEMO_TOKEN) -> WebClient:
    return WebClient(token=token, base_url=slack.api_url, retry_handlers=[], timeout=10)


def text(said: str, kind: str = "mrkdwn") -> dict[str, str]:
    return {"type": kind, "text": said}


def section(said: str = "hello") -> dict[str, object]:
    return {"type": "section", "text": text(said)}


def button(**more: object) -> dict[str, object]:
    return {"type": "button", "text": text("Open", "plain_text"), "url": "https://bridge.example/jobs/1"} | more


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


def test_an_edit_replaces_the_text_and_without_blocks_removes_them():
    with StrictSlack() as slack:
        ts = client(slack).chat_postMessage(channel="C1", text="one", blocks=[section("1")])["ts"]
        client(slack).api_call("chat.update", json={"channel": "C1", "ts": ts, "blocks": [section("2")]})
        assert [(post.text, post.blocks) for post in slack.posts] == [("one", [section("2")])]
        client(slack).chat_update(channel="C1", ts=ts, text="two")
        (post,) = slack.posts
        with pytest.raises(SlackApiError, match="message_not_found"):
            client(slack).chat_update(channel="C1", ts="1.000001", text="hi")
    assert (post.text, post.blocks) == ("two", [])


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
        ({"blocks": [{"type": "header", "text": text("x" * 151, "plain_text")}]}, "invalid_blocks"),
        ({"blocks": [{"type": "header", "text": text("x")}]}, "invalid_blocks"),
        ({"blocks": [{"type": "actions", "elements": [button()] * 26}]}, "invalid_blocks"),
        ({"blocks": [{"type": "actions", "elements": [button(text=text("x"))]}]}, "invalid_blocks"),
        ({"blocks": [{"type": "actions", "elements": [button(url="javascript:alert(1)")]}]}, "invalid_blocks"),
        ({"blocks": [{"type": "actions", "elements": [button(text=text("x" * 76, "plain_text"))]}]}, "invalid_blocks"),
        (
            {"blocks": [section() | {"accessory": {"type": "image", "image_url": "x", "alt_text": "x"}}]},
            "invalid_blocks",
        ),
        ({"blocks": [{"type": "section", "text": text("x", "plain_text") | {"verbatim": True}}]}, "invalid_blocks"),
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
        [{"type": "header", "text": text("x" * 150, "plain_text")}, {"type": "divider"}],
        [{"type": "actions", "elements": [button(text=text("x" * 75, "plain_text"))] * 25}],
        [section() | {"accessory": button()}],
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


def test_an_edit_may_have_a_tenth_of_the_text():
    with StrictSlack() as slack:
        ts = client(slack).chat_postMessage(channel="C1", text="x" * 40_000)["ts"]
        client(slack).chat_update(channel="C1", ts=ts, text="x" * 4_000)
        with pytest.raises(SlackApiError, match="msg_too_long"):
            client(slack).chat_update(channel="C1", ts=ts, text="x" * 4_001)


# --- channels, tokens, scopes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["C1", "general", "#general"])
def test_a_channel_is_found_by_id_and_name_and_answered_by_id(named: str):
    with StrictSlack(channels=CHANNELS) as slack:
        assert client(slack).chat_postMessage(channel=named, text="hi")["channel"] == "C1"


@pytest.mark.parametrize(
    ("channel", "error"),
    [("C9", "channel_not_found"), ("nowhere", "channel_not_found"), ("C2", "is_archived"), ("C5", "channel_not_found")],
)
def test_a_channel_that_takes_no_messages_says_why(channel: str, error: str):
    with StrictSlack(channels=CHANNELS) as slack:
        assert error_of(slack, channel=channel, text="hi") == error


def test_a_channel_without_the_app_needs_the_scope_for_all_public_ones():
    with StrictSlack(channels=CHANNELS) as slack:
        assert client(slack).chat_postMessage(channel="C3", text="hi")["ok"]
        slack.tokens = {DEMO_TOKEN: frozenset({"chat:write"})}
        assert error_of(slack, channel="C3", text="hi") == "not_in_channel"


def test_edits_and_look_ups_find_a_channel_by_its_id_only():
    with StrictSlack(channels=CHANNELS) as slack:
        ts = client(slack).chat_postMessage(channel="general", text="hi")["ts"]
        for call in (
            lambda: client(slack).chat_update(channel="general", ts=ts, text="hi"),
            lambda: client(slack).conversations_history(channel="general"),
            lambda: client(slack).conversations_info(channel="#general"),
        ):
            with pytest.raises(SlackApiError, match="channel_not_found"):
                call()


def test_a_channel_can_be_archived_while_it_is_in_use():
    with StrictSlack() as slack:
        ts = client(slack).chat_postMessage(channel="C1", text="hi")["ts"]
        slack.workspace.change_channel("C1", is_archived=True)
        assert error_of(slack, text="hi") == "is_archived"
        with pytest.raises(SlackApiError, match="is_inactive"):
            client(slack).chat_update(channel="C1", ts=ts, text="hi")
        assert client(slack).conversations_info(channel="C1")["channel"]["is_archived"]


def test_a_token_can_be_tested_and_every_answer_names_its_scopes():
    with StrictSlack() as slack:
        slack.tokens = {DEMO_TOKEN: frozenset({"chat:write", "channels:history"})}
        assert client(slack).auth_test().headers["x-oauth-scopes"] == "channels:history,chat:write"


@pytest.mark.parametrize(
    ("method", "arguments", "scope"),
    [
        ("chat.postMessage", {"channel": "C1", "text": "hi"}, "chat:write"),
        ("chat.update", {"channel": "C1", "ts": "1.1", "text": "hi"}, "chat:write"),
        ("conversations.history", {"channel": "C1"}, "channels:history"),
        ("conversations.history", {"channel": "C4"}, "groups:history"),
        ("conversations.replies", {"channel": "C1", "ts": "1.1"}, "channels:history"),
        ("conversations.info", {"channel": "C1"}, "channels:read"),
        ("conversations.info", {"channel": "C4"}, "groups:read"),
    ],
)
def test_a_missing_scope_is_named(method: str, arguments: dict[str, str], scope: str):
    with StrictSlack(channels=CHANNELS) as slack:
        slack.tokens = {DEMO_TOKEN: ALL_SCOPES - {scope}}
        with pytest.raises(SlackApiError) as refused:
            client(slack).api_call(method, params=arguments)
    answer = refused.value.response
    assert (answer["error"], answer["needed"]) == ("missing_scope", scope)
    assert scope not in answer["provided"].split(",")


def test_an_app_edits_its_own_messages_only():
    with StrictSlack() as slack:
        slack.tokens["xoxb-other"] = ALL_SCOPES
        ts = client(slack, "xoxb-other").chat_postMessage(channel="C1", text="hi")["ts"]
        with pytest.raises(SlackApiError, match="cant_update_message"):
            client(slack).chat_update(channel="C1", ts=ts, text="mine")


# --- limits -------------------------------------------------------------------------------------------------------


def post(slack: StrictSlack, channel: str = "C1") -> Mapping[str, Any]:
    """Post by hand, and return what came back: status, Retry-After and error."""
    headers = {"Authorization": f"Bearer {DEMO_TOKEN}"}
    said = {"channel": channel, "text": "hi"}
    got = requests.post(f"{slack.api_url}chat.postMessage", json=said, headers=headers, timeout=10)
    return {"status": got.status_code, "after": got.headers.get("Retry-After"), "error": got.json().get("error")}


ACCEPTED = {"status": 200, "after": None, "error": None}


def refused(after: int) -> dict[str, Any]:
    return {"status": 429, "after": str(after), "error": "ratelimited"}


def test_a_channel_takes_a_message_a_second_by_whatever_it_is_called():
    clock = Clock()
    with StrictSlack(channels=CHANNELS, limits=Limits(burst=1), clock=clock) as slack:
        assert post(slack, "C1") == ACCEPTED
        assert [post(slack, named) for named in ("C1", "general", "#general")] == [refused(1)] * 3
        assert post(slack, "secret") == ACCEPTED  # another channel
        clock.now += 1
        assert post(slack, "general") == ACCEPTED
        assert (slack.count("chat.postMessage"), slack.count(outcome="ratelimited")) == (6, 3)
        assert len(slack.posts) == 3


def test_a_burst_is_taken_and_then_as_many_as_in_the_long_run():
    clock = Clock()
    with StrictSlack(limits=Limits(burst=3), clock=clock) as slack:
        assert [post(slack) for _ in range(4)] == [ACCEPTED] * 3 + [refused(1)]
        clock.now += 1
        assert [post(slack), post(slack)] == [ACCEPTED, refused(1)]
        clock.now += 60
        assert [post(slack) for _ in range(4)] == [ACCEPTED] * 3 + [refused(1)]


def test_a_message_a_second_passes_although_the_network_is_uneven():
    clock = Clock()
    began = clock.now
    with StrictSlack(limits=Limits(), clock=clock) as slack:
        for n in range(20):
            clock.now = began + n + (0.3 if n % 2 else 0)
            assert post(slack) == ACCEPTED


@pytest.mark.parametrize("method", ["chat.update", "conversations.history", "conversations.replies"])
def test_a_method_takes_fifty_requests_a_minute_of_a_token(method: str):
    clock = Clock()
    with StrictSlack(limits=Limits(), clock=clock) as slack:
        slack.tokens["xoxb-other"] = ALL_SCOPES
        ts = client(slack).chat_postMessage(channel="C1", text="root")["ts"]
        said = {"channel": "C1", "ts": ts, "text": "x"}

        def calls(count: int, token: str = DEMO_TOKEN) -> int:
            """Return how many of these are not refused for their number."""
            before = slack.count(method, "ratelimited")
            for _ in range(count):
                try:
                    client(slack, token).api_call(method, params=said)
                except SlackApiError as error:
                    last = error.response
            after = slack.count(method, "ratelimited")
            if after > before:
                assert (last.status_code, last["error"]) == (429, "ratelimited")
                assert 1 <= int(last.headers["Retry-After"]) <= 60
            return count - (after - before)

        assert calls(30) == 30
        clock.now += 40
        assert calls(25) == 20
        assert calls(3, "xoxb-other") == 3  # not counted together
        clock.now += 20
        assert calls(31) == 30  # the first thirty were a minute ago


def test_three_hundred_requests_at_once_are_served():
    with StrictSlack() as slack, ThreadPoolExecutor(300) as pool:
        slack.spoil = lambda _, answer: replace(answer, delay_s=0.5)
        found = list(pool.map(lambda _: post(slack), range(300)))
        assert found == [ACCEPTED] * 300
        assert len({one.ts for one in slack.posts}) == 300


# --- threads, and people who delete -------------------------------------------------------------------------------


def test_a_reply_to_a_reply_is_in_the_thread_of_its_root():
    with StrictSlack() as slack:
        root = client(slack).chat_postMessage(channel="C1", text="root")["ts"]
        reply = client(slack).chat_postMessage(channel="C1", text="reply", thread_ts=root)["ts"]
        said = client(slack).chat_postMessage(channel="C1", text="under it", thread_ts=reply)
    assert said["message"]["thread_ts"] == root


def test_a_reply_to_a_deleted_root_is_posted_outside_of_the_thread():
    with StrictSlack() as slack:
        root = client(slack).chat_postMessage(channel="C1", text="root")["ts"]
        slack.workspace.delete(slack.posts[0])
        assert slack.posts == []
        said = client(slack).chat_postMessage(channel="C1", text="reply", thread_ts=root)
        assert "thread_ts" not in said["message"]
        with pytest.raises(SlackApiError, match="message_not_found"):
            client(slack).chat_update(channel="C1", ts=root, text="x")
        assert [post.text for post in slack.posts] == ["reply"]


def test_what_a_message_showed_can_be_asked_for_each_time():
    clock = Clock()
    began = clock.now
    with StrictSlack(clock=clock) as slack:
        ts = client(slack).chat_postMessage(channel="C1", text="Submitted")["ts"]
        for state in ("Running", "Success"):
            clock.now += 10
            client(slack).chat_update(channel="C1", ts=ts, text=state)
        clock.now += 10
        slack.workspace.delete(slack.posts[0])
        (post,) = slack.workspace.posts
    shown = [post.shown_at(began + after) for after in (-1, 0, 9, 10, 25, 30)]
    assert [version and version.text for version in shown] == [
        None, "Submitted", "Submitted", "Running", "Success", None,
    ]  # fmt: skip
    assert (len(post.edits), post.deleted_at) == (2, began + 30)


# --- reading ------------------------------------------------------------------------------------------------------


def texts(answer: Any) -> list[str]:
    return [message["text"] for message in answer["messages"]]


def test_the_history_is_newest_first_without_replies():
    with StrictSlack() as slack:
        web = client(slack)
        root = web.chat_postMessage(channel="C1", text="root")["ts"]
        web.chat_postMessage(channel="C1", text="reply", thread_ts=root)
        web.chat_postMessage(channel="C1", text="for all", thread_ts=root, reply_broadcast=True)
        web.chat_postMessage(channel="C2", text="elsewhere")
        web.chat_postMessage(channel="C1", text="last")
        found = web.conversations_history(channel="C1")
        assert texts(found) == ["last", "for all", "root"]
        assert found["has_more"] is False
        assert (found["messages"][2]["thread_ts"], found["messages"][2]["reply_count"]) == (root, 2)
        assert texts(web.conversations_replies(channel="C1", ts=root)) == ["root", "reply", "for all"]


def test_metadata_is_shown_if_it_is_asked_for():
    metadata = {"event_type": "delivery", "event_payload": {"id": "d1"}}
    with StrictSlack() as slack:
        web = client(slack)
        ts = web.chat_postMessage(channel="C1", text="hi", metadata=metadata)["ts"]
        web.chat_update(channel="C1", ts=ts, text="there")  # which leaves it
        for read in (web.conversations_history, lambda **said: web.conversations_replies(ts=ts, **said)):
            assert "metadata" not in read(channel="C1")["messages"][0]
            assert read(channel="C1", include_all_metadata=True)["messages"][0]["metadata"] == metadata


def test_a_page_ends_at_its_limit_and_the_cursor_leads_to_the_next():
    with StrictSlack() as slack:
        web = client(slack)
        stamps = [web.chat_postMessage(channel="C1", text=str(n))["ts"] for n in range(5)]
        first = web.conversations_history(channel="C1", limit=2)
        assert (texts(first), first["has_more"]) == (["4", "3"], True)
        web.chat_postMessage(channel="C1", text="meanwhile")
        more = web.conversations_history(channel="C1", limit=2, cursor=first["response_metadata"]["next_cursor"])
        assert texts(more) == ["2", "1"]
        slack.workspace.page_cap = 1  # fewer than asked for, although there are more
        assert texts(web.conversations_history(channel="C1", latest=stamps[3])) == ["2"]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"oldest": 1}, ["4", "3", "2"]),
        ({"oldest": 1, "inclusive": True}, ["4", "3", "2", "1"]),
        ({"latest": 3}, ["2", "1", "0"]),
        ({"latest": 3, "inclusive": True}, ["3", "2", "1", "0"]),
        ({"oldest": 1, "latest": 3}, ["2"]),
        ({"oldest": 2, "latest": 2, "inclusive": True, "limit": 1}, ["2"]),
    ],
)
def test_a_time_bounds_the_history(said: dict[str, Any], found: list[str]):
    with StrictSlack() as slack:
        web = client(slack)
        stamps = [web.chat_postMessage(channel="C1", text=str(n))["ts"] for n in range(5)]
        bounds = {name: stamps[value] if name in ("oldest", "latest") else value for name, value in said.items()}
        assert texts(web.conversations_history(channel="C1", **bounds)) == found


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"oldest": "yesterday"}, "invalid_ts_oldest"), ({"latest": "1.2.3"}, "invalid_ts_latest"),
        ({"limit": "1000"}, "invalid_limit"), ({"limit": "-1"}, "invalid_limit"), ({"cursor": "x"}, "invalid_cursor"),
    ],
)  # fmt: skip
def test_a_wrong_bound_is_refused(said: dict[str, str], error: str):
    with StrictSlack() as slack, pytest.raises(SlackApiError, match=error):
        client(slack).conversations_history(channel="C1", **said)


def test_arguments_in_json_are_not_read_where_nothing_is_written():
    with StrictSlack() as slack:
        client(slack).chat_postMessage(channel="C1", text="hi")
        with pytest.raises(SlackApiError, match="channel_not_found"):
            client(slack).api_call("conversations.history", json={"channel": "C1"})


def test_a_deleted_root_stays_as_a_tombstone_while_it_has_replies():
    with StrictSlack() as slack:
        web = client(slack)
        root = web.chat_postMessage(channel="C1", text="root")["ts"]
        reply = web.chat_postMessage(channel="C1", text="reply", thread_ts=root)["ts"]
        slack.workspace.delete(slack.posts[0])
        assert web.conversations_history(channel="C1")["messages"][0]["subtype"] == "tombstone"
        assert texts(web.conversations_replies(channel="C1", ts=root)) == ["This message was deleted.", "reply"]
        slack.workspace.delete(slack.posts[0])
        assert web.conversations_history(channel="C1")["messages"] == []
        for ts in (root, reply, "1.000001"):
            with pytest.raises(SlackApiError, match="thread_not_found"):
                web.conversations_replies(channel="C1", ts=ts)


# --- mishaps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [Answer(hang_up=True), text_answer("<html>sign in</html>"), text_answer("oh", status=500), Answer(status=503)],
    ids=["nothing", "HTML", "500", "503"],
)
def test_a_message_can_be_posted_although_the_answer_says_nothing_of_it(answer: Answer):
    with StrictSlack() as slack:
        slack.spoil = lambda _, __: answer
        with suppress(requests.ConnectionError, requests.JSONDecodeError):
            post(slack)
        assert [post.text for post in slack.posts] == ["hi"]
        assert slack.count("chat.postMessage", "ok") == 1


def test_an_answer_or_the_message_itself_can_be_late():
    with StrictSlack() as slack:
        slack.spoil = lambda _, answer: replace(answer, delay_s=3600)
        with pytest.raises(requests.Timeout):
            requests.post(slack.hook_url("C1"), json={"text": "answered late"}, timeout=0.5)
        slack.late_s = lambda _: 3600
        with pytest.raises(requests.Timeout):
            requests.post(slack.hook_url("C1"), json={"text": "posted late"}, timeout=0.5)
        assert [post.text for post in slack.posts] == ["answered late"]


# --- incoming webhooks --------------------------------------------------------------------------------------------


def hooked(slack: StrictSlack, said: Any, channel: str = "C1") -> tuple[int, str]:
    got = requests.post(slack.hook_url(channel), json=said, timeout=10)
    return got.status_code, got.text


def test_an_incoming_webhook_posts_to_its_channel():
    with StrictSlack(channels=CHANNELS) as slack:
        assert hooked(slack, {"text": "hi", "blocks": [section()]}) == (200, "ok")
        assert [(post.channel, post.text, post.blocks) for post in slack.posts] == [("C1", "hi", [section()])]
        assert slack.count(WEBHOOK, "ok") == 1


@pytest.mark.parametrize(
    ("channel", "said", "refusal"),
    [
        ("C9", {"text": "hi"}, (404, "no_service")),
        ("C2", {"text": "hi"}, (410, "channel_is_archived")),
        ("C1", {}, (400, "no_text")),
        ("C1", {"blocks": [{"type": "sektion"}]}, (400, "invalid_blocks")),
        ("C1", [], (400, "json_not_object")),
    ],
)
def test_an_incoming_webhook_says_why_it_refuses(channel: str, said: Any, refusal: tuple[int, str]):
    with StrictSlack(channels=CHANNELS) as slack:
        assert hooked(slack, said, channel) == refusal
        assert slack.posts == []


def test_each_incoming_webhook_has_a_limit():
    clock = Clock()
    with StrictSlack(limits=Limits(burst=1), clock=clock) as slack:
        assert hooked(slack, {"text": "hi"}) == (200, "ok")
        assert hooked(slack, {"text": "hi"}) == (429, "rate_limited")
        assert hooked(slack, {"text": "hi"}, "C2") == (200, "ok")
        clock.now += 1
        assert hooked(slack, {"text": "hi"}) == (200, "ok")


# --- clicks ---------------------------------------------------------------------------------------------------------


def clicked(slack: StrictSlack) -> tuple[Post, str]:
    """Let a user click on the button of a message; return the message, and the URL for answers."""
    button = {"type": "button", "text": {"type": "plain_text", "text": "Go"}, "action_id": "go", "value": "1"}
    message = slack.workspace.post(
        slack.workspace.channel("C1"), "U1", "hi", [{"type": "actions", "elements": [button]}]
    )
    payload = json.loads(dict(parse_qsl(slack.click_body(message, "go").decode()))["payload"])
    assert payload["actions"][0]["value"] == "1"
    return message, payload["response_url"]


def test_an_answer_to_a_click_is_seen_by_one_or_by_all_or_replaces_the_message():
    with StrictSlack(channels=CHANNELS) as slack:
        message, url = clicked(slack)
        for answer in (
            {"text": "only you"},
            {"response_type": "in_channel", "replace_original": False, "text": "all", "thread_ts": message.ts},
            {"replace_original": True, "text": "gone"},
        ):
            assert requests.post(url, json=answer, timeout=10).status_code == 200
        assert slack.whispers == [Whisper(user="U024BE7LH", text="only you")]
        assert [(post.text, post.thread_ts) for post in slack.posts] == [("gone", None), ("all", message.ts)]


def test_a_click_can_be_answered_five_times_within_half_an_hour():
    clock = Clock()
    with StrictSlack(channels=CHANNELS, clock=clock) as slack:
        (_, url), (_, other) = clicked(slack), clicked(slack)
        assert [requests.post(url, json={"text": "x"}, timeout=10).status_code for _ in range(6)] == [200] * 5 + [404]
        clock.now += 30 * 60 + 1
        assert requests.post(other, json={"text": "x"}, timeout=10).json()["error"] == "expired_url"
        assert requests.post(f"{slack.url}/actions/none", json={"text": "x"}, timeout=10).status_code == 404


def test_only_a_button_that_is_there_can_be_clicked():
    with StrictSlack(channels=CHANNELS) as slack:
        message, _ = clicked(slack)
        with pytest.raises(LookupError, match=r"no button stop, only \['go'\]"):
            slack.click(message, "stop")
