"""The form of a silence: what was typed into it, what that asks for, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.decide.silencing import Wanted, read_wanted

USUAL = ("30m", "1h", "4h", "1d")
BY = "dashboard"  # who asks, where nobody else is named
LABELS = {
    "tag": "Tag", "queue": "Queue", "input": "Input", "from": "From", "to": "To", "rule": "Rule",
    "notifier": "Notifier", "everything": "Everything", "for": "How long", "mode": "What with it", "reason": "Why",
    "author": "Who",
}  # fmt: skip

_MATCHED = ("tag", "queue", "input")
_LISTED = ("from", "to")  # names of states, which have no commas
_NAMED = ("rule", "notifier")
_LONGEST = 2_000  # characters of a field
_A_DATE = re.compile(r"\d{4}-")
_NOTHING_NAMED = "say what it matches, or tick that everything is meant"

Fault = tuple[str | None, str]  # the field, if it is about one, and what is wrong


class FormRefused(Exception):
    """What was typed asks for no silence; `faults` has every reason."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(text for _, text in faults))


@dataclass(frozen=True, slots=True)
class Form:
    """What stands in each field. "for" is one of the usual spans, "other" what was typed instead."""

    texts: Mapping[str, str]
    everything: bool = False

    def wanted(self, now: datetime, *, preview: bool = False) -> Wanted:
        """Return the silence that is asked for; a preview needs no reason. Raises FormRefused."""
        faults: list[Fault] = []
        named = [name for name in (*_MATCHED, *_LISTED, *_NAMED) if self.texts[name]]
        if not named and not self.everything:
            faults.append(("everything", _NOTHING_NAMED))
        said = {**self._said(), "everything": self.everything or not named}
        if preview:
            said.setdefault("reason", "preview")
        try:
            wanted = read_wanted(said, now=now, author=BY)
        except ValueError as error:
            raise FormRefused(faults + [_fault(line) for line in str(error).splitlines()]) from error
        if faults:
            raise FormRefused(faults)
        return wanted

    def _said(self) -> dict[str, Any]:
        """Return what was typed as the API takes it."""
        match = {name: self.texts[name] for name in _MATCHED if self.texts[name]}
        listed = {name: [part.strip() for part in self.texts[name].split(",")] for name in _LISTED if self.texts[name]}
        plain = {name: self.texts[name] for name in (*_NAMED, "mode", "author", "reason") if self.texts[name]}
        return ({"match": match} if match else {}) | listed | plain | _end(self.texts["other"] or self.texts["for"])


def read(values: Mapping[str, str]) -> Form:
    """Return what was typed, or what an address asks to be filled in; with the usual values for the rest."""
    texts = {name: values.get(name, "").strip()[:_LONGEST] for name in (*LABELS, "other")}
    if texts["for"] not in USUAL:
        texts |= {"for": "1h", "other": texts["other"] or texts["for"]}
    texts["mode"] = texts["mode"] or "hold"
    texts["author"] = values.get("author", BY).strip()[:_LONGEST]
    return Form(texts, everything=bool(values.get("everything")))


def _end(text: str) -> dict[str, str]:
    if not _A_DATE.match(text):
        return {"for": text}
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return {"ends_at": text}
    return {"ends_at": (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()}


def _fault(line: str) -> Fault:
    key, _, rest = line.partition(": ")
    name = {"ends_at": "for"}.get(key, key.removeprefix("match."))
    return (name, rest) if name in LABELS and rest else (None, line)


def labelled(faults: list[Fault]) -> Iterator[tuple[str | None, str]]:
    """Yield each fault with the name of its field in front."""
    for name, text in faults:
        yield name, f"{LABELS[name]}: {text}" if name else text
