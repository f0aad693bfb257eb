"""Charts as SVG, made here: the browser runs no code for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from markupsafe import Markup

WIDTH, HEIGHT = 460, 120
_LEFT, _TOP, _BOTTOM = 34, 8, 18
_BAR = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{} {}</title></rect>')
_LINE = Markup('<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>')
_TEXT = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
_KNOWN = ("success", "failed", "running", "submitted", "cancel", "pause", "gone")

Series = Mapping[str, Sequence[int]]  # a count for each slot, by word


def look(word: str) -> str:
    """Return the class that colours a word."""
    return f"c-{word.lower()}" if word.lower() in _KNOWN else "c-other"


def bars(series: Series, slots: Sequence[datetime], *, says: str) -> Markup:
    """Return stacked bars, one for each slot; `says` is what is read aloud, with the sums."""
    most = max((sum(column) for column in zip(*series.values(), strict=True)), default=0)
    top = _round_up(most)
    parts = [_axis(top, slots)]
    width = (WIDTH - _LEFT) / max(1, len(slots))
    for place in range(len(slots)):
        parts += _column(series, place, _LEFT + place * width, width, top)
    sums = ", ".join(f"{word} {sum(values)}" for word, values in series.items())
    label = f"{says}: {sums or 'nothing'}"
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def _column(series: Series, place: int, left: float, width: float, top: int) -> list[Markup]:
    found: list[Markup] = []
    base = float(HEIGHT - _BOTTOM)
    for word, values in series.items():
        tall = values[place] / top * (HEIGHT - _TOP - _BOTTOM)
        if tall:
            base -= tall
            found.append(_BAR.format(look(word), left + width * 0.1, base, width * 0.8, tall, word, values[place]))
    return found


def _axis(top: int, slots: Sequence[datetime]) -> Markup:
    base = HEIGHT - _BOTTOM
    marks = [_LINE.format(_LEFT, WIDTH, y) for y in (base, _TOP)]
    marks += [_TEXT.format(_LEFT - 5, base, "end", 0), _TEXT.format(_LEFT - 5, _TOP + 8, "end", top)]
    if slots:
        shape = "%d %b" if (slots[-1] - slots[0]).days >= 2 else "%H:%M"
        marks.append(_TEXT.format(_LEFT, HEIGHT - 4, "start", f"{slots[0]:{shape}} UTC"))
        marks.append(_TEXT.format(WIDTH, HEIGHT - 4, "end", "now"))
    return Markup("").join(marks)


def _round_up(most: int) -> int:
    """Return the number at the top: 1, 2 or 5 with noughts."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= most:
                return step * size
        size *= 10
