"""A look-alike of the parts of Slack that a notifier talks to; it keeps Slack's limits and its manners."""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from bridge.simulator.web import Answer, Request, WebServer, json_answer, text_answer

# --- what Slack refuses in a message (docs.slack.dev, Block Kit reference) ------------------------------------------

MAX_TEXT = 40_000
MAX_BLOCKS = 50
MAX_SECTION_TEXT = 3_000
MAX_HEADER = 150
MAX_FIELDS, MAX_FIELD = 10, 2_000
MAX_CONTEXT = 10
MAX_ACTIONS = 25
MAX_BLOCK_ID = 255
MAX_TOTAL = 13_200  # in no document: measured by others, slackapi/bolt-js 2509
TEXT_TYPES = ("mrkdwn", "plain_text")


def fault_of(text: str, blocks: Any) -> str | None:
    """Return Slack's error word for a message, or None if it would be taken."""
    if not text and not blocks:
        return "no_text"
    if len(text) > MAX_TEXT:
        return "msg_too_long"
    if not isinstance(blocks, list) or len(blocks) > MAX_BLOCKS or not all(map(_is_right, blocks)):
        return "invalid_blocks"
    ids = [block["block_id"] for block in blocks if "block_id" in block]
    if len(ids) != len(set(ids)):
        return "invalid_blocks"
    return "msg_blocks_too_long" if sum(map(_length, blocks)) > MAX_TOTAL else None


def _is_right(block: Any) -> bool:
    if not isinstance(block, dict) or len(str(block.get("block_id", ""))) > MAX_BLOCK_ID:
        return False
    match block.get("type"):
        case "section":
            return _section(block)
        case "header":
            return _is_text(block.get("text"), MAX_HEADER, types=("plain_text",))
        case "context":
            return _context(block.get("elements"))
        case "actions":
            return _counted(block.get("elements"), MAX_ACTIONS)
        case "divider":
            return True
        case "image":
            return bool(block.get("image_url") and block.get("alt_text"))
        case "rich_text":
            return isinstance(block.get("elements"), list)
    return False


def _section(block: Mapping[str, Any]) -> bool:
    if "text" not in block and "fields" not in block:
        return False
    fields = block.get("fields", [None])
    text_fits = "text" not in block or _is_text(block["text"], MAX_SECTION_TEXT)
    fields_fit = "fields" not in block or all(_is_text(field, MAX_FIELD) for field in fields)
    return text_fits and _counted(fields, MAX_FIELDS) and fields_fit


def _context(elements: Any) -> bool:
    return _counted(elements, MAX_CONTEXT) and all(
        isinstance(e, dict) and (e.get("type") == "image" or _is_text(e, MAX_SECTION_TEXT)) for e in elements
    )


def _counted(items: Any, most: int) -> bool:
    return isinstance(items, list) and 1 <= len(items) <= most


def _is_text(text: Any, most: int, types: Sequence[str] = TEXT_TYPES) -> bool:
    if not isinstance(text, dict) or text.get("type") not in types:
        return False
    said = text.get("text")
    return isinstance(said, str) and 1 <= len(said) <= most


def _length(part: Any) -> int:
    """Count every character that a person would read."""
    if isinstance(part, dict):
        return sum(len(v) if k == "text" and isinstance(v, str) else _length(v) for k, v in part.items())
    return sum(map(_length, part)) if isinstance(part, list) else 0


# --- a message in plain text, for a terminal ------------------------------------------------------------------------


def render(*, text: str, blocks: Sequence[Mapping[str, Any]]) -> str:
    """Return what a person reads: the blocks if there are any, else the text."""
    lines = [line for block in blocks for line in _lines(block)]
    return "\n".join(lines) if lines else _plain(text)


def _lines(block: Mapping[str, Any]) -> list[str]:
    match block.get("type"):
        case "header":
            said = _said(block.get("text"))
            return [said, "=" * len(said)]
        case "section":
            text = [_said(block["text"])] if "text" in block else []
            return text + [f"  {_said(field)}".replace("\n", " ") for field in block.get("fields", ())]
        case "context":
            return ["  " + " · ".join(_said(e) for e in block.get("elements", ()))]
        case "actions":
            return ["  " + " ".join(f"[{_said(e.get('text'))}]" for e in block.get("elements", ()))]
        case "divider":
            return ["-" * 20]
        case "image":
            return [f"[{block.get('alt_text', 'image')}]"]
    return [f"({block.get('type')})"]


def _said(text: Any) -> str:
    if not isinstance(text, Mapping):
        return ""
    said = str(text.get("text", text.get("alt_text", "")))
    return _plain(said) if text.get("type") == "mrkdwn" else said


def _plain(mrkdwn: str) -> str:
    """Return mrkdwn without its marks: `<url|name>` becomes `name (url)`, and the three escapes themselves."""
    linked = re.sub(r"<([^<>|]+)\|([^<>]*)>", r"\2 (\1)", mrkdwn)
    bare = re.sub(r"<(https?://[^<>]+)>", r"\1", linked)
    strong = re.sub(r"(?<!\w)\*([^*\n]+)\*(?!\w)", r"\1", bare)
    return strong.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


# --- the look-alike -------------------------------------------------------------------------------------------------

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
