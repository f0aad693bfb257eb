"""A webhook receiver as the Standard Webhooks specification (1.0.0) wants one."""

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

TOLERANCE_S = 5 * 60  # the specification gives no number; its libraries take this


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One POST. `json` is None if the body is none; `fault` says why it is not verified."""

    path: str
    id: str | None
    headers: Mapping[str, str]
    body: bytes
    json: Any
    verified: bool
    fault: str | None
    at: float


class WebhookReceiver(WebServer):
    """Takes POSTs on every path: 204, or 401 if it has secrets and none of them signed.

    `answer` may answer instead; it is asked for bad requests too.
    """

    def __init__(
        self,
        *,
        secrets: Sequence[str] = (),
        answer: Callable[[Received], Answer | None] | None = None,
        clock: Callable[[], float] = time.time,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host=host, port=port, clock=clock)
        self.answer = answer
        self._keys = [_key(secret) for secret in secrets]
        self._received: list[Received] = []
        self._changed = threading.Condition()

    @property
    def received(self) -> list[Received]:
        with self._changed:
            return list(self._received)

    def wait_for(self, predicate: Callable[[list[Received]], Any], timeout: float = 10.0) -> list[Received]:
        """Return what was received once `predicate` holds of it; raise TimeoutError if it never does."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(list(self._received)), timeout):
                raise TimeoutError(f"not within {timeout} s; received {len(self._received)} so far")
            return list(self._received)

    def respond(self, request: Request) -> Answer:
        if request.method != "POST":
            return text_answer("only POST", status=405)
        received = self._judge(request)
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()
        scripted = self.answer(received) if self.answer else None
        if scripted is not None:
            return scripted
        bad = self._keys and not received.verified
        return text_answer(received.fault or "", status=401) if bad else Answer(status=204)

    def _judge(self, request: Request) -> Received:
        fault = why_not(request, keys=self._keys, now=self.now()) if self._keys else "no secret to verify with"
        return Received(
            path=request.path,
            id=request.headers.get("webhook-id"),
            headers=request.headers,
            body=request.body,
            json=_json(request.body),
            verified=fault is None,
            fault=fault,
            at=request.at,
        )


def why_not(request: Request, *, keys: Sequence[bytes], now: float) -> str | None:
    """Return why the request is not verified by any of `keys`, or None."""
    id_, stamp = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
    if not id_ or "." in id_:
        return "webhook-id is missing or has a dot"
    if not (stamp.isascii() and stamp.isdecimal()):
        return "webhook-timestamp is missing or no whole number"
    if abs(now - int(stamp)) > TOLERANCE_S:
        return "webhook-timestamp is more than 5 minutes off"
    signed = f"{id_}.{stamp}.".encode() + request.body
    offered = [s[3:] for s in request.headers.get("webhook-signature", "").split(" ") if s.startswith("v1,")]
    return None if _any_matches(signed, offered, keys) else "no webhook-signature matches"


def _any_matches(signed: bytes, offered: Sequence[str], keys: Sequence[bytes]) -> bool:
    wanted = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in keys]
    return any(hmac.compare_digest(w, o.encode()) for w in wanted for o in offered)


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise ValueError("a secret is whsec_ and base64") from None
    if not key:
        raise ValueError("a secret is whsec_ and base64, not empty")
    return key


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
