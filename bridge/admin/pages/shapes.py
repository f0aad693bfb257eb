"""How values look on a page: times, spans, numbers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

from bridge.display import DETAIL, LINE, clamp, one_line, visible

_ISO = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?Z")
_ALL = Markup(' <a href="{}">Show all {:,} characters</a>')
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def shown(value: object) -> object:
    """Return what a template prints: of a text, what may be seen of it (`bridge.display`)."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value, lines=True)


def as_it_is(value: str) -> Markup:
    """Return a text that goes back as it came: in a form, in what is copied."""
    return escape(value)


def line(value: str) -> Markup:
    """Return a text as a list has it."""
    text = one_line(value)
    return _copied(clamp(visible(text), LINE), text)


def detail(value: object, *, lines: bool, all_at: str | None) -> object:
    """Return a text where one thing is shown, or its beginning with a link to `all_at`, where all of it is."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    cut = clamp(value, DETAIL) if all_at else value
    text = _copied(visible(cut, lines=lines), cut)
    return text if cut == value else text + _ALL.format(all_at, len(value))


def _copied(text: str, true: str) -> Markup:
    """Return a text; where it is not what it stands for, the browser copies that instead (app.js)."""
    if text == true:
        return escape(text)
    return Markup('<span data-true="{}">{}</span>').format(json.dumps(true), text)


def moment(value: str | datetime | None, now: datetime) -> Markup:
    """Return a time as UTC and as how long ago; the browser makes the reader's own zone of it."""
    if value is None:
        return Markup('<span class="none">–</span>')
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    iso = _iso(at)
    shown = f'<span class="abs">{iso[:10]} {iso[11:19]} UTC</span> <span class="rel">{ago(at, now)}</span>'
    return Markup(f'<time datetime="{iso}">{shown}</time>')  # noqa: S704  (it is of digits, and of words of ours)


def _iso(at: datetime) -> str:
    return f"{at.astimezone(UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def clocks(text: str, now: datetime) -> Markup:
    """Return a text of ours with its times as `moment` shows them."""
    parts, end = [], 0
    text = visible(text, lines=True)
    for found in _ISO.finditer(text):
        try:
            shown = moment(found[0], now)
        except ValueError:  # it only looks like a time
            continue
        parts += [escape(text[end : found.start()]), shown]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def gate(held_by: str) -> str:
    """Say in words what held a message, of "mute:NAME" and the like."""
    kind, _, name = held_by.partition(":")
    of = {"group": "the group of rule", "throttle": "the throttle of rule"}.get(kind, f"the {kind}")
    return f"{of} {name}"


def age(value: str | datetime, now: datetime) -> Markup:
    """Return how long ago a time is, which the browser goes on counting."""
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    passed = span(max(0.0, (now - at).total_seconds()))
    return Markup(f'<time datetime="{_iso(at)}" class="age">{passed}</time>')  # noqa: S704  (digits, and words of ours)


def ago(at: datetime, now: datetime) -> str:
    passed = (now - at).total_seconds()
    if abs(passed) < 1:
        return "now"
    return f"{span(passed)} ago" if passed > 0 else f"in {span(-passed)}"


def span(seconds: float | timedelta | None) -> str:
    """Return a length of time in its largest unit, and the next one where that says more."""
    if seconds is None:
        return "–"
    left = round(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    if left < 1:
        return "0 s"
    for place, (size, unit) in enumerate(_UNITS):
        if left >= size:
            count, rest = divmod(left, size)
            more = rest // _UNITS[place + 1][0] if place + 1 < len(_UNITS) and count < 10 else 0
            return f"{count} {unit}" + (f" {more} {_UNITS[place + 1][1]}" if more else "")
    return "0 s"


def count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
