"""The languages in which people are told things: English, and translations of it in locale/.

A text is written in English where it is used, as in `language.say("was {state} before", state=...)`; the catalogues
have the same text in other languages, and are read once, with this module. What machines read (states in webhooks,
errors of receivers, the log) is English.
"""

from __future__ import annotations

from collections.abc import Mapping
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

LANGUAGES = ("en", "zh-CN")

_DOMAIN = "bridge"
LOCALE = Path(__file__).parent / "locale"


class Language:
    """One language, by its tag (BCP 47)."""

    def __init__(self, tag: str, texts: NullTranslations) -> None:
        self.tag = tag
        self._texts = texts

    def say(self, text: str, /, **values: object) -> str:
        """Return a text, given in English, with these values in it, as `str.format` puts them there."""
        return self._texts.gettext(text).format(**values)

    def state(self, state: str) -> str:
        """Return what people call a job's state; CI may have other states, which stay as they are."""
        return self._texts.gettext(state) if state in _STATES else state

    def span(self, seconds: float | None) -> str:
        """Return a number of seconds in its two largest units: "45 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"."""
        if seconds is None:
            return self.say("unknown time")
        left = round(seconds)
        parts: list[str] = []
        for unit, size in _UNITS:
            count, left = divmod(left, size)
            if count or (size == 1 and not parts):
                parts.append(self.say(unit, n=count))
        return " ".join(parts[:2])


def marked(text: str) -> str:
    """Return a text that is translated where it is used: this marks it for the catalogue."""
    return text


_UNITS = (
    (marked("{n} d"), 86400), (marked("{n} h"), 3600), (marked("{n} min"), 60), (marked("{n} s"), 1)
)  # fmt: skip
NOT_SENT_TO = marked("This could not be sent to ")  # how the note of a fallback's delivery begins

_STATES = frozenset({
    marked("Submitted"), marked("Running"), marked("Pause"), marked("Success"), marked("Failed"),
    marked("Cancel"), marked("gone"), marked("new"),
})  # fmt: skip


def _read(tag: str) -> Language:
    if tag == "en":
        return Language(tag, NullTranslations())
    with (LOCALE / tag.replace("-", "_") / "LC_MESSAGES" / f"{_DOMAIN}.mo").open("rb") as file:
        return Language(tag, GNUTranslations(file))


_LANGUAGES: Mapping[str, Language] = {tag: _read(tag) for tag in LANGUAGES}
ENGLISH = _LANGUAGES["en"]


def in_each(text: str) -> tuple[str, ...]:
    """Return a text in each language, to recognise it where it was stored."""
    return tuple(language.say(text) for language in _LANGUAGES.values())


def language_of(tag: str | None) -> Language:
    """Return the language with this tag; English where there is none, as a newer version may have stored it."""
    return _LANGUAGES.get(tag or "", ENGLISH)
