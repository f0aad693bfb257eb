"""How pages show values, rules and silences."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from bridge.admin.pages.routes import moment as moment_of
from bridge.admin.pages.texts import ago, gate, moment, rule_lines, scope_lines, span, with_times
from bridge.decide.rules.gates import read_scope
from tests.support.admin_world import RULES, a_book
from tests.support.nouns import NOON


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"), (0.4, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3599, "59 min"), (3600, "1 h"),
        (5400, "1 h 30 min"), (86400, "1 d"), (90000, "1 d 1 h"), (864000 * 4, "40 d"), (None, "–"),
    ],
)  # fmt: skip
def test_a_span_is_said_in_its_largest_units(seconds: float | None, said: str) -> None:
    assert span(seconds) == said


def test_past_and_future_times_are_relative_to_now() -> None:
    assert ago(NOON - timedelta(minutes=3), NOON) == "3 min ago"
    assert ago(NOON + timedelta(hours=2), NOON) == "in 2 h"
    assert ago(NOON, NOON) == "now"


def test_a_time_is_there_for_the_browser_and_for_who_has_no_script() -> None:
    said = moment("2026-11-21T11:59:00.500Z", NOON)
    assert 'datetime="2026-11-21T11:59:00.500Z"' in said
    assert "2026-11-21 11:59:00 UTC" in said
    assert "1 min ago" in said
    assert "–" in moment(None, NOON)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", NOON - timedelta(hours=2)),
        ("2026-11-21 09:00", NOON - timedelta(hours=3)),
        ("2026-11-21T09:00:00Z", NOON - timedelta(hours=3)),
        ("2026-11-21T17:00:00+08:00", NOON - timedelta(hours=3)),
    ],
)
def test_a_filter_takes_times_as_people_write_them(text: str, at: datetime) -> None:
    assert moment_of(text, NOON) == at


def test_a_filter_says_what_a_time_would_be() -> None:
    with pytest.raises(ValueError, match=r'neither a time such as "2026-11-21 09:00" .* nor how long ago'):
        moment_of("yesterday", NOON)


def test_times_within_a_sentence_are_shown_as_all_others_and_the_rest_is_text() -> None:
    said = with_times("due at 2026-11-21T12:05:00Z <b>, not 2026-13-41T12:00:00Z", NOON)
    assert said.startswith('due at <time datetime="2026-11-21T12:05:00.000Z">')
    assert "in 5 min" in said
    assert said.endswith("&lt;b&gt;, not 2026-13-41T12:00:00Z")


@pytest.mark.parametrize(
    ("held_by", "said"),
    [
        ("mute:quiet: nights", "the mute quiet: nights"),
        ("silence:sil_1", "the silence sil_1"),
        ("group:all", "the digest of rule all"),
        ("throttle:all", "the throttle of rule all"),
        ("flood:slack channel C1", "the flood of messages for slack channel C1"),
        ("fallback:cms", "the digest of what was not delivered to cms"),
    ],
)
def test_what_held_a_message_is_said_in_words(held_by: str, said: str) -> None:
    assert gate(held_by) == said


# --- rules and silences in words -------------------------------------------------------------------------------------


def said(rule: str) -> dict[str, str]:
    book = a_book(RULES + f'[[rule]]\nname = "x"\nnotify = "cms"\n{rule}')
    return dict(rule_lines(book.rules[-1], book.queue_names))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("", "changes its state"),
        ('to = "Failed"', "becomes Failed"),
        ('to = "done"', "becomes Cancel, Failed or Success"),
        ('from = "active"\nto = "gone"', "goes from active to gone"),
        ('from = ["Running", "Pause"]', "leaves Pause or Running"),
        ('in = "Running"\nfor = "30m"', "has been Running for 30 min"),
        (
            'in = "active"\nfor = "30m"\nrepeat = "1h30m"\nrecover = true',
            "has been active for 30 min, again every 1 h 30 min, and when it leaves that state",
        ),
    ],
)
def test_when_a_rule_fires_is_said_in_words(rule: str, words: str) -> None:
    assert said(rule)["When a job"] == words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('to = "Failed"\ncount = "> 4"\nwithin = "10m"', "5 jobs or more become Failed within 10 min"),
        ('to = "Failed"\ncount = ">= 3"\nin_a_row = true', "3 jobs or more become Failed in a row"),
        (
            'to = "Failed"\nshare = "> 20% of 50"\nwithin = "1h"',
            "more than 20 % of the last 50 jobs that ended within 1 h are Failed",
        ),
        ('absent = "Success"\nfor = "2h"', "no job has become Success for 2 h"),
        (
            'absent = "Success"\nfor = "2h"\nbetween = "09:00-18:00"',
            "no job has become Success for 2 h, counted at 09:00-18:00",
        ),
        ('in = "Submitted"\nfor = "10m"\ncount = ">= 50"', "50 jobs or more have been Submitted for 10 min"),
        (
            'all = "Success"\nby = ["input"]\nsettle = "1m"',
            "all jobs are Success, and no other has come for 1 min",
        ),
        (
            'all = "done"\nby = ["input"]\nexpect = "{{ job.user_data.parts }}"',
            "all jobs are done, and there are as many as they say",
        ),
    ],
)
def test_when_a_rule_over_several_jobs_fires_is_said_in_words(rule: str, words: str) -> None:
    assert said(rule)["When"] == words


def test_what_becomes_of_an_incident_is_said_in_words() -> None:
    sick = 'to = "Failed"\ncount = ">= 3"\nwithin = "10m"\nby = ["queue", "tag"]\nrecover = true\n'
    words = said(f'{sick}escalate = {{ after = "30m", notify = "ops/1" }}')
    assert (words["For each"], words["When it is over"]) == ("queue and tag", "notifies again")
    assert words["Escalates"] == "to ops/1 after 30 min, unless acknowledged or over"
    backlog = '[[rule]]\nname = "y"\nnotify = "cms"\nin = "Submitted"\nfor = "10m"\ncount = "> 50"\nunless = "x"\n'
    assert said(f'{sick}{backlog}by = ["queue", "tag"]')["Unless"] == "rule x has an open incident for it"


def test_when_a_rule_about_watches_fires_is_said_in_words() -> None:
    words = said('blind = "10m"\nmatch.watch = "vod"')
    assert words["When a watch"] == "has had no complete poll for 10 min, and when it has one again"
    assert (words["watch"], "When a job" in words) == ("vod", False)


@pytest.mark.parametrize(
    ("rule", "field", "words"),
    [
        ('match.queue = "vod"', "queue", "vod"),
        ('match.tag = ["a*", "b", "!c", "!d"]', "tag", "a* or b; not c or d"),
        ("match.message = false", "message", "is absent"),
        ('match.wait = "<= 90s"', "wait", "at most 1 min 30 s"),
        ('throttle = "1000/5m"', "At most", "1,000 in 5 min for each notifier; the rest is sent in a digest"),
        ('group = { wait = "5m" }', "Collected", "one digest, sent 5 min after the first message"),
        ('mention = ["U024BE7LH", "here"]', "Mentions", "U024BE7LH, here"),
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
