"""SMTP, with real sockets and real certificates: what is said to a mail server, and what its answers mean."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.model import Attempt, Reason, Rejected, RetryLater, Sent
from bridge.notifiers import EmailNotifier
from bridge.send.client import HttpClient
from bridge.send.email import Email
from bridge.send.email.answer import Stopped
from bridge.send.email.smtp import FEW_ATTEMPTS, SAID_CAP, talking
from bridge.send.integration import THROUGH_PROXY, Check, Egress
from bridge.simulator.smtp import CONTENT, CUT, GREETING, HANG_UP, MailServer
from tests.send.probes import Probe
from tests.send.spellings import SPELLINGS
from tests.support.certificates import a_certificate
from tests.support.mail import PASSWORD, TO, USER, a_mail_server, an_email, mailed, saying, trusting
from tests.support.proxies import Proxy
from tests.support.receivers import LOOPBACK, NOBODY, attempt_to

FIRST, SECOND = (f"RCPT TO:<{address}>" for address in TO)


@pytest.fixture
def server() -> Iterator[MailServer]:
    with a_mail_server() as made:
        yield made


def verbs(server: MailServer) -> list[str]:
    """Return what the server was asked for, without the QUIT whose answer nobody waits for."""
    return [verb for command in list(server.commands) if (verb := command.split(" ")[0]) != "QUIT"]


# --- a talk that succeeds ---


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "TLS from the start"])
@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN", "XOAUTH2 CRAM-MD5 PLAIN"])
def test_a_message_goes_to_all_addresses_at_once_after_tls_and_login(implicit: bool, mechanisms: str) -> None:
    with a_mail_server(implicit=implicit, mechanisms=mechanisms) as server:
        made = mailed(an_email(server))
    (mail,) = server.mails
    assert (mail.sender, mail.to, mail.user) == ("ci@example.com", TO, USER)
    assert (made.outcome, made.status, made.address) == (Sent(), 250, "127.0.0.1")
    assert made.answer == "250 2.0.0 kept as 1"
    before_tls = [] if implicit else ["EHLO", "STARTTLS"]
    assert verbs(server) == [*before_tls, "EHLO", "AUTH", "MAIL", "RCPT", "RCPT", "DATA"]


def test_without_a_user_name_nobody_logs_in() -> None:
    with a_mail_server(users={}) as server:
        made = mailed(an_email(server, username=None, password=None))
    assert made.outcome == Sent()
    assert "AUTH" not in verbs(server)


def test_the_greeting_names_the_address_and_not_the_host(server: MailServer) -> None:
    mailed(an_email(server))
    assert server.commands[0] == "EHLO [127.0.0.1]"


def test_a_line_that_begins_with_a_dot_arrives_whole(server: MailServer) -> None:
    mailed(an_email(server), says={"text": ".\n.hidden\n..\nend"})
    body = server.mails[0].message.get_body(("plain",))
    assert body
    assert ".\n.hidden\n..\nend" in body.get_content().replace("\r\n", "\n")


def test_the_connection_goes_through_the_proxy_which_judges_the_name(server: MailServer) -> None:
    with Proxy() as proxy:
        client = trusting(proxy=proxy.url, allow=())
        made = attempt_to(an_email(server), client)
    assert made.outcome == Sent()
    assert [(seen.method, seen.target) for seen in proxy.forwarded] == [("CONNECT", server.place)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 403 Forbidden", "the proxy of BRIDGE_EGRESS_PROXY refused a tunnel to mail.example.com:587"),
        (None, "mail cannot go through the https:// proxy of BRIDGE_EGRESS_PROXY"),
    ],
    ids=["refused", "https"],
)
def test_a_proxy_that_lets_no_mail_through_is_said(answer: bytes | None, why: str) -> None:
    with Proxy(answer) as proxy:
        url = proxy.url if answer else proxy.url.replace("http:", "https:")
        made = attempt_to(an_email("mail.example.com:587"), HttpClient(proxy=url))
    assert isinstance(made.outcome, RetryLater)
    assert made.outcome.why.startswith(why)


# --- addresses ---


def test_a_private_address_is_refused_without_a_connection(server: MailServer) -> None:
    for place in (server.place, f"localhost:{server.port}"):
        made = attempt_to(an_email(place), trusting(allow=()))
        assert isinstance(made.outcome, Rejected)
        assert "a loopback address: refused (allow it with BRIDGE_ALLOW_NETWORKS)" in made.outcome.why
    assert server.connections == 0


def test_a_forbidden_address_is_let_through_in_no_spelling() -> None:
    asked = list[tuple[str, bool]]()
    for spelling in SPELLINGS:
        place = spelling.at(25).partition("://")[2].partition("/")[0]
        made = attempt_to(an_email(place), HttpClient(handle=lambda policy: Probe(policy, asked)))
        assert isinstance(made.outcome, Rejected | RetryLater)
    assert len(asked) > 60
    assert not any(well for _, well in asked)


def test_the_certificate_must_be_for_the_name_whatever_the_address(tmp_path: Path) -> None:
    named = a_certificate(tmp_path, names="DNS:localhost")
    with a_mail_server(named) as server:
        well = attempt_to(an_email(f"localhost:{server.port}"), trusting(named))
        ill = attempt_to(an_email(server), trusting(named))
    assert (well.outcome, well.address) == (Sent(), "127.0.0.1")
    assert isinstance(ill.outcome, RetryLater)
    assert ill.outcome.why.startswith(f"the certificate of {server.place} is not trusted: ")
    assert len(server.mails) == 1


# --- no TLS, no mail ---


def refused(made: Attempt, server: MailServer) -> str:
    """Return why nothing was sent, before any password was."""
    assert isinstance(made.outcome, RetryLater)
    assert made.outcome.reason == Reason.CONNECTION
    assert "AUTH" not in verbs(server)
    assert server.mails == []
    return made.outcome.why


@pytest.mark.parametrize("implicit", [False, True])
def test_a_certificate_that_nobody_vouches_for_is_refused(implicit: bool) -> None:
    with a_mail_server(implicit=implicit) as server:
        made = attempt_to(an_email(server), HttpClient(allow=LOOPBACK))
    assert refused(made, server) == f"the certificate of {server.place} is not trusted: self-signed certificate"


def test_a_server_that_offers_no_tls_is_sent_nothing() -> None:
    with a_mail_server() as server:
        server.offers_starttls = False
        made = mailed(an_email(server))
    assert "offers no STARTTLS, and mail is sent under TLS only" in refused(made, server)


def test_a_server_that_refuses_starttls_is_sent_nothing(server: MailServer) -> None:
    server.fault = saying({"STARTTLS": b"454 4.7.0 not now"})
    made = mailed(an_email(server))
    assert isinstance(made.outcome, RetryLater)
    assert "answered STARTTLS with 454 4.7.0 not now" in made.outcome.why
    assert verbs(server) == ["EHLO", "STARTTLS"]


def test_what_a_server_says_before_tls_does_not_count_after_it(server: MailServer) -> None:
    server.fault = saying({"STARTTLS": b"220 go\r\n250 forged\r\n535 forged"})
    made = mailed(an_email(server))
    assert made.outcome == Sent()


def test_tls_to_a_server_that_begins_in_plain_text_ends_with_advice() -> None:
    with a_mail_server() as server:
        made = mailed(an_email(server, tls="tls"))
    assert refused(made, server).endswith('; tls = "starttls" may be right')


# --- answers ---


@pytest.mark.parametrize(
    ("command", "answer", "outcome", "reason", "says"),
    [
        (
            GREETING,
            b"554 5.7.1 no service for you",
            RetryLater,
            Reason.CLIENT_ERROR,
            "answered the connection with 554",
        ),
        (GREETING, b"SSH-2.0-OpenSSH_9.6", RetryLater, Reason.CONNECTION, "did not answer in SMTP"),
        ("EHLO", b"451 4.3.0 later", RetryLater, Reason.SERVER_ERROR, "answered EHLO with 451 4.3.0 later"),
        ("AUTH", b"454 4.7.0 busy", RetryLater, Reason.SERVER_ERROR, "answered AUTH with 454 4.7.0 busy"),
        ("AUTH", b"535 5.7.8 no", Rejected, Reason.AUTH, "check username and password"),
        ("AUTH", b"534 5.7.9 needs an app password", Rejected, Reason.AUTH, "needs an app password: check username"),
        ("MAIL", b"530 5.7.0 log in", Rejected, Reason.AUTH, "check username and password"),
        ("MAIL", b"553 5.7.1 not yours", Rejected, Reason.AUTH, 'check "from"'),
        ("MAIL", b"552 5.3.4 too big", Rejected, Reason.INVALID_PAYLOAD, "552 5.3.4 too big"),
        ("MAIL", b"450 4.2.0 later", RetryLater, Reason.SERVER_ERROR, "answered MAIL FROM with 450"),
        ("RCPT", b"550 5.1.1 unknown", Rejected, Reason.CHANNEL, 'check "to", none of which it takes'),
        ("RCPT", b"450 4.2.0 greylisted", RetryLater, Reason.SERVER_ERROR, "450 4.2.0 greylisted"),
        ("DATA", b"554 5.5.1 no", Rejected, Reason.INVALID_PAYLOAD, "answered DATA with 554"),
        (CONTENT, b"554 5.7.1 spam", Rejected, Reason.INVALID_PAYLOAD, "answered the message with 554 5.7.1 spam"),
        (CONTENT, b"452 4.3.1 disk full", RetryLater, Reason.SERVER_ERROR, "answered the message with 452"),
    ],
)
def test_an_answer_says_what_becomes_of_the_message(
    server: MailServer, command: str, answer: bytes, outcome: type, reason: Reason, says: str
) -> None:
    server.fault = saying({command: answer})
    made = mailed(an_email(server)).outcome
    assert isinstance(made, outcome)
    assert isinstance(made, RetryLater | Rejected)
    assert made.reason == reason
    assert made.why.startswith(f"{server.place} ")
    assert says in made.why
    assert server.mails == []
    if isinstance(made, Rejected):
        assert made.pause == (reason != Reason.INVALID_PAYLOAD)


@pytest.mark.parametrize("command", [GREETING, "EHLO", "STARTTLS", "AUTH", "MAIL", FIRST, "DATA", CONTENT])
def test_a_server_that_closes_is_left_alone_for_a_while(server: MailServer, command: str) -> None:
    server.fault = saying({command: b"421 4.7.0 too many connections"})
    made = mailed(an_email(server))
    assert isinstance(made.outcome, RetryLater)
    assert (made.outcome.reason, made.outcome.whole_notifier) == (Reason.RATE_LIMITED, True)
    assert made.outcome.after == timedelta(minutes=1)
    assert (made.status, made.answer) == (421, "421 4.7.0 too many connections")


@pytest.mark.parametrize(
    ("mechanisms", "says"), [("XOAUTH2 CRAM-MD5", "only XOAUTH2 CRAM-MD5, which the bridge cannot"), ("", "none")]
)
def test_a_server_with_no_way_to_log_in_pauses_the_notifier(mechanisms: str, says: str) -> None:
    with a_mail_server(mechanisms=mechanisms) as server:
        made = mailed(an_email(server)).outcome
    assert isinstance(made, Rejected)
    assert (made.pause, made.reason) == (True, Reason.AUTH)
    assert f"offers {says}: take out username and password" in made.why


def test_a_wrong_password_is_tried_once_and_shown_nowhere(server: MailServer) -> None:
    server.fault = saying({"AUTH": b"535 5.7.8 " + PASSWORD.encode() + b" is wrong"})
    made = mailed(an_email(server))
    assert isinstance(made.outcome, Rejected)
    assert PASSWORD not in f"{made.outcome.why} {made.answer}"
    assert verbs(server).count("AUTH") == 1


# --- some addresses are refused ---


def test_who_is_refused_for_good_is_left_out_and_recorded(server: MailServer) -> None:
    server.fault = saying({SECOND: b"550 5.1.1 unknown"})
    made = mailed(an_email(server))
    assert made.outcome == Sent()
    assert made.answer == f"250 2.0.0 kept as 1\n{SECOND}: 550 5.1.1 unknown"
    assert [mail.to for mail in server.mails] == [TO[:1]]


def test_for_who_is_refused_for_now_all_wait_so_that_nobody_gets_it_twice(server: MailServer) -> None:
    server.fault = saying({FIRST: b"450 4.2.0 greylisted"})
    for attempts in range(1, FEW_ATTEMPTS + 1):
        made = mailed(an_email(server), attempts=attempts)
        assert isinstance(made.outcome, RetryLater)
    assert server.mails == []
    server.fault = None
    assert mailed(an_email(server), attempts=FEW_ATTEMPTS).outcome == Sent()
    assert [mail.to for mail in server.mails] == [TO]


def test_a_full_mailbox_does_not_hold_up_the_others_for_long(server: MailServer) -> None:
    server.fault = saying({FIRST: b"452 4.2.2 mailbox full"})
    made = mailed(an_email(server), attempts=FEW_ATTEMPTS + 1)
    assert made.outcome == Sent()
    assert "452 4.2.2 mailbox full" in made.answer
    assert [mail.to for mail in server.mails] == [TO[1:]]


# --- no answer ---


@pytest.mark.parametrize("command", [GREETING, "EHLO", "STARTTLS", "AUTH", "MAIL", FIRST, "DATA", CONTENT])
def test_a_connection_that_breaks_is_tried_again(server: MailServer, command: str) -> None:
    server.fault = saying({command: HANG_UP})
    made = mailed(an_email(server)).outcome
    assert isinstance(made, RetryLater)
    assert made.reason == Reason.CONNECTION
    assert ("may have accepted the message" in made.why) == (command == CONTENT)


@pytest.mark.parametrize("cut", [b"2", b"5", b"55"])
def test_an_answer_that_is_cut_off_decides_nothing(server: MailServer, cut: bytes) -> None:
    server.fault = saying({CONTENT: cut + CUT})
    made = mailed(an_email(server)).outcome
    assert isinstance(made, RetryLater)
    assert made.reason == Reason.CONNECTION
    assert made.why.startswith(f"{server.place} did not answer in SMTP: it may have accepted the message")


def test_what_may_have_been_accepted_comes_again_under_the_same_id(server: MailServer) -> None:
    server.fault = saying({CONTENT: HANG_UP})
    mailed(an_email(server))
    server.fault = None
    assert mailed(an_email(server), attempts=2).outcome == Sent()
    first, second = (mail.message["message-id"] for mail in server.mails)
    assert first == second == "<d_1@example.com>"


@pytest.mark.parametrize("command", ["EHLO", "MAIL", CONTENT])
def test_a_server_that_talks_without_end_is_left(server: MailServer, command: str) -> None:
    server.fault = saying({command: b"250-more\r\n" * (SAID_CAP // 10 + 1) + b"250 end"})
    made = mailed(an_email(server)).outcome
    assert isinstance(made, RetryLater)
    assert made.reason == Reason.CONNECTION
    assert made.why.startswith(f"{server.place} sent too many bytes")
    assert ("may have accepted the message" in made.why) == (command == CONTENT)


def test_nobody_there_is_a_fault_of_the_connection() -> None:
    made = mailed(an_email("127.0.0.1:1")).outcome
    assert made == RetryLater("could not connect to 127.0.0.1:1: Connection refused", Reason.CONNECTION)


@contextmanager
def a_slow_server(every_s: float) -> Iterator[str]:
    """Yield the place of a server that sends a byte of its greeting now and then, and no end of it."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                while not over.wait(every_s):
                    connection.sendall(b"2")

        thread = threading.Thread(target=drip)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        thread.join()


