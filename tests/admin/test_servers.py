"""What is not for the application to judge: both servers, and what they make of odd requests on real sockets."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from pydantic import SecretStr

from bridge.record.database import Database
from bridge.settings import Settings
from bridge.wiring.server import Server
from bridge.wiring.web import served, warn_of_open_door
from tests.support.admin_world import READ, World
from tests.support.servers import DEADLINE_S, TOKEN, an_environ, say, serving, wait_until_it_answers

GIVEN = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n".encode()
POLL = b"/api/v1/watches/vod/poll"
SERVERS = ("gunicorn", "waitress")


@contextlib.contextmanager
def running(server: str, place: Path, token: str | None) -> Iterator[int]:
    """Yield the port of a server with the token, or with none."""
    environ = an_environ(place)
    if server == "gunicorn":
        with serving(environ | {"BRIDGE_ADMIN_TOKEN": token or ""}) as process:
            wait_until_it_answers(environ, process)
            yield int(environ["PORT"])
    else:
        with contextlib.closing(Database(environ["DATABASE_URL"])) as db:
            db.upgrade()
            world = World(db)
            world.sync()
            with served(world.app(admin=token, read=READ), host="127.0.0.1", port=0) as port:
                yield port


@pytest.fixture(scope="module", params=SERVERS)
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running(request.param, tmp_path_factory.mktemp(request.param), TOKEN) as found:
        yield found


@pytest.fixture(scope="module", params=SERVERS)
def open_port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running(request.param, tmp_path_factory.mktemp(request.param), None) as found:
        yield found


def ask(port: int, method: bytes, path: bytes, more: bytes = b"", *body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the first answer."""
    head, _, rest = say(port, method + b" " + path + b" HTTP/1.1\r\n" + GIVEN + more + b"\r\n", *body).partition(
        b"\r\n\r\n"
    )
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split(" ")[1]), headers, rest


def problem(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, Any]:
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    return status, json.loads(body)["status"]


def chunks(what: bytes, size: int, count: int) -> list[bytes]:
    return [b"%x\r\n" % (size * len(what)) + what * size + b"\r\n"] * count + [b"0\r\n\r\n"]


def test_neither_names_its_version(port: int) -> None:
    assert ask(port, b"GET", b"/healthz")[1]["server"] in ("gunicorn", "ci-bridge")
    assert ask(port, b"GET", b"/nowhere")[1]["server"] in ("gunicorn", "ci-bridge")


def test_a_body_of_64_kilobytes_is_read_and_a_longer_one_is_not(port: int) -> None:
    at_most = 64 * 1024
    for size, status in ((at_most, 400), (at_most + 1, 413)):  # 400: it is no JSON that this takes
        more = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % size
        assert problem(ask(port, b"POST", POLL, more, b" " * (size - 1) + b"1")) == (status, status)


def test_a_body_without_a_length_is_capped_as_well(port: int) -> None:
    more = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    assert problem(ask(port, b"POST", POLL, more, *chunks(b" ", 1024, 65))) == (413, 413)
    assert problem(ask(port, b"POST", POLL, more, *chunks(b"x", 1024, 64))) == (400, 400)
    assert ask(port, b"POST", POLL, more, *chunks(b"{}", 1, 1))[0] == 202


@pytest.mark.parametrize(
    "body", [b"ZZZ\r\nabc\r\n0\r\n\r\n", b"-5\r\n\r\n", b"2\r\n{}ab0\r\n\r\n", b"5\r\nabcXX\r\nqq\r\n"]
)
def test_invalid_chunks_are_a_client_error(port: int, body: bytes) -> None:
    more = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    assert ask(port, b"POST", POLL, more, body)[0] == 400


