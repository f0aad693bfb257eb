"""Notifiers of the type "webhook": Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, read 2026-11-21
"""

from __future__ import annotations

import binascii
import hmac
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from bridge.display import pretty_json, visible_json
from bridge.model import Delivery, Outcome, Reason, Rejected, RetryLater, Sent
from bridge.notifiers import WebhookNotifier
from bridge.send.http_types import Failure, Reply, Request, reason_of
from bridge.send.integration import MASKED, PATH, Check, Egress, OneRequest, Preview, check_address
from bridge.url import origin

_PREFIX = "whsec_"
_CONTENT_TYPES = {"json": "application/json", "cloudevents": "application/cloudevents+json"}


class Webhook(OneRequest):
    def __init__(self, notifier: WebhookNotifier) -> None:
        self._notifier = notifier
        self._keys = [binascii.a2b_base64(secret.removeprefix(_PREFIX)) for secret in notifier.secrets]
        self._headers = tuple(f"{name}: {value}" if value else f"{name};" for name, value in notifier.headers)

    def request(self, delivery: Delivery, now: datetime) -> Request:
        id, timestamp = delivery.id, int(now.timestamp())  # noqa: A001 - the word of the specification
        content_type, text = _CONTENT_TYPES["json"], delivery.body
        if text is None:
            content_type = _CONTENT_TYPES[self._notifier.format]
            note = f'"note":{json.dumps(delivery.note, ensure_ascii=False)},' if delivery.note else ""
            text = f'{{"specversion":"1.0","id":{json.dumps(id)},{note}{delivery.event[1:]}'
        body = text.encode()
        headers: tuple[str, ...] = (f"webhook-id: {id}", f"webhook-timestamp: {timestamp}")
        headers += (f"content-type: {content_type}", *self._headers)
        if self._keys:
            headers += (f"webhook-signature: {self.signatures(id, timestamp, body)}",)
        return Request(self._notifier.url, headers, body)

    def signatures(self, id: str, timestamp: int, body: bytes) -> str:  # noqa: A002 - as above
        """Return one signature for each secret, separated by spaces; `timestamp` in seconds."""
        signed = f"{id}.{timestamp}.".encode() + body
        digests = (hmac.digest(key, signed, "sha256") for key in self._keys)
        return " ".join("v1," + binascii.b2a_base64(digest, newline=False).decode() for digest in digests)

    def outcome(self, ended: Reply | Failure, now: datetime) -> Outcome:
        if isinstance(ended, Failure):
            return ended.outcome
        status = ended.status
        if 200 <= status < 300:
            return Sent()
        why, reason = f"answered {status} {_phrase(status)}".rstrip(), reason_of(status)
        if status == HTTPStatus.GONE:
            return Rejected(f"the receiver {why}: it wants no more deliveries", Reason.GONE, pause=True)
        if 300 <= status < 400:
            return RetryLater(f"{why}{_new_host(ended)}: redirects are not followed, update the url", reason)
        after = ended.retry_after(now) if status in (429, 503) else None
        # Any other 4xx is tried again too: receivers deploy 401, 403 and 404 by mistake.
        return RetryLater(why, reason, after=after, whole_notifier=after is not None)

    def facts(self) -> dict[str, Any]:
        notifier = self._notifier
        return {"target": origin(notifier.url), "signed": bool(notifier.secrets), "order": notifier.order}

    def preview(self, delivery: Delivery, *, at: datetime, agent: str) -> Preview:
        """Return the request with what may be a secret masked, and a curl command."""
        notifier = self._notifier
        headers = tuple((name, MASKED if value else "") for name, value in notifier.headers)
        bare = replace(notifier, url=f"{origin(notifier.url)}{PATH}", secrets=(), headers=headers)
        request = Webhook(bare).request(delivery, at)
        lines = [*request.headers, f"user-agent: {agent}"]
        if notifier.secrets:
            lines.append(f"webhook-signature: {' '.join([f'v1,{MASKED}'] * len(notifier.secrets))}")
        text = request.body.decode()
        return Preview(
            address=request.url,
            headers=[(name.removesuffix(";"), value.strip()) for name, _, value in (ln.partition(":") for ln in lines)],
            body=pretty_json(json.loads(text)),
            curl=curl(request.url, lines, visible_json(text)),
        )

    def check(self, egress: Egress) -> Sequence[Check]:
        return [check_address(self._notifier.url, egress.client)]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _new_host(reply: Reply) -> str:
    """Return the host that a redirect leads to, as " to HOST"; the rest may be a secret."""
    try:
        host = urlsplit(reply.headers.get("location", "")).hostname
    except ValueError:
        host = None
    return f" to {host}" if host else ""


def curl(url: str, headers: Sequence[str], body: str) -> str:
    """Return a command that posts this, exactly, in any POSIX shell."""
    # --data-raw, because --data reads a file where the text begins with @.
    parts = [f"curl -X POST {shlex.quote(url)}", *(f"-H {shlex.quote(line)}" for line in headers)]
    return " \\\n  ".join([*parts, f"--data-raw {shlex.quote(body)}"])
