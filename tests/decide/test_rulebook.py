from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from bridge.model import GONE, NEW, Rate, SlackNotifier, WebhookNotifier
from tests.support.nouns import SECRET, a_job, a_rulebook, a_transition
from tests.support.rules_texts import HOOK, RULE, WATCH, notifier, rule

EXAMPLE = Path(__file__).parents[2] / "rules.toml"
EXAMPLE_ENV = {"SLACK_BOT_TOKEN": "xoxb-1-SECRET", "CMS_URL": "https://x.example.com/SECRET", "CMS_SECRET": SECRET}


def test_the_example_is_right():
    book = a_rulebook(EXAMPLE.read_text(), EXAMPLE_ENV)
    assert book.warnings == ()
    assert [watch.name for watch in book.watches] == ["media"]
    assert [found.name for found in book.rules] == ["failed", "finished", "stuck"]
    assert set(book.notifiers) == {"ops", "cms"}
    assert set(book.templates) == {"failed"}


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


def test_a_watch_is_a_stream_for_each_tag_and_queue_and_a_queue_goes_by_its_alias():
    text = '[alias.queue]\nvod = "p22"\n' + WATCH.replace('["Transcode"]', '["Transcode", "Snapshot"]')
    (watch,) = a_rulebook(f'{text}queues = ["vod", "p22", "p33"]\n{RULE}').watches
    streams = [(stream.tag, stream.queue) for stream in watch.streams]
    assert streams == [("Transcode", "p22"), ("Transcode", "p33"), ("Snapshot", "p22"), ("Snapshot", "p33")]


def test_a_rule_without_from_and_to_hears_of_everything():
    matcher = a_rulebook(WATCH + RULE).matcher
    assert all(matcher.match(a_transition(to=to, was=was)) for to in ("Running", "Odd", GONE) for was in (NEW, "Pause"))


def test_a_slack_bot_sends_one_at_a_time_and_one_a_second():
    text = notifier('type = "slack"', 'channel = "C1"', 'token = { env = "TOKEN" }', 'thread = "job"')
    bot = a_rulebook(WATCH + RULE + text, {"TOKEN": " xoxb-1\n"}).notifiers["hook"]
    assert isinstance(bot, SlackNotifier)
    assert (bot.token, bot.thread, bot.max_in_flight) == ("xoxb-1", "job", 1)
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


def test_aliases_name_queues_in_rules_too():
    text = '[alias.queue]\nvod = "p22"\n' + rule('match.queue = "vod"')
    matcher = a_rulebook(text).matcher
    assert matcher.match(a_transition(a_job(queue="p22")))
    assert not matcher.match(a_transition(a_job(queue="p33")))


def test_the_same_text_has_the_same_sha():
    assert a_rulebook(WATCH + RULE).sha == a_rulebook(WATCH + RULE).sha != a_rulebook(WATCH + RULE + "# x").sha


def test_five_thousand_rules_are_read_and_each_knows_its_line():
    rules = "".join(f'[[rule]]\nname = "r{n}"\nmatch.tag = "Transcode"\nnotify = "hook"\n' for n in range(5000))
    book = a_rulebook(rules + WATCH)
    assert [found.line for found in book.rules] == list(range(1, 20_001, 4))
