"""Slack: posts, threads and edits, and what is kept of the first message of a thread."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse

from bridge.http_headers import retry_after
from bridge.model import (
    MAX_RETRY_AFTER,
    Content,
    Delivery,
    Outcome,
    Reason,
    Rejected,
    RetryLater,
    RootEdit,
    Sent,
    SharedLimit,
    is_of_incident,
)
from bridge.notifiers import SlackNotifier
from bridge.send.chat import perhaps_repeated
from bridge.send.http_types import Reply
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
from bridge.send.slack.client import DEADLINE_S, SlackTransport, SlackWebClient, Unreachable
from bridge.send.slack.history import ThreadGone, Unreadable, find, metadata

# --- what is kept of the first message of a thread, so that later ones find it --------------------------------------

_SHAPE = re.compile(r"([^:]+):([^:]+)(?::(.+?)(?::(\d{1,9}))?)?")
_PLACE = re.compile(r"[\w.-]{1,100}")  # a channel's id, or a message's time, in an answer


@dataclass(frozen=True, slots=True)
class Receipt:
    """Written as "C1:171.5:general"; the last part may be missing in what is read.

    `channel` is Slack's id for what was `configured`, which may be a name. The fourth part is the sequence of the state
    that the message shows, unless that is 0: older versions edit only what is older.
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
        sequence = str(self.sequence) if self.sequence and self.configured else None
        return ":".join(filter(None, (self.channel, self.ts, self.configured, sequence)))


# --- requests -------------------------------------------------------------------------------------------------------

_NO_PREVIEWS = {"unfurl_links": False, "unfurl_media": False}
_LATE_POST = timedelta(seconds=10)  # so long after an attempt that was not answered its message may still appear
_LOOK_UP_LEAVES_S = DEADLINE_S / 2  # of the deadline, for the post
_REMEMBERED = 1000  # deliveries
_PASSING = (Reason.SERVER_ERROR, Reason.TIMEOUT, Reason.CONNECTION)
_LAST_WAIT = 2  # the number of the last attempt that does not post because reading the history failed

logger = logging.getLogger(__name__)


class RefusedBlocks:
    """Remembers whose blocks Slack refused: that may have used up a limit, so a later attempt sends the plain text."""

    def __init__(self) -> None:
        self._of: set[tuple[str, int]] = set()

    def add(self, delivery: Delivery, error: str) -> None:
        logger.warning("slack refused the blocks, sent as plain text", extra={"delivery": delivery.id, "error": error})
        if len(self._of) >= _REMEMBERED:
            self._of.clear()
        self._of.add((delivery.id, delivery.wanted_no))

    def __contains__(self, delivery: Delivery) -> bool:
        return (delivery.id, delivery.wanted_no) in self._of


def post_to_hook(
    transport: SlackTransport, notifier: SlackNotifier, delivery: Delivery, *, now: datetime, refused: RefusedBlocks
) -> Outcome:
    """Send one delivery through an incoming webhook."""
    url, limit = notifier.url or "", notifier.limit_of(None)
    shown = perhaps_repeated(delivery) if delivery.unsure_at else delivery
    if delivery not in refused:
        text, made = blocks(shown, now, notifier)
        reply = transport.post(url, {"text": text, "blocks": made, **_NO_PREVIEWS})
        error = error_in(read(reply.body))
        if hook_accepted(reply) or not refuses_blocks(error):
            return _of_hook(reply, now, limit)
        refused.add(delivery, error)
    return _of_hook(transport.post(url, {"text": plain(shown, now), **_NO_PREVIEWS}), now, limit)


def _of_hook(reply: Reply, now: datetime, limit: SharedLimit) -> Outcome:
    if hook_accepted(reply):
        return Sent()
    return _limited(refusal(reply.status, error_in(read(reply.body)), reply.retry_after(now), webhook=True), limit)


def _limited(outcome: Outcome, limit: SharedLimit | None) -> Outcome:
    """Return the outcome with the limit that was reached, if one was."""
    if limit and isinstance(outcome, RetryLater) and outcome.reason == Reason.RATE_LIMITED:
        return replace(outcome, whole_notifier=False, limit=limit.name)
    return outcome


class MayAppear(Exception):
    """An attempt that was not answered is too young to be sure that Slack did not accept it."""

    def __init__(self, time: timedelta) -> None:
        super().__init__()
        self.time = time


