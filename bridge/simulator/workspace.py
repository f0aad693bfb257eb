"""The channels and messages of the Slack look-alike, and what people do to them. Any thread may use it."""

from __future__ import annotations

import base64
import itertools
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

_ID = re.compile(r"[A-Z][A-Z0-9]*")
_TS = re.compile(r"\d{1,12}(\.\d{1,6})?")
MAX_PAGE, _PAGE = 999, 100

Block = dict[str, Any]
_Place = tuple[str, str]  # the id of a channel, and a ts


class SlackError(Exception):
    """A refusal; the text is Slack's error code, `facts` are said beside it."""

    def __init__(self, code: str, **facts: str) -> None:
        super().__init__(code)
        self.facts = facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel as it is now. `is_member` says whether the app is one."""

    id: str
    name: str
    is_private: bool = False
    is_archived: bool = False
    is_member: bool = True

    @property
    def is_hidden(self) -> bool:
        """Whether the app cannot know that it exists."""
        return self.is_private and not self.is_member


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a message showed from a time on."""

    text: str
    blocks: list[Block]
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A message as it is now, and as it was: `versions` begins with what was posted."""

    channel: str
    ts: str
    thread_ts: str | None
    author: str
    metadata: dict[str, Any] | None
    versions: tuple[Version, ...]
    broadcast: bool = False
    deleted_at: float | None = None

    @property
    def text(self) -> str:
        return self.versions[-1].text

    @property
    def blocks(self) -> list[Block]:
        return self.versions[-1].blocks

    @property
    def at(self) -> float:
        """When it was posted or last edited."""
        return self.versions[-1].at

    @property
    def edits(self) -> tuple[Version, ...]:
        return self.versions[1:]

    def shown_at(self, at: float) -> Version | None:
        """Return what it showed at that time; None before it was posted and after it was deleted."""
        if self.deleted_at is not None and self.deleted_at <= at:
            return None
        return next((version for version in reversed(self.versions) if version.at <= at), None)


class Workspace:
    """Without `channels`, every channel exists that somebody names; `page_cap` makes pages smaller than asked for."""

    def __init__(self, channels: Iterable[Channel] | None, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._is_open = channels is None
        self._channels = {channel.id: channel for channel in channels or ()}
        self._posts: dict[_Place, Post] = {}
        self._threads: dict[_Place, list[_Place]] = {}  # the replies to each root
        self._numbers = itertools.count(1)
        self._last_us = 0
        self._lock = threading.RLock()
        self.page_cap = MAX_PAGE

    @property
    def posts(self) -> list[Post]:
        """Every message ever posted, in the order of posting."""
        with self._lock:
            return list(self._posts.values())

    # --- channels -----------------------------------------------------------------------------------------------

    def channel(self, named: str, *, by_id: bool = False) -> Channel:
        """Return the channel with this id or, unless `by_id`, with this name; "#" may come before a name."""
        name = named.removeprefix("#")
        with self._lock:
            found = self._channels.get(named) or self._named(None if by_id else name)
            if found is None and self._is_open and _ID.fullmatch(named):
                found = self._channels[named] = Channel(id=named, name=named.lower())
            elif found is None and self._is_open and name and not by_id:
                number = next(self._numbers)
                found = self._channels[f"C0N{number}"] = Channel(id=f"C0N{number}", name=name)
        if found is None or found.is_hidden:
            raise SlackError("channel_not_found")
        return found

    def _named(self, name: str | None) -> Channel | None:
        return next((channel for channel in self._channels.values() if channel.name == name), None)

    def change_channel(self, named: str, **changes: Any) -> None:
        """Archive it, for example, or remove the app from it."""
        with self._lock:
            known = next((one for one in self._channels.values() if named in (one.id, one.name)), None)
            channel = known or self.channel(named)
            self._channels[channel.id] = replace(channel, **changes)

    # --- messages -----------------------------------------------------------------------------------------------

    def post(
        self,
        channel: Channel,
        author: str,
        text: str,
        blocks: list[Block],
        *,
        metadata: dict[str, Any] | None = None,
        thread_ts: str | None = None,
        broadcast: bool = False,
    ) -> Post:
        with self._lock:
            now = self._clock()
            # A ts is a time that no other message of the workspace has.
            self._last_us = max(int(now * 1e6), self._last_us + 1)
            ts = f"{self._last_us // 1_000_000}.{self._last_us % 1_000_000:06d}"
            posted = Post(
                channel=channel.id,
                ts=ts,
                thread_ts=self._thread(channel, thread_ts),
                author=author,
                metadata=metadata,
                versions=(Version(text=text, blocks=blocks, at=now),),
                broadcast=broadcast,
            )
            self._posts[channel.id, ts] = posted
            if posted.thread_ts:
                self._threads.setdefault((channel.id, posted.thread_ts), []).append((channel.id, ts))
        return posted

    def _thread(self, channel: Channel, ts: str | None) -> str | None:
        """Return the root of the thread that a reply to `ts` is in. None: `ts` was deleted, so it is no reply."""
        if not ts:
            return None
        root = self._posts.get((channel.id, ts))
        # Slack itself silently accepts any thread_ts. Here one that never existed is a mistake of the caller.
        if root is None:
            raise SlackError("thread_not_found")
        # slack-go/slack, issue 1571, read 2026-11-30: accepted, and shown in the channel.
        return None if root.deleted_at else root.thread_ts or ts

    def edit(
        self, channel: Channel, ts: str, author: str, text: str, blocks: list[Block] | None, metadata: Any = None
    ) -> Post:
        with self._lock:
            old = self._posts.get((channel.id, ts))
            if old is None or old.deleted_at:
                raise SlackError("message_not_found")
            if old.author != author:
                raise SlackError("cant_update_message")
            # With a text and without blocks, those that were there are removed (chat.update, read 2026-11-30).
            shown = blocks if blocks is not None else [] if text else old.blocks
            version = Version(text=text or old.text, blocks=shown, at=self._clock())
            edited = replace(old, versions=(*old.versions, version), metadata=metadata or old.metadata)
            self._posts[channel.id, ts] = edited
        return edited

    def delete(self, post: Post) -> None:
        """A person deletes the message."""
        with self._lock:
            key = (post.channel, post.ts)
            self._posts[key] = replace(self._posts[key], deleted_at=self._clock())

    # --- reading ------------------------------------------------------------------------------------------------

    def history(self, channel: Channel, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a page of `conversations.history`: newest first, without replies."""
        with self._lock:
            mine = [post for post in self._posts.values() if post.channel == channel.id and self._is_shown(post)]
            return self._page([post for post in mine if not post.thread_ts or post.broadcast][::-1], options)

    def replies(self, channel: Channel, ts: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a page of `conversations.replies`: oldest first, the root before all others, whatever its time."""
        with self._lock:
            found = self._posts.get((channel.id, ts))
            if found is None or not self._is_shown(found):
                raise SlackError("thread_not_found")
            root = found.thread_ts or ts
            return self._page(self._replies(channel.id, root), options, root=self._posts[channel.id, root])

    def _is_shown(self, post: Post) -> bool:
        """What is deleted leaves a tombstone where it has replies."""
        return not post.deleted_at or bool(self._replies(post.channel, post.ts))

    def _replies(self, channel: str, root: str) -> list[Post]:
        under = (self._posts[place] for place in self._threads.get((channel, root), ()))
        return [post for post in under if not post.deleted_at]

    def _page(self, posts: Sequence[Post], options: Mapping[str, Any], root: Post | None = None) -> dict[str, Any]:
        posts = _within(posts, options)
        size = min(_limit(options), self.page_cap)
        start = _start(posts, options)
        page, rest = posts[start : start + size], posts[start + size :]
        shown = [*([root] if root else []), *page]
        found: dict[str, Any] = {
            "messages": [self._message(post, metadata=_is_true(options.get("include_all_metadata"))) for post in shown],
            "has_more": bool(rest),
        }
        if rest:
            found["response_metadata"] = {"next_cursor": _cursor(rest[0])}
        return found

    def _message(self, post: Post, *, metadata: bool) -> dict[str, Any]:
        replies = self._replies(post.channel, post.ts)
        thread = {"thread_ts": post.thread_ts or post.ts} if post.thread_ts or replies else {}
        if replies:
            thread |= {"reply_count": len(replies), "latest_reply": replies[-1].ts}  # type: ignore[dict-item]
        if post.deleted_at:
            text = "This message was deleted."
            return {"type": "message", "subtype": "tombstone", "text": text, "ts": post.ts, **thread}
        edited = {"edited": {"user": post.author, "ts": f"{post.at:.6f}"}} if post.edits else {}
        return message_of(post) | thread | edited | ({"metadata": post.metadata} if metadata and post.metadata else {})


def message_of(post: Post) -> dict[str, Any]:
    """Return the message as an answer shows it."""
    thread = {"thread_ts": post.thread_ts} if post.thread_ts else {}
    who = {"user": post.author, "bot_id": f"B{post.author[1:]}"}
    return {"type": "message", **who, "text": post.text, "ts": post.ts, "blocks": post.blocks, **thread}


def _within(posts: Sequence[Post], options: Mapping[str, Any]) -> list[Post]:
    oldest, latest = (_time(options.get(name), f"invalid_ts_{name}") for name in ("oldest", "latest"))
    ends = {oldest, latest} if _is_true(options.get("inclusive")) else set()

    def is_within(post: Post) -> bool:
        ts = Decimal(post.ts)
        return ts in ends or ((oldest is None or ts > oldest) and (latest is None or ts < latest))

    return [post for post in posts if is_within(post)]


def _time(text: Any, error: str) -> Decimal | None:
    if text in (None, "", 0):
        return None
    if not _TS.fullmatch(str(text)):
        raise SlackError(error)
    return Decimal(str(text))


def _limit(options: Mapping[str, Any]) -> int:
    limit = str(options.get("limit") or _PAGE)
    if not limit.isdecimal() or not 1 <= int(limit) <= MAX_PAGE:
        raise SlackError("invalid_limit")
    return int(limit)


def _cursor(post: Post) -> str:
    return base64.b64encode(f"next_ts:{post.ts.replace('.', '')}".encode()).decode()


def _start(posts: Sequence[Post], options: Mapping[str, Any]) -> int:
    cursor = options.get("cursor")
    if not cursor:
        return 0
    try:
        return [_cursor(post) for post in posts].index(str(cursor))
    except ValueError:
        raise SlackError("invalid_cursor") from None


def _is_true(value: Any) -> bool:
    return str(value).lower() in ("1", "true")
