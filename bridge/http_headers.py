"""Header values that both HTTP clients read, as servers write them (RFC 9110)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def http_date(text: str) -> datetime | None:
    """Return the time, in UTC; None if it cannot be read."""
    try:
        at = parsedate_to_datetime(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, IndexError):  # the standard library raises each of them
        return None


def retry_after(text: str, *, now: datetime, most: timedelta) -> timedelta | None:
    """Return how long a Retry-After asks to wait, at most `most`; None if it makes no sense or its time is over."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        digits = text.lstrip("0") or "0"
        return min(timedelta(seconds=int(digits[:10])), most)  # more digits make no difference
    at = http_date(text)
    return min(at - now, most) if at and at > now else None
