from datetime import timedelta

import pytest

from bridge.decide.whatif.rule_tests import run, sample_time_in_state, sample_transition
from bridge.model import NEW, OUTPUTS_KEPT
from tests.support.nouns import NOON, a_rulebook
from tests.support.rules_texts import WATCH

ALIAS = '[alias.queue]\nvod = "p22"\n'
RULES = """
[[rule]]
name = "slow"
to = "done"
match.queue = "vod"
match.duration = "> 45m"
notify = "hook"
stop = true

[[rule]]
name = "failed"
to = "Failed"
notify = "hook"

[[rule]]
name = "all"
notify = "hook"

[[rule]]
name = "daily"
to = "Failed"
notify = "hook"
group = { at = "09:00" }

[[rule]]
name = "stuck"
in = "Running"
for = "30m"
notify = "hook"

[[rule]]
name = "very stuck"
in = "active"
for = "2h"
match.tag = "!Snapshot"
notify = "hook"
"""


def failures(*tests: tuple[str, str], rules: str = RULES) -> list[str]:
    """Return what is said of the [[test]]s that fail; each is a job and what is expected, as TOML."""
    text = "".join(f"\n[[test]]\njob = {job}\nexpect = {expect}\n" for job, expect in tests)
    return [one.text for one in run(a_rulebook(ALIAS + WATCH + rules + text))]


def failure(job: str, expect: str, rules: str = RULES) -> str:
    (said,) = failures((job, expect), rules=rules)
    return said.removeprefix("test number 1: ")


@pytest.mark.parametrize(
    ("job", "expect"),
    [
        ('{ to = "Pause" }', '["all -> hook"]'),
        ('{ state = "Pause" }', '["all->hook"]'),
        ('{ to = "Pause" }', '["  all  ->  hook  "]'),
        ('{ to = "Failed" }', '["failed -> hook", "daily -> hook"]'),
        ('{ to = "Failed" }', '["daily -> hook", "failed -> hook", "daily->hook"]'),
        ('{ queue = "vod", to = "Success", duration = "46m" }', '["slow -> hook"]'),
        ('{ queue = "p22", to = "Success", duration = "46m" }', '["slow -> hook"]'),
        ('{ queue = "vod", to = "Success", duration = "45m" }', '["all -> hook"]'),
        ('{ to = "Running", from = "Submitted", age = "31m" }', '["all -> hook", "stuck -> hook"]'),
        ('{ to = "Running", from = "Pause", age = "30m" }', '["all -> hook", "stuck -> hook"]'),
        ('{ to = "Running", age = "29m" }', '["all -> hook"]'),
        ('{ to = "Running", age = "2h", wait = "91m" }', '["all -> hook"]'),
        ('{ to = "Submitted", age = "2h" }', '["all -> hook", "very stuck -> hook"]'),
        ('{ to = "Pause", age = "2h", tag = "Snapshot" }', '["all -> hook"]'),
    ],
)
def test_a_test_holds_when_exactly_these_are_told(job, expect):
    assert failures((job, expect)) == []


def test_a_test_may_expect_that_nobody_is_told():
    rule = '[[rule]]\nname = "failed"\nto = "Failed"\nnotify = "hook"\n'
    assert failures(('{ to = "Success" }', "[]"), rules=rule) == []
    assert failure('{ to = "Failed" }', "[]", rules=rule) == "notified, but not expected: failed -> hook"


@pytest.mark.parametrize(
    ("job", "expect", "why"),
    [
        ('{ to = "Success" }', "slow", 'match.queue: nothing is not "p22" (rule on line 9)'),
        ('{ to = "Success" }', "failed", 'to: "Success" is not among Failed (rule on line 17)'),
        ('{ to = "Failed" }', "all", 'rule "failed" (line 17) notifies hook already (rule on line 22)'),
        ('{ to = "Failed", queue = "vod", duration = "46m" }', "failed", 'rule "slow" (line 9) matched and stops'),
        ('{ to = "Running", age = "29m" }', "stuck", "Running for 29 min, which is less than 30 min (rule on line 32)"),
    ],
)
def test_a_failing_test_says_why_a_rule_did_not_tell(job, expect, why):
    said = failure(job, f'["{expect} -> hook"]')
    assert said.startswith(f"not notified: {expect} -> hook: {why}")


