"""What is said of the tables of the language beyond from, to and match when they are wrong."""

import pytest

from bridge.decide.rules.levels import TimeInState, firing_levels
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read
from bridge.model import FAILED, RUNNING
from tests.support.nouns import NOON, a_job, a_rulebook, a_transition
from tests.support.rules_texts import HOOK, RULE, WATCH, faults, rule, warnings

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
        '16: watch "vod", key "tags": [] is neither a string nor a list of non-empty strings',
        '21: notifier "ops", key "token": a secret comes from the environment: write token = { env = "NAME" }',
        '22: notifier "ops", key "fallback": there is no notifier "pagr" (did you mean "pager"?)',
        '26: notifier "pager", key "url": this is not an http(s) address without user and password, '
        "such as https://cms.example.com/hooks/media: the url must begin with https:// or http://",
        '27: notifier "pager", key "secret": environment variable PAGER_SECRET is not set',
        '28: notifier "pager", key "max_in_flight": 0 is too small; the minimum is 1',
        '32: rule "failed", key "to": there is no job state "Sucess" (did you mean "Success"?); '
        'there is no job state "Faild" (did you mean "Failed"?)',
        '33: rule "failed", key "match.tga": a job has no "tga" to match (did you mean "tag"?)',
        '34: rule "failed", key "match.duration": "45m" does not compare; write for example "> 45m" or "<= 10s"',
        '35: rule "failed", key "notify": there is no notifier "opss" (did you mean "ops"?)',
        '36: rule "failed", key "stop": "yes" is not true or false',
        '38: rule number 2: "name" is missing',
        '38: rule number 2: "notify" is missing',
        '39: rule number 2, key "from": 5 is neither a string nor a list of non-empty strings',
        '40: rule number 2, key "template": there is no template "finishd" (did you mean "finished"?)',
        '43: template "finished", key "title": the template does not render: a job has no "tagg" (did you mean "tag"?) '
        "(line 1 of the text)",
        '44: template "finished", key "fields": a job has no field "queeu" (did you mean "queue"?)',
    ]


def test_a_fault_says_its_file_and_line_first():
    with pytest.raises(RulesRefused, match=r'^rules\.toml:1: unknown key "x"; there are defaults, alias'):
        a_rulebook("x = 1")


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[rule]\nname = "x"', "1: [rule]: write [[rule]] with double brackets: there can be many"),
        ("rule = [1]", "1: rule number 1: 1 is not a table; write [[rule]]"),
        ('[watch.vod]\nbucket = "x"', "1: [watch]: write [[watch]] with double brackets: there can be many"),
        ("[[notifier]]\nx = 1", "1: [notifier]: write [notifier.NAME] with single brackets and a name"),
        (
            '[notifier]\ntype = "slack"',
            '2: notifier "type": is not a table; write [notifier.NAME] with a name, and the',
        ),
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
        ("match.user_data = {}", ', key "match.user_data": {} is not a string, a list of strings, true or false'),
        ("match.user_data.k = 5", ', key "match.user_data.k": 5 is not a string, a list of strings, true or false'),
        ('match.state = "Failed"', ', key "match.state": states do not belong in match: write to = "Failed" or from ='),
        ('match.input = "**.mp4"', ', key "match.input": "**.mp4": ** must stand alone between slashes, as in'),
    ],
)
def test_a_wrong_rule_says_what_would_be_right(line, said):
    (found,) = faults(rule(line))
    assert found.startswith(f'9: rule "r1"{said}')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            RULE.replace("r1", r"a\u0000b"),
            '2: rule "a\\u0000b", key "name": "a\\u0000b" contains an invisible character',
        ),
        (WATCH + r'workflow = "w\u0000"', '6: watch "vod", key "workflow": "w\\u0000" contains an invisible character'),
        (WATCH + r'input = "in/\u0000"', r'6: watch "vod", key "input": "in/\u0000" contains a control character'),
        (
            r'["alias"."queue"]' + "\n" + r'"v\u0000" = "p1"',
            r'2: [alias], key "queue.v\u0000": "v\u0000" contains an invisible',
        ),
        (HOOK.replace("hook]", r'"ho\u0000ok"]'), '1: notifier "ho\\u0000ok": "ho\\u0000ok" contains an invisible'),
        (r'[template."t\t"]', r'1: template "t\t": "t\t" contains an invisible character (\t); remove it'),
    ],
)
def test_a_name_with_a_sign_that_cannot_be_seen_is_refused(text, said):
    assert any(fault.startswith(said) for fault in faults(text)), faults(text)


def test_the_input_of_a_watch_may_be_any_key_that_can_be_written():
    assert (
        a_rulebook(WATCH + 'input = "上传/家庭\u3000聚会.mp4"\n' + RULE).watches[0].streams[0].input
        == "上传/家庭\u3000聚会.mp4"
    )


