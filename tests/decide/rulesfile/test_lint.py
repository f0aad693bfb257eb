import pytest

from tests.support.nouns import SECRET, a_rulebook
from tests.support.rules_texts import HOOK, RULE, SIGNED, WATCH, rule, warnings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RULE, ["1: warning: there is no [[watch]], so nothing is polled"]),
        (
            WATCH,
            [
                "1: warning: there is no [[rule]], so nobody is notified",
                '7: warning: notifier "hook": no rule notifies it',
            ],
        ),
        (
            WATCH.replace("Transcode", "transcode") + RULE,
            ['5: warning: watch "vod", key "tags": "transcode" is not a documented tag (did you mean "Transcode"?)'],
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
            rule('[template.x]\ntext = "{{ job.message.strip() }}"'),
            ['9: warning: template "x": no rule uses it'],
        ),
    ],
)
def test_what_is_surely_not_meant_is_a_warning(text, said):
    assert warnings(text) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('to = "Kaputt"', 'key "to": no state "Kaputt" is documented; there are Submitted, Running, Success, Failed,'),
        ('from = "done"', 'key "from": never happens: a job that ended changes no more'),
        ('match.tag = ["Transcode", "!*"]', 'key "match.tag": never holds: all that it names is excluded too'),
        ('match.input = ["a/*", "!a/*"]', 'key "match.input": never holds: all that it names is excluded too'),
        ('match.code = ["E1", "E2", "!E?"]', 'key "match.code": never holds: all that it names is excluded too'),
        ('match.user_data.a = ["1", "!1"]', 'key "match.user_data.a": never holds: all that it names is excluded too'),
        ('match.tag = "Transcod"', 'key "match.tag": no watch polls the tag "Transcod" (did you mean "Transcode"?)'),
    ],
)
def test_a_rule_that_can_never_fire_is_a_warning(line, said):
    (found,) = warnings(rule(line))
    assert found.startswith(f'9: warning: rule "r1", {said}')


def test_a_queue_that_is_nearly_an_alias_is_a_warning():
    aliases = '[alias.queue]\nlectures = "p22"\n'
    near = '"lecture" is not in [alias.queue], so it is taken for the id of a queue (did you mean "lectures"?)'
    assert warnings(aliases + rule('match.queue = "lecture"')) == [f'11: warning: rule "r1", key "match.queue": {near}']
    assert warnings(f'{aliases}{WATCH}queues = ["lecture"]\n{RULE}') == [
        f'8: warning: watch "vod", key "queues": {near}'
    ]


@pytest.mark.parametrize(
    "match",
    [
        'match.tag = ["Transcode", "!T"]',
        'match.input = ["a/*", "!*"]',
        'match.code = ["E1", "E2", "!E1"]',
        'match.code = "!*"',
    ],
)
def test_a_match_that_leaves_something_is_not_doubted(match):
    assert warnings(rule(match)) == []


def test_a_fallback_counts_as_used_only_when_its_notifier_is_notified():
    assert warnings(WATCH + RULE + hooks(hook="b", b="c", c=""), {"S": SECRET}) == []
    text = WATCH + RULE + hooks(hook="", b="c", c="")
    assert warnings(text, {"S": SECRET}) == [
        '13: warning: notifier "b": no rule notifies it',
        '18: warning: notifier "c": no rule notifies it',
    ]


def hooks(**fallbacks: str) -> str:
    """Return webhooks, each with its fallback."""
    return "".join(
        f"{HOOK.replace('.hook', f'.{name}')}{SIGNED}\n" + (f'fallback = "{other}"\n' if other else "")
        for name, other in fallbacks.items()
    )


MUTE = '[[mute]]\nname = "m"\nbetween = "22:00-08:00"\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('match.queue = ["vod", "x*"]', 'key "match.queue": no watch polls a queue like "x*"; there are p44, vod'),
        ('from = "Failed"', 'key "from": never happens: a job that ended changes no more'),
    ],
)
def test_a_mute_that_can_never_hold_anything_is_a_warning(line, said):
    other = MUTE.replace('"m"', '"other"')
    number = (QUEUES + RULE + other + MUTE).count("\n") + 1
    (found,) = warnings(f"{QUEUES}{RULE}{other}{MUTE}{line}\n")
    assert found.startswith(f'{number}: warning: mute "m", {said}')


def test_a_mute_may_be_about_what_is_told_only_sometimes():
    assert warnings(QUEUES + RULE + MUTE + 'from = "Running"\nto = "done"\nmatch.queue = "vod"\n') == []


def two_rules(first: str, second: str) -> list[str]:
    """Return what is doubted of the second rule; the first is on line 6."""
    rules = "".join(
        f'[[rule]]\nname = "{name}"\nnotify = "hook"\n{said}\n' for name, said in (("a", first), ("b", second))
    )
    return [said.partition(': rule "b"')[2] for said in warnings(WATCH + rules) if 'rule "b"' in said]


