"""Standard Webhooks: what is sent to a receiver. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, read 2026-11-21
"""

from __future__ import annotations

import binascii
import hmac
import json
from datetime import datetime

from bridge.model import Delivery, Outcome, WebhookNotifier
from bridge.send.http_types import Failure, Reply, Request
from bridge.send.notifier_type import OneRequest
from bridge.send.webhook.answer import judge

_PREFIX = "whsec_"
_CONTENT_TYPES = {"json": "application/json", "cloudevents": "application/cloudevents+json"}


class WebhookSender(OneRequest):
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

    def outcome(self, ended: Reply | Failure, now: datetime) -> Outcome:
        return judge(ended, now)

    def signatures(self, id: str, timestamp: int, body: bytes) -> str:  # noqa: A002 - as above
        """Return one signature for each secret, separated by spaces; `timestamp` in seconds."""
        signed = f"{id}.{timestamp}.".encode() + body
        return " ".join([_signature(key, signed) for key in self._keys])


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + binascii.b2a_base64(hmac.digest(key, signed, "sha256"), newline=False).decode()
