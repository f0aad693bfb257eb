"""Why did I (not) get this? Every rule's verdict on a transition, and the status of each delivery.

A status is one word for programs (`answer`) and a sentence with times for people (`why`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection

from bridge.decide.messages.build import delivery_id
from bridge.decide.routing import Waits, route, route_overdue
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.levels import TimeInState
from bridge.decide.rules.matching import Answer, Rule, Verdict
from bridge.decide.rules.rulebook import Rulebook, Ruleset
from bridge.decide.rulesfile.rulesets import ruleset_from_text
from bridge.decide.text.times import human, iso
from bridge.decide.text.values import ident
from bridge.decide.whatif.rule_tests import sample_time_in_state
from bridge.model import Alarm, Gate, Hold, Message, NewDelivery, Silence, Transition
from bridge.pipeline.explain_incidents import COUNTS, IncidentRecord, explain_incidents
from bridge.pipeline.explain_levels import InState, explain_levels
from bridge.pipeline.incidents import inhibited_levels
from bridge.record import rulesets
from bridge.record.outbox import silences
from bridge.record.polling import leases, snapshots, time_in_state
from bridge.record.polling.snapshots import Judged
from bridge.record.queries import explanations
from bridge.record.queries.explanations import DigestStatus, Fallback, JobDelivery, NotifierStatus

Facts = dict[str, Any]
_IN = ("group", "fallback")  # gates that are digests

_HELD = {
    "group": "digest", "throttle": "throttled", "mute": "muted", "silence": "silenced", "flood": "digest",
    "fallback": "digest",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What a status depends on besides its delivery: rules, notifiers, silences, and the job's other deliveries.

    Without `tx` only the rules are known.
    """

    now: datetime
    rules: Ruleset
    tx: Connection | None
    standings: Mapping[str, NotifierStatus]
    silences: Mapping[str, Silence]
    deliveries: Sequence[JobDelivery] = ()

    def next_at(self, delivery: JobDelivery) -> datetime:
        standing = self.standings.get(delivery.notifier)
        return max(delivery.due_at, standing.not_before) if standing else delivery.due_at

    def earlier(self, delivery: JobDelivery) -> JobDelivery | None:
        """Return the delivery of the same job and notifier that must be sent first, if there is one."""
        key = (delivery.ordering_key, delivery.notifier)
        before = (
            other for other in self.deliveries if other.n < delivery.n and (other.ordering_key, other.notifier) == key
        )
        return next((other for other in before if delivery.ordering_key and self._blocks(other)), None)

    def _blocks(self, delivery: JobDelivery) -> bool:
        """Tell whether it is being sent, or waits for more than its turn in a batch that is resent."""
        is_due = delivery.attempts > 0 or delivery.due_at <= self.now
        return delivery.state == "sending" or (delivery.state == "waiting" and is_due)

    def replaces(self, delivery: JobDelivery) -> str | None:
        """Return the notifier that a fallback's delivery replaces: the delivery's id is made from its name."""
        others = {other.notifier for other in self.deliveries if other.message == delivery.message}
        made = (name for name in others if ident("dlv", delivery.message, name, delivery.notifier) == delivery.id)
        return next((name for name in made if name != delivery.notifier), None)

    def paused(self, notifier: str) -> str | None:
        standing = self.standings.get(notifier)
        if standing is None or standing.paused_at is None:
            return None
        return f"the notifier is paused since {iso(standing.paused_at)}: {_line(standing.paused_why)}"

    def gate(self, gate: Gate | str, name: str) -> str:
        """Name a gate: "the silence sil_x by ann (deploy)"."""
        match gate:
            case "group":
                return f'the digest of "{name}"'
            case "throttle":
                rate = next((rule.throttle for rule in self.rules.rules if rule.name == name), None)
                more = f" ({rate.count:,} in {human(rate.per.total_seconds())})" if rate else ""
                return f'the throttle of "{name}"{more}'
            case "mute":
                return f'the mute "{name}"'
            case "flood":
                return f"the flood of messages for {name}"
            case "fallback":
                return f'the digest of what "{name}" did not get'
        silence = self.silences.get(name)
        return f"the silence {name} by {silence.author} ({_line(silence.reason)})" if silence else f"the silence {name}"


