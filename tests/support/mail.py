"""Mail servers on 127.0.0.1 with a certificate of their own, and builders for what is sent to them."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.model import Attempt
from bridge.notifiers import EmailNotifier
from bridge.send.client import HttpClient
from bridge.simulator.smtp import CONTENT, GREETING, Fault, MailServer
from tests.support.certificates import MISSING, Certificate, a_certificate
from tests.support.receivers import LOOPBACK, attempt_to

USER, PASSWORD = "ci@example.com", "mail-hush-hush"
TO = ("media@example.com", "ops@example.com")


@cache
def the_certificate() -> Certificate:
    """Return one of 127.0.0.1, made once for each process."""
    if MISSING:
        pytest.skip("needs openssl to make a certificate")
    folder = TemporaryDirectory(prefix="ci-bridge-mail-")
    atexit.register(folder.cleanup)
    return a_certificate(Path(folder.name))


def trusting(certificate: Certificate | None = None, **facts: Any) -> HttpClient:
    """Return a client that trusts the certificate."""
    return HttpClient(**{"allow": LOOPBACK, "trusted": (certificate or the_certificate()).path} | facts)


def a_mail_server(certificate: Certificate | None = None, **facts: Any) -> MailServer:
    return MailServer((certificate or the_certificate()).context, **{"users": {USER: PASSWORD}} | facts)


def an_email(server: MailServer | str, **changes: Any) -> EmailNotifier:
    usual: dict[str, Any] = {
        "name": "post", "server": server if isinstance(server, str) else server.place, "sender": "ci@example.com",
        "tls": "tls" if isinstance(server, MailServer) and server.implicit else "starttls",
        "to": TO, "username": USER, "password": PASSWORD,
    }  # fmt: skip
    return EmailNotifier(**usual | changes)


def place_of(url: str) -> str:
    """Return host and port of a URL, of which mail needs no more."""
    netloc = urlsplit(url).netloc
    return netloc if ":" in netloc else f"{netloc}:587"


def saying(answers: Mapping[str, bytes]) -> Fault:
    """Answer commands that begin so."""

    def fault(command: str) -> bytes | None:
        return next((text for begin, text in answers.items() if _is(command, begin)), None)

    return fault


def _is(command: str, begin: str) -> bool:
    return command == begin if begin in (GREETING, CONTENT) else command.startswith(begin)


class MailReceiver(MailServer):
    """A mail server as other receivers are used: it has a URL, and behaves as it is told."""

    def __init__(self, behave: Fault | None) -> None:
        super().__init__(the_certificate().context, users={USER: PASSWORD})
        self.fault = behave

    @property
    def url(self) -> str:
        return f"smtp://{self.place}"

    @property
    def requests(self) -> list[str]:
        return [command for command in self.commands if command.startswith("MAIL")]

    @property
    def behave(self) -> Fault | None:
        return self.fault

    @behave.setter
    def behave(self, behave: Fault) -> None:
        self.fault = behave


def mailed(notifier: EmailNotifier, **delivery: Any) -> Attempt:
    """Send one delivery as mail, trusting the certificate."""
    return attempt_to(notifier, trusting(), **delivery)
