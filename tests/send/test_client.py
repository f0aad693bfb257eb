"""One request and its answer, with receivers that behave, and with some that do not."""

import socket
import threading
from contextlib import closing

import pytest

from bridge.send.client import HttpClient
from bridge.send.http_types import Failure, Reply
from tests.support.receivers import LOOPBACK, NOBODY, Receiver, a_request, answering, dripping, raw, through


def reply_to(client: HttpClient, receiver: Receiver, **changes: object) -> Reply:
    reply = through(client, a_request(receiver.url, **changes))
    assert isinstance(reply, Reply)
    return reply


def test_a_request_arrives_whole_and_its_answer_comes_back(client: HttpClient) -> None:
    with Receiver(answering("201 Created", b"thanks", "X-Y:  z ")) as receiver:
        reply = reply_to(client, receiver, headers=("x-a: 1", "x-empty;"), body=b'{"a":"\xe8"}')
    assert (reply.status, reply.body, reply.headers["x-y"]) == (201, b"thanks", "z")
    assert reply.address == "127.0.0.1"
    (seen,) = receiver.requests
    assert (seen.path, seen.body) == ("/hook?token=hush", b'{"a":"\xe8"}')
    assert (seen.headers["x-a"], seen.headers["x-empty"]) == ("1", "")
    assert seen.headers["user-agent"].startswith("ci-bridge/")
    assert not {"expect", "accept-encoding", "authorization"} & set(seen.headers)


@pytest.mark.parametrize(
    ("behave", "connections"),
    [
        (answering("204 No Content"), 1),
        (answering("200 OK", b"x" * 20_000), 1),  # too long to store, but not to read
        (answering("200 OK", b"", "Connection: close"), 5),
    ],
    ids=["no content", "a long answer", "closed by the receiver"],
)
def test_connections_are_kept_alive_and_used_again(client: HttpClient, behave: object, connections: int) -> None:
    with Receiver(behave) as receiver:  # type: ignore[arg-type]
        replies = [reply_to(client, receiver) for _ in range(5)]
    assert {len(reply.body) for reply in replies} <= {0, 4096}
    assert (len(receiver.requests), receiver.connections) == (5, connections)


def test_many_requests_run_at_once_and_each_key_gets_its_own_answer(client: HttpClient) -> None:
    def echo(connection: socket.socket, seen: object, over: threading.Event) -> None:
        everyone.wait(10)
        answering("200 OK", seen.body)(connection, seen, over)  # type: ignore[attr-defined, arg-type]

    everyone = threading.Barrier(30)
    with Receiver(echo) as receiver:
        for n in range(30):
            client.start(a_request(receiver.url, body=b"%d" % n), n)
        assert client.in_flight == 30
        ended = []
        while len(ended) < 30:
            ended += client.wait(10)
    assert sorted(key for key, _ in ended) == list(range(30))
    assert all(isinstance(reply, Reply) and reply.body == b"%d" % key for key, reply in ended)


def test_a_handle_used_again_remembers_nothing_of_the_last_request(client: HttpClient) -> None:
    with Receiver(answering("500 Oops", b"secret", "Retry-After: 9")) as receiver:
        reply_to(client, receiver)
    assert isinstance(through(client, a_request(receiver.url)), Failure)
    with Receiver(raw(b"HTTP/1.1 204 No Content\r\n\r\n", close=False)) as receiver:
        reply = reply_to(client, receiver)
    assert (reply.status, reply.body, reply.headers) == (204, b"", {})


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 ", b"HTTP/1.1 102 Processing\r\n\r\n"])
@pytest.mark.parametrize("send", [through, HttpClient.fetch])
def test_a_receiver_that_says_nothing_final_meets_the_deadline(client: HttpClient, start: bytes, send: object) -> None:
    behave = dripping(start, b"0" if start == b"HTTP/1.1 " else b"")
    with Receiver(behave) as receiver:
        failure = send(client, a_request(receiver.url, deadline_s=0.3))  # type: ignore[operator]
    assert isinstance(failure, Failure)
    assert failure.why == f"no answer from 127.0.0.1:{receiver.port} within 0.3 s"


@pytest.mark.parametrize(
    ("start", "status"),
    [(b"HTTP/1.1 200 OK\r\nX-Long: ", 200), (b"HTTP/1.1 202 Accepted\r\nContent-Length: 9999\r\n\r\n", 202)],
    ids=["headers", "body"],
)
def test_an_answer_that_drips_meets_the_deadline_and_its_status_counts(
    client: HttpClient, start: bytes, status: int
) -> None:
    with Receiver(dripping(start, b"x")) as receiver:
        reply = reply_to(client, receiver, deadline_s=1.0)
    assert reply.status == status
    assert set(reply.body) <= {ord("x")}


