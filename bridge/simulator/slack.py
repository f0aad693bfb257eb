"""A look-alike of the Slack methods that a notifier calls: it checks tokens and scopes, keeps limits and messages.

Written from docs.slack.dev: each method's page, apis/web-api, apis/web-api/rate-limits; read 2026-11-30.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

from bridge.model import Rate
from bridge.simulator.clicks import (
    ANN,
    SIGNING_SECRET,
    TEAM,
    Answers,
    User,
    Whisper,
    button_in,
    form,
    payload_of,
    post_to,
    signed,
)
from bridge.simulator.web import Answer, Request, WebServer, json_answer, text_answer
from bridge.simulator.workspace import Channel, Post, SlackError, Workspace, message_of

DEMO_TOKEN = "xoxb-simulator"  # noqa: S105 - opens nothing but this look-alike
HISTORY_SCOPES = frozenset({"channels:history", "groups:history"})
READ_SCOPES = frozenset({"channels:read", "groups:read"})
ALL_SCOPES = frozenset({"chat:write", "chat:write.public"}) | HISTORY_SCOPES | READ_SCOPES
WEBHOOK = "webhook"  # what requests to incoming webhooks are counted as
_HOOKS, _ANSWERS = "/services/", "/actions/"
_POSTS, _TIER_3 = Rate(count=1, per=timedelta(seconds=1)), Rate(count=50, per=timedelta(minutes=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many requests are accepted; more are answered with 429.

    posts: to a channel, and to an incoming webhook, in the long run.
    burst: so many of them at once; 1 leaves no room for a network that takes now longer, now shorter.
    tier3: of a method by a token, within any such time.
    """

    posts: Rate = _POSTS
    burst: int = 2
    tier3: Rate = _TIER_3


@dataclass(slots=True)
class _Throttle:
    """What was accepted, by what it is limited by."""

    _paid_until: dict[tuple[str, ...], float] = field(default_factory=dict)
    _accepted: dict[tuple[str, ...], deque[float]] = field(default_factory=dict)

    def admit_post(self, key: tuple[str, ...], limits: Limits, now: float) -> None:
        interval_s = limits.posts.interval.total_seconds()
        paid_until = max(self._paid_until.get(key, 0.0), now)
        if (wait_s := paid_until - now - (limits.burst - 1) * interval_s) > 0:
            raise _Ratelimited(wait_s)
        self._paid_until[key] = paid_until + interval_s

    def admit_call(self, key: tuple[str, ...], limits: Limits, now: float) -> None:
        times, within_s = self._accepted.setdefault(key, deque()), limits.tier3.per.total_seconds()
        while times and times[0] <= now - within_s:
            times.popleft()
        if len(times) >= limits.tier3.count:
            raise _Ratelimited(times[0] + within_s - now)
        times.append(now)


class _Ratelimited(SlackError):
    def __init__(self, wait_s: float) -> None:
        super().__init__("ratelimited")
        self.retry_after = str(max(1, math.ceil(wait_s)))


@dataclass(frozen=True, slots=True)
class _Caller:
    token: str
    scopes: frozenset[str]

    @property
    def user(self) -> str:
        return "U000" if self.token == DEMO_TOKEN else f"U{abs(hash(self.token)) % 10**9}"

    def require(self, scope: str) -> None:
        if scope not in self.scopes:
            raise SlackError("missing_scope", needed=scope, provided=",".join(sorted(self.scopes)))