NEVER = [': never fires: rule "a" (line 6) matches all that it does, and stops']


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", 'to = "Failed"'),
        ('to = "done"', 'to = ["Failed", "Cancel"]'),
        ('from = "active"', 'from = ["Running", "Pause"]\nto = "Pause"'),
        ('match.job = ["x", "y"]', 'match.job = "x"'),
        ('match.input = "a/*"', 'match.input = "a/*"\nmatch.code = true'),
        ('match.input = ["a/*", "b/*"]', 'match.input = ["b/*", "!b/tmp"]'),
        ("match.code = true", 'match.code = "E*"'),
        ("match.code = false", "match.code = false"),
        ('match.duration = "> 45m"', 'match.duration = "> 1h"'),
        ('match.duration = ">= 45m"', 'match.duration = "> 45m"'),
        ('in = "active"\nfor = "30m"', 'in = "Running"\nfor = "30m"'),
    ],
)
def test_a_rule_below_one_that_stops_all_it_matches_never_fires(first, second):
    assert two_rules(f"stop = true\n{first}", second) == NEVER


def test_a_rule_below_one_that_stops_all_but_inferred_states_fires_for_these_only():
    only = [NEVER[0].replace("never fires", "fires for inferred states only").replace("all that", "all else that")]
    for above in ("", 'to = "active"', 'to = ["Running", "Pause"]'):
        assert two_rules(f"stop = true\n{above}", 'to = ["Running"]') == (NEVER if "Pause" in above else only)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('to = "Failed"', ""),
        ('to = "active"', 'to = ["Running", "gone"]'),
        ('from = "new"', 'from = ["new", "Pause"]\nto = "Pause"'),
        ('match.job = "x"', 'match.job = ["x", "y"]'),
        ('match.input = "a/*"', 'match.input = "a/b*"'),
        ('match.input = ["a/*", "!a/b"]', 'match.input = "a/*"'),
        ("match.code = true", 'match.code = "!E*"'),
        ("match.code = false", "match.code = true"),
        ('match.duration = "> 45m"', 'match.duration = ">= 45m"'),
        ('match.duration = "> 45m"', 'match.duration = "< 1h"'),
        ('in = "Running"\nfor = "30m"', 'in = "active"\nfor = "30m"'),
        # What a first snapshot finds after 15 minutes is too late for the first, and the second tells it.
        ('in = "Running"\nfor = "10m"', 'in = "Running"\nfor = "30m"'),
        ('in = "gone"\nfor = "10m"', 'in = "gone"\nfor = "2d"'),
        ('in = ["gone", "Running"]\nfor = "10m"', 'in = "gone"\nfor = "10m"'),
        ('in = "Running"\nfor = "30m"', 'to = "Running"'),
        ('to = "Running"', 'in = "Running"\nfor = "30m"'),
    ],
)
def test_a_rule_that_an_earlier_one_leaves_something_to_is_not_doubted(first, second):
    assert two_rules(f"stop = true\n{first}", second) == []


def test_a_stop_is_found_among_five_thousand_rules():
    one = '[[rule]]\nname = "{}"\nmatch.tag = "Transcode"\nmatch.user_data.asset = "{}"\nnotify = "hook"\nstop = true\n'
    rules = "".join(one.format(n, f"a{n}") for n in range(5000))
    last = '[[rule]]\nname = "late"\nmatch.user_data.asset = "a4711"\nmatch.tag = "Transcode"\nnotify = "hook"\n'
    (said,) = a_rulebook(WATCH + rules + last).warnings
    assert (
        said.text == f'rule "late": never fires: rule "4711" (line {6 + 4711 * 6}) matches all that it does, and stops'
    )


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ('from = "Running"\nto = "done"', "Submitted and new"),
        ('from = ["Submitted", "Running"]\nto = ["Success", "Failed"]', "new"),
    ],
)
def test_a_rule_that_misses_jobs_between_two_polls_is_a_warning(line, missing):
    said = f"misses jobs that finish between two polls: leave out from, or add {missing}"
    assert warnings(rule(line)) == [f'9: warning: rule "r1", key "from": {said}']


@pytest.mark.parametrize(
    "line",
    [
        'from = ["new", "Submitted", "Running"]\nto = "done"',
        'from = "active"\nto = "done"',
        'from = "Running"\nto = "Pause"',
        'from = "Running"',
        'from = "Pause"\nto = "Cancel"',
    ],
)
def test_a_rule_that_means_where_a_job_comes_from_is_not_doubted(line):
    assert [said for said in warnings(rule(line)) if "misses" in said] == []


