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


class _Controls(HTMLParser):
    """The controls of a page, and what labels them."""

    def __init__(self) -> None:
        super().__init__()
        self.labelled: set[str] = set()
        self.unlabelled: list[str] = []
        self._inside = 0
        self._controls: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "label":
            self._inside += 1
            self.labelled.add(given.get("for") or "")
        elif given.get("type") == "hidden":
            return
        elif tag in ("input", "select", "textarea") and not (self._inside or given.get("aria-label")):
            self._controls.append((given.get("name") or "", given.get("id")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self._inside -= 1

    def close(self) -> None:
        super().close()
        self.unlabelled = [name for name, id_ in self._controls if id_ not in self.labelled]


def unlabelled(html: str) -> list[str]:
    """Return the names of the controls that nothing names to who cannot see them."""
    parser = _Controls()
    parser.feed(html)
    parser.close()
    return parser.unlabelled
