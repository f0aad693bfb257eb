"""A program that tells Slack in every way and writes down each socket that Python itself opens or connects.

python -m tests.send.audited ADDRESS, that of a Slack that gives the answers ANSWERS. Its output is JSON. libcurl
connects without Python's knowledge, through sockets that the client lent it: all else is an escape.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

from bridge.send.http_types import Reply
from tests.support.slack_servers import no, ok

_NAMES = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
          "http.client.connect", "urllib.Request", "subprocess.Popen", "os.system", "os.exec")  # fmt: skip
_LOOSE = ok(channel="C1", ts="171.9", message={"text": "hi"})
_OK = ok(channel="C1", ts="171.1")

# What is told, and what Slack answers to each request that it makes.
PATHS: dict[str, tuple[dict[str, Any], list[Reply]]] = {
    "post": ({}, [_OK]),
    "post in plain text": ({}, [no("invalid_blocks"), _OK]),
    "reply": ({"thread": "job", "root": "C1:170.1:C1:0"}, [_OK]),
    "reply without a root": ({"thread": "job", "root": "C1:170.1:C1:0"}, [_LOOSE]),
    "edit and reply": ({"thread": "job", "update": True, "root": "C1:170.1:C1:0"}, [_OK, _OK]),
    "edit in plain text": ({"update": True, "root": "C1:170.1:C1:0"}, [no("invalid_blocks"), _OK]),
    "new root": ({"update": True, "root": "C1:170.1:C1:0"}, [no("message_not_found"), _OK]),
    "refused": ({}, [no("invalid_auth")]),
    "incoming webhook": ({"url": True}, [_OK]),
    "incoming webhook in plain text": ({"url": True}, [no("invalid_blocks"), _OK]),
}
ANSWERS = [answer for _, answers in PATHS.values() for answer in answers]


class Audit:
    """Notes what Python's audit events say of sockets. It cannot be taken away again."""

    def __init__(self) -> None:
        self.escapes: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        opened = event == "socket.__new__" and given[1] != socket.AF_UNIX and type(given[0]).__name__ != "_LentSocket"
        if opened or event in _NAMES:
            self.escapes.append(event)

    def of(self, act: Callable[[], object]) -> dict[str, Any]:
        """Return what came of `act`, and what it did beside the client."""
        self.escapes.clear()
        try:
            came = repr(act())
        except Exception as fault:
            came = type(fault).__name__
        return {"came": came, "escapes": list(self.escapes)}


def main(address: str) -> None:
    audit = Audit()
    import slack_sdk
    from slack_sdk import WebClient

    from bridge.send.client import HttpClient
    from bridge.send.integration import Egress
    from bridge.send.slack import Slack
    from bridge.send.slack.client import SlackTransport, SlackWebClient
    from tests.support.receivers import LOOPBACK, NOON, a_delivery, a_slack

    api, client, closed = f"{address}/api/", HttpClient(allow=LOOPBACK), HttpClient()

    def send(through: HttpClient, *, root: str | None = None, **notifier: Any) -> object:
        if notifier.get("url"):
            notifier["url"] = f"{address}/services/T0/B0/X"
        return Slack(a_slack(**notifier)).send(a_delivery(thread="j1", root=root), NOON, Egress(through, api))[0]

    ours = SlackWebClient(SlackTransport(client), token="xoxb-1", base_url=api)
    found = {what: audit.of(lambda told=told: send(client, **told)) for what, (told, _) in PATHS.items()}
    found |= {
        "auth.test": audit.of(lambda: Slack(a_slack()).check(Egress(client, api)).ok),
        "forbidden post": audit.of(lambda: send(closed)),
        "forbidden webhook": audit.of(lambda: send(closed, url=True)),
        "nobody there": audit.of(lambda: Slack(a_slack()).check(Egress(client, "http://127.0.0.1:1/api/"))),
        "past our api_call": audit.of(lambda: WebClient.api_call(ours, "auth.test")),
    }
    # Last, as it leaves its traces: the audit does hear of a client that is not ours.
    theirs = audit.of(lambda: WebClient(token="xoxb-1", base_url=api, retry_handlers=[]).auth_test())
    print(json.dumps({"sdk": slack_sdk.__file__, "found": found, "theirs": theirs}))


if __name__ == "__main__":
    main(sys.argv[1])
