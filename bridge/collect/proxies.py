"""The operator's proxies on the way to CI, as curl and others read HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """`without` lists hosts that are asked directly: names with all below them, addresses, networks, or "*"."""

    http: str | None = field(default=None, repr=False)  # may have a password
    https: str | None = field(default=None, repr=False)
    without: str = ""

    def of(self, url: str) -> dict[str, str]:
        """Return the proxy for `url` as requests takes it; none is {}."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        host, port = (parts.hostname or "").rstrip("."), parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        direct = any(_covers(word, host, port) for word in self.without.lower().replace(",", " ").split())
        return {parts.scheme: proxy} if proxy and not direct else {}


def _covers(word: str, host: str, port: int | None) -> bool:
    if word == "*":
        return True
    try:
        return ip_address(host) in ip_network(word, strict=False)
    except ValueError:  # one of them is a name, or the word has a port
        name, _, only = word.rpartition(":") if word.rpartition(":")[2].isdecimal() else (word, "", "")
    name = name.removeprefix("*").strip("[].")
    return bool(name) and only in ("", str(port)) and (host == name or host.endswith(f".{name}"))