@pytest.mark.parametrize(("tls", "every_s"), [("starttls", 0.01), ("starttls", 60.0), ("tls", 60.0)])
def test_one_deadline_ends_the_whole_talk(tls: str, every_s: float) -> None:
    with (
        closing(trusting()) as client,
        a_slow_server(every_s) as place,
        pytest.raises(Stopped) as stopped,
        talking(an_email(place, tls=tls), client, deadline_s=2.0),
    ):
        pass
    assert stopped.value.outcome.why.startswith(f"no answer from {place} within 2 s")
    assert stopped.value.outcome.reason == Reason.TIMEOUT
    assert ('tls = "tls" is right' in stopped.value.outcome.why) == (tls == "starttls")


# --- doctor ---


def checked(notifier: EmailNotifier, **client: Any) -> list[Check]:
    made = trusting(**client)
    found = list(Email(notifier).check(Egress(made, NOBODY)))
    made.close()
    return found


def test_a_check_logs_in_and_sends_nothing(server: MailServer) -> None:
    found = checked(an_email(server))
    assert found == [Check(True, f"{server.place} speaks SMTP under TLS, and knows user name and password")]
    assert verbs(server)[-1] == "AUTH"


def test_a_check_says_what_is_wrong(server: MailServer) -> None:
    (found,) = checked(an_email(server, password="another-hush"))
    assert found.ok is False
    assert found.detail.endswith("check username and password")
    (found,) = checked(an_email(server), allow=())
    assert "BRIDGE_ALLOW_NETWORKS" in found.detail


