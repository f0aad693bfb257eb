"""What goes out through the door and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

URL_LIMIT = 8192
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. A header is a line "name: value"; "name;" sends an empty one."""

    url: str = field(repr=False)  # may carry a secret
    headers: tuple[str, ...] = field(repr=False)
    body: bytes = field(repr=False)
    deadline_s: float = 15.0  # for everything, the name look-up included


@dataclass(frozen=True, slots=True)
class Reply:
    """The receiver answered. `body` is cut at the cap; `truncated`: the answer did not come to its end."""

    status: int
    lines: tuple[bytes, ...] = field(repr=False)  # as received, "HTTP/1.1 200 OK" of each answer included
    body: bytes
    seconds: float
    address: str | None
    truncated: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Header fields by lower-case name. Parsed when asked for: few replies are asked."""
        found: dict[str, str] = {}
        for line in self.lines:
            if line.startswith(b"HTTP/"):  # an interim answer came before this one
                found.clear()
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                found[name.strip().lower()] = value.strip()
        return found


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer. `why` is for a person and names neither path nor query: they may be secrets."""

    why: str
    forbidden: bool = False  # the address is one that notifiers must not reach
    seconds: float = 0.0
    address: str | None = None


def check(request: Request) -> None:
    """Raise ValueError if `request` must not be put on the wire."""
    whereabouts(request.url)
    lines = "".join(request.headers)
    if "\r" in lines or "\n" in lines or "\0" in lines:
        raise ValueError("a header has a line break in it")


@lru_cache(maxsize=1024)
def whereabouts(url: str) -> str:
    """Return "host:port" of `url`. Raises ValueError, without the URL in it, if the URL is not usable."""
    if len(url) > URL_LIMIT:
        raise ValueError(f"the url is longer than {URL_LIMIT} characters")
    if any(char <= " " or char in "\\\x7f" for char in url):
        raise ValueError("the url has a space, a backslash or a control character in it")
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        raise ValueError("the url is not one") from None  # what it says repeats a part of the url
    if parts.scheme not in PORTS:
        raise ValueError("the url must begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError('the url has a user name in it; use a header "Authorization" instead')
    if not parts.hostname or port == 0:
        raise ValueError("the url names no host, or port 0")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or PORTS[parts.scheme]}"