class SlackLookAlike(WebServer):
    """Speaks the methods below and incoming webhooks at `hook_url`. All of these may be changed while it runs:

    tokens: the scopes of each token.
    limits: None: there are none.
    late_s: how many seconds pass before a request is looked at, so that its message is posted late.
    spoil: what is sent in place of an answer, when the request has had its effect: late, broken, or nothing at all.
    fault: answers first, without any effect.
    request_url: where clicks on buttons are posted to, signed with `signing_secret`.
    """

    def __init__(
        self,
        *,
        channels: Iterable[Channel] | None = None,
        tokens: Mapping[str, frozenset[str]] | None = None,
        limits: Limits | None = None,
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(port=port, clock=clock)
        self.workspace = Workspace(channels, clock=self.now)
        self.tokens = {DEMO_TOKEN: ALL_SCOPES} if tokens is None else dict(tokens)
        self.limits = limits
        self.late_s: Callable[[Request], float] = lambda _: 0.0
        self.spoil: Callable[[Request, Answer], Answer] = lambda _, answer: answer
        self.answered: Counter[tuple[str, str]] = Counter()  # by method, and "ok" or the error code
        self.request_url, self.signing_secret = "", SIGNING_SECRET
        self._answers = Answers(self.workspace)
        self._throttle = _Throttle()
        self._lock = threading.Lock()
        self._methods: dict[str, Callable[[_Caller, Mapping[str, Any]], dict[str, Any]]] = {
            "chat.postMessage": self._post_message,
            "chat.update": self._update,
            "conversations.history": self._history,
            "conversations.replies": self._replies,
            "conversations.info": self._info,
            "auth.test": self._auth_test,
        }

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/"

    def hook_url(self, channel: str) -> str:
        """Return the incoming webhook of a channel."""
        return f"{self.url}{_HOOKS}T000/B000/{channel}"

    @property
    def posts(self) -> list[Post]:
        """The messages that are there now."""
        return [post for post in self.workspace.posts if not post.deleted_at]

    @property
    def whispers(self) -> list[Whisper]:
        """What was said to one user only, in answers to clicks."""
        return list(self._answers.whispers)

    def click(self, post: Post, action_id: str, user: User = ANN, team: str = TEAM) -> int:
        """Let a user click on a button of a message; return the status of the app's answer."""
        body = self.click_body(post, action_id, user, team)
        return post_to(self.request_url, body, signed(body, self.signing_secret, self.now()))

    def click_body(self, post: Post, action_id: str, user: User = ANN, team: str = TEAM) -> bytes:
        """Return what Slack posts of a click."""
        at, button = self.now(), button_in(post, action_id)
        response_url = f"{self.url}{_ANSWERS}{self._answers.begin(post, user, at)}"
        return form(payload_of(post, button, user=user, team=team, response_url=response_url, at=at))

    def count(self, method: str | None = None, outcome: str | None = None) -> int:
        """Return how many requests were answered, of a method, with "ok" or an error code."""
        found = ((key, n) for key, n in self.answered.items() if method in (None, key[0]) and outcome in (None, key[1]))
        return sum(n for _, n in found)

    def refusal_of(self, text: str, blocks: Any, *, edit: bool = False) -> str | None:  # noqa: ARG002 - for others
        """Return the error code for a message, None if it is accepted."""
        return None if text or blocks else "no_text"

    def respond(self, request: Request) -> Answer:
        self.pause(self.late_s(request))
        return self.spoil(request, self._answer(request))

    def _answer(self, request: Request) -> Answer:
        if request.path.startswith(_HOOKS):
            return self._hook(request)
        return self._take_answer(request) if request.path.startswith(_ANSWERS) else self._api(request)

    def _take_answer(self, request: Request) -> Answer:
        """Take an app's answer to a click."""
        try:
            self._content(arguments := _arguments(request))
            self._answers.take(request.path.removeprefix(_ANSWERS), arguments, self.now())
        except SlackError as error:
            return json_answer({"ok": False, "error": str(error)}, status=404)
        return text_answer("ok")

    def _count(self, method: str, outcome: str) -> None:
        with self._lock:
            self.answered[method, outcome] += 1

    def _admit_post(self, *key: str) -> None:
        with self._lock:
            if self.limits:
                self._throttle.admit_post(key, self.limits, self.now())

    def _admit_call(self, method: str, caller: _Caller) -> None:
        with self._lock:
            if self.limits:
                self._throttle.admit_call((method, caller.token), self.limits, self.now())

    # --- methods ------------------------------------------------------------------------------------------------

    def _api(self, request: Request) -> Answer:
        name = request.path.removeprefix("/api/")
        headers: dict[str, str] = {}
        status, content = 200, dict[str, Any]()
        try:
            method, caller = self._method(name), self._caller(request)
            headers["x-oauth-scopes"] = ",".join(sorted(caller.scopes))
            content = {"ok": True, **method(caller, _arguments(request, is_json=name.startswith("chat.")))}
        except SlackError as error:
            content = {"ok": False, "error": str(error), **error.facts}
            if isinstance(error, _Ratelimited):
                status, headers["Retry-After"] = 429, error.retry_after
        self._count(name, content.get("error", "ok"))
        answer = json_answer(content, status=status)
        return Answer(status=status, body=answer.body, headers={**answer.headers, **headers})

    def _method(self, name: str) -> Callable[[_Caller, Mapping[str, Any]], dict[str, Any]]:
        if name not in self._methods:
            raise SlackError("unknown_method")
        return self._methods[name]

    def _caller(self, request: Request) -> _Caller:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise SlackError("not_authed")
        scopes = self.tokens.get(token)
        if scopes is None:
            raise SlackError("invalid_auth")
        return _Caller(token, scopes)

    def _post_message(self, caller: _Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        caller.require("chat:write")
        channel = self.workspace.channel(str(arguments.get("channel") or ""))
        if not channel.is_member and "chat:write.public" not in caller.scopes:
            raise SlackError("not_in_channel")
        if channel.is_archived:
            raise SlackError("is_archived")
        self._admit_post("chat.postMessage", channel.id)
        text, blocks, metadata = self._content(arguments)
        posted = self.workspace.post(
            channel,
            caller.user,
            text,
            blocks or [],
            metadata=metadata,
            thread_ts=arguments.get("thread_ts"),
            broadcast=arguments.get("reply_broadcast") is True,
        )
        return {"channel": channel.id, "ts": posted.ts, "message": message_of(posted)}

    def _update(self, caller: _Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        caller.require("chat:write")
        self._admit_call("chat.update", caller)
        # By a name it is not found, unlike in chat.postMessage.
        channel = self.workspace.channel(str(arguments.get("channel") or ""), by_id=True)
        if channel.is_archived:
            raise SlackError("is_inactive")
        text, blocks, metadata = self._content(arguments, edit=True)
        edited = self.workspace.edit(channel, str(arguments.get("ts")), caller.user, text, blocks, metadata)
        return {"channel": channel.id, "ts": edited.ts, "text": edited.text, "message": message_of(edited)}

    def _content(
        self, arguments: Mapping[str, Any], *, edit: bool = False
    ) -> tuple[str, list[dict[str, Any]] | None, dict[str, Any] | None]:
        text, blocks, metadata = arguments.get("text") or "", arguments.get("blocks"), arguments.get("metadata")
        if error := self.refusal_of(text, blocks or [], edit=edit):
            raise SlackError(error)
        if metadata and not (isinstance(metadata, dict) and {"event_type", "event_payload"} <= set(metadata)):
            raise SlackError("invalid_metadata_format")
        return text, blocks, metadata

    def _history(self, caller: _Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        channel = self._readable("conversations.history", caller, arguments)
        return {**self.workspace.history(channel, arguments), "pin_count": 0}

    def _replies(self, caller: _Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        channel = self._readable("conversations.replies", caller, arguments)
        return self.workspace.replies(channel, str(arguments.get("ts")), arguments)

    def _readable(self, method: str, caller: _Caller, arguments: Mapping[str, Any]) -> Channel:
        self._admit_call(method, caller)
        if not caller.scopes & HISTORY_SCOPES:
            caller.require("channels:history")
        channel = self.workspace.channel(str(arguments.get("channel") or ""), by_id=True)
        caller.require("groups:history" if channel.is_private else "channels:history")
        if not channel.is_member:
            raise SlackError("not_in_channel")
        return channel

    def _info(self, caller: _Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._admit_call("conversations.info", caller)
        if not caller.scopes & READ_SCOPES:
            caller.require("channels:read")
        channel = self.workspace.channel(str(arguments.get("channel") or ""), by_id=True)
        caller.require("groups:read" if channel.is_private else "channels:read")
        names = ("id", "name", "is_private", "is_archived", "is_member")
        return {"channel": {name: getattr(channel, name) for name in names}}

    def _auth_test(self, caller: _Caller, _: Mapping[str, Any]) -> dict[str, Any]:
        names = {"team": "Simulated", "user": "ci-bridge", "team_id": TEAM, "user_id": caller.user, "bot_id": "B000"}
        return {"url": f"{self.url}/", **names}

    # --- incoming webhooks (docs.slack.dev/messaging/sending-messages-using-incoming-webhooks) ------------------

    def _hook(self, request: Request) -> Answer:
        try:
            self._post_to_hook(request)
        except _Ratelimited as error:
            self._count(WEBHOOK, str(error))
            return Answer(status=429, body=b"rate_limited", headers={"Retry-After": error.retry_after})
        except SlackError as error:
            code = {"channel_not_found": "no_service", "is_archived": "channel_is_archived"}.get(str(error), str(error))
            self._count(WEBHOOK, code)
            return text_answer(code, status=_HOOK_STATUSES.get(code, 400))
        self._count(WEBHOOK, "ok")
        return text_answer("ok")

    def _post_to_hook(self, request: Request) -> None:
        channel = self.workspace.channel(request.path.rpartition("/")[2])
        if channel.is_archived:
            raise SlackError("is_archived")
        self._admit_post(WEBHOOK, request.path)
        text, blocks, _ = self._content(_arguments(request))
        self.workspace.post(channel, "U001", text, blocks or [])


_HOOK_STATUSES = {"no_service": 404, "channel_is_archived": 410}


def _arguments(request: Request, *, is_json: bool = True) -> dict[str, Any]:
    """Return the arguments of the query, and of a JSON body or a form.

    Only methods that write take JSON (docs.slack.dev/apis/web-api). Pages of those that read list it too, but it was
    seen not to work (friggframework/frigg, pull request 147, and slackapi/node-slack-sdk, issue 1415).
    """
    if "json" not in request.headers.get("content-type", ""):
        return dict(request.query) | dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    if not is_json:
        return dict(request.query)
    try:
        arguments = json.loads(request.body or b"{}")
    except ValueError:
        raise SlackError("invalid_json") from None
    if not isinstance(arguments, dict):
        raise SlackError("json_not_object")
    return arguments