def test_headers_of_interim_answers_are_not_those_of_the_answer(client: HttpClient) -> None:
    both = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 1\r\n\r\nHTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"
    with Receiver(raw(both, close=False)) as receiver:
        reply = reply_to(client, receiver)
    assert (reply.status, reply.headers) == (204, {"x-a": "b"})


@pytest.mark.parametrize(
    ("url", "whys"),
    [
        ("http://127.0.0.1/secret", {"127.0.0.1 is a loopback address"}),
        (
            "https://localhost:444/secret",
            {f"localhost resolves to {address}, a loopback address" for address in ("127.0.0.1", "::1")},
        ),
    ],
)
def test_a_forbidden_address_is_refused_with_the_name_that_led_there(url: str, whys: set[str]) -> None:
    with closing(HttpClient()) as client:
        failure = through(client, a_request(url))
    assert isinstance(failure, Failure)
    assert failure.forbidden
    assert failure.why in {f"{why}: refused (allow it with BRIDGE_ALLOW_NETWORKS)" for why in whys}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/hostname", "the url must begin with https:// or http://"),
        ("gopher://127.0.0.1:70/x", "the url must begin with https:// or http://"),
        ("http://user:hush@127.0.0.1/", 'the url has a user name in it; use a header "Authorization" instead'),
        ("http://127.0.0.1:0/", "the url names no host, or port 0"),
        ("http:///hook", "the url names no host, or port 0"),
        ("http://127.0.0.1/a b", "the url has a space, a backslash or a control character in it"),
        ("http://127.0.0.1\\@example.com/", "the url has a space, a backslash or a control character in it"),
        ("http://me:hush@public.example\uff03/", "the url is malformed"),
        ("http://127.0.0.1:hush/", "the url is malformed"),
        ("http://127.0.0.1:70000/", "the url is malformed"),
        ("http://[hush]/", "the url is malformed"),
        ("http://127.0.0.1/" + "x" * 9000, "the url is longer than 8192 characters"),
    ],
)
def test_a_url_that_is_not_usable_is_a_failure_and_no_exception(client: HttpClient, url: str, why: str) -> None:
    assert through(client, a_request(url)) == Failure(why)
    assert client.fetch(a_request(url)) == Failure(why)


def test_libcurl_itself_refuses_other_protocols(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.send.client.encoded", lambda url: url)
    monkeypatch.setattr("bridge.send.client.whereabouts", lambda _: "host:1")
    for url in ("file:///etc/hostname", "gopher://127.0.0.1:1/x", "ftp://127.0.0.1:1/x"):
        assert isinstance(through(client, a_request(url)), Failure)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("x-a: b\r\nx-c: d", "a header has a line break in it"),
        ("x-a: b\n", "a header has a line break in it"),
        ("x-a: 名", "a header has a character that is not ASCII"),
    ],
)
def test_a_header_that_is_not_one_is_a_failure_and_no_exception(client: HttpClient, header: str, why: str) -> None:
    assert through(client, a_request(NOBODY, headers=(header,))) == Failure(why)
    with Receiver(answering("204 No Content")) as receiver:
        assert reply_to(client, receiver)


def test_a_receiver_that_cannot_be_reached_is_named_without_path_or_query(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    whys = {
        f"http://{place}/hook?token=hush": f"could not connect to {place}: Connection refused",
        "http://nobody.invalid/hook?token=hush": "could not look up nobody.invalid: no address found",
    }
    for url, why in whys.items():
        failure = through(client, a_request(url))
        assert isinstance(failure, Failure)
        assert (failure.why, failure.forbidden) == (why, False)


def test_wake_ends_a_wait_from_any_thread_and_so_does_time(client: HttpClient) -> None:
    thread = threading.Thread(target=client.wake)
    thread.start()
    assert client.wait(60) == []
    thread.join()
    assert client.wait(0.05) == []


def test_a_fetch_works_from_many_threads_at_once(client: HttpClient) -> None:
    together = threading.Barrier(4)
    results = []

    def fetch() -> None:
        together.wait(10)
        results.extend(client.fetch(a_request(receiver.url)) for _ in range(5))

    with Receiver(answering("200 OK", b"x" * 10_000)) as receiver:
        threads = [threading.Thread(target=fetch) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [len(reply.body) for reply in results if isinstance(reply, Reply)] == [10_000] * 20
    assert receiver.connections <= 4


def test_closing_gives_up_what_is_in_flight() -> None:
    client = HttpClient(allow=LOOPBACK)
    with Receiver(dripping(b"", b"")) as receiver:
        client.start(a_request(receiver.url), 1)
        assert client.wait(0.05) == []
        client.close()
        assert receiver.connections == 1
    client.wake()
