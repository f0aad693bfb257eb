"""Slack: posts, threads and edits through slack-sdk, whose requests leave through our door."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from urllib import request as urllib_request

import structlog
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse
from slack_sdk.webhook import WebhookClient, WebhookResponse

from bridge.model import Delivery, Outcome, Refused, Sent, SlackNotifier, TryLater
from bridge.send.door import Door
from bridge.send.exchange import Failure, Reply, Request
from bridge.send.mask import Mask
from bridge.send.slack_answers import BLOCKS_REFUSED, NOT_UNDERSTOOD, ROOT_GONE, refusal
from bridge.send.slack_blocks import Block, blocks, plain
from bridge.send.slack_receipt import Receipt
from bridge.send.webhook import retry_after

EVENT_TYPE = "ci_bridge_delivery"
DEADLINE_S = 15.0  # of a whole delivery, which makes three calls at most

log = structlog.get_logger(__name__)
_silent = logging.getLogger(f"{__name__}.sdk")
_silent.setLevel(logging.CRITICAL + 1)  # at DEBUG the SDK logs the webhook's URL, which is a secret


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
    """Carries the SDK's requests of one delivery through the door, and keeps the last reply."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._left_s = DEADLINE_S
        self.reply: Reply | None = None

    def carry(self, asked: urllib_request.Request) -> Reply:
        headers = tuple(f"{name}: {value}" for name, value in asked.header_items() if name.lower() != "content-length")
        assert isinstance(asked.data, bytes | None)  # noqa: S101 - for mypy: the SDK encodes all it posts
        ended = self._door.fetch(Request(asked.full_url, headers, asked.data or b"", max(self._left_s, 0.1)))
        self._left_s -= ended.seconds
        if isinstance(ended, Failure):
            raise Unreachable(ended)
        self.reply = ended
        return ended


class DoorWebClient(WebClient):
    """slack-sdk's client with its transport replaced; its proxy setting means nothing here."""

    def __init__(self, line: Line, *, token: str | None, base_url: str) -> None:
        # The SDK's own handler posts again in silence after a reset connection; the outbox owns retries.
        super().__init__(token=token, base_url=base_url, retry_handlers=[], logger=_silent)
        self._line = line

    def _perform_urllib_http_request_internal(
        self,
        url: str,  # noqa: ARG002 - the SDK's signature; `req` has it too
        req: urllib_request.Request,
    ) -> dict[str, Any]:
        reply = self._line.carry(req)
        return {"status": reply.status, "headers": reply.headers, "body": _object_text(reply)}


class DoorWebhookClient(WebhookClient):
    """The same for incoming webhooks."""

    def __init__(self, line: Line, url: str) -> None:
        super().__init__(url, retry_handlers=[], logger=_silent)
        self._line = line

    def _perform_http_request_internal(self, url: str, req: urllib_request.Request) -> WebhookResponse:
        reply = self._line.carry(req)
        return WebhookResponse(url=url, status_code=reply.status, body=_text(reply), headers=reply.headers)


def token_trouble(notifier: SlackNotifier, api_url: str, door: Door) -> str | None:
    """Ask Slack whether it knows the token; say what is wrong with it, or None."""
    try:
        DoorWebClient(Line(door), token=notifier.token, base_url=api_url).auth_test()
    except Unreachable as fault:
        return str(fault)
    except SlackApiError as fault:
        said = Mask(notifier.hidden)(_error(fault))
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
        reply = line.reply
        return Told(outcome, reply.status, reply.body, reply.address) if reply else Told(outcome)

    def _through(self, line: Line, delivery: Delivery, now: datetime) -> Outcome:
        if self._notifier.url:
            return _Hook(DoorWebhookClient(line, self._notifier.url), delivery, now).tell()
        client = DoorWebClient(line, token=self._notifier.token, base_url=self._api_url)
        try:
            return _Conversation(client, self._notifier, delivery, now).tell()
        except SlackApiError as fault:
            return _refusal(fault, now)


class _Hook:
    """One delivery through an incoming webhook."""

    def __init__(self, client: DoorWebhookClient, delivery: Delivery, now: datetime) -> None:
        self._client, self._delivery, self._now = client, delivery, now

    def tell(self) -> Outcome:
        text, shown = blocks(self._delivery, self._now)
        answer = self._client.send(text=text, blocks=shown, unfurl_links=False, unfurl_media=False)
        if answer.body.strip() in BLOCKS_REFUSED:
            _log_refused_blocks(self._delivery, answer.body.strip())
            answer = self._client.send(text=plain(self._delivery, self._now), unfurl_links=False, unfurl_media=False)
        if answer.status_code == 200:
            return Sent()
        after = retry_after(answer.headers, self._now)
        return refusal(answer.status_code, answer.body.strip(), after, webhook=True)


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
            self._post(root.channel, thread_ts=root.ts)
        return Sent(receipt=str(moved) if moved else None)

    def _edited(self, root: Receipt) -> Receipt:
        # Left out, `parse` is "client" for an edit: names would become links (chat.update, read 2026-11-21).
        self._shown(partial(self._client.chat_update, channel=root.channel, ts=root.ts, parse="none"))
        return replace(root, configured=self._channel, sequence=self._sequence)

    def _begin(self) -> Sent:
        posted = self._post(self._channel)
        if not (posted.get("channel") and posted.get("ts")):
            return Sent()
        return Sent(receipt=str(Receipt(posted["channel"], posted["ts"], self._channel, self._sequence)))

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
    return str(fault.response.get("error") or "")


def _log_refused_blocks(delivery: Delivery, error: str) -> None:
    log.warning("slack refused the blocks, told as plain text", delivery=delivery.id, error=error)


def _text(reply: Reply) -> str:
    return reply.body.decode("utf-8", "replace")


def _object_text(reply: Reply) -> str:
    """Return the body; "{}" for JSON that is no object, at which the SDK would stumble."""
    text = _text(reply)
    try:
        return text if isinstance(json.loads(text), dict) else "{}"
    except ValueError:
        return text
