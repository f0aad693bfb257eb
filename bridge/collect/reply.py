"""One answer of CI's over HTTP, and what its headers say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

LONGEST_WAIT = timedelta(minutes=10)  # one answer of CI's must not keep us from asking for a day
_EARLIEST, _LATEST = 1970, 2999  # years: with others no one can reckon


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`headers` are found whatever their case; `body` is decoded, and empty where it was taken as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def date(self) -> datetime | None:
        """CI's own clock."""
        at = _http_date(self.headers.get("Date", ""))
        return at if at and _EARLIEST <= at.year <= _LATEST else None

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-ci-request-id") or self.headers.get("x-cos-request-id")

    def retry_after(self, now: datetime) -> timedelta | None:
        """Return how long CI asks us to wait, at most ten minutes; `now` helps where it sent no Date."""
        text = self.headers.get("Retry-After", "").strip()
        if text.isascii() and text.isdigit():
            return min(timedelta(seconds=int(text[:9])), LONGEST_WAIT)
        if (at := _http_date(text)) is None:
            return None
        return min(max(at - (self.date or now), timedelta()), LONGEST_WAIT)


def _http_date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, IndexError):  # the standard library raises each of them
        return None
