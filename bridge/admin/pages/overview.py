"""The overview: warnings, figures, charts, and the newest transitions with their deliveries."""

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

from bridge.admin.health import checks, read_health
from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import Pages, show
from bridge.admin.parts import Parts
from bridge.decide.rules.rulebook import Rulebook
from bridge.display import visible
from bridge.pipeline import stats
from bridge.pipeline.health import watched
from bridge.pipeline.incident_facts import find_incidents
from bridge.pipeline.stats import SPANS, Moved, Movement
from bridge.record.outbox import silences
from bridge.record.queries import lists
from bridge.record.queries.gauges import State
from bridge.record.queries.lists import Filter

_FEED = 15
_INCIDENTS = 10
_MOST_CHARTS = 4  # of tags, and of queues: the largest
_DRAWN_EVERY = timedelta(seconds=15)
# The page about a check.
_PAGES_OF = defaultdict[str, str](str, polls="watches", clock="watches", notifiers="notifiers", rules="rules")
_USUAL_SPAN = "24h"
_STATE_ORDER = ("Success", "Failed", "Cancel", "gone", "Running", "Submitted", "Pause")


class Overview(Pages):
    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._charts: dict[str, _Drawn] = {}

    def routes(self) -> Iterator[Route]:
        yield Route(path="/", view=self.overview, name="overview")

    def overview(self) -> ResponseReturnValue:
        span = request.args.get("span", _USUAL_SPAN)
        span = span if span in SPANS else _USUAL_SPAN
        book, now = self.parts.book(), self.parts.clock()
        with self.parts.db.read() as tx:
            queue_names = self.parts.queue_names(tx)
            drawn = self._drawn(tx, span, book, queue_names, now)
            feed = lists.find_transitions(tx, Filter(), limit=_FEED).items
            caused = lists.caused_by(tx, feed)
            inputs = lists.inputs_of(tx, feed)
            state, health = read_health(self.parts, tx)
            rules = self.parts.in_force(tx)
            incidents = find_incidents(tx, Filter(state="open"), rules, now=now, limit=_INCIDENTS)
            silent = [silence for silence in silences.recent(tx, now=now) if silence.ends_at > now]
        return show(
            "overview.html",
            span=span,
            spans=list(SPANS),
            checks=checks(state, health),
            warnings=health.warnings,
            figures=_figures(state, book),
            heading=health.headline,
            pages_of=_PAGES_OF,
            in_trouble=list(health.of("notifiers").by_name()),
            notifiers=len(book.notifiers),
            silent=silent,
            incidents=incidents.items,
            more_incidents=incidents.cursor is not None,
            inputs=inputs,
            drawn=drawn,
            chart_class=chart_class,
            feed=[(step, caused.get((step["bucket"], step["job"], step["sequence"]), ())) for step in feed],
            queue_names=queue_names,
            paused_queues=watched(state.paused_queues, book),
        )

    def _drawn(
        self, tx: Connection, span: str, book: Rulebook, queue_names: Mapping[str, str], now: datetime
    ) -> _Drawn:
        """Return the charts of a span; drawing is half the work of a refresh, so they are up to 15 s old."""
        known = self._charts.get(span)
        if known is None or known.sha != book.sha or not timedelta() <= now - known.at < _DRAWN_EVERY:
            known = self._charts[span] = _draw(stats.moved(tx, span, now), book.sha, queue_names, now)
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """The charts of a span, as of a time, with the names of these rules."""

    at: datetime
    sha: str
    failed: int
    ended: int
    unfinished: Markup
    by_tag: Sequence[tuple[str, Markup]]
    by_queue: Sequence[tuple[str, Markup]]
    words: Sequence[str]


def _draw(moved: Movement, sha: str, queue_names: Mapping[str, str], now: datetime) -> _Drawn:
    return _Drawn(
        at=now,
        sha=sha,
        failed=_sum(moved.transitions, "Failed"),
        ended=_sum(moved.transitions, "Success"),
        unfinished=_chart(_unfinished(moved), moved, "Unfinished jobs at the end of each span"),
        by_tag=_charts(moved, lambda moved: moved.tag or "no tag"),
        by_queue=_charts(moved, lambda moved: queue_names.get(moved.queue) or moved.queue or "no queue"),
        words=_words(moved),
    )


def _figures(state: State, book: Rulebook) -> dict[str, Any]:
    names = {watch.name for watch in book.watches}
    watches = [row for row in state.watches if row["name"] in names]
    return {
        "polled_at": max((row["ok_at"] for row in watches if row["ok_at"]), default=None),
        "watches": len(watches),
        "waiting": sum(row["waiting"] for row in state.notifiers),
        "sending": sum(row["sending"] for row in state.notifiers),
        "oldest": min((row["oldest_waiting_at"] for row in state.notifiers if row["waiting"]), default=None),
        "held": sum(row["held"] for row in state.notifiers),
        "dead": sum(row["dead"] for row in state.notifiers),
        "died": sum(trouble.died for trouble in state.troubles.values()),  # in the last 24 h
    }


