"""Standard Webhooks: what is sent to a receiver, and what its answer means. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, read 2026-11-21
"""

from __future__ import annotations

import binascii
import hmac
import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from bridge.model import Delivery, Outcome, Refused, Sent, TryLater, WebhookNotifier
from bridge.send.exchange import Failure, Reply, Request

RETRY_AFTER_LIMIT = timedelta(hours=24)
_PREFIX = "whsec_"
_CONTENT_TYPES = {"json": "application/json", "cloudevents": "application/cloudevents+json"}


class WebhookSender:
    """Makes the requests of one notifier."""

    def __init__(self, notifier: WebhookNotifier) -> None:
        self._url = notifier.url
        self._keys = [binascii.a2b_base64(secret.removeprefix(_PREFIX)) for secret in notifier.secrets]
        self._content_type = _CONTENT_TYPES[notifier.format]
        self._headers = tuple(f"{name}: {value}" if value else f"{name};" for name, value in notifier.headers)

    def request(self, delivery: Delivery, now: datetime) -> Request:
        id, timestamp = delivery.id, int(now.timestamp())  # noqa: A001 - the word of the specification
        content_type, text = _CONTENT_TYPES["json"], delivery.body
        if text is None:
            content_type = self._content_type
            note = f'"note":{json.dumps(delivery.note, ensure_ascii=False)},' if delivery.note else ""
            text = f'{{"specversion":"1.0","id":{json.dumps(id)},{note}{delivery.event[1:]}'
        body = text.encode()
        headers: tuple[str, ...] = (f"webhook-id: {id}", f"webhook-timestamp: {timestamp}")
        headers += (f"content-type: {content_type}", *self._headers)
        if self._keys:
            headers += (f"webhook-signature: {self.signatures(id, timestamp, body)}",)
        return Request(self._url, headers, body)

    def signatures(self, id: str, timestamp: int, body: bytes) -> str:  # noqa: A002 - as above
        """Return one signature for each secret, separated by spaces; `timestamp` in seconds."""
        signed = f"{id}.{timestamp}.".encode() + body
        return " ".join([_signature(key, signed) for key in self._keys])


def judge(ended: Reply | Failure, now: datetime) -> Outcome:
    """Return what the end of a request means for the delivery."""
    if isinstance(ended, Failure):
        return Refused(ended.why) if ended.forbidden else TryLater(ended.why)
    status = ended.status
    if 200 <= status < 300:
        return Sent()
    why = f"answered {status} {_phrase(status)}".rstrip()
    if status == HTTPStatus.GONE:
        return Refused(f"the receiver {why}: it wants no more deliveries", pause=True)
    if 300 <= status < 400:
        return TryLater(_redirected(why, ended))
    after = retry_after(ended.headers, now) if status in (429, 503) else None
    # Any other 4xx is tried again too: receivers deploy 401, 403 and 404 by mistake.
    return TryLater(why, after=after, everyone=after is not None)


def retry_after(headers: dict[str, str], now: datetime) -> timedelta | None:
    """Return the wish of a Retry-After header, at most a day; None if there is none that makes sense."""
    text = headers.get("retry-after", "")
    try:
        if text.isascii() and text.isdecimal():
            return timedelta(seconds=min(int(text), RETRY_AFTER_LIMIT.total_seconds()))
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second of a year or a zone with too many digits
        return None
    wish = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(wish, RETRY_AFTER_LIMIT) if wish > timedelta() else None


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + binascii.b2a_base64(hmac.digest(key, signed, "sha256"), newline=False).decode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _redirected(why: str, reply: Reply) -> str:
    try:
        host = urlsplit(reply.headers.get("location", "")).hostname  # the rest may be a secret
    except ValueError:
        host = None
    return f"{why}{f' to {host}' if host else ''}: redirects are not followed, update the url"
