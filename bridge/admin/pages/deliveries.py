"""Deliveries: the list, one with its attempts and what was sent, resending and discarding, and batches of these."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from werkzeug.datastructures import MultiDict

from bridge.admin.http.problems import Problem
from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import ROWS, Asked, Pages, asked_for, attempt, done, may_act, refused, show
from bridge.admin.pages.texts import span
from bridge.decide.retries import BREAKER_THRESHOLD
from bridge.decide.rulesfile.silences import LONGEST_REASON
from bridge.display import one_line, pretty_json
from bridge.pipeline.operations import MOST_PER_MINUTE, RESENDABLE, USUAL_PER_MINUTE, OperationRefused
from bridge.record.outbox import batches, claims, entries
from bridge.record.queries import lists
from bridge.record.queries.lists import MOST, Facts, Filter
from bridge.record.schema import DELIVERY_STATES
from bridge.send.integration import MASKED
from bridge.send.registry import integration_of

_FIELDS = ("state", "notifier", "rule", "job", "digest", "batch", "since", "until")
_MEMBERS = 50
_MOST_TRIES = 100  # that are shown, the newest
_LINKED = 5  # of those that were selected: the text is kept in a cookie
_LINK = Markup('<a href="{}">{}</a>')
_NUMBER = re.compile(r"[0-9]{1,18}")


class DeliveryPages(Pages):
    def routes(self) -> Iterator[Route]:
        yield Route(path="/deliveries", view=self.deliveries, name="deliveries")
        yield Route(path="/deliveries/<delivery_id>", view=self.delivery, name="delivery")
        yield Route(path="/deliveries/<delivery_id>/redrive", view=self.redrive, name="redrive", method="POST")
        yield Route(path="/deliveries/redrive-chosen", view=self.redrive_chosen, name="redrive_chosen", method="POST")
        yield Route(path="/deliveries/redrive", view=self.ask, name="resend")
        yield Route(path="/deliveries/redrive", view=self.resend, name="resend_now", method="POST")
        yield Route(path="/deliveries/discard", view=self.ask_discard, name="discard")
        yield Route(path="/deliveries/discard", view=self.discard, name="discard_now", method="POST")
        yield Route(path="/deliveries/batches", view=self.batches, name="batches")
        yield Route(path="/deliveries/batches/<batch_id>", view=self.batch, name="batch")
        yield Route(path="/deliveries/batches/<batch_id>/cancel", view=self.cancel, name="cancel_batch", method="POST")

    # --- the list ------------------------------------------------------------------------------------------

    def deliveries(self) -> ResponseReturnValue:
        asked = asked_for(_FIELDS, self.parts.clock(), DELIVERY_STATES)
        with self.parts.db.read() as tx:
            found = lists.find_deliveries(tx, asked.which, cursor=asked.cursor, limit=ROWS)
            total = batches.count(tx, asked.which) if may_act() and asked.which.state in RESENDABLE else 0
        fields = (
            ("state", "State", [(word, word) for word in DELIVERY_STATES]),
            ("notifier", "Notifier", [(name, name) for name in self.parts.book().notified]),
            ("rule", "Rule", None),
            ("job", "Job id", None),
            ("digest", "In digest", None),
            ("batch", "Batch", None),
            ("since", "Created since", None),
            ("until", "Created before", None),
        )
        return show(
            "deliveries.html", asked=asked, deliveries=found.items, cursor=found.cursor, fields=fields, total=total,
            resendable=RESENDABLE,
        )  # fmt: skip

    def redrive_chosen(self) -> ResponseReturnValue:
        chosen = _chosen(request.form)
        if not chosen:
            return refused("Nothing was selected: tick the deliveries to resend.", "deliveries")
        resent = self.operations().redrive_chosen(chosen)
        return done(_queued(resent, len(chosen)), "deliveries")

    # --- one of them ---------------------------------------------------------------------------------------

    def delivery(self, delivery_id: str) -> ResponseReturnValue:
        now, book = self.parts.clock(), self.parts.book()
        with self.parts.db.read() as tx:
            found, sendable = lists.delivery_details(tx, delivery_id), claims.sendable(tx, delivery_id)
            if found is None or sendable is None:
                raise Problem(404, f'there is no delivery "{delivery_id[:100]}": it may have been pruned')
            row = lists.notifier_row(tx, found["notifier"])
            members = lists.find_deliveries(tx, Filter(digest=delivery_id), limit=_MEMBERS)
        notifier, in_rules = book.notifiers.get(found["notifier"]), found["notifier"] in book.notified
        at, agent = _at(found, now), f"ci-bridge/{self.parts.version}"
        return show(
            "delivery.html",
            delivery=found,
            tries=[one if may_act() else one | {"answer": None} for one in found["tries"][-_MOST_TRIES:]],
            earlier=len(found["tries"][:-_MOST_TRIES]),
            means=status(found, row, in_rules=in_rules, now=now),
            row=row,
            in_rules=in_rules,
            members=members.items,
            more=members.cursor is not None,
            sends=integration_of(notifier).preview(sendable, at=at, agent=agent) if notifier else None,
            event=pretty_json(found["event"]),
            masked=MASKED,
            resendable=RESENDABLE,
        )

    def redrive(self, delivery_id: str) -> ResponseReturnValue:
        return attempt(
            lambda: self.operations().redrive(delivery_id), f"{delivery_id} is queued for resending.", "delivery",
            delivery_id=delivery_id,
        )  # fmt: skip

    # --- resending many ------------------------------------------------------------------------------------

    def ask(self) -> ResponseReturnValue:
        """Show what would be resent, and ask for confirmation."""
        asked, facts = self._resendable(), {"usual": USUAL_PER_MINUTE, "most": MOST_PER_MINUTE}
        if asked.faults:
            return show("resend.html", asked=asked, total=0, spec={}, words="", status=400, **facts)
        with self.parts.db.read() as tx:
            total = batches.count(tx, asked.which)
            row = lists.notifier_row(tx, asked.which.notifier) if asked.which.notifier else None
        # As it was counted: "2h" ago would be another time when it is resent.
        spec, takes = _spec(asked.which), timedelta(minutes=total / USUAL_PER_MINUTE)
        return show(
            "resend.html", asked=asked, total=total, spec=spec, words=_words(spec), row=row, takes=takes, **facts
        )

    def resend(self) -> ResponseReturnValue:
        asked = self._resendable()
        if asked.faults:
            return refused("; ".join(asked.faults), "resend", **asked.given)
        try:
            interval = timedelta(minutes=1) / _per_minute(request.form.get("per_minute", ""))
            batch = self.operations().redrive_batch(asked.which, interval=interval)
        except (ValueError, OperationRefused) as error:
            return refused(str(error), "resend", **asked.given)
        if not batch.total:
            return refused("There was nothing left to resend.", "deliveries")
        flash(f"{_deliveries(batch.total)} queued for resending.", "done")
        return redirect(url_for("pages.batch", batch_id=batch.id), 303)

    # --- discarding: those that are named (id), or those that the filters mean --------------------------------

    def ask_discard(self) -> ResponseReturnValue:
        """Show what would be discarded, and ask for the reason."""
        chosen, asked = _chosen(request.args), self._dead()
        are_named = bool(chosen) or "selected" in request.args
        if are_named and not chosen:
            return refused("Nothing was selected: tick the deliveries to discard.", "deliveries")
        with self.parts.db.read() as tx:
            found = entries.states(tx, chosen)
            chosen = [id_ for id_ in chosen if found.get(id_) == asked.which.state]
            total = len(chosen) if are_named else 0 if asked.faults else batches.count(tx, asked.which)
        spec = {} if are_named else _spec(asked.which)
        return show(
            "discard.html", status=400 if asked.faults else 200, asked=asked, chosen=chosen, total=total, spec=spec,
            words=_words(spec) if spec else ", ".join(chosen), longest=LONGEST_REASON,
        )  # fmt: skip

    def discard(self) -> ResponseReturnValue:
        chosen, asked, reason = _chosen(request.form), self._dead(), request.form.get("reason", "")
        if asked.faults or not (chosen or asked.given):
            return refused("; ".join(asked.faults) or "Nothing was selected.", "discard", **asked.given)
        try:
            if chosen:
                total, batch = len(self.operations().discard_chosen(chosen, reason)), None
            else:
                batch = self.operations().discard_batch(asked.which, reason)
                total = batch.discarded
        except OperationRefused as error:
            return refused(str(error), "discard", id=chosen, **asked.given)
        if not total:
            return refused("There was nothing left to discard.", "deliveries")
        flash(f"{_deliveries(total)} discarded. What was discarded can be resent.", "done")
        if len(chosen) == 1:
            return redirect(url_for("pages.delivery", delivery_id=chosen[0]), 303)
        return redirect(url_for("pages.deliveries", state="discarded", batch=batch and batch.id), 303)

    def _dead(self) -> Asked:
        return asked_for(_FIELDS, self.parts.clock(), ["dead"], state="dead")

    # --- batches ---------------------------------------------------------------------------------------------

    def batches(self) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            found = batches.under_way(tx, now=self.parts.clock())
        return show("batches.html", batches=found)

    def batch(self, batch_id: str) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            batch = batches.progress(tx, batch_id, now=self.parts.clock())
        if batch is None:
            raise Problem(404, f'there is no batch "{batch_id[:100]}": its deliveries may have been pruned or resent')
        return show("batch.html", batch=batch)

    def cancel(self, batch_id: str) -> ResponseReturnValue:
        try:
            _, cancelled = self.operations().cancel_batch(batch_id)
        except OperationRefused as error:
            return refused(str(error), "batches")
        if not cancelled:
            return refused("All its deliveries are due already: nothing is left to cancel.", "batch", batch_id=batch_id)
        return done(f"{_deliveries(cancelled)} cancelled.", "batch", batch_id=batch_id)

    def _resendable(self) -> Asked:
        """Return which deliveries the address means: the dead ones, unless it says otherwise."""
        return asked_for(_FIELDS, self.parts.clock(), RESENDABLE, state=RESENDABLE[0])


def _chosen(given: MultiDict[str, str]) -> list[str]:
    """Return the ids of the deliveries that were selected."""
    return list(dict.fromkeys(id_.replace("\0", "") for id_ in given.getlist("id")))[:MOST]


def _queued(resent: Sequence[str], chosen: int) -> Markup:
    """Say how many of the selected ones were queued, with links to the first ones."""
    text = Markup("{:,} of {} queued for resending").format(len(resent), _deliveries(chosen))
    links = [_LINK.format(url_for("pages.delivery", delivery_id=id_), id_) for id_ in resent[:_LINKED]]
    if more := len(resent[_LINKED:]):
        links.append(_LINK.format(url_for("pages.deliveries", state="waiting"), f"{more:,} more"))
    left = chosen - len(resent)
    but = f" {left:,} had changed meanwhile: they can no longer be resent." if left else ""
    return text + (Markup(": ") + Markup(", ").join(links) if links else "") + "." + but


def _deliveries(count: int) -> str:
    return f"{count:,} deliver{'ies' if count != 1 else 'y'}"


def _at(delivery: Facts, now: datetime) -> datetime:
    """Return when it was last sent, or when it would be."""
    when = delivery["tries"][-1]["started_at"] if delivery["tries"] else delivery["due_at"]
    return datetime.fromisoformat(when) if when else now


def _per_minute(text: str) -> int:
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= MOST_PER_MINUTE:
        return int(text)
    raise ValueError(f'How many per minute: a whole number from 1 to {MOST_PER_MINUTE} is needed, not "{text[:20]}".')


def _spec(which: Filter) -> dict[str, str]:
    """Return a filter for an address."""
    values = {name: value for name in _FIELDS if (value := getattr(which, name)) is not None}
    return values | {name: values[name].isoformat() for name in ("since", "until") if name in values}


def _words(spec: dict[str, str]) -> str:
    """Return a filter in words."""
    words = [f"{name} {value}" for name, value in spec.items() if name != "state"]
    return ", ".join([spec["state"], *words]) if words else f"all that are {spec['state']}"


# --- the status of a delivery in words ------------------------------------------------------------------------------

_STATUS = {
    "sending": "A worker is sending it.",
    "sent": "Accepted by the receiver.",
    "held": "Held until its digest is sent.",
    "merged": "Sent in a digest.",
    "dropped": "Dropped: it was not sent. You can resend it.",
    "discarded": "It was dead, and was discarded. You can resend it.",
}
BY_EDIT = "edit"  # it shows on the first message of its thread
_GATES = {
    "group": 'Rule "{}" sends its messages in digests.',
    "throttle": 'The throttle of rule "{}" was exceeded.',
    "mute": 'The mute "{}" was active.',
    "silence": 'The silence "{}" was active.',
    "flood": "Too many messages waited for {}.",
    "fallback": "What {} did not get is sent in digests.",
}


def status(delivery: Mapping[str, Any], row: Facts | None, *, in_rules: bool, now: datetime) -> str:
    """Return the status of a delivery and what can be done; `row` is what the record knows of its notifier."""
    if delivery["state"] == "dead":
        text = _gave_up(delivery)
    elif delivery["state"] == "waiting":
        text = _waits(delivery["notifier"], row, in_rules=in_rules, now=now)
    elif delivery["state"] == "merged" and delivery["held_by"] in (None, BY_EDIT):
        text = f"Not sent by itself: {one_line(delivery['why'] or '')}."
    elif delivery["held_by"] == BY_EDIT:
        text = "Shows when the first message of its thread is edited, which is due."
    else:
        text = _STATUS[delivery["state"]]
    gate, _, name = (delivery["held_by"] or "").partition(":")
    return f"{_GATES[gate].format(name)} {text}" if gate in _GATES else text


def _gave_up(delivery: Mapping[str, Any]) -> str:
    count, why = delivery["attempts"], f": {one_line(delivery['why'])}" if delivery["why"] else ""
    if not count:
        return f"Gave up without an attempt{why}. Resend to retry."
    tries = delivery["tries"][-count:]
    times = (
        [datetime.fromisoformat(attempt["started_at"]) for attempt in (tries[0], tries[-1])] if len(tries) > 1 else []
    )
    took = f" in {span(times[1] - times[0])}" if times else ""
    return f"Gave up after {count:,} attempt{'s' if count != 1 else ''}{took}{why}. Resend to retry."


def _waits(notifier: str, row: Facts | None, *, in_rules: bool, now: datetime) -> str:
    if not in_rules:
        return f'Waits for the notifier "{notifier}", which is not in rules.toml: add it again, or this is given up.'
    if row and row["paused_at"]:
        return f"Waits because its notifier is paused: {row['paused_why']}. Resume the notifier to send it."
    if row and row["failures"] >= BREAKER_THRESHOLD:
        return "The receiver does not answer. One delivery at a time probes it; this one waits for that."
    if row and row["not_before"] and datetime.fromisoformat(row["not_before"]) > now:
        return "The receiver asked to wait. It is sent afterwards."
    return "Waits for its next attempt."
