"""Times and durations as text: as rules.toml and RFC 3339 write them, and as a person reads them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

LONGEST_DURATION = 40  # characters

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+[smhd])+")
_PIECE = re.compile(r"(\d+)([smhd])")


def duration(text: str) -> timedelta:
    """Read "90s", "45m", "1h30m", "7d". Raises ValueError saying what would be right."""
    if len(text) > LONGEST_DURATION or not _DURATION.fullmatch(text):
        raise ValueError(f'"{text[:80]}" is not a duration; write for example "30s", "45m", "1h30m" or "7d"')
    seconds = sum(int(count) * _UNITS[unit] for count, unit in _PIECE.findall(text))
    if not 0 < seconds <= 3650 * 86400:
        raise ValueError(f'"{text}" is out of range; a duration is more than nothing and at most ten years')
    return timedelta(seconds=seconds)


def human(seconds: float | None) -> str:
    """Return a number of seconds in its two largest units: "45 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"."""
    if seconds is None:
        return "unknown time"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def iso(moment: datetime | None) -> str | None:
    """Return RFC 3339 in UTC to the second, as in 2026-11-21T09:00:00Z."""
    # Not strftime, which writes the year 1 as "1" on some systems.
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z" if moment else None
