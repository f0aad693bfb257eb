from __future__ import annotations

import json

import pytest

from bridge.shallow_json import DEEPEST, loads


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_what_nests_more_deeply_than_the_bound_is_refused(opening: str, closing: str) -> None:
    levels = DEEPEST // sum(map(opening.count, "[{"))
    assert loads(f"{opening * levels}1{closing * levels}")
    for deep in (f"{opening * (levels + 1)}1{closing * (levels + 1)}", opening * 100_000):
        with pytest.raises(ValueError, match="nests too deeply; the limit is 100 levels"):
            loads(deep)


@pytest.mark.parametrize("text", ["[" * 200, '\\"[' * 200, "]" * 200 + "[" * 150, "\\", '"'])
def test_brackets_inside_of_a_text_do_not_nest(text: str) -> None:
    assert loads(json.dumps({text: [text]})) == {text: [text]}


def test_what_stands_beside_each_other_does_not_nest() -> None:
    assert loads(json.dumps([[{}]] * 1000)) == [[{}]] * 1000


@pytest.mark.parametrize("text", ["", "]" * 200, '"' + "[" * 200, "]]" + "[" * 102, '{"a": 1'])
def test_what_is_no_json_is_refused_as_ever(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra"):
        loads(text)
