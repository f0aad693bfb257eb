"""What is said of the tables of the language beyond from, to and match when they are wrong."""

import pytest

from bridge.decide.rules.levels import TimeInState, matching
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.model import FAILED, RUNNING
from bridge.wiring.rules import load_rules
from tests.support.nouns import NOON, a_job, a_rulebook, a_transition
from tests.support.rules_texts import RULE, WATCH, faults, rule, warnings

MUTE = '[[mute]]\nname = "m"\nbetween = "22:00-08:00"\n'
ONE_OF = 'key "group": needs wait = "10m" (from the first message on) or at = "09:00" (each day): one of the two'
NOT_BOTH = "a rule is about a change (from, to) or about the time in a state (in, for), not both"
TEST = '[[test]]\njob = {}\nexpect = ["r1 -> hook"]\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('in = "Running"', 'key "in": needs for, as in for = "30m": how long a job may be in the state'),
        ('for = "30m"', 'key "for": is for a rule that has in, as in in = "Running"'),
        ('repeat = "2h"', 'key "repeat": is for a rule that has in, as in in = "Running"'),
        ("recover = true", 'key "recover": is for a rule that has in, as in in = "Running"'),
        ('throttle = "10"', 'key "throttle": "10" is not a rate; write for example "10/s" or "100/5m"'),
        ("group = { max = 5 }", ONE_OF),
        ('group = { wait = "10m", at = "09:00" }', ONE_OF),
        ('group = { wait = "10m", bye = ["tag"] }', 'key "group.bye": unknown key (did you mean "by"?)'),
        (
            'group = { wait = "10m", by = ["queu"] }',
            'key "group.by": a job has no "queu" to group by (did you mean "queue"?)',
        ),
        (
            'group = { wait = "10m", by = ["tag", "queue", "bucket", "region", "job", "input"] }',
            'key "group.by": has 6 fields; 5 are the most',
        ),
        ('group = { wait = "10m", max = 0 }', 'key "group.max": 0 is too small: 1 is the least'),
        ('group = { wait = "10m", max = "many" }', 'key "group.max": "many" is not a whole number'),
        ("group = { wait = 10 }", 'key "group.wait": 10 is not a text such as "30s" or "45m"'),
        (
            "group = { at = 09:00:00 }",
            'key "group.at": 09:00:00 is not a text such as "09:00"',
        ),
        ('group = { at = "25:00" }', 'key "group.at": "25:00" is not a time of day; write for example "09:00"'),
    ],
)
def test_a_wrong_key_of_a_rule_says_what_would_be_right(line, said):
    assert faults(rule(line)) == [f'9: rule "r1", {said}']


FOR = 'for = "30m"\n'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            f'{FOR}in = "Success"',
            '10: rule "r1", key "in": a job that is Success stays so: write to = "Success" to be notified when it '
            "becomes that",
        ),
        (
            f'{FOR}in = ["Running", "done"]',
            '10: rule "r1", key "in": a job that is Cancel stays so: write to = "Cancel" to be notified when it '
            "becomes that",
        ),
        (
            f'{FOR}in = "*"',
            '10: rule "r1", key "in": "*" holds final states too, which a job never leaves; write in = "active"',
        ),
        (
            f'{FOR}in = "new"',
            '10: rule "r1", key "in": no job becomes "new": write from = "new" for a job seen for the first time',
        ),
        (f'{FOR}in = "Runing"', '10: rule "r1", key "in": no job state is called "Runing" (did you mean "Running"?)'),
        (f"{FOR}in = 5", '10: rule "r1", key "in": 5 is neither a text nor a list of texts, none of them empty'),
        (
            f'{FOR}in = "Running"\nto = "Failed"',
            f'11: rule "r1", key "to": {NOT_BOTH}',
        ),
        (
            f'{FOR}in = "Running"\nfrom = "new"',
            f'11: rule "r1", key "from": {NOT_BOTH}',
        ),
        (
            f'{FOR}in = "gone"\nrepeat = "2h"',
            '11: rule "r1", key "repeat": would never end: hardly a job that is "gone" comes back',
        ),
        (
            'in = "Running"\nfor = "soon"',
            '10: rule "r1", key "for": "soon" is not a duration; write for example "30s", "45m", "1h30m" or "7d"',
        ),
        ('in = "Running"\nfor = 30', '10: rule "r1", key "for": 30 is not a text such as "30s" or "45m"'),
        (f'{FOR}in = "Running"\nrecover = "yes"', '11: rule "r1", key "recover": "yes" is not true or false'),
    ],
)
def test_a_wrong_level_rule_says_what_would_be_right(lines, said):
    assert faults(rule(lines)) == [said]


