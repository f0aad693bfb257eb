"""A look-alike of the Slack methods that a notifier calls: it checks the token, and keeps posts and threads."""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from bridge.simulator.web import Answer, Request, WebServer, json_answer

DEMO_TOKEN = "xoxb-simulator"  # noqa: S105 - opens nothing but this look-alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A message as it is now."""

    channel: str
    ts: str
    thread_ts: str | None
    text: str
    blocks: list[dict[str, Any]]
    metadata: dict[str, Any] | None
    at: float


class SlackError(Exception):
    """A refusal; the text is Slack's error word."""


class SlackLookAlike(WebServer):
    """Speaks `chat.postMessage`, `chat.update` and `auth.test`; `fault` may answer first."""

    def __init__(self) -> None:
        super().__init__()
        self._posts: dict[tuple[str, str], Post] = {}
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/"

    @property
    def posts(self) -> list[Post]:
        with self._lock:
            return list(self._posts.values())

    def refusal_of(self, text: str, blocks: list[dict[str, Any]]) -> str | None:
        """Return the error word for a message, None if it is accepted."""
        return None if text or blocks else "no_text"

    def respond(self, request: Request) -> Answer:
        methods = {
            "/api/chat.postMessage": self._post_message,
            "/api/chat.update": self._update,
            "/api/auth.test": self._auth_test,
        }
        method = methods.get(request.path)
        if method is None:
            return json_answer({"ok": False, "error": "unknown_method"})
        try:
            _check_token(request)
            with self._lock:
                return json_answer({"ok": True, **method(_arguments(request))})
        except SlackError as error:
            return json_answer({"ok": False, "error": str(error)})

    def _post_message(self, arguments: dict[str, Any]) -> dict[str, Any]:
        channel = self._channel(arguments)
        text, blocks, metadata = self._content(arguments)
        # Ten digits and six: unique and increasing, whatever the clock does.
        ts = f"{1_700_000_000 + (number := next(self._count))}.{number:06d}"
        thread_ts = self._thread_of(channel, arguments.get("thread_ts"))
        self._posts[channel, ts] = Post(
            channel=channel, ts=ts, thread_ts=thread_ts, text=text, blocks=blocks, metadata=metadata, at=self.now()
        )
        message = {"type": "message", "text": text, "ts": ts, "blocks": blocks}
        return {"channel": channel, "ts": ts, "message": message | ({"thread_ts": thread_ts} if thread_ts else {})}

    def _thread_of(self, channel: str, root: str | None) -> str | None:
        # Slack itself silently accepts any thread_ts. Here an unknown one is a mistake of the caller.
        if root and (channel, root) not in self._posts:
            raise SlackError("thread_not_found")
        return root or None

    def _update(self, arguments: dict[str, Any]) -> dict[str, Any]:
        old = self._posts.get((self._channel(arguments), str(arguments.get("ts"))))
        if old is None:
            raise SlackError("message_not_found")
        text, blocks, metadata = self._content(arguments)
        self._posts[old.channel, old.ts] = replace(
            old,
            text=text or old.text,
            blocks=blocks if "blocks" in arguments else old.blocks,  # without new ones the old ones stay
            metadata=metadata or old.metadata,
            at=self.now(),
        )
        return {"channel": old.channel, "ts": old.ts, "text": text}

    def _auth_test(self, _: dict[str, Any]) -> dict[str, Any]:
        names = {"team": "Simulated", "user": "ci-bridge", "team_id": "T000", "user_id": "U000", "bot_id": "B000"}
        return {"url": f"{self.url}/", **names}

    def _channel(self, arguments: dict[str, Any]) -> str:
        channel = str(arguments.get("channel") or "")
        if not channel:
            raise SlackError("channel_not_found")
        return channel

    def _content(self, arguments: dict[str, Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any] | None]:
        text, blocks, metadata = arguments.get("text") or "", arguments.get("blocks") or [], arguments.get("metadata")
        if error := self.refusal_of(text, blocks):
            raise SlackError(error)
        if metadata is not None and not {"event_type", "event_payload"} <= set(metadata):
            raise SlackError("invalid_metadata_format")
        return text, blocks, metadata


def _check_token(request: Request) -> None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        raise SlackError("not_authed")
    if token != DEMO_TOKEN:
        raise SlackError("invalid_auth")


def _arguments(request: Request) -> dict[str, Any]:
    """Return the arguments of a JSON body or of a form."""
    if "json" not in request.headers.get("content-type", ""):
        return dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    try:
        arguments = json.loads(request.body or b"{}")
    except ValueError:
        raise SlackError("invalid_json") from None
    if not isinstance(arguments, dict):
        raise SlackError("json_not_object")
    return arguments
