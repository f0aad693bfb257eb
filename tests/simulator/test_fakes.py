"""The hostile servers are as hostile as they say."""

from __future__ import annotations

import socket
import zlib
from urllib.parse import urlsplit

import pytest

from tests.support import hostile as fakes

REQUEST = b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"


def ask(url: str, limit: int, timeout: float = 10) -> bytes:
    """Return the first `limit` bytes of the answer, fewer if it ends."""
    said = b""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=timeout) as connection:
        connection.sendall(REQUEST)
        while len(said) < limit and (part := connection.recv(65_536)):
            said += part
    return said


def test_silence():
    with fakes.never_answers() as server:
        with pytest.raises(TimeoutError):
            ask(server.url, 1, timeout=0.05)
        server.wait_for_requests(1)
        assert server.requests == 1


def test_a_refused_connection():
    with fakes.refuses_connection() as server, pytest.raises(ConnectionRefusedError):
        ask(server.url, 1)


@pytest.mark.parametrize("drips", [fakes.drips_header, fakes.drips_body])
def test_dripping(drips):
    with drips(0.001) as server:
        assert ask(server.url, 100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_without_end():
    with fakes.endless_body() as server:
        assert len(ask(server.url, 3_000_000)) >= 3_000_000


def test_a_big_body():
    with fakes.big_body(megabytes=1) as server:
        head, _, body = ask(server.url, 1 << 30).partition(b"\r\n\r\n")
    assert b"Content-Length: 1048576" in head
    assert len(body) == 1_048_576


def test_a_redirect():
    with fakes.redirects_to("http://127.0.0.1:1/") as server:
        assert b"Location: http://127.0.0.1:1/\r\n" in ask(server.url, 1000)


def test_a_connection_closed_after_the_request():
    with fakes.closes_after_request() as server:
        assert ask(server.url, 1) == b""
        assert server.requests == 1


def test_garbage():
    with fakes.talks_garbage() as server:
        assert b"HTTP/1" not in ask(server.url, 1000)


def test_a_gzip_bomb():
    with fakes.gzip_bomb(megabytes=10) as server:
        body = ask(server.url, 1 << 20).partition(b"\r\n\r\n")[2]
    assert len(body) < 20_000
    assert len(zlib.decompress(body, wbits=31)) == 10 << 20
