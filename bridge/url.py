"""URLs to send to: one parser checks them and returns the form that is sent. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address
from urllib.parse import quote, urlsplit

import idna

LONGEST = 8192
PORTS = {"http": 80, "https": 443}
_BLANK = re.compile(r"[\x00-\x20\\\x7f]")
_PLACE = re.compile(
    r"(?:(?P<user>.*)@)?(?:\[(?P<six>[^]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{0,20}))?", re.DOTALL
)
_NAME = re.compile(r"(?!.{254})[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# RFC 3986: what a path and a query may contain unescaped, besides letters, digits and "-._~".
_IN_PATH = "/%:@!$&'()*+,;="
_IN_QUERY = _IN_PATH + "?"


@lru_cache(maxsize=1024)
def encoded(text: str, *, user: bool = False) -> str:
    """Return the URL in ASCII: host by IDNA, path and query percent-encoded once, no fragment.

    Raises ValueError, without any part of `text`, which may be a secret. With `user`, it may have user and password.
    """
    if len(text) > LONGEST:
        raise ValueError(f"the url is longer than {LONGEST} characters")
    if _BLANK.search(text):
        raise ValueError("the url has a space, a backslash or a control character in it")
    if not text.isprintable():
        raise ValueError("the url has an invisible character in it")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("the url is malformed") from None  # its message repeats a part of the url
    if parts.scheme not in PORTS:
        raise ValueError("the url must begin with https:// or http://")
    at = place(parts.netloc, user=user)
    path, query = _escaped(parts.path, _IN_PATH) or "/", _escaped(parts.query, _IN_QUERY)
    url = f"{parts.scheme}://{at}{path}{query and '?'}{query}"
    if len(url) > LONGEST:
        raise ValueError(f"the url is longer than {LONGEST} characters")
    return url


def whereabouts(url: str) -> str:
    """Return "host:port" of `url`. Raises ValueError as `encoded` does."""
    parts = urlsplit(encoded(url))
    host = parts.netloc.rpartition(":")[0] if parts.port else parts.netloc
    return f"{host}:{parts.port or PORTS[parts.scheme]}"


def place(netloc: str, *, user: bool = False) -> str:
    """Return user, host and port in the form that is sent. Raises ValueError as `encoded` does."""
    if "@" in netloc and not user:
        raise ValueError('the url has a user name in it; use a header "Authorization" instead')
    match = _PLACE.fullmatch(netloc)
    if match is None or int(match["port"] or 1) > 65535:
        raise ValueError("the url is malformed")
    host = _name(match["name"]) if match["six"] is None else f"[{_six(match['six'])}]"
    if not host or int(match["port"] or 1) == 0:
        raise ValueError("the url names no host, or port 0")
    before = "" if match["user"] is None else f"{_escaped(match['user'], _IN_PATH.replace('/', ''))}@"
    return f"{before}{host}" + (f":{int(match['port'])}" if match["port"] else "")


def _name(host: str) -> str:
    try:
        labels = (host if host.isascii() else idna.uts46_remap(host, std3_rules=False)).split(".")
        name = ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels).lower()
    except idna.IDNAError:
        raise ValueError("the host of the url is not a valid name (IDNA)") from None
    if name and not _NAME.fullmatch(name):
        raise ValueError("the host of the url is not a valid name: letters, digits, hyphens and dots are allowed")
    return name


def _six(address: str) -> str:
    host, percent, zone = address.replace("%25", "%").partition("%")  # RFC 6874
    try:
        IPv6Address(host)
    except ValueError:
        raise ValueError("the url is malformed") from None
    if percent and not re.fullmatch(r"[A-Za-z0-9._~-]*", zone):
        raise ValueError("the url is malformed")
    return host.lower() + (f"%25{zone}" if zone else "")


def _escaped(part: str, as_is: str) -> str:
    return quote(_LONE_PERCENT.sub("%25", part), safe=as_is)


def origin(text: str) -> str | None:
    """Return scheme, host and port of a URL, None if it is malformed. User, path and query are often secret."""
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"
