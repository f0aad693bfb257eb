"""Charts: what they show is what was counted, and nothing in them is believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from markupsafe import Markup

from bridge.admin.pages.charts import HEIGHT, WIDTH, bars

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SLOTS = [NOON + timedelta(hours=n) for n in range(3)]


def drawn(svg: Markup) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  (our own)


def test_a_bar_is_as_high_as_its_count_and_says_it() -> None:
    chart = drawn(bars({"Success": [1, 0, 2], "Failed": [0, 0, 2]}, SLOTS, says="vod"))
    rects = chart.findall("rect")
    assert [rect.findtext("title") for rect in rects] == ["Success 1", "Success 2", "Failed 2"]
    one, two, other = (float(rect.attrib["height"]) for rect in rects)
    assert two == pytest.approx(2 * one, abs=0.2)
    assert other == two
    assert [rect.attrib["class"] for rect in rects] == ["c-success", "c-success", "c-failed"]


def test_bars_of_a_slot_stand_on_each_other_and_stay_inside() -> None:
    chart = drawn(bars({"Success": [0, 0, 3], "Failed": [0, 0, 4]}, SLOTS, says="vod"))
    lower, upper = chart.findall("rect")
    assert float(upper.attrib["y"]) + float(upper.attrib["height"]) == pytest.approx(float(lower.attrib["y"]), abs=0.2)
    for rect in (lower, upper):
        assert 0 <= float(rect.attrib["y"]) <= HEIGHT
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= WIDTH


def test_who_cannot_see_it_hears_the_sums() -> None:
    assert drawn(bars({"Success": [1, 0, 2]}, SLOTS, says="Queue vod")).attrib["aria-label"] == "Queue vod: Success 3"
    assert drawn(bars({}, SLOTS, says="Queue vod")).attrib["aria-label"] == "Queue vod: nothing"


def test_names_are_text_whatever_they_hold() -> None:
    svg = bars({'<script>"&': [1, 0, 0]}, SLOTS, says='"><script>alert(1)</script>')
    assert "<script>" not in svg
    assert drawn(svg).attrib["aria-label"].startswith('"><script>alert(1)</script>: <script>"&')


def test_nothing_at_all_is_an_empty_chart() -> None:
    assert drawn(bars({}, [], says="x")).findall("rect") == []