def explain_sample(
    transition: Transition, book: Rulebook, *, now: datetime, tx: Connection | None, unknown: str | None = None
) -> Facts:
    """Return whom these rules would notify of a transition, with which texts, and what would hold these.

    Without `tx` silences and paused notifiers are not known; `unknown` says why.
    """
    known = silences.recent(tx, now=now) if tx else []
    gates = Gates(mutes=book.mutes, silences=known, zone=book.zone, now=now, pick_of=book.matcher.pick_of)
    time = sample_time_in_state(transition)
    waits: Waits = inhibited_levels(tx, book) if tx else lambda _rule, _began: False
    routings = [route(transition, book, gates), *route_overdue(time, book, gates, now, waits=waits)]
    context = _Context(
        now=now,
        rules=book,
        tx=tx,
        standings=explanations.notifier_statuses(tx) if tx else {},
        silences={silence.id: silence for silence in known},
    )
    rules = {rule.name: rule for rule in book.rules}
    new = [delivery for routing in routings for delivery in routing.deliveries]
    edges = _edges(transition, book)
    deliveries = [_would_be(delivery, rules[str(delivery.message.rule)], context) for delivery in new]
    errors = [error for routing in routings for error in routing.errors]
    faults = [f'rule "{error.rule}": {error.why}: the default text is sent' for error in errors]
    no_record = [] if tx else [f"silences and paused notifiers are not known: {unknown or 'there is no database'}"]
    return _explanation(
        transition,
        edges,
        explain_levels(InState(time=time, now=now, seen_at=now), book, {}, waits=waits),
        [*deliveries, *_not_made(edges, deliveries, "the rules have no such notifier")],
        {delivery.message.id: delivery.message for delivery in new}.values(),
        incidents=explain_incidents(time, None, book, IncidentRecord(tx, now), is_sample=True),
        rules=book.sha,
        notes=[*no_record, *dict.fromkeys(faults)],
    )


def explain_stored(
    tx: Connection, job_id: str, book: Rulebook, *, now: datetime, bucket: str | None = None, newest: int | None = None
) -> list[Facts]:
    """Return what is known of each transition of a job, oldest first; nothing when no job of this id is on record.

    Two buckets may each have one: `bucket` says which is meant. With `newest` only so many transitions are explained.
    """
    found = [
        judged for judged in snapshots.transitions_of(tx, job_id) if bucket in (None, judged.transition.job.bucket)
    ]
    history = _History(tx, job_id, book, now)
    pairs = list(zip_longest(found, found[1:]))
    return [
        history.explain(judged, then if then and then.transition.job.bucket == judged.transition.job.bucket else None)
        for judged, then in (pairs if newest is None else pairs[-newest:])
    ]


# --- what each rule says -------------------------------------------------------------------------------------------


def _edges(transition: Transition, ruleset: Ruleset) -> list[Verdict]:
    """Return what every edge rule says, top to bottom; when all say no, the nearest miss first."""
    verdicts = list(ruleset.matcher.explain(transition))
    if any(verdict.fired for verdict in verdicts):
        return verdicts
    # Of two that miss by as much, the one about this change is rather what a person means.
    return sorted(
        verdicts,
        key=lambda verdict: (
            len(verdict.misses),
            transition.to not in verdict.rule.to or transition.was not in verdict.rule.was,
        ),
    )


def _edge_facts(verdict: Verdict) -> Facts:
    return {
        "rule": verdict.rule.name,
        "line": verdict.rule.line,
        "matches": verdict.fired,
        "answer": verdict.answer,
        "why_not": verdict.why_not,
        "misses": len(verdict.misses),
        "notifiers": list(verdict.notifiers),
        "already_told": list(verdict.notified_earlier),
    }


# --- transitions on record: each evaluated by the rules that were in force then ---------------------------------------


@dataclass(frozen=True, slots=True)
class _InForce:
    """The rules that evaluated a transition, or those of this process, and why it is these."""

    rules: Ruleset
    known: bool
    note: str | None = None


_NOW = "these are the verdicts of rules.toml as it is now"


