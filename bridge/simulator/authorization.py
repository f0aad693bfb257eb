"""CI's check of a request's Authorization, from the signature's description (436/7778)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from bridge.simulator.ci_errors import (
    access_denied,
    expired_token,
    invalid_access_key_id,
    request_has_expired,
    request_time_too_skewed,
    signature_does_not_match,
)
from bridge.simulator.web import Request

FIELDS = (
    "q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature",
)  # fmt: skip
MAX_SKEW_S = 15 * 60
TOKEN_HEADERS = ("x-ci-security-token", "x-cos-security-token")  # CI hosts take either (460/42865)


def check(request: Request, *, credentials: Mapping[str, str], token: str | None, now: float) -> None:
    """Return if `request` is signed by one of `credentials`; else raise the CiError that says why not."""
    said = _fields(request.headers.get("authorization", ""))
    key = credentials.get(said["q-ak"])
    if key is None:
        raise invalid_access_key_id()
    for window in (said["q-sign-time"], said["q-key-time"]):
        _check_time(window, now)
    signed = said["q-header-list"].split(";")
    if "host" not in signed:
        raise signature_does_not_match()
    _check_token(request, signed, token)
    if not hmac.compare_digest(_signature(request, said, key).encode(), said["q-signature"].encode()):
        raise signature_does_not_match()


def _fields(authorization: str) -> dict[str, str]:
    pairs = [part.partition("=")[::2] for part in authorization.split("&")]
    fields = dict(pairs)
    if len(pairs) != len(FIELDS) or set(fields) != set(FIELDS) or fields["q-sign-algorithm"] != "sha1":
        raise access_denied()
    return fields


def _check_time(window: str, now: float) -> None:
    match = re.fullmatch(r"(\d{1,12});(\d{1,12})", window)
    if match is None:
        raise access_denied()
    start, end = int(match[1]), int(match[2])
    off = max(start - now, now - end, 0)
    if off > MAX_SKEW_S:
        raise request_time_too_skewed()
    if off > 0:
        raise request_has_expired()


def _check_token(request: Request, signed: list[str], token: str | None) -> None:
    sent = [name for name in TOKEN_HEADERS if name in request.headers]
    if any(name not in signed for name in sent):
        raise signature_does_not_match()
    if token is not None and [request.headers[name] for name in sent] != [token]:
        raise expired_token()


def _signature(request: Request, said: Mapping[str, str], key: str) -> str:
    headers = _listed(said["q-header-list"], request.headers.items())
    params = _listed(said["q-url-param-list"], request.query)
    if _names(params) != {_encoded(name).lower() for name, _ in request.query}:
        raise signature_does_not_match()
    http_string = f"{request.method.lower()}\n{request.path}\n{_joined(params)}\n{_joined(headers)}\n"
    to_sign = f"sha1\n{said['q-sign-time']}\n{hashlib.sha1(http_string.encode()).hexdigest()}\n"  # noqa: S324 - CI's own
    return _hmac_sha1(_hmac_sha1(key, said["q-key-time"]), to_sign)


def _listed(names: str, received: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the received pairs that a list names, encoded and sorted; refuse a list that is not exact."""
    listed = names.split(";") if names else []
    pairs = sorted((_encoded(name).lower(), _encoded(value.strip())) for name, value in received)
    found = [(name, value) for name, value in pairs if name in listed]
    if listed != sorted(set(listed)) or _names(found) != set(listed):
        raise signature_does_not_match()
    return found


def _names(pairs: Iterable[tuple[str, str]]) -> set[str]:
    return {name for name, _ in pairs}


def _joined(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs)


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).hexdigest()
