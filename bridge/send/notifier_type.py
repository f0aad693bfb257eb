"""What a type of notifier is to the rest of the bridge: how it is sent to, described, previewed and checked."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from bridge.model import Delivery, Notifier, Outcome
from bridge.send.addresses import Network, forbidden
from bridge.send.client import HttpClient
from bridge.send.http_types import Failure, Reply, Request

# --- what can be known of a notifier without sending it a message ---------------------------------------------------

THROUGH_PROXY = "goes through BRIDGE_EGRESS_PROXY, which judges the address"


@dataclass(frozen=True, slots=True)
class Check:
    """What is wrong, or None, and what to say where nothing is."""

    trouble: str | None
    well: str


def check_address(url: str, client: HttpClient) -> Check:
    """Look up the host of a URL, unless a proxy will do that."""
    if client.has_proxy:
        return Check(None, THROUGH_PROXY)
    well = f"{urlsplit(url).hostname} resolves to an address that may be told (it was not contacted)"
    return Check(unreachable(url, client.allowed), well)


def unreachable(url: str, allowed: Sequence[Network]) -> str | None:
    """Say why a URL's host could not be told: no address, or only forbidden ones. The client judges again."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:  # the second of a name like "a..b"
        return f"{host} has no address: {error}"
    faults = [forbidden(address, allowed) for address in sorted(found)]
    return (
        None
        if any(fault is None for fault in faults)
        else f"{host}: {faults[0]} (BRIDGE_ALLOW_NETWORKS={min(found)} allows it)"
    )


# --- types of notifiers ---------------------------------------------------------------------------------------------

MASKED = "***masked***"
PATH = "/PATH"  # stands for the path and the query of a URL, which are often a secret

_N = TypeVar("_N", bound=Notifier)


@dataclass(frozen=True, slots=True)
class Egress:
    """The way out."""

    client: HttpClient
    slack_api_url: str


class OneRequest(ABC):
    """Sends to one notifier; a delivery is one request."""

    @abstractmethod
    def request(self, delivery: Delivery, now: datetime) -> Request: ...

    @abstractmethod
    def outcome(self, ended: Reply | Failure, now: datetime) -> Outcome:
        """Return what the end of the request means for the delivery."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """What came of several requests; the rest is of the last answer."""

    outcome: Outcome
    status: int | None = None
    answer: bytes = b""
    address: str | None = None


class ManyRequests(ABC):
    """Sends to one notifier; a delivery is several requests, each of which depends on the answer before it."""

    @abstractmethod
    def send(self, delivery: Delivery, now: datetime) -> SendResult:
        """Wait for what comes of a delivery. Any thread may call it."""


NotifierSender = OneRequest | ManyRequests


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """How a delivery goes out, as a page shows it: a request, or (`app`) a message. No secret is in it."""

    address: str
    headers: Sequence[tuple[str, str]] = ()
    body: str = ""  # pretty JSON
    curl: str | None = None  # a command that sends the same
    app: str | None = None  # "Slack"
    lines: Sequence[tuple[str, str]] = ()  # of the message: what is bold, and the rest


class NotifierType(ABC, Generic[_N]):
    """One for each `type` of rules.toml, listed in `registry`."""

    counts_retry_after: ClassVar[bool] = False  # how long it asks to wait is a metric

    @abstractmethod
    def sender(self, notifier: _N, egress: Egress) -> NotifierSender: ...

    @abstractmethod
    def facts(self, notifier: _N) -> dict[str, Any]:
        """Return what the API says of a notifier of this type alone, without any secret."""

    @abstractmethod
    def preview(self, delivery: Delivery, notifier: _N, *, at: datetime, agent: str) -> Preview:
        """Return how a delivery goes out at a time; `agent` is the user agent."""

    @abstractmethod
    def check(self, notifier: _N, egress: Egress) -> Check:
        """Say what can be known of a notifier without sending it a message."""
