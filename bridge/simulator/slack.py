"""A look-alike of the parts of Slack that a notifier talks to; it keeps Slack's limits and its manners."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from bridge.simulator.slack_limits import fault_of
from bridge.simulator.slack_text import render
from bridge.simulator.web import Answer, Request, WebServer, json_answer, text_answer

DEMO_TOKEN = "xoxb-simulator"  # noqa: S105 - opens nothing but this look-alike
DEMO_HOOK = "/services/T000/B000/XXXX"
DEMO_CHANNEL = "C0SIMULATOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A message as it stands now; `edits` are the posts it was before, oldest first."""

    channel: str
    ts: str
    thread_ts: str | None
    text: str
    blocks: list[dict[str, Any]]
    metadata: dict[str, Any] | None
    hook: bool
    at: float
    edits: tuple[Post, ...] = ()


class _No(Exception):
    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class SlackLookAlike(WebServer):
    """Speaks `/api/chat.postMessage`, `chat.update`, `chat.delete`, `auth.test` and incoming webhooks.

    The sets may be changed while it runs. `channels=None` knows every channel; `fault` may answer first.
    """

    def __init__(
        self,
        *,
        tokens: Collection[str] = (DEMO_TOKEN,),
        channels: Collection[str] | None = None,
        archived: Collection[str] = (),
        hooks: Mapping[str, str] | None = None,
        prohibited: Collection[str] = (),
        rate_limited: bool = False,
        clock: Callable[[], float] = time.time,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host=host, port=port, clock=clock)
        self.tokens = set(tokens)
        self.channels = None if channels is None else set(channels)
        self.archived, self.prohibited = set(archived), set(prohibited)
        self.hooks = {DEMO_HOOK: DEMO_CHANNEL} if hooks is None else dict(hooks)
        self.rate_limited = rate_limited
        self._posts: dict[tuple[str, str], Post] = {}
        self._deleted: set[tuple[str, str]] = set()
        self._last: dict[str, float] = {}
        self._count = itertools.count(1)
        self._changed = threading.Condition()

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/"

    @property
    def hook_url(self) -> str:
        return self.url + next(iter(self.hooks))

    @property
    def posts(self) -> list[Post]:
        with self._changed:
            return list(self._posts.values())

    def wait_for(self, predicate: Callable[[list[Post]], Any], timeout: float = 10.0) -> list[Post]:
        """Return the posts once `predicate` holds of them; raise TimeoutError if it never does."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(list(self._posts.values())), timeout):
                raise TimeoutError(f"not within {timeout} s; {len(self._posts)} posts so far")
            return list(self._posts.values())

    @staticmethod
    def render(post: Post) -> str:
        """Return the post as a person would read it, in plain text."""
        return render(text=post.text, blocks=post.blocks)

    def respond(self, request: Request) -> Answer:
        if request.path.startswith("/services/"):
            return self._hook(request)
        methods = {
            "/api/chat.postMessage": self._post_message,
            "/api/chat.update": self._update,
            "/api/chat.delete": self._delete,
            "/api/auth.test": self._auth_test,
        }
        method = methods.get(request.path, _unknown_method)
        try:
            self._check_token(request)
            return method(_arguments(request))
        except _No as no:
            return json_answer({"ok": False, "error": no.error})

    def _check_token(self, request: Request) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise _No("not_authed")
        if token not in self.tokens:
            raise _No("invalid_auth")

    def _post_message(self, said: dict[str, Any]) -> Answer:
        channel = self._open_channel(said)
        limited = self._limited(channel)
        if limited:
            return limited
        with self._changed:
            post = self._keep(channel, said, thread=self._thread_of(channel, said.get("thread_ts")), hook=False)
        shown: dict[str, Any] = {"type": "message", "text": post.text, "ts": post.ts, "blocks": post.blocks}
        if post.thread_ts:
            shown["thread_ts"] = post.thread_ts
        return json_answer({"ok": True, "channel": channel, "ts": post.ts, "message": shown})

    def _thread_of(self, channel: str, asked: str | None) -> str | None:
        """Return the thread that a post comes into: none, in silence, where its root was deleted."""
        if not asked or (channel, asked) in self._deleted:
            return None
        # Slack itself takes any thread_ts in silence. Here an unknown one is a slip, and says so.
        if (channel, asked) not in self._posts:
            raise _No("thread_not_found")
        return asked

    def _update(self, said: dict[str, Any]) -> Answer:
        channel = self._open_channel(said)
        with self._changed:
            old = self._posts.get((channel, str(said.get("ts"))))
            if old is None or old.hook:
                raise _No("message_not_found" if old is None else "cant_update_message")
            self._posts[channel, old.ts] = self._edited(old, said)
            self._changed.notify_all()
        return json_answer({"ok": True, "channel": channel, "ts": old.ts, "text": said.get("text", "")})

    def _delete(self, said: dict[str, Any]) -> Answer:
        place = self._open_channel(said), str(said.get("ts"))
        with self._changed:
            if place not in self._posts:
                raise _No("message_not_found")
            del self._posts[place]
            self._deleted.add(place)
            self._changed.notify_all()
        return json_answer({"ok": True, "channel": place[0], "ts": place[1]})

    def _edited(self, old: Post, said: dict[str, Any]) -> Post:
        text, blocks, metadata = _content(said)
        return replace(
            old,
            text=text or old.text,
            blocks=blocks if "blocks" in said else old.blocks,  # without new ones the old ones stay
            metadata=metadata or old.metadata,
            at=self.now(),
            edits=(*old.edits, replace(old, edits=())),
        )

    def _auth_test(self, _: dict[str, Any]) -> Answer:
        who = {"team": "Simulated", "user": "ci-bridge", "team_id": "T000", "user_id": "U000", "bot_id": "B000"}
        return json_answer({"ok": True, "url": f"{self.url}/", **who})

    def _hook(self, request: Request) -> Answer:
        channel = self.hooks.get(request.path)
        if channel is None:
            return text_answer("no_service", status=404)
        if channel in self.archived:
            return text_answer("channel_is_archived", status=410)
        if channel in self.prohibited:
            return text_answer("action_prohibited", status=403)
        return self._limited(channel) or self._hook_post(channel, request)

    def _hook_post(self, channel: str, request: Request) -> Answer:
        try:
            said = _arguments(request)
            with self._changed:
                self._keep(channel, said, thread=None, hook=True)
        except _No as no:
            return text_answer("invalid_payload" if no.error == "invalid_json" else no.error, status=400)
        return text_answer("ok")

    def _open_channel(self, said: dict[str, Any]) -> str:
        channel = str(said.get("channel") or "")
        if not channel or (self.channels is not None and channel not in self.channels):
            raise _No("channel_not_found")
        if channel in self.archived:
            raise _No("is_archived")
        return channel

    def _limited(self, channel: str) -> Answer | None:
        if not self.rate_limited:
            return None
        with self._changed:
            wait_s = self._last.get(channel, -math.inf) + 1 - self.now()
            if wait_s <= 0:
                self._last[channel] = self.now()
                return None
        return json_answer({"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": "1"})

    def _keep(self, channel: str, said: dict[str, Any], *, thread: str | None, hook: bool) -> Post:
        """Store a new post. The caller holds the lock."""
        text, blocks, metadata = _content(said)
        # 10 digits and 6: unique and increasing, whatever the clock does.
        ts = f"{1_700_000_000 + (number := next(self._count))}.{number:06d}"
        post = Post(
            channel=channel,
            ts=ts,
            thread_ts=thread,
            text=text,
            blocks=blocks,
            metadata=metadata,
            hook=hook,
            at=self.now(),
        )
        self._posts[channel, ts] = post
        self._changed.notify_all()
        return post


def _unknown_method(_: dict[str, Any]) -> Answer:
    raise _No("unknown_method")


def _arguments(request: Request) -> dict[str, Any]:
    """Return the arguments of a JSON body, of a form, or of a form's `payload`."""
    if "json" in request.headers.get("content-type", ""):
        return _object(request.body or b"{}")
    form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    return _object(form["payload"]) if "payload" in form else form


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise _No("invalid_json") from None
    if not isinstance(found, dict):
        raise _No("json_not_object")
    return found


def _content(said: dict[str, Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any] | None]:
    text = said.get("text") or ""
    blocks, metadata = _decoded(said.get("blocks")) or [], _decoded(said.get("metadata"))
    fault = fault_of(text, blocks)
    if fault:
        raise _No(fault)
    if metadata is not None and not _is_metadata(metadata):
        raise _No("invalid_metadata_format")
    return text, blocks, metadata


def _is_metadata(said: Any) -> bool:
    return isinstance(said, dict) and {"event_type", "event_payload"} <= set(said)


def _decoded(part: Any) -> Any:
    """Return a form's JSON text as what it says; a JSON body's part as it is."""
    if not isinstance(part, str):
        return part
    try:
        return json.loads(part)
    except ValueError:
        raise _No("invalid_blocks_format") from None