MUTE = '[[mute]]\nname = "m"\nbetween = "22:00-08:00"\n'
ONE_OF = 'key "group": needs wait = "10m" (from the first message on) or at = "09:00" (each day): one of the two'
NOT_BOTH = "a rule is about a change (from, to) or about the time in a state (in, for), not both"
TEST = '[[test]]\njob = {}\nexpect = ["r1 -> hook"]\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('in = "Running"', 'key "in": needs for, as in for = "30m": how long a job may be in the state'),
        (
            'match.late = "> 1h"\nin = "Running"\nfor = "30m"',
            'key "match.late": is how late a change was seen, and this rule is about the time in a state: leave it out',
        ),
        ('for = "30m"', 'key "for": is for a rule that has in, as in in = "Running"'),
        ('group = { wait = "10m", at = "09:00" }', ONE_OF),
        ('group = { wait = "10m", bye = ["tag"] }', 'key "group.bye": unknown key (did you mean "by"?)'),
        ('group = { wait = "10m", by = ["queu"] }', 'key "group.by": a job has no "queu" to group by (did you mean'),
        (
            'group = { wait = "10m", by = ["tag", "queue", "bucket", "region", "job", "input"] }',
            'key "group.by": has 6 fields; the limit is 5',
        ),
        ('group = { wait = "10m", max = 0 }', 'key "group.max": 0 is too small; the minimum is 1'),
        ("group = { wait = 10 }", 'key "group.wait": 10 is not a string such as "30s" or "45m"'),
        ("group = { at = 09:00:00 }", 'key "group.at": 09:00:00 is not a string such as "09:00"; put it in quotes'),
        ('group = { at = "25:00" }', 'key "group.at": "25:00" is not a time of day; write for example "09:00"'),
        (
            'mention = ["here", "@anna"]',
            'key "mention": "@anna" mentions nobody: write the id of a person ("U024BE7LH": in Slack open the profile, '
            '"...", "Copy member ID"; "wecom:zhangsan" elsewhere) or of a user group ("S0123ABC"), "here" or "channel"',
        ),
        ('mention = "everyone"', 'key "mention": "everyone" mentions nobody: write the id of a person ("U024BE7LH"'),
        ('mention = "U1> <!channel"', 'key "mention": "U1> <!channel" mentions nobody: write the id of a person'),
        ("mention = true", 'key "mention": true is neither a string nor a list of non-empty strings'),
        (
            f"mention = {[f'U{n:03}' for n in range(21)]}",
            'key "mention": mentions 21; the limit is 20: a user group calls them all',
        ),
    ],
)
def test_a_wrong_key_of_a_rule_says_what_would_be_right(line, said):
    (found,) = faults(rule(line))
    assert found.startswith(f'9: rule "r1", {said}')


FOR = 'for = "30m"\n'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            f'{FOR}in = "Success"',
            '10: rule "r1", key "in": a job that is Success remains so: write to = "Success" to be',
        ),
        (f'{FOR}in = "*"', '10: rule "r1", key "in": "*" holds final states too, which a job never leaves; write in ='),
        (
            f'{FOR}in = "Running"\nto = "Failed"',
            f'11: rule "r1", key "to": {NOT_BOTH}',
        ),
        (f'{FOR}in = "gone"\nrepeat = "2h"', '11: rule "r1", key "repeat": would repeat without end: a job that is'),
        ('in = "Running"\nfor = 30', '10: rule "r1", key "for": 30 is not a string such as "30s" or "45m"'),
    ],
)
def test_a_wrong_level_rule_says_what_would_be_right(lines, said):
    (found,) = faults(rule(lines))
    assert found.startswith(said)


OF_JOBS = "is about jobs, and a rule with blind is about watches that cannot see: leave it out"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('blind = "10m"\nto = "Failed"', f'10: rule "r1", key "to": {OF_JOBS}'),
        ('blind = "10m"\nfor = "30m"', f'10: rule "r1", key "for": {OF_JOBS}'),
        ('blind = "10m"\nstop = true', f'10: rule "r1", key "stop": {OF_JOBS}'),
        (
            'blind = "10m"\nmatch.tag = "Transcode"',
            '10: rule "r1", key "match.tag": is about jobs; with blind only match.watch can be asked',
        ),
        ('blind = "10m"\nmatch.watch = true', '10: rule "r1", key "match.watch": write the name of a watch, as in'),
        ("blind = 10", '9: rule "r1", key "blind": 10 is not a string such as "30s" or "45m"'),
    ],
)
def test_a_wrong_rule_about_watches_says_what_would_be_right(lines, said):
    (found,) = faults(rule(lines))
    assert found.startswith(said)


def test_a_test_cannot_expect_a_rule_about_watches():
    (found,) = faults(rule('blind = "10m"') + "\n" + TEST)
    assert 'rule "r1" is about watches, and a test is about a job' in found


