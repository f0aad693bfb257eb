from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bridge.decide.rulebook import RulesRefused, read
from bridge.model import GONE, NEW, Rate, SlackNotifier, WebhookNotifier
from tests.builders import SECRET, a_job, a_rulebook, a_transition

EXAMPLE = Path(__file__).parents[2] / "rules.toml"
EXAMPLE_ENV = {"SLACK_BOT_TOKEN": "xoxb-1-SECRET", "CMS_URL": "https://x.example.com/SECRET", "CMS_SECRET": SECRET}

WATCH = """\
[[watch]]
name = "vod"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
"""
RULE = """\
[[rule]]
name = "r1"
notify = "hook"
"""
HOOK = """\
[notifier.hook]
type = "webhook"
url = "https://cms.example.com/"
"""


def faults(text: str, env: dict[str, str] | None = None) -> list[str]:
    """Return what is said of a file that is refused, but for warnings and the name of the file."""
    with pytest.raises(RulesRefused) as refused:
        a_rulebook(text, env)
    return [str(f).removeprefix("rules.toml:") for f in refused.value.faults if not f.warning]


def warnings(text: str, env: dict[str, str] | None = None) -> list[str]:
    return [str(warning).removeprefix("rules.toml:") for warning in a_rulebook(text, env).warnings]


def rule(*lines: str) -> str:
    return WATCH + RULE + "\n".join(lines)


def notifier(*lines: str) -> str:
    return "\n".join(("[notifier.hook]", *lines))


# --- a right file -------------------------------------------------------------------------------------


def test_the_example_is_right():
    book = a_rulebook(EXAMPLE.read_text(), EXAMPLE_ENV)
    assert book.warnings == ()
    assert [watch.name for watch in book.watches] == ["media"]
    assert [found.name for found in book.rules] == ["failed", "finished"]
    assert set(book.notifiers) == {"ops", "cms"}
    assert set(book.wordings) == {"failed"}


def test_what_a_file_leaves_out_has_its_default():
    book = a_rulebook(WATCH + RULE)
    (watch,) = book.watches
    assert (watch.every, watch.lookback, watch.announce_first) == (timedelta(seconds=30), timedelta(hours=24), False)
    assert (book.timezone, book.rate) == (ZoneInfo("UTC"), Rate(count=5, per=timedelta(seconds=1)))
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


# --- a wrong file -------------------------------------------------------------------------------------

WRONG = """\
[defaults]
every = "30"
timezone = "Asia/Shangai"

[[watch]]
name = "vod"
bucket = "media"
region = "ap chongqing"
tags = ["Transcode"]
quues = ["vod"]

[[watch]]
name = "vod"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = []

[notifier.ops]
type = "slack"
channel = "C024BE91L"
token = "xoxb-PLAIN"
fallback = "pagr"

[notifier.pager]
type = "webhook"
url = "cms.example.com"
secret = { env = "PAGER_SECRET" }
max_in_flight = 100

[[rule]]
name = "failed"
to = ["Sucess", "Faild"]
match.tga = "Transcode"
match.duration = "45m"
notify = ["opss", "ops"]
stop = "yes"

[[rule]]
from = 5
template = "finishd"

[template.finished]
title = "{{ job.tagg }}"
fields = ["queeu"]
"""


