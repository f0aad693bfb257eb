"""Slack: posts, threads and edits, and what is kept of the first message of a thread."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Self

from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse

from bridge.http_headers import retry_after
from bridge.model import MAX_RETRY_AFTER, Delivery, Outcome, Sent, SlackNotifier
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
    """Written as "C1:171.5:general:3"; the last one or two parts may be missing in what is read.

    `channel` is Slack's id for what was `configured`, which may be a name. `sequence` is that of the state
    which the message shows; 0 where it is not known, or means nothing.
    """

    channel: str
    ts: str
    configured: str | None = None
    sequence: int = 0

    @classmethod
    def parse(cls, text: str) -> Self | None:
        match = _SHAPE.fullmatch(text)
        return cls(match[1], match[2], match[3], int(match[4] or 0)) if match else None

    def __str__(self) -> str:
        return f"{self.channel}:{self.ts}:{self.configured}:{self.sequence}"


# --- requests -------------------------------------------------------------------------------------------------------

EVENT_TYPE = "ci_bridge_delivery"
_NO_PREVIEWS = {"unfurl_links": False, "unfurl_media": False}

logger = logging.getLogger(__name__)


def post_to_hook(transport: SlackTransport, url: str, delivery: Delivery, now: datetime) -> Outcome:
    """Send one delivery through an incoming webhook."""
    text, made = blocks(delivery, now)
    reply = transport.post(url, {"text": text, "blocks": made, **_NO_PREVIEWS})
    error = error_in(read(reply.body))
    if not hook_accepted(reply) and refuses_blocks(error):
        _log_refused_blocks(delivery, error)
        reply = transport.post(url, {"text": plain(delivery, now), **_NO_PREVIEWS})
        error = error_in(read(reply.body))
    return Sent() if hook_accepted(reply) else refusal(reply.status, error, reply.retry_after(now), webhook=True)


class ApiDelivery:
    """One delivery through the Web API: an edit of the root, a post, or both."""

    def __init__(self, client: SlackWebClient, notifier: SlackNotifier, delivery: Delivery, now: datetime) -> None:
        self._client, self._notifier, self._delivery, self._now = client, notifier, delivery, now
        # A channel must still be one of the notifier's: the rules may have changed since.
        named = delivery.channel if delivery.channel in notifier.channels else None
        self._channel = named or notifier.channel or ""
        self._sequence = _sequence(delivery)

    def post(self) -> Outcome:
        try:
            if root := self._root():
                try:
                    return self._under(root)
                except SlackApiError as fault:
                    if not posts_anew(error_in(fault.response)):
                        raise
                    self._log_new_root(error_in(fault.response))
            return self._begin()
        except SlackApiError as fault:
            asked = fault.response.headers.get("retry-after", "")
            after = retry_after(asked, now=self._now, most=MAX_RETRY_AFTER)
            return refusal(fault.response.status_code, error_in(fault.response), after)

    def _root(self) -> Receipt | None:
        """Return the first message of the thread, if it is needed and in the channel that is now configured."""
        wanted = self._notifier.update or self._notifier.thread != "none"
        root = Receipt.parse(self._delivery.root) if wanted and self._delivery.root else None
        return root if root and root.configured in (None, self._channel) else None

    def _under(self, root: Receipt) -> Sent:
        # The edit goes first, because it can be repeated if the post must be tried again.
        moved = self._edited(root) if self._notifier.update and root.sequence <= self._sequence else None
        if self._notifier.thread != "none":
            posted = self._post(root.channel, thread_ts=root.ts)
            if is_loose(posted.get("message"), posted.get("ts")):
                self._log_new_root("deleted")
                moved = self._receipt(posted) or moved
        return Sent(receipt=str(moved) if moved else None)

    def _edited(self, root: Receipt) -> Receipt:
        # The default of `parse` is "client" for an edit: names would become links (chat.update, read 2026-11-21).
        self._shown(partial(self._client.chat_update, channel=root.channel, ts=root.ts, parse="none"))
        return replace(root, configured=self._channel, sequence=self._sequence)

    def _begin(self) -> Sent:
        begun = self._receipt(self._post(self._channel))
        return Sent(receipt=str(begun) if begun else None)

    def _receipt(self, posted: SlackResponse) -> Receipt | None:
        """Return what makes the message that was posted the root of a thread, if Slack says where it is."""
        channel, ts = posted.get("channel"), posted.get("ts")
        if not (isinstance(channel, str) and isinstance(ts, str) and channel and ts):
            return None
        return Receipt(channel, ts, self._channel, self._sequence)

    def _log_new_root(self, why: str) -> None:
        facts = {"delivery": self._delivery.id, "notifier": self._notifier.name, "why": why}
        logger.info("the root of a slack thread is gone, a new one begins", extra=facts)

    def _post(self, channel: str, *, thread_ts: str | None = None) -> SlackResponse:
        return self._shown(
            partial(
                self._client.chat_postMessage,
                channel=channel,
                thread_ts=thread_ts,
                metadata={"event_type": EVENT_TYPE, "event_payload": {"delivery": self._delivery.id}},
                unfurl_links=False,
                unfurl_media=False,
            )
        )

    def _shown(self, call: Callable[..., SlackResponse]) -> SlackResponse:
        """Make `call` with blocks; where Slack refuses those, with text only: a plain message beats none."""
        text, made = blocks(self._delivery, self._now)
        try:
            return call(text=text, blocks=made)
        except SlackApiError as fault:
            if not refuses_blocks(error_in(fault.response)):
                raise
            _log_refused_blocks(self._delivery, error_in(fault.response))
        none: list[Block] = []  # an edit without any keeps the old ones
        return call(text=plain(self._delivery, self._now), blocks=none)


def _sequence(delivery: Delivery) -> int:
    """Return the number of the state among its job's; 0 in a thread of several jobs: theirs do not compare."""
    event = json.loads(delivery.event)
    of_one_job = (delivery.thread or "").endswith(f"/{event.get('subject')}")
    return int(event.get("sequence", 0)) if of_one_job else 0


def _log_refused_blocks(delivery: Delivery, error: str) -> None:
    facts = {"delivery": delivery.id, "error": error}
    logger.warning("slack refused the blocks, sent as plain text", extra=facts)