def test_a_state_that_nobody_documents_may_be_stayed_in():
    assert warnings(rule(f'{FOR}in = "Queued"')) == [
        '10: warning: rule "r1", key "in": no state "Queued" is documented; there are Submitted, Running, Success, '
        "Failed, Pause, Cancel, new, gone, done, active, *"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MUTE + 'form = "new"', '4: mute "m": unknown key "form" (did you mean "from"?)'),
        (
            MUTE + 'in = "Running"',
            '4: mute "m": unknown key "in"; there are name, from, to, match, between, days, mode',
        ),
        ('[[mute]]\nname = "m"', '1: mute "m": "between" is missing'),
        (
            '[[mute]]\nname = "m"\nbetween = "22-8"',
            '3: mute "m", key "between": "22" is not a time of day; write for example "09:00"',
        ),
        (
            '[[mute]]\nname = "m"\nbetween = "22:00-22:00"',
            '3: mute "m", key "between": "22:00-22:00" ends where it starts; a whole day is "00:00-24:00"',
        ),
        ('[[mute]]\nname = "m"\nbetween = 22', '3: mute "m", key "between": 22 is not a text such as "22:00-08:00"'),
        (
            '[[mute]]\nname = "m"\nbetween = 22:00:00',
            '3: mute "m", key "between": 22:00:00 is not a text such as "22:00-08:00"',
        ),
        (MUTE + 'mode = "hide"', '4: mute "m", key "mode": "hide" is not one of "hold" or "drop"'),
        (MUTE + 'to = "Sucess"', '4: mute "m", key "to": no job state is called "Sucess" (did you mean "Success"?)'),
        (
            MUTE + 'match.queeu = "x"',
            '4: mute "m", key "match.queeu": a job has no "queeu" to match (did you mean "queue"?)',
        ),
        (MUTE + 'match = "x"', '4: mute "m", key "match": "x" is not a table'),
        (MUTE + MUTE, '5: mute "m", key "name": there is a mute of this name already, on line 1'),
        (MUTE.replace("[[mute]]", "[mute]"), "1: [mute]: write [[mute]] with double brackets: there can be many"),
    ],
)
def test_a_wrong_mute_says_what_would_be_right(text, said):
    assert faults(f"{text}\n{WATCH}{RULE}") == [said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEST + 'expected = "x"', '4: test number 1: unknown key "expected" (did you mean "expect"?)'),
        ("[[test]]\njob = {}", '1: test number 1: "expect" is missing'),
        ("[[test]]\nexpect = []", '1: test number 1: "job" is missing'),
        ('[[test]]\njob = "x"\nexpect = []', '2: test number 1, key "job": "x" is not a table'),
        (
            '[[test]]\njob = {}\nexpect = ["r1"]',
            '3: test number 1, key "expect": "r1" is not "RULE -> NOTIFIER", such as "stuck -> ops"',
        ),
        ('[[test]]\njob = {}\nexpect = ["r2 -> hook"]', '3: test number 1, key "expect": there is no rule "r2"'),
        (
            '[[test]]\njob = {}\nexpect = ["r1 -> hok"]',
            '3: test number 1, key "expect": there is no notifier "hok" (did you mean "hook"?)',
        ),
        (
            "[[test]]\njob = {}\nexpect = [5]",
            '3: test number 1, key "expect": [5] is neither a text nor a list of texts, none of them empty',
        ),
        ("[test]\njob = {}", "1: [test]: write [[test]] with double brackets: there can be many"),
        (TEST * 1_001, "1: [test]: there are 1,001 of these, and 1,000 are the most"),
    ],
)
def test_a_wrong_test_says_what_would_be_right(text, said):
    (found,) = faults(f"{text}\n{WATCH}{RULE}")
    assert found.startswith(said)


def test_two_names_of_one_queue_are_a_warning():
    text = f'[alias.queue]\nvod = "p22"\nold = "p22"\n{WATCH}{RULE}'
    assert warnings(text) == ['2: warning: [alias], key "queue.vod": is the queue "old" too, and is shown by that name']


def test_a_file_that_is_not_utf_8_says_which_line(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_bytes(f"{WATCH}# Auftr\xe4ge\n".encode("latin-1"))
    with pytest.raises(RulesRefused, match=r"rules\.toml:6: byte 0xe4 is not UTF-8"):
        load_rules(str(file))


def test_the_mark_that_windows_puts_before_a_text_is_no_fault():
    assert a_rulebook(f"\ufeff{WATCH}{RULE}").sha == a_rulebook(f"{WATCH}{RULE}").sha
    assert faults(f'\ufeff{WATCH}{RULE}to = "Faild"\n') == [
        '9: rule "r1", key "to": no job state is called "Faild" (did you mean "Failed"?)'
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
    found = [one.rule.name for one in matching(TimeInState(began=running), book.matcher, NOON)]
    assert found == [f"r{n}" for n in range(4, 60, 5)]  # "for" of r4 is 5 minutes, of r59 the 60 that have passed
