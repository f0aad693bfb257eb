"""One talk with a mail server, always under TLS: RFC 5321, 3207 (STARTTLS) and 4954 (AUTH), read 2026-12-01."""

from __future__ import annotations

import binascii
import re
import smtplib
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from threading import Timer
from time import monotonic
from typing import Self

from bridge.model import Reason, RetryLater
from bridge.notifiers import EmailNotifier
from bridge.redact import Mask
from bridge.send.client import HttpClient
from bridge.send.email.answer import Answer, Stopped, Taken, no_auth, no_starttls, refusal, refused_by_all
from bridge.send.http_types import Failure
from bridge.send.tcp import Connection, connect

DEADLINE_S = 15.0  # of the whole talk, the look-up included; as for a webhook
SAID_CAP = 64 * 1024  # bytes of a server's answers in one talk; smtplib limits their lines, not how many there are
FEW_ATTEMPTS = 3  # so often all wait for an address that is refused for now, as by greylisting

_DOT_FIRST = re.compile(rb"^\.", re.MULTILINE)
_MECHANISMS = ("PLAIN", "LOGIN")  # one is used: a second failure would bring the account nearer to being locked
_MAYBE = ": it may have accepted the message, which is sent again under the same Message-ID"


class Talk:
    """The client's side, from the greeting on. Raises `Stopped` where the server says no, OSError where it is gone."""

    def __init__(self, connection: Connection, notifier: EmailNotifier, context: ssl.SSLContext) -> None:
        self._notifier, self._context = notifier, context
        self._smtp = smtplib.SMTP(local_hostname=_literal(connection.socket))
        self._smtp.sock = self._plain = connection.socket
        self._smtp.file = self._said = _Said(connection.socket, SAID_CAP)
        user, password = notifier.username or "", notifier.password or ""
        token = b64encode(f"\0{user}\0{password}".encode()).decode()  # of AUTH PLAIN
        self._mask = Mask((*notifier.hidden, token) if password else notifier.hidden)
        self.address = connection.address
        self.is_greeted = self.may_be_accepted = False

    def begin(self) -> None:
        """Get to where a message can be sent: under TLS, and logged in if there is a user name."""
        if self._notifier.tls == "tls":
            self._encrypt()
        self._expect(220, "the connection", self._smtp.getreply())
        self.is_greeted = True
        self._expect(250, "EHLO", self._smtp.ehlo())
        if self._notifier.tls == "starttls":
            self._start_tls()
        if self._notifier.username:
            self._log_in(self._notifier.username, self._notifier.password or "")

    def send(self, message: bytes, *, attempts: int) -> Taken:
        """Send a message to all at once, so that nobody gets it twice.

        Who is refused for good is left out. For who is refused for now, all wait; but not for long.
        """
        to, server = self._notifier.to, self._notifier.server
        self._expect(250, "MAIL FROM", self._smtp.mail(self._notifier.sender))
        refused = tuple(answer for address in to if (answer := self._refusal_of(address)))
        if len(refused) == len(to):
            raise refused_by_all(refused, server)
        if attempts <= FEW_ATTEMPTS and (waits := next((each for each in refused if each.is_for_now), None)):
            raise refusal(waits, server)
        self._expect(354, "DATA", self._smtp.docmd("DATA"))
        self.may_be_accepted = True
        self._smtp.send(_DOT_FIRST.sub(b"..", message) + b".\r\n")
        answer = self._answer("the message", self._smtp.getreply())
        if not answer.is_smtp:
            raise Stopped(RetryLater(f"{server} did not answer in SMTP{_MAYBE}", Reason.CONNECTION))
        self.may_be_accepted = False
        if not answer.is_yes:
            raise refusal(answer, server)
        return Taken(answer, refused)

    def end(self) -> None:
        with suppress(smtplib.SMTPServerDisconnected):
            self._smtp.putcmd("QUIT")  # nothing depends on the answer
        self._smtp.close()

    @property
    def is_flooded(self) -> bool:
        return self._said.left < 0

    def _start_tls(self) -> None:
        if not self._smtp.has_extn("starttls"):
            raise no_starttls(self._notifier.server)
        self._expect(220, "STARTTLS", self._smtp.docmd("STARTTLS"))
        self._encrypt()
        self._expect(250, "EHLO", self._smtp.ehlo())  # what was offered in plain text counts no more

    def _encrypt(self) -> None:
        server = self._notifier.server
        try:
            self._smtp.sock = self._context.wrap_socket(self._plain, server_hostname=self._notifier.host)
        except ssl.SSLCertVerificationError as fault:
            why = f"the certificate of {server} is not trusted: {fault.verify_message}"
            raise Stopped(RetryLater(why, Reason.CONNECTION)) from None
        except ssl.SSLEOFError:
            raise
        except ssl.SSLError as fault:
            other = "starttls" if self._notifier.tls == "tls" else "tls"
            why = f'the TLS handshake with {server} failed: {fault.reason or fault}; tls = "{other}" may be right'
            raise Stopped(RetryLater(why, Reason.CONNECTION)) from None
        self._said.close()  # with what was sent too early, in plain text
        self._smtp.file = self._said = _Said(self._smtp.sock, self._said.left)

    def _log_in(self, user: str, password: str) -> None:
        offered = self._smtp.esmtp_features.get("auth", "").upper().split()
        mechanism = next((name for name in _MECHANISMS if name in offered), None)
        if mechanism is None:
            raise no_auth(self._notifier.server, offered)
        self._smtp.user, self._smtp.password = user, password
        respond = self._smtp.auth_plain if mechanism == "PLAIN" else self._smtp.auth_login
        said: tuple[int, bytes | str]
        try:
            said = self._smtp.auth(mechanism, respond)
        except smtplib.SMTPAuthenticationError as fault:
            said = fault.smtp_code, fault.smtp_error
        self._expect(235, "AUTH", said)

    def _refusal_of(self, address: str) -> Answer | None:
        """Name a recipient; return the answer if it is refused."""
        answer = self._answer(f"RCPT TO:<{address}>", self._smtp.rcpt(address))
        if answer.is_last:
            raise refusal(answer, self._notifier.server)
        return None if answer.is_yes else answer

    def _expect(self, code: int, command: str, said: tuple[int, bytes | str]) -> Answer:
        answer = self._answer(command, said)
        if answer.code != code:
            raise refusal(answer, self._notifier.server)
        return answer

    def _answer(self, command: str, said: tuple[int, bytes | str]) -> Answer:
        return Answer.of(command, said, self._mask)


