"""Notifiers: who is told, how much waits for each, how quickly they are told, and trying them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flask import flash, redirect, url_for
from flask.typing import ResponseReturnValue

from bridge.admin import shown
from bridge.admin.health import by_name, look
from bridge.admin.pages import shapes
from bridge.admin.pages.routes import Page, Pages, attempt, refused, show
from bridge.decide.retries import BROKEN_AT
from bridge.model import Notifier
from bridge.pipeline.health import HealthWarning, Level
from bridge.pipeline.operations import OperationRefused
from bridge.pipeline.stats import Latency, latency
from bridge.record.queries.lists import Facts

_SPAN = "24h"
_A = {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}
# What only rules.toml says, and what only the record does.
_NOTHING_SAID: Facts = {
    "target": None, "signed": None, "rate": None, "fallback": None, "paused_at": None, "paused_why": None,
    "paused_reason": None, "not_before": None, "failures": 0, "waiting": 0, "sending": 0, "dead": 0, "held": 0,
    "oldest_waiting_at": None,
}  # fmt: skip


class NotifierPages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/notifiers", view=self.notifiers, name="notifiers")
        yield Page(path="/notifiers/<path:name>/test", view=self.test, name="test_notifier", method="POST")
        yield Page(path="/notifiers/<path:name>/resume", view=self.resume, name="resume_notifier", method="POST")

    def notifiers(self) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            state, warnings = look(self.parts, tx)
            quick = {one.notifier: one for one in latency(tx, _SPAN, self.parts.clock())}
        book = self.parts.book()
        found = [_NOTHING_SAID | row for row in shown.notifiers(book, state.notifiers)]
        wrong = by_name(warnings, "notifiers")
        found = [one | {"rate": _rate(book.notifiers.get(one["name"]))} for one in found]
        return show(
            "notifiers.html",
            notifiers=[
                (one, _standing(one, wrong[one["name"]]), wrong[one["name"]], _quickness(quick.get(one["name"])))
                for one in found
            ],
            broken_at=BROKEN_AT,
            span=_SPAN,
        )

    def test(self, name: str) -> ResponseReturnValue:
        """Send a test, and lead to it: there its attempts are seen."""
        try:
            test = self.operations().test_notifier(self.parts.book(), name)
        except OperationRefused as error:
            return refused(str(error), "notifiers")
        if test.waits:
            flash(f"The test waits: {test.waits}", "refused")
        else:
            flash(f"A test is on its way to {name}.", "done")
        return redirect(url_for("pages.delivery", delivery_id=test.delivery), 303)

    def resume(self, name: str) -> ResponseReturnValue:
        book = self.parts.book()
        return attempt(lambda: self.operations().resume_notifier(name, book), f"{name} is told again.", "notifiers")


def _standing(one: Facts, wrong: Sequence[HealthWarning]) -> tuple[str, str]:
    """Return how a notifier does, in a few words, and how that looks."""
    if not one["in_rules"]:
        return "not in rules.toml", "dropped"
    if one["paused_at"]:
        return "paused", "paused"
    if wrong:
        return wrong[0].short, "failed" if wrong[0].level < Level.ODD else "later"
    return (f"{shapes.count(one['dead'])} died", "later") if one["dead"] else ("fine", "ok")


def _rate(one: Notifier | None) -> str | None:
    """Return how many it is told in a time, at most."""
    if one is None or one.rate is None:
        return None
    per = one.rate.per
    return f"{shapes.count(one.rate.count)} {_A.get(int(per.total_seconds())) or f'in {shapes.span(per)}'}"


def _quickness(found: Latency | None) -> tuple[str, int] | None:
    """Return how long it took to tell, from what happened to the receiver's yes, and how many were told."""
    if found is None or found.p50_s is None or found.p95_s is None:
        return None
    return f"half within {_took(found.p50_s)}, 95 % within {_took(found.p95_s)}", found.count


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else shapes.span(seconds)
