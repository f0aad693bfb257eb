"""Times as text."""

from __future__ import annotations

from datetime import datetime


def iso(moment: datetime | None) -> str | None:
    """Return RFC 3339 in UTC to the second, as in 2026-11-21T09:00:00Z."""
    # Not strftime, which writes the year 1 as "1" on some systems.
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z" if moment else None