def _sum(moved: Iterable[Moved], to: str) -> int:
    return sum(sum(line.counts) for line in moved if line.to == to)


def _unfinished(movement: Movement) -> dict[str, list[int]]:
    return _added((line.state, line.counts) for line in movement.jobs)


def _charts(movement: Movement, by: Callable[[Moved], str]) -> list[tuple[str, Markup]]:
    """Return a chart of the transitions for each value, the largest first."""
    groups: dict[str, list[Moved]] = defaultdict(list)
    for line in movement.transitions:
        groups[by(line)].append(line)
    largest = sorted(groups, key=lambda name: (-sum(sum(line.counts) for line in groups[name]), name))[:_MOST_CHARTS]
    return [(name, _chart(_added((line.to, line.counts) for line in groups[name]), movement, name)) for name in largest]


def _added(counts: Iterable[tuple[str, Sequence[int]]]) -> dict[str, list[int]]:
    sums: dict[str, list[int]] = {}
    for word, values in counts:
        before = sums.get(word, [0] * len(values))
        sums[word] = [a + b for a, b in zip(before, values, strict=True)]
    return {word: sums[word] for word in sorted(sums, key=_place)}


def _place(word: str) -> tuple[int, str]:
    return _STATE_ORDER.index(word) if word in _STATE_ORDER else len(_STATE_ORDER), word


def _words(movement: Movement) -> list[str]:
    return sorted({line.to for line in movement.transitions} | {line.state for line in movement.jobs}, key=_place)


def _chart(series: Series, movement: Movement, label: str) -> Markup:
    return bars(series, movement.slots, label=label)


# --- charts as SVG, rendered here: the browser runs no code for them ------------------------------------------------

WIDTH, HEIGHT = 300, 100  # near the size on the page, so that letters keep their height
_LEFT, _TOP, _BOTTOM = 34, 8, 18
_TALL = HEIGHT - _TOP - _BOTTOM
_BASE = HEIGHT - _BOTTOM

_CHART = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>')
_BARS = Markup('<path class="{}" d="{}"><title>{}</title></path>')
_AXIS = Markup(  # noqa: S704  (numbers of ours)
    f'<path class="axis" d="M{_LEFT} {_BASE}H{WIDTH}M{_LEFT} {_TOP}H{WIDTH}"/>'
    f'<text x="{_LEFT - 5}" y="{_BASE}" text-anchor="end">0</text>'
    f'<text x="{_LEFT - 5}" y="{_TOP + 8}" text-anchor="end">{{}}</text>'
    f'<text x="{_LEFT}" y="{HEIGHT - 4}" data-at="{{}}">{{}}</text>'
    f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">now</text>'
)
_KNOWN = ("success", "failed", "running", "submitted", "cancel", "pause", "gone")

Series = Mapping[str, Sequence[int]]  # a count for each slot, by word


def chart_class(word: str) -> str:
    """Return the CSS class with the colour of a state."""
    return f"c-{word.lower()}" if word.lower() in _KNOWN else "c-other"


def bars(series: Series, slots: Sequence[datetime], *, label: str) -> Markup:
    """Return stacked bars, one for each slot; `label` is read aloud, with the sums."""
    top = _round_up(max((sum(column) for column in zip(*series.values(), strict=True)), default=0))
    sums = ", ".join(f"{word} {sum(values)}" for word, values in series.items())
    label = visible(f"{label}: {sums or 'nothing'}")
    return _CHART.format(WIDTH, HEIGHT, label, _AXIS.format(top, *_begin(slots)), _stacks(series, len(slots), top))


def _stacks(series: Series, slots: int, top: int) -> Markup:
    """Return one path for each word: all of its bars."""
    bases = [float(_BASE)] * slots
    width = (WIDTH - _LEFT) / max(1, slots)
    paths = []
    for word, values in series.items():
        drawn = []
        for place, value in enumerate(values):
            if value:
                tall = value / top * _TALL
                bases[place] -= tall
                left = _LEFT + (place + 0.1) * width
                drawn.append(f"M{left:.1f} {bases[place]:.1f}h{width * 0.8:.1f}v{tall:.1f}h-{width * 0.8:.1f}z")
        if drawn:
            paths.append(_BARS.format(chart_class(word), "".join(drawn), visible(f"{word} {sum(values)}")))
    return Markup("").join(paths)


def _begin(slots: Sequence[datetime]) -> tuple[str, str]:
    """Return when the first slot begins: for the browser, which converts it to the reader's zone, and in UTC."""
    if not slots:
        return "", ""
    shape = "%d %b" if (slots[-1] - slots[0]).days >= 2 else "%H:%M UTC"
    return f"{slots[0]:%Y-%m-%dT%H:%MZ}", f"{slots[0]:{shape}}"


def _round_up(most: int) -> int:
    """Return the number at the top of the axis: 1, 2, 3 or 5 times a power of ten."""
    size = 1
    while True:
        for step in (1, 2, 3, 5):
            if step * size >= most:
                return step * size
        size *= 10
