"""slack-sdk's clients, whose calls are made by our HTTP client."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse
from slack_sdk.webhook import WebhookClient, WebhookResponse

from bridge.model import SlackNotifier
from bridge.redact import Mask
from bridge.send.client import HttpClient
from bridge.send.http_types import Failure, Reply, Request
from bridge.send.slack.answer import NOT_UNDERSTOOD, error_in, read

DEADLINE_S = 15.0  # of a whole delivery, which makes three calls at most
_NOWHERE = "bridge:"  # nothing that could be connected to

_silent = logging.getLogger(f"{__name__}.sdk")
_silent.setLevel(logging.CRITICAL + 1)  # at DEBUG the SDK logs the proxy's URL, which may have a password


class Unreachable(Exception):
    """Slack did not answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.why)
        self.failure = failure


class SlackTransport:
    """Carries the requests of one delivery to the HTTP client, and keeps the replies."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._left_s = DEADLINE_S
        self.replies: list[Reply] = []

    def post(self, url: str, content: Mapping[str, Any], *headers: str) -> Reply:
        body = json.dumps(content).encode()
        headers = ("Content-Type: application/json; charset=utf-8", *headers)
        ended = self._client.fetch(Request(url, headers, body, max(self._left_s, 0.1)))
        self._left_s -= ended.seconds
        if isinstance(ended, Failure):
            raise Unreachable(ended)
        self.replies.append(ended)
        return ended


class SlackWebClient(WebClient):
    """slack-sdk's client, whose calls our HTTP client makes; its settings of proxy, TLS and time mean nothing here.

    It is told neither token nor address: a request that went another way than through `api_call` would go nowhere.
    """

    def __init__(self, transport: SlackTransport, *, token: str | None, base_url: str) -> None:
        # The SDK's own handler posts again in silence after a reset connection; the outbox owns retries.
        super().__init__(base_url=_NOWHERE, retry_handlers=[], logger=_silent)
        self._transport = transport
        self._api_url = base_url.rstrip("/")
        self._authorization = f"Authorization: Bearer {(token or '').strip()}"

    def api_call(self, api_method: str, **asked: Any) -> SlackResponse:
        content = asked.get("json") or asked.get("params") or {}
        reply = self._transport.post(f"{self._api_url}/{api_method}", content, self._authorization)
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


class SlackWebhookClient(WebhookClient):
    """The same for incoming webhooks."""

    def __init__(self, transport: SlackTransport, url: str) -> None:
        super().__init__(_NOWHERE, retry_handlers=[], logger=_silent)
        self._transport = transport
        self._hook_url = url

    def send_dict(self, body: dict[str, Any], headers: dict[str, str] | None = None) -> WebhookResponse:  # noqa: ARG002 - the SDK's signature
        reply = self._transport.post(self._hook_url, {key: value for key, value in body.items() if value is not None})
        text = reply.body.decode("utf-8", "replace")
        return WebhookResponse(url=_NOWHERE, status_code=reply.status, body=text, headers=reply.headers)


def token_trouble(notifier: SlackNotifier, api_url: str, client: HttpClient) -> str | None:
    """Ask Slack whether it knows the token; say what is wrong with it, or None."""
    try:
        SlackWebClient(SlackTransport(client), token=notifier.token, base_url=api_url).auth_test()
    except Unreachable as fault:
        return str(fault)
    except SlackApiError as fault:
        said = Mask(notifier.hidden)(error_of(fault))[:200]
        return f"Slack refuses the token: {said}" if said else NOT_UNDERSTOOD
    return None


def error_of(fault: SlackApiError) -> str:
    return error_in(fault.response)
