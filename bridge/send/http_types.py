"""Requests, replies and failures of the HTTP client, and what they mean for any type of notifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from bridge.model import Reason, Rejected, RetryLater
from bridge.url import encoded

RETRY_AFTER_LIMIT = timedelta(hours=24)


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
    reason: Reason = Reason.OTHER
    forbidden: bool = False  # the address is one that notifiers must not reach
    seconds: float = 0.0
    address: str | None = None

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
    """Return what an answer of this status means where nothing more is known."""
    by_class = {4: Reason.CLIENT_ERROR, 5: Reason.SERVER_ERROR}
    return _BY_STATUS.get(status) or by_class.get(status // 100, Reason.OTHER)


def retry_after(headers: dict[str, str], now: datetime) -> timedelta | None:
    """Return the wish of a Retry-After header, at most a day; None if there is none that makes sense."""
    text = headers.get("retry-after", "")
    try:
        if text.isascii() and text.isdecimal():
            return timedelta(seconds=min(int(text), RETRY_AFTER_LIMIT.total_seconds()))
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second of a year or a zone with too many digits
        return None
    wish = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(wish, RETRY_AFTER_LIMIT) if wish > timedelta() else None


def check(request: Request) -> None:
    """Raise ValueError if `request` must not be put on the wire."""
    encoded(request.url)
    lines = "".join(request.headers)
    if "\r" in lines or "\n" in lines or "\0" in lines:
        raise ValueError("a header has a line break in it")