@pytest.mark.parametrize(
    "more",
    [b"SCRIPT_NAME: /x\r\n", b"SCRIPT_NAME: /healthz\r\n", b"PATH_INFO: /api/v1/jobs\r\n",
     b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n", b"X-Forwarded-Proto: http\r\nX-Forwarded-Ssl: on\r\n"],
)  # fmt: skip
def test_no_header_is_taken_for_what_the_connection_is(port: int, more: bytes) -> None:
    heard = say(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + more + b"\r\n")
    assert heard.startswith(b"HTTP/1.1 200")
    assert b'"status":"ok"' in heard


@pytest.mark.parametrize("target", [b"http://[::1/healthz", b"http://[/", b"http://]/"])
def test_a_target_that_is_no_url_is_answered(port: int, target: bytes) -> None:
    assert 400 <= ask(port, b"GET", target)[0] < 500
    assert ask(port, b"GET", b"/healthz")[0] == 200


def test_a_body_of_many_megabytes_is_not_taken_in(port: int) -> None:
    head = b"POST " + POLL + b" HTTP/1.1\r\n" + GIVEN + b"Content-Length: 50000000\r\n\r\n"
    heard = say(port, head, *[b" " * 100_000] * 500)
    assert heard == b"" or heard.startswith(b"HTTP/1.1 413")  # it may hang up on who is still talking
    assert ask(port, b"GET", b"/healthz")[0] == 200


def test_an_unread_body_is_not_parsed_as_the_next_request(port: int) -> None:
    hidden = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    first = b"POST " + POLL + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    heard = say(port, first + hidden + b"GET /nowhere HTTP/1.1\r\n" + GIVEN + b"\r\n")
    assert [piece[:4] for piece in heard.split(b"HTTP/1.1")[1:]] == [b" 401", b" 404"]


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        (b"GET", b"/api/v1/jobs?state=" + b"x" * 20_000, b""),
        (b"GET", b"/" + b"x" * 20_000, b""),
        (b"GET", b"/api/v1/jobs", b"X-Long: " + b"x" * 20_000 + b"\r\n"),
        (b"GET", b"/api/v1/jobs", b"".join(b"X-Many-%d: %s\r\n" % (n, b"x" * 20) for n in range(1_000))),
        (b"GET", b"/api/v1/jobs", b"Transfer-Encoding: chunky\r\n"),
        (b"GET", b"/api/v1/jobs", b"Content-Length: -1\r\n"),
        (b"GET", b"/api/v1/jobs", b"Content-Length: 1\r\nContent-Length: 2\r\n"),
        (b"GET", b"/api/v1/jobs", b"no colon\r\n"),
        (b"GET", b"/api/v1/jobs", b"X-Nul: \0\r\n"),
        (b"G\0T", b"/api/v1/jobs", b""),
        (b"GET", b"", b""),
    ],
)
def test_what_is_no_request_of_a_sane_client_is_refused(port: int, method: bytes, path: bytes, more: bytes) -> None:
    status, _, body = ask(port, method, path, more)
    assert 400 <= status < 500 or status == 501
    assert b"Traceback" not in body
    assert b".py" not in body


@pytest.mark.parametrize("path", [b"/healthz", b"/api/v1/jobs", b"/metrics", b"/nowhere"])
def test_head_is_get_without_the_body(port: int, path: bytes) -> None:
    asked, got = ask(port, b"HEAD", path), ask(port, b"GET", path)
    assert (asked[0], asked[1]["content-type"]) == (got[0], got[1]["content-type"])
    assert (asked[2], bool(got[2])) == (b"", True)


def test_options_says_what_is_possible(port: int) -> None:
    status, headers, body = ask(port, b"OPTIONS", POLL)
    assert (status, set(headers["allow"].split(", ")), body) == (200, {"OPTIONS", "POST"}, b"")


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT", b"PROPFIND", b"BREW"])
def test_other_methods_are_not_possible_and_nothing_is_echoed(port: int, method: bytes) -> None:
    status, _, body = ask(port, method, b"/api/v1/jobs", b"X-Mine: echo-me\r\n")
    assert status == 405
    assert b"echo-me" not in body
    assert TOKEN.encode() not in body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_without_a_token_this_machine_is_served(open_port: int, host: str) -> None:
    request = f"GET /api/v1/watches HTTP/1.1\r\nHost: {host}:{open_port}\r\nConnection: close\r\n\r\n"
    assert say(open_port, request.encode()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "Via: 1.1 vegur", "Host: bridge.example.com"],
)
def test_without_a_token_what_came_through_a_proxy_is_answered_about_health_alone(open_port: int, header: str) -> None:
    host = "" if header.startswith("Host") else "Host: localhost\r\n"
    more = f"{host}{header}\r\nConnection: close\r\n\r\n"
    assert say(open_port, f"GET /healthz HTTP/1.1\r\n{more}".encode()).startswith(b"HTTP/1.1 200")
    for path in ("/metrics", "/openapi.json", "/api/v1/jobs", "/nowhere"):
        assert say(open_port, f"GET {path} HTTP/1.1\r\n{more}".encode()).startswith(b"HTTP/1.1 403")
    assert say(open_port, f"POST {POLL.decode()} HTTP/1.1\r\n{more}".encode()).startswith(b"HTTP/1.1 403")


def test_without_a_token_a_bare_proxy_on_this_machine_is_answered_about_health_alone(open_port: int) -> None:
    """What nginx makes of a stranger's request with nothing but `proxy_pass http://127.0.0.1:PORT`."""
    more = f"Host: 127.0.0.1:{open_port}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    heard = say(open_port, f"POST {POLL.decode()} HTTP/1.0\r\n{more}".encode())
    assert heard.split(b" ")[1] == b"403"
    assert b"proxy" in heard
    assert say(open_port, f"GET /healthz HTTP/1.0\r\n{more}".encode()).split(b" ")[1] == b"200"


