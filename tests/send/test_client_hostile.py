"""Receivers that answer what no receiver should: once is asked, the status line decides, and memory is bounded."""

import resource
import socket
import struct
import threading

import pytest

from bridge.model import Attempt, Reason, RetryLater, Sent
from bridge.send.client import HttpClient
from bridge.send.http_types import Reply
from bridge.send.integration import Egress
from bridge.send.slack import Slack
from tests.support.receivers import (
    NOON,
    Behaviour,
    Receiver,
    Seen,
    a_delivery,
    a_request,
    a_slack,
    a_webhook,
    accepting,
    answering,
    attempt,
    attempt_to,
    closing_sender,
    dripping,
    raw,
    through,
)

CHUNK = b"x" * 65_536

# What comes after "HTTP/1.1 200 OK" and a line break, until the connection is closed.
AFTER_THE_STATUS = {
    "nothing": b"",
    "half a header": b"X-A: b",
    "headers without an end": b"X-A: b\r\n",
    "a second status line": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "a second answer": b"Content-Length: 0\r\n\r\nHTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "a header without colon": b"no colon\r\n\r\n",
    "a header without name": b": value\r\n\r\n",
    "a header that continues nothing": b" folded\r\n\r\n",
    "a header with NUL": b"X-A: a\0b\r\n\r\n",
    "a negative length": b"Content-Length: -5\r\n\r\nhello",
    "a length that is no number": b"Content-Length: many\r\n\r\nhello",
    "a length of 23 digits": b"Content-Length: " + b"9" * 23 + b"\r\n\r\nhello",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 9\r\n\r\nhello",
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunks that are none": b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n",
    "a chunk of 10**24 bytes": b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    "half a chunk": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "an encoding nobody knows": b"Transfer-Encoding: zipped\r\n\r\nhello",
    "a body that is no gzip": b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "a body cut short": b"Content-Length: 99\r\n\r\nhello",
}
SILENCE = ("{place} closed the connection without an answer", Reason.CONNECTION)
NOT_HTTP = ("{place} did not answer in HTTP", Reason.CONNECTION)
NO_ANSWER = {
    "half a status line": (b"HTTP/1.1 2", *SILENCE),
    "only 100": (b"HTTP/1.1 100 Continue\r\n\r\n", *SILENCE),
    "only 101": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", *SILENCE),
    "101, then another protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "{place} answered 101, which is only an interim status",
        Reason.OTHER,
    ),
    "HTTP/0.9": (b"<html>ok</html>", *NOT_HTTP),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *NOT_HTTP),
    "frames of HTTP/2": (b"\0\0\x12\4\0\0\0\0\0\0\3\0\0\0\x80\0\4\0\1\0\0", *NOT_HTTP),
    "a status of two digits": (b"HTTP/1.1 20 Small\r\n\r\n", *NOT_HTTP),
    "nothing": (b"", *SILENCE),
    "status 000": (b"HTTP/1.1 000 Hm\r\n\r\n", *NOT_HTTP),
    "an empty line first": (b"\r\nHTTP/1.1 200 OK\r\n\r\n", *NOT_HTTP),
    "SSH": (b"SSH-2.0-OpenSSH_9\r\n", *NOT_HTTP),
}
FLOODS = {
    "long headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"x" * 1000 + b"\r\n", Sent),
    "short headers": (b"HTTP/1.1 200 OK\r\n", b"a:\r\n" * 1000, Sent),
    "one header": (b"HTTP/1.1 200 OK\r\nX-A: ", CHUNK, Sent),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 1000, Sent),
    "tiny chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000, Sent),
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", CHUNK, Sent),
    "a status line": (b"HTTP/1.1 200 ", CHUNK, RetryLater),
    "100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, RetryLater),
    "103": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000, RetryLater),
}


def three_to(receiver: Receiver) -> list[Attempt]:
    with closing_sender(a_webhook(receiver.url)) as sender:
        return [attempt(sender) for _ in range(3)]


def sent_to(url: str) -> Attempt:
    return attempt_to(a_webhook(url))


@pytest.mark.parametrize("rest", AFTER_THE_STATUS)
@pytest.mark.parametrize("status", [200, 500])
def test_the_status_line_decides_whatever_is_wrong_after_it(status: int, rest: str) -> None:
    said = b"HTTP/1.1 %d Hm\r\n" % status + AFTER_THE_STATUS[rest]
    with Receiver(raw(said)) as receiver:
        made = sent_to(receiver.url)
    broken = RetryLater("answered 500 Internal Server Error", Reason.SERVER_ERROR)
    assert made.outcome == (Sent() if status == 200 else broken)
    assert (made.status, len(receiver.requests)) == (status, 1)


@pytest.mark.parametrize("how", NO_ANSWER)
def test_what_is_no_answer_is_said_and_tried_again_later(how: str) -> None:
    said, why, reason = NO_ANSWER[how]
    with Receiver(raw(said)) as receiver:
        made = sent_to(receiver.url)
    assert made.outcome == RetryLater(why.format(place=f"127.0.0.1:{receiver.port}"), reason)
    assert (made.status, len(receiver.requests)) == (None, 1)


@pytest.mark.parametrize("what", FLOODS)
def test_an_answer_without_an_end_costs_little_memory_and_one_request(what: str) -> None:
    start, drop, outcome = FLOODS[what]
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Receiver(dripping(start, drop, every_s=0)) as receiver:
        made = sent_to(receiver.url)
    assert type(made.outcome) is outcome, made
    assert not str(getattr(made.outcome, "why", "")).endswith(": ")
    assert len(made.answer) <= 4096
    assert len(receiver.requests) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 32_000


