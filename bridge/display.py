"""How texts that others wrote are shown to people: nothing in them acts unseen, and none fills a list.

Machines get them as they are: webhooks, the API, JSON on a terminal.
"""

from __future__ import annotations

import json
import re
from typing import Any

from wcwidth import wcswidth

LINE = 200  # characters of a text in a list
DETAIL = 10_000  # and where one thing is shown, unless all is asked for
MARK = "…"  # at the end of what was cut

# What is acted on instead of being seen: controls (C0, C1), marks that turn the direction of writing, line ends of
# Unicode's own; and what UTF-8 has not. Not U+200C and U+200D, which languages and emoji are written with.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return a text with what would not be seen spelt out, as in \u202e; with `lines` its lines and tabs stay."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n") if lines else text
    return _UNSEEN.sub(lambda found: found[0] if lines and found[0] in "\n\t" else _spelt(found[0]), text)


def _spelt(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def visible_json(text: str) -> str:
    """Return JSON that says the same, with what would not be seen spelt out; its lines stay."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def pretty_json(value: Any) -> str:
    """Return JSON for people to read, with what would not be seen spelt out."""
    return visible_json(json.dumps(value, ensure_ascii=False, indent=2))


def clamp(text: str, limit: int) -> str:
    """Return at most so many characters of a text, the last of them a mark where there were more."""
    return text if len(text) <= limit else text[: limit - 1] + MARK


def one_line(text: str, limit: int = LINE) -> str:
    """Return a text as a list has it: on one line, and no longer than that."""
    head = text[: 4 * limit]
    lines = head.splitlines()
    line = " ".join(filter(None, map(str.strip, lines))) if len(lines) > 1 else "".join(lines)
    return clamp(line if len(head) == len(text) else line + MARK, limit)


def columns(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    found = wcswidth(text)
    return found if found >= 0 else len(text)


def fit(text: str, limit: int) -> str:
    """Return as much of a text as so many columns hold, with a mark where there was more."""
    if columns(text) <= limit:
        return text
    head = text[: limit - 1]
    while columns(head) > limit - 1:
        head = head[:-1]
    return head + MARK


def pad(text: str, width: int) -> str:
    """Return a text with blanks after it, so that it takes so many columns."""
    return text + " " * (width - columns(text))
