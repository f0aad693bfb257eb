"""Resending many deliveries: how many that would be, the batch, how far it is, and cancelling the rest of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flask import flash, redirect, request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.pages import filters
from bridge.admin.pages.filters import Asked
from bridge.admin.pages.routes import Page, Pages, done, refused, show
from bridge.admin.problems import Problem
from bridge.pipeline.operations import MOST_PER_MINUTE, RESENDABLE, USUAL_PER_MINUTE, OperationRefused
from bridge.record.outbox import batches
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter

_FIELDS = ("state", "notifier", "rule", "job", "digest", "batch", "since", "until")
_NUMBER = re.compile(r"[0-9]{1,18}")
_RATES: dict[str, Any] = {"usual": USUAL_PER_MINUTE, "most": MOST_PER_MINUTE, "minute": timedelta(minutes=1)}


class ResendPages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/deliveries/redrive", view=self.ask, name="resend")
        yield Page(path="/deliveries/redrive", view=self.resend, name="resend_now", method="POST")
        yield Page(path="/deliveries/batches", view=self.batches, name="batches")
        yield Page(path="/deliveries/batches/<batch_id>", view=self.batch, name="batch")
        yield Page(path="/deliveries/batches/<batch_id>/cancel", view=self.cancel, name="cancel_batch", method="POST")

    def ask(self) -> ResponseReturnValue:
        """Say what would be resent, and ask whether it is meant."""
        asked = self._asked()
        if asked.faults:
            return show("resend.html", asked=asked, total=0, spec={}, words="", lane=None, status=400, **_RATES)
        with self.parts.db.read() as tx:
            total = batches.count(tx, asked.which)
            lane = lists.notifier_row(tx, asked.which.notifier) if asked.which.notifier else None
        # As it was counted: "2h" ago would be another time when it is resent.
        spec = _spec(asked.which)
        return show("resend.html", asked=asked, total=total, spec=spec, words=_words(spec), lane=lane, **_RATES)

    def resend(self) -> ResponseReturnValue:
        asked = self._asked()
        if asked.faults:
            return refused("; ".join(asked.faults), "resend", **asked.given)
        try:
            interval = timedelta(minutes=1) / _per_minute(request.form.get("per_minute", ""))
            batch = self.operations().redrive_batch(asked.which, interval=interval)
        except (ValueError, OperationRefused) as error:
            return refused(str(error), "resend", **asked.given)
        if not batch.total:
            return refused("Nothing was left to resend.", "deliveries")
        flash(f"{batch.total:,} {'are' if batch.total != 1 else 'is'} on the way.", "done")
        return redirect(url_for("pages.batch", batch_id=batch.id), 303)

    def batches(self) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            found = batches.under_way(tx, now=self.parts.clock())
        return show("batches.html", batches=found)

    def batch(self, batch_id: str) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            found = batches.progress(tx, batch_id, now=self.parts.clock())
        if found is None:
            raise Problem(404, f'there is no batch "{batch_id[:100]}": its deliveries may have been pruned or resent')
        return show("batch.html", batch=found)

    def cancel(self, batch_id: str) -> ResponseReturnValue:
        try:
            _, cancelled = self.operations().cancel_batch(batch_id)
        except OperationRefused as error:
            return refused(str(error), "batches")
        if not cancelled:
            return refused("All of it is due already: nothing is left to cancel.", "batch", batch_id=batch_id)
        return done(f"Cancelled: {cancelled:,} will not be sent.", "batch", batch_id=batch_id)

    def _asked(self) -> Asked:
        """Return which deliveries the address means; those that are dead, unless it says otherwise."""
        asked = filters.read(_FIELDS, self.parts.clock())
        state = asked.which.state or RESENDABLE[0]
        fault = [] if state in RESENDABLE else [f"state: only what is {' or '.join(RESENDABLE)} can be resent"]
        which = replace(asked.which, state=state if state in RESENDABLE else RESENDABLE[0])
        return replace(asked, which=which, faults=[*asked.faults, *fault])


def _per_minute(text: str) -> int:
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= MOST_PER_MINUTE:
        return int(text)
    raise ValueError(f'How many a minute: a whole number from 1 to {MOST_PER_MINUTE} is needed, not "{text[:20]}".')


def _spec(which: Filter) -> dict[str, str]:
    """Return a filter as an address has it."""
    values = {name: value for name in _FIELDS if (value := getattr(which, name)) is not None}
    return values | {name: values[name].isoformat() for name in ("since", "until") if name in values}


def _words(spec: dict[str, str]) -> str:
    """Return which deliveries a filter means, as people say it."""
    said = [f"{name} {value}" for name, value in spec.items() if name != "state"]
    return ", ".join([spec["state"], *said]) if said else f"all that are {spec['state']}"
