"""What became of each message: one word for programs, and a sentence with times for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.decide.archive import Ruleset
from bridge.decide.ids import ident
from bridge.decide.matching import Rule
from bridge.decide.text.durations import human
from bridge.decide.text.times import iso
from bridge.model import Gate, Silence
from bridge.record.explaining import Fallback, Fate, Gathered, Standing

Facts = dict[str, Any]

_HELD = {"group": "digest", "throttle": "throttled", "mute": "muted", "silence": "silenced"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a fate is told by: the notifiers and silences of now, and the job's other deliveries."""

    now: datetime
    standings: Mapping[str, Standing]
    silences: Mapping[str, Silence]
    fates: Sequence[Fate]

    def before(self, fate: Fate) -> Fate | None:
        """Return the delivery of the same job that must be told first, if there is one."""
        open_ = (one for one in self.fates if self._is_in_the_way(one) and one.n < fate.n)
        return next(
            (one for one in open_ if fate.lane and (one.lane, one.notifier) == (fate.lane, fate.notifier)), None
        )

    def _is_in_the_way(self, fate: Fate) -> bool:
        """Tell whether it is sent now, or waits, and not only for the rate of its batch."""
        return fate.state == "sending" or (fate.state == "waiting" and (fate.attempts > 0 or fate.due_at <= self.now))

    def instead_of(self, fate: Fate) -> str | None:
        """Return the notifier that a fallback stands in for: its id is made from that."""
        others = {one.notifier for one in self.fates if one.message == fate.message} - {fate.notifier}
        return next((name for name in others if ident("dlv", fate.message, name, fate.notifier) == fate.id), None)


def fate_facts(fate: Fate, ruleset: Ruleset, around: Circumstances) -> Facts:
    rule = next((one for one in ruleset.rules if one.name == fate.rule), None)
    answer, why = _answer(fate, rule, around)
    why += _before(fate, rule, around)
    instead = around.instead_of(fate)
    if instead:
        why = f'{why}; in place of "{instead}", which could not be told'
    digest = fate.digest
    return {
        "id": fate.id,
        "rule": fate.rule,
        "notifier": fate.notifier,
        "kind": fate.kind,
        "answer": answer,
        "why": why,
        "attempts": fate.attempts,
        "error": _line(fate.why) if answer in ("retrying", "dead") else None,
        "next_at": iso(_next_at(fate, around)) if answer in ("waiting", "retrying") else None,
        "ended_at": iso(fate.ended_at),
        "gate": digest.gate if digest else None,
        "gate_name": digest.name if digest else None,
        "until": iso(digest.due_at) if digest else None,
        "told_by": digest.told_by if digest else None,
        "fallback_for": instead,
    }


def no_delivery(rule: Rule, notifier: str, answer: str, why: str) -> Facts:
    """Return the facts of what made no delivery."""
    nothing = dict.fromkeys(("error", "next_at", "ended_at", "gate", "gate_name", "until", "told_by", "fallback_for"))
    named = {"id": None, "rule": rule.name, "notifier": notifier, "kind": "transition"}
    return {**named, "answer": answer, "why": why, "attempts": 0, **nothing}


def _answer(fate: Fate, rule: Rule | None, around: Circumstances) -> tuple[str, str]:
    match fate.state, fate.digest:
        case "sent", _:
            return "sent", f"sent at {iso(fate.ended_at)}{_tries(fate)}"
        case "dead", _:
            return "dead", f"given up at {iso(fate.ended_at)}{_tries(fate)}: {_line(fate.why)}"
        case "held", Gathered() as digest:
            return _HELD[digest.gate], _held(digest, rule, around)
        case "merged", Gathered() as digest:
            return "merged", f"{_gathered(digest, rule, around)}, {_told_in(digest)}"
        case "dropped", Gathered() as digest:
            return (
                "dropped",
                f"dropped by {gate_said(digest.gate, digest.name, rule, around.silences)} at {iso(fate.ended_at)}",
            )
        case "sending", _:
            return ("retrying" if fate.attempts > 1 else "waiting"), f"is being sent now, try {fate.attempts}"
    return _waits(fate, around)