class _History:
    """What is on record about the jobs of one id."""

    def __init__(self, tx: Connection, job_id: str, book: Rulebook, now: datetime) -> None:
        self._tx = tx
        self._job_id = job_id
        self._book = book
        self._now = now
        self._kept: dict[str | None, _InForce] = {book.sha: _InForce(book, known=True)}
        self._incidents = IncidentRecord(tx, now)

    def explain(self, judged: Judged, then: Judged | None) -> Facts:
        """Say all about a transition, and about the time in state that it began and `then` ended."""
        transition, force = judged.transition, self._in_force(judged.rules)
        level_force = self._in_force(then.rules if then else self._book.sha)
        edges = _edges(transition, force.rules)
        context, key = replace(self._context, rules=force.rules), (transition.job.bucket, transition.sequence)
        about = self._incidents.messages(transition.job.bucket, self._job_id, transition.sequence)
        mine = [
            delivery
            for delivery in context.deliveries
            if (delivery.bucket, delivery.sequence) == key or delivery.message in about
        ]
        deliveries = [_status(delivery, context) for delivery in mine]
        if not transition.silent:
            missing = "it is kept for a time only" if force.known else "other rules were in force then"
            deliveries += _not_made(edges, deliveries, missing, _picked_later(edges, mine))
        period = self._period(transition, then)
        return _explanation(
            transition,
            edges,
            [] if transition.inferred else self._levels(period, level_force.rules),
            deliveries,
            {delivery.message: delivery for delivery in mine}.values(),
            incidents=explain_incidents(period.time, period.left_at, force.rules, self._incidents),
            rules=force.rules.sha,
            notes=[note for note in (force.note, _note_on_levels(force, level_force, ended=bool(then))) if note],
            all_asked={force.rules.sha, level_force.rules.sha} == {self._book.sha},
            would_tell_now=self._now_instead(transition, force.rules),
        )

    def _in_force(self, sha: str | None) -> _InForce:
        return self._kept.get(sha) or self._kept.setdefault(sha, self._thawed(sha))

    def _thawed(self, sha: str | None) -> _InForce:
        text = rulesets.text_of(self._tx, sha) if sha else None
        if text is None or sha is None:
            which = f"the rules that evaluated this ({sha})" if sha else "the rules that evaluated this"
            return _InForce(self._book, known=False, note=f"{which} are not on record; {_NOW}")
        try:
            note = f"evaluated by the rules that were in force then ({sha}); rules.toml has others now"
            return _InForce(ruleset_from_text(sha, text), known=True, note=note)
        except (ValueError, KeyError):  # kept by a version that wrote them in another way
            note = f"the rules that evaluated this ({sha}) cannot be read any more; {_NOW}"
            return _InForce(self._book, known=False, note=note)

    def _now_instead(self, transition: Transition, then: Ruleset) -> Facts | None:
        """Return whom the rules of this process would notify, where that differs."""
        if then.sha == self._book.sha or transition.silent:
            return None
        now = _notified(transition, self._book)
        return None if now == _notified(transition, then) else {"rules": self._book.sha, "tells": now}

    def _levels(self, period: InState, rules: Ruleset) -> list[Facts]:
        """Ask the level rules: those in force when the job left the state; while it is in it, those of this process."""
        began = period.time.began
        fired = {
            alarm.rule: alarm for alarm in self._fired.get(began.job.bucket, ()) if alarm.sequence == began.sequence
        }
        if not fired and not rules.matcher.levels:
            return []
        return explain_levels(period, rules, fired, waits=self._inhibited)

    def _period(self, transition: Transition, then: Judged | None) -> InState:
        """Return the time in state that a transition began, and `then` ended."""
        if then is None:
            last = self._last.get(transition.job.bucket)
            began = replace(transition, job=last.job) if last else transition
            seen_at, no_poll = self._polls(last.stream if last else "")
            return InState(time=TimeInState(began=began), now=self._now, seen_at=seen_at, no_poll=no_poll)
        end = then.transition
        # CI may have said only later when it began.
        job = replace(transition.job, created_at=end.job.created_at, started_at=end.job.started_at)
        time = TimeInState(began=replace(transition, job=job))
        return InState(time=time, now=self._now, left_at=end.happened_at, seen_at=end.still_at)

    def _polls(self, stream: str) -> tuple[datetime | None, str | None]:
        """Return when the last poll began that saw all of a stream, and why none is expected to have come since."""
        watches = {watch.name: watch for watch in self._book.watches if any(s.key == stream for s in watch.streams)}
        rows = leases.polls(self._tx, watches)
        if not rows:
            return None, "no watch in rules.toml covers this job"
        known = snapshots.listed(self._tx, [stream]).get(stream)
        seen_at = known.seen_at if known else None
        row = max(rows, key=lambda row: row.polled_at)
        if seen_at and self._now - seen_at <= 2 * watches[row.name].every:
            return seen_at, None
        last = f"the last one began at {iso(seen_at)}" if seen_at else "there has been none"
        failed = f", and {row.failures} failed since" if row.failures else ""
        return (
            seen_at,
            f'{last}{failed}; watch "{row.name}" {"is paused" if row.paused else "is late: is a worker running?"}',
        )

    @cached_property
    def _context(self) -> _Context:
        about = {id_ for bucket in self._last for id_ in self._incidents.messages(bucket, self._job_id)}
        deliveries = explanations.job_deliveries(self._tx, self._job_id)
        deliveries += explanations.incident_deliveries(self._tx, about)
        gates = [(delivery.held_by or "").partition(":")[::2] for delivery in deliveries]
        gates += [(delivery.digest.gate, delivery.digest.name) for delivery in deliveries if delivery.digest]
        named = sorted({name for gate, name in gates if gate == "silence"})
        return _Context(
            now=self._now,
            rules=self._book,
            tx=self._tx,
            standings=explanations.notifier_statuses(self._tx),
            silences={name: silence for name in named if (silence := silences.get(self._tx, name))},
            deliveries=deliveries,
        )

    @cached_property
    def _inhibited(self) -> Waits:
        return inhibited_levels(self._tx, self._book)

    @cached_property
    def _last(self) -> dict[str, explanations.LastSeen]:
        return explanations.last_seen(self._tx, self._job_id)

    @cached_property
    def _fired(self) -> Mapping[str, Sequence[Alarm]]:
        return {bucket: time_in_state.of_job(self._tx, bucket, self._job_id) for bucket in self._last}


