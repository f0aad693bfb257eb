"""Deliveries: the list, one delivery with each attempt and what was sent, and resending."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from flask import request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from bridge.admin.pages import filters
from bridge.admin.pages.fate import fate
from bridge.admin.pages.filters import Asked
from bridge.admin.pages.resending import ResendPages
from bridge.admin.pages.routes import Page, Pages, attempt, done, may_act, refused, show
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.display import pretty_json
from bridge.pipeline.operations import RESENDABLE
from bridge.record.outbox import batches, claims
from bridge.record.queries import lists
from bridge.record.queries.lists import MOST, Facts, Filter
from bridge.record.schema import DELIVERY_STATES
from bridge.send.integration import MASKED
from bridge.send.registry import integration_of

_FIELDS = ("state", "notifier", "rule", "job", "digest", "batch", "since", "until")
_MEMBERS = 50
_MOST_TRIES = 100  # that are shown, the newest
_LINKED = 5  # of those that were chosen: the text is kept in a cookie
_LINK = Markup('<a href="{}">{}</a>')


class DeliveryPages(Pages):
    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._resending = ResendPages(parts)

    def pages(self) -> Iterator[Page]:
        yield Page(path="/deliveries", view=self.deliveries, name="deliveries")
        yield Page(path="/deliveries/<delivery_id>", view=self.delivery, name="delivery")
        yield Page(path="/deliveries/<delivery_id>/redrive", view=self.redrive, name="redrive", method="POST")
        yield Page(path="/deliveries/redrive-chosen", view=self.redrive_chosen, name="redrive_chosen", method="POST")
        yield from self._resending.pages()

    # --- the list ------------------------------------------------------------------------------------------

    def deliveries(self) -> ResponseReturnValue:
        asked = _asked(self.parts.clock())
        with self.parts.db.read() as tx:
            found = lists.find_deliveries(tx, asked.which, cursor=asked.cursor, limit=filters.ROWS)
            all_ = batches.count(tx, asked.which) if may_act() and asked.which.state in RESENDABLE else 0
        wanted = (
            ("state", "State", [(word, word) for word in DELIVERY_STATES]),
            ("notifier", "Notifier", [(name, name) for name in self.parts.book().notifiers]),
            ("rule", "Rule", None),
            ("job", "Job id", None),
            ("digest", "In digest", None),
            ("batch", "Batch", None),
            ("since", "Created since", None),
            ("until", "Created before", None),
        )
        return show(
            "deliveries.html", asked=asked, deliveries=found.items, cursor=found.cursor, fields=wanted, all=all_,
            sent_again=RESENDABLE,
        )  # fmt: skip

    def redrive_chosen(self) -> ResponseReturnValue:
        chosen = list(dict.fromkeys(id_.replace("\0", "") for id_ in request.form.getlist("id")))[:MOST]
        if not chosen:
            return refused("Nothing was chosen: tick what is to be sent.", "deliveries")
        again = self.operations().redrive_chosen(chosen)
        return done(_on_their_way(again, len(chosen)), "deliveries")

    # --- one of them ---------------------------------------------------------------------------------------

    def delivery(self, delivery_id: str) -> ResponseReturnValue:
        now, notifiers = self.parts.clock(), self.parts.book().notifiers
        with self.parts.db.read() as tx:
            found, given = lists.delivery_details(tx, delivery_id), claims.sendable(tx, delivery_id)
            if found is None or given is None:
                raise Problem(404, f'there is no delivery "{delivery_id[:100]}": it may have been pruned')
            lane = lists.notifier_row(tx, found["notifier"])
            told = lists.find_deliveries(tx, Filter(digest=delivery_id), limit=_MEMBERS)
        notifier = notifiers.get(found["notifier"])
        at, agent = _at(found, now), f"ci-bridge/{self.parts.version}"
        return show(
            "delivery.html",
            delivery=found,
            tries=[one if may_act() else one | {"answer": None} for one in found["tries"][-_MOST_TRIES:]],
            earlier=len(found["tries"][:-_MOST_TRIES]),
            means=fate(found, lane, in_rules=notifier is not None, now=now),
            lane=lane,
            in_rules=notifier is not None,
            members=told.items,
            more=told.cursor is not None,
            sends=integration_of(notifier).preview(given, at=at, agent=agent) if notifier else None,
            event=pretty_json(found["event"]),
            masked=MASKED,
            sent_again=RESENDABLE,
        )

    def redrive(self, delivery_id: str) -> ResponseReturnValue:
        return attempt(
            lambda: self.operations().redrive(delivery_id), f"{delivery_id} is on its way.", "delivery",
            delivery_id=delivery_id,
        )  # fmt: skip


def _asked(now: datetime) -> Asked:
    """Return what the address asks for; a state that is none is left out, and named."""
    asked = filters.read(_FIELDS, now)
    state = asked.which.state
    if state is None or state in DELIVERY_STATES:
        return asked
    fault = f'state: "{state[:100]}" is none; there are: {", ".join(DELIVERY_STATES)}'
    return replace(asked, which=replace(asked.which, state=None), faults=[*asked.faults, fault])


def _on_their_way(again: Sequence[str], chosen: int) -> Markup:
    """Say how many of the chosen ones will be sent, with a link to each of the first."""
    said = Markup("{:,} of {:,} {} on the way").format(len(again), chosen, "is" if len(again) == 1 else "are")
    links = [_LINK.format(url_for("pages.delivery", delivery_id=one), one) for one in again[:_LINKED]]
    if more := len(again[_LINKED:]):
        links.append(_LINK.format(url_for("pages.deliveries", state="waiting"), f"{more:,} more"))
    left = chosen - len(again)
    but = f" {left:,} had changed meanwhile: neither dead nor dropped any more." if left else ""
    return said + (Markup(": ") + Markup(", ").join(links) if links else "") + "." + but


def _at(delivery: Facts, now: datetime) -> datetime:
    """Return when it was last sent, or when it would be."""
    when = delivery["tries"][-1]["started_at"] if delivery["tries"] else delivery["due_at"]
    return datetime.fromisoformat(when) if when else now
