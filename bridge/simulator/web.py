"""A small HTTP server for the stand-ins: keep-alive, quiet, exact about what it sends."""

from __future__ import annotations

import contextlib
import http
import http.server
import json
import socket
import socketserver
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

REQUESTS_KEPT = 10_000
GRACE_S = 5.0  # how long close() waits for answers under way


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as received. Header names are in lower case; `path` and `query` are decoded."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to send. `length` is a false Content-Length."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    delay_s: float = 0.0
    hang_up: bool = False  # close the connection without an answer


Fault = Callable[[Request], Answer | None]


def json_answer(content: Any, *, status: int = 200) -> Answer:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(status=status, body=json.dumps(content).encode(), headers=headers)


def text_answer(text: str, *, status: int = 200) -> Answer:
    return Answer(status=status, body=text.encode(), headers={"Content-Type": "text/plain; charset=utf-8"})


class WebServer:
    """Listens from `with` to its end; `respond` answers unless `fault` does."""

    def __init__(self, *, port: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.fault: Fault | None = None
        self.requests: deque[Request] = deque(maxlen=REQUESTS_KEPT)
        self._address = ("127.0.0.1", port)
        self._clock = clock
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None

    def respond(self, request: Request) -> Answer:
        """Return the answer to `request`. Called in the connection's own thread."""
        raise NotImplementedError

    def now(self) -> float:
        """Return the time of the server's clock and of its Date header."""
        return self._clock()

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until the server is closed."""
        if seconds > 0 and self._listener:
            self._listener.closing.wait(seconds)

    @property
    def port(self) -> int:
        if self._listener is None:
            raise RuntimeError(f"{type(self).__name__} is not listening; use it in a `with`")
        return self._listener.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._listener = _Listener(self._address, self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        listener, thread = self._listener, self._thread
        if listener is None or thread is None:
            return
        listener.shutdown()
        thread.join()
        listener.hang_up_all()
        listener.server_close()
        self._listener = self._thread = None

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def open_connections(self) -> int:
        return self._listener.open_connections if self._listener else 0

    def answer_to(self, request: Request) -> Answer:
        self.requests.append(request)
        scripted = self.fault(request) if self.fault else None
        return scripted or self.respond(request)


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], owner: WebServer) -> None:
        self.owner = owner
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = cast(tuple[str, int], self.server_address[:2])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    @property
    def open_connections(self) -> int:
        with self._changed:
            return len(self._open)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore it: a client went away."""

    def hang_up_all(self) -> None:
        self.closing.set()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=GRACE_S)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def respond(self) -> None:
        request = self._read()
        if request is None:
            self.close_connection = True
            return
        try:
            answer = self.server.owner.answer_to(request)
        except Exception as error:  # the edge of the thread: reported to the client, not on stderr
            answer = text_answer(f"the stand-in failed: {error!r}", status=500)
        try:
            self._write(answer)
        except OSError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = respond  # noqa: N815 - http.server's names

    def _read(self) -> Request | None:
        announced = self.headers.get("Content-Length", "0")
        length = int(announced) if announced.isdecimal() else 0
        body = self.rfile.read(length)
        if len(body) < length:
            return None
        target = urlsplit(self.path)
        return Request(
            method=self.command,
            path=unquote(target.path),
            query=tuple(parse_qsl(target.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            at=self.server.owner.now(),
        )

    def _write(self, answer: Answer) -> None:
        self.server.owner.pause(answer.delay_s)
        self.close_connection |= answer.hang_up or answer.length not in (None, len(answer.body))
        if answer.hang_up:
            return
        self.wfile.write(self._head(answer) + (b"" if self.command == "HEAD" else answer.body))

    def _head(self, answer: Answer) -> bytes:
        known = {status.value: status.phrase for status in http.HTTPStatus}
        length = len(answer.body) if answer.length is None else answer.length
        without = answer.status == 204 and not length  # RFC 9110 8.6 forbids it there
        headers = {
            "Date": formatdate(self.server.owner.now(), usegmt=True),
            **({} if without else {"Content-Length": str(length)}),
            **({"Connection": "close"} if self.close_connection else {}),
            **answer.headers,
        }
        lines = [f"HTTP/1.1 {answer.status} {known.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def log_message(self, *_: object) -> None:
        """Be quiet."""
