"""Keeps the catalogues: `python -m tests.language` adds the texts that are new, and compiles what is translated.

Then translate what it names in bridge/locale/, and run it again.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from bridge.language import LANGUAGES, LOCALE

PACKAGE = LOCALE.parent
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_KEYWORDS = {"say": None, "marked": None}  # functions whose first argument is a text to translate


def texts() -> set[str]:
    """Return all texts of the code that people are told."""
    found = extract_from_dir(PACKAGE, [("**.py", "python")], keywords=_KEYWORDS)
    return {message for _, _, message, _, _ in found if isinstance(message, str)}


def path_of(tag: str, end: str) -> Path:
    return LOCALE / tag.replace("-", "_") / "LC_MESSAGES" / f"bridge.{end}"


def catalogues() -> Iterator[tuple[str, Catalog]]:
    for tag in LANGUAGES:
        if tag != "en":
            with path_of(tag, "po").open("rb") as file:
                yield tag, read_po(file, locale=tag.replace("-", "_"))


def compiled(catalogue: Catalog) -> bytes:
    made = io.BytesIO()
    catalogue.creation_date = catalogue.revision_date = _ANY_DAY  # so that the same texts are the same bytes
    write_mo(made, catalogue)
    return made.getvalue()


def missing(catalogue: Catalog) -> list[str]:
    """Return the texts that a catalogue does not translate."""
    done = {message.id for message in catalogue if message.string and not message.fuzzy}
    return sorted(texts() - done)


def main() -> int:
    left = 0
    for tag, catalogue in catalogues():
        wanted = texts()
        for message in list(catalogue):
            if message.id and message.id not in wanted:
                catalogue.delete(message.id)
        for text in sorted(wanted):
            if text not in catalogue:
                catalogue.add(text)
        with path_of(tag, "po").open("wb") as file:
            write_po(file, catalogue, width=120, sort_output=True, omit_header=True)
        path_of(tag, "mo").write_bytes(compiled(catalogue))
        for text in missing(catalogue):
            left += 1
            print(f"{tag}: not translated: {text}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
