"""The simulated mail server, as Python's own client sees it."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator

import pytest

from bridge.simulator.smtp import CONTENT, HANG_UP, MailServer
from tests.support.mail import PASSWORD, USER, a_mail_server, the_certificate


@pytest.fixture
def server() -> Iterator[MailServer]:
    with a_mail_server() as made:
        yield made


@pytest.fixture
def client(server: MailServer) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", server.port, local_hostname="test", timeout=10) as made:
        yield made


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=the_certificate().path)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # it is a simple one
    return context


def encrypted(client: smtplib.SMTP) -> smtplib.SMTP:
    client.starttls(context=trusting())
    return client


def test_mail_is_kept_as_it_was_sent(server: MailServer, client: smtplib.SMTP) -> None:
    encrypted(client).login(USER, PASSWORD)
    assert client.sendmail("a@x.example", ["b@x.example", "c@x.example"], b"Subject: x\r\n\r\n.dot\r\n") == {}
    (mail,) = server.mails
    assert (mail.sender, mail.to, mail.user) == ("a@x.example", ("b@x.example", "c@x.example"), USER)
    assert mail.content == b"Subject: x\r\n\r\n.dot\r\n"
    assert mail.message["subject"] == "x"


def test_tls_may_be_there_from_the_start() -> None:
    with (
        a_mail_server(implicit=True) as server,
        smtplib.SMTP_SSL("127.0.0.1", server.port, local_hostname="test", context=trusting()) as client,
    ):
        client.login(USER, PASSWORD)
        assert not client.has_extn("starttls")


def test_nothing_is_taken_without_tls_and_nothing_without_a_login(client: smtplib.SMTP) -> None:
    client.ehlo()
    assert not client.has_extn("auth")
    assert client.mail("a@x.example")[0] == 530
    assert encrypted(client).mail("a@x.example")[0] == 530


def test_a_wrong_password_is_refused(client: smtplib.SMTP) -> None:
    with pytest.raises(smtplib.SMTPAuthenticationError):
        encrypted(client).login(USER, "wrong")


def test_what_comes_out_of_order_is_refused(client: smtplib.SMTP) -> None:
    encrypted(client).login(USER, PASSWORD)
    assert client.rcpt("b@x.example")[0] == 503
    assert client.docmd("DATA")[0] == 503
    assert client.docmd("VRFY", "b")[0] == 502
    assert client.docmd("MAIL", "TO:<a@x.example>")[0] == 501


def test_a_fault_answers_instead(server: MailServer, client: smtplib.SMTP) -> None:
    encrypted(client).login(USER, PASSWORD)
    server.fault = lambda command: {"RCPT TO:<b@x.example>": b"550 no", CONTENT: HANG_UP}.get(command)
    client.mail("a@x.example")
    assert client.rcpt("b@x.example") == (550, b"no")
    client.rcpt("c@x.example")
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.data(b"x\r\n")
    assert [mail.to for mail in server.mails] == [("c@x.example",)]