def test_a_check_goes_through_the_proxy_too(server: MailServer) -> None:
    with Proxy() as proxy:
        found = checked(an_email(server), proxy=proxy.url)
    assert [check.ok for check in found] == [True, True]
    assert found[0].detail == THROUGH_PROXY


def test_a_check_says_that_mail_does_not_go_through_every_proxy() -> None:
    _, found = checked(an_email("mail.example.com:587"), proxy="https://proxy.example.com")
    assert found.ok is False
    assert found.detail.startswith("mail cannot go through the https:// proxy of BRIDGE_EGRESS_PROXY")


# --- odd answers ---


@pytest.mark.parametrize("answer", [b"251 ok\r\n", b"200 ok\r\n"])
def test_every_yes_to_the_message_means_that_it_was_accepted(server: MailServer, answer: bytes) -> None:
    server.fault = saying({CONTENT: answer})
    assert mailed(an_email(server)).outcome == Sent()


@pytest.mark.parametrize("answer", [b"abc\r\n", b"600 x\r\n", b" 250 ok\r\n"])
def test_nonsense_after_the_message_says_that_it_may_have_been_accepted(server: MailServer, answer: bytes) -> None:
    server.fault = saying({CONTENT: answer})
    outcome = mailed(an_email(server)).outcome
    assert isinstance(outcome, RetryLater)
    assert "it may have accepted the message" in outcome.why


