"""What can be known of a notifier without sending it a message."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bridge.send.addresses import Network, forbidden
from bridge.send.client import HttpClient

THROUGH_PROXY = "goes through BRIDGE_EGRESS_PROXY, which judges the address"


@dataclass(frozen=True, slots=True)
class Check:
    """What is wrong, or None, and what to say where nothing is."""

    trouble: str | None
    well: str


def of_address(url: str, client: HttpClient) -> Check:
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
