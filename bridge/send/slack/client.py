"""slack-sdk's client, whose calls are made by our HTTP client."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from slack_sdk import WebClient
from slack_sdk.web import SlackResponse

from bridge.send.client import HttpClient
from bridge.send.http_types import Failure, Reply, Request
from bridge.send.slack.answer import read

DEADLINE_S = 15.0  # of a whole delivery, whatever calls it makes
_SHORTEST_S = 0.1
_NOWHERE = "bridge:"  # nothing that could be connected to

_silent = logging.getLogger(f"{__name__}.sdk")
_silent.setLevel(logging.CRITICAL + 1)  # at DEBUG the SDK logs the proxy's URL, which may have a password


class Unreachable(Exception):
    """Slack did not answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.why)
        self.failure = failure


class SlackTransport:
    """Carries the requests of one delivery to the HTTP client, and keeps the last reply."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._left_s = DEADLINE_S
        self.last: Reply | None = None

    @contextmanager
    def leaving(self, seconds: float) -> Iterator[None]:
        """Let the requests that are sent inside leave so much of the deadline to those after them."""
        self._left_s -= seconds
        try:
            yield
        finally:
            self._left_s += seconds

    def post(self, url: str, content: Mapping[str, Any], *headers: str) -> Reply:
        return self._send(url, "Content-Type: application/json; charset=utf-8", *headers, body=json.dumps(content))

    def read(self, url: str, fields: Mapping[str, Any], *headers: str) -> Reply:
        """Send a form. Of the reply, which may repeat what people wrote in a channel, `last` keeps no text."""
        given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in fields.items()}
        body = urlencode({name: value for name, value in given.items() if value is not None})
        reply = self._send(url, "Content-Type: application/x-www-form-urlencoded", *headers, body=body)
        self.last = replace(reply, body=b"")
        return reply

    def _send(self, url: str, *headers: str, body: str) -> Reply:
        ended = self._client.fetch(Request(url, headers, body.encode(), max(self._left_s, _SHORTEST_S)))
        self._left_s -= ended.seconds
        if isinstance(ended, Failure):
            raise Unreachable(ended)
        self.last = ended
        return ended


class SlackWebClient(WebClient):
    """slack-sdk's client, whose calls our HTTP client makes; its settings of proxy, TLS and timeout have no effect.

    It has neither token nor address: a request that did not go through `api_call` would go nowhere.
    """

    def __init__(self, transport: SlackTransport, *, token: str | None, base_url: str) -> None:
        # The SDK's own handler silently posts again after a reset connection; the outbox owns retries.
        super().__init__(base_url=_NOWHERE, retry_handlers=[], logger=_silent)
        self.transport = transport
        self._api_url = base_url.rstrip("/")
        self._authorization = f"Authorization: Bearer {(token or '').strip()}"

    def api_call(self, api_method: str, **options: Any) -> SlackResponse:
        url = f"{self._api_url}/{api_method}"
        if content := options.get("json"):
            reply = self.transport.post(url, content, self._authorization)
        else:
            # Methods that only read take no JSON (docs.slack.dev/apis/web-api, read 2026-11-30).
            reply = self.transport.read(url, options.get("params") or {}, self._authorization)
        answer = read(reply.body)
        response = SlackResponse(
            client=self,
            http_verb="POST",
            api_url=api_method,
            req_args={},
            data=answer | {"ok": answer.get("ok") is True},  # `validate` takes "false" for true
            headers=reply.headers,
            status_code=reply.status,
        )
        response.validate()  # type: ignore[no-untyped-call]  # the SDK's
        return response