def test_a_level_rule_that_stops_is_named():
    rules = RULES.replace('for = "30m"', 'for = "30m"\nstop = true')
    said = failure('{ to = "Running", age = "3h" }', '["all -> hook", "stuck -> hook", "very stuck -> hook"]', rules)
    assert said == 'not notified: very stuck -> hook: rule "stuck" (line 32) matched and stops (rule on line 39)'


def test_a_rule_that_does_not_name_the_notifier_says_whom_it_names():
    other = '[notifier.ops]\ntype = "webhook"\nurl = "https://ops.example.com/"\n'
    hook = other.replace("ops", "hook")
    assert failure('{ to = "Pause" }', '["all -> ops"]', RULES + hook + other) == (
        "not notified: all -> ops: it notifies hook (rule on line 22); notified, but not expected: all -> hook"
    )


def test_each_failing_test_has_its_number_and_its_line():
    text = '[[test]]\njob = { to = "Pause" }\nexpect = ["all -> hook"]\n[[test]]\njob = { }\nexpect = []\n'
    (failed,) = run(a_rulebook(text + WATCH + RULES))
    assert (failed.number, failed.line) == (2, 4)
    assert failed.text == "test number 2: notified, but not expected: all -> hook"


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ('{ tga = "x" }', 'a job has no "tga" (did you mean "tag"?)'),
        ("{ queue = 5 }", "queue: 5 is not a string"),
        ('{ to = "done" }', 'to: "done" is a set of states, and a job is in one; write one of Submitted, Running, '),
        ('{ from = "Runing" }', 'from: there is no job state "Runing" (did you mean "Running"?)'),
        ('{ to = "new" }', 'no job becomes "new": write from = "new" for a job seen for the first time'),
        ('{ age = "soon" }', 'age: "soon" is not a duration; write for example "30s", "45m", "1h30m" or "7d"'),
        ('{ watch = "vid" }', 'watch: there is no watch "vid" (did you mean "vod"?)'),
        ('{ outputs = "a.mp4" }', 'outputs: "a.mp4" is not a list of strings'),
        ("{ progress = true }", "progress: true is not a whole number of per cent, from 0 to 100"),
        ('{ age = "5m", duration = "6m" }', "age: a job is at least as old as its wait and its duration together"),
        ('{ to = "Running", age = "9m", wait = "1m", duration = "6m" }', 'age: of a job that is "Running" it is wait'),
        ('{ to = "Submitted", duration = "6m" }', 'duration: a job that is "Submitted" has not begun; write wait or'),
        ('{ to = "Submitted", wait = "6m", age = "7m" }', 'a job that is "Submitted" waits still: its age and its'),
        ("{ code = 1979-05-27 }", 'code: "1979-05-27" is not a string'),
    ],
)
def test_a_job_that_cannot_be_is_a_failure_that_says_so(job, said):
    assert failure(job, "[]").startswith(f"its job is wrong: {said}")


def test_very_many_differences_are_counted():
    rules = "".join(f'[[rule]]\nname = "r{n}"\nnotify = "hook"\ngroup = {{ wait = "1m" }}\n' for n in range(50))
    said = failure("{ }", "[]", rules=rules)
    assert said.endswith("notified, but not expected: r19 -> hook; and 30 more")


