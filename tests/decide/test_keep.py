from datetime import timedelta

import pytest

from tests.support.nouns import a_rulebook
from tests.support.rules_texts import RULE, WATCH, faults

REST = WATCH + RULE


def test_what_ended_is_kept_for_a_month_and_dead_letters_for_three():
    book = a_rulebook(REST)
    assert (book.keep, book.keep_dead) == (timedelta(days=30), timedelta(days=90))


def test_how_long_is_kept_can_be_said():
    book = a_rulebook(f'[defaults]\nkeep = "1d"\nkeep_dead = "36h"\n{REST}')
    assert (book.keep, book.keep_dead) == (timedelta(days=1), timedelta(hours=36))


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ('keep = "23h"', '2: [defaults], key "keep": 23 h is too short: "1d" is the least'),
        ('keep = "month"', '2: [defaults], key "keep": "month" is not a duration; write for example "30s", "45m", '
         '"1h30m" or "7d"'),
        ("keep = 30", '2: [defaults], key "keep": 30 is not a text such as "30s" or "45m"'),
        ('keep_dead = "29d"', '2: [defaults], key "keep_dead": 29 days is less than keep, 30 days: dead letters are '
         "kept as long at least"),
        ('keep = "120d"', '1: [defaults], key "keep_dead": 90 days is less than keep, 120 days: dead letters are '
         "kept as long at least"),
        ('lookback = "36d"', '2: [defaults], key "lookback": 36 days is more than keep, 30 days: jobs that were '
         "pruned would look new"),
    ],
)  # fmt: skip
def test_what_is_kept_too_short_a_time_is_refused(defaults, said):
    assert faults(f"[defaults]\n{defaults}\n{REST}") == [said]


def test_a_watch_looks_back_no_further_than_jobs_are_kept():
    text = f'[defaults]\nkeep = "36h"\n{WATCH}lookback = "48h"\n{RULE}'
    said = 'key "lookback": 2 days is more than keep, 1.5 days: jobs that were pruned would look new'
    assert faults(text) == [f'8: watch "vod", {said}']
    assert a_rulebook(text.replace("48h", "36h")).watches[0].lookback == timedelta(hours=36)
