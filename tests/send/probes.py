"""What the HTTP client would do with a URL, found out without connecting to anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pycurl

from bridge.model import Notifier, Sent
from bridge.send.addresses import Network
from bridge.send.client import CurlHandle, HttpClient, Policy
from bridge.send.sender import Sender
from tests.support.receivers import NOON, a_delivery, a_slack, a_webhook

ROUTES = ("webhook", "Slack url", "SLACK_API_URL")
HARMLESS = "http://127.0.0.1:1/"


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
        yield _finding(route, url, tuple(allow))


def notifier(route: str, url: str) -> Notifier:
    if route == "webhook":
        return a_webhook(url, name="n")
    return a_slack(name="n", url=url if route == "Slack url" else None)


def outbound(route: str, url: str, client: HttpClient) -> Sender:
    """The bridge's sending half, with one notifier "n" whose requests go to `url`."""
    api_url = url if route == "SLACK_API_URL" else HARMLESS
    return Sender(client=client, notifiers={"n": notifier(route, url)}, clock=lambda: NOON, slack_api_url=api_url)


def _finding(route: str, url: str, allow: tuple[Network, ...]) -> Finding:
    asked: list[tuple[str, bool]] = []
    out = outbound(route, url, HttpClient(allow=allow, handle=lambda policy: Probe(policy, asked)))
    out.begin(a_delivery(notifier="n"))
    while not (ended := out.wait(10)):
        pass
    out.close(0)
    outcome = ended[0].outcome
    return Finding(
        route,
        url,
        tuple(address for address, _ in asked),
        tuple(address for address, well in asked if well),
        isinstance(outcome, Sent),
        "" if isinstance(outcome, Sent) else outcome.why,
    )
