"""Slack: posts, threads and edits through slack-sdk, whose calls leave through our door."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse
from slack_sdk.webhook import WebhookClient, WebhookResponse

from bridge.model import Delivery, Outcome, Refused, Sent, SlackNotifier, TryLater
from bridge.send.door import Door
from bridge.send.exchange import Failure, Reply, Request
from bridge.send.mask import Mask
from bridge.send.slack_answers import (
    BLOCKS_REFUSED,
    NOT_UNDERSTOOD,
    ROOT_GONE,
    error_in,
    hook_accepted,
    is_loose,
    read,
    refusal,
)
from bridge.send.slack_blocks import Block, blocks, plain
from bridge.send.slack_receipt import Receipt
from bridge.send.webhook import retry_after

EVENT_TYPE = "ci_bridge_delivery"
DEADLINE_S = 15.0  # of a whole delivery, which makes three calls at most
_NOWHERE = "door:"  # nothing that could be connected to

logger = logging.getLogger(__name__)
_silent = logging.getLogger(f"{__name__}.sdk")
_silent.setLevel(logging.CRITICAL + 1)  # at DEBUG the SDK logs the proxy's URL, which may have a password


@dataclass(frozen=True, slots=True)
class Told:
    """What came of telling Slack."""

    outcome: Outcome
    status: int | None = None
    answer: bytes = b""
    address: str | None = None


class Unreachable(Exception):
    """Slack did not answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.why)
        self.failure = failure


