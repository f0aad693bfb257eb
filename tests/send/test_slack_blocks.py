import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.send.slack.blocks import blocks, fit, lateness, plain
from tests.support.receivers import NOON, a_delivery
from tests.support.strict_slack import refusal_of

LONG = st.one_of(st.text(max_size=50), st.sampled_from(["&<>" * 5000, "x" * 20_000, "转" * 9000, "a&" * 4000]))


def texts(shown: list[dict[str, Any]]) -> list[str]:
    found = []
    for block in shown:
        found += [piece["text"] for piece in block.get("fields", []) + block.get("elements", [])]
        found += [block["text"]["text"]] if "text" in block else []
    return found


def test_a_message_has_its_title_text_fields_and_origin() -> None:
    text, shown = blocks(a_delivery(), NOON)
    assert text == "❌ Transcode failed: demo.mp4\nbad input"
    assert texts(shown) == [
        "❌ *Transcode failed: demo.mp4*\nbad input",
        "*queue*\nvod",
        "j1 · failed · d_1",
    ]


@pytest.mark.parametrize(
    ("state", "mark"),
    [("Success", "✅"), ("Failed", "❌"), ("Pause", "⏸"), ("Cancel", "🚫"), ("Running", "▶"),
     ("Submitted", "🕓"), ("gone", "❓"), ("Novel", "❓"), (None, "❓")],
)  # fmt: skip
def test_each_state_has_its_mark(state: str | None, mark: str) -> None:
    assert blocks(a_delivery(says={"state": state}), NOON)[0].startswith(mark)


@pytest.mark.parametrize(
    ("says", "mark"),
    [({"digest": True}, "📋"), ({"digest": False}, "❓"), ({}, "❓"), ({"digest": True, "state": "Failed"}, "❌")],
)
def test_a_digest_has_a_mark_of_its_own(says: dict[str, Any], mark: str) -> None:
    delivery = a_delivery(says={"state": None, "title": "12 jobs", "text": "vod: 12", **says})
    text, shown = blocks(delivery, NOON)
    assert text == f"{mark} 12 jobs\nvod: 12"
    assert texts(shown)[0] == f"{mark} *12 jobs*\nvod: 12"
    assert plain(delivery, NOON).startswith(f"{mark} 12 jobs\nvod: 12")


def test_data_cannot_mention_people_or_make_links() -> None:
    evil = "<!channel> & <https://evil.example|click>"
    says = {"title": evil, "text": evil, "fields": [[evil, evil]], "rule": evil, "job_id": evil}
    text, shown = blocks(a_delivery(says=says, note=evil), NOON)
    for piece in (text, *texts(shown), plain(a_delivery(says=says, note=evil), NOON)):
        assert "<" not in piece
        assert ">" not in piece
        assert "&lt;!channel&gt; &amp;" in piece


@pytest.mark.parametrize(
    "sign", ["\u202e", "\u2066", "\u200f", "\u061c", "\x1b", "\x00", "\x85", "\x9b", "\u2028", "\x1f"]
)
def test_what_would_act_unseen_is_spelt_out(sign: str) -> None:
    evil, shown_as = f"photo{sign}gpj.exe", f"photo{sign.encode('unicode_escape').decode()}gpj.exe"
    says = {"title": evil, "text": f"{evil}\nsecond\tline", "fields": [[evil, evil]], "rule": evil, "job_id": evil}
    delivery = a_delivery(says=says, note=evil)
    text, shown = blocks(delivery, NOON)
    for piece in (text, *texts(shown), plain(delivery, NOON)):
        assert sign not in piece
        assert shown_as in piece
    assert "\nsecond\tline" in text


def test_joiners_that_languages_need_stay() -> None:
    says = {"title": "می\u200cخواهم", "text": "क्\u200dष 👩\u200d👧"}
    assert blocks(a_delivery(says=says), NOON)[0] == "❌ می\u200cخواهم\nक्\u200dष 👩\u200d👧"


def test_data_is_shown_verbatim_and_the_look_alike_takes_it() -> None:
    says = {"title": "@here", "text": "see https://evil.example #general", "fields": [["who", "@channel"]]}
    text, shown = blocks(a_delivery(says=says, note="@all"), NOON)
    pieces = [block["text"] for block in shown if "text" in block]
    pieces += [piece for block in shown for piece in block.get("fields", []) + block.get("elements", [])]
    assert len(pieces) == 4
    assert all(piece["verbatim"] is True for piece in pieces)
    assert refusal_of(text, shown) is None


@pytest.mark.parametrize(
    ("late", "sentence"),
    [
        (timedelta(hours=3, minutes=2), "Delivered late: this happened at 2026-11-21 08:58 UTC, 3 h 2 min ago."),
        (timedelta(minutes=6), "Delivered late: this happened at 2026-11-21 11:54 UTC, 6 min ago."),
        (timedelta(days=2, hours=1, minutes=9), "Delivered late: this happened at 2026-11-19 10:51 UTC, 2 d 1 h ago."),
        (timedelta(minutes=5), None),
        (timedelta(hours=-1), None),
    ],
)
def test_a_message_is_late_after_five_minutes_and_says_so_in_its_two_largest_units(
    late: timedelta, sentence: str | None
) -> None:
    assert lateness(NOON - late, NOON) == sentence
    assert sentence is None or sentence in texts(blocks(a_delivery(happened_at=NOON - late), NOON)[1])


def test_a_note_is_shown() -> None:
    assert "could not be sent to ops" in texts(blocks(a_delivery(note="could not be sent to ops"), NOON)[1])


def test_a_message_with_nothing_to_say_is_still_one_that_slack_takes() -> None:
    says = {"title": None, "text": None, "fields": [["", ""]], "state": None, "rule": None, "job_id": None}
    _, shown = blocks(a_delivery(says=says), NOON)
    assert texts(shown) == ["❓ *(no title)*", "*-*\n-", "d_1"]


@settings(max_examples=50)
@given(LONG, LONG, st.lists(st.tuples(LONG, LONG), max_size=15), LONG, LONG)
def test_no_text_is_too_long_for_slack(
    title: str, text: str, fields: list[tuple[str, str]], rule: str, note: str
) -> None:
    says = {"title": title, "text": text, "fields": fields, "rule": rule, "job_id": rule}
    delivery = a_delivery(says=says, note=note, happened_at=NOON - timedelta(days=3))
    fallback, shown = blocks(delivery, NOON)
    assert len(shown) <= 50
    assert sum(map(len, texts(shown))) + len(fallback) < 12_000
    assert len(plain(delivery, NOON)) <= 3000
    for block in shown:
        assert len(block.get("fields", [])) <= 10
        assert all(0 < len(field["text"]) <= 2000 for field in block.get("fields", []))
        assert 0 < len(block.get("text", {"text": "-"})["text"]) <= 3000
    json.dumps(shown)


@given(st.text("a&<>", max_size=60), st.integers(8, 40))
def test_a_cut_never_leaves_half_of_an_escape(text: str, limit: int) -> None:
    cut = fit(text, limit)
    assert len(cut) <= limit
    rest = cut.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert "&" not in rest
    assert cut.endswith("…") or cut == fit(text, 10_000)
