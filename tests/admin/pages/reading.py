"""What a person reads of a page: its text, without tags, with one space between words."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def text_of(html: str) -> str:
    """Return the text of a page from its main part on."""
    parser = _Text()
    parser.feed(html[html.find("<main") :] if "<main" in html else html)
    said = " ".join(" ".join(parser.parts).split())
    return re.sub(r" ([,.;:])", r"\1", said)