@pytest.mark.parametrize(
    ("token", "hosts", "routed", "warned"),
    [
        (None, ["127.0.0.1"], False, False),
        (None, ["127.0.0.1", "::1", "localhost"], False, False),
        (None, [], False, False),  # a socket of Unix
        (None, ["127.0.0.1"], True, True),
        (None, ["127.0.0.1", "0.0.0.0"], False, True),
        (None, ["::"], False, True),
        (None, ["web.example"], False, True),
        ("a-token", ["0.0.0.0"], True, False),
    ],
)
def test_an_api_without_a_token_that_a_proxy_may_reach_is_warned_of(
    caplog: pytest.LogCaptureFixture, token: str | None, hosts: list[str], routed: bool, warned: bool
) -> None:
    warn_of_open_door(Settings(admin_token=SecretStr(token) if token else None), hosts, routed=routed)
    assert ["no BRIDGE_ADMIN_TOKEN" in record.message for record in caplog.records] == [True] * warned


# --- what a client keeps open ---------------------------------------------------------------------------------------

_HALF_HEADERS = b"GET /api/v1/jobs HTTP/1.1\r\nHost: local"
_HALF_BODY = b"POST " + POLL + b" HTTP/1.1\r\n" + GIVEN + b"Content-Length: 100\r\n\r\n{"
_UNREAD = b"GET /static/htmx-4.0.1.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 15


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def kept_open(port: int, count: int, said: bytes) -> Iterator[None]:
    """Hold connections on which no more than this is said, and nothing is read.

    A server that waits for their clients does so for minutes, far longer than the deadline.
    """
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            wire = stack.enter_context(socket.socket())
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or an answer might fit that nobody reads
            wire.settimeout(DEADLINE_S)
            wire.connect(("127.0.0.1", port))
            with contextlib.suppress(ConnectionError):  # it may be closed to make room for the next
                wire.sendall(said)
        yield


def health(port: int, path: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as wire:
        wire.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return int(wire.recv(65_536).split(b" ")[1])


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("said", [_HALF_HEADERS, _HALF_BODY, _UNREAD])
def test_health_is_answered_beside_a_thousand_idle_connections_and_fifty_slow_clients(port: int, said: bytes) -> None:
    with kept_open(port, 1000, b""), kept_open(port, 50, said):
        for _ in range(3):
            assert health(port, b"/healthz") == 200
            assert health(port, b"/readyz") == 503  # no worker runs
        assert ask(port, b"GET", b"/api/v1/watches")[0] == 200
    assert health(port, b"/healthz") == 200


@pytest.mark.usefixtures("many_files")
def test_a_request_that_is_on_its_way_outlives_a_thousand_idle_connections(port: int) -> None:
    head, rest = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConn", b"ection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as wire:
        wire.sendall(head)
        with kept_open(port, 1000, b""):
            assert health(port, b"/healthz") == 200  # so those before it have been taken in
            wire.sendall(rest)
            assert wire.recv(65_536).startswith(b"HTTP/1.1 200")


def test_health_is_answered_while_every_other_thread_waits() -> None:
    app, entered, waits = Flask("slow"), threading.Semaphore(0), threading.Event()

    @app.get("/<path:name>")
    def _view(name: str) -> str:
        if name != "healthz":
            entered.release()
            waits.wait(2 * DEADLINE_S)
        return name

    slow = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(app, host="127.0.0.1", port=0) as port, kept_open(port, 20, slow):
        with kept_open(port, 1, slow.replace(b"slow", b"readyz")):
            for _ in range(5):
                assert entered.acquire(timeout=DEADLINE_S)  # four of those, and readiness in a thread of its own
            assert health(port, b"/healthz") == 200
        waits.set()


def test_what_is_being_answered_when_the_server_stops_is_answered_whole() -> None:
    app, entered, goes_on = Flask("slow"), threading.Event(), threading.Event()

    @app.get("/slow")
    def _slow() -> str:
        entered.set()
        goes_on.wait(DEADLINE_S)
        return "x" * 20_000_000  # more than the sockets keep

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        server, port = Server(app, [listener]), listener.getsockname()[1]
        heard = pool.submit(say, port, b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while not entered.is_set():
            server.turn(0.1)
        goes_on.set()
        server.close()
        assert len(heard.result()) > 20_000_000


def test_a_server_that_was_closed_can_be_woken_all_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(Flask(__name__), [listener])
        server.close()
        server.wake()
