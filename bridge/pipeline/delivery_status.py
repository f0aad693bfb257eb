"""What became of each message, or would become of it: one word for programs, a sentence with times for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.decide.rules.matching import Rule, Verdict
from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.text.times import human, iso
from bridge.decide.text.values import ident
from bridge.model import Gate, Hold, NewDelivery, Silence
from bridge.record.queries import explanations
from bridge.record.queries.explanations import Fallback, Fate, Gathered, Standing

Facts = dict[str, Any]

_HELD = {"group": "digest", "throttle": "throttled", "mute": "muted", "silence": "silenced"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a status depends on beside its delivery: rules, notifiers, silences, and the job's other deliveries.

    Without `tx` nothing but the rules is known.
    """

    now: datetime
    rules: Ruleset
    tx: Connection | None
    standings: Mapping[str, Standing]
    silences: Mapping[str, Silence]
    deliveries: Sequence[Fate] = ()

    def rule(self, name: str | None) -> Rule | None:
        return next((rule for rule in self.rules.rules if rule.name == name), None)

    def next_at(self, delivery: Fate) -> datetime:
        standing = self.standings.get(delivery.notifier)
        return max(delivery.due_at, standing.not_before) if standing else delivery.due_at

    def earlier(self, delivery: Fate) -> Fate | None:
        """Return the delivery of the same job and notifier that must be sent first, if there is one."""
        unsent = (other for other in self.deliveries if self._blocks(other) and other.n < delivery.n)
        same = ((other, (other.lane, other.notifier)) for other in unsent)
        return next((other for other, key in same if delivery.lane and key == (delivery.lane, delivery.notifier)), None)

    def _blocks(self, delivery: Fate) -> bool:
        """Tell whether it is being sent, or waits for more than its turn in a batch that is resent."""
        is_due = delivery.attempts > 0 or delivery.due_at <= self.now
        return delivery.state == "sending" or (delivery.state == "waiting" and is_due)

    def stands_in_for(self, delivery: Fate) -> str | None:
        """Return the notifier that a fallback's delivery stands in for: its id is made from that."""
        others = {other.notifier for other in self.deliveries if other.message == delivery.message} - {
            delivery.notifier
        }
        made = (name for name in others if ident("dlv", delivery.message, name, delivery.notifier) == delivery.id)
        return next(made, None)

    def gate(self, gate: Gate | str, name: str) -> str:
        """Name a gate: "the silence sil_x by ann (deploy)"."""
        match gate:
            case "group":
                return f'the digest of "{name}"'
            case "throttle":
                rate = rule.throttle if (rule := self.rule(name)) else None
                more = f" ({rate.count:,} in {human(rate.per.total_seconds())})" if rate else ""
                return f'the throttle of "{name}"{more}'
            case "mute":
                return f'the mute "{name}"'
        silence = self.silences.get(name)
        return f"the silence {name} by {silence.author} ({_line(silence.reason)})" if silence else f"the silence {name}"


# --- deliveries on record ------------------------------------------------------------------------------------------


def status(delivery: Fate, around: Around) -> Facts:
    """Return what became of a delivery on record."""
    answer, why = _answer(delivery, around)
    why += _held_before(delivery, around)
    if instead := around.stands_in_for(delivery):
        why = f'{why}; in place of "{instead}", which could not be notified'
    digest = delivery.digest
    return {
        "id": delivery.id,
        "rule": delivery.rule,
        "notifier": delivery.notifier,
        "kind": delivery.kind,
        "answer": answer,
        "why": why,
        "attempts": delivery.attempts,
        "error": _line(delivery.why) if answer in ("retrying", "dead") else None,
        "next_at": iso(around.next_at(delivery)) if answer in ("waiting", "retrying") else None,
        "ended_at": iso(delivery.ended_at),
        "gate": digest.gate if digest else None,
        "gate_name": digest.name if digest else None,
        "until": iso(digest.due_at) if digest else None,
        "told_by": digest.told_by if digest else None,
        "fallback_for": instead,
    }


