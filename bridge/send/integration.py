"""What the rest of the bridge knows of a notifier's type: how it is sent to, described, previewed and checked."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from bridge.model import Delivery, Outcome
from bridge.send.addresses import forbidden
from bridge.send.client import HttpClient
from bridge.send.http_types import Failure, Reply, Request

MASKED = "***masked***"
PATH = "/PATH"  # stands for the path and the query of a URL, which are often a secret
THROUGH_PROXY = "goes through BRIDGE_EGRESS_PROXY, which must check the address"


class Egress(NamedTuple):
    """What integrations send with: the HTTP client, and the base URL of Slack's API."""

    client: HttpClient
    slack_api_url: str


class Check(NamedTuple):
    """What is known of a notifier without sending it a message; `ok` None is a hint."""

    ok: bool | None
    detail: str


class Piece(NamedTuple):
    """A part of a message's text: plain, or a link, or a time."""

    text: str
    bold: bool = False
    url: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """How a delivery goes out, as a page shows it: a request, or (`app`) a message. No secret is in it."""

    address: str
    headers: Sequence[tuple[str, str]] = ()
    body: str = ""  # pretty JSON
    curl: str | None = None  # a command that sends the same
    app: str | None = None  # "Slack"
    lines: Sequence[Sequence[Piece]] = ()  # of the message


class Integration(ABC):
    """One notifier, made from it by the class that `registry` has for its type: OneRequest or ManyRequests."""

    counts_retry_after: ClassVar[bool] = False  # how long it asks to wait is a metric

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what the API says of a notifier of this type alone, without any secret."""

    @abstractmethod
    def preview(self, delivery: Delivery, *, at: datetime, agent: str) -> Preview:
        """Return how a delivery goes out at a time; `agent` is the user agent."""

    @abstractmethod
    def check(self, egress: Egress) -> Sequence[Check]:
        """Look for faults without sending the notifier a message."""


class OneRequest(Integration):
    """A delivery is one request."""

    @abstractmethod
    def request(self, delivery: Delivery, now: datetime) -> Request: ...

    @abstractmethod
    def outcome(self, ended: Reply | Failure, now: datetime) -> Outcome:
        """Return what the end of the request means for the delivery."""


class ManyRequests(Integration):
    """A delivery is several requests, each of which depends on the answer before it."""

    @abstractmethod
    def send(self, delivery: Delivery, now: datetime, egress: Egress) -> tuple[Outcome, Reply | Failure | None]:
        """Wait for the outcome of a delivery; return it with the end of the last request. Any thread may call it."""


def check_address(url: str, client: HttpClient) -> Check:
    """Look up the host of a URL, unless a proxy will do that. The client judges again when it connects."""
    if client.policy.proxy:
        return Check(True, THROUGH_PROXY)
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the second of a name like "a..b"
        return Check(False, f"{host} has no address: {error}")
    addresses = sorted({str(info[4][0]) for info in found})
    reasons = [forbidden(address, client.policy.allow) for address in addresses]
    if all(reasons):
        why = f"{addresses[0]} is {reasons[0]} (BRIDGE_ALLOW_NETWORKS={addresses[0]} allows it)"
        return Check(False, f"{host}: {why}")
    return Check(True, f"{host} resolves to an address that may be reached (it was not contacted)")
