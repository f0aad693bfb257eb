"""Watches and notifiers: how each of them does, polling and pausing, testing and resuming."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from flask import flash, redirect, request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.health import read_health
from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import Pages, attempt, refused, show
from bridge.admin.pages.texts import count, span
from bridge.admin.schemas import rulebook
from bridge.admin.schemas.stats import Detection
from bridge.decide.changes.clocks import clock_warning
from bridge.decide.retries import BREAKER_THRESHOLD
from bridge.decide.rulesfile.silences import LONGEST_REASON
from bridge.model import Rate
from bridge.pipeline.health import HealthWarning, Level
from bridge.pipeline.operations import OperationRefused
from bridge.pipeline.stats import Latency, detection, latency

_SPAN = "24h"
_MOST_NAMED = 20  # notifiers of a pick
_A = {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}


class WatchPages(Pages):
    def routes(self) -> Iterator[Route]:
        yield Route(path="/watches", view=self.watches, name="watches")
        yield Route(path="/watches/<path:name>/poll", view=self.poll, name="poll_watch", method="POST")
        yield Route(path="/watches/<path:name>/pause", view=self.pause, name="pause_watch", method="POST")
        yield Route(path="/watches/<path:name>/resume", view=self.resume, name="resume_watch", method="POST")

    def watches(self) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            state, health = read_health(self.parts, tx)
            queue_names = self.parts.queue_names(tx)
            seen = detection(tx, _SPAN, self.parts.clock())
        by_watch = health.of("polls").by_name()
        watches = rulebook.Watch.all(self.parts.book(), state.watches, queue_names, state.paused_queues, seen)
        rows = [
            (watch, _of_watch(watch, by_watch[watch.name]), _clock_warning(watch), _detection(watch.detection))
            for watch in watches
        ]
        return show("watches.html", watches=rows)

    def poll(self, name: str) -> ResponseReturnValue:
        book, text = self.parts.book(), f"{name} is polled as soon as a worker is free."
        return attempt(lambda: self.operations().poll_watch(book, name), text, "watches")

    def pause(self, name: str) -> ResponseReturnValue:
        book, text = self.parts.book(), f"{name} is paused: it is not polled."
        return attempt(lambda: self.operations().pause_watch(book, name), text, "watches")

    def resume(self, name: str) -> ResponseReturnValue:
        book, text = self.parts.book(), f"{name} is polled again."
        return attempt(lambda: self.operations().resume_watch(book, name), text, "watches")


def _clock_warning(watch: rulebook.Watch) -> str | None:
    ahead = watch.clock_ahead_seconds
    return None if ahead is None else clock_warning(timedelta(seconds=ahead))


def _detection(found: Detection | None) -> tuple[str | None, str | None]:
    """Return how soon changes were seen, and with how many calls; None: nothing is known."""
    if found is None:
        return None, None
    seen = _within(found.p50_seconds, 99, found.p99_seconds)
    per = found.calls_per_transition
    changes = f"{count(found.transitions)} change{'s' if found.transitions != 1 else ''}"
    return seen, f"{count(found.calls)} for {changes}" + ("" if per is None else f": {per:.2f} per change")


def _of_watch(watch: rulebook.Watch, warnings: Sequence[HealthWarning]) -> tuple[str, str]:
    """Return how a watch does, in a word, and its style."""
    if not watch.in_rules:
        return "not in rules.toml", "dropped"
    if watch.paused:
        return "paused", "paused"
    if warnings:
        return warnings[0].short, "failed"
    if watch.behind:
        return "catching up", "waiting"
    return ("ok", "ok") if watch.ok_at else ("not polled yet", "waiting")


class NotifierPages(Pages):
    def routes(self) -> Iterator[Route]:
        yield Route(path="/notifiers", view=self.notifiers, name="notifiers")
        yield Route(path="/notifiers/<path:name>/test", view=self.test, name="test_notifier", method="POST")
        yield Route(path="/notifiers/<path:name>/pause", view=self.pause, name="pause_notifier", method="POST")
        yield Route(path="/notifiers/<path:name>/resume", view=self.resume, name="resume_notifier", method="POST")

    def notifiers(self) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            state, health = read_health(self.parts, tx)
            latencies = {one.notifier: one for one in latency(tx, _SPAN, self.parts.clock())}
        book, by_notifier = self.parts.book(), health.of("notifiers").by_name()
        rows = [
            (notifier, _of_notifier(notifier, wrong), wrong, _latency(latencies.get(notifier.name)))
            for notifier in rulebook.Notifier.all(book, state.notifiers)
            for wrong in [by_notifier[notifier.name]]
        ]
        return show(
            "notifiers.html",
            notifiers=rows,
            rates={name: _rate(notifier.rate) for name, notifier in book.notifiers.items()},
            died={name: trouble.died for name, trouble in state.troubles.items()},
            threshold=BREAKER_THRESHOLD,
            span=_SPAN,
            most_named=_MOST_NAMED,
            longest=LONGEST_REASON,
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
            flash(f"A test for {name} is queued.", "done")
        return redirect(url_for("pages.delivery", delivery_id=test.delivery), 303)

    def pause(self, name: str) -> ResponseReturnValue:
        book, reason = self.parts.book(), request.form.get("reason", "")
        text = f"{name} is paused: its deliveries wait."
        return attempt(lambda: self.operations().pause_notifier(book, name, reason), text, "notifiers")

    def resume(self, name: str) -> ResponseReturnValue:
        book = self.parts.book()
        return attempt(lambda: self.operations().resume_notifier(name, book), f"{name} is resumed.", "notifiers")


def _of_notifier(notifier: rulebook.Notifier, warnings: Sequence[HealthWarning]) -> tuple[str, str]:
    """Return how a notifier does, in a few words, and its style."""
    if not notifier.in_rules:
        return "not in rules.toml", "dropped"
    if notifier.paused_at:
        return "paused", "paused"
    if warnings:
        return warnings[0].short, "failed" if warnings[0].level < Level.ODD else "later"
    return (f"{count(notifier.dead)} dead", "later") if notifier.dead else ("ok", "ok")


def _rate(rate: Rate | None) -> str | None:
    """Return how many messages are sent in a time, at most."""
    if rate is None:
        return None
    return f"{count(rate.count)} {_A.get(int(rate.per.total_seconds())) or f'in {span(rate.per)}'}"


def _latency(latency: Latency | None) -> tuple[str, int] | None:
    """Return how long it took from the event to the receiver's acceptance, and of how many deliveries."""
    within = _within(latency.p50_s, 95, latency.p95_s) if latency else None
    return (within, latency.count) if latency and within else None


def _within(half_s: float | None, percent: int, most_s: float | None) -> str | None:
    if half_s is None or most_s is None:
        return None
    return f"half within {_took(half_s)}, {percent} % within {_took(most_s)}"


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else span(seconds)
