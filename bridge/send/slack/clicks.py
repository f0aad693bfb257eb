"""Clicks on buttons, as Slack sends them: whose they are, and what is answered where they came from. Pure.

docs.slack.dev: reference/interaction-payloads/block_actions-payload, interactivity/handling-user-interaction and
authentication/verifying-requests-from-slack; read 2026-12-01.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from slack_sdk.signature import Clock, SignatureVerifier

from bridge import shallow_json
from bridge.display import visible
from bridge.send.chat import pieces
from bridge.send.slack.blocks import Block, mrkdwn
from bridge.send.slack.buttons import Button
from bridge.url import encoded, origin

# A click repeats its message. That has at most 12,000 characters (`blocks.py`), its notification's text included, of
# which each may be written as "\uXXXX", which takes 8 bytes of a form: some 100 kB, and Slack's own facts.
CLICK_LIMIT = 256 * 1024  # bytes
_LONGEST_NAME = 60  # characters of a person's name
_LONGEST_SAID = 2_000
_MOST_FIELDS = 20  # of the form
_ID = re.compile(r"[A-Z][A-Z0-9]{1,30}")
_TS = re.compile(r"\d{1,12}\.\d{1,6}")
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


class UnreadableClick(ValueError):
    """What came is no click on a button; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who clicked, as Slack names them. `id` is what they are known by."""

    id: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.id})" if self.name else self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """A person in the workspace `team` clicked on a button of a message. `answer_to` takes answers, for half an hour.

    `ts` and `thread_ts` are the message's, and empty where it does not say.
    """

    team: str
    person: Person
    action_id: str
    value: str = field(repr=False)
    answer_to: str | None = field(default=None, repr=False)  # whoever knows it can post there
    channel: str = ""
    ts: str = ""
    thread_ts: str = ""
    text: str = field(default="", repr=False)
    blocks: Sequence[Block] = field(default=(), repr=False)


# --- who sent it ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _At(Clock):
    time: datetime

    def now(self) -> float:
        return self.time.timestamp()


def signed_with(
    secrets: Collection[str], body: bytes, *, timestamp: str, signature: str, now: datetime
) -> frozenset[str]:
    """Return those of the secrets that a body was signed with, less than five minutes ago (or ahead) of `now`.

    `timestamp` and `signature` are the headers X-Slack-Request-Timestamp and X-Slack-Signature.
    """
    # The SDK takes none of these: it would raise an exception.
    if not _SECONDS.fullmatch(timestamp) or not signature.isascii() or not _is_utf8(body):
        return frozenset()
    clock = _At(now)
    # All are tried, so that the time taken reveals nothing.
    tried = [(secret, SignatureVerifier(secret, clock).is_valid(body, timestamp, signature)) for secret in secrets]
    return frozenset(secret for secret, is_valid in tried if is_valid)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- what it says ---------------------------------------------------------------------------------------------------


def read_click(body: bytes) -> Click:
    """Return the click in the form that Slack sends. Raises UnreadableClick."""
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise UnreadableClick("the body is not a form with the field payload") from None
    payloads = [value for name, value in fields if name == "payload"]
    if len(payloads) != 1:
        raise UnreadableClick(f"the form has the field payload {len(payloads)} times; Slack sends it once")
    try:
        payload = shallow_json.loads(payloads[0])
    except ValueError as error:
        raise UnreadableClick(f"payload is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise UnreadableClick("payload is not a JSON object")
    return _click(payload)


def _click(payload: Mapping[str, Any]) -> Click:
    kind = payload.get("type")
    if kind != "block_actions":
        raise UnreadableClick("the payload's type is not block_actions: only buttons of messages are taken")
    action, user, message = _first(payload.get("actions")), _object(payload, "user"), _object(payload, "message")
    answer_to = payload.get("response_url")
    return Click(
        team=_id(_object(payload, "team"), "team.id"),
        person=Person(id=_id(user, "user.id"), name=_name(user)),
        action_id=_text(action, "action_id"),
        value=_text(action, "value"),
        answer_to=answer_to if isinstance(answer_to, str) else None,
        channel=_channel(_object(payload, "channel")),
        ts=_ts(message, "ts"),
        thread_ts=_ts(message, "thread_ts"),
        text=_text(message, "text"),
        blocks=_blocks(message),
    )


def _channel(found: Mapping[str, Any]) -> str:
    id_ = _text(found, "id")
    return id_ if _ID.fullmatch(id_) else ""


def _first(actions: object) -> Mapping[str, Any]:
    match actions:
        case [dict(action)]:
            return action
    raise UnreadableClick("the payload's actions are not a list of one: a click is on one button")


def _object(payload: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = payload.get(key)
    return found if isinstance(found, dict) else {}


def _blocks(message: Mapping[str, Any]) -> Sequence[Block]:
    blocks = message.get("blocks")
    return [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []


def _id(found: Mapping[str, Any], what: str) -> str:
    id_ = found.get("id")
    if not isinstance(id_, str) or not _ID.fullmatch(id_):
        raise UnreadableClick(f"the payload has no {what}, such as U024BE7LH")
    return id_


def _text(found: Mapping[str, Any], key: str) -> str:
    text = found.get(key)
    return text if isinstance(text, str) else ""


def _ts(found: Mapping[str, Any], key: str) -> str:
    text = _text(found, key)
    return text if _TS.fullmatch(text) else ""


def _name(user: Mapping[str, Any]) -> str:
    """Return a name that a list, a page and a terminal can show."""
    name = _text(user, "username") or _text(user, "name")
    shown = "".join(sign if sign.isprintable() else " " for sign in visible(name))
    return " ".join(shown.split())[:_LONGEST_NAME]


# --- what is answered -----------------------------------------------------------------------------------------------


def may_answer(url: str, slack_api_url: str) -> bool:
    """Tell whether Slack can have said that answers go there: to its host, or "hooks." before that.

    hooks.slack.com belongs to https://slack.com/api/, and hooks.slack-gov.com to https://slack-gov.com/api/.
    """
    try:
        there = origin(encoded(url))
    except ValueError:
        return False
    scheme, _, host = (origin(slack_api_url) or "").partition("://")
    return there in (f"{scheme}://{host}", f"{scheme}://hooks.{host}")


def to_person(text: str) -> dict[str, Any]:
    """Return the answer that only who clicked sees."""
    return {"response_type": "ephemeral", "replace_original": False, "text": _mrkdwn(text)}


def to_all(click: Click, button: Button, text: str) -> dict[str, Any]:
    """Return the answer that makes the message say `text` in place of the button.

    A message that the bridge edits gets a reply instead: what the click repeats of it may be older than its last edit.
    """
    if button.is_edited:
        thread = click.thread_ts or click.ts
        content = {"response_type": "in_channel", "replace_original": False, "text": _mrkdwn(text)}
        return content | ({"thread_ts": thread} if thread else {})
    said: Block = {"type": "context", "elements": [{"type": "mrkdwn", "text": _mrkdwn(text), "verbatim": True}]}
    return {"replace_original": True, "text": click.text, "blocks": [*_without(click, said)]}


def _without(click: Click, said: Block) -> Sequence[Block]:
    """Return the blocks of the message with `said` instead of the button, and other buttons as they were."""
    made, is_said = list[Block](), False
    for block in click.blocks:
        # One that was changed needs another id (docs.slack.dev/reference/block-kit/blocks/actions-block).
        block = {key: value for key, value in block.items() if key != "block_id"}
        elements = block.get("elements")
        if block.get("type") != "actions" or not isinstance(elements, list):
            made.append(block)
            continue
        left = [one for one in elements if not (isinstance(one, dict) and one.get("action_id") == click.action_id)]
        made += [said] if len(left) < len(elements) and not is_said else []
        is_said = is_said or len(left) < len(elements)
        made += [block | {"elements": left}] if left else []
    return made if is_said else [*made, said]


def _mrkdwn(text: str) -> str:
    return mrkdwn(pieces(text), _LONGEST_SAID)
