"""Manual operations: each once, for the API, the pages and the commands alike.

Each checks its input, does its work, and records who did what (`record/actions.py`) in the same transaction.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import Connection

from bridge.decide.messages.build import delivery_id, delivery_to, test_message
from bridge.decide.routing import manual_delivery
from bridge.decide.rules.gates import scope_of
from bridge.decide.rules.incidents import FanIn
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.silences import (
    MOST,
    SilenceRequest,
    read_change,
    read_reason,
    read_silence,
    silence_warnings,
    too_costly,
)
from bridge.decide.text.times import iso
from bridge.decide.text.values import ident, listing, suggest
from bridge.decide.whatif.replay import PastMessage, Preview
from bridge.model import Blindness, Incident, Reason, Silence, Transition
from bridge.pipeline.incidents import show
from bridge.pipeline.route import with_queue_names
from bridge.record import actions, incidents, public_url, rulesets
from bridge.record.actions import Action, Author
from bridge.record.database import Database, ms
from bridge.record.outbox import batches, entries, silences
from bridge.record.outbox.batches import Batch
from bridge.record.polling import leases, snapshots
from bridge.record.queries import explanations, gauges, lists
from bridge.record.queries import incidents as queried
from bridge.record.queries.lists import Filter

logger = logging.getLogger(__name__)

Facts = dict[str, Any]
What = Literal[
    "redrive", "redrive_batch", "cancel_batch", "discard", "discard_batch", "notify", "test_notifier",
    "pause_notifier", "resume_notifier", "poll_watch", "pause_watch", "resume_watch", "make_silence",
    "change_silence", "end_silence", "acknowledge_incident",
]  # fmt: skip
WHATS: tuple[str, ...] = get_args(What)

USUAL_PER_MINUTE, MOST_PER_MINUTE = 600, 6_000
RESENDABLE = ("dead", "dropped", "discarded")  # states of a delivery
LARGEST_BATCH = 100_000  # deliveries: takes some seconds
AT_ONCE = 500  # deliveries of a batch in a transaction: some 50 ms of writing on SQLite
LOOKED_AT = 50_000  # messages of a silence's preview, at most: takes some seconds
LOOKED_AT_IN_WEB = 10_000  # takes a second, in a process that may also deliver
_MOST_MEMBERS = 20  # of a pick that are named
_PAUSE_S = 0.02  # lets others write to SQLite
_LAST = timedelta(days=1)
_NO_WORKER = "no worker is running, so it waits in the outbox: start one with `ci-bridge worker` or `ci-bridge run`"
_NO_RULES = "rules.toml cannot be read: names were not checked, and queue aliases do not match in the preview"


class OperationRefused(Exception):
    """Nothing was done; the text says why."""


class NotFound(OperationRefused):
    """The subject does not exist."""


class Conflict(OperationRefused):
    """The subject exists, but its state does not allow the operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A delivery that a worker will send, and why it waits, if it does."""

    delivery: str
    waits: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The operations of one author (`who`) at one time. `nonce` is random: new ids are made from it.

    Every method may raise OperationRefused; then it has done nothing.
    """

    db: Database
    who: Author
    now: datetime
    nonce: str

    def _record(
        self, tx: Connection, what: What, subject: str, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        actions.add(tx, [Action(what=what, subject=subject, before=before, after=after)], who=self.who, now=self.now)

    # --- deliveries -----------------------------------------------------------------------------------------

    def redrive(self, delivery: str) -> None:
        """Resend a dead, dropped or discarded delivery now, under its own id."""
        if not self.redrive_chosen([delivery]):
            raise self._why_not(delivery, "only a dead, dropped or discarded one can be resent")

    def redrive_chosen(self, chosen: Collection[str]) -> list[str]:
        """Resend those of the chosen deliveries that still are dead, dropped or discarded; return their ids."""
        with self.db.write() as tx:
            before = entries.states(tx, chosen)
            resent = entries.redrive(tx, lists.numbers_of(chosen), now=self.now)
            self._record_each(tx, "redrive", {id_: before.get(id_) for id_ in resent}, {"state": "waiting"})
        return resent

    def discard(self, delivery: str, reason: str) -> None:
        """End a dead delivery for good, unless it is resent."""
        if not self.discard_chosen([delivery], reason):
            raise self._why_not(delivery, "only a dead one can be discarded")

    def discard_chosen(self, chosen: Collection[str], reason: str) -> list[str]:
        """Discard those of the chosen deliveries that still are dead; return their ids."""
        reason = _checked(reason)
        with self.db.write() as tx:
            gone = entries.discard(tx, lists.numbers_of(chosen), self._note(reason), now=self.now)
            self._record_each(tx, "discard", dict.fromkeys(gone, "dead"), {"state": "discarded", "reason": reason})
        return gone

    def discard_batch(
        self, which: Filter, reason: str, *, largest: int = LARGEST_BATCH, at_once: int = AT_ONCE
    ) -> Batch:
        """Discard the dead deliveries that a filter finds, as a batch, which can be resent."""
        which, reason = replace(which, state="dead"), _checked(reason)
        numbers = self._numbers(which, largest)
        id_ = ident("dsc", self.nonce)
        wanted = _as_json(which) | {"deliveries": len(numbers), "reason": reason}
        for start in range(0, len(numbers), at_once):
            with self.db.write() as tx:
                some = numbers[start : start + at_once]
                entries.discard(tx, some, self._note(reason), now=self.now, batch=id_)
                if start == 0:
                    self._record(tx, "discard_batch", id_, after=wanted)
            self._let_others_write()
        with self.db.read() as tx:
            batch = batches.progress(tx, id_, now=self.now) or Batch(id=id_)
        logger.info("discarded", extra={"batch": id_, "deliveries": batch.discarded, "author": str(self.who)})
        return batch

    def _note(self, reason: str) -> str:
        return f"discarded by {self.who}: {reason}"

    def _record_each(self, tx: Connection, what: What, before: Mapping[str, str | None], after: Facts) -> None:
        """Record the same of several deliveries; `before` has the state of each."""
        done = [Action(what=what, subject=id_, before={"state": state}, after=after) for id_, state in before.items()]
        actions.add(tx, done, who=self.who, now=self.now)

    def _why_not(self, delivery: str, rule: str) -> OperationRefused:
        with self.db.read() as tx:
            state = entries.states(tx, [delivery]).get(delivery)
        if state is None:
            return NotFound(f'there is no delivery "{delivery[:100]}"')
        return Conflict(f"delivery {delivery} is {state}; {rule}")

    def _numbers(self, which: Filter, largest: int) -> Sequence[int]:
        with self.db.read() as tx:
            numbers = batches.numbers(tx, which, most=largest + 1)
        if len(numbers) > largest:
            raise Conflict(
                f"there are more such deliveries than the {largest:,} that one batch may have; narrow them down, as "
                "with since and until"
            )
        return numbers

    def redrive_batch(
        self, which: Filter, *, interval: timedelta, largest: int = LARGEST_BATCH, at_once: int = AT_ONCE
    ) -> Batch:
        """Resend what a filter finds (its state is one of RESENDABLE) as a batch: one is due each interval.

        A process that dies on the way has resent the first of them; the same filter finds the others.
        """
        numbers = self._numbers(which, largest)
        id_, resent = ident("rdr", self.nonce), 0
        wanted = _as_json(which) | {"deliveries": len(numbers), "interval_seconds": interval.total_seconds()}
        for start in range(0, len(numbers), at_once):
            due = {n: self.now + (start + place) * interval for place, n in enumerate(numbers[start : start + at_once])}
            with self.db.write() as tx:
                resent += batches.resend(tx, id_, due)
                if start == 0:
                    self._record(tx, "redrive_batch", id_, after=wanted)
            self._let_others_write()
        logger.info("resent", extra={"batch": id_, "deliveries": resent, "author": str(self.who)})
        with self.db.read() as tx:
            return batches.progress(tx, id_, now=self.now) or Batch(id=id_)

    def redrive_fallback(self, digest: str, *, largest: int = AT_ONCE) -> Batch:
        """Resend the dead letters that a fallback's digest (by its delivery's id) tells of, at the usual pace."""
        interval = timedelta(minutes=1) / USUAL_PER_MINUTE
        id_ = ident("rdr", self.nonce)
        with self.db.write() as tx:
            numbers = batches.numbers_of_fallback(tx, digest, most=largest + 1)
            if numbers is None:
                raise NotFound("there is nothing to resend: what this message tells of was pruned")
            if len(numbers) > largest:
                raise Conflict(f"these are more than {largest:,} messages; resend them on the dashboard, or by command")
            due = {n: self.now + place * interval for place, n in enumerate(numbers)}
            resent = batches.resend(tx, id_, due) if due else 0
            if not resent:
                raise Conflict("there is nothing to resend: all of it was resent already, or pruned")
            self._record(tx, "redrive_batch", id_, after={"digest": digest, "deliveries": resent})
            made = batches.progress(tx, id_, now=self.now)
        logger.info("resent", extra={"batch": id_, "deliveries": resent, "author": str(self.who)})
        return made or Batch(id=id_)

    def cancel_batch(self, batch: str, *, at_once: int = AT_ONCE) -> tuple[Batch, int]:
        """Make deliveries of a batch that are not due yet dead letters; return the batch, and how many those were."""
        with self.db.read() as tx:
            numbers = batches.not_due(tx, batch, now=self.now)
        cancelled = 0
        for start in range(0, len(numbers), at_once):
            with self.db.write() as tx:
                cancelled += batches.cancel(tx, batch, numbers[start : start + at_once], now=self.now)
                if start == 0:
                    self._record(tx, "cancel_batch", batch, {"scheduled": len(numbers)}, {"scheduled": 0})
            self._let_others_write()
        with self.db.read() as tx:
            left = batches.progress(tx, batch, now=self.now)
        if left is None:
            raise NotFound(f'there is no batch "{batch[:100]}"')
        logger.info("batch cancelled", extra={"batch": batch, "deliveries": cancelled, "author": str(self.who)})
        return left, cancelled

    def _let_others_write(self) -> None:
        if self.db.sqlite:  # who waits for PostgreSQL's rows is woken
            time.sleep(_PAUSE_S)

    def notify(
        self, book: Rulebook, *, job_id: str, notifier: str, bucket: str | None = None, sequence: int | None = None
    ) -> Accepted:
        """Notify of a transition (None: the job's last), whatever the rules say; asked twice it is one delivery."""
        _require("notifier", notifier, book.notified)
        with self.db.write() as tx:
            transition = _chosen(snapshots.transitions_of(tx, job_id), job_id, bucket, sequence)
            notifier = _picked(book, notifier, transition)
            links, named = public_url.links(tx), with_queue_names(tx, book, [transition])
            delivery, fault = manual_delivery(transition, named, book.notifiers[notifier], str(self.who), links=links)
            if stored := entries.stored_id(tx, delivery.message):  # by an older version, which made other ids
                message = replace(delivery.message, id=stored)
                delivery = replace(delivery, message=message, id=delivery_id(stored, notifier))
            state = entries.states(tx, [delivery.id]).get(delivery.id)
            if state not in (None, *RESENDABLE):
                raise Conflict(f"it was notified manually before: delivery {delivery.id} is {state}")
            entries.put(tx, [delivery], now=self.now)
            entries.redrive(tx, lists.numbers_of([delivery.id]), now=self.now)
            after = {"state": "waiting", "notifier": notifier, "job": job_id, "sequence": transition.sequence}
            self._record(tx, "notify", delivery.id, {"state": state} if state else None, after)
            waits = _why_it_waits(tx, notifier, self.now)
        if fault:
            logger.warning("template fell back to the default text", extra={"notifier": notifier, "fault": fault})
        logger.info("notified manually", extra={"delivery": delivery.id, "author": str(self.who)})
        return Accepted(delivery=delivery.id, waits=waits)

    # --- notifiers ------------------------------------------------------------------------------------------

    def test_notifier(self, book: Rulebook, name: str, *, key: str | None = None) -> Accepted:
        """Store a test message; under one key it is the same message, which is stored once.

        A worker sends it now, even to a notifier that is left alone: who asks wants to know.
        """
        _require_one(book, name)
        nonce = f"id {key}" if key else self.nonce
        with self.db.write() as tx:
            message = test_message(name, nonce=nonce, now=self.now, links=public_url.links(tx), language=book.language)
            delivery = delivery_to(message, book.notifiers[name])
            if not entries.states(tx, [delivery.id]):
                entries.put(tx, [delivery], now=self.now, at_once=True)
                self._record(tx, "test_notifier", name, after={"delivery": delivery.id})
            return Accepted(delivery=delivery.id, waits=_why_it_waits(tx, name, self.now))

    def pause_notifier(self, book: Rulebook, name: str, reason: str) -> None:
        """Send a notifier nothing until a person resumes it; its deliveries wait, also if it has a fallback."""
        _require_one(book, name)
        why = f"by {self.who}: {_checked(reason)}"
        with self.db.write() as tx:
            before = explanations.notifier_statuses(tx).get(name)
            if before is None:
                raise Conflict(f'notifier "{name}" is not on record yet: no worker has read these rules')
            if not entries.pause(tx, name, why, Reason.MANUAL, now=self.now):
                raise Conflict(f'notifier "{name}" is paused already: {before.paused_why}')
            self._record(tx, "pause_notifier", name, {"paused": False}, {"paused": True, "why": why})

    def resume_notifier(self, name: str, book: Rulebook | None = None) -> None:
        """Resume a paused notifier. One that only the rules know yet is not paused."""
        with self.db.write() as tx:
            before = explanations.notifier_statuses(tx).get(name)
            if before is not None:
                entries.resume(tx, name)
                paused = {"paused": before.paused_at is not None, "why": before.paused_why}
                self._record(tx, "resume_notifier", name, paused, {"paused": False})
                return
        if book is None:
            raise NotFound(f'no notifier "{name}" is on record')
        _require_one(book, name)

    # --- watches --------------------------------------------------------------------------------------------

    def poll_watch(self, book: Rulebook, name: str) -> None:
        """Let a worker poll a watch next."""
        with self.db.write() as tx:
            before = _watch(tx, book, name)
            if before["paused"]:
                raise Conflict(f'watch "{name}" is paused; resume it, and it is polled')
            leases.set_watch(tx, name, poll_now=True)
            self._record(tx, "poll_watch", name, {"next_poll_at": before["next_poll_at"]}, {"next_poll_at": None})

    def hurry_watch(self, book: Rulebook, name: str) -> None:
        """Let a worker poll a watch next, unless that is so already."""
        with self.db.write() as tx:
            before = _watch(tx, book, name)
            if before["paused"]:
                raise Conflict(f'watch "{name}" is paused; resume it, and it is polled')
            if not leases.bring_forward(tx, name, now=self.now):
                waits = "" if rulesets.state(tx, now=self.now).alive else f"; {_NO_WORKER}"
                raise Conflict(f'watch "{name}" is to be polled next already{waits}')
            self._record(tx, "poll_watch", name, {"next_poll_at": before["next_poll_at"]}, {"next_poll_at": None})

    def pause_watch(self, book: Rulebook, name: str) -> None:
        self._set_paused(book, name, "pause_watch", paused=True)

    def resume_watch(self, book: Rulebook, name: str) -> None:
        self._set_paused(book, name, "resume_watch", paused=False)

    def _set_paused(self, book: Rulebook, name: str, what: What, *, paused: bool) -> None:
        with self.db.write() as tx:
            before = _watch(tx, book, name)
            leases.set_watch(tx, name, paused=paused)
            if not paused:  # in a pause it was not to see
                _, blind = leases.sight(tx, name)
                leases.set_blind(tx, name, replace(blind or Blindness(since=self.now), since=self.now))
            self._record(tx, what, name, {"paused": before["paused"]}, {"paused": paused})

    # --- silences -------------------------------------------------------------------------------------------

    def make_silence(self, request: SilenceRequest, *, key: str | None = None) -> Silence:
        """Store a silence; what is asked for twice with one id, or one key, is one."""
        id_ = ident("sil", "id", request.id) if request.id else ident("sil", key or self.nonce)
        made = request.silence(id_, now=self.now)
        with self.db.write() as tx:
            there = silences.get(tx, id_)
            if there is None:
                _require_room(tx, request, self.now)
                if silences.add(tx, made):
                    self._record(tx, "make_silence", id_, after=silence_facts(made, 0, now=self.now))
                    return made
                there = silences.get(tx, id_) or made
        if not _is_same(there, made):
            raise Conflict("another silence was made under this id; take a new id for each silence")
        return there

    def silence_rule(self, book: Rulebook, rule: str, *, lasts: timedelta, reason: str, key: str) -> Silence:
        """Hold what a rule sends, unless a silence holds just that; of what is asked under one key, one at a time."""
        _require("rule", rule, [one.name for one in book.rules])
        asked = {"rule": rule, "ends_at": iso(self.now + lasts), "author": str(self.who), "reason": reason}
        request = read_silence(asked, now=self.now)
        with self.db.write() as tx:
            standing = [
                one
                for one in silences.not_ended(tx, now=self.now)
                if one.spec == request.spec and one.begins_at <= self.now
            ]
            id_ = ident("sil", "key", key)
            while (past := silences.get(tx, id_)) and past.ends_at <= self.now:
                id_ = ident("sil", "after", id_)
            made = request.silence(id_, now=self.now)
            if not standing:
                _require_room(tx, request, self.now)
                if silences.add(tx, made):
                    self._record(tx, "make_silence", id_, after=silence_facts(made, 0, now=self.now))
                    return made
            there = standing[0] if standing else silences.get(tx, id_) or made
        raise Conflict(f'rule "{rule}" was silenced by {there.author} until {iso(there.ends_at)}')

    def change_silence(self, id_: str, asked: Mapping[str, Any]) -> tuple[Silence, int]:
        """Change the end or the reason of a silence; return it, and how many messages it has held. Raises FieldFaults.

        What it holds is due at the new end.
        """
        with self.db.write() as tx:
            before = silences.get(tx, id_)
            if before is None:
                raise NotFound(f'there is no silence "{id_[:100]}"')
            if before.ends_at <= self.now:
                raise Conflict(f"silence {id_} has been over since {iso(before.ends_at)}; make a new one")
            wanted = read_change(asked, before, now=self.now)
            ends_at, reason = wanted.ends_at or before.ends_at, wanted.reason or before.reason
            changed = replace(before, ends_at=ends_at, reason=reason)
            if not silences.change(tx, id_, ends_at=ends_at, reason=reason, now=self.now):
                raise Conflict(f"silence {id_} has ended meanwhile; make a new one")
            if changed != before:
                self._record(tx, "change_silence", id_, _changeable(before), _changeable(changed))
            return changed, silences.counts(tx, [id_]).get(id_, 0)

    def end_silence(self, id_: str) -> tuple[Silence, int]:
        """End a silence now; return it, and how many messages it held or dropped."""
        with self.db.write() as tx:
            before = silences.get(tx, id_)
            if before is None:
                raise NotFound(f'there is no silence "{id_[:100]}"')
            is_done = silences.end(tx, id_, by=str(self.who), now=self.now)
            ended = silences.get(tx, id_) or before
            if not is_done:
                raise Conflict(f"silence {id_} has been over since {iso(ended.ends_at)}")
            self._record(tx, "end_silence", id_, {"ends_at": iso(before.ends_at)}, {"ends_at": iso(ended.ends_at)})
            return ended, silences.counts(tx, [id_]).get(id_, 0)

    # --- incidents ------------------------------------------------------------------------------------------

    def acknowledge(self, id_: str, book: Rulebook | None) -> None:
        """Store that somebody takes care of an incident, which then does not escalate, and let its threads show it.

        That may be a group that is not complete yet: `book` says which incidents are groups. Without one, threads
        show it when the incident is judged next.
        """
        with self.db.write() as tx:
            before = queried.one(tx, id_)
            if before is None:
                raise NotFound(f'there is no incident "{id_[:100]}"')
            if before.state == "watched" and not _is_group(before, book):
                raise Conflict(f"incident {id_} has not opened yet; only a group can be acknowledged before")
            if not incidents.acknowledge(tx, id_, str(self.who), now=self.now):
                raise Conflict(_why_not_acknowledged(queried.one(tx, id_) or before))
            if book:
                show(tx, [before.n], book, self.now)
            after = {"acknowledged_by": str(self.who)}
            self._record(tx, "acknowledge_incident", id_, {"acknowledged_by": None}, after)
        logger.info("incident acknowledged", extra={"incident": id_, "author": str(self.who)})


def _checked(text: str) -> str:
    """Return a reason as it is stored. Raises OperationRefused."""
    try:
        return read_reason(text)
    except ValueError as error:
        raise OperationRefused(f"the reason {error}") from None


def _is_group(incident: Incident, book: Rulebook | None) -> bool:
    rules = book.rules if book else ()
    return any(rule.name == incident.rule and isinstance(rule.incident, FanIn) for rule in rules)


def _why_not_acknowledged(incident: Incident) -> str:
    if incident.closed_at:
        return f"incident {incident.id} has been closed since {iso(incident.closed_at)}"
    by, at = incident.acknowledged_by, iso(incident.acknowledged_at)
    return f"incident {incident.id} was acknowledged by {by} at {at}"


def _require(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        shown = name[:100]
        raise NotFound(f'rules.toml has no {kind} "{shown}"{suggest(shown, known)}; there are: {listing(known)}')


def _require_one(book: Rulebook, name: str) -> None:
    if name in book.picks:
        raise Conflict(f'"{name}" is a pick; name one of the notifiers that it leads to: {_members(book, name)}')
    _require("notifier", name, book.notifiers)


def _picked(book: Rulebook, name: str, transition: Transition) -> str:
    """Return the notifier that a job picks, or the one of this name."""
    (found,), unpicked = book.matcher.picked([name], None, book.matcher.facts(transition))
    if found in book.picks:
        raise Conflict(f'"{name}" leads to nobody: {unpicked[found].why}; name one of {_members(book, name)}')
    return found


def _members(book: Rulebook, pick: str) -> str:
    return listing(list(book.picks[pick].notifiers)[:_MOST_MEMBERS])


def _as_json(which: Filter) -> dict[str, object]:
    """Return a filter as JSON shows it."""
    given = {name: value for name, value in asdict(which).items() if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items()}


def _watch(tx: Connection, book: Rulebook, name: str) -> lists.Facts:
    """Return what is on record of a watch of the rules; no worker may have started yet."""
    watches = {watch.name: watch for watch in book.watches}
    _require("watch", name, watches)
    leases.sync(tx, [watches[name]], [])
    return next(row for row in gauges.read_watches(tx) if row["name"] == name)


def _chosen(found: Sequence[snapshots.Judged], job_id: str, bucket: str | None, sequence: int | None) -> Transition:
    transitions = [judged.transition for judged in found if bucket in (None, judged.transition.job.bucket)]
    buckets = sorted({transition.job.bucket for transition in transitions})
    if not transitions:
        where = f" in bucket {bucket[:100]}" if bucket else ""
        raise NotFound(f'no transition of a job "{job_id[:100]}"{where} is on record')
    if len(buckets) > 1:
        raise Conflict(f'several buckets have a job "{job_id}"; name one of them: {listing(buckets)}')
    by_number = {transition.sequence: transition for transition in transitions}
    if sequence is None:
        return transitions[-1]
    if sequence not in by_number:
        there_are = listing(f"{transition.sequence} ({transition.to})" for transition in transitions)
        raise NotFound(f'job "{job_id}" has no transition {sequence}; there are: {there_are}')
    return by_number[sequence]


def _why_it_waits(tx: Connection, notifier: str, now: datetime) -> str | None:
    standing = explanations.notifier_statuses(tx).get(notifier)
    if standing is None or standing.paused_at is None:
        return None if rulesets.state(tx, now=now).alive else _NO_WORKER
    why = " ".join((standing.paused_why or "").split())
    return f"notifier {notifier} is paused: {why}; sent when it is resumed (ci-bridge notifier resume {notifier})"


def _changeable(silence: Silence) -> Facts:
    return {"ends_at": iso(silence.ends_at), "reason": silence.reason}


def _is_same(there: Silence, made: Silence) -> bool:
    """Tell whether two silences were asked for in the same words, at different times maybe."""
    if (there.spec, there.drop, there.author, there.reason) != (made.spec, made.drop, made.author, made.reason):
        return False
    lasts = ms(there.ends_at) - ms(there.begins_at) == ms(made.ends_at) - ms(made.begins_at)
    return there.ended_by is not None or lasts or ms(there.ends_at) == ms(made.ends_at)


def _require_room(tx: Connection, request: SilenceRequest, now: datetime) -> None:
    standing = silences.not_ended(tx, now=now)
    if len(standing) >= MOST:
        raise Conflict(f"{len(standing)} silences have not ended; the limit is {MOST}; end some first")
    if text := too_costly([request.scope, *(scope_of(silence.spec) for silence in standing)]):
        raise Conflict(text)


# --- silences as JSON ---------------------------------------------------------------------------------------


def silence_facts(silence: Silence, held: int, *, now: datetime) -> Facts:
    return {
        "id": silence.id,
        "state": "over" if silence.ends_at <= now else "pending" if silence.begins_at > now else "active",
        "matches": json.loads(silence.spec),
        "mode": "drop" if silence.drop else "hold",
        "author": silence.author,
        "reason": silence.reason,
        "begins_at": iso(silence.begins_at),
        "ends_at": iso(silence.ends_at),
        "ended_by": silence.ended_by,
        "held": held,
    }


def what_it_held(silence: Silence, count: int) -> str:
    """Say what becomes of the messages that an ended silence held or dropped."""
    messages = f"{count:,} message{'s' if count != 1 else ''}"
    if not count:
        return "it held nothing"
    if silence.drop:
        return f"it dropped {messages}"
    return f"a worker sends the {messages} that it held, in one digest for each notifier"


def foresee(
    tx: Connection, request: SilenceRequest, book: Rulebook | None, *, now: datetime, most: int = LOOKED_AT
) -> Facts:
    """Return what a silence would have matched of the last day, and warn of what may be a mistake in it."""
    queue_names = book.queue_names if book else {}
    found = preview(tx, request, book, now=now, most=most)
    warnings = [_NO_RULES]
    if book:
        warnings = silence_warnings(
            request.scope,
            rules=[rule.name for rule in book.rules],
            notifiers=book.notified,
            unheld=[rule.name for rule in book.rules if rule.blind],
            watches=book.watches,
            queue_names=queue_names,
        )
    by = [
        {"rule": rule, "notifier": notifier, "messages": count}
        for (rule, notifier), count in found.counts.most_common()
    ]
    facts = {
        "since": iso(found.since),
        "looked_at": found.looked_at,
        "cut": found.cut,
        "matched": found.matched,
        "by": by,
        "newest": [_past_facts(message) for message in found.newest],
    }
    return {"preview": facts, "warnings": warnings}


def preview(
    tx: Connection, request: SilenceRequest, book: Rulebook | None, *, now: datetime, most: int = LOOKED_AT
) -> Preview:
    """Return what a silence would have matched of the messages of the last day."""
    names, pick_of = (book.queue_names, book.matcher.pick_of) if book else ({}, {})
    found = Preview(scope=request.scope, queue_names=names, since=now - _LAST, pick_of=pick_of)
    for messages in silences.messages_since(tx, found.since):
        room = most - found.looked_at
        found.add(_past_message(message) for message in messages[:room])
        if len(messages) > room:
            found.cut = True
            break
    return found


def _past_message(message: silences.RuleMessage) -> PastMessage:
    # A level rule asks how long the job has been in the state at the time, not when it entered it.
    transition = (
        replace(message.transition, seen_at=message.created_at) if message.kind == "level" else message.transition
    )
    return PastMessage(transition=transition, rule=message.rule, notifier=message.notifier, sent_at=message.created_at)


def _past_facts(message: PastMessage) -> Facts:
    transition = message.transition
    return {
        "told_at": iso(message.sent_at),
        "job": transition.job.id,
        "bucket": transition.job.bucket,
        "tag": transition.job.tag,
        "from": transition.was,
        "to": transition.to,
        "rule": message.rule,
        "notifier": message.notifier,
    }
