"""Charts as SVG, made here: the browser runs no code for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from markupsafe import Markup

from bridge.display import visible

WIDTH, HEIGHT = 300, 100  # near what is shown, so that letters stay as tall as they are meant to be
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


def look(word: str) -> str:
    """Return the class that colours a word."""
    return f"c-{word.lower()}" if word.lower() in _KNOWN else "c-other"


def bars(series: Series, slots: Sequence[datetime], *, says: str) -> Markup:
    """Return stacked bars, one for each slot; `says` is what is read aloud, with the sums."""
    top = _round_up(max((sum(column) for column in zip(*series.values(), strict=True)), default=0))
    sums = ", ".join(f"{word} {sum(values)}" for word, values in series.items())
    label = visible(f"{says}: {sums or 'nothing'}")
    return _CHART.format(WIDTH, HEIGHT, label, _AXIS.format(top, *_begin(slots)), _stacks(series, len(slots), top))


def _stacks(series: Series, slots: int, top: int) -> Markup:
    """Return one path for each word: all of its bars."""
    bases = [float(_BASE)] * slots
    width = (WIDTH - _LEFT) / max(1, slots)
    found = []
    for word, values in series.items():
        drawn = []
        for place, value in enumerate(values):
            if value:
                tall = value / top * _TALL
                bases[place] -= tall
                left = _LEFT + (place + 0.1) * width
                drawn.append(f"M{left:.1f} {bases[place]:.1f}h{width * 0.8:.1f}v{tall:.1f}h-{width * 0.8:.1f}z")
        if drawn:
            found.append(_BARS.format(look(word), "".join(drawn), visible(f"{word} {sum(values)}")))
    return Markup("").join(found)


def _begin(slots: Sequence[datetime]) -> tuple[str, str]:
    """Return when the first slot begins: for the browser, which says it in the reader's zone, and in UTC."""
    if not slots:
        return "", ""
    shape = "%d %b" if (slots[-1] - slots[0]).days >= 2 else "%H:%M UTC"
    return f"{slots[0]:%Y-%m-%dT%H:%MZ}", f"{slots[0]:{shape}}"


def _round_up(most: int) -> int:
    """Return the number at the top: 1, 2, 3 or 5 with noughts."""
    size = 1
    while True:
        for step in (1, 2, 3, 5):
            if step * size >= most:
                return step * size
        size *= 10
