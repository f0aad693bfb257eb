import re
import tomllib
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bridge.decide.rulesfile.errors import Lines
from bridge.decide.whatif.rule_tests import run
from bridge.model import Rate
from bridge.notifiers import SlackNotifier, WebhookNotifier
from tests.support.nouns import SECRET, a_rulebook
from tests.support.rules_texts import HOOK, RULE, WATCH, faults, notifier

EXAMPLE = Path(__file__).parents[3] / "rules.toml"
EXAMPLE_ENV = {"SLACK_BOT_TOKEN": "xoxb-1-SECRET", "CMS_URL": "https://x.example.com/SECRET", "CMS_SECRET": SECRET}


def test_the_example_is_right():
    book = a_rulebook(EXAMPLE.read_text(), EXAMPLE_ENV)
    assert book.warnings == ()
    assert [watch.name for watch in book.watches] == ["media"]
    assert [found.name for found in book.rules] == ["failed", "finished", "stuck"]
    assert set(book.notifiers) == {"ops", "cms"}
    assert set(book.templates) == {"failed"}


def test_what_the_example_suggests_in_comments_is_right_and_fits_its_tests():
    book = a_rulebook(
        re.sub(r"^# (?=\[\[rule\]\]|[a-z.]+ +=)", "", EXAMPLE.read_text(), flags=re.MULTILINE), EXAMPLE_ENV
    )
    assert book.warnings == ()
    assert [found.name for found in book.rules] == ["old news", "failed", "finished", "stuck"]
    assert (len(book.tests), run(book)) == (1, [])


def test_what_a_file_leaves_out_has_its_default():
    book = a_rulebook(WATCH + RULE)
    (watch,) = book.watches
    assert (watch.every, watch.lookback, watch.announce_first) == (timedelta(seconds=30), timedelta(hours=24), False)
    assert (book.zone, book.rate) == (ZoneInfo("UTC"), Rate(count=5, per=timedelta(seconds=1)))
    hook = book.notifiers["hook"]
    assert isinstance(hook, WebhookNotifier)
    assert (hook.retry, hook.order, hook.max_in_flight, hook.secrets) == (timedelta(hours=24), "job", 4, (SECRET,))


def test_a_watch_overrides_the_defaults():
    defaults = '[defaults]\nevery = "1m"\nlookback = "2h"\non_first_run = "announce"\n'
    (watch,) = a_rulebook(f'{defaults}{WATCH}every = "5m"\n{RULE}').watches
    assert (watch.every, watch.lookback, watch.announce_first) == (timedelta(minutes=5), timedelta(hours=2), True)


@pytest.mark.parametrize(
    ("defaults", "watch", "idle"),
    [
        ("", "", None),
        ('idle = "5m"', "", 5),
        ("", 'idle = "5m"', 5),
        ('idle = "5m"', 'idle = "7m"', 7),
        ('idle = "5m"', 'every = "10m"', None),  # it is polled less often anyway
        ("", 'idle = "30s"', None),
    ],
)
def test_what_is_idle_may_be_polled_less_often(defaults, watch, idle):
    (found,) = a_rulebook(f"[defaults]\n{defaults}\n{WATCH}{watch}\n{RULE}").watches
    assert found.idle == (idle and timedelta(minutes=idle))


def test_what_is_idle_is_not_polled_more_often():
    said = 'key "idle": 10 s is less than every (30 s): quiet tags are to be polled less often, not more'
    assert faults(f'{WATCH}idle = "10s"\n{RULE}') == [f'6: watch "vod", {said}']
    assert faults(f'[defaults]\nidle = "10s"\n{WATCH}{RULE}') == [f"2: [defaults], {said}"]


def test_a_watch_is_a_stream_for_each_tag_and_queue_and_a_queue_goes_by_its_alias():
    text = '[alias.queue]\nvod = "p22"\n' + WATCH.replace('["Transcode"]', '["Transcode", "Snapshot"]')
    (watch,) = a_rulebook(f'{text}queues = ["vod", "p22", "p33"]\n{RULE}').watches
    streams = [(stream.tag, stream.queue) for stream in watch.streams]
    assert streams == [("Transcode", "p22"), ("Transcode", "p33"), ("Snapshot", "p22"), ("Snapshot", "p33")]