def test_a_wrong_file_is_refused_with_every_fault_at_once_each_with_its_line():
    assert faults(WRONG) == [
        '2: [defaults], key "every": "30" is not a duration; write for example "30s", "45m", "1h30m" or "7d"',
        '3: [defaults], key "timezone": "Asia/Shangai" is not a time zone; write for example "Asia/Shanghai" or "UTC"',
        '7: watch "vod", key "bucket": "media" is not a bucket name with its APPID, such as media-1250000000',
        '8: watch "vod", key "region": "ap chongqing" is not a region, such as ap-chongqing',
        '10: watch "vod", key "quues": is not known here (did you mean "queues"?)',
        '13: watch "vod", key "name": there is a watch of this name already, on line 5',
        '16: watch "vod", key "tags": [] is neither a text nor a list of texts, none of them empty',
        '21: notifier "ops", key "token": a secret comes from the environment: write token = { env = "NAME" }',
        '22: notifier "ops", key "fallback": there is no notifier "pagr" (did you mean "pager"?)',
        '26: notifier "pager", key "url": this is not an http(s) address without user and password, '
        "such as https://cms.example.com/hooks/media",
        '27: notifier "pager", key "secret": environment variable PAGER_SECRET is not set',
        '28: notifier "pager", key "max_in_flight": 100 is too large: 64 is the most',
        '32: rule "failed", key "to": no job state is called "Sucess" (did you mean "Success"?); '
        'no job state is called "Faild" (did you mean "Failed"?)',
        '33: rule "failed", key "match.tga": a job has no "tga" to match (did you mean "tag"?)',
        '34: rule "failed", key "match.duration": "45m" does not compare; write for example "> 45m" or "<= 10s"',
        '35: rule "failed", key "notify": there is no notifier "opss" (did you mean "ops"?)',
        '36: rule "failed", key "stop": "yes" is not true or false',
        '38: rule number 2: "name" is missing',
        '38: rule number 2: "notify" is missing',
        '39: rule number 2, key "from": 5 is neither a text nor a list of texts, none of them empty',
        '40: rule number 2, key "template": there is no template "finishd" (did you mean "finished"?)',
        '43: template "finished", key "title": the template does not render: a job has no "tagg" (did you mean "tag"?)',
        '44: template "finished", key "fields": a job has no field "queeu" (did you mean "queue"?)',
    ]


def test_a_fault_says_its_file_and_line_first():
    with pytest.raises(RulesRefused, match=r'^rules\.toml:1: key "x": is not known here; there are defaults, alias'):
        a_rulebook("x = 1")


def test_many_warnings_do_not_hide_a_fault():
    tags = ", ".join(f'"Unknown{n}"' for n in range(500))
    assert faults(WATCH.replace('"Transcode"', tags) + RULE + "stop = 1") == [
        '9: rule "r1", key "stop": 1 is not true or false'
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = ", "1: this is not TOML: Invalid value (at line 1, column 8)"),
        ("a = 1\nb = 2\nb = 3\n", "3: this is not TOML: Cannot overwrite a value (at line 3, column 6)"),
        ("x = [\n", "1: this is not TOML: Invalid value (at end of document)"),
    ],
)
def test_what_is_not_toml_says_where(text, said):
    with pytest.raises(RulesRefused) as refused:
        read(text, {})
    assert str(refused.value) == f"rules.toml:{said}"


