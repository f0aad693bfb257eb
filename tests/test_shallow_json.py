from __future__ import annotations

import json

import pytest

from bridge.shallow_json import DEEPEST, loads


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_deeper_nesting_than_the_limit_is_refused(opening: str, closing: str) -> None:
    levels = DEEPEST // sum(map(opening.count, "[{"))
    assert loads(f"{opening * levels}1{closing * levels}")
    for deep in (f"{opening * (levels + 1)}1{closing * (levels + 1)}", opening * 100_000):
        with pytest.raises(ValueError, match="nests too deeply; the limit is 100 levels"):
            loads(deep)


@pytest.mark.parametrize("text", ["[" * 200, '\\"[' * 200, "]" * 200 + "[" * 150, "\\", '"'])
def test_brackets_inside_a_string_do_not_count(text: str) -> None:
    assert loads(json.dumps({text: [text]})) == {text: [text]}


def test_siblings_do_not_count_as_nesting() -> None:
    assert loads(json.dumps([[{}]] * 1000)) == [[{}]] * 1000


@pytest.mark.parametrize("text", ["", "]" * 200, '"' + "[" * 200, "]]" + "[" * 102, '{"a": 1'])
def test_invalid_json_is_refused_as_by_the_standard_library(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra"):
        loads(text)
