"""Buttons that act: what each does, and to what. Their names and values come back in a click. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bridge import shallow_json
from bridge.language import ENGLISH, Language, marked
from bridge.model import is_of_incident
from bridge.notifiers import SlackNotifier
from bridge.send.chat import Shown, text_of

LONGEST_TARGET = 200  # characters of an id, or of a rule's or a watch's name


class Deed(StrEnum):
    """What a button does; also its `action_id`."""

    ACKNOWLEDGE = "acknowledge"  # an incident
    SILENCE = "silence"  # a rule
    RESEND = "resend"  # what a fallback's digest tells of
    POLL = "poll"  # a watch


LABELS = {
    Deed.ACKNOWLEDGE: marked("Acknowledge"),
    Deed.SILENCE: marked("Silence this rule for 1 h"),
    Deed.RESEND: marked("Resend"),
    Deed.POLL: marked("Poll now"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """A button of a message of a notifier. `is_edited`: the bridge edits that message."""

    deed: Deed
    notifier: str
    target: str  # the id or the name of what it is done to
    is_edited: bool = False

    def element(self, language: Language = ENGLISH) -> dict[str, Any]:
        """The button in Block Kit (docs.slack.dev, "Button element", read 2026-12-01)."""
        value = {"notifier": self.notifier, "target": self.target} | ({"edited": True} if self.is_edited else {})
        return {
            "type": "button",
            "text": {"type": "plain_text", "text": language.say(LABELS[self.deed])},
            "action_id": self.deed.value,
            "value": json.dumps(value, ensure_ascii=False),
        }


def buttons_of(shown: Shown, notifier: SlackNotifier, *, is_reply: bool = False) -> list[Button]:
    """Return the buttons of a message: what can be done about it."""
    if not notifier.has_buttons:
        return []
    thread = shown.delivery.thread if not notifier.url else None
    is_edited = thread is not None and not is_reply and (notifier.updates or is_of_incident(thread))
    # The first message of an incident's thread has the button, until somebody has acknowledged it.
    is_below = is_reply and is_of_incident(thread)
    return [
        Button(deed=deed, notifier=notifier.name, target=target, is_edited=is_edited)
        for deed, target in _deeds(shown)
        if _is_name(target) and not (is_below and deed is Deed.ACKNOWLEDGE)
    ]


def _deeds(shown: Shown) -> Iterator[tuple[Deed, str]]:
    """Yield what can be done, and to what; "": there is nothing to do it to."""
    if shown.is_open_incident:
        yield Deed.ACKNOWLEDGE, text_of(shown.says.get("incident"))
    if shown.is_fallback:
        yield Deed.RESEND, shown.delivery.id
    if shown.is_stuck or shown.is_blind:
        yield Deed.POLL, text_of(shown.data.get("watch"))
    yield Deed.SILENCE, shown.silenced_by or ""


def read_button(action_id: str, value: str) -> Button | None:
    """Return the button with this `action_id` and `value`; None: this version has no such button."""
    try:
        deed, found = Deed(action_id), shallow_json.loads(value)
    except ValueError:
        return None
    match found:
        case {"notifier": str(notifier), "target": str(target)} if _is_name(notifier) and _is_name(target):
            return Button(deed=deed, notifier=notifier, target=target, is_edited=found.get("edited") is True)
    return None


def _is_name(text: str) -> bool:
    # No database takes a NUL, or half of a surrogate pair.
    return 0 < len(text) <= LONGEST_TARGET and text.isprintable()
