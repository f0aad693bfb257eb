"""A webhook receiver that verifies signatures as the Standard Webhooks specification (1.0.0) says."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.simulator.web import Answer, Request, WebServer, text_answer

TOLERANCE_S = 5 * 60  # the specification gives no number; its libraries use this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One POST. `json` is None if the body is not JSON; `fault` says why the signature is not verified."""

    path: str
    id: str | None
    headers: Mapping[str, str]
    body: bytes
    json: Any
    fault: str | None
    at: float

    @property
    def verified(self) -> bool:
        return self.fault is None


class WebhookReceiver(WebServer):
    """Accepts POSTs on every path: 204, or 401 if it has secrets and none of them signed; `answer` may replace that."""

    def __init__(
        self,
        *,
        secrets: Sequence[str] = (),
        answer: Callable[[Received], Answer | None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        port: int = 0,
    ) -> None:
        super().__init__(port=port, clock=clock)
        self.answer = answer
        self._keys = [_key(secret) for secret in secrets]
        self._received: list[Received] = []
        self._lock = threading.Lock()

    @property
    def received(self) -> list[Received]:
        with self._lock:
            return list(self._received)

    def respond(self, request: Request) -> Answer:
        if request.method != "POST":
            return text_answer("only POST", status=405)
        received = Received(
            path=request.path,
            id=request.headers.get("webhook-id"),
            headers=request.headers,
            body=request.body,
            json=_json(request.body),
            fault=self._fault_of(request) if self._keys else "no secret to verify with",
            at=request.at,
        )
        with self._lock:
            self._received.append(received)
        refused = self._keys and not received.verified
        return self.answer(received) or (
            text_answer(received.fault or "", status=401) if refused else Answer(status=204)
        )

    def _fault_of(self, request: Request) -> str | None:
        id_, timestamp = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
        if not id_ or "." in id_:
            return "webhook-id is missing or has a dot"
        if not (timestamp.isascii() and timestamp.isdecimal()):
            return "webhook-timestamp is missing or not a whole number"
        if abs(self.now() - int(timestamp)) > TOLERANCE_S:
            return "webhook-timestamp is more than 5 minutes off"
        content = f"{id_}.{timestamp}.".encode() + request.body
        offered = [s[3:] for s in request.headers.get("webhook-signature", "").split(" ") if s.startswith("v1,")]
        for key in self._keys:
            wanted = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())
            if any(hmac.compare_digest(wanted, signature.encode()) for signature in offered):
                return None
        return "no webhook-signature matches"


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError("a secret is whsec_ and base64")
    return key


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
