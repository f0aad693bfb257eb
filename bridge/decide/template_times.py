"""Times in a template: how long ago, and by whose clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from bridge.decide.template_words import TemplateFault, human, kind, text_of

_LONGEST = 40  # characters of a time


@dataclass(frozen=True, slots=True)
class When:
    """When something is told, and in which zone its times are said."""

    now: datetime
    zone: tzinfo


class Names(dict[str, Any]):
    """What a template can name, and when that is told."""

    __slots__ = ("when",)

    def __init__(self, when: When, **named: Any) -> None:
        super().__init__(named)
        self.when = when


def ago(when: When, moment: object) -> str:
    """Say how long ago a time was: "5 min ago"."""
    at = _time(moment)
    if at is None:
        return human(None)
    seconds = (when.now - at).total_seconds()
    return f"{human(seconds)} ago" if round(seconds) > 0 else "just now"


def local(when: When, moment: object) -> str:
    """Say a time by the clock of the zone: "2026-11-21 17:00 CST"."""
    at = _time(moment)
    return human(None) if at is None else f"{at.astimezone(when.zone):%Y-%m-%d %H:%M %Z}"


def _time(value: object) -> datetime | None:
    """Return the time that a value is, or that a text such as seen_at says. Raises TemplateFault."""
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, int | float | list | dict):
        raise TemplateFault(f"{kind(value)} is not a time")
    text = text_of(value)[:_LONGEST]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise TemplateFault(f'"{text}" is not a time, which job.created_at is, or "2026-11-21T09:00:00Z"')
    return at


# Filters that are handed a When before anything else.
TIME_FILTERS: Mapping[str, Callable[[When, object], str]] = {"ago": ago, "local": local}
