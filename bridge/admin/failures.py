"""Wrong tokens, counted by where they come from: who sends many has to wait.

The address that counts is the peer's. Only where the peer is no public address, as the router of a platform or a
proxy on this machine is none, it is the last entry of X-Forwarded-For, which that proxy wrote: strangers behind one
router do not lock each other out. What came before that entry, and all of it from a public peer, is the sender's own
invention. Behind a proxy with a public address its clients share what it may fail.

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
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

logger = logging.getLogger(__name__)

BURST = 10  # wrong tokens at once
INTERVAL_S = 2.0  # then one in so many seconds
REMEMBERED = 4096  # addresses, a few hundred kB; when there are more, the one that failed longest ago is forgotten


class Failures:
    """A bucket of failures for each address, kept as the moment at which it is full again."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """Return how long `address` has to wait before a token of its is looked at; 0: not at all."""
        with self._lock:
            return self._wait_s(address, self._monotonic())

    def add(self, address: str) -> None:
        with self._lock:
            now = self._monotonic()
            self._full_at[address] = max(self._full_at.get(address, now), now) + INTERVAL_S
            self._full_at.move_to_end(address)
            if len(self._full_at) > REMEMBERED:
                self._full_at.popitem(last=False)
            must_wait = self._wait_s(address, now) > 0
        if must_wait:
            logger.warning("wrong tokens: an address has to wait", extra={"address": address})

    def _wait_s(self, address: str, now: float) -> float:
        return max(0.0, self._full_at.get(address, now) - now - (BURST - 1) * INTERVAL_S)

    def __len__(self) -> int:
        return len(self._full_at)


def counted(peer: str | None, forwarded_for: str) -> str:
    """Return the address that a request's failures count for: of IPv6 its /64, which is what one customer has."""
    address = _address(peer or "")
    if address is None or not address.is_global:
        address = _address(forwarded_for.rpartition(",")[2].strip()) or address
    return _network(address) if address else "unknown"


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
