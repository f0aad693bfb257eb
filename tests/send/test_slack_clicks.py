"""Clicks: who signed them, what they say, and where and how they are answered."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.send.slack.buttons import Button, Deed, read_button
from bridge.send.slack.clicks import (
    Click,
    Person,
    UnreadableClick,
    may_answer,
    read_click,
    signed_with,
    to_all,
    to_person,
)
from bridge.simulator.clicks import form, signed
from tests.support.receivers import NOON
from tests.support.strict_slack import refusal_of

BUTTON = Button(deed=Deed.SILENCE, notifier="ops", target="failed")
OTHER = Button(deed=Deed.POLL, notifier="ops", target="vod")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("type", "user", "team", "channel", "message", "actions", "response_url")
PAYLOAD: dict[str, Any] = {
    "type": "block_actions",
    "user": {"id": "U024BE7LH", "username": "ann", "name": "ann"},
    "team": {"id": "T024BE91L"},
    "channel": {"id": "C024BE91L"},
    "message": {"ts": "1.5", "text": "It failed", "blocks": []},
    "actions": [BUTTON.element()],
    "response_url": "https://hooks.slack.com/actions/x",
}  # fmt: skip


def a_click(*blocks: dict[str, Any], **facts: Any) -> Click:
    usual = {"team": "T1", "person": Person(id="U1", name="ann"), "action_id": "silence", "value": ""}
    return Click(**{**usual, "ts": "1.5", "text": "It failed", "blocks": blocks, **facts})


# --- who signed it --------------------------------------------------------------------------------------------------


def signers(body: bytes = b"payload=x", *, at: float | None = None, **changes: str) -> frozenset[str]:
    headers = signed(b"payload=x", "mine", NOON.timestamp() if at is None else at)
    facts = {"timestamp": headers["X-Slack-Request-Timestamp"], "signature": headers["X-Slack-Signature"], **changes}
    return signed_with(["mine", "other"], body, now=NOON, **facts)


def test_the_secret_that_signed_is_found_among_several() -> None:
    assert signers() == {"mine"}
    assert signers(b"payload=y") == frozenset()


def test_the_example_of_slacks_documentation_is_right() -> None:
    """docs.slack.dev/authentication/verifying-requests-from-slack, read 2026-12-01."""
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    secret, at = "8f742231b10e8888abcd99yyyzzz85a5", NOON.fromtimestamp(1531420618, NOON.tzinfo)
    signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    assert signed_with([secret], body, timestamp="1531420618", signature=signature, now=at) == {secret}


@given(timestamp=st.text(max_size=20), signature=st.text(max_size=80), body=st.binary(max_size=50))
def test_nothing_that_is_sent_as_a_signature_is_a_fault(timestamp: str, signature: str, body: bytes) -> None:
    assert signed_with(["mine"], body, timestamp=timestamp, signature=signature, now=NOON) == frozenset()


# --- what it says ---------------------------------------------------------------------------------------------------


def test_a_click_says_who_where_and_what() -> None:
    click = read_click(form(PAYLOAD))
    assert (click.team, str(click.person), click.channel, click.ts) == (
        "T024BE91L", "ann (U024BE7LH)", "C024BE91L", "1.5",
    )  # fmt: skip
    assert read_button(click.action_id, click.value) == BUTTON


def test_the_address_for_answers_and_the_message_are_not_shown() -> None:
    shown = repr(read_click(form(PAYLOAD)))
    assert "hooks.slack.com" not in shown
    assert "It failed" not in shown


@given(st.binary(max_size=300))
def test_whatever_is_sent_is_a_click_or_unreadable(body: bytes) -> None:
    for sent in (body, b"payload=" + body):
        with pytest.raises(UnreadableClick):
            read_click(sent)


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
def test_whatever_a_payload_has_is_a_click_or_unreadable(changes: dict[str, Any]) -> None:
    sent = urlencode({"payload": json.dumps(PAYLOAD | changes)}).encode()
    try:
        click = read_click(sent)
    except UnreadableClick:
        return
    assert str(click.person).isprintable()
    assert refusal_of("x", to_all(click, BUTTON, "done")["blocks"][-1:]) is None


@given(JSON, st.text(max_size=20))
def test_whatever_a_button_has_is_known_or_not(value: Any, action_id: str) -> None:
    for action in (action_id, "silence"):
        found = read_button(action, json.dumps(value))
        assert found is None or found.notifier.isprintable()


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "api", "expected"),
    [
        ("https://hooks.slack.com/actions/T1/2/x", "https://slack.com/api/", True),
        ("https://HOOKS.slack.com/actions/T1/2/x", "https://slack.com/api/", True),
        ("https://hooks.slack-gov.com/actions/x", "https://slack-gov.com/api/", True),
        ("http://127.0.0.1:9/actions/1", "http://127.0.0.1:9/api/", True),
        ("http://hooks.slack.com/actions/x", "https://slack.com/api/", False),
        ("https://hooks.slack.com:444/actions/x", "https://slack.com/api/", False),
        ("https://hooks.slack.com.example.com/x", "https://slack.com/api/", False),
        ("https://hooks.slack.com@example.com/x", "https://slack.com/api/", False),
        ("https://example.com/hooks.slack.com", "https://slack.com/api/", False),
        ("https://hooks.slack.com\\@example.com/", "https://slack.com/api/", False),
        ("https://files.slack.com/x", "https://slack.com/api/", False),
        ("http://169.254.169.254/", "https://slack.com/api/", False),
        ("https://hooks.slack.com/x", "http://127.0.0.1:9/api/", False),
        ("http://127.0.0.1:8/x", "http://127.0.0.1:9/api/", False),
        ("", "https://slack.com/api/", False),
        ("https://[", "https://slack.com/api/", False),
    ],
)
def test_answers_go_to_slacks_own_host(url: str, api: str, expected: bool) -> None:
    assert may_answer(url, api) is expected


def test_in_place_of_the_button_the_message_says_what_was_done() -> None:
    section = {"type": "section", "block_id": "b0", "text": {"type": "mrkdwn", "text": "It failed"}}
    buttons = {"type": "actions", "block_id": "b1", "elements": [BUTTON.element(), OTHER.element()]}
    last = {"type": "context", "elements": [{"type": "mrkdwn", "text": "failed"}]}

    content = to_all(a_click(section, buttons, last), BUTTON, "silenced by <@U1> until 2026-11-21T13:00:00Z")

    said = "silenced by &lt;@U1&gt; until <!date^1795266000^{date_short_pretty} {time}|2026-11-21 13:00 UTC>"
    assert content == {
        "replace_original": True,
        "text": "It failed",
        "blocks": [
            {"type": "section", "text": section["text"]},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": said, "verbatim": True}]},
            {"type": "actions", "elements": [OTHER.element()]},
            last,
        ],
    }
    assert refusal_of(content["text"], content["blocks"], edit=True) is None


def test_a_message_whose_button_is_gone_says_it_at_its_end() -> None:
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "It failed"}}
    assert [block["type"] for block in to_all(a_click(section), BUTTON, "done")["blocks"]] == ["section", "context"]


@pytest.mark.parametrize(("thread_ts", "expected"), [("", "1.5"), ("1.2", "1.2")])
def test_a_message_that_the_bridge_edits_gets_a_reply(thread_ts: str, expected: str) -> None:
    content = to_all(a_click(thread_ts=thread_ts), replace(BUTTON, is_edited=True), "done")
    assert content == {
        "response_type": "in_channel", "replace_original": False, "text": "done", "thread_ts": expected,
    }  # fmt: skip


def test_what_one_person_is_told_mentions_nobody() -> None:
    assert to_person("no rule <!channel> & so") == {
        "response_type": "ephemeral", "replace_original": False, "text": "no rule &lt;!channel&gt; &amp; so",
    }  # fmt: skip


def test_a_click_of_an_hour_ago_is_not_signed_now() -> None:
    assert signers(at=(NOON - timedelta(hours=1)).timestamp()) == frozenset()
