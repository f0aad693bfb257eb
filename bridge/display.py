"""How foreign text is shown to people: control characters are escaped, long text is cut.

Machines get it unchanged: webhooks, the API, JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

from wcwidth import wcswidth

LINE = 200  # characters of a text in a list
DETAIL = 10_000  # and in the details of one row
MARK = "…"  # at the end of what was cut

# Characters that act instead of being seen: controls (C0, C1), direction marks, Unicode's line ends; and surrogates.
# Not U+200C and U+200D, which some languages and emoji need.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return a text with invisible characters escaped, as in \u202e; with `lines`, line breaks and tabs stay."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n") if lines else text
    return _INVISIBLE.sub(
        lambda match: match[0] if lines and match[0] in "\n\t" else match[0].encode("unicode_escape").decode(), text
    )


def visible_json(text: str) -> str:
    """Return equivalent JSON with invisible characters escaped; line breaks stay."""
    return _INVISIBLE.sub(lambda match: match[0] if match[0] == "\n" else json.dumps(match[0])[1:-1], text)


def pretty_json(value: Any) -> str:
    """Return indented JSON with invisible characters escaped."""
    return visible_json(json.dumps(value, ensure_ascii=False, indent=2))


def clamp(text: str, limit: int) -> str:
    """Return a text of at most so many characters, the last of them a mark if it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + MARK


def one_line(text: str, limit: int = LINE) -> str:
    """Return a text on one line of at most so many characters."""
    head = text[: 4 * limit]
    lines = head.splitlines()
    line = " ".join(filter(None, map(str.strip, lines))) if len(lines) > 1 else "".join(lines)
    return clamp(line if len(head) == len(text) else line + MARK, limit)


def columns(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    width = wcswidth(text)
    return width if width >= 0 else len(text)


def fit(text: str, limit: int) -> str:
    """Return as much of a text as fits into so many columns, with a mark if it was cut."""
    if columns(text) <= limit:
        return text
    head = text[: limit - 1]
    while columns(head) > limit - 1:
        head = head[:-1]
    return head + MARK


def pad(text: str, width: int) -> str:
    """Return a text padded with blanks to so many columns."""
    return text + " " * (width - columns(text))
