from __future__ import annotations

import pytest

from bridge.links import NO_LINKS, Links

LINKS = Links("https://bridge.example.com")


def test_links_are_those_of_the_pages():
    assert LINKS.overview() == "https://bridge.example.com/"
    assert LINKS.job("j8d1") == "https://bridge.example.com/jobs/j8d1"
    assert LINKS.delivery("dlv_1") == "https://bridge.example.com/deliveries/dlv_1"
    assert LINKS.digest("dlv_1") == "https://bridge.example.com/deliveries?digest=dlv_1"
    assert LINKS.silence("failed") == "https://bridge.example.com/silences/add?rule=failed"


def test_the_console_needs_no_base():
    there = "https://console.cloud.tencent.com/ci/bucket?bucket=media-1250000000&region=ap-chongqing"
    assert NO_LINKS.console(bucket="media-1250000000", region="ap-chongqing") == there


def test_without_a_base_there_are_none():
    assert {NO_LINKS.overview(), NO_LINKS.job("j1"), NO_LINKS.digest("d1"), NO_LINKS.silence("r")} == {None}


@pytest.mark.parametrize("name", ["a b", "x?y=1", "a#b", "<b|c>", "é&rule=other", "a%2fb", "a\nb", 'a"b'])
def test_a_name_cannot_leave_its_place_in_an_address(name):
    job, silence = LINKS.job(name) or "", LINKS.silence(name) or ""
    for rest in (job.removeprefix(f"{LINKS.base}/jobs/"), silence.removeprefix(f"{LINKS.base}/silences/add?rule=")):
        assert not set(rest) & set(' ?#<>|&=\n"é:/')