def _note_on_levels(edges: _InForce, levels: _InForce, *, ended: bool) -> str | None:
    """Say which level rules were asked, where they are others than the edge rules."""
    sha = levels.rules.sha
    if sha == edges.rules.sha or not (levels.rules.matcher.levels or edges.rules.matcher.levels):
        return None
    if not levels.known:
        return f"level rules: those of rules.toml now ({sha}), as those in force when the state ended are not on record"
    return f"level rules: {'those in force when the state ended' if ended else 'those of rules.toml now'} ({sha})"


def _notified(transition: Transition, ruleset: Ruleset) -> list[Facts]:
    """Return which rules notify whom of a transition."""
    fired = ruleset.matcher.match(transition)
    return [{"rule": verdict.rule.name, "notifiers": list(verdict.notifiers)} for verdict in fired if verdict.notifiers]


# --- deliveries on record ------------------------------------------------------------------------------------------


def _status(delivery: JobDelivery, context: _Context) -> Facts:
    """Return what became of a delivery on record."""
    answer, why = _answer(delivery, context)
    why += _held_before(delivery, context)
    if instead := context.replaces(delivery):
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
        "next_at": iso(context.next_at(delivery)) if answer in ("waiting", "retrying") else None,
        "ended_at": iso(delivery.ended_at),
        "gate": digest.gate if digest else None,
        "gate_name": digest.name if digest else None,
        "until": iso(digest.due_at) if digest else None,
        "told_by": digest.told_by if digest else None,
        "fallback_for": instead,
    }


