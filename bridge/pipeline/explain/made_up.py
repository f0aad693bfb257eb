"""A job that is made up: what the rules of now would make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.decide.matching import Rule
from bridge.decide.mutes import Gates
from bridge.decide.rulebook import Rulebook
from bridge.decide.samples import sample_stay
from bridge.decide.tellings import Telling, tell, tell_overdue
from bridge.decide.text.durations import human
from bridge.decide.text.times import iso
from bridge.model import Silence, Told, Transition
from bridge.pipeline.explain.answers import answer
from bridge.pipeline.explain.edges import edges_of
from bridge.pipeline.explain.fates import gate_said, no_delivery
from bridge.pipeline.explain.stays import Looked, levels_of
from bridge.pipeline.explain.untold import untold
from bridge.record import explaining, silences
from bridge.record.explaining import Standing

Facts = dict[str, Any]


def explain_sample(
    step: Transition, book: Rulebook, *, now: datetime, tx: Connection | None, unknown: str | None = None
) -> Facts:
    """Return whom the rules of now would tell of a transition, which words they would use, and what would hold them.

    Without `tx` silences and paused notifiers are not known; `unknown` says why.
    """
    known = silences.of_use(tx, now=now) if tx else []
    standings = explaining.standings(tx) if tx else {}
    gates = Gates(mutes=book.mutes, silences=known, zone=book.zone, now=now)
    stay = sample_stay(step)
    tellings = [tell(step, book, gates), *(one for *_, one in tell_overdue(stay, book, gates, now))]
    edges = edges_of(step, book)
    around = _Around(now=now, tx=tx, standings=standings, silences={one.id: one for one in known})
    deliveries = [_delivery(told, book, around) for one in tellings for told in one.told]
    looked = Looked(began=stay.began, since=stay.since, now=now, ok_at=now)
    return answer(
        step,
        edges,
        levels_of(looked, book, {}) if book.matcher.levels else [],
        deliveries + list(untold(edges, deliveries, "the rules of now have no such notifier")),
        _messages(tellings),
        rules=book.sha,
        notes=_notes(tellings, None if tx else unknown or "there is no database"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What is known of this moment; without `tx`, little."""

    now: datetime
    tx: Connection | None
    standings: Mapping[str, Standing]
    silences: Mapping[str, Silence]

    def used_up(self, rule: Rule, notifier: str) -> datetime | None:
        if self.tx is None or rule.throttle is None:
            return None
        return explaining.used_up(self.tx, rule.name, rule.throttle, notifier, now=self.now)


def _delivery(told: Told, book: Rulebook, around: _Around) -> Facts:
    rule = next(one for one in book.rules if one.name == told.message.rule)
    hold = told.hold
    until = None if hold else around.used_up(rule, told.notifier)
    said, why = _throttled(rule, until) if until else _would(told, rule, around)
    note = f"; {told.note}" if told.note else ""
    gate = {"gate": hold.gate, "gate_name": hold.name, "until": iso(hold.until)} if hold else {}
    gate |= {"gate": "throttle", "gate_name": rule.name, "until": iso(until)} if until else {}
    return no_delivery(rule, told.notifier, said, why + note) | {"kind": told.message.kind} | gate


def _throttled(rule: Rule, until: datetime) -> tuple[str, str]:
    return "throttled", f"would be over {gate_said('throttle', rule.name, rule, {})}, throttled until {iso(until)}"


def _would(told: Told, rule: Rule, around: _Around) -> tuple[str, str]:
    """Say what would become of a message that is put into the outbox now, and that is not over its throttle."""
    if hold := told.hold:
        gate = gate_said(hold.gate, hold.name, rule, around.silences)
        if hold.drop:
            return "dropped", f"would be dropped by {gate}, which ends at {iso(hold.until)}"
        if hold.gate == "group":
            full = f", or as soon as it has {hold.most:,}" if hold.most else ""
            return "digest", f"would wait in {gate}, told at {iso(hold.until)}{full}"
        return ("muted" if hold.gate == "mute" else "silenced"), f"would be held by {gate} until {iso(hold.until)}"
    standing = around.standings.get(told.notifier)
    if standing and standing.paused_at:
        why = " ".join((standing.paused_why or "").split())
        return "paused", f"would wait, as the notifier is paused since {iso(standing.paused_at)}: {why}"
    if rate := rule.throttle:
        within = f"{rate.count:,} in {human(rate.per.total_seconds())}"
        if around.tx is None:
            return "at_once", f"would be told at once, as long as its throttle is not used up ({within})"
        return "at_once", f"would be told at once: its throttle is not used up ({within})"
    return "at_once", "would be told at once"


def _messages(tellings: Sequence[Telling]) -> list[Facts]:
    by_id = {told.message.id: told.message for one in tellings for told in one.told}
    return [{"kind": m.kind, "rule": m.rule, "title": m.title, "text": m.text} for m in by_id.values()]


def _notes(tellings: Sequence[Telling], unknown: str | None) -> list[str]:
    faults = [f'rule "{rule}": {why}: the default is told' for one in tellings for rule, why in one.faults]
    return [f"silences and paused notifiers are not known: {unknown}"] * bool(unknown) + list(dict.fromkeys(faults))
