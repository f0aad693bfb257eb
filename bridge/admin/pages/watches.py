"""Watches: what is polled, how it goes, and polling by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from flask.typing import ResponseReturnValue

from bridge.admin import shown
from bridge.admin.health import by_name, look
from bridge.admin.pages.routes import Page, Pages, attempt, show
from bridge.decide.changes.clocks import clock_warning
from bridge.pipeline.health import HealthWarning
from bridge.record.queries.lists import Facts

# What only rules.toml says, and what only the record does: before the first poll there is no row.
_NOTHING_SAID: Facts = {
    "bucket": None, "region": None, "tags": (), "queues": (), "every_seconds": None, "next_poll_at": None,
    "paused": False, "polled_at": None, "ok_at": None, "failures": 0, "error": None, "calls": 0, "jobs": 0,
    "behind": (),
    "clock_ahead_seconds": None,
}  # fmt: skip


class WatchPages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/watches", view=self.watches, name="watches")
        yield Page(path="/watches/<path:name>/poll", view=self.poll, name="poll_watch", method="POST")
        yield Page(path="/watches/<path:name>/pause", view=self.pause, name="pause_watch", method="POST")
        yield Page(path="/watches/<path:name>/resume", view=self.resume, name="resume_watch", method="POST")

    def watches(self) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            state, warnings = look(self.parts, tx)
        wrong = by_name(warnings, "polls")
        found = [_NOTHING_SAID | row for row in shown.watches(self.parts.book(), state.watches)]
        return show("watches.html", watches=[(one, _standing(one, wrong[one["name"]]), _clocks(one)) for one in found])

    def poll(self, name: str) -> ResponseReturnValue:
        book = self.parts.book()
        return attempt(lambda: self.operations().poll_watch(book, name), f"A worker polls {name} next.", "watches")

    def pause(self, name: str) -> ResponseReturnValue:
        book, said = self.parts.book(), f"{name} is paused: nothing of it is seen."
        return attempt(lambda: self.operations().pause_watch(book, name), said, "watches")

    def resume(self, name: str) -> ResponseReturnValue:
        book = self.parts.book()
        return attempt(lambda: self.operations().resume_watch(book, name), f"{name} is polled again.", "watches")


def _clocks(one: Facts) -> str | None:
    ahead = one["clock_ahead_seconds"]
    return None if ahead is None else clock_warning(timedelta(seconds=ahead))


def _standing(one: Facts, wrong: Sequence[HealthWarning]) -> tuple[str, str]:
    """Return how a watch does, in a word, and how that looks."""
    if not one["in_rules"]:
        return "not in rules.toml", "dropped"
    if one["paused"]:
        return "paused", "paused"
    if wrong:
        return wrong[0].short, "failed"
    if one["behind"]:
        return "catching up", "waiting"
    return ("fine", "ok") if one["ok_at"] else ("not polled yet", "waiting")
