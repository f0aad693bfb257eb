"""Servers that behave badly, and ready-made answers for a simulated CI that has a bad day."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from bridge.simulator.ci import CiSimulator
from bridge.simulator.web import Answer, Fault, Request

Treatment = Callable[["Hostile", socket.socket], None]
CHUNK = b"x" * 65_536
_NO_FAREWELL = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing is a reset


class Hostile:
    """A listening socket; each connection is treated in its own thread, once its first request was read.

    Not `reading`: at once, and what was sent lies unread when the connection is closed.
    """

    def __init__(self, treat: Treatment, *, reading: bool = True) -> None:
        self._treat = treat
        self._reading = reading
        self.closing = threading.Event()
        self.connections = 0
        self.requests = 0
        self._changed = threading.Condition()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.requests >= count, timeout):
                raise TimeoutError(f"{self.requests} of {count} requests within {timeout} s")

    def __enter__(self) -> Self:
        self._threads.append(threading.Thread(target=self._accept, daemon=True))
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._threads[0].join(5)
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(5)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if self._reading and not _read_request(connection):
                return
            self._count()
            self._treat(self, connection)

    def _count(self) -> None:
        with self._changed:
            self.requests += 1
            self._changed.notify_all()


def _read_request(connection: socket.socket) -> bool:
    said = b""
    while b"\r\n\r\n" not in said:
        part = connection.recv(65_536)
        if not part:
            return False
        said += part
    head, _, body = said.partition(b"\r\n\r\n")
    match = re.search(rb"(?i)content-length: *(\d+)", head)
    left = int(match[1]) - len(body) if match else 0
    while left > 0 and (part := connection.recv(65_536)):
        left -= len(part)
    return left <= 0


def _drip(server: Hostile, connection: socket.socket, said: bytes, pause_s: float) -> None:
    for byte in said:
        connection.sendall(bytes((byte,)))
        if server.closing.wait(pause_s):
            return


def never_answers() -> Hostile:
    """Reads the request and stays silent, the connection open."""
    return Hostile(lambda server, _: _ignore(server.closing.wait()))


def _ignore(_: object) -> None: ...


@dataclass(frozen=True)
class Refusing:
    url: str
    requests: int = 0


@contextlib.contextmanager
def refuses_connection() -> Iterator[Refusing]:
    """A port that is taken, so that nobody else gets it, and not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Refusing(f"http://127.0.0.1:{bound.getsockname()[1]}/hook")


def drips_header(pause_s: float = 1.0) -> Hostile:
    """Sends a byte of an endless header every `pause_s` seconds."""
    said = b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100_000
    return Hostile(lambda server, connection: _drip(server, connection, said, pause_s))


def endless_body() -> Hostile:
    """Sends a body without a length and without an end, as fast as it is taken."""

    def treat(server: Hostile, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not server.closing.is_set():
            connection.sendall(CHUNK)

    return Hostile(treat)


def big_body(megabytes: int = 100) -> Hostile:
    """Sends a body of so many megabytes, its length announced."""

    def treat(_: Hostile, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (megabytes << 20))
        for _n in range((megabytes << 20) // len(CHUNK)):
            connection.sendall(CHUNK)

    return Hostile(treat)


def redirects_to(url: str, status: int = 301) -> Hostile:
    """Answers every request with a redirect to `url`."""
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return Hostile(lambda _, connection: connection.sendall(head.encode()))


def closes_after_request() -> Hostile:
    """Reads the request and closes the connection without a word."""
    return Hostile(lambda *_: None)


def resets_after_request() -> Hostile:
    """Reads the request and resets the connection."""
    return Hostile(lambda _, connection: connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_FAREWELL))


def answers_unread(said: bytes) -> Hostile:
    """Says this as soon as it is connected to, and closes without having read a byte."""
    return Hostile(lambda _, connection: connection.sendall(said), reading=False)


def talks_garbage() -> Hostile:
    """Answers with bytes that are no HTTP, and closes."""
    return Hostile(lambda _, connection: connection.sendall(b"\x00\xffSSH-2.0-not http at all\r\n\r\n" * 20))


def gzip_bomb(megabytes: int = 100) -> Hostile:
    """Answers with a small gzip body that becomes so many megabytes."""
    body = gzip.compress(bytes(megabytes << 20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    return Hostile(lambda _, connection: connection.sendall(head + body))


def ci_error(status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """CI's documented error body, with any status and code."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>r</RequestId></Error>"
    return Answer(status=status, body=body.encode(), headers={"Content-Type": "application/xml", **(headers or {})})


def slow_down(retry_after_s: int | None = None) -> Answer:
    """CI's word for "too many requests"."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return ci_error(503, "SlowDown", "Reduce your request rate.", headers)


def html_page(status: int = 502) -> Answer:
    """What a proxy on the way says."""
    body = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"
    return Answer(status=status, body=body, headers={"Content-Type": "text/html"})


def json_error(status: int = 500) -> Answer:
    """The JSON error body that the Go SDK also reads."""
    body = json.dumps({"code": -1, "message": "internal error", "request_id": "r"}).encode()
    return Answer(status=status, body=body, headers={"Content-Type": "application/json"})


def empty_body(status: int = 200) -> Answer:
    """An answer with nothing in it."""
    return Answer(status=status)


def hang_up() -> Answer:
    """The connection is closed without an answer."""
    return Answer(hang_up=True)


def half_a_page(ci: CiSimulator, *, announced: bool) -> Fault:
    """Half of the true answer; `announced`: its Content-Length is that of the whole."""

    def fault(request: Request) -> Answer:
        true = ci.honest(request, record=False)
        half = true.body[: len(true.body) // 2]
        length = len(true.body) if announced else None
        return Answer(status=true.status, body=half, headers=true.headers, length=length)

    return fault


def same_token_for_ever(ci: CiSimulator) -> Fault:
    """The first page of the tag, always with the same next token, and never the last."""
    first: dict[str | None, Answer] = {}

    def fault(request: Request) -> Answer:
        tag = dict(request.query).get("tag")
        true = first[tag] if tag in first else first.setdefault(tag, ci.honest(request))
        bare = re.sub(rb"<NextToken>.*?</NextToken>", b"", true.body).replace(b"<Response />", b"<Response></Response>")
        body = bare.replace(b"</Response>", b"<NextToken>225508</NextToken></Response>")
        return Answer(status=true.status, body=body, headers=true.headers)

    return fault