def test_a_state_that_nobody_documents_may_be_stayed_in():
    assert warnings(rule(f'{FOR}in = "Queued"')) == [
        '10: warning: rule "r1", key "in": no state "Queued" is documented; there are Submitted, Running, Success, '
        "Failed, Pause, Cancel, new, gone, done, active, *"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MUTE + 'in = "Running"', '4: mute "m": unknown key "in"; there are name, from, to, match, between, days,'),
        ('[[mute]]\nname = "m"', '1: mute "m": "between" is missing'),
        ('[[mute]]\nname = "m"\nbetween = "22-8"', '3: mute "m", key "between": "22" is not a time of day; write for'),
        ('[[mute]]\nname = "m"\nbetween = "22:00-22:00"', '3: mute "m", key "between": "22:00-22:00" ends where it'),
        ('[[mute]]\nname = "m"\nbetween = 22:00:00', '3: mute "m", key "between": 22:00:00 is not a string such as'),
        (MUTE + 'mode = "hide"', '4: mute "m", key "mode": "hide" is not one of "hold" or "drop"'),
    ],
)
def test_a_wrong_mute_says_what_would_be_right(text, said):
    (found,) = faults(f"{text}\n{WATCH}{RULE}")
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[test]]\njob = {}", '1: test number 1: "expect" is missing'),
        ('[[test]]\njob = "x"\nexpect = []', '2: test number 1, key "job": "x" is not a table'),
        ('[[test]]\njob = {}\nexpect = ["r1"]', '3: test number 1, key "expect": "r1" is not "RULE -> NOTIFIER", such'),
        ('[[test]]\njob = {}\nexpect = ["r2 -> hook"]', '3: test number 1, key "expect": there is no rule "r2"'),
        ('[[test]]\njob = {}\nexpect = ["r1 -> hok"]', '3: test number 1, key "expect": there is no notifier "hok"'),
        ("[[test]]\njob = {}\nexpect = [5]", '3: test number 1, key "expect": [5] is neither a string nor a list of'),
        (TEST * 1_001, "1: [test]: there are 1,001 of these; the limit is 1,000"),
    ],
)
def test_a_wrong_test_says_what_would_be_right(text, said):
    (found,) = faults(f"{text}\n{WATCH}{RULE}")
    assert found.startswith(said)


def test_two_names_of_one_queue_are_a_warning():
    text = f'[alias.queue]\nvod = "p22"\nold = "p22"\n{WATCH}{RULE}'
    assert warnings(text) == ['2: warning: [alias], key "queue.vod": is the queue "old" too, and is shown by that name']


def test_the_mark_that_windows_puts_before_a_text_is_no_fault():
    assert a_rulebook(f"\ufeff{WATCH}{RULE}").sha == a_rulebook(f"{WATCH}{RULE}").sha
    assert faults(f'\ufeff{WATCH}{RULE}to = "Faild"\n') == [
        '9: rule "r1", key "to": there is no job state "Faild" (did you mean "Failed"?)'
    ]
    (fault,) = faults(f"\ufeff\ufeff{WATCH}{RULE}")
    assert fault.startswith("1: this is not TOML")


KINDS = (
    'to = "Failed"\nmatch.tag = "Transcode"\nmatch.user_data.asset = "a{n}"',
    'from = ["new", "Running"]\nmatch.queue = ["p{n}", "p1"]\ngroup = {{ by = ["tag"], wait = "10m" }}',
    'to = "done"\nmatch.input = ["in/{n}/**", "!in/**/tmp/*"]\nthrottle = "10/5m"',
    'match.duration = "> {n}m"\nmatch.code = true\nstop = true',
    'in = "Running"\nfor = "{n}m"\nmatch.queue = "p1"',
)


def test_five_thousand_rules_of_every_kind_say_what_each_alone_would():
    text = "".join(f'[[rule]]\nname = "r{n}"\nnotify = "hook"\n{KINDS[n % 5].format(n=n + 1)}\n' for n in range(5000))
    book = a_rulebook(WATCH + text)
    failed = a_job(
        state=FAILED, tag="Transcode", queue="p1", input="in/33/a/b.mp4", user_data='{"asset": "a1001"}', code="E1",
        started_at=NOON.replace(hour=10), ended_at=NOON.replace(hour=11, minute=20),
    )  # fmt: skip
    step = a_transition(failed, was=RUNNING)
    facts = book.matcher.facts(step)
    alone = [one.name for one in book.rules if not one.level and one.why_not(facts) is None]
    stops = next(one.name for one in book.rules if one.stop and one.name in alone)
    expected = alone[: alone.index(stops) + 1]
    assert [verdict.rule.name for verdict in book.matcher.match(step)] == expected
    assert {"r1", "r3", "r6", "r32"} <= set(alone)
    running = a_transition(a_job(queue="p1", started_at=NOON.replace(hour=11)))
    found = [one.rule.name for one in firing_levels(TimeInState(began=running), book.matcher, NOON)]
    assert found == [f"r{n}" for n in range(4, 60, 5)]  # "for" of r4 is 5 minutes, of r59 the 60 that have passed
