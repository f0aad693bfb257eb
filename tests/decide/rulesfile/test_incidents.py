"""[[rule]]s over several jobs: what each kind becomes, what is said of wrong ones, and of what is surely not meant."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.decide.rules.incidents import Absence, Backlog, Comparison, Escalation, FanIn, IncidentSpec, Threshold
from bridge.decide.rules.joining import joined
from bridge.decide.rulesfile.rulesets import ruleset_from_text
from bridge.decide.text.times import window
from bridge.decide.text.values import states
from bridge.model import FAILED, NEW, RUNNING, SUBMITTED, SUCCESS
from tests.support.nouns import SECRET, a_job, a_rulebook, a_transition, hours, minutes
from tests.support.rules_texts import RULE, SIGNED, WATCH, faults, notifier, rule, warnings

FAILS = states([FAILED])
THRESHOLD = 'to = "Failed"\ncount = ">= 5"\nwithin = "10m"'
SHARE = 'to = "Failed"\nshare = "> 20% of 50"\nwithin = "1h"'
ROW = 'to = "Failed"\ncount = "> 2"\nin_a_row = true'
ABSENCE = 'absent = "Success"\nfor = "2h"'
BACKLOG = 'in = "Submitted"\nfor = "10m"\ncount = "> 50"'
FAN_IN = 'all = "done"\nby = ["user_data.asset_id"]\nexpect = "{{ job.user_data.parts }}"'
PAGER = notifier('type = "webhook"', 'url = "https://pager.example.com/"', SIGNED).replace("hook]", "pager]")
HOOK = notifier('type = "webhook"', 'url = "https://cms.example.com/"', SIGNED)

KINDS: list[tuple[str, IncidentSpec]] = [
    (THRESHOLD, Threshold(wanted=FAILS, limit=Comparison(">=", 5), within=minutes(10))),
    (SHARE, Threshold(wanted=FAILS, limit=Comparison(">", 20), within=hours(1), last=50)),
    (ROW, Threshold(wanted=FAILS, limit=Comparison(">", 2), in_a_row=True)),
    (ABSENCE, Absence(wanted=states([SUCCESS]), after=hours(2))),
    (
        ABSENCE + '\nbetween = "09:00-18:00"\ndays = ["mon", "tue"]',
        Absence(wanted=states([SUCCESS]), after=hours(2), window=window("09:00-18:00", ["mon", "tue"])),
    ),
    (BACKLOG, Backlog(states=states([SUBMITTED]), after=minutes(10), limit=Comparison(">", 50))),
    ('all = "done"\nby = ["workflow_run"]\nsettle = "1m"', FanIn(settle=minutes(1))),
    ('all = "Success"\nby = ["input"]\nsettle = "1m"', FanIn(success=True, settle=minutes(1))),
]


def said(*lines: str) -> list[str]:
    """Return what is said of a rule that is refused, without the line and the name."""
    return [fault.partition(": ")[2].removeprefix('rule "r1", ') for fault in faults(rule(*lines))]


def doubts(*lines: str, first: str = "") -> list[str]:
    """Return the warnings of a rule, without the line and the name."""
    text = "\n".join((first, WATCH, RULE, *lines, HOOK, PAGER))
    found = [one.partition(": warning: ")[2] for one in warnings(text, {"S": SECRET})]
    return [one.removeprefix('rule "r1", ') for one in found if "no rule notifies it" not in one]


# --- what each kind becomes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "spec"), KINDS)
def test_a_rule_over_several_jobs_becomes_one_of_four_kinds(text: str, spec: IncidentSpec) -> None:
    (found,) = a_rulebook(rule(text)).rules
    assert (found.incident, found.level) == (spec, None)


def test_in_and_for_without_count_are_about_one_job() -> None:
    (found,) = a_rulebook(rule('in = "Submitted"', 'for = "10m"')).rules
    assert found.incident is None
    assert found.level


def test_expect_may_be_a_number_or_a_template() -> None:
    for written, constant in (("3", "3"), ('"3"', "3"), ('"{{ job.user_data.parts }}"', None)):
        (found,) = a_rulebook(rule('all = "done"', 'by = ["queue"]', f"expect = {written}")).rules
        assert isinstance(found.incident, FanIn)
        assert found.incident.expect
        assert found.incident.expect.constant == constant


def test_what_goes_with_an_incident_is_read() -> None:
    more = ['by = ["queue", "user_data.a", "state", "queue"]', "recover = true", "urgent = true"]
    escalate = 'escalate = { after = "30m", notify = ["pager", "pager"] }'
    (found,) = a_rulebook("\n".join((WATCH, RULE, THRESHOLD, *more, escalate, HOOK, PAGER)), {"S": SECRET}).rules
    assert found.by == ("queue", "user_data.a", "state")
    assert (found.recover, found.urgent) == (True, True)
    assert found.escalate == Escalation(after=timedelta(minutes=30), notify=("pager",))


def test_a_kept_ruleset_has_the_rules_of_the_file() -> None:
    texts = [text for text, _ in KINDS] + [FAN_IN, BACKLOG + '\nunless = "k0"\nby = ["queue"]']
    rules = "\n".join(f"{RULE.replace('r1', f'k{number}')}{text}\n" for number, text in enumerate(texts))
    escalate = 'in = "Running"\nfor = "1h"\nunless = "k0"\nescalate = { after = "1h", notify = "pager" }\n'
    book = a_rulebook(WATCH + rules + RULE + escalate + HOOK + "\n" + PAGER, {"S": SECRET})
    kept = ruleset_from_text(book.sha, book.ruleset_text)
    assert [repr(one) for one in kept.rules if not isinstance(one.incident, FanIn)] == [
        repr(one) for one in book.rules if not isinstance(one.incident, FanIn)
    ]
    step = a_transition(a_job(state=FAILED, user_data="asset_id=7;parts=3"), was=RUNNING)
    counted = [[(one.key, one.expected, one.fault) for one in joined(step, of.matcher)] for of in (book, kept)]
    assert counted[0] == counted[1]
    assert 3 in [expected for _, expected, _ in counted[0]]


# --- which transitions count ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [THRESHOLD, SHARE, ROW])
def test_only_jobs_that_come_from_the_state_that_a_rule_names_count(text: str) -> None:
    matcher = a_rulebook(rule(text, 'from = ["Running", "new"]')).matcher
    failed = a_job(state=FAILED)
    assert [len(list(joined(a_transition(failed, was=was), matcher))) for was in (RUNNING, NEW, SUBMITTED)] == [1, 1, 0]


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('to = "Failed"\ncount = 5\nwithin = "1m"', 'key "count": 5 is not a string such as ">= 5"'),
        (
            'to = "Failed"\ncount = "5"\nwithin = "1m"',
            'key "count": "5" is no number to exceed; write for example ">= 5" or "> 50"',
        ),
        (THRESHOLD.replace("5", "0"), 'key "count": ">= 0" always holds; the least is ">= 1"'),
        (
            THRESHOLD.replace('within = "10m"', ""),
            'key "count": needs within, as in within = "10m": the time in which so many come',
        ),
        (
            SHARE.replace('within = "1h"', ""),
            'key "share": needs within, as in within = "10m": the time in which so many come',
        ),
        ('count = "> 5"\nwithin = "1m"', 'key "count": needs one or more states, as in to = "Failed"'),
        (
            SHARE.replace("20% of 50", "20"),
            'key "share": "> 20" is no share; write for example "> 20% of 50": of the last 50 jobs that ended',
        ),
        (SHARE.replace("of 50", "of 1001"), 'key "share": "> 20% of 1001" is of 1,001 jobs; it can be of 2 to 1,000'),
        (SHARE.replace("20%", "100%"), 'key "share": "> 100% of 50" never holds'),
        (SHARE.replace("Failed", "Running"), 'key "to": "Running" is not the end of a job, and share is'),
        (ROW.replace("Failed", "active"), 'key "to": "active" is not the end of a job, and in_a_row'),
        (THRESHOLD + "\nstop = true", 'key "stop": does not go with count: this rule says that many jobs'),
        (THRESHOLD + '\nmatch.late = "> 5m"', 'key "match.late": is how late a change was seen'),
        (THRESHOLD + '\nby = ["user_data"]', 'key "by": a job has no "user_data" to tell incidents apart'),
        (THRESHOLD + '\nby = ["duration"]', 'key "by": a job has no "duration" to tell incidents apart'),
        (THRESHOLD + '\nby = ["queue", "tag", "code", "input", "job", "level"]', 'key "by": has 6 fields'),
        ('absent = "Success"', 'key "absent": needs for, as in for = "2h": how long nothing may come'),
        (ABSENCE + '\ndays = ["mon"]', 'key "days": needs between, as in between = "09:00-18:00"'),
        ('in = "Submitted"\ncount = "> 50"', 'key "in": needs for, as in for = "10m": how long'),
        (BACKLOG + '\nrepeat = "1h"', 'key "repeat": does not go with in: this rule says that many jobs'),
        ('all = "Failed"\nby = ["queue"]\nsettle = "1m"', 'key "all": "Failed" is not one of "done" or "Success"'),
        (
            'all = "done"\nsettle = "1m"',
            'key "all": needs by, as in by = ["user_data.asset_id"]: which jobs belong together',
        ),
        (
            'all = "done"\nby = ["queue"]',
            'key "all": needs expect, as in expect = "{{ job.user_data.parts }}" (how many there are)',
        ),
        (FAN_IN + "\nrecover = true", 'key "recover": does not go with all: this rule says that all jobs'),
        (
            FAN_IN + '\nmatch.duration = "> 1m"',
            'key "match.duration": changes while a job goes on',
        ),
        ('in_a_row = true', 'key "in_a_row": is for a rule over several jobs, which has count'),
        (THRESHOLD + '\nescalate = { after = "1h" }', 'key "escalate": "notify" is missing'),
    ],
)  # fmt: skip
def test_a_wrong_rule_over_several_jobs_is_refused_with_what_would_be_right(text: str, fault: str) -> None:
    (found,) = said(text)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("0", "0 is out of range; there can be 1 to 1,000,000 jobs"),
        ("1000001", "1000001 is out of range; there can be 1 to 1,000,000 jobs"),
        ("true", 'true is no number of jobs; write for example 3 or "{{ job.user_data.parts }}"'),
        ('"many"', '"many" is no number of jobs; write for example 3 or "{{ job.user_data.parts }}"'),
        ('"-2"', '"-2" is out of range; there can be 1 to 1,000,000 jobs'),
    ],
)
def test_an_expect_that_is_no_number_is_refused(written: str, fault: str) -> None:
    assert said('all = "done"', 'by = ["queue"]', f"expect = {written}") == [f'key "expect": {fault}']


def test_an_expect_of_thousands_of_digits_is_refused() -> None:
    for written in ("0x" + "f" * 4_000, '"' + "9" * 5_000 + '"'):
        (found,) = said('all = "done"', 'by = ["queue"]', f"expect = {written}")
        assert found.startswith('key "expect": ')
        assert "set_int_max" not in found


def test_an_expect_that_does_not_render_is_refused() -> None:
    (found,) = said('all = "done"', 'by = ["queue"]', 'expect = "{{ job.parts }}"')
    assert found.startswith('key "expect": the template does not render: a job has no "parts"')


def test_every_fault_of_a_rule_is_said_at_once() -> None:
    assert len(said('all = "done"', "recover = true", 'within = "1h"', 'by = ["quue"]', "expect = 0")) == 4


def two(second: str, first: str = THRESHOLD) -> str:
    return f"{rule(first)}\n{RULE.replace('r1', 'r2')}{second}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (two(BACKLOG + '\nunless = "r3"'), 'there is no rule "r3"; there are r1, r2'),
        (two(BACKLOG + '\nunless = "r2"'), "names the rule itself; name another, with count, share or absent"),
        (
            two(BACKLOG + '\nunless = "r1"', 'to = "Failed"'),
            'rule "r1" has no incidents that stay open; name one with count, share or absent',
        ),
        (
            two(BACKLOG + '\nunless = "r1"', FAN_IN),
            'rule "r1" has no incidents that stay open; name one with count, share or absent',
        ),
        (
            two(BACKLOG + '\nunless = "r1"', THRESHOLD + '\nby = ["queue"]'),
            'rule "r1" has an incident for each queue: add that to by of this rule',
        ),
        (
            two(BACKLOG + '\nunless = "r1"', ABSENCE + '\nunless = "r2"'),
            'rule "r1" waits for another itself; name one without unless',
        ),
    ],
)
def test_an_unless_that_can_mean_nothing_is_refused(text: str, fault: str) -> None:
    assert f'rule "r2", key "unless": {fault}' in [one.partition(": ")[2] for one in faults(text)]


@pytest.mark.parametrize("first", ['absent = "Success"', 'to = "Failed"\ncount = "many"\nwithin = "1h"'])
def test_an_unless_is_not_blamed_for_what_is_wrong_with_the_rule_that_it_names(first: str) -> None:
    (found,) = faults(two(BACKLOG + '\nunless = "r1"', first))
    assert 'rule "r1"' in found


def test_a_rule_about_one_job_may_wait_for_another_whatever_its_key() -> None:
    stuck = 'in = "Running"\nfor = "1h"\nunless = "r1"'
    assert a_rulebook(two(stuck, THRESHOLD + '\nby = ["queue"]')).rules[1].unless == "r1"


# --- warnings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ('absent = "Kaputt"\nfor = "2h"', 'key "absent": no state "Kaputt" is documented; there are Submitted,'),
        (THRESHOLD.replace("Failed", "Kaputt"), 'key "to": no state "Kaputt" is documented; there are Submitted,'),
        (BACKLOG.replace("Submitted", "Kaputt"), 'key "in": no state "Kaputt" is documented; there are Submitted,'),
        (THRESHOLD + '\nfrom = "done"', 'key "from": never happens: a job that ended changes no more'),
        (ROW + '\nfrom = "Running"', 'key "from": misses jobs that finish between two polls'),
        (ROW.replace("Failed", "done"), 'key "to": names all ends, so no job ends otherwise'),
        (THRESHOLD + '\nmatch.tag = "Snapshot"', 'key "match.tag": no watch polls the tag "Snapshot"'),
        (ABSENCE.replace("2h", "1s"), 'key "for": 1 s is less than the 30 s between two polls'),
        (
            'all = "done"\nby = ["queue"]\nexpect = 1',
            'key "expect": is 1, so every job is complete alone: the number of jobs that share a key is more',
        ),
        (
            THRESHOLD + '\nescalate = { after = "1h", notify = "hook" }',
            'key "escalate.notify": names nobody but those that notify names: they know already',
        ),
    ],
)
def test_what_is_surely_not_meant_is_a_warning(text: str, warning: str) -> None:
    (found,) = doubts(text)
    assert found.startswith(warning)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (THRESHOLD.replace("10m", "3d"), "within"),
        (ABSENCE.replace("2h", "3d"), "for"),
        ('all = "done"\nby = ["queue"]\nsettle = "3d"', "settle"),
    ],
)
def test_a_time_that_is_longer_than_jobs_are_kept_is_a_warning(text: str, key: str) -> None:
    assert doubts(text, first='[defaults]\nkeep = "3d"') == []
    (found,) = doubts(text, first='[defaults]\nkeep = "2d"\nlookback = "1d"')
    assert found == f'key "{key}": 3 d is longer than jobs are kept: make keep in [defaults] longer than 2 d'


@pytest.mark.parametrize("text", [text for text, _ in KINDS] + [FAN_IN])
def test_each_kind_as_it_should_be_is_not_doubted(text: str) -> None:
    assert doubts(text) == []


def test_an_unless_that_never_has_the_same_key_is_a_warning() -> None:
    queue, tag = 'match.queue = "{}"\nby = ["queue"]', 'match.queue = "{}"\nby = ["tag"]'
    aliases = '[alias.queue]\nvod = "p22"\n'

    def of(first: str, second: str) -> list[str]:
        sick = RULE.replace("r1", "sick") + f"{THRESHOLD}\n{first}\n"
        return doubts(BACKLOG, second, 'unless = "sick"', first=aliases + sick)

    (found,) = of(queue.format("vod"), queue.format("live"))
    assert found == 'key "unless": rule "sick" never has an incident for the same queue: its match.queue names others'
    assert of(queue.format("vod"), queue.format("p22")) == []
    assert of(queue.format("*"), queue.format("p22")) == []
    assert of(tag.format("vod"), tag.format("live")) == []


def test_a_rule_over_several_jobs_is_neither_stopped_nor_stops() -> None:
    assert doubts(THRESHOLD, first=RULE.replace("r1", "all") + "stop = true\n") == []


def test_a_mention_is_read_by_whom_an_incident_is_escalated_to() -> None:
    slack = '[notifier.chat]\ntype = "slack"\nurl = { env = "URL" }\n'
    text = "\n".join(
        (WATCH, RULE, THRESHOLD, 'mention = ["here"]', 'escalate = { after = "1h", notify = "chat" }', HOOK, slack)
    )
    env = {"S": SECRET, "URL": "https://hooks.slack.com/services/T0/B0/xyz"}
    assert warnings(text, env) == []
    assert len(warnings(text.replace('notify = "chat"', 'notify = "hook"'), env)) == 3  # chat unused, the same, nobody