@pytest.mark.parametrize("answer", [b"334 abc\r\n", b"334 a\r\n"])
def test_challenges_without_sense_or_end_are_no_smtp(answer: bytes) -> None:
    with a_mail_server(mechanisms="LOGIN") as server:
        server.fault = lambda command: None if command.split(" ")[0] in ("EHLO", "STARTTLS", GREETING) else answer
        outcome = mailed(an_email(server)).outcome
    assert isinstance(outcome, RetryLater)
    assert "did not answer in SMTP" in outcome.why


def test_a_login_out_of_turn_is_no_login(server: MailServer) -> None:
    server.fault = saying({"AUTH": b"503 x\r\n"})
    outcome = mailed(an_email(server)).outcome
    assert isinstance(outcome, Rejected)
    assert "answered AUTH with 503 x: check username and password" in outcome.why


@pytest.mark.parametrize("before", range(170, 201, 5))
def test_of_a_secret_that_is_repeated_where_an_answer_is_cut_no_part_is_shown(server: MailServer, before: int) -> None:
    server.fault = saying({"AUTH": b"535 " + b"x" * before + f" {PASSWORD} bad credentials\r\n".encode()})
    made = mailed(an_email(server))
    (check,) = checked(an_email(server))
    assert not [text for text in (str(made.outcome), made.answer, check.detail) if PASSWORD[:5] in text]
