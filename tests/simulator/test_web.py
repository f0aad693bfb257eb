"""The server that the stand-ins are built on."""

from __future__ import annotations

import http.client
import socket
import threading

import pytest

from bridge.simulator.web import Answer, Request, WebServer, text_answer


class Echo(WebServer):
    """Answers with what it was asked."""

    def respond(self, request: Request) -> Answer:
        return text_answer(f"{request.method} {request.path} {request.query} {request.body.decode()}")


def test_one_connection_carries_many_requests():
    with Echo() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        said = []
        for n in range(3):
            connection.request("POST", f"/a%2Fb?n={n}&empty=", body=b"body")
            port = connection.sock.getsockname()[1]
            response = connection.getresponse()
            said.append((port, response.headers["Content-Length"], response.read().decode()))
        connection.close()
    assert len({port for port, _, _ in said}) == 1
    assert said[2][2] == "POST /a/b (('n', '2'), ('empty', '')) body"
    assert said[2][1] == str(len(said[2][2]))


def test_closing_hangs_up_on_idle_connections():
    with Echo() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/")
        connection.getresponse().read()
    assert connection.sock.recv(1) == b""
    connection.close()


def test_closing_does_not_wait_for_an_answer_that_is_held_back():
    with Echo() as server:
        asked = threading.Event()
        server.fault = lambda _: asked.set() or Answer(delay_s=3600)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert asked.wait(10)
            server.close()


def test_a_port_is_free_again_after_the_end():
    with Echo() as server:
        port = server.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
    with Echo(port=port) as again:
        assert again.port == port


def test_a_failing_stand_in_answers_500_and_no_content_has_no_length():
    with Echo() as server:
        server.fault = lambda _: 1 / 0
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.status, b"ZeroDivisionError" in response.read()) == (500, True)
        server.fault = lambda _: Answer(status=204)
        connection.request("GET", "/")
        assert "Content-Length" not in connection.getresponse().headers
        connection.close()