def _answer(delivery: JobDelivery, context: _Context) -> tuple[str, str]:
    ended_at = iso(delivery.ended_at)
    after = f" after {delivery.attempts} attempts" if delivery.attempts > 1 else ""
    match delivery.state, delivery.digest:
        case "sent", _:
            return "sent", f"sent at {ended_at}{after}"
        case "dead", _:
            return "dead", f"given up at {ended_at}{after}: {_line(delivery.why)}"
        case "discarded", _:
            return "discarded", f"{_line(delivery.why)}, at {ended_at}"
        case "held", DigestStatus() as digest:
            return _HELD[digest.gate], _held(digest, context)
        case "merged", DigestStatus() as digest:
            return "merged", f"{_gathered(digest, context)}, {_sent_in(digest)}"
        case "dropped", DigestStatus() as digest:
            return "dropped", f"dropped by {context.gate(digest.gate, digest.name)} at {ended_at}"
        case "held", None:
            return "waiting", "shows when the first message of its thread is edited, which is due"
        case "merged", None:
            return "merged", f"{_line(delivery.why)}, at {ended_at}"
        case "sending", _:
            return ("retrying" if delivery.attempts > 1 else "waiting"), f"attempt {delivery.attempts} is under way"
    return _waits(delivery, context)


def _waits(delivery: JobDelivery, context: _Context) -> tuple[str, str]:
    if paused := context.paused(delivery.notifier):
        return "paused", f"waits, as {paused} (ci-bridge notifier resume {delivery.notifier})"
    next_at, why = iso(context.next_at(delivery)), _line(delivery.why)
    if delivery.attempts:
        failed = "1 attempt failed" if delivery.attempts == 1 else f"{delivery.attempts} attempts failed"
        return "retrying", f"{failed}, the next is due at {next_at}: {why}"
    if earlier := context.earlier(delivery):
        return "waiting", f"waits for {earlier.id}, an earlier message about the same job"
    again = f" ({why})" if why and not delivery.held_by else ""
    return "waiting", f"waits for its first attempt, due at {next_at}{again}"


def _held(digest: DigestStatus, context: _Context) -> str:
    due_at = iso(digest.due_at)
    until = f"until {due_at}" if digest.due_at > context.now else f"sent any moment now (due at {due_at})"
    return f"{'waits ' if digest.gate in _IN else ''}{_gathered(digest, context)}, {until}"


def _gathered(digest: DigestStatus, context: _Context) -> str:
    how = "in" if digest.gate in _IN else "held by"
    return f"{how} {context.gate(digest.gate, digest.name)}"


def _sent_in(digest: DigestStatus) -> str:
    """Say what became of the delivery that the digest is."""
    if digest.told_by is None:
        return "sent in a digest that is no longer on record"
    match digest.state:
        case "sent":
            return f"sent in {digest.told_by} at {iso(digest.ended_at)}"
        case "dead" | "discarded":
            dead = f"part of {digest.told_by}, which is {digest.state}: {_line(digest.why)}"
            return "; ".join([dead, *map(_instead, digest.fallbacks)])
        case None:
            return f"sent in {digest.told_by}, which is no longer on record"
    return f"part of {digest.told_by}, which waits to be sent"


def _instead(fallback: Fallback) -> str:
    match fallback.state:
        case "sent":
            return f'sent to "{fallback.notifier}" in its place at {iso(fallback.ended_at)} ({fallback.id})'
        case "merged":
            return f'{fallback.id} to "{fallback.notifier}", in its place, was sent in a digest'
        case "dead":
            return f'{fallback.id} to "{fallback.notifier}", in its place, is dead too: {_line(fallback.why)}'
        case "discarded":
            return f'{fallback.id} to "{fallback.notifier}", in its place, was dead too, and {_line(fallback.why)}'
    return f'{fallback.id} to "{fallback.notifier}", in its place, waits to be sent'


def _held_before(delivery: JobDelivery, context: _Context) -> str:
    """Say what held a delivery first, where that is not what its status says."""
    gate, _, name = (delivery.held_by or "").partition(":")
    if gate not in _HELD:
        return ""
    text, last = "", delivery.digest
    if delivery.state not in ("held", "merged", "dropped"):  # only a person releases what a gate has
        dropped = f" after it was dropped by {context.gate(last.gate, last.name)}" if last else ""
        text = f"; resent{dropped}"
    moved = last is None or (gate, name) != (last.gate, last.name)
    return f"{text}; first held by {context.gate(gate, name)}" if moved else text


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


