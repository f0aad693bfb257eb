"""A Slack of scripted answers on a real socket, and a notifier told through it."""

from __future__ import annotations

import json
from typing import Any

from bridge.model import Outcome
from bridge.send.client import HttpClient
from bridge.send.integration import Egress
from bridge.send.slack import Slack
from tests.support.receivers import API, NOON, Receiver, Seen, a_delivery, a_slack, answering


def slack(*says: dict[str, Any]) -> Receiver:
    """A Slack that gives these answers one after the other, then says ok for ever."""
    answers = list(says)

    def behave(connection: Any, seen: Seen, over: Any) -> None:
        ok = {"ok": True, "channel": "C1", "ts": f"171.{len(receiver.requests)}"}
        says = answers.pop(0) if answers else ok
        body = b"ok" if says["ok"] and not seen.path.endswith(API) else json.dumps(says).encode()
        answering("200 OK", body, "Content-Type: application/json; charset=utf-8")(connection, seen, over)

    receiver = Receiver(behave)
    return receiver


def no(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}


def send(client: HttpClient, receiver: Receiver, notifier: dict[str, Any] | None = None, **delivery: Any) -> Outcome:
    egress = Egress(client, f"http://127.0.0.1:{receiver.port}/api/")
    outcome, _ = Slack(a_slack(**(notifier or {}))).send(a_delivery(**delivery), NOON, egress)
    return outcome


def paths(receiver: Receiver) -> list[str]:
    return [seen.path for seen in receiver.requests]
