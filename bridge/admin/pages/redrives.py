"""Sending many deliveries again: how many that would be, the order, and how far each order is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flask import flash, redirect, request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.pages import filters
from bridge.admin.pages.filters import Asked
from bridge.admin.pages.routes import Page, Pages, done, refused, show
from bridge.admin.problems import Problem
from bridge.decide.ids import ident
from bridge.pipeline.redriving import MOST_PER_MINUTE, STATES, USUAL_PER_MINUTE, TooMany, order
from bridge.record import outgoing, redrives
from bridge.record.redrives import Order

_FIELDS = ("state", "notifier", "rule", "job", "digest", "since", "until")
_AUTHOR = "dashboard"
_NUMBER = re.compile(r"[0-9]{1,18}")


class RedrivePages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/redrives", view=self.redrives, name="redrives")
        yield Page(path="/redrives", view=self.add, name="add_redrive", method="POST")
        yield Page(path="/redrives/new", view=self.new, name="new_redrive")
        yield Page(path="/redrives/<redrive_id>/stop", view=self.stop, name="stop_redrive", method="POST")

    def redrives(self) -> ResponseReturnValue:
        began = request.args.get("cursor", "")
        began = began if _NUMBER.fullmatch(began) else ""
        with self.parts.db.read() as tx:
            found, cursor = redrives.page(tx, cursor=int(began) if began else None)
        return show("redrives.html", orders=[(one, _words(one.which)) for one in found], cursor=cursor, began=began)

    def new(self) -> ResponseReturnValue:
        """Say what an order would send again, and ask whether it is meant."""
        asked = self._asked()
        if asked.faults:
            return show("redrive_new.html", asked=asked, total=0, spec={}, words="", lane=None, status=400, **_RATES)
        with self.parts.db.read() as tx:
            total = redrives.count(tx, asked.which)
            lane = outgoing.lane(tx, asked.which.notifier) if asked.which.notifier else None
        # As it was counted: "2h" ago would be another time when the order is given.
        spec = redrives.spec_of(asked.which)
        return show("redrive_new.html", asked=asked, total=total, spec=spec, words=_words(spec), lane=lane, **_RATES)

    def add(self) -> ResponseReturnValue:
        asked = self._asked()
        try:
            made = self._ordered(asked, _per_minute(request.form.get("per_minute", "")))
        except Problem as error:
            return refused(error, "new_redrive", **asked.given)
        except TooMany as error:
            return refused(Problem(409, str(error)), "redrives")
        flash(f"{made.total} will be sent again, {made.per_minute} a minute at most.", "done")
        return redirect(url_for("pages.redrives"), 303)

    def _ordered(self, asked: Asked, per_minute: int) -> Order:
        if asked.faults:
            raise Problem(400, "; ".join(asked.faults))
        with self.parts.write() as tx:
            id_, now = ident("rdr", self.parts.nonce()), self.parts.clock()
            return order(tx, asked.which, per_minute=per_minute, author=_AUTHOR, id_=id_, now=now)

    def stop(self, redrive_id: str) -> ResponseReturnValue:
        with self.parts.write() as tx:
            ended = redrives.end(tx, redrive_id, by=_AUTHOR, now=self.parts.clock())
            found = redrives.one(tx, redrive_id)
        if found is None:
            return refused(Problem(404, f'There is no order "{redrive_id[:100]}".'), "redrives")
        if not ended:
            return refused(Problem(409, f"The order is over: {_progress(found)}."), "redrives")
        return done(f"Stopped: {_progress(found)}.", "redrives")

    def _asked(self) -> Asked:
        """Return which deliveries the address means; those that are dead, unless it says otherwise."""
        asked = filters.read(_FIELDS, self.parts.clock())
        state = asked.which.state or STATES[0]
        fault = [] if state in STATES else [f"state: only what is {' or '.join(STATES)} is sent again"]
        which = replace(asked.which, state=state if state in STATES else STATES[0])
        return replace(asked, which=which, faults=[*asked.faults, *fault])


_RATES: Mapping[str, Any] = {"usual": USUAL_PER_MINUTE, "most": MOST_PER_MINUTE, "minute": timedelta(minutes=1)}


def _per_minute(text: str) -> int:
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= MOST_PER_MINUTE:
        return int(text)
    raise Problem(400, f'How many a minute: a whole number from 1 to {MOST_PER_MINUTE} is needed, not "{text[:20]}".')


def _words(spec: Mapping[str, str]) -> str:
    """Return which deliveries a filter means, as people say it."""
    said = [f"{name} {value}" for name, value in spec.items() if name != "state"]
    return ", ".join([spec["state"], *said]) if said else f"all that are {spec['state']}"


def _progress(one: Order) -> str:
    return f"{one.done} of {one.total} are sent again"
