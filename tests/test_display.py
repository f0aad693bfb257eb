"""Foreign text as people see it."""

from __future__ import annotations

import json

import pytest

from bridge.display import columns, fit, one_line, pad, visible, visible_json

INVISIBLE = [
    chr(code)
    for first, last in (
        (0, 0x1F), (0x7F, 0x9F), (0x61C, 0x61C), (0x200E, 0x200F), (0x2028, 0x202E), (0x2066, 0x2069), (0xD800, 0xDFFF)
    )
    for code in range(first, last + 1)
]  # fmt: skip


def test_invisible_characters_are_escaped() -> None:
    shown = [visible(f"a{character}b") for character in INVISIBLE]
    assert all(text.isprintable() and text.isascii() for text in shown)
    assert len(set(shown)) == len(INVISIBLE)
    assert visible("photo\u202egpj.exe\x1b[2J\n\x9b") == r"photo\u202egpj.exe\x1b[2J\n\x9b"


@pytest.mark.parametrize(
    "text", ["会议录像 café", "می\u200cخواهم", "क्\u200dष", "👩\u200d👧", "שלום", "a\u3000b\u00a0c", "⚠️", r"a\nb"]
)
def test_characters_that_languages_need_stay(text: str) -> None:
    assert visible(text) == visible(text, lines=True) == visible_json(text) == text


def test_a_text_of_lines_keeps_line_breaks_and_tabs_only() -> None:
    assert visible("a\r\nb\n\tc\rd\x0be\u2028f", lines=True) == "a\nb\n\tc\\rd\\x0be\\u2028f"


def test_json_stays_equivalent_with_invisible_characters_escaped() -> None:
    text = "|".join(INVISIBLE) + '"\\\t'
    shown = visible_json(json.dumps({"a": text}, ensure_ascii=False, indent=1))
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == {"a": text}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  b ", "a  b "),
        ("first\r\n\n  second\u2028third\n", "first second third"),
        ("\n", ""),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        ("x" * 200_000, "x" * 199 + "…"),
        ("\n" * 200_000 + "x", "…"),
        ("a\n" + " " * 200_000, "a…"),
    ],
)
def test_a_list_has_one_line_of_200_characters_of_a_text(text: str, shown: str) -> None:
    assert one_line(text) == shown


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("电影预告", 8, "电影预告"),
        ("电影预告片", 8, "电影预…"),
        ("e\u0301" * 9, 9, "e\u0301" * 9),
    ],
)
def test_a_cell_is_cut_to_its_columns(text: str, limit: int, shown: str) -> None:
    assert fit(text, limit) == shown
    assert columns(fit(text, limit)) <= limit
    assert columns(pad(shown, limit)) == limit


def test_wide_characters_take_two_columns() -> None:
    assert [columns(text) for text in ("abc", "电影", "ｱ", "e\u0301", "👩\u200d👧")] == [3, 4, 1, 1, 2]
