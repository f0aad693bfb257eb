"""Receivers on real sockets of 127.0.0.1, well and badly behaved, and builders for what is sent to them."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, Self

import pytest

from bridge.model import Attempt, Content, Delivery, RootEdit
from bridge.notifiers import Notifier, SlackNotifier, WebhookNotifier
from bridge.send.client import HttpClient
from bridge.send.http_types import Failure, Reply, Request
from bridge.send.sender import Sender
from tests.support.nouns import NOON, SECRET

NOBODY = "http://127.0.0.1:1/"
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))
OLD_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@dataclass(frozen=True)
class Seen:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[socket.socket, Seen, threading.Event], None]


class Receiver:
    """Reads requests and lets `behave` answer. `over` is set when the test ends: drips stop on it."""

    def __init__(
        self, behave: Behaviour, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.behave = behave
        self.requests: list[Seen] = []
        self.connections = 0
        self.over = threading.Event()
        self._open: list[socket.socket] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._tls = tls
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/hook?token=hush"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                    self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while b"HTTP/" in (first := stream.readline()):
                headers = dict(_header_lines(stream))
                body = stream.read(int(headers.get("content-length", 0)))
                seen = Seen(first.split()[1].decode(), headers, body)
                self.requests.append(seen)
                self.behave(connection, seen, self.over)


def _header_lines(stream: Any) -> Iterator[tuple[str, str]]:
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        yield name.lower(), value.strip()


def answering(status: str, body: bytes | None = None, *headers: str) -> Behaviour:
    """Answer so; the body is "ok", with which an incoming webhook of Slack accepts, unless another is given."""
    body = b"ok" * status.startswith("200") if body is None else body
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode()
    return lambda connection, _seen, _over: connection.sendall(head + body)


API = ("chat.postMessage", "chat.update", "auth.test")


def accepting(*headers: str) -> Behaviour:
    """Accept as Slack does: its API in JSON, an incoming webhook in a word."""

    def behave(connection: socket.socket, seen: Seen, over: threading.Event) -> None:
        body = b'{"ok": true, "channel": "C1", "ts": "1.2"}' if seen.path.endswith(API) else b"ok"
        answering("200 OK", body, *headers)(connection, seen, over)

    return behave


def raw(*chunks: bytes, close: bool = True) -> Behaviour:
    def behave(connection: socket.socket, _seen: Seen, _over: threading.Event) -> None:
        for chunk in chunks:
            connection.sendall(chunk)
        if close:
            connection.shutdown(socket.SHUT_RDWR)

    return behave


def dripping(start: bytes, drop: bytes, every_s: float = 0.02) -> Behaviour:
    def behave(connection: socket.socket, _seen: Seen, over: threading.Event) -> None:
        connection.sendall(start)
        while not over.wait(every_s):
            connection.sendall(drop)

    return behave


def a_request(url: str, **changes: Any) -> Request:
    return Request(**{"url": url, "headers": ("x-test: 1",), "body": b"{}", "deadline_s": 5.0} | changes)


def a_reply(body: bytes) -> Reply:
    return Reply(200, (b"HTTP/1.1 200 OK\r\n",), body, 0.1, "127.0.0.1")


def through(client: HttpClient, request: Request) -> Reply | Failure:
    """Start `request` and wait for its end."""
    client.start(request, "key")
    while not (ended := client.wait(10)):
        pass
    ((key, result),) = ended
    assert key == "key"
    assert client.in_flight == 0
    return result


def what_is_said(**changes: Any) -> str:
    """Return `says` of a delivery, or of what a root should show."""
    usual = {"title": "Transcode failed: demo.mp4", "text": "bad input", "fields": [["queue", "vod"]],
             "state": "Failed", "rule": "failed", "job_id": "j1"}  # fmt: skip
    return json.dumps(usual | changes)


def a_delivery(**changes: Any) -> Delivery:
    says = what_is_said(**changes.pop("says", {}))
    facts: dict[str, Any] = {
        "n": 1, "id": "d_1", "notifier": "cms", "attempts": 1, "lease": "l",
        "happened_at": NOON, "event": '{"type":"ci.job.failed"}', "says": says,
    }  # fmt: skip
    return Delivery(**facts | changes)


def a_content(**says: Any) -> Content:
    """What a root should show."""
    return Content(what_is_said(**says), '{"type":"ci.job.failed"}', NOON)


def a_root_edit(**changes: Any) -> RootEdit:
    """An edit of the root at C1:170.5; `says` is what it should show."""
    wanted = a_content(**changes.pop("says", {}))
    facts: dict[str, Any] = {
        "n": 0, "id": "root cms b/j1", "notifier": "cms", "attempts": 1, "lease": "l", "thread": "b/j1",
        "root": "C1:170.5:C1", "wanted": wanted, "wanted_no": 3, **wanted._asdict(),
    }  # fmt: skip
    return RootEdit(**facts | changes)


# What a delivery has whose first attempt was not answered, and what the second message says where nobody can look.
AGAIN: dict[str, Any] = {"attempts": 2, "unsure_at": NOON - timedelta(minutes=1), "since": NOON}
REPETITION = "An earlier attempt was not answered, so this may be a repetition."


def of_delivery(id_: str, *, since: datetime | None = None) -> dict[str, Any]:
    """Return the metadata of a Slack message; older versions wrote no `since`."""
    payload = {"delivery": id_} | ({"since": since.isoformat()} if since else {})
    return {"event_type": "ci_bridge_delivery", "event_payload": payload}


def a_webhook(url: str = "http://127.0.0.1:1/hook", **changes: Any) -> WebhookNotifier:
    return WebhookNotifier(**{"name": "cms", "url": url, "secrets": (SECRET,)} | changes)


def a_slack(**changes: Any) -> SlackNotifier:
    return SlackNotifier(**{"name": "ops", "channel": "C1", "token": "xoxb-1"} | changes)


def a_sender(*notifiers: Notifier, client: HttpClient | None = None, slack_api_url: str = NOBODY) -> Sender:
    return Sender(
        client=client or HttpClient(allow=LOOPBACK),
        notifiers={notifier.name: notifier for notifier in notifiers},
        clock=lambda: NOON,
        slack_api_url=slack_api_url,
    )


def attempt(sender: Sender, make: Callable[..., Delivery] = a_delivery, **delivery: Any) -> Attempt:
    """Send one delivery, or what else is made of its facts, and wait for the end of its attempt."""
    sender.begin(make(**delivery))
    while not (ended := sender.wait(10)):
        pass
    return ended[0]


def attempt_to(
    notifier: Notifier, client: HttpClient | None = None, *, slack_api_url: str = NOBODY, **delivery: Any
) -> Attempt:
    """Send one delivery to a notifier, and close what sent it."""
    with closing_sender(notifier, client=client, slack_api_url=slack_api_url) as sender:
        return attempt(sender, notifier=notifier.name, **delivery)


@contextlib.contextmanager
def closing_sender(*notifiers: Notifier, **facts: Any) -> Iterator[Sender]:
    sender = a_sender(*notifiers, **facts)
    try:
        yield sender
    finally:
        sender.close(1)


@pytest.fixture
def client() -> Iterator[HttpClient]:
    made = HttpClient(allow=LOOPBACK)
    yield made
    made.close()