@pytest.mark.parametrize("text", [f"x = {'[' * 5000}", f"x = {'9' * 5000}"])
def test_what_is_toml_but_endless_is_refused_too(text):
    with pytest.raises(RulesRefused, match="^rules.toml:1: this is not TOML: "):
        read(text, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[rule]\nname = "x"', "1: [rule]: write [[rule]] with double brackets: there can be many"),
        ("rule = [1]", "1: rule number 1: 1 is not a table; write [[rule]]"),
        ('rule = "x"', '1: key "rule": write [[rule]] with double brackets: there can be many'),
        ('[watch.vod]\nbucket = "x"', "1: [watch]: write [[watch]] with double brackets: there can be many"),
        ("[[notifier]]\nx = 1", "1: [notifier]: write [notifier.NAME] with single brackets and a name"),
        ("notifier = 3", '1: key "notifier": write [notifier.NAME] with single brackets and a name'),
        (
            '[notifier]\ntype = "slack"',
            '2: notifier "type": is no table; write [notifier.NAME] with a name, and the keys below it',
        ),
        ("[[defaults]]", "1: [defaults]: write [defaults] with single brackets"),
        ("[alias.tag]", '1: [alias], key "tag": only [alias.queue] is known, with lines such as vod = "p2242..."'),
        ("[alias.queue]\nvod = 5", '2: [alias], key "queue.vod": 5 is not the id of a queue'),
        ("[ruls]", '1: [ruls]: is not known here (did you mean "rule"?)'),
    ],
)
def test_tables_of_the_wrong_kind_are_named(text, said):
    with pytest.raises(RulesRefused) as refused:
        read(text, {})
    assert f"rules.toml:{said}" in str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('to = "success"', 'key "to": no job state is called "success" (did you mean "Success"?)'),
        ('to = "new"', 'key "to": no job becomes "new": write from = "new" for a job seen for the first time'),
        ("to = []", 'key "to": [] is neither a text nor a list of texts, none of them empty'),
        ('match = "x"', 'key "match": "x" is not a table'),
        ("match.tag = 5", 'key "match.tag": 5 is not a text, a list of texts, true or false'),
        ("match.user_data = {}", 'key "match.user_data": {} is not a text, a list of texts, true or false'),
        ("match.user_data.k = 5", 'key "match.user_data.k": 5 is not a text, a list of texts, true or false'),
        (
            'match.state = "Failed"',
            'key "match.state": states stand outside of match: write to = "Failed" or from = "Running" in the rule',
        ),
        (
            'match.input = "**.mp4"',
            'key "match.input": "**.mp4": ** stands alone between slashes, as in "uploads/**/*.mp4"',
        ),
        ('throttle = "10/5m"', 'key "throttle": is not run by this version yet; take it out'),
        ('for = "30m"', 'key "for": is not run by this version yet; take it out'),
        ('group.by = ["tag"]', 'key "group": is not run by this version yet; take it out'),
        ('notfy = "x"', 'key "notfy": is not known here (did you mean "notify"?)'),
    ],
)
def test_a_wrong_rule_says_what_would_be_right(line, said):
    assert faults(rule(line)) == [f'9: rule "r1", {said}']


@pytest.mark.parametrize("table", ["[[mute]]", "[[test]]"])
def test_tables_of_the_later_language_are_refused(table):
    assert (
        faults(f"{table}\nname = 'x'\n{rule()}")[0] == f"1: {table[1:-1]}: is not run by this version yet; take it out"
    )


def test_two_rules_of_one_name_are_refused():
    assert faults(WATCH + RULE + RULE) == ['10: rule "r1", key "name": there is a rule of this name already, on line 6']


SIGNED = 'secret = { env = "S" }'


