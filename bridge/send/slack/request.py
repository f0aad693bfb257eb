"""Slack: posts, threads and edits, and what is kept of the first message of a thread."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse

from bridge.http_headers import retry_after
from bridge.model import (
    MAX_RETRY_AFTER,
    Delivery,
    Outcome,
    Reason,
    Rejected,
    RetryLater,
    RootEdit,
    Sent,
    SharedLimit,
    SlackNotifier,
)
from bridge.send.slack.answer import (
    error_in,
    hook_accepted,
    is_loose,
    posts_anew,
    read,
    refusal,
    refuses_blocks,
)
from bridge.send.slack.blocks import Block, blocks, plain
from bridge.send.slack.client import SlackTransport, SlackWebClient

# --- what is kept of the first message of a thread, so that later ones find it --------------------------------------

_SHAPE = re.compile(r"([^:]+):([^:]+)(?::(.+?)(?::(\d+))?)?")


@dataclass(frozen=True, slots=True)
class Receipt:
    """Written as "C1:171.5:general"; the last part may be missing in what is read, and older versions wrote a fourth.

    `channel` is Slack's id for what was `configured`, which may be a name.
    """

    channel: str
    ts: str
    configured: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        match = _SHAPE.fullmatch(text)
        return cls(match[1], match[2], match[3]) if match else None

    def __str__(self) -> str:
        return f"{self.channel}:{self.ts}:{self.configured}"


# --- requests -------------------------------------------------------------------------------------------------------

EVENT_TYPE = "ci_bridge_delivery"
_NO_PREVIEWS = {"unfurl_links": False, "unfurl_media": False}
_LATE_POST = timedelta(seconds=10)  # after a post that was not answered in time: it may appear late
_LOOK_BACK = timedelta(hours=1)  # before a delivery was put into the outbox: clocks may disagree
_PAGES, _PAGE = 5, 200  # of messages that are looked through for an earlier post
_REPEATED = "An earlier attempt was not answered, so this may be a repetition."

logger = logging.getLogger(__name__)


def post_to_hook(
    transport: SlackTransport, url: str, delivery: Delivery, now: datetime, limit: SharedLimit | None = None
) -> Outcome:
    """Send one delivery through an incoming webhook."""
    delivery = _perhaps_repeated(delivery) if delivery.unsure else delivery
    text, made = blocks(delivery, now)
    reply = transport.post(url, {"text": text, "blocks": made, **_NO_PREVIEWS})
    error = error_in(read(reply.body))
    if not hook_accepted(reply) and refuses_blocks(error):
        _log_refused_blocks(delivery, error)
        reply = transport.post(url, {"text": plain(delivery, now), **_NO_PREVIEWS})
        error = error_in(read(reply.body))
    if hook_accepted(reply):
        return Sent()
    return _limited(refusal(reply.status, error, reply.retry_after(now), webhook=True), limit)


def _limited(outcome: Outcome, limit: SharedLimit | None) -> Outcome:
    """Return the outcome with the limit that was reached, if one was."""
    if limit and isinstance(outcome, RetryLater) and outcome.reason == Reason.RATE_LIMITED:
        return replace(outcome, whole_notifier=False, limit=limit.name)
    return outcome


class ApiCalls:
    """What one delivery, or one edit, needs of the Web API."""

    def __init__(self, client: SlackWebClient, notifier: SlackNotifier, delivery: Delivery, now: datetime) -> None:
        self._client, self._notifier, self._delivery, self._now = client, notifier, delivery, now
        # A channel must still be one of the notifier's: the rules may have changed since.
        named = delivery.channel if delivery.channel in notifier.channels else None
        self._channel = named or notifier.channel or ""
        self._limit: SharedLimit | None = None  # that the last call used up

    def post(self) -> Outcome:
        """Post a reply under the root, or a new root, unless an earlier attempt turns out to have done so."""
        try:
            root = self._root()
            if self._delivery.unsure:
                found = self._find(root)
                if isinstance(found, Sent):
                    return found
            if root:
                try:
                    return self._under(root)
                except SlackApiError as fault:
                    if not posts_anew(error_in(fault.response)):
                        raise
                    self._log_new_root(error_in(fault.response))
            return self._begin()
        except SlackApiError as fault:
            return self._refusal(fault)

    def edit(self) -> Outcome:
        """Edit the root to show what it should."""
        root = Receipt.parse(self._delivery.root or "")
        if root is None or root.configured not in (None, self._notifier.channel, *self._notifier.channels):
            return Rejected("the root is not in a channel of the notifier", Reason.GONE)
        try:
            return self._edited(root)
        except SlackApiError as fault:
            error = error_in(fault.response)
            if posts_anew(error):
                return Rejected(f"Slack says {error}: the root cannot be edited any more", Reason.GONE)
            return self._refusal(fault)

    def _refusal(self, fault: SlackApiError) -> Outcome:
        asked = fault.response.headers.get("retry-after", "")
        after = retry_after(asked, now=self._now, most=MAX_RETRY_AFTER)
        return _limited(refusal(fault.response.status_code, error_in(fault.response), after), self._limit)

    # --- roots, replies and edits -------------------------------------------------------------------------------

    def _root(self) -> Receipt | None:
        """Return the first message of the thread, if it is needed and in the channel that is now configured."""
        wanted = self._notifier.update or self._notifier.thread != "none"
        root = Receipt.parse(self._delivery.root) if wanted and self._delivery.root else None
        return root if root and root.configured in (None, self._channel) else None

    def _under(self, root: Receipt) -> Sent:
        if self._notifier.shows_by_edits:  # it was put into the outbox before there was a root
            return self._edited(root)
        posted = self._post(self._delivery, root.channel, thread_ts=root.ts)
        if not is_loose(posted.get("message"), posted.get("ts")):
            return Sent()
        self._log_new_root("deleted")
        begun = self._receipt(posted)
        return Sent(receipt=str(begun)) if begun else Sent()

    def _edited(self, root: Receipt) -> Sent:
        self._limit = self._notifier.edit_limit
        # The default of `parse` is "client" for an edit: names would become links (chat.update, read 2026-11-21).
        edit = partial(self._client.chat_update, channel=root.channel, ts=root.ts, parse="none")
        self._shown(edit, self._newest())
        return Sent(receipt=str(replace(root, configured=root.configured or self._channel)), shown_no=self._shown_no)

    def _begin(self) -> Sent:
        begun = self._receipt(self._post(self._newest(), self._channel))
        return Sent(receipt=str(begun), shown_no=self._shown_no) if begun else Sent()

    def _newest(self) -> Delivery:
        """Return the delivery as the root shows it: in the newest state, but mentioning whom its own rule does."""
        wanted = self._delivery.wanted
        if wanted is None:
            return self._delivery
        says, own = json.loads(wanted.says), json.loads(self._delivery.says)
        says["mention"] = own.get("mention") if not isinstance(self._delivery, RootEdit) else None
        return replace(self._delivery, says=json.dumps(says), event=wanted.event, happened_at=wanted.happened_at)

    @property
    def _shown_no(self) -> int:
        return self._delivery.wanted_no if self._delivery.wanted else 0

    def _receipt(self, posted: Mapping[str, Any] | SlackResponse) -> Receipt | None:
        """Return what makes the message that was posted the root of a thread, if Slack says where it is."""
        channel, ts = posted.get("channel"), posted.get("ts")
        if not (isinstance(channel, str) and isinstance(ts, str) and channel and ts):
            return None
        return Receipt(channel, ts, self._channel)

    def _log_new_root(self, why: str) -> None:
        facts = {"delivery": self._delivery.id, "notifier": self._notifier.name, "why": why}
        logger.info("the root of a slack thread is gone, a new one begins", extra=facts)

    # --- an earlier attempt that was not answered ---------------------------------------------------------------

    def _find(self, root: Receipt | None) -> Sent | None:
        """Look for the message of an earlier attempt by its metadata; where that cannot be read, the next one says so.

        Raises SlackApiError if Slack asks to wait.
        """
        try:
            found = next((message for page in self._messages(root) for message in page if self._is_mine(message)), None)
        except SlackApiError as fault:
            if fault.response.status_code == 429:
                raise
            self._delivery = _perhaps_repeated(self._delivery)
            return None
        if found is None:
            return None
        logger.info("slack had accepted an earlier attempt", extra={"delivery": self._delivery.id})
        begun = None if root else self._receipt({"channel": self._channel, "ts": found.get("ts")})
        return Sent(receipt=str(begun)) if begun else Sent()

    def _messages(self, root: Receipt | None) -> Iterator[list[Any]]:
        self._limit = self._notifier.read_limit
        since = (self._delivery.since or self._now) - _LOOK_BACK
        page = {"oldest": f"{since.timestamp():.6f}", "include_all_metadata": True, "limit": _PAGE}
        call: Callable[..., SlackResponse] = partial(self._client.conversations_history, channel=self._channel)
        if root:
            call = partial(self._client.conversations_replies, channel=root.channel, ts=root.ts)
        cursor: str | None = None
        for _ in range(_PAGES):
            answer = call(cursor=cursor, **page)
            messages = answer.get("messages")
            yield [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return

    def _is_mine(self, message: Mapping[str, Any]) -> bool:
        match message.get("metadata"):
            case {"event_type": str(kind), "event_payload": {"delivery": str(id_)}}:
                return kind == EVENT_TYPE and id_ == self._delivery.id
        return False

    # --- calls --------------------------------------------------------------------------------------------------

    def _post(self, shown: Delivery, channel: str, *, thread_ts: str | None = None) -> SlackResponse:
        self._limit = self._notifier.limit_of(self._channel)
        post = partial(
            self._client.chat_postMessage,
            channel=channel,
            thread_ts=thread_ts,
            metadata={"event_type": EVENT_TYPE, "event_payload": {"delivery": self._delivery.id}},
            unfurl_links=False,
            unfurl_media=False,
        )
        return self._shown(post, shown)

    def _shown(self, call: Callable[..., SlackResponse], shown: Delivery) -> SlackResponse:
        """Make `call` with blocks; where Slack refuses those, with text only: a plain message beats none."""
        shown = replace(shown, note=self._delivery.note)
        text, made = blocks(shown, self._now)
        try:
            return call(text=text, blocks=made)
        except SlackApiError as fault:
            if not refuses_blocks(error_in(fault.response)):
                raise
            _log_refused_blocks(self._delivery, error_in(fault.response))
        none: list[Block] = []  # an edit without any keeps the old ones
        return call(text=plain(shown, self._now), blocks=none)


def _perhaps_repeated(delivery: Delivery) -> Delivery:
    return replace(delivery, note=" ".join(filter(None, (delivery.note, _REPEATED))))


def may_appear_late(outcome: Outcome) -> Outcome:
    """Return the outcome of a post that was not answered in time: it may appear later, and is then looked for."""
    if isinstance(outcome, RetryLater) and outcome.reason == Reason.TIMEOUT:
        return replace(outcome, after=_LATE_POST)
    return outcome


def _log_refused_blocks(delivery: Delivery, error: str) -> None:
    facts = {"delivery": delivery.id, "error": error}
    logger.warning("slack refused the blocks, sent as plain text", extra=facts)
