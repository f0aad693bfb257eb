"""Which addresses a notifier may reach: public ones, and what the operator allowed."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# `is_global` alone is wrong: it accepts multicast, 6to4 relays, ::127.0.0.1, site-local and more, and
# its results differ between versions of Python. IANA special-purpose registries, read 2026-11-21.
_DENIED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for what, networks in {
        "a loopback address": "127.0.0.0/8 ::1/128",
        "an address of this host": "0.0.0.0/8 ::/128",
        "a private address": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10",
        "a shared carrier address": "100.64.0.0/10",
        "a link-local address": "169.254.0.0/16 fe80::/10",
        "a metadata address": "168.63.129.16/32",  # Azure's wire server; other clouds' are in the networks here
        "a multicast address": "224.0.0.0/4 ff00::/8",
        "an address for documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        "an address for benchmarks": "198.18.0.0/15",
        "a translated address": "192.88.99.0/24 64:ff9b:1::/48 ::/96",
        "a reserved address": "192.0.0.0/24 240.0.0.0/4 100::/64 2001::/23 5f00::/16",
        "an unassigned address": "::/3 4000::/2 8000::/1",  # all that is assigned is in 2000::/3
    }.items()
    for network in networks.split()
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # an interface id that begins so ends with an IPv4 address (RFC 5214)


def forbidden(address: str, allowed: Sequence[Network] = ()) -> str | None:
    """Return what makes `address` unreachable for notifiers, e.g. "a loopback address", or None."""
    try:
        outer = ip_address(address.partition("%")[0])
    except ValueError:
        return "not an IP address"
    for reached in _reached(outer):
        if not any(outer in network or reached in network for network in allowed) and (what := _denied(reached)):
            return what
    return None


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a list like "10.0.0.0/8, 127.0.0.1". Raises ValueError naming the wrong one."""
    return tuple(_network(word) for word in text.replace(",", " ").split())


def _network(word: str) -> Network:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        raise ValueError(f'"{word[:50]}" is not a network; write it like 10.1.0.0/16 or 10.1.2.3') from None
    if ip_address(word.partition("/")[0]) != network.network_address:
        raise ValueError(f'"{word}" has bits beyond its length; did you mean {network}?')
    return network


def _denied(address: Address) -> str | None:
    denied = next((what for network, what in _DENIED if address in network), None)
    return denied or (None if address.is_global else "not a public address")


def _reached(address: Address) -> tuple[Address, ...]:
    """Return where the packets will really go: to the IPv4 address that `address` wraps, or through it to one."""
    if not isinstance(address, IPv6Address):
        return (address,)
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _MAPPED or address in _NAT64:
        return (last,)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return (address, last)
    return (address.sixtofour or address,)