@pytest.mark.parametrize("drop", [b"x", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_interim_answers_and_chunk_extensions_that_go_on_meet_the_deadline(client: HttpClient, drop: bytes) -> None:
    start = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n1;" if drop == b"x" else b""
    with Receiver(dripping(start, drop)) as receiver:
        ended = through(client, a_request(receiver.url, deadline_s=0.3))
    assert isinstance(ended, Reply) == bool(start), ended


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "304 Not Modified", "200 OK"])
def test_bytes_beyond_an_answer_are_not_taken_for_the_next_one(status: str) -> None:
    stale = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
    with Receiver(raw(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode() + stale, close=False)) as receiver:
        statuses = [made.status for made in three_to(receiver)]
    assert statuses == [int(status[:3])] * 3
    assert len(receiver.requests) == 3


def test_a_redirect_to_itself_is_asked_once() -> None:
    def behave(connection: socket.socket, seen: Seen, over: threading.Event) -> None:
        answering("308 Permanent Redirect", b"", f"Location: {receiver.url}")(connection, seen, over)

    with Receiver(behave) as receiver:
        made = sent_to(receiver.url)
    why = "answered 308 Permanent Redirect to 127.0.0.1: redirects are not followed, update the url"
    assert made.outcome == RetryLater(why)
    assert len(receiver.requests) == 1


def test_a_reset_after_the_request_is_tried_again_later() -> None:
    def reset(connection: socket.socket, *_: object) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionError  # ends the connection

    with Receiver(reset) as receiver:
        made = sent_to(receiver.url)
    assert isinstance(made.outcome, RetryLater)
    assert made.outcome.why.startswith(f"the connection to 127.0.0.1:{receiver.port} broke: ")
    assert receiver.connections == 1


def test_an_answer_from_before_the_request_was_read_is_heard_or_tried_again() -> None:
    """What lies unread when the receiver closes makes a reset of it, which may overtake the answer."""

    class Unread(Receiver):
        def _serve(self, connection: socket.socket) -> None:
            with connection:
                connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n")

    with Unread(raw()) as receiver:
        made = sent_to(receiver.url)
    assert isinstance(made.outcome, RetryLater)
    assert made.status in (413, None)
    assert receiver.connections == 1


def test_an_answer_before_a_long_body_was_read_ends_the_request(client: HttpClient) -> None:
    def behave(connection: socket.socket, seen: Seen, over: threading.Event) -> None:
        answering("413 Content Too Large", b"", "Connection: close")(connection, seen, over)
        over.wait()

    with Receiver(behave) as receiver:
        request = a_request(receiver.url, headers=("content-length: 0",), body=b"x" * (16 << 20), deadline_s=10)
        reply = through(client, request)
    assert isinstance(reply, Reply)
    assert reply.status == 413


# --- connections that were kept alive ---------------------------------------------------------------------------


def once_alive() -> Behaviour:
    """Answers the first request of each connection, and closes the connection on the second one, unanswered."""
    known: set[socket.socket] = set()

    def behave(connection: socket.socket, seen: Seen, over: threading.Event) -> None:
        if connection in known:
            connection.shutdown(socket.SHUT_RDWR)
            return
        known.add(connection)
        accepting()(connection, seen, over)

    return behave


def test_a_kept_connection_that_dies_of_a_webhook_is_replaced_and_sent_once_more_under_the_same_id() -> None:
    with Receiver(once_alive()) as receiver, closing_sender(a_webhook(receiver.url)) as sender:
        assert [attempt(sender).outcome for _ in range(2)] == [Sent(), Sent()]
    _, second, third = receiver.requests
    assert (second.headers["webhook-id"], second.body) == (third.headers["webhook-id"], third.body)
    assert receiver.connections == 2


def test_a_new_connection_that_dies_of_a_webhook_is_not_replaced() -> None:
    with Receiver(raw()) as receiver:
        made = sent_to(receiver.url)
    why = f"127.0.0.1:{receiver.port} closed the connection without an answer"
    assert made.outcome == RetryLater(why, Reason.CONNECTION)
    assert receiver.connections == 1


@pytest.mark.parametrize("hook", [True, False])
def test_slack_is_not_sent_to_twice_when_a_kept_connection_dies(client: HttpClient, hook: bool) -> None:
    with Receiver(once_alive()) as receiver:
        notifier = a_slack(url=receiver.url if hook else None)
        egress = Egress(client, f"http://127.0.0.1:{receiver.port}/api/")
        outcomes = [Slack(notifier).send(a_delivery(), NOON, egress)[0] for _ in range(3)]
    why = f"127.0.0.1:{receiver.port} closed the connection without an answer"
    nothing = RetryLater(why, Reason.CONNECTION)
    assert [isinstance(one, Sent) or one for one in outcomes] == [True, nothing, True]
    assert len(receiver.requests) == 3


def test_a_kept_connection_that_was_closed_in_silence_costs_no_delivery() -> None:
    def behave(connection: socket.socket, seen: Seen, over: threading.Event) -> None:
        answering("200 OK")(connection, seen, over)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    closed = threading.Event()
    with Receiver(behave) as receiver, closing_sender(a_webhook(receiver.url)) as sender:
        for _ in range(3):
            assert attempt(sender).outcome == Sent()
            assert closed.wait(10)
            closed.clear()
    assert (len(receiver.requests), receiver.connections) == (3, 3)