QUEUES = '[alias.queue]\nvod = "p22"\nslow = "p33"\n' + WATCH + 'queues = ["vod", "p44"]\n'


def test_a_queue_that_no_watch_polls_is_a_warning():
    assert warnings(QUEUES + RULE + 'match.queue = ["vod", "slow", "p55"]') == [
        '13: warning: rule "r1", key "match.queue": no watch polls the queue "p55"; there are p44, vod',
        '13: warning: rule "r1", key "match.queue": no watch polls the queue "slow"; there are p44, vod',
    ]


def test_a_glob_is_held_against_the_queues_and_their_names_where_every_watch_has_some():
    text = QUEUES + RULE + 'match.queue = "{}"\n'
    assert [warnings(text.format(glob)) for glob in ("vo*", "p2?", "p4{4,5}", "!x*")] == [[]] * 4
    assert warnings(text.format("p5?")) == [
        '13: warning: rule "r1", key "match.queue": no watch polls a queue like "p5?"; there are p44, vod'
    ]
    snapshots = WATCH.replace('"Transcode"', '"Snapshot"').replace('"vod"', '"stills"')
    assert warnings(QUEUES + snapshots + RULE + 'match.queue = "p5?"') == []


def test_a_queue_is_looked_for_in_the_watches_of_the_rule():
    snapshots = WATCH.replace('"Transcode"', '"Snapshot"').replace('"vod"', '"stills"')
    one = QUEUES + snapshots + RULE + 'match.queue = "p55"\n'
    assert warnings(one) == []
    assert warnings(one + 'match.tag = "Snapshot"') == []
    assert warnings(one + 'match.bucket = "media-1250000000"') == []
    (said,) = warnings(one + 'match.tag = "Transcode"')
    assert said.endswith('no watch polls the queue "p55"; there are p44, vod')


def test_a_span_that_is_shorter_than_from_poll_to_poll_is_a_warning():
    hourly = WATCH.replace('"vod"', '"nightly"').replace('"Transcode"', '"Snapshot"') + 'every = "1h"\n'
    level = WATCH + 'every = "5m"\n' + hourly + RULE + 'in = "Running"\nfor = "{}"\n'
    assert warnings(level.format("5m")) == []
    assert warnings(level.format("1m")) == [
        '17: warning: rule "r1", key "for": 1 min is less than the 5 min between two polls, and only polls notice it'
    ]
    assert warnings(level.format("5m") + 'match.tag = "Snapshot"\nrepeat = "59m"') == [
        '17: warning: rule "r1", key "for": 5 min is less than the 1 h between two polls, and only polls notice it',
        '19: warning: rule "r1", key "repeat": 59 min is less than the 1 h between two polls, and only polls notice it',
    ]


@pytest.mark.parametrize("line", ['throttle = "10/5m"', 'group = { wait = "10m" }'])
def test_a_digest_for_a_webhook_with_a_body_of_its_own_is_a_warning(line):
    hook = HOOK + SIGNED + "\n[notifier.hook.body]\nasset = '{{ job.id }}'\n"
    key = line.partition(" ")[0]
    said = 'digests do not have the body of notifier "hook": they come in the default form'
    assert warnings(rule(line, hook), {"S": SECRET}) == [f'9: warning: rule "r1", key "{key}": {said}']
    assert warnings(rule(hook), {"S": SECRET}) == []


SLACK = '[notifier.ops]\ntype = "slack"\nchannel = "C1"\ntoken = { env = "T" }\n'


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ('mention = ["here"]', 'key "mention": mentions nobody: it is for chats, and notify names no chat that can'),
        ("urgent = true", 'key "urgent": has no effect: it is for chats, and notify names no chat'),
    ],
)
def test_a_key_for_slack_that_no_slack_notifier_reads_is_a_warning(key: str, says: str):
    def found(notify: str) -> list[str]:
        text = WATCH + RULE.replace('"hook"', notify) + f"{key}\n" + HOOK + SIGNED + "\n" + SLACK
        return warnings(text, {"S": SECRET, "T": "xoxb-1"})

    assert f'9: warning: rule "r1", {says}' in found('"hook"')
    assert found('["hook", "ops"]') == []


@pytest.mark.parametrize(
    "table",
    ['type = "teams"\nurl = { env = "U" }', 'type = "email"\nserver = "h"\nfrom = "a@x.example"\nto = ["a@x.example"]'],
    ids=["teams", "email"],
)
def test_what_people_read_but_mentions_nobody_makes_a_mention_a_warning(table: str):
    text = WATCH + RULE + 'mention = ["here"]\nurgent = true\n' + f"[notifier.hook]\n{table}\n"
    (said,) = warnings(text, {"U": "https://a.example.com/?sig=x"})
    assert said.endswith("notify names no chat that can")
