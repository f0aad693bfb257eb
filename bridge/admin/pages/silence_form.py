"""The form of a silence: what was typed into it, what that asks for, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.admin.pages.routes import DASHBOARD
from bridge.decide.rules.gates import SCOPE_KEYS
from bridge.decide.rulesfile.silences import SilenceRequest, read_silence
from bridge.decide.text.values import STATE_WORDS, FieldFault, FieldFaults, shown

USUAL = ("30m", "1h", "2h", "4h", "1d")
LABELS = {
    "tag": "Tag", "queue": "Queue", "input": "Input", "from": "State before", "to": "State after", "rule": "Rule",
    "notifier": "Notifier", "everything": "Everything", "for": "How long", "mode": "What happens to the messages",
    "reason": "Reason", "author": "Who",
}  # fmt: skip

_MATCHED = ("tag", "queue", "input")
_LISTED = ("from", "to")  # names of states, which have no commas
_NAMED = ("rule", "notifier")
_LONGEST = 2_000  # characters of a field
_A_DATE = re.compile(r"\d{4}-")
_A_TIME = re.compile(r"[0-9]|(now|today|tomorrow)$", re.IGNORECASE)  # no state begins so
_STATES = {word.lower(): word for word in STATE_WORDS}
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
    nonce: str = ""  # of the page that it stands on

    @property
    def key(self) -> str | None:
        """Return what is the same when this is sent twice; with other texts, as after going back, it is another."""
        return "\0".join([self.nonce, *self.texts.values()]) if self.nonce else None

    def wanted(self, now: datetime, *, preview: bool = False) -> SilenceRequest:
        """Return the silence that is asked for; a preview needs no reason. Raises FormRefused."""
        faults, said = list(self._faults()), self._said()
        said["everything"] = self.everything or not said.keys() & set(SCOPE_KEYS)
        if preview:
            said.setdefault("reason", "preview")
        try:
            wanted = read_silence(said, now=now, author=DASHBOARD)
        except FieldFaults as error:
            raise FormRefused(faults + [self._fault(one) for one in error.faults]) from error
        if faults:
            raise FormRefused(faults)
        return wanted

    def _said(self) -> dict[str, Any]:
        """Return what was typed as the API takes it."""
        match = {name: self.texts[name] for name in _MATCHED if self.texts[name]}
        words = {name: [one for one in self._states(name) if not _A_TIME.match(one)] for name in _LISTED}
        listed = {name: found for name, found in words.items() if found}
        plain = {name: self.texts[name] for name in (*_NAMED, "mode", "author", "reason") if self.texts[name]}
        return ({"match": match} if match else {}) | listed | plain | _end(self.texts["other"] or self.texts["for"])

    def _faults(self) -> Iterator[Fault]:
        """Yield what can be wrong in a form alone: "from" is taken for the beginning."""
        if not self.everything and not any(self.texts[name] for name in (*_MATCHED, *_LISTED, *_NAMED)):
            yield "everything", _NOTHING_NAMED
        for name in _LISTED:
            yield from ((name, _no_state(one)) for one in self._states(name) if _A_TIME.match(one))

    def _fault(self, fault: FieldFault) -> Fault:
        """Return what the reader says in the words of the form."""
        key = fault.key or ""
        if key == "reason" and not self.texts["reason"]:
            return "reason", "give a reason"
        name = {"ends_at": "for"}.get(key, key.removeprefix("match."))
        return (name, fault.text) if name in LABELS else (None, str(fault))

    def _states(self, name: str) -> list[str]:
        words = [part.strip() for part in self.texts[name].split(",")] if self.texts[name] else []
        return [_STATES.get(word.lower(), word) for word in words]


def read(values: Mapping[str, str]) -> Form:
    """Return what was typed, or what an address asks to be filled in; with the usual values for the rest."""
    texts = {name: values.get(name, "").strip()[:_LONGEST] for name in (*LABELS, "other")}
    if texts["for"] not in USUAL:
        texts |= {"for": "1h", "other": texts["other"] or texts["for"]}
    texts["mode"] = texts["mode"] or "hold"
    texts["author"] = values.get("author", DASHBOARD).strip()[:_LONGEST]
    return Form(texts, everything=bool(values.get("everything")), nonce=values.get("nonce", "")[:_LONGEST])


def _end(text: str) -> dict[str, str]:
    if not _A_DATE.match(text):
        return {"for": text}
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return {"ends_at": text}
    return {"ends_at": (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()}


def _no_state(text: str) -> str:
    return f'{shown(text)} is no state of a job, such as Failed; when the silence ends is said under "{LABELS["for"]}"'


def labelled(faults: list[Fault]) -> Iterator[tuple[str | None, str]]:
    """Yield each fault with the name of its field in front."""
    for name, text in faults:
        yield name, f"{LABELS[name]}: {text}" if name else text