# --- what made no delivery -----------------------------------------------------------------------------------------


def _would_be(new: NewDelivery, rule: Rule, context: _Context) -> Facts:
    """Return what would become of a message if it were put into the outbox now."""
    until = None
    if context.tx and rule.throttle and not new.hold:
        until = explanations.throttled_until(context.tx, rule.name, rule.throttle, new.notifier, now=context.now)
    hold = Hold(gate="throttle", name=rule.name, until=until) if until else new.hold
    if new.dead and not hold:
        answer, why = "dead", f"would be a dead letter: {new.dead}"
    else:
        answer, why = _would_be_held(hold, context) if hold else _would_be_sent(new.notifier, rule, context)
    gate = {"gate": hold.gate, "gate_name": hold.name, "until": iso(hold.until)} if hold else {}
    note = f"; {new.note}" if new.note else ""
    return _no_delivery(rule, new.notifier, answer, why + note) | {"kind": new.message.kind} | gate


def _would_be_held(hold: Hold, context: _Context) -> tuple[str, str]:
    gate, until = context.gate(hold.gate, hold.name), iso(hold.until)
    if hold.drop:
        return "dropped", f"would be dropped by {gate}, which ends at {until}"
    if hold.gate == "group":
        full = f", or as soon as it has {hold.most:,}" if hold.most else ""
        return "digest", f"would wait in {gate}, sent at {until}{full}"
    return _HELD[hold.gate], f"would be held by {gate} until {until}"


def _would_be_sent(notifier: str, rule: Rule, context: _Context) -> tuple[str, str]:
    if paused := context.paused(notifier):
        return "paused", f"would wait, as {paused}"
    if rule.throttle is None:
        return "at_once", "would be sent at once"
    within = f"{rule.throttle.count:,} in {human(rule.throttle.per.total_seconds())}"
    if context.tx is None:
        return "at_once", f"would be sent at once, as long as its throttle is not used up ({within})"
    return "at_once", f"would be sent at once: its throttle is not used up ({within})"


def _picked_later(verdicts: Iterable[Verdict], deliveries: Sequence[JobDelivery]) -> set[tuple[str, str]]:
    """Return (rule, pick) of the dead letters that were resent, and are now for a notifier that the job picked then."""
    ids = {delivery.id for delivery in deliveries}
    return {
        (verdict.rule.name, name)
        for verdict in verdicts
        for name in verdict.unpicked
        for message in {delivery.message for delivery in deliveries}
        if delivery_id(message, name) in ids
    }


def _not_made(
    verdicts: Iterable[Verdict],
    deliveries: Sequence[Facts],
    missing: str,
    picked_later: Collection[tuple[str, str]] = (),
) -> Iterator[Facts]:
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
        for name, earlier in verdict.notified_earlier.items():
            brief = _briefly(made.get((earlier.name, name)))
            why = f'rule "{earlier.name}" above notifies {name} of this ({brief})'
            yield _no_delivery(rule, name, "already_told", why)
        for name in verdict.notifiers:
            if (rule.name, name) not in made and (rule.name, name) not in picked_later:
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
    return str(delivery["answer"])  # dead, dropped


# --- the answer ----------------------------------------------------------------------------------------------------

_MOST_STATUSES = 4  # in a headline
_STATUSES = {
    "sent": "sent",
    "waiting": "waits for its first attempt",
    "retrying": "waits for a retry",
    "digest": "waits in a digest",
    "merged": "sent in a digest",
    "paused": "waits, the notifier is paused",
    "not_on_record": "not on record",
    "at_once": "at once",
}  # the others are words for people, too
_INFERRED = "it was not seen, and is inferred from the job's times: only rules whose `to` names the state fire"
_NO_DELIVERY = ("already_told", "stopped")  # an earlier rule has made it, which is said