@pytest.mark.parametrize(
    ("lines", "env", "said"),
    [
        (
            ['type = "email"'],
            {},
            '2: notifier "hook", key "type": "email" is no type of notifier; it is "slack" or "webhook"',
        ),
        (["retry = '1h'"], {}, '1: notifier "hook": "type" is missing; it is "slack" or "webhook"'),
        (['type = "webhook"', SIGNED], {"S": SECRET}, '1: notifier "hook": "url" is missing'),
        (
            ['type = "slack"'],
            {},
            '1: notifier "hook": set channel and token (a bot), or url (an incoming webhook): one of the two',
        ),
        (
            ['type = "slack"', 'channel = "C1"'],
            {},
            '1: notifier "hook": channel needs token = { env = "SLACK_BOT_TOKEN" }',
        ),
        (
            ['type = "slack"', 'url = { env = "U" }', "update = true"],
            {"U": "https://hooks.slack.com/x"},
            '4: notifier "hook", key "update": an incoming webhook has no threads and no updates; '
            "they need channel and token",
        ),
        (
            ['type = "slack"', 'url = { env = "U" }', 'token = { env = "U" }'],
            {"U": "https://hooks.slack.com/x"},
            '4: notifier "hook", key "token": an incoming webhook takes no token; '
            "take it out, or write channel for url",
        ),
        (
            ['type = "slack"', 'url = "https://hooks.slack.com/SECRET"'],
            {},
            '3: notifier "hook", key "url": write url = { env = "NAME" }, with the name of an environment variable',
        ),
        (
            ['type = "webhook"', 'url = { env = "U" }'],
            {},
            '3: notifier "hook", key "url": environment variable U is not set',
        ),
        (
            ['type = "webhook"', 'url = { env = "U" }'],
            {"U": "  "},
            '3: notifier "hook", key "url": environment variable U is empty',
        ),
        (
            ['type = "webhook"', 'url = { env = "U" }'],
            {"U": "SECRET"},
            '3: notifier "hook", key "url": the value of U is not an http(s) address without user and password, '
            "such as https://cms.example.com/hooks/media",
        ),
        (
            ['type = "webhook"', 'url = { env = ["U", "V"] }'],
            {"U": "https://a.example.com", "V": "https://b.example.com"},
            '3: notifier "hook", key "url": takes one environment variable; only a secret can have two',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', SIGNED],
            {"S": "whsec_SECRET"},
            '4: notifier "hook", key "secret": the value of S is not whsec_ '
            "followed by the base64 of 24 to 64 random bytes",
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'headers = { "webhook-id" = "x" }'],
            {},
            '4: notifier "hook", key "headers.webhook-id": the bridge sets this header itself',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'headers = { X = "a\\nb" }'],
            {},
            '4: notifier "hook", key "headers.X": a header is a name and one line of text',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'thread = "job"'],
            {},
            '4: notifier "hook", key "thread": is not known here; there are retry, fallback, max_in_flight, '
            "rate, type, url, secret, order, headers, format",
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'order = "jobs"'],
            {},
            '4: notifier "hook", key "order": "jobs" is not one of "job" or "none"',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'body.asset = "x"'],
            {},
            '4: notifier "hook", key "body": is not run by this version yet; take it out',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'fallback = "hook"'],
            {},
            '4: notifier "hook", key "fallback": goes round in a circle: hook -> hook',
        ),
    ],
)
def test_a_wrong_notifier_says_what_would_be_right(lines, env, said):
    assert faults(f"{notifier(*lines)}\n{WATCH}{RULE}", env) == [said]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cms.example.com",
        "ftp://x",
        "https://",
        "https://u:p@x",
        "http://x:0",
        "http://x:99999",
        "https://a b/",
        "http://[x",
    ],
)
def test_what_is_no_address_is_refused(url):
    (said,) = faults("\n".join((notifier('type = "webhook"', f'url = "{url}"'), WATCH, RULE)))
    assert "is not an http(s) address" in said


def test_a_circle_of_fallbacks_names_its_way():
    text = "".join(f'{HOOK.replace(".hook", f".{a}")}fallback = "{b}"\n' for a, b in ("ab", "bc", "cb"))
    said = faults(WATCH + RULE.replace("hook", "a") + text)
    assert [one.partition("circle: ")[2] for one in said] == ["b -> c -> b", "c -> b -> c"]


@pytest.mark.parametrize(
    "line",
    [
        'secret = "whsec_HIDDEN"',
        'secret = ["whsec_HIDDEN"]',
        'secret = { value = "whsec_HIDDEN" }',
        'secret = { env = "whsec_HIDDEN" }',
        'secret = { env = "HIDDEN/+=" }',
        'secret = { env = "S" }',
        'headers = ["Authorization: HIDDEN"]',
        'headers = { Authorization = "HIDDEN" }',
        'headers = { Authorization = { value = "HIDDEN" } }',
        'token = "HIDDEN"',
        'secert = "HIDDEN"',
    ],
)
def test_no_fault_says_a_secret(line):
    said = faults(WATCH + RULE + HOOK + line, {"S": "HIDDEN"})
    assert said
    assert "HIDDEN" not in "\n".join(said)


def test_no_fault_says_a_password_in_an_address():
    for text in (
        WATCH + 'endpoint = "http://u:HIDDEN@proxy"' + RULE,
        WATCH + RULE + HOOK.replace("cms.", "u:HIDDEN@cms."),
    ):
        assert "HIDDEN" not in "\n".join(faults(text))


