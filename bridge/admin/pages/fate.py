"""What the state of a delivery means, in plain words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bridge.decide.retries import BROKEN_AT

Facts = Mapping[str, Any]

_MEANS = {
    "waiting": "It waits for its next attempt.",
    "sending": "A worker sends it now.",
    "sent": "The receiver has accepted it. Nothing is left to do.",
    "dead": "It died: nobody tries it again unless you resend it.",
    "held": "It is held back until its time comes.",
    "merged": "It was told together with others, as one message.",
    "dropped": "It was dropped, so nobody heard of it. You can resend it all the same.",
}
_GATES = {
    "group": 'Rule "{}" collects what it tells into one message.',
    "throttle": 'Rule "{}" had told as much as its throttle lets through.',
    "mute": 'The mute "{}" was on.',
    "silence": 'The silence "{}" was on.',
}


def fate(delivery: Facts, lane: Facts | None, *, in_rules: bool, now: datetime) -> str:
    """Return what became of a delivery and what can be done; `lane` is what the record knows of its notifier."""
    means = _MEANS[delivery["state"]]
    if delivery["state"] == "waiting":
        means = _waits(delivery["notifier"], lane, in_rules=in_rules, now=now) or means
    return " ".join(filter(None, (_gate(delivery["held_by"]), means)))


def _waits(notifier: str, lane: Facts | None, *, in_rules: bool, now: datetime) -> str | None:
    if not in_rules:
        return f'It waits for the notifier "{notifier}", which is not in rules.toml: put it back, or this will die.'
    if lane is None:
        return None
    if lane["paused_at"]:
        return f"It waits because its notifier is paused: {lane['paused_why']}. Resume the notifier, and it is sent."
    if lane["failures"] >= BROKEN_AT:
        return "The receiver does not answer. One delivery at a time asks whether it is back; this one waits for that."
    if lane["not_before"] and datetime.fromisoformat(lane["not_before"]) > now:
        return "The receiver has asked for a pause. It is sent when that is over."
    return None


def _gate(held_by: str | None) -> str | None:
    gate, _, name = (held_by or "").partition(":")
    return _GATES[gate].format(name) if gate in _GATES else None
