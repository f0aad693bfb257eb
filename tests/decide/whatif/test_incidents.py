"""[[test]]s with several jobs, and the incidents in memory that they, and backtests, look at."""

from __future__ import annotations

import pytest

from bridge.decide.whatif.rule_tests import run
from tests.support.nouns import a_rulebook
from tests.support.rules_texts import WATCH

NOTIFIERS = "".join(
    f'[notifier.{name}]\ntype = "webhook"\nurl = "https://{name}.example.com/hook"\n' for name in ("hook", "pager")
)
RULES = """
[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 3"
within = "10m"
notify = "hook"
escalate = { after = "30m", notify = "pager" }

[[rule]]
name = "row"
to = "Failed"
by = ["queue"]
count = ">= 2"
in_a_row = true
notify = "hook"

[[rule]]
name = "share"
to = "Failed"
share = ">= 50% of 4"
within = "1h"
notify = "hook"

[[rule]]
name = "silent"
absent = "Success"
for = "2h"
notify = "hook"

[[rule]]
name = "backlog"
in = "Submitted"
for = "10m"
by = ["queue"]
count = "> 2"
unless = "sick"
notify = "hook"

[[rule]]
name = "asset"
all = "done"
by = ["user_data.asset"]
expect = "{{ job.user_data.parts }}"
notify = "hook"

[[rule]]
name = "stuck"
in = "Running"
for = "30m"
unless = "sick"
notify = "hook"
"""


def failures(jobs: str, expect: str, after: str = "") -> list[str]:
    text = f"\n[[test]]\njobs = [{jobs}]\nexpect = {expect}\n" + (f'after = "{after}"\n' if after else "")
    return [one.text.removeprefix("test number 1: ") for one in run(a_rulebook(WATCH + NOTIFIERS + RULES + text))]


FAIL = 'to = "Failed", queue = "q1"'


@pytest.mark.parametrize(
    ("jobs", "after", "rules"),
    [
        (f'{{ {FAIL} }}, {{ at = "9m", {FAIL}, times = 2 }}', "", ["sick", "row"]),
        (f'{{ {FAIL} }}, {{ at = "10m", {FAIL}, times = 2 }}', "", ["row"]),
        (f'{{ {FAIL} }}, {{ to = "Failed", queue = "q2", times = 2 }}', "", ["row"]),
        (f'{{ {FAIL} }}, {{ at = "1m", to = "Success", queue = "q1" }}, {{ at = "2m", {FAIL} }}', "", []),
        (f'{{ {FAIL}, times = 2 }}, {{ at = "1m", to = "Success", times = 2 }}', "", ["row", "share"]),
        ('{ to = "Success" }', "1h59m", []),
        ('{ to = "Success" }', "2h", ["silent"]),
        ('{ to = "Submitted", queue = "q1", times = 3 }', "10m", ["backlog"]),
        ('{ to = "Submitted", queue = "q1", times = 3 }', "9m", []),
        ('{ id = "a", to = "Submitted", queue = "q1" }, { to = "Submitted", queue = "q1", times = 2 },'
         ' { at = "9m", id = "a", to = "Running", queue = "q1" }', "5m", []),
        (f'{{ to = "Submitted", queue = "q1", times = 3 }}, {{ at = "5m", {FAIL}, times = 3 }}', "6m", ["sick", "row"]),
        (f'{{ to = "Submitted", queue = "q1", times = 3 }}, {{ at = "5m", {FAIL}, times = 3 }}', "11m",
         ["sick", "row", "backlog"]),
        ('{ id = "a", to = "Running", user_data = { asset = "x", parts = 2 } },'
         ' { at = "1m", to = "Success", user_data = { asset = "x", parts = 2 } },'
         ' { at = "2m", id = "a", to = "Success", user_data = { asset = "x", parts = 2 } }', "", ["asset"]),
        ('{ to = "Success", user_data = { asset = "x", parts = 2 } }', "", []),
        ('{ to = "Running", queue = "q1" }', "30m", ["stuck"]),
        ('{ id = "a", to = "Running", queue = "q1" }, { at = "40m", id = "a", to = "Success", queue = "q1" }', "",
         ["stuck"]),
        ('{ id = "a", to = "Running", queue = "q1" }, { at = "9m", id = "a", to = "Success", queue = "q1" }', "1h", []),
        (f'{{ to = "Running", queue = "q1" }}, {{ at = "25m", {FAIL}, times = 3 }}', "6m", ["sick", "row"]),
    ],
)  # fmt: skip
def test_a_test_with_several_jobs_says_which_incidents_there_are(jobs: str, after: str, rules: list[str]) -> None:
    assert failures(jobs, str([f"{rule} -> hook" for rule in rules]).replace("'", '"'), after) == []


def test_an_incident_that_nobody_can_have_acknowledged_in_a_test_is_escalated() -> None:
    jobs = ", ".join(f'{{ at = "{at}m", {FAIL}, times = 3 }}' for at in (0, 9, 18, 27))
    assert failures(jobs, '["sick -> hook", "sick -> pager", "row -> hook", "share -> hook"]', "4m") == []


def test_what_is_missing_and_what_is_too_much_is_said() -> None:
    (said,) = failures(f"{{ {FAIL}, times = 2 }}", '["sick -> hook", "sick -> pager", "row -> pager"]')
    assert said == (
        "not notified: sick -> hook: it has no such incident (rule on line 13); "
        "not notified: sick -> pager: it has no such incident (rule on line 13); "
        "not notified: row -> pager: it notifies hook (rule on line 22); "
        "notified, but not expected: row -> hook"
    )


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (
            '{ at = "soon" }',
            'job number 1: at: "soon" is not a duration; write for example "30s", "45m", "1h30m" or "7d"',
        ),
        ("{ times = 0 }", "job number 1: times: 0 is not a whole number from 1 to 10,000"),
        ('{ id = "a", times = 2 }', "job number 1: times: a job with an id is one job; leave one of the two out"),
        ('{ to = "Success" }, { to = "Failled" }', 'there is no job state "Failled" (did you mean "Failed"?)'),
        ("{ times = 9_000 }, { times = 9_000 }", "these are more than 10,000 jobs"),
    ],
)
def test_a_job_that_cannot_be_made_is_said_with_its_number(jobs: str, said: str) -> None:
    (text,) = failures(jobs, "[]")
    assert text.startswith("its jobs are wrong: ")
    assert said in text
