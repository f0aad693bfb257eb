import socket
import threading

import pytest

from bridge.model import Reason
from bridge.send.client import DRAINED, HttpClient
from bridge.send.http_types import Failure, Reply
from tests.support.receivers import (
    LOOPBACK,
    Receiver,
    a_request,
    answering,
    dripping,
    raw,
    through,
)


def test_a_request_arrives_whole_and_its_answer_comes_back(client: HttpClient) -> None:
    with Receiver(answering("201 Created", b"thanks", "X-Y:  z ")) as receiver:
        reply = through(client, a_request(receiver.url, headers=("x-a: 1", "x-empty;"), body=b'{"a":"\xe8"}'))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, reply.headers["x-y"]) == (201, b"thanks", "z")
    assert reply.address == "127.0.0.1"
    (seen,) = receiver.requests
    assert (seen.path, seen.body) == ("/hook?token=hush", b'{"a":"\xe8"}')
    assert (seen.headers["x-a"], seen.headers["x-empty"]) == ("1", "")
    assert seen.headers["user-agent"].startswith("ci-bridge/")
    assert not {"expect", "accept-encoding", "authorization"} & set(seen.headers)


def test_connections_are_kept_alive_and_used_again(client: HttpClient) -> None:
    with Receiver(answering("204 No Content")) as receiver:
        for _ in range(20):
            assert isinstance(through(client, a_request(receiver.url)), Reply)
    assert (len(receiver.requests), receiver.connections) == (20, 1)


def test_an_answer_too_long_to_store_but_not_to_read_keeps_its_connection(client: HttpClient) -> None:
    with Receiver(answering("200 OK", b"x" * 20_000)) as receiver:
        replies = [through(client, a_request(receiver.url)) for _ in range(3)]
    assert [len(reply.body) for reply in replies if isinstance(reply, Reply)] == [4096] * 3
    assert receiver.connections == 1


def test_a_connection_that_the_receiver_closed_meanwhile_is_replaced(client: HttpClient) -> None:
    with Receiver(answering("200 OK", b"", "Connection: close")) as receiver:
        for _ in range(3):
            assert isinstance(through(client, a_request(receiver.url)), Reply)
    assert (len(receiver.requests), receiver.connections) == (3, 3)


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
        through(client, a_request(receiver.url))
    failure = through(client, a_request(receiver.url))
    assert isinstance(failure, Failure)
    with Receiver(raw(b"HTTP/1.1 204 No Content\r\n\r\n", close=False)) as receiver:
        reply = through(client, a_request(receiver.url))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, reply.headers) == (204, b"", {})


def test_a_receiver_that_is_down_is_named_without_path_or_query(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failure = through(client, a_request(f"http://127.0.0.1:{port}/hook?token=hush"))
    assert isinstance(failure, Failure)
    assert failure.why == f"could not connect to 127.0.0.1:{port}: Connection refused"
    assert not failure.forbidden


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 ", b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_a_receiver_that_says_nothing_final_meets_the_deadline(client: HttpClient, start: bytes) -> None:
    behave = dripping(start, b"0" if start == b"HTTP/1.1 " else b"")
    with Receiver(behave) as receiver:
        failure = through(client, a_request(receiver.url, deadline_s=0.3))
    assert isinstance(failure, Failure)
    assert failure.why == f"no answer from 127.0.0.1:{receiver.port} within 0.3 s"
    assert 0.2 < failure.seconds < 3


def test_headers_that_drip_meet_the_deadline_and_the_status_before_them_counts(client: HttpClient) -> None:
    with Receiver(dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x")) as receiver:
        reply = through(client, a_request(receiver.url, deadline_s=0.3))
    assert isinstance(reply, Reply)
    assert reply.status == 200


def test_a_body_that_drips_meets_the_deadline_and_the_status_before_it_counts(client: HttpClient) -> None:
    with Receiver(dripping(b"HTTP/1.1 202 Accepted\r\nContent-Length: 9999\r\n\r\n", b"x")) as receiver:
        reply = through(client, a_request(receiver.url, deadline_s=0.3))
    assert isinstance(reply, Reply)
    assert reply.status == 202
    assert set(reply.body) == {ord("x")}


def test_an_endless_body_is_cut_off_and_the_status_before_it_counts(client: HttpClient) -> None:
    flood = dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * DRAINED, every_s=0)
    with Receiver(flood) as receiver:
        reply = through(client, a_request(receiver.url, deadline_s=60))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b"x" * 4096)
    assert len(receiver.requests) == 1


def test_a_body_broken_off_does_not_undo_the_status_before_it(client: HttpClient) -> None:
    with Receiver(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf")) as receiver:
        reply = through(client, a_request(receiver.url))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b"half")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "closed the connection without an answer"),
        (b"\x00\x01garbage\r\n\r\n", "did not answer in HTTP"),
        (b"SSH-2.0-OpenSSH_9\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 20 Small\r\n\r\n", "did not answer in HTTP"),
    ],
)
def test_a_receiver_that_does_not_speak_http_is_told_apart(client: HttpClient, said: bytes, why: str) -> None:
    with Receiver(raw(said)) as receiver:
        failure = through(client, a_request(receiver.url))
    assert failure == Failure(
        f"127.0.0.1:{receiver.port} {why}", Reason.CONNECTION, seconds=failure.seconds, address="127.0.0.1"
    )


def test_a_redirect_is_not_followed(client: HttpClient) -> None:
    with Receiver(answering("200 OK")) as target:
        location = f"Location: {target.url}"
        with Receiver(answering("301 Moved Permanently", b"", location)) as receiver:
            reply = through(client, a_request(receiver.url))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers["location"]) == (301, target.url)
    assert target.requests == []


def test_headers_of_interim_answers_are_not_those_of_the_answer(client: HttpClient) -> None:
    both = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 1\r\n\r\nHTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"
    with Receiver(raw(both, close=False)) as receiver:
        reply = through(client, a_request(receiver.url))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers) == (204, {"x-a": "b"})


def test_a_name_that_resolves_to_a_forbidden_address_is_refused_with_both_named() -> None:
    client = HttpClient()
    failure = through(client, a_request("https://localhost:444/secret"))
    client.close()
    assert isinstance(failure, Failure)
    assert failure.forbidden
    assert failure.why in {
        f"localhost resolves to {address}, a loopback address: refused (allow it with BRIDGE_ALLOW_NETWORKS)"
        for address in ("127.0.0.1", "::1")
    }


def test_a_literal_address_is_refused_as_what_it_is() -> None:
    client = HttpClient()
    failure = through(client, a_request("http://127.0.0.1/secret"))
    client.close()
    assert isinstance(failure, Failure)
    assert failure.why == "127.0.0.1 is a loopback address: refused (allow it with BRIDGE_ALLOW_NETWORKS)"


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
    assert through(client, a_request("http://127.0.0.1:1/", headers=(header,))) == Failure(why)
    with Receiver(answering("204 No Content")) as receiver:
        assert isinstance(through(client, a_request(receiver.url)), Reply)


def test_a_name_that_nobody_knows_is_a_failure(client: HttpClient) -> None:
    failure = through(client, a_request("http://nobody.invalid/x"))
    assert isinstance(failure, Failure)
    assert "nobody.invalid" in failure.why
    assert not failure.forbidden


def test_wake_ends_a_wait_from_any_thread(client: HttpClient) -> None:
    thread = threading.Thread(target=client.wake)
    thread.start()
    assert client.wait(60) == []
    thread.join()
    assert client.wait(0) == []


def test_a_wait_ends_when_its_time_is_up(client: HttpClient) -> None:
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