@contextmanager
def talking(notifier: EmailNotifier, client: HttpClient, *, deadline_s: float = DEADLINE_S) -> Iterator[Talk]:
    """Connect and get ready to send. Whatever goes wrong raises `Stopped`."""
    from_s = monotonic()
    connection = connect(notifier.server, client, deadline_s=deadline_s)
    if isinstance(connection, Failure):
        stopped = Stopped(connection.outcome)
        stopped.end = connection
        raise stopped
    with closing(connection), _Deadline(connection.socket, deadline_s - (monotonic() - from_s)) as deadline:
        talk = Talk(connection, notifier, _context(client.policy.trusted))
        try:
            talk.begin()
            yield talk
        except (Stopped, OSError, smtplib.SMTPException, binascii.Error) as fault:
            stopped = fault if isinstance(fault, Stopped) else Stopped(_lost(notifier.server, talk, fault))
            if deadline.has_passed:  # what was said last may be cut off
                stopped = Stopped(_late(notifier, talk, deadline_s))
            raise stopped.ended(monotonic() - from_s, talk.address) from None
        finally:
            talk.end()


def _late(notifier: EmailNotifier, talk: Talk, deadline_s: float) -> RetryLater:
    advice = _MAYBE if talk.may_be_accepted else ""
    if notifier.tls == "starttls" and not talk.is_greeted:  # each waits for the other to begin
        advice = ': if it speaks TLS from the start, as on port 465, tls = "tls" is right'
    return RetryLater(f"no answer from {notifier.server} within {deadline_s:g} s{advice}", Reason.TIMEOUT)


def _lost(server: str, talk: Talk, fault: Exception) -> RetryLater:
    what = "sent too many bytes" if talk.is_flooded else "closed the connection without an answer"
    if not isinstance(fault, OSError) or isinstance(fault, smtplib.SMTPResponseException):
        what = "did not answer in SMTP"  # too long a line, challenges without end, or not in base64
    return RetryLater(f"{server} {what}{_MAYBE if talk.may_be_accepted else ''}", Reason.CONNECTION)


class _Said:
    """The lines that a server sends, at most so many bytes: OSError ends the talk then."""

    def __init__(self, connected: socket.socket, left: int) -> None:
        self._file = connected.makefile("rb")
        self.left = left

    def readline(self, most: int) -> bytes:
        line = self._file.readline(most)
        self.left -= len(line)
        if self.left < 0:
            raise OSError("too many bytes")
        return line

    def close(self) -> None:
        self._file.close()


class _Deadline:
    """Ends a talk that takes too long: a server that sends a byte now and then exceeds no timeout of a read."""

    def __init__(self, connected: socket.socket, left_s: float) -> None:
        self.has_passed = False
        self._socket = connected.dup()  # TLS takes the other one away
        self._timer = Timer(max(left_s, 0.0), self._pass)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._socket.close()

    def _pass(self) -> None:
        self.has_passed = True
        with suppress(OSError):  # the server has closed it
            self._socket.shutdown(socket.SHUT_RDWR)


@lru_cache(maxsize=4)
def _context(trusted: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trusted)
    # From Python 3.13 on this is the default, for which many a company's certificates are not good enough; HTTP goes
    # by what OpenSSL asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _literal(connected: socket.socket) -> str:
    """Return what EHLO names: our address (RFC 5321, 4.1.3); our host's name costs a look-up, and may mean nothing."""
    address = str(connected.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
