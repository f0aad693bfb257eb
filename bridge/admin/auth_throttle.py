"""Wrong tokens, counted by where they come from: who sends many has to wait.

The address that counts is the peer's. Only where the peer is no public address, as the router of a platform or a
proxy on this machine is none, it is the peer's together with the last entry of X-Forwarded-For, which that proxy wrote:
strangers behind one router do not lock each other out, and nobody is locked out by who comes another way. What came
before that entry, and all of it from a public peer, is the sender's own invention. Behind a proxy with a public address
its clients share what it may fail.

Whether such a peer is a proxy or writes the entry itself cannot be known, so all that comes from it draws from a larger
bucket as well: who invents an address for each guess is bounded by that. Its price is that very many guessers behind
one router can make all of its clients wait.

While an address has to wait, no token from it is compared, the right one neither: else guessing would go on. So a
person who shares an address with a guesser is answered 429 too, until the guesser pauses for INTERVAL_S. Waiting
is told, not done: a thread that sleeps serves nobody.

Each process counts for itself. This makes noise expensive; what makes guessing hopeless is a long random token, for a
guesser may have any number of addresses.
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
INTERVAL_S = 2.0  # then one in so many seconds
PEER_BURST = 100  # the same for a peer with a private address, whoever it says that it speaks for
PEER_INTERVAL_S = 0.2
REMEMBERED = 4096  # sources, less than a megabyte; when there are more, the one that failed longest ago is forgotten


@dataclass(frozen=True, slots=True)
class Source:
    """Where tokens come from, and how many wrong ones may."""

    name: str
    burst: int = BURST
    interval_s: float = INTERVAL_S


class Failures:
    """A bucket of failures for each source, kept as the moment at which it is full again."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._full_at: OrderedDict[Source, float] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, sources: Sequence[Source]) -> float:
        """Return how long to wait before a token from there is looked at; 0: not at all."""
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
    """Return what a request's failures count for; of IPv6 an address is its /64, which is what one customer has."""
    address = _address(peer or "")
    name = _network(address) if address else "unknown"
    if address and address.is_global:
        return (Source(name),)
    behind = _address(forwarded_for.rpartition(",")[2].strip())
    one = Source(f"{_network(behind)} by way of {name}" if behind else name)
    return (one, Source(f"all by way of {name}", PEER_BURST, PEER_INTERVAL_S))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    host = text
    if text.startswith("["):  # some proxies write the port too
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        found = ip_address(host)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _network(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
