"""A forward proxy as in RFC 9110: absolute-form for http, CONNECT for https. Every host is a port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Forwarded:
    method: str
    target: str
    headers: dict[str, str]


class Proxy:
    """`answer` is what it says instead of forwarding, e.g. b"HTTP/1.1 403 Forbidden"."""

    def __init__(self, answer: bytes | None = None) -> None:
        self._answer = answer
        self.forwarded: list[Forwarded] = []
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
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
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head, body = _head(connection)
            method, target, _ = head[0].split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            self.forwarded.append(Forwarded(method, target, headers))
            if self._answer:
                connection.sendall(self._answer + b"\r\nContent-Length: 0\r\n\r\n")
                return
            self._forward(connection, method, target, head, body)

    def _forward(self, connection: socket.socket, method: str, target: str, head: list[str], body: bytes) -> None:
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        with socket.create_connection(("127.0.0.1", parts.port or 80)) as receiver:
            self._open.append(receiver)
            if method == "CONNECT":
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = target.removeprefix(f"{parts.scheme}://{parts.netloc}")
                receiver.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *head[1:], "", ""]).encode() + body)
            back = threading.Thread(target=_pump, args=(receiver, connection))
            back.start()
            _pump(connection, receiver)
            back.join()


def _head(connection: socket.socket) -> tuple[list[str], bytes]:
    said = b""
    while b"\r\n\r\n" not in said:
        if not (part := connection.recv(65536)):
            raise ConnectionError("no request")
        said += part
    head, _, body = said.partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), body


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(65536):
            sink.sendall(part)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