class ApiCalls:
    """What one delivery, or one edit, needs of the Web API."""

    def __init__(
        self, client: SlackWebClient, notifier: SlackNotifier, delivery: Delivery, *, now: datetime,
        refused: RefusedBlocks,
    ) -> None:  # fmt: skip
        self._client, self._notifier, self._delivery, self._now = client, notifier, delivery, now
        self._refused = refused
        # A channel must still be one of the notifier's: the rules may have changed since.
        named = delivery.channel if delivery.channel in notifier.channels else None
        self._channel = named or notifier.channel or ""
        self._limit: SharedLimit | None = None  # that the last call used up
        self._may_repeat = False  # an earlier attempt may have posted the message, and cannot be looked for

    def post(self) -> Outcome:
        """Post a reply under the root, or a new root, unless an earlier attempt turns out to have done so."""
        try:
            return self._posted()
        except MayAppear as waits:
            return RetryLater("an earlier attempt may still appear in Slack", Reason.UNCONFIRMED, after=waits.time)
        except SlackApiError as fault:
            return self._refusal(fault)

    def _posted(self) -> Sent:
        if root := self._root():
            try:
                return self._under(root)
            except ThreadGone as gone:
                self._log_new_root(str(gone))
        return self._found(None) or self._begun()

    def edit(self) -> Outcome:
        """Edit the root to show what it should."""
        root, notifier = Receipt.parse(self._delivery.root or ""), self._notifier
        if root is None or notifier.url or root.configured not in (None, notifier.channel, *notifier.channels):
            return Rejected("the root is not in a channel of the notifier", Reason.GONE)
        if root.sequence > self._delivery.sequence:
            return Sent(receipt=str(root), shown_no=self._shown_no)  # a worker of an older version was faster
        try:
            return self._edited(root)
        except SlackApiError as fault:
            outcome, error = self._refusal(fault), error_in(fault.response)
            # Its channel may be another one than the configured name now means, but not than the id.
            is_of_channel = isinstance(outcome, Rejected) and outcome.pause and root.channel == root.configured
            if not posts_anew(error) or is_of_channel:
                return outcome
            return Rejected(f"Slack says {error}: the root cannot be edited any more", Reason.GONE)

    def _refusal(self, fault: SlackApiError) -> Outcome:
        asked = fault.response.headers.get("retry-after", "")
        after = retry_after(asked, now=self._now, most=MAX_RETRY_AFTER)
        return _limited(refusal(fault.response.status_code, error_in(fault.response), after), self._limit)

    # --- roots, replies and edits -------------------------------------------------------------------------------

    def _root(self) -> Receipt | None:
        """Return the first message of the thread, if it is needed and in the channel that is now configured."""
        wanted = self._notifier.update or self._notifier.thread != "none" or self._is_of_incident
        root = Receipt.parse(self._delivery.root) if wanted and self._delivery.root else None
        return root if root and root.configured in (None, self._channel) else None

    def _under(self, root: Receipt) -> Sent:
        try:
            if (
                self._notifier.shows_by_edits and not self._is_of_incident
            ):  # it was put into the outbox before there was a root
                return self._edited(root)
            return self._found(root) or self._replied(root)
        except SlackApiError as fault:
            if posts_anew(error := error_in(fault.response)):
                raise ThreadGone(error) from fault
            raise

    def _replied(self, root: Receipt) -> Sent:
        posted = self._post(self._delivery, root.channel, thread_ts=root.ts)
        if not is_loose(posted.get("message"), posted.get("ts")):
            return Sent()
        self._log_new_root("deleted")
        return Sent(receipt=self._receipt(posted))

    def _edited(self, root: Receipt) -> Sent:
        self._limit = self._notifier.edit_limit
        # The default of `parse` is "client" for an edit: names would become links (chat.update, read 2026-11-21).
        edit = partial(self._client.chat_update, channel=root.channel, ts=root.ts, parse="none")
        self._shown(edit, self._newest())
        shown = self._newest().sequence
        edited = replace(root, configured=root.configured or self._channel, sequence=shown)
        return Sent(receipt=str(edited), shown_no=self._shown_no)

    def _begun(self) -> Sent:
        newest = self._newest()
        receipt = self._receipt(self._post(newest, self._channel), newest.sequence)
        return Sent(receipt=receipt, shown_no=self._shown_no if receipt else 0)

    def _newest(self) -> Delivery:
        """Return the delivery as the root shows it: in the newest state, but mentioning whom its own rule does."""
        wanted = self._wanted
        if wanted is None:
            return self._delivery
        says, own = json.loads(wanted.says), json.loads(self._delivery.says)
        says["mention"] = own.get("mention") if not isinstance(self._delivery, RootEdit) else None
        return replace(self._delivery, says=json.dumps(says), event=wanted.event, happened_at=wanted.happened_at)

    @property
    def _shown_no(self) -> int:
        return self._delivery.wanted_no if self._wanted else 0

    @property
    def _wanted(self) -> Content | None:
        """What the root should show, unless this delivery is newer: a worker of an older version put that there."""
        is_edited = self._notifier.updates or self._is_of_incident
        return self._delivery.wanted if is_edited and not self._delivery.is_newer_than_wanted else None

    @property
    def _is_of_incident(self) -> bool:
        return is_of_incident(self._delivery.thread)

    def _receipt(self, posted: Mapping[str, Any] | SlackResponse, shows: int = 0) -> str | None:
        """Return what makes the message that was posted the root of a thread, if Slack says where it is."""
        channel, ts = posted.get("channel"), posted.get("ts")
        if isinstance(channel, str) and isinstance(ts, str) and _PLACE.fullmatch(channel) and _PLACE.fullmatch(ts):
            return str(Receipt(channel, ts, self._channel, shows))
        return None

    def _log_new_root(self, why: str) -> None:
        facts = {"delivery": self._delivery.id, "notifier": self._notifier.name, "why": why}
        logger.info("the root of a slack thread is gone, a new one begins", extra=facts)

    # --- an earlier attempt that was not answered ---------------------------------------------------------------

    def _found(self, root: Receipt | None) -> Sent | None:
        """Return what an earlier attempt has sent under the root, or (None) into the channel, if it may have.

        Where that cannot be read, the message will say so. Raises SlackApiError or Unreachable if it can soon.
        """
        self._may_repeat = False
        if not self._delivery.unsure_at:
            return None
        try:
            with self._client.transport.leaving(_LOOK_UP_LEAVES_S):
                return self._looked_for(root)
        except Unreadable:
            pass
        except (SlackApiError, Unreachable) as fault:
            if self._is_worth_waiting(fault):
                raise
        self._may_repeat = True
        return None

    def _looked_for(self, root: Receipt | None) -> Sent | None:
        self._limit = self._notifier.look_up_limit
        channel, thread_ts = (root.channel, root.ts) if root else (self._channel, None)
        message = find(self._client, self._delivery, channel=channel, thread_ts=thread_ts, now=self._now)
        if message is None:
            waits = (self._delivery.unsure_at or self._now) + _LATE_POST - self._now
            if timedelta() < waits <= _LATE_POST:  # longer: the clock was set back
                raise MayAppear(waits)
            return None
        logger.info("slack had accepted an earlier attempt", extra={"delivery": self._delivery.id})
        return Sent(receipt=None if root else self._receipt({"channel": channel, "ts": message.get("ts")}))

    def _is_worth_waiting(self, fault: SlackApiError | Unreachable) -> bool:
        """Tell whether what stopped a look-up may pass. What Slack asks for is waited for, the rest not for long."""
        outcome = fault.failure.outcome if isinstance(fault, Unreachable) else self._refusal(fault)
        if not isinstance(outcome, RetryLater):
            return False
        may_pass = outcome.reason in _PASSING and self._delivery.attempts - self._delivery.lost <= _LAST_WAIT
        return may_pass or outcome.reason == Reason.RATE_LIMITED

    # --- calls --------------------------------------------------------------------------------------------------

    def _post(self, shown: Delivery, channel: str, *, thread_ts: str | None = None) -> SlackResponse:
        self._limit = self._notifier.limit_of(self._channel)
        post = partial(
            self._client.chat_postMessage,
            channel=channel,
            thread_ts=thread_ts,
            metadata=metadata(self._delivery),
            unfurl_links=False,
            unfurl_media=False,
        )
        return self._shown(post, perhaps_repeated(shown) if self._may_repeat else shown, is_reply=thread_ts is not None)

    def _shown(self, call: Callable[..., SlackResponse], shown: Delivery, *, is_reply: bool = False) -> SlackResponse:
        """Make `call` with blocks; where Slack refuses those, with text only: a plain message beats none."""
        if self._delivery not in self._refused:
            text, made = blocks(shown, self._now, self._notifier, is_reply=is_reply)
            try:
                return call(text=text, blocks=made)
            except SlackApiError as fault:
                if not refuses_blocks(error := error_in(fault.response)):
                    raise
                self._refused.add(self._delivery, error)
        none: list[Block] = []  # an edit without any keeps the old ones
        return call(text=plain(shown, self._now), blocks=none)


def may_appear_late(outcome: Outcome) -> Outcome:
    """Return the outcome of a post that was not answered in time: it may appear later, and is then looked for."""
    if isinstance(outcome, RetryLater) and outcome.reason == Reason.TIMEOUT:
        return replace(outcome, after=_LATE_POST)
    return outcome
