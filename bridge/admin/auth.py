"""Authentication: two bearer tokens, or, while no admin token is set, this machine alone."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Self

from flask import Request

from bridge.admin.auth_throttle import Failures, counted
from bridge.admin.http.problems import Problem

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_FORWARDING = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip"})


class Scope(IntEnum):
    READ = 1
    ADMIN = 2


@dataclass(frozen=True, slots=True)
class Keys:
    """The tokens as digests: comparing those takes the same time for a token of any length."""

    admin: bytes | None = field(repr=False)
    read: bytes | None = field(repr=False)

    @classmethod
    def of(cls, admin_token: str | None, read_token: str | None) -> Self:
        return cls(*(_digest(token.encode()) if token else None for token in (admin_token, read_token)))

    def scope(self, given: bytes) -> Scope | None:
        # Both are always compared, so that the time taken reveals nothing.
        digest = _digest(given)
        admin, read = (key is not None and hmac.compare_digest(digest, key) for key in (self.admin, self.read))
        return Scope.ADMIN if admin else Scope.READ if read else None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def enter(request: Request, keys: Keys, failures: Failures) -> Scope:
    """Return the scope of a request. Raises Problem 401, 403 or 429."""
    return _with_token(request, keys, failures) if keys.admin else from_here(request)


def known(request: Request, keys: Keys, failures: Failures) -> Scope | None:
    """Return the scope of a request to a public endpoint; None: no token, or a wrong one."""
    try:
        return enter(request, keys, failures)
    except Problem:
        return None


def require(scope: Scope, request: Request) -> None:
    """Raise Problem 403 unless `scope` covers the request."""
    if scope < Scope.ADMIN and request.method not in SAFE_METHODS:
        raise Problem(
            403,
            f"the read token may not {request.method}: send the one of BRIDGE_ADMIN_TOKEN",
            headers={"WWW-Authenticate": 'Bearer realm="ci-bridge", error="insufficient_scope"'},
        )


def require_admin(scope: Scope) -> None:
    """Raise Problem 403 unless this is the scope of the admin token: for what only admins may read."""
    if scope < Scope.ADMIN:
        raise Problem(403, "the read token may not read this: send the one of BRIDGE_ADMIN_TOKEN")


def _with_token(request: Request, keys: Keys, failures: Failures) -> Scope:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    # Not all white space: in WSGI's Latin-1, 0x85 and 0xA0 may be the last bytes of UTF-8 letters.
    given = token.strip(" \t")
    if scheme.lower() != "bearer" or not given:
        raise _unknown("a token is needed: send `Authorization: Bearer TOKEN`", "")
    sources = counted(request.remote_addr, request.headers.get("X-Forwarded-For", ""))
    if wait_s := failures.wait_s(sources):
        raise _too_many(ceil(wait_s))
    scope = keys.scope(given.encode("latin-1", "replace"))
    if scope is None:
        failures.add(sources)
        raise _unknown("this token is neither that of BRIDGE_ADMIN_TOKEN nor of BRIDGE_READ_TOKEN", "invalid_token")
    return scope


def _too_many(seconds: int) -> Problem:
    return Problem(
        429,
        f"too many wrong tokens came from this address, so none is looked at now: try again in {seconds} s",
        headers={"Retry-After": str(seconds)},
    )


def _unknown(detail: str, error: str) -> Problem:
    challenge = 'Bearer realm="ci-bridge"' + (f', error="{error}"' if error else "")
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})


def from_here(request: Request) -> Scope:
    if why := why_not_local(request):
        raise Problem(403, f"no BRIDGE_ADMIN_TOKEN is set, so only this machine may ask, and {why}: set it to a secret")
    return Scope.ADMIN


def why_not_local(request: Request) -> str | None:
    """Return why a request is not from this machine; None when it is."""
    if not _is_loopback(request.remote_addr):
        return "this request comes from elsewhere"
    if name := _forwarded_by(request.headers.keys()):
        return f"this request came through a proxy (it has the header {name})"
    # A bare `proxy_pass` of nginx adds no header and sends its configured Host; by default it speaks HTTP/1.0.
    if request.environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        return "this request may have come through a proxy (it is not of HTTP/1.1)"
    host = request.headers.get("Host", "")
    # DNS rebinding: a page whose name now resolves to 127.0.0.1 still sends that name.
    if not _LOCAL_HOST.fullmatch(host):
        return "this request asks for a host that is not localhost, 127.0.0.1 or [::1]"
    return _cross_site(request, host)


def _is_loopback(peer: str | None) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _forwarded_by(names: Iterable[str]) -> str | None:
    return next((n for n in names if n.lower() in _FORWARDING or n.lower().startswith("x-forwarded")), None)


def _cross_site(request: Request, host: str) -> str | None:
    """A browser on this machine lets any page post to this address, and says which page did.

    Who follows a link, as from a chat, only reads, and the page with the link does not see what.
    """
    if request.method == "GET" and request.headers.get("Sec-Fetch-Dest") == "document":
        return None
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site not in (None, "none", "same-origin") or (origin is not None and authority(origin) != host.lower()):
        return "this request was made by a page of another site"
    return None


def authority(origin: str) -> str:
    return origin.lower().partition("://")[2]
