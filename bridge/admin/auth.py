"""Authentication: bearer tokens, each with a role, or, while no admin token is set, this machine alone."""

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

from flask import Request, g

from bridge.admin.auth_throttle import Failures, counted
from bridge.admin.http.problems import Problem
from bridge.decide.rulesfile.silences import read_author
from bridge.record.actions import Author

ACTOR = "X-Actor"  # a header with the name of who acts, in UTF-8
NONE_OF_OURS = "none of BRIDGE_ADMIN_TOKEN, BRIDGE_READ_TOKEN and BRIDGE_TOKENS"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_FORWARDING = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip"})


class Scope(IntEnum):
    READ = 1
    ADMIN = 2


@dataclass(frozen=True, slots=True)
class Key:
    """A token as a digest: comparing that takes the same time for a token of any length.

    `is_named`: it is one of BRIDGE_TOKENS, so its name says who acts.
    """

    name: str
    scope: Scope
    digest: bytes = field(repr=False)
    is_named: bool = False


LOCAL = Key("", Scope.ADMIN, b"")  # of this machine, where no admin token is set
_ROLES = {"admin": Scope.ADMIN, "read": Scope.READ}


@dataclass(frozen=True, slots=True)
class Keys:
    """The tokens."""

    all: tuple[Key, ...]

    @classmethod
    def of(cls, admin_token: str | None, read_token: str | None, named: Iterable[tuple[str, str, str]] = ()) -> Self:
        """`named` are those of BRIDGE_TOKENS: name, role, token."""
        unnamed = ((role, role, token) for role, token in (("admin", admin_token), ("read", read_token)) if token)
        return cls(
            (
                *(Key(name, _ROLES[role], _digest(token.encode())) for name, role, token in unnamed),
                *(Key(name, _ROLES[role], _digest(token.encode()), is_named=True) for name, role, token in named),
            )
        )

    @property
    def has_admin(self) -> bool:
        return any(key.scope == Scope.ADMIN for key in self.all)

    def find(self, given: bytes) -> Key | None:
        # All are always compared, so that the time taken reveals nothing.
        digest = _digest(given)
        found = [key for key in self.all if hmac.compare_digest(digest, key.digest)]
        return found[0] if found else None

    def named(self, name: object) -> Key | None:
        return next((key for key in self.all if key.name == name), None)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def enter(request: Request, keys: Keys, failures: Failures) -> Key:
    """Return the key of a request. Raises Problem 401, 403 or 429."""
    return _with_token(request, keys, failures) if keys.has_admin else from_here(request)


def known(request: Request, keys: Keys, failures: Failures) -> Key | None:
    """Return the key of a request to a public endpoint; None: no token, or a wrong one."""
    try:
        return enter(request, keys, failures)
    except Problem:
        return None


def admit(key: Key, claimed: str | None = None) -> None:
    """Store for the rest of the request whose it is: its key, and the name that was given with it."""
    g.key, g.scope, g.claimed = key, key.scope, claimed


def author(usual: str, claimed: str | None = None) -> Author:
    """Return who acts in this request: its token, if that is named, or else `usual`; and the name that was given."""
    key: Key = g.key
    return Author(key.name if key.is_named else usual, claimed or g.claimed, is_token=key.is_named)


def claim(request: Request) -> str | None:
    """Return who acts, as the request says in X-Actor. Raises Problem 400."""
    given = request.headers.get(ACTOR)
    if given is None:
        return None
    try:
        return read_author(given.encode("latin-1").decode())
    except UnicodeError:
        raise Problem(400, f"{ACTOR}: it is not UTF-8") from None
    except ValueError as error:
        raise Problem(400, f"{ACTOR}: {error}") from None


def require(scope: Scope, request: Request) -> None:
    """Raise Problem 403 unless `scope` covers the request."""
    if scope < Scope.ADMIN and request.method not in SAFE_METHODS:
        raise Problem(
            403,
            f"a read token may not {request.method}: send that of BRIDGE_ADMIN_TOKEN or an admin's of BRIDGE_TOKENS",
            headers={"WWW-Authenticate": 'Bearer realm="ci-bridge", error="insufficient_scope"'},
        )


def require_admin(scope: Scope) -> None:
    """Raise Problem 403 unless this is the scope of the admin token: for what only admins may read."""
    if scope < Scope.ADMIN:
        raise Problem(
            403, "a read token may not read this: send that of BRIDGE_ADMIN_TOKEN or an admin's of BRIDGE_TOKENS"
        )


def _with_token(request: Request, keys: Keys, failures: Failures) -> Key:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    # Not all white space: in WSGI's Latin-1, 0x85 and 0xA0 may be the last bytes of UTF-8 letters.
    given = token.strip(" \t")
    if scheme.lower() != "bearer" or not given:
        raise _unknown("a token is needed: send `Authorization: Bearer TOKEN`", "")
    sources = counted(request.remote_addr, request.headers.get("X-Forwarded-For", ""))
    if wait_s := failures.wait_s(sources):
        raise _too_many(ceil(wait_s))
    key = keys.find(given.encode("latin-1", "replace"))
    if key is None:
        failures.add(sources)
        raise _unknown(f"this token is {NONE_OF_OURS}", "invalid_token")
    return key


def _too_many(seconds: int) -> Problem:
    return Problem(
        429,
        f"too many wrong tokens came from this address, so none is looked at now: try again in {seconds} s",
        headers={"Retry-After": str(seconds)},
    )


def _unknown(detail: str, error: str) -> Problem:
    challenge = 'Bearer realm="ci-bridge"' + (f', error="{error}"' if error else "")
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})


def from_here(request: Request) -> Key:
    if why := why_not_local(request):
        raise Problem(403, f"no BRIDGE_ADMIN_TOKEN is set, so only this machine may ask, and {why}: set it to a secret")
    return LOCAL


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
