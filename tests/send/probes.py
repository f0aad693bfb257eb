"""What the HTTP client would do with a URL, found out without connecting to anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pycurl

from bridge.model import Attempt, Sent
from bridge.notifiers import Notifier
from bridge.send.addresses import Network
from bridge.send.client import CurlHandle, HttpClient, Policy
from bridge.send.sender import Sender
from tests.support.receivers import NOBODY, a_sender, a_slack, a_webhook, attempt

ROUTES = ("webhook", "Slack url", "SLACK_API_URL")


@dataclass(frozen=True, slots=True)
class Finding:
    """`addresses` are those that libcurl wanted to connect to, `let_through` those the judge had let it."""

    route: str
    url: str
    addresses: tuple[str, ...]
    let_through: tuple[str, ...]
    sent: bool
    why: str

    @property
    def held(self) -> bool:
        return not (self.let_through or self.sent)


class Probe(CurlHandle):
    """The real judge is asked about each address, and whatever it says, no socket is opened."""

    def __init__(self, policy: Policy, asked: list[tuple[str, bool]]) -> None:
        self._asked_for = asked
        super().__init__(policy)

    def _open(self, purpose: int, target: Any) -> socket.socket | int:
        judged = super()._open(purpose, target)
        self._asked_for.append((str(target.addr[0]), judged != pycurl.SOCKET_BAD))
        return int(pycurl.SOCKET_BAD)


def findings(url: str, allow: Sequence[Network] = ()) -> Iterator[Finding]:
    """Yield what happens to `url` on each of the ways out."""
    for route in ROUTES:
        asked: list[tuple[str, bool]] = []
        client = HttpClient(allow=tuple(allow), handle=lambda policy, asked=asked: Probe(policy, asked))
        outcome = attempt_by(route, url, client).outcome
        yield Finding(
            route,
            url,
            tuple(address for address, _ in asked),
            tuple(address for address, well in asked if well),
            isinstance(outcome, Sent),
            "" if isinstance(outcome, Sent) else outcome.why,
        )


def sender_by(route: str, url: str, client: HttpClient) -> Sender:
    """A sender with one notifier "n" whose requests go to `url` on one of the ways out."""
    slack = a_slack(name="n", url=url if route == "Slack url" else None)
    notifier: Notifier = a_webhook(url, name="n") if route == "webhook" else slack
    return a_sender(notifier, client=client, slack_api_url=url if route == "SLACK_API_URL" else NOBODY)


def attempt_by(route: str, url: str, client: HttpClient) -> Attempt:
    """Send one delivery on one of the ways out, and close the client."""
    sender = sender_by(route, url, client)
    try:
        return attempt(sender, notifier="n")
    finally:
        sender.close(1)