def _answer(delivery: Fate, around: Around) -> tuple[str, str]:
    ended_at = iso(delivery.ended_at)
    after = f" after {delivery.attempts} attempts" if delivery.attempts > 1 else ""
    match delivery.state, delivery.digest:
        case "sent", _:
            return "sent", f"sent at {ended_at}{after}"
        case "dead", _:
            return "dead", f"given up at {ended_at}{after}: {_line(delivery.why)}"
        case "discarded", _:
            return "discarded", f"discarded at {ended_at}{after}, so nobody tries it again"
        case "held", Gathered() as digest:
            return _HELD[digest.gate], _held(digest, around)
        case "merged", Gathered() as digest:
            return "merged", f"{_gathered(digest, around)}, {_sent_in(digest)}"
        case "dropped", Gathered() as digest:
            return "dropped", f"dropped by {around.gate(digest.gate, digest.name)} at {ended_at}"
        case "sending", _:
            return ("retrying" if delivery.attempts > 1 else "waiting"), f"attempt {delivery.attempts} is under way"
    return _waits(delivery, around)


def _waits(delivery: Fate, around: Around) -> tuple[str, str]:
    if paused := _paused(delivery.notifier, around):
        return "paused", f"waits, as {paused} (ci-bridge notifier resume {delivery.notifier})"
    next_at, why = iso(around.next_at(delivery)), _line(delivery.why)
    if delivery.attempts:
        failed = "1 attempt failed" if delivery.attempts == 1 else f"{delivery.attempts} attempts failed"
        return "retrying", f"{failed}, the next is due at {next_at}: {why}"
    if earlier := around.earlier(delivery):
        return "waiting", f"waits for {earlier.id}, an earlier message about the same job"
    again = f" ({why})" if why and not delivery.held_by else ""
    return "waiting", f"waits for its first attempt, due at {next_at}{again}"


def _paused(notifier: str, around: Around) -> str | None:
    standing = around.standings.get(notifier)
    if standing is None or standing.paused_at is None:
        return None
    return f"the notifier is paused since {iso(standing.paused_at)}: {_line(standing.paused_why)}"


def _held(digest: Gathered, around: Around) -> str:
    due_at = iso(digest.due_at)
    until = f"until {due_at}" if digest.due_at > around.now else f"sent any moment now (due at {due_at})"
    return f"{'waits ' if digest.gate == 'group' else ''}{_gathered(digest, around)}, {until}"


def _gathered(digest: Gathered, around: Around) -> str:
    how = {"group": "in", "throttle": "over"}.get(digest.gate, "held by")
    return f"{how} {around.gate(digest.gate, digest.name)}"


def _sent_in(digest: Gathered) -> str:
    """Say what became of the delivery that the digest is."""
    if digest.told_by is None:
        return "sent in a digest that is no longer on record"
    match digest.state:
        case "sent":
            return f"sent in {digest.told_by} at {iso(digest.ended_at)}"
        case "dead":
            dead = f"part of {digest.told_by}, which is dead: {_line(digest.why)}"
            return "; ".join([dead, *map(_instead, digest.fallbacks)])
        case None:
            return f"sent in {digest.told_by}, which is no longer on record"
    return f"part of {digest.told_by}, which waits to be sent"


def _instead(fallback: Fallback) -> str:
    match fallback.state:
        case "sent":
            return f'sent to "{fallback.notifier}" in its place at {iso(fallback.ended_at)} ({fallback.id})'
        case "dead":
            return f'{fallback.id} to "{fallback.notifier}", in its place, is dead too: {_line(fallback.why)}'
    return f'{fallback.id} to "{fallback.notifier}", in its place, waits to be sent'


def _held_before(delivery: Fate, around: Around) -> str:
    """Say what held a delivery before what is said of it already."""
    gate, _, name = (delivery.held_by or "").partition(":")
    if gate not in _HELD:
        return ""
    text, last = "", delivery.digest
    if delivery.state not in ("held", "merged", "dropped"):  # only a person releases what a gate has
        dropped = f" after it was dropped by {around.gate(last.gate, last.name)}" if last else ""
        text = f"; resent{dropped}"
    moved = last is None or (gate, name) != (last.gate, last.name)
    return f"{text}; first held by {around.gate(gate, name)}" if moved else text


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


