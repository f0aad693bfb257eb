"""Requests, replies and failures of the HTTP client, and what they mean for any type of notifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from bridge.http_headers import retry_after
from bridge.model import MAX_RETRY_AFTER, Reason, Rejected, RetryLater


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. A header is a line "name: value"; "name;" sends an empty one."""

    url: str = field(repr=False)  # may carry a secret
    headers: tuple[str, ...] = field(repr=False)
    body: bytes = field(repr=False)
    deadline_s: float = 15.0  # for everything, the name look-up included


@dataclass(frozen=True, slots=True)
class Reply:
    """The receiver answered. `body` is cut at the limit; `truncated`: the answer was not complete."""

    status: int
    lines: tuple[bytes, ...] = field(repr=False)  # as received, "HTTP/1.1 200 OK" of each answer included
    body: bytes
    seconds: float
    address: str | None
    truncated: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Header fields by lower-case name. Parsed on demand: few replies need it."""
        fields: dict[str, str] = {}
        for line in self.lines:
            if line.startswith(b"HTTP/"):  # an interim answer came before this one
                fields.clear()
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                fields[name.strip().lower()] = value.strip()
        return fields

    def retry_after(self, now: datetime) -> timedelta | None:
        return retry_after(self.headers.get("retry-after", ""), now=now, most=MAX_RETRY_AFTER)


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer. `why` is for people and has neither path nor query, which may be secrets."""

    why: str
    reason: Reason = Reason.OTHER
    forbidden: bool = False  # the address is one that notifiers must not reach
    seconds: float = 0.0
    address: str | None = None
    status: ClassVar[None] = None
    body: ClassVar[bytes] = b""

    @property
    def outcome(self) -> RetryLater | Rejected:
        return (Rejected if self.forbidden else RetryLater)(self.why, self.reason)


_BY_STATUS = {
    401: Reason.AUTH,
    403: Reason.AUTH,
    407: Reason.AUTH,
    408: Reason.TIMEOUT,
    413: Reason.INVALID_PAYLOAD,
    415: Reason.INVALID_PAYLOAD,
    422: Reason.INVALID_PAYLOAD,
    429: Reason.RATE_LIMITED,
}


def reason_of(status: int) -> Reason:
    """Return what a status means where nothing more is known."""
    by_class = {4: Reason.CLIENT_ERROR, 5: Reason.SERVER_ERROR}
    return _BY_STATUS.get(status) or by_class.get(status // 100, Reason.OTHER)
