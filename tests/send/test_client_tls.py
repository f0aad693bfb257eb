import contextlib
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.model import Reason, RetryLater, Sent
from bridge.send.client import HttpClient
from bridge.send.http_types import Failure
from bridge.send.webhook import Webhook
from tests.support.certificates import MISSING, Certificate, a_certificate
from tests.support.receivers import LOOPBACK, NOON, Receiver, a_request, a_webhook, answering, raw, through

HOOK = Webhook(a_webhook())
WELL = answering("204 No Content")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Certificate]:
    if MISSING:
        pytest.skip("needs openssl to make a certificate")
    made: dict[str, Certificate] = {}

    def make(**facts: Any) -> Certificate:
        folder: Path = tmp_path_factory.mktemp("tls")
        return made.setdefault(str(facts), a_certificate(folder, **facts))

    return make


@pytest.mark.parametrize(
    ("facts", "trusted", "says"),
    [
        ({}, False, "self-signed certificate"),
        ({"names": "DNS:other.example.com"}, True, "127.0.0.1"),
        ({"names": "IP:127.0.0.2"}, True, "127.0.0.1"),
        ({"days": -1}, True, "certificate has expired"),
    ],
    ids=["vouched for by itself", "for another name", "for another address", "expired"],
)
def test_a_certificate_that_is_not_right_is_refused_and_said(
    certificates: Callable[..., Certificate], facts: dict[str, Any], trusted: bool, says: str
) -> None:
    certificate = certificates(**facts)
    with Receiver(WELL, tls=certificate.context) as receiver:
        client = HttpClient(allow=LOOPBACK, trusted=certificate.path if trusted else None)
        ends = [through(client, a_request(receiver.url)), client.fetch(a_request(receiver.url))]
        client.close()
    for end in ends:
        outcome = HOOK.outcome(end, NOON)
        assert isinstance(outcome, RetryLater), outcome
        assert outcome.reason == Reason.CONNECTION
        assert outcome.why.startswith(f"the certificate of 127.0.0.1:{receiver.port} is not trusted: ")
        assert says in outcome.why
        assert "hush" not in outcome.why
    assert receiver.requests == []


def test_a_certificate_that_is_right_is_accepted(certificates: Callable[..., Certificate]) -> None:
    certificate = certificates()
    with Receiver(WELL, tls=certificate.context) as receiver:
        client = HttpClient(allow=LOOPBACK, trusted=certificate.path)
        outcomes = [HOOK.outcome(through(client, a_request(receiver.url)), NOON) for _ in range(3)]
        client.close()
    assert outcomes == [Sent()] * 3
    assert receiver.connections == 1


def test_a_connection_to_another_name_of_the_same_receiver_is_verified_anew(
    certificates: Callable[..., Certificate],
) -> None:
    certificate = certificates()
    with Receiver(WELL, tls=certificate.context) as receiver:
        client = HttpClient(allow=LOOPBACK, trusted=certificate.path)
        well = through(client, a_request(receiver.url))
        ill = through(client, a_request(receiver.url.replace("127.0.0.1", "localhost")))
        client.close()
    assert HOOK.outcome(well, NOON) == Sent()
    assert isinstance(ill, Failure)
    assert ill.why.startswith("the certificate of localhost:")


class Plain(Receiver):
    """Answers the handshake with `said`."""

    said = b""

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(self.said)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28", b"garbage"])
def test_a_receiver_that_does_not_speak_tls_is_told_apart(client: HttpClient, said: bytes) -> None:
    with Plain(raw()) as receiver:
        receiver.said = said
        failure = through(client, a_request(receiver.url.replace("http:", "https:")))
    assert isinstance(failure, Failure)
    assert failure.why.startswith(f"the TLS handshake with 127.0.0.1:{receiver.port} failed: ")
    assert "hush" not in failure.why


def test_a_handshake_that_stalls_meets_the_deadline(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it takes connections and says nothing
        port = listener.getsockname()[1]
        failure = through(client, a_request(f"https://127.0.0.1:{port}/", deadline_s=0.3))
    assert isinstance(failure, Failure)
    # To older versions of libcurl, 8.16 for one, a connection is one after the handshake only.
    assert re.fullmatch(f"(no answer from|could not connect to) 127.0.0.1:{port} within 0.3\\d* s", failure.why)


def test_a_connection_that_is_cut_after_the_status_line_is_no_failure(
    certificates: Callable[..., Certificate],
) -> None:
    certificate = certificates()
    with Receiver(raw(b"HTTP/1.1 200 OK\r\n\r\nhalf"), tls=certificate.context) as receiver:
        client = HttpClient(allow=LOOPBACK, trusted=certificate.path)
        outcome = HOOK.outcome(through(client, a_request(receiver.url)), NOON)
        client.close()
    assert outcome == Sent()
