"""Charts: what they show is what was counted, and nothing in them is believed."""

from __future__ import annotations

import re
from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest
from markupsafe import Markup

from bridge.admin.pages.overview import HEIGHT, WIDTH, bars
from tests.support.nouns import NOON

SLOTS = [NOON + timedelta(hours=n) for n in range(3)]
BAR = re.compile(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-([\d.]+)z")


def drawn(svg: Markup) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  (our own)


def boxes(svg: Markup) -> dict[str, list[tuple[float, float, float, float]]]:
    """Return (left, top, width, height) of each bar, by what its path is titled."""
    paths = [path for path in drawn(svg).findall("path") if path.attrib["class"] != "axis"]
    found = {}
    for path in paths:
        bars_ = [tuple(map(float, one)) for one in BAR.findall(path.attrib["d"])]
        found[str(path.findtext("title"))] = [(left, top, wide, tall) for left, top, wide, tall, _ in bars_]
    return found


def test_a_bar_is_as_high_as_its_count() -> None:
    found = boxes(bars({"Success": [1, 0, 2], "Failed": [0, 0, 2]}, SLOTS, label="vod"))
    one, two = found["Success 3"]
    (other,) = found["Failed 2"]
    assert two[3] == pytest.approx(2 * one[3], abs=0.2)
    assert other[3] == two[3]
    assert one[0] < two[0] == other[0]


def test_bars_of_a_slot_stand_on_each_other_and_stay_inside() -> None:
    found = boxes(bars({"Success": [0, 0, 3], "Failed": [0, 0, 4]}, SLOTS, label="vod"))
    (lower,), (upper,) = found["Success 3"], found["Failed 4"]
    assert upper[1] + upper[3] == pytest.approx(lower[1], abs=0.2)
    for left, top, wide, tall in (lower, upper):
        assert 0 <= top <= top + tall <= HEIGHT
        assert 0 <= left <= left + wide <= WIDTH


def test_each_word_has_its_colour_and_an_unknown_one_the_last() -> None:
    paths = drawn(bars({"Success": [1], "Weird": [1]}, SLOTS[:1], label="x")).findall("path")
    assert [path.attrib["class"] for path in paths] == ["axis", "c-success", "c-other"]


def test_who_cannot_see_it_hears_the_sums() -> None:
    assert drawn(bars({"Success": [1, 0, 2]}, SLOTS, label="Queue vod")).attrib["aria-label"] == "Queue vod: Success 3"
    assert drawn(bars({}, SLOTS, label="Queue vod")).attrib["aria-label"] == "Queue vod: nothing"


def test_names_are_text_whatever_they_hold() -> None:
    svg = bars({'<script>"&': [1, 0, 0]}, SLOTS, label='"><script>alert(1)</script>')
    assert "<script>" not in svg
    assert drawn(svg).attrib["aria-label"].startswith('"><script>alert(1)</script>: <script>"&')


def test_nothing_at_all_is_an_empty_chart() -> None:
    assert boxes(bars({}, [], label="x")) == {}
