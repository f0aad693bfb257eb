"""Dead letters of picks that were resent: their jobs pick again, by the rules of now."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from bridge.decide.messages.build import FOR_ANY, delivery_to, per_notifier, undeliverable
from bridge.decide.rules.picks import Choice, Pick
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Incident, Message, NewDelivery, Transition
from bridge.pipeline.route import log_dead, variables_for
from bridge.record import counters, incidents, rulesets
from bridge.record.codec import dump
from bridge.record.counters import Count
from bridge.record.database import Database
from bridge.record.outbox import entries
from bridge.record.polling import snapshots, time_in_state

_MOST = 200  # in one transaction


def pick_again(db: Database, book: Rulebook, now: datetime) -> int:
    """Find the notifiers of what was resent for a pick, or make it dead again; return how many were looked at."""
    with db.read() as tx:
        if not entries.waiting_for_picks(tx, now=now, most=1) or rulesets.in_force(tx) not in (None, book.sha):
            return 0
    with db.write() as tx:
        found = entries.waiting_for_picks(tx, now=now, most=_MOST)
        dead = [new for number, name in found if (new := _pick(tx, number, name, book, now)) and new.dead]
        counters.add(tx, [Count("delivery", (new.notifier, "dead")) for new in dead], now=now)
    log_dead(dead)
    return len(found)


def _pick(tx: Connection, number: int, name: str, book: Rulebook, now: datetime) -> NewDelivery | None:
    """Let a delivery be for the notifier that is picked now; None: another worker has done that."""
    new = _readdressed(tx, entries.message_of(tx, number), name, book)
    if not entries.readdress(tx, number, name, new, now=now):
        return None
    if not new.dead:
        _notify_of_end(tx, new)
    return new


def _readdressed(tx: Connection, message: Message, name: str, book: Rulebook) -> NewDelivery:
    pick, transition = book.picks.get(name), _about(tx, message)
    if pick is None:
        gone = f'rules.toml has no notifier "{name}" any more; restore it, then resend this'
        return undeliverable(message, Choice(pick=name, notifier=name, why=gone))
    choice = _choice(pick, message, transition, book)
    notifier = book.notifiers.get(choice.notifier)
    if notifier is None:
        return undeliverable(message, choice)
    own = per_notifier(notifier, variables_for(tx, message, transition, book)) if transition else FOR_ANY
    return delivery_to(message, notifier, note=choice.note, own=own)


def _about(tx: Connection, message: Message) -> Transition | None:
    """Return the transition that a message is about, or the last one of an incident, if it is still on record."""
    if incident := _incident(tx, message):
        jobs = incidents.last_jobs(tx, incident.n, most=1)
        return snapshots.transition_at(tx, jobs[0].bucket, jobs[0].job_id, jobs[0].sequence) if jobs else None
    return snapshots.transition_at(tx, message.bucket or "", message.job_id or "", message.sequence or 0)


def _incident(tx: Connection, message: Message) -> Incident | None:
    return incidents.find(tx, message.event["subject"]) if message.kind == "incident" else None


def _notify_of_end(tx: Connection, new: NewDelivery) -> None:
    """Let who is sent an alarm, or an incident, hear of its end, like those that it was sent to at once."""
    message = new.message
    if message.kind == "level":
        where = (message.bucket or "", message.job_id or "", message.sequence or 0)
        time_in_state.add_notifiers(tx, *where, message.rule or "", [new.notifier])
    elif incident := _incident(tx, message):
        notified = dict.fromkeys((*incident.notifiers, new.notifier))
        incidents.change(tx, incident.n, notifiers=dump(list(notified)))


def _choice(pick: Pick, message: Message, transition: Transition | None, book: Rulebook) -> Choice:
    if transition is None:
        return pick.choose(None)
    facts = book.matcher.facts(transition, in_state=message.kind == "level")
    return pick.choose(facts.variables(message.rule, pick.zone))