def test_tests_run_on_five_thousand_rules():
    rules = "".join(
        f'[[rule]]\nname = "r{n}"\nto = "Failed"\nmatch.user_data.asset = "a{n}"\nnotify = "hook"\n'
        for n in range(5000)
    )
    tests = [(f'{{ to = "Failed", user_data = "asset=a{n * 5}" }}', f'["r{n * 5} -> hook"]') for n in range(20)]
    assert failures(*tests, ('{ to = "Failed", user_data = "asset=a7" }', "[]"), rules=rules) == [
        "test number 21: notified, but not expected: r7 -> hook"
    ]


def test_user_data_may_be_a_table():
    rules = '[[rule]]\nname = "r"\nmatch.user_data.asset = "7"\nnotify = "hook"\n'
    for written in ("{ asset = 7 }", "{ asset = '7' }", "'asset=7'", """'{"asset": 7}'"""):
        assert failures((f"{{ user_data = {written} }}", '["r -> hook"]'), rules=rules) == []


BOOK = a_rulebook(
    ALIAS
    + WATCH.replace('"vod"', '"far"').replace("media-125", "other-125")
    + WATCH.replace('"Transcode"', '"Snapshot"').replace('"vod"', '"stills"')
    + WATCH
    + RULES
)


def test_a_sample_is_of_the_watch_that_would_list_it():
    assert sample_transition({"tag": "Snapshot"}, BOOK, NOON).watch == "stills"
    assert sample_transition({"bucket": "media-1250000000", "tag": "Transcode"}, BOOK, NOON).watch == "vod"
    assert sample_transition({"watch": "vod"}, BOOK, NOON).job.bucket == "media-1250000000"
    assert sample_transition({"tag": "Concat"}, BOOK, NOON).job.bucket == "other-1250000000"


def test_a_sample_that_says_little_is_a_success_seen_for_the_first_time():
    step = sample_transition({}, BOOK, NOON)
    assert (step.was, step.to, step.job.state, step.seen_at) == (NEW, "Success", "Success", NOON)
    assert (step.job.created_at, step.job.started_at, step.job.ended_at) == (None, None, None)


@pytest.mark.parametrize(
    ("to", "said", "created", "started", "ended"),
    [
        ("Running", {"wait": "10m", "duration": "20m"}, 30, 20, None),
        ("Running", {"age": "30m", "wait": "10m"}, 30, 20, None),
        ("Success", {"age": "30m"}, 30, 30, 0),
        ("Success", {"age": "30m", "duration": "20m"}, 30, 20, 0),
        ("Success", {"age": "30m", "wait": "5m", "duration": "20m"}, 30, 25, 5),
        ("Submitted", {"age": "30m"}, 30, None, None),
    ],
)
def test_the_times_of_a_sample_follow_from_its_spans(to, said, created, started, ended):
    job = sample_transition({"to": to, **said}, BOOK, NOON).job
    ago = [
        None if at is None else (NOON - at) // timedelta(minutes=1)
        for at in (job.created_at, job.started_at, job.ended_at)
    ]
    assert ago == [created, started, ended]


@pytest.mark.parametrize("was", ["new", "Submitted", "Pause"])
@pytest.mark.parametrize("to", ["Submitted", "Running", "Pause", "gone"])
def test_a_sample_has_stayed_in_its_state_for_its_age(was, to):
    step = sample_transition({"from": was, "to": to, "age": "31m"}, BOOK, NOON)
    assert sample_time_in_state(step).since == NOON - timedelta(minutes=31)


def test_the_outputs_of_a_sample_are_counted_beyond_those_that_are_kept():
    job = sample_transition({"outputs": [f"{n}.ts" for n in range(30)]}, BOOK, NOON).job
    assert (len(job.outputs), job.outputs_total) == (OUTPUTS_KEPT, 30)


def test_an_empty_state_before_is_that_of_a_new_job() -> None:
    assert sample_transition({"from": "", "to": "Failed"}, BOOK, NOON).was == "new"


def test_an_unknown_key_is_refused_whatever_its_value() -> None:
    with pytest.raises(ValueError, match='a job has no "tga"'):
        sample_transition({"tga": None}, BOOK, NOON)
