"""The overview: is everything fine, what moved, who was told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from sqlalchemy import Connection

from bridge.admin.health import Check, Health
from bridge.admin.pages import charts
from bridge.admin.pages.routes import Page, Pages, show
from bridge.admin.parts import Parts
from bridge.decide.rulebook import Rulebook
from bridge.pipeline import stats
from bridge.pipeline.stats import SPANS, Moved, Movement
from bridge.record import attempts, gauges, reading, silences
from bridge.record.reading import Facts, Filter

_FEED = 15
_MOST_CHARTS = 4  # of tags, and of queues: the largest
_LATE = timedelta(minutes=5)  # as messages say that they are late
_DRAWN_EVERY = timedelta(seconds=15)
_USUAL_SPAN = "24h"
_ORDER = ("Success", "Failed", "Cancel", "gone", "Running", "Submitted", "Pause")


class Overview(Pages):
    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._health = Health(parts)
        self._charts: dict[str, _Drawn] = {}

    def pages(self) -> Iterator[Page]:
        yield Page(path="/", view=self.overview, name="overview")

    def overview(self) -> ResponseReturnValue:
        span = request.args.get("span", _USUAL_SPAN)
        span = span if span in SPANS else _USUAL_SPAN
        book, now = self.parts.book(), self.parts.clock()
        with self.parts.db.read() as tx:
            drawn = self._drawn(tx, span, book, now)
            feed = reading.transitions(tx, Filter(), limit=_FEED).items
            caused = attempts.caused_by(tx, feed)
            inputs = attempts.inputs_of(tx, feed)
            notifiers, watches = gauges.notifiers(tx), gauges.watches(tx)
            silent = [one for one in silences.of_use(tx, now=now) if one.ends_at > now]
        names = {one.name for one in book.watches}
        checks, figures = self._health.checks(), _figures(notifiers, [w for w in watches if w["name"] in names], now)
        return show(
            "overview.html",
            span=span,
            spans=list(SPANS),
            checks=checks,
            figures=figures,
            verdict=_verdict(checks, figures),
            silent=silent,
            inputs=inputs,
            drawn=drawn,
            look=charts.look,
            feed=[(one, caused.get((one["bucket"], one["job"], one["sequence"]), ())) for one in feed],
            queue_names=book.queue_names,
        )

    def _drawn(self, tx: Connection, span: str, book: Rulebook, now: datetime) -> _Drawn:
        """Return the charts of a span; drawing them is half the work of a refresh, so they are up to 15 s old."""
        known = self._charts.get(span)
        if known is None or known.sha != book.sha or not timedelta() <= now - known.at < _DRAWN_EVERY:
            known = self._charts[span] = _draw(stats.moved(tx, span, now), book, now)
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """What the overview says of a span, as it was at a time, with the names of these rules."""

    at: datetime
    sha: str
    failed: int
    ended: int
    standing: Markup
    by_tag: Sequence[tuple[str, Markup]]
    by_queue: Sequence[tuple[str, Markup]]
    words: Sequence[str]


def _draw(moved: Movement, book: Rulebook, now: datetime) -> _Drawn:
    return _Drawn(
        at=now,
        sha=book.sha,
        failed=_sum(moved.transitions, "Failed"),
        ended=_sum(moved.transitions, "Success"),
        standing=_chart(_standing(moved), moved, "Unfinished jobs at the end of each span"),
        by_tag=_charts(moved, lambda one: one.tag or "no tag"),
        by_queue=_charts(moved, lambda one: book.queue_names.get(one.queue) or one.queue or "no queue"),
        words=_words(moved),
    )


def _figures(notifiers: Sequence[Facts], watches: Sequence[Facts], now: datetime) -> dict[str, Any]:
    polls = [row["ok_at"] for row in watches if row["ok_at"]]
    oldest = min((row["oldest_waiting_at"] for row in notifiers if row["oldest_waiting_at"]), default=None)
    return {
        "polled_at": max(polls, default=None),
        "watches": len(watches),
        "failing": [row["name"] for row in watches if row["failures"]],
        "paused_watches": [row["name"] for row in watches if row["paused"]],
        "waiting": sum(row["waiting"] + row["sending"] for row in notifiers),
        "oldest": oldest,
        "late": oldest is not None and now - datetime.fromisoformat(oldest) > _LATE,
        "held": sum(row["held"] for row in notifiers),
        "dead": sum(row["dead"] for row in notifiers),
        "paused": [row["name"] for row in notifiers if row["paused_at"]],
        "troubled": [row["name"] for row in notifiers if row["failures"]],
    }


def _verdict(checks: Sequence[Check], figures: Mapping[str, Any]) -> str:
    if not all(check.ok for check in checks):
        return "Something needs you"
    found = [f"watch {name} is paused, so nobody hears of its jobs" for name in figures["paused_watches"]]
    found += [f"{name} is paused" for name in figures["paused"]]
    found += ["its rules need a look" for one in checks if one.name == "rules" and one.detail.startswith("warning:")]
    if dead := figures["dead"]:
        found.append(f"{dead:,} message{'s' if dead != 1 else ''} died")
    return f"The bridge works, but {'; '.join(found)}" if found else "All is well"


def _sum(moved: Iterable[Moved], to: str) -> int:
    return sum(sum(one.counts) for one in moved if one.to == to)


def _standing(found: Movement) -> dict[str, list[int]]:
    return _added((one.state, one.counts) for one in found.jobs)


def _charts(found: Movement, by: Callable[[Moved], str]) -> list[tuple[str, Markup]]:
    """Return a chart of the transitions for each value, the largest first."""
    groups: dict[str, list[Moved]] = defaultdict(list)
    for one in found.transitions:
        groups[by(one)].append(one)
    largest = sorted(groups, key=lambda name: (-sum(sum(one.counts) for one in groups[name]), name))[:_MOST_CHARTS]
    return [(name, _chart(_added((one.to, one.counts) for one in groups[name]), found, name)) for name in largest]


def _added(counts: Iterable[tuple[str, Sequence[int]]]) -> dict[str, list[int]]:
    sums: dict[str, list[int]] = {}
    for word, values in counts:
        before = sums.get(word, [0] * len(values))
        sums[word] = [one + other for one, other in zip(before, values, strict=True)]
    return {word: sums[word] for word in sorted(sums, key=_place)}


def _place(word: str) -> tuple[int, str]:
    return _ORDER.index(word) if word in _ORDER else len(_ORDER), word


def _words(found: Movement) -> list[str]:
    return sorted({one.to for one in found.transitions} | {one.state for one in found.jobs}, key=_place)


def _chart(series: Mapping[str, Sequence[int]], found: Movement, says: str) -> Markup:
    slots: Sequence[datetime] = found.slots
    return charts.bars(series, slots, says=says)
