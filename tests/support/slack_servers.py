"""A Slack of scripted answers, in place of the HTTP client."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import parse_qsl

from bridge.model import Delivery, Outcome
from bridge.send.client import HttpClient, Policy
from bridge.send.http_types import Failure, Reply, Request
from bridge.send.integration import Egress
from bridge.send.slack import Slack
from tests.support.receivers import NOON, a_delivery, a_root_edit, a_slack

API_URL = "https://slack.example/api/"
HOOK = {"url": "https://hooks.slack.example/hook?token=hush", "token": None, "channel": None}


def says(status: int, body: bytes, *headers: bytes, truncated: bool = False) -> Reply:
    return Reply(status, (b"HTTP/1.1 x\r\n", *headers), body, 0.1, "127.0.0.1", truncated=truncated)


def ok(**facts: Any) -> Reply:
    return says(200, json.dumps({"ok": True} | facts).encode())


def no(error: str) -> Reply:
    return says(200, json.dumps({"ok": False, "error": error}).encode())


class ScriptedSlack:
    """An HTTP client that gives these answers one after the other, then accepts for ever."""

    policy = Policy(trusted="")

    def __init__(self, *answers: Reply | Failure) -> None:
        self._answers = list(answers)
        self.requests: list[Request] = []

    def fetch(self, request: Request) -> Reply | Failure:
        self.requests.append(request)
        if self._answers:
            return self._answers.pop(0)
        accepted = ok(channel="C1", ts=f"171.{len(self.requests)}")
        return accepted if request.url.startswith(API_URL) else says(200, b"ok")

    @property
    def calls(self) -> list[str]:
        return [request.url.removeprefix(API_URL) for request in self.requests]

    @property
    def contents(self) -> list[Any]:
        return [_content(request.body.decode()) for request in self.requests]

    @property
    def egress(self) -> Egress:
        return Egress(cast(HttpClient, self), API_URL)

    def send(self, notifier: dict[str, Any] | None = None, **delivery: Any) -> Outcome:
        """Send one delivery; return what came of it."""
        return self._sent(notifier, a_delivery(**delivery))

    def edit(self, notifier: dict[str, Any] | None = None, **edit: Any) -> Outcome:
        """Edit a root; return what came of it."""
        return self._sent(notifier, a_root_edit(**edit))

    def _sent(self, notifier: dict[str, Any] | None, delivery: Delivery) -> Outcome:
        outcome, _ = Slack(a_slack(**(notifier or {}))).send(delivery, NOON, self.egress)
        return outcome


def _content(body: str) -> Any:
    return json.loads(body) if body.startswith("{") else dict(parse_qsl(body))