class Line:
    """Carries the requests of one delivery through the door, and keeps the replies."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._left_s = DEADLINE_S
        self.replies: list[Reply] = []

    def post(self, url: str, content: Mapping[str, Any], *headers: str) -> Reply:
        body = json.dumps(content).encode()
        headers = ("Content-Type: application/json; charset=utf-8", *headers)
        ended = self._door.fetch(Request(url, headers, body, max(self._left_s, 0.1)))
        self._left_s -= ended.seconds
        if isinstance(ended, Failure):
            raise Unreachable(ended)
        self.replies.append(ended)
        return ended


class DoorWebClient(WebClient):
    """slack-sdk's client, whose calls leave through the door; its settings of proxy, TLS and time mean nothing here.

    It is told neither token nor address: a request that went another way than through `api_call` would go nowhere.
    """

    def __init__(self, line: Line, *, token: str | None, base_url: str) -> None:
        # The SDK's own handler posts again in silence after a reset connection; the outbox owns retries.
        super().__init__(base_url=_NOWHERE, retry_handlers=[], logger=_silent)
        self._line = line
        self._api_url = base_url.rstrip("/")
        self._authorization = f"Authorization: Bearer {(token or '').strip()}"

    def api_call(self, api_method: str, **asked: Any) -> SlackResponse:
        content = asked.get("json") or asked.get("params") or {}
        reply = self._line.post(f"{self._api_url}/{api_method}", content, self._authorization)
        said = read(reply.body)
        answer = SlackResponse(
            client=self,
            http_verb="POST",
            api_url=api_method,
            req_args={},
            data=said | {"ok": said.get("ok") is True},  # `validate` takes "false" for true
            headers=reply.headers,
            status_code=reply.status,
        )
        answer.validate()  # type: ignore[no-untyped-call]  # the SDK's
        return answer


class DoorWebhookClient(WebhookClient):
    """The same for incoming webhooks."""

    def __init__(self, line: Line, url: str) -> None:
        super().__init__(_NOWHERE, retry_handlers=[], logger=_silent)
        self._line = line
        self._hook_url = url

    def send_dict(self, body: dict[str, Any], headers: dict[str, str] | None = None) -> WebhookResponse:  # noqa: ARG002 - the SDK's signature
        reply = self._line.post(self._hook_url, {key: value for key, value in body.items() if value is not None})
        text = reply.body.decode("utf-8", "replace")
        return WebhookResponse(url=_NOWHERE, status_code=reply.status, body=text, headers=reply.headers)


def token_trouble(notifier: SlackNotifier, api_url: str, door: Door) -> str | None:
    """Ask Slack whether it knows the token; say what is wrong with it, or None."""
    try:
        DoorWebClient(Line(door), token=notifier.token, base_url=api_url).auth_test()
    except Unreachable as fault:
        return str(fault)
    except SlackApiError as fault:
        said = Mask(notifier.hidden)(_error(fault))[:200]
        return f"Slack refuses the token: {said}" if said else NOT_UNDERSTOOD
    return None


class SlackSender:
    """Sends to one notifier. `send` waits for the answer; any thread may call it."""

    def __init__(self, notifier: SlackNotifier, api_url: str, door: Door) -> None:
        self._notifier = notifier
        self._api_url = api_url
        self._door = door

    def send(self, delivery: Delivery, now: datetime) -> Told:
        line = Line(self._door)
        try:
            outcome = self._through(line, delivery, now)
        except Unreachable as fault:
            failure = fault.failure
            said = Refused(failure.why) if failure.forbidden else TryLater(failure.why)
            return Told(said, address=failure.address)
        reply = line.replies[-1] if line.replies else None
        return Told(outcome, reply.status, reply.body, reply.address) if reply else Told(outcome)

    def _through(self, line: Line, delivery: Delivery, now: datetime) -> Outcome:
        if self._notifier.url:
            return _Hook(line, self._notifier.url, delivery, now).tell()
        client = DoorWebClient(line, token=self._notifier.token, base_url=self._api_url)
        try:
            return _Conversation(client, self._notifier, delivery, now).tell()
        except SlackApiError as fault:
            return _refusal(fault, now)


class _Hook:
    """One delivery through an incoming webhook."""

    def __init__(self, line: Line, url: str, delivery: Delivery, now: datetime) -> None:
        self._line, self._client = line, DoorWebhookClient(line, url)
        self._delivery, self._now = delivery, now

    def tell(self) -> Outcome:
        text, shown = blocks(self._delivery, self._now)
        reply = self._post(text=text, blocks=shown)
        if not hook_accepted(reply) and (error := error_in(read(reply.body))) in BLOCKS_REFUSED:
            _log_refused_blocks(self._delivery, error)
            reply = self._post(text=plain(self._delivery, self._now))
        if hook_accepted(reply):
            return Sent()
        return refusal(reply.status, error_in(read(reply.body)), retry_after(reply.headers, self._now), webhook=True)

    def _post(self, *, text: str, blocks: list[Block] | None = None) -> Reply:
        self._client.send(text=text, blocks=blocks, unfurl_links=False, unfurl_media=False)
        return self._line.replies[-1]


class _Conversation:
    """One delivery through the Web API: an edit of the root, a post, or both."""

    def __init__(self, client: DoorWebClient, notifier: SlackNotifier, delivery: Delivery, now: datetime) -> None:
        self._client, self._notifier, self._delivery, self._now = client, notifier, delivery, now
        # What is no longer among them is not told there: the rules may have changed since.
        meant = delivery.channel if delivery.channel in notifier.channels else None
        self._channel = meant or notifier.channel or ""
        self._sequence = _sequence(delivery)

    def tell(self) -> Outcome:
        if root := self._root():
            try:
                return self._under(root)
            except SlackApiError as fault:
                if _error(fault) not in ROOT_GONE:
                    raise
                self._log_new_root(_error(fault))
        return self._begin()

    def _root(self) -> Receipt | None:
        """Return the first message of the thread, if it is of use and in the channel that is now configured."""
        wanted = self._notifier.update or self._notifier.thread != "none"
        root = Receipt.parse(self._delivery.root) if wanted and self._delivery.root else None
        return root if root and root.configured in (None, self._channel) else None

    def _under(self, root: Receipt) -> Sent:
        # The edit goes first because doing it again does no harm if the post must be tried again.
        moved = self._edited(root) if self._notifier.update and root.sequence <= self._sequence else None
        if self._notifier.thread != "none":
            posted = self._post(root.channel, thread_ts=root.ts)
            if is_loose(posted.get("message"), posted.get("ts")):
                self._log_new_root("deleted")
                moved = self._receipt(posted) or moved
        return Sent(receipt=str(moved) if moved else None)

    def _edited(self, root: Receipt) -> Receipt:
        # Left out, `parse` is "client" for an edit: names would become links (chat.update, read 2026-11-21).
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
            if _error(fault) not in BLOCKS_REFUSED:
                raise
            _log_refused_blocks(self._delivery, _error(fault))
        none: list[Block] = []  # an edit without any keeps the old ones
        return call(text=plain(self._delivery, self._now), blocks=none)


def _sequence(delivery: Delivery) -> int:
    """Return the number of the told state among its job's; 0 in a thread of several jobs: theirs do not compare."""
    event = json.loads(delivery.event)
    of_one_job = (delivery.thread or "").endswith(f"/{event.get('subject')}")
    return int(event.get("sequence", 0)) if of_one_job else 0


def _refusal(fault: SlackApiError, now: datetime) -> Outcome:
    response = fault.response
    return refusal(response.status_code, _error(fault), retry_after(response.headers, now))


def _error(fault: SlackApiError) -> str:
    return error_in(fault.response)


def _log_refused_blocks(delivery: Delivery, error: str) -> None:
    facts = {"delivery": delivery.id, "error": error}
    logger.warning("slack refused the blocks, told as plain text", extra=facts)