def _explanation(
    transition: Transition,
    edges: Sequence[Verdict],
    levels: Sequence[Facts],
    deliveries: Sequence[Facts],
    messages: Iterable[Message | JobDelivery],
    *,
    incidents: Sequence[Facts],
    rules: str | None,
    notes: Sequence[str] = (),
    all_asked: bool = True,
    would_tell_now: Facts | None = None,
) -> Facts:
    """Return all that is known of a transition, the answer in one line first.

    `rules` judged it (their sha); with `all_asked` there are no others that may be about it.
    """
    job = transition.job
    return {
        "headline": _headline(transition, edges, levels, incidents, deliveries, all_asked=all_asked),
        "job": job.id,
        "bucket": job.bucket,
        "tag": job.tag,
        "queue": job.queue,
        "from": transition.was,
        "to": transition.to,
        "sequence": transition.sequence,
        "happened_at": iso(transition.happened_at),
        "seen_at": iso(transition.seen_at),
        "watch": transition.watch,
        "inferred": transition.inferred,
        "silent": transition.silent,
        "judged_by": rules,
        "notes": [*([_INFERRED] if transition.inferred else ()), *notes],
        "would_tell_now": would_tell_now,
        "rules": [_edge_facts(edge) for edge in edges],
        "levels": list(levels),
        "incidents": list(incidents),
        "deliveries": list(deliveries),
        "messages": [
            {"kind": message.kind, "rule": message.rule, "title": message.title, "text": message.text}
            for message in messages
        ],
    }


def _headline(
    transition: Transition,
    edges: Sequence[Verdict],
    levels: Sequence[Facts],
    incidents: Sequence[Facts],
    deliveries: Sequence[Facts],
    *,
    all_asked: bool,
) -> str:
    parts = [f"nobody was notified: {transition.silent}"] if transition.silent else []
    made = [delivery for delivery in deliveries if delivery["rule"] and delivery["answer"] not in _NO_DELIVERY]
    heard = {delivery["rule"] for delivery in made}
    counting = [one for one in incidents if one["answer"] == COUNTS and one["rule"] not in heard]
    if made:
        parts.append(_by_rule(made))
    elif not transition.silent and not counting:
        parts.append(_nearest(edges, [*levels, *incidents], all_asked=all_asked))
    manual = (delivery for delivery in deliveries if not delivery["rule"])
    parts += [f"manually to {delivery['notifier']}: {_status_of(delivery)}" for delivery in manual]
    parts += [
        f"{_named(one)}: {'; '.join(filter(None, (one['why'], one['standing'])))}" for one in counting[:_MOST_STATUSES]
    ]
    waiting = [one for one in (*levels, *incidents) if one["answer"] is Answer.WAITING and one["rule"] not in heard]
    if waiting and (edges or made or counting or transition.silent):
        parts.append(f"{_named(waiting[0])}: {waiting[0]['why']}")
    return "; ".join(parts)


def _by_rule(deliveries: Sequence[Facts]) -> str:
    """Say what became of each: those of one rule with the same end together."""
    same: dict[tuple[str, str], list[str]] = {}
    for delivery in deliveries:
        same.setdefault((delivery["rule"], _status_of(delivery)), []).append(delivery["notifier"])
    parts = [f'"{rule}" notifies {", ".join(dict.fromkeys(names))}: {end}' for (rule, end), names in same.items()]
    more = [f"and {len(parts) - _MOST_STATUSES} more"] if len(parts) > _MOST_STATUSES else []
    return "; ".join(parts[:_MOST_STATUSES] + more)


def _status_of(delivery: Facts) -> str:
    answer: str = delivery["answer"]
    return _STATUSES.get(answer, answer)


def _nearest(edges: Sequence[Verdict], levels: Sequence[Facts], *, all_asked: bool) -> str:
    if edges:
        near, rule = edges[0], edges[0].rule
        more = f" (and {len(near.misses) - 1} more)" if len(near.misses) > 1 else ""
        return f'no rule matched; nearest: "{rule.name}" (line {rule.line}): {near.why_not}{more}'
    if levels:
        best = min(levels, key=lambda level: bool(level["answer"] is Answer.NO))
        return f"no rule matched; nearest: {_named(best)}: {best['why']}"
    return f"no rule matched: {'there are none' if all_asked else 'there were none, neither edge nor level rules'}"


def _named(level: Facts) -> str:
    line = f" (line {level['line']})" if level["line"] else ""
    return f'"{level["rule"]}"{line}'
