"""Rules and scopes in words."""

from __future__ import annotations

import pytest

from bridge.admin.pages.texts import rule_lines, scope_lines
from bridge.decide.rules.gates import read_scope
from tests.support.admin_world import RULES, a_book


def said(rule: str) -> dict[str, str]:
    book = a_book(RULES + f'[[rule]]\nname = "x"\nnotify = "cms"\n{rule}')
    return dict(rule_lines(book.rules[-1], book.queue_names))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("", "changes its state"),
        ('to = "Failed"', "becomes Failed"),
        ('to = "done"', "becomes Cancel, Failed or Success"),
        ('from = "active"\nto = "gone"', "goes from unfinished to gone"),
        ('from = ["Running", "Pause"]', "leaves Pause or Running"),
        ('in = "Running"\nfor = "30m"', "has been Running for 30 min"),
        (
            'in = "active"\nfor = "30m"\nrepeat = "1h30m"\nrecover = true',
            "has been unfinished for 30 min, again every 1 h 30 min, and when it leaves that state",
        ),
    ],
)
def test_when_a_rule_fires_is_said_in_words(rule: str, words: str) -> None:
    assert said(rule)["When a job"] == words


@pytest.mark.parametrize(
    ("rule", "field", "words"),
    [
        ('match.queue = "vod"', "queue", "vod"),
        ('match.tag = ["a*", "b", "!c", "!d"]', "tag", "a* or b; not c or d"),
        ("match.message = false", "message", "is absent"),
        ('match.wait = "<= 90s"', "wait", "at most 1 min 30 s"),
        ('throttle = "1000/5m"', "At most", "1,000 in 5 min for each notifier; the rest is sent in a digest"),
        ('group = { wait = "5m" }', "Collected", "one digest, sent 5 min after the first message"),
        ("stop = true", "Then", "the rules below are not evaluated for what this one matched"),
    ],
)
def test_what_else_it_asks_for_and_does(rule: str, field: str, words: str) -> None:
    assert said(rule)[field] == words


def test_a_long_list_is_cut() -> None:
    tags = ", ".join(f'"t{number}"' for number in range(100))
    assert said(f"match.tag = [{tags}]")["tag"].endswith("t18, t19 or one of 80 more")


def test_a_scope_of_everything_has_no_words() -> None:
    assert scope_lines(read_scope({}), {}) == []
    assert scope_lines(read_scope({"notifier": ["b", "a"]}), {}) == [("Notifier", "a or b")]