# --- what made no delivery -----------------------------------------------------------------------------------------


def would_be(told: NewDelivery, rule: Rule, around: Around) -> Facts:
    """Return what would become of a message if it were put into the outbox now."""
    until = None
    if around.tx and rule.throttle and not told.hold:
        until = explanations.used_up(around.tx, rule.name, rule.throttle, told.notifier, now=around.now)
    hold = Hold(gate="throttle", name=rule.name, until=until) if until else told.hold
    answer, why = _would_be_held(hold, around) if hold else _would_be_sent(told.notifier, rule, around)
    gate = {"gate": hold.gate, "gate_name": hold.name, "until": iso(hold.until)} if hold else {}
    note = f"; {told.note}" if told.note else ""
    return _no_delivery(rule, told.notifier, answer, why + note) | {"kind": told.message.kind} | gate


def _would_be_held(hold: Hold, around: Around) -> tuple[str, str]:
    gate, until = around.gate(hold.gate, hold.name), iso(hold.until)
    if hold.drop:
        return "dropped", f"would be dropped by {gate}, which ends at {until}"
    match hold.gate:
        case "group":
            full = f", or as soon as it has {hold.most:,}" if hold.most else ""
            return "digest", f"would wait in {gate}, sent at {until}{full}"
        case "throttle":
            return "throttled", f"would be over {gate}, held until {until}"
    return _HELD[hold.gate], f"would be held by {gate} until {until}"


def _would_be_sent(notifier: str, rule: Rule, around: Around) -> tuple[str, str]:
    if paused := _paused(notifier, around):
        return "paused", f"would wait, as {paused}"
    if rule.throttle is None:
        return "at_once", "would be sent at once"
    within = f"{rule.throttle.count:,} in {human(rule.throttle.per.total_seconds())}"
    if around.tx is None:
        return "at_once", f"would be sent at once, as long as its throttle is not used up ({within})"
    return "at_once", f"would be sent at once: its throttle is not used up ({within})"


def not_made(verdicts: Iterable[Verdict], deliveries: Sequence[Facts], missing: str) -> Iterator[Facts]:
    """Yield what matching rules made no delivery for; `missing` says why one may be absent from the record."""
    # A fallback's delivery is of the same message, and may itself be among those that the rule names.
    own = sorted(
        (delivery for delivery in deliveries if delivery["kind"] == "transition"),
        key=lambda delivery: not delivery["fallback_for"],
    )
    made = {(delivery["rule"], delivery["notifier"]): delivery for delivery in own}
    for verdict in verdicts:
        rule = verdict.rule
        if not verdict.fired and not verdict.misses:
            yield from (_no_delivery(rule, name, "stopped", verdict.why_not or "") for name in rule.notify)
        for name, earlier in verdict.already.items():
            brief = _briefly(made.get((earlier.name, name)))
            why = f'rule "{earlier.name}" above notifies {name} of this ({brief})'
            yield _no_delivery(rule, name, "already_told", why)
        for name in verdict.notifiers:
            if (rule.name, name) not in made:
                yield _no_delivery(rule, name, "not_on_record", f"no delivery is on record: {missing}")


def _no_delivery(rule: Rule, notifier: str, answer: str, why: str) -> Facts:
    nothing = dict.fromkeys(("error", "next_at", "ended_at", "gate", "gate_name", "until", "told_by", "fallback_for"))
    named = {"id": None, "rule": rule.name, "notifier": notifier, "kind": "transition"}
    return {**named, "answer": answer, "why": why, "attempts": 0, **nothing}


def _briefly(delivery: Facts | None) -> str:
    if delivery is None:
        return "not on record"
    match delivery["answer"]:
        case "sent":
            return f"sent at {delivery['ended_at']}"
        case "digest" | "muted" | "silenced" | "throttled":
            return f"held until {delivery['until']}"
        case "merged":
            return f"sent in {delivery['told_by']}" if delivery["told_by"] else "sent in a digest"
        case "waiting" | "retrying":
            return "waits to be sent"
        case "paused":
            return "waits, the notifier is paused"
        case "at_once":
            return "at once"
    return str(delivery["answer"])  # dead, dropped, discarded
