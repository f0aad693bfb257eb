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

from bridge.admin.health import checks, look
from bridge.admin.pages import charts
from bridge.admin.pages.routes import Page, Pages, show
from bridge.admin.parts import Parts
from bridge.decide.rules.rulebook import Rulebook
from bridge.pipeline import stats
from bridge.pipeline.health import HealthWarning, Level
from bridge.pipeline.stats import SPANS, Moved, Movement
from bridge.record.outbox import silences
from bridge.record.queries import lists
from bridge.record.queries.gauges import State
from bridge.record.queries.lists import Filter

_FEED = 15
_MOST_CHARTS = 4  # of tags, and of queues: the largest
_DRAWN_EVERY = timedelta(seconds=15)
# Where it is seen what a check is about, and mended.
_PAGES_OF = defaultdict[str, str](str, polls="watches", clock="watches", notifiers="notifiers", rules="rules")
_USUAL_SPAN = "24h"
_ORDER = ("Success", "Failed", "Cancel", "gone", "Running", "Submitted", "Pause")


class Overview(Pages):
    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._charts: dict[str, _Drawn] = {}

    def pages(self) -> Iterator[Page]:
        yield Page(path="/", view=self.overview, name="overview")

    def overview(self) -> ResponseReturnValue:
        span = request.args.get("span", _USUAL_SPAN)
        span = span if span in SPANS else _USUAL_SPAN
        book, now = self.parts.book(), self.parts.clock()
        with self.parts.db.read() as tx:
            drawn = self._drawn(tx, span, book, now)
            feed = lists.find_transitions(tx, Filter(), limit=_FEED).items
            caused = lists.caused_by(tx, feed)
            inputs = lists.inputs_of(tx, feed)
            state, warnings = look(self.parts, tx)
            silent = [one for one in silences.recent(tx, now=now) if one.ends_at > now]
        return show(
            "overview.html",
            span=span,
            spans=list(SPANS),
            checks=checks(state, warnings),
            warnings=warnings,
            figures=_figures(state, book),
            heading=_heading(warnings),
            pages_of=_PAGES_OF,
            in_trouble=list(dict.fromkeys(one.name for one in warnings if one.check == "notifiers")),
            notifiers=len(book.notifiers),
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


def _figures(state: State, book: Rulebook) -> dict[str, Any]:
    names = {one.name for one in book.watches}
    watches = [row for row in state.watches if row["name"] in names]
    return {
        "polled_at": max((row["ok_at"] for row in watches if row["ok_at"]), default=None),
        "watches": len(watches),
        "waiting": sum(row["waiting"] + row["sending"] for row in state.notifiers),
        "oldest": min((row["oldest_waiting_at"] for row in state.notifiers if row["waiting"]), default=None),
        "held": sum(row["held"] for row in state.notifiers),
        "dead": sum(row["dead"] for row in state.notifiers),
    }


def _heading(warnings: Sequence[HealthWarning]) -> str:
    """Name the worst, and how many more there are."""
    if not warnings:
        return "All is well"
    worst, more = warnings[0], len(warnings) - 1
    begins = "Something is wrong" if worst.level == Level.DOWN else "The bridge works, but"
    others = f", and {more} more warning{'s' if more != 1 else ''}" if more else ""
    return f"{begins}{':' if worst.level == Level.DOWN else ''} {worst.text}{others}"


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
