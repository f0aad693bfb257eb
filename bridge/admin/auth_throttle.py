"""Throttling of wrong tokens by source: an address that sent many has to wait.

The address is the peer's. If the peer has no public address, as a platform's router or a proxy on this machine, it is
the peer's together with the last entry of X-Forwarded-For, which that proxy wrote: clients behind one router do not
lock each other out. Earlier entries, and the whole header from a public peer, can be forged. Clients behind a proxy
with a public address share one bucket.

Such a peer may forge the entry itself, so all that comes through it also draws from a larger bucket, which bounds
guesses from invented addresses. The price: very many guessers behind one router can make all its clients wait.

While an address has to wait, none of its tokens is compared, not even the right one; otherwise guessing could continue.
So somebody who shares an address with a guesser gets 429, too, until the guesser pauses for INTERVAL_S. The server
answers at once instead of sleeping, which would occupy a thread.

Each process counts for itself. This slows guessing down; a long random token is what makes it hopeless, as a guesser
may have any number of addresses.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

logger = logging.getLogger(__name__)

BURST = 10  # wrong tokens at once
INTERVAL_S = 2.0  # then one per so many seconds
PEER_BURST = 100  # the same for a peer with a private address, for all that comes through it
PEER_INTERVAL_S = 0.2
REMEMBERED = 4096  # sources, less than a megabyte; beyond that the one that failed longest ago is forgotten


@dataclass(frozen=True, slots=True)
class Source:
    """Where tokens come from, and how many of them may be wrong."""

    name: str
    burst: int = BURST
    interval_s: float = INTERVAL_S


class Failures:
    """A bucket of failures for each source, stored as the moment at which it is full again."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._full_at: OrderedDict[Source, float] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, sources: Sequence[Source]) -> float:
        """Return how long to wait before a token from there is compared; 0: not at all."""
        with self._lock:
            now = self._monotonic()
            return max(self._wait_s(source, now) for source in sources)

    def add(self, sources: Sequence[Source]) -> None:
        with self._lock:
            now = self._monotonic()
            for source in sources:
                self._full_at[source] = max(self._full_at.get(source, now), now) + source.interval_s
                self._full_at.move_to_end(source)
            while len(self._full_at) > REMEMBERED:
                self._full_at.popitem(last=False)
            waiting = [source.name for source in sources if self._wait_s(source, now) > 0]
        for name in waiting:
            logger.warning("wrong tokens: an address has to wait", extra={"address": name})

    def _wait_s(self, source: Source, now: float) -> float:
        return max(0.0, self._full_at.get(source, now) - now - (source.burst - 1) * source.interval_s)

    def __len__(self) -> int:
        return len(self._full_at)


def counted(peer: str | None, forwarded_for: str) -> tuple[Source, ...]:
    """Return the sources of a request; of an IPv6 address its /64, which is what one customer has."""
    address = _address(peer or "")
    name = _network(address) if address else "unknown"
    if address and address.is_global:
        return (Source(name),)
    behind = _address(forwarded_for.rpartition(",")[2].strip())
    client = Source(f"{_network(behind)} by way of {name}" if behind else name)
    return (client, Source(f"all by way of {name}", PEER_BURST, PEER_INTERVAL_S))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    host = text
    if text.startswith("["):  # some proxies add the port
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _network(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
