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


def test_without_a_base_there_are_none():
    assert {NO_LINKS.overview(), NO_LINKS.job("j1"), NO_LINKS.digest("d1"), NO_LINKS.silence("r")} == {None}


@pytest.mark.parametrize("name", ["a b", "x?y=1", "a#b", "<b|c>", "é&rule=other", "a%2fb", "a\nb", 'a"b'])
def test_a_name_cannot_leave_its_place_in_an_address(name):
    for link in (LINKS.job(name), LINKS.silence(name)):
        assert link is not None
        path = link.removeprefix("https://bridge.example.com/jobs/").removeprefix(
            "https://bridge.example.com/silences/add?rule="
        )
        assert not set(path) & set(' ?#<>|&\n"=é')
