import pytest

from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read
from tests.support.nouns import a_rulebook
from tests.support.rules_texts import HOOK, RULE, WATCH, faults, rule

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
max_in_flight = 0

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
        '10: watch "vod": unknown key "quues" (did you mean "queues"?)',
        '13: watch "vod", key "name": there is a watch of this name already, on line 5',
        '16: watch "vod", key "tags": [] is neither a text nor a list of texts, none of them empty',
        '21: notifier "ops", key "token": a secret comes from the environment: write token = { env = "NAME" }',
        '22: notifier "ops", key "fallback": there is no notifier "pagr" (did you mean "pager"?)',
        '26: notifier "pager", key "url": this is not an http(s) address without user and password, '
        "such as https://cms.example.com/hooks/media: the url must begin with https:// or http://",
        '27: notifier "pager", key "secret": environment variable PAGER_SECRET is not set',
        '28: notifier "pager", key "max_in_flight": 0 is too small: 1 is the least',
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
        '43: template "finished", key "title": the template does not render: a job has no "tagg" (did you mean "tag"?) '
        "(line 1 of the text)",
        '44: template "finished", key "fields": a job has no field "queeu" (did you mean "queue"?)',
    ]


def test_a_fault_says_its_file_and_line_first():
    with pytest.raises(RulesRefused, match=r'^rules\.toml:1: unknown key "x"; there are defaults, alias'):
        a_rulebook("x = 1")


def test_many_warnings_do_not_hide_a_fault():
    tags = ", ".join(f'"Unknown{n}"' for n in range(500))
    assert faults(WATCH.replace('"Transcode"', tags) + RULE + "stop = 1") == [
        '9: rule "r1", key "stop": 1 is not true or false'
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = \n", "1: this is not TOML: Invalid value (at line 1, column 8)"),
        ("a = 1\nb = 2\nb = 3\n", "3: this is not TOML: Cannot overwrite a value (at line 3, column 6)"),
        ("x = [\n", "1: this is not TOML: Invalid value (at end of document)"),
    ],
)
def test_what_is_not_toml_says_where(text, said):
    with pytest.raises(RulesRefused) as refused:
        read(text, {})
    assert str(refused.value) == f"rules.toml:{said}"


def test_what_is_toml_but_endless_is_refused_too():
    with pytest.raises(RulesRefused, match=r"^rules\.toml:1: this is not TOML: "):
        read(f"x = {'9' * 5000}", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[rule]\nname = "x"', "1: [rule]: write [[rule]] with double brackets: there can be many"),
        ("rule = [1]", "1: rule number 1: 1 is not a table; write [[rule]]"),
        ('[watch.vod]\nbucket = "x"', "1: [watch]: write [[watch]] with double brackets: there can be many"),
        ("[[notifier]]\nx = 1", "1: [notifier]: write [notifier.NAME] with single brackets and a name"),
        ('[notifier]\ntype = "slack"', '2: notifier "type": is no table; write [notifier.NAME] with a name, and the'),
        ("[[defaults]]", "1: [defaults]: write [defaults] with single brackets"),
        ("[alias.tag]", '1: [alias], key "tag": only [alias.queue] is known, with lines such as vod = "p2242..."'),
        ("[alias.queue]\nvod = 5", '2: [alias], key "queue.vod": 5 is not the id of a queue'),
    ],
)
def test_tables_of_the_wrong_kind_are_named(text, said):
    with pytest.raises(RulesRefused) as refused:
        read(text, {})
    assert f"rules.toml:{said}" in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('to = "new"', ', key "to": no job becomes "new": write from = "new" for a job seen for the first time'),
        ('match = "x"', ', key "match": "x" is not a table'),
        ("match.user_data = {}", ', key "match.user_data": {} is not a text, a list of texts, true or false'),
        ("match.user_data.k = 5", ', key "match.user_data.k": 5 is not a text, a list of texts, true or false'),
        ('match.state = "Failed"', ', key "match.state": states stand outside of match: write to = "Failed" or from ='),
        ('match.input = "**.mp4"', ', key "match.input": "**.mp4": ** stands alone between slashes, as in'),
    ],
)
def test_a_wrong_rule_says_what_would_be_right(line, said):
    (found,) = faults(rule(line))
    assert found.startswith(f'9: rule "r1"{said}')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RULE.replace("r1", r"a\u0000b"), '2: rule "a\\u0000b", key "name": "a\\u0000b" holds a sign that cannot be'),
        (WATCH + r'workflow = "w\u0000"', '6: watch "vod", key "workflow": "w\\u0000" holds a sign that cannot be'),
        (WATCH + r'input = "in/\u0000"', r'6: watch "vod", key "input": "in/\u0000" holds a control character'),
        (r'["alias"."queue"]' + "\n" + r'"v\u0000" = "p1"', r'2: [alias], key "queue.v\u0000": "v\u0000" holds a sign'),
        (HOOK.replace("hook]", r'"ho\u0000ok"]'), '1: notifier "ho\\u0000ok": "ho\\u0000ok" holds a sign that cannot'),
        (r'[template."t\t"]', r'1: template "t\t": "t\t" holds a sign that cannot be seen (\t); write it without'),
    ],
)
def test_a_name_with_a_sign_that_cannot_be_seen_is_refused(text, said):
    assert any(fault.startswith(said) for fault in faults(text)), faults(text)


def test_the_input_of_a_watch_may_be_any_key_that_can_be_written():
    assert (
        a_rulebook(WATCH + 'input = "上传/家庭\u3000聚会.mp4"\n' + RULE).watches[0].streams[0].input
        == "上传/家庭\u3000聚会.mp4"
    )