def _waits(fate: Fate, around: Circumstances) -> tuple[str, str]:
    standing = around.standings.get(fate.notifier)
    if standing and standing.paused_at:
        why = f"{_line(standing.paused_why)} (ci-bridge notifier resume {fate.notifier})"
        return "paused", f"waits, as the notifier is paused since {iso(standing.paused_at)}: {why}"
    if fate.attempts:
        next_try = f"the next is due at {iso(_next_at(fate, around))}"
        tries = "1 try" if fate.attempts == 1 else f"{fate.attempts} tries"
        return "retrying", f"{tries} in vain, {next_try}: {_line(fate.why)}"
    if first := around.before(fate):
        return "waiting", f"waits for {first.id}, which tells of the same job and comes first"
    again = f" ({_line(fate.why)})" if fate.why and not fate.held_by else ""
    return "waiting", f"waits for its first try, due at {iso(_next_at(fate, around))}{again}"


def _next_at(fate: Fate, around: Circumstances) -> datetime:
    standing = around.standings.get(fate.notifier)
    return max(fate.due_at, standing.not_before) if standing else fate.due_at


def _held(digest: Gathered, rule: Rule | None, around: Circumstances) -> str:
    when = (
        f"until {iso(digest.due_at)}"
        if digest.due_at > around.now
        else f"told any moment (due at {iso(digest.due_at)})"
    )
    waits = "waits " if digest.gate == "group" else ""
    return f"{waits}{_gathered(digest, rule, around)}, {when}"


def _before(fate: Fate, rule: Rule | None, around: Circumstances) -> str:
    """Say what held a delivery before it came to what is said of it already."""
    gate, _, name = (fate.held_by or "").partition(":")
    if gate not in _HELD:
        return ""
    said, last = "", fate.digest
    if fate.state not in ("held", "merged", "dropped"):  # only a person lets go of what a gate has
        dropped = f" after it was dropped by {gate_said(last.gate, last.name, rule, around.silences)}" if last else ""
        said = f"; sent again by hand{dropped}"
    moved = last is None or (gate, name) != (last.gate, last.name)
    return f"{said}; first held by {gate_said(gate, name, rule, around.silences)}" if moved else said


def _gathered(digest: Gathered, rule: Rule | None, around: Circumstances) -> str:
    said = gate_said(digest.gate, digest.name, rule, around.silences)
    match digest.gate:
        case "group":
            return f"in {said}"
        case "throttle":
            return f"over {said}"
    return f"held by {said}"


def gate_said(gate: Gate | str, name: str, rule: Rule | None, silences: Mapping[str, Silence]) -> str:
    """Name a gate: "the silence sil_x by ann (deploy)"."""
    match gate:
        case "group":
            return f'the digest of "{name}"'
        case "throttle":
            rate = rule.throttle if rule and rule.name == name else None
            more = f" ({rate.count:,} in {human(rate.per.total_seconds())})" if rate else ""
            return f'the throttle of "{name}"{more}'
        case "mute":
            return f'the mute "{name}"'
    one = silences.get(name)
    return f"the silence {name} by {one.author} ({_line(one.reason)})" if one else f"the silence {name}"


def _told_in(digest: Gathered) -> str:
    if digest.told_by is None:
        return "told in a digest that is no longer on record"
    match digest.state:
        case "sent":
            return f"told in {digest.told_by}, sent at {iso(digest.ended_at)}"
        case "dead":
            dead = f"told in {digest.told_by}, which is dead: {_line(digest.why)}"
            return "; ".join([dead, *map(_instead, digest.fallbacks)])
        case None:
            return f"told in {digest.told_by}, which is no longer on record"
    return f"to be told in {digest.told_by}, which waits to be sent"


def _instead(one: Fallback) -> str:
    match one.state:
        case "sent":
            return f'told to "{one.notifier}" in its place at {iso(one.ended_at)} ({one.id})'
        case "dead":
            return f'{one.id} to "{one.notifier}", in its place, is dead too: {_line(one.why)}'
    return f'to be told to "{one.notifier}" in its place by {one.id}, which waits to be sent'


def _tries(fate: Fate) -> str:
    return f" after {fate.attempts} tries" if fate.attempts > 1 else ""


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