def test_a_slack_bot_sends_one_a_second_and_does_not_wait_for_slow_answers():
    text = notifier('type = "slack"', 'channel = "C1"', 'token = { env = "TOKEN" }', 'thread = "job"')
    bot = a_rulebook(WATCH + RULE + text, {"TOKEN": " xoxb-1\n"}).notifiers["hook"]
    assert isinstance(bot, SlackNotifier)
    assert (bot.token, bot.thread, bot.max_in_flight, bot.flood) == ("xoxb-1", "job", 16, 20)
    assert bot.rate == Rate(count=1, per=timedelta(seconds=1))


def test_two_secrets_sign_while_they_are_rotated():
    text = WATCH + RULE + HOOK + 'secret = { env = ["A", "B"] }'
    hook = a_rulebook(text, {"A": SECRET, "B": SECRET[:-4] + "AAAA"}).notifiers["hook"]
    assert isinstance(hook, WebhookNotifier)
    assert hook.secrets == (SECRET, SECRET[:-4] + "AAAA")


def test_a_header_may_come_from_the_environment():
    text = WATCH + RULE + HOOK + 'headers = { "X-Team" = "media", Authorization = { env = "A" } }'
    hook = a_rulebook(text, {"A": "Bearer x"}).notifiers["hook"]
    assert isinstance(hook, WebhookNotifier)
    assert hook.headers == (("X-Team", "media"), ("Authorization", "Bearer x"))


def test_the_same_text_has_the_same_sha():
    assert a_rulebook(WATCH + RULE).sha == a_rulebook(WATCH + RULE).sha != a_rulebook(WATCH + RULE + "# x").sha


TEXT = '''# a comment, and [[rule]] in it

[defaults]
every = "30s"

[alias.queue]
vod = "p1"
[[watch]]
name = "a"
tags = [
    "Transcode",   # ]
    "[[watch]]",
]
[[watch]]
name = "b"
[[rule]]
name = "one"
match.tag = "x"
match.user_data.asset_id = true
[rule.match.deep]
key = 1
[[rule]]
name = """
[[rule]]
name = "not this"
"""
match = { tag = "y", queue = [ "q" ] }
  [ "notifier" . ops ]
  "type" = "slack"
[notifier."a.b"]
headers = { "X-Team" = "media" }
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["defaults"], 3),
        (["defaults", "every"], 4),
        (["alias"], 6),
        (["alias", "queue", "vod"], 7),
        (["watch", 0], 8),
        (["watch", 0, "tags"], 10),
        (["watch", 0, "tags", 1], 10),
        (["watch", 1], 14),
        (["watch", 1, "name"], 15),
        (["rule", 0, "match"], 18),
        (["rule", 0, "match", "user_data", "asset_id"], 19),
        (["rule", 0, "match", "deep", "key"], 21),
        (["rule", 1], 22),
        (["rule", 1, "name"], 23),
        (["rule", 1, "match", "queue"], 27),
        (["notifier", "ops"], 28),
        (["notifier", "ops", "type"], 29),
        (["notifier", "a.b", "headers", "X-Team"], 31),
    ],
)
def test_every_table_and_key_has_its_line(path, line):
    assert tomllib.loads(TEXT)
    assert Lines(TEXT).of(path) == line


def test_a_key_that_is_not_there_has_the_line_of_its_table():
    assert Lines(TEXT).of(["rule", 0, "notify"]) == 16


def test_what_is_nowhere_is_on_the_first_line():
    assert Lines(TEXT).of(["template", "x"]) == 1
    assert Lines("").of([]) == 1


def test_only_line_feeds_end_a_line():
    assert Lines('a = 1 # a\u2028b\u0085c\r\nb = "\u2028"\r\nc = 3').of(["c"]) == 3


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
        ('keep = "23h"', '2: [defaults], key "keep": 23 h is too short; the minimum is "1d"'),
        ('keep = "month"', '2: [defaults], key "keep": "month" is not a duration; write for example "30s", "45m", '
         '"1h30m" or "7d"'),
        ("keep = 30", '2: [defaults], key "keep": 30 is not a string such as "30s" or "45m"'),
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
