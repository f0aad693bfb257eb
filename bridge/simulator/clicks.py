"""Clicks on buttons of the Slack look-alike: what Slack posts to an app, and where that posts its answers.

Written from docs.slack.dev: reference/interaction-payloads/block_actions-payload,
authentication/verifying-requests-from-slack and interactivity/handling-user-interaction; read 2026-12-01.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from bridge.simulator.workspace import Post, SlackError, Workspace, message_of

APP, TEAM = "A000", "T000"
SIGNING_SECRET = "simulated-signing-secret"  # noqa: S105 - opens nothing but what trusts this look-alike
_TIMEOUT_S = 15.0
_MOST_ANSWERS, _ANSWERED_FOR_S = 5, 30 * 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who clicks."""

    id: str = "U024BE7LH"
    name: str = "ann"


ANN = User()


@dataclass(frozen=True, slots=True, kw_only=True)
class Whisper:
    """An ephemeral message: only this user sees it."""

    user: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _AnswerTo:
    """A response_url that was given out."""

    user: str
    post: Post
    given_at: float
    left: int = _MOST_ANSWERS


def button_in(post: Post, action_id: str) -> Mapping[str, Any]:
    """Return the button of a message. Raises LookupError."""
    elements = [one for block in post.blocks if block["type"] == "actions" for one in block["elements"]]
    found = [one for one in elements if one.get("action_id") == action_id]
    if not found:
        raise LookupError(f"the message has no button {action_id}, only {[one.get('action_id') for one in elements]}")
    return dict(found[0])


def payload_of(
    post: Post, button: Mapping[str, Any], *, user: User, team: str, response_url: str, at: float
) -> dict[str, Any]:
    """Return what Slack says of a click."""
    blocks = [{"block_id": f"b{n}", **block} for n, block in enumerate(post.blocks)]
    return {
        "type": "block_actions",
        "user": {"id": user.id, "username": user.name, "name": user.name, "team_id": team},
        "api_app_id": APP,
        "token": "deprecated",
        "container": {
            "type": "message", "message_ts": post.ts, "channel_id": post.channel, "is_ephemeral": False,
        },
        "trigger_id": "12321423423.333649436676.d8c1bb837935619ccad0f624c448ffb3",
        "team": {"id": team, "domain": "simulated"},
        "enterprise": None,
        "is_enterprise_install": False,
        "channel": {"id": post.channel, "name": post.channel.lower()},
        "message": {**message_of(post), "blocks": blocks},
        "state": {"values": {}},
        "response_url": response_url,
        "actions": [{**button, "block_id": "b1", "action_ts": f"{at:.6f}"}],
    }  # fmt: skip


def signed(body: bytes, secret: str, at: float) -> dict[str, str]:
    """Return the headers of a body that Slack signs at a time."""
    timestamp = str(int(at))
    digest = hmac.new(secret.encode(), b"v0:%s:%s" % (timestamp.encode(), body), hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": timestamp,
        "X-Slack-Signature": f"v0={digest}",
    }


def form(payload: Mapping[str, Any]) -> bytes:
    return urlencode({"payload": json.dumps(payload)}).encode()


def post_to(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Post to the app, without TLS; return the status of its answer."""
    to = urlsplit(url)
    with closing(http.client.HTTPConnection(to.hostname or "", to.port, timeout=_TIMEOUT_S)) as connection:
        connection.request("POST", to.path, body, dict(headers))
        return connection.getresponse().status


class Answers:
    """What apps post to response_urls. Any thread may use it."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._open: dict[str, _AnswerTo] = {}
        self._lock = threading.Lock()
        self.whispers: list[Whisper] = []

    def begin(self, post: Post, user: User, at: float) -> str:
        """Return the last part of a new response_url."""
        with self._lock:
            name = f"{len(self._open) + 1}"
            self._open[name] = _AnswerTo(user=user.id, post=post, given_at=at)
        return name

    def take(self, name: str, content: Mapping[str, Any], at: float) -> None:
        """Do what an answer asks for. Raises SlackError; the codes were seen, and are in no document."""
        with self._lock:
            to = self._open.get(name)
            if to is None or at - to.given_at > _ANSWERED_FOR_S:
                raise SlackError("expired_url")
            if not to.left:
                raise SlackError("used_url")
            self._open[name] = replace(to, left=to.left - 1)
            self._show(to, content)

    def _show(self, to: _AnswerTo, content: Mapping[str, Any]) -> None:
        text, blocks = str(content.get("text") or ""), content.get("blocks")
        channel = self._workspace.channel(to.post.channel)
        if content.get("replace_original") is True:
            self._workspace.edit(channel, to.post.ts, to.post.author, text, blocks)
        elif content.get("response_type") == "in_channel":
            self._workspace.post(channel, to.post.author, text, blocks or [], thread_ts=content.get("thread_ts"))
        else:
            self.whispers.append(Whisper(user=to.user, text=text))