def test_a_rulebook_shows_no_secret():
    env = {"TOKEN": "xoxb-HIDDEN", "URL": "https://x.example.com/HIDDEN", "S": SECRET, "KEY": "HIDDEN"}
    text = f"""{WATCH}{RULE}
[notifier.hook]
type = "webhook"
url = {{ env = "URL" }}
secret = {{ env = "S" }}
headers = {{ X-Key = {{ env = "KEY" }} }}
[notifier.bot]
type = "slack"
channel = "C1"
token = {{ env = "TOKEN" }}
[notifier.incoming]
type = "slack"
url = {{ env = "URL" }}
"""
    book = repr(a_rulebook(text, env))
    assert "HIDDEN" not in book
    assert SECRET not in book


# --- warnings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RULE, ["1: warning: there is no [[watch]], so nothing is polled"]),
        (
            WATCH,
            [
                "1: warning: there is no [[rule]], so nobody is told",
                '7: warning: notifier "hook": no rule notifies it',
            ],
        ),
        (
            WATCH.replace("Transcode", "transcode") + RULE,
            ['5: warning: watch "vod", key "tags": "transcode" is not a documented tag (did you mean "Transcode"?)'],
        ),
        (
            WATCH.replace("Transcode", "Elephant") + RULE,
            ['5: warning: watch "vod", key "tags": "Elephant" is not a documented tag'],
        ),
        (
            WATCH + 'queue_type = "Transcode"\n' + RULE,
            [
                '6: warning: watch "vod", key "queue_type": "Transcode" is not a documented queue type '
                '(did you mean "Transcoding"?)'
            ],
        ),
        (
            WATCH + RULE + HOOK,
            [
                '9: warning: notifier "hook": without `secret` its messages are not signed; '
                'set secret = { env = "NAME" }'
            ],
        ),
        (
            WATCH + RULE + HOOK + 'secret = { env = ["HOOK_SECRET", "OLD"] }',
            ['12: warning: notifier "hook", key "secret": environment variable OLD is not set, so it signs nothing'],
        ),
        (
            rule('[template.x]\ntext = "{{ job.message.strip() }}"'),
            [
                '9: warning: template "x": no rule uses it',
                '10: warning: template "x", key "text": of a job of which CI says little, the default text is told, '
                "since this does not render: 'None' has no attribute 'strip'",
            ],
        ),
    ],
)
def test_what_is_surely_not_meant_is_a_warning(text, said):
    assert warnings(text) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'to = "Kaputt"',
            'key "to": no state "Kaputt" is documented; there are Submitted, Running, Success, Failed, Pause, Cancel, '
            "new, gone, done, active, *",
        ),
        ('from = "done"', 'key "from": never fires: a job that ended changes no more'),
        ('match.tag = "Transcod"', 'key "match.tag": no watch polls the tag "Transcod" (did you mean "Transcode"?)'),
        ('match.tag = "Concat"', 'key "match.tag": no watch polls the tag "Concat"; there are Transcode'),
        ('match.watch = "vid"', 'key "match.watch": there is no watch "vid" (did you mean "vod"?)'),
        (
            'match.bucket = "media"',
            'key "match.bucket": no watch polls the bucket "media"; there are media-1250000000',
        ),
    ],
)
def test_a_rule_that_can_never_fire_is_a_warning(line, said):
    assert warnings(rule(line)) == [f'9: warning: rule "r1", {said}']


def test_a_queue_that_is_nearly_an_alias_is_a_warning():
    aliases = '[alias.queue]\nlectures = "p22"\n'
    near = '"lecture" is not in [alias.queue], so it is taken for the id of a queue (did you mean "lectures"?)'
    assert warnings(aliases + rule('match.queue = "lecture"')) == [f'11: warning: rule "r1", key "match.queue": {near}']
    assert warnings(f'{aliases}{WATCH}queues = ["lecture"]\n{RULE}') == [
        f'9: warning: watch "vod", key "queues": {near}'
    ]


def test_a_fallback_is_used():
    text = WATCH + RULE + HOOK + f'fallback = "b"\n{SIGNED}\n' + HOOK.replace(".hook", ".b") + SIGNED
    assert warnings(text, {"S": SECRET}) == []
