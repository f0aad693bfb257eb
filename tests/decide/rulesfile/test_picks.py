"""Picks in rules.toml: what is read of them, and what is wrong with one."""

import pytest

from bridge.decide.rulesfile.rulesets import ruleset_from_text
from bridge.decide.whatif.rule_tests import run
from tests.support.nouns import SECRET, a_job, a_rulebook, a_transition
from tests.support.rules_texts import RULE, WATCH, faults, warnings

ENV = {"ACME": SECRET}
PICKED = RULE.replace("hook", "customer")
PICK = '[notifier.customer]\npick = "{{ job.user_data.customer }}"\n'
ACME = (
    '[notifier.customer.to.acme]\ntype = "webhook"\nurl = "https://acme.example.com/hook"\nsecret = { env = "ACME" }\n'
)
OPS = '[notifier.ops]\ntype = "webhook"\nurl = "https://ops.example.com/"\nsecret = { env = "ACME" }\n'
ENTRY = "[notifier.customer.to.TEXT]"


def at(line, key="", name="customer"):
    return f'{line}: notifier "{name}"' + (f', key "{key}": ' if key else ": ")


def test_each_entry_is_a_notifier_of_its_own():
    beta = ACME.replace("acme", "beta") + 'fallback = "customer.acme"\n'
    book = a_rulebook(PICK + 'otherwise = "ops"\n' + ACME + beta + OPS + WATCH + PICKED, ENV)
    assert list(book.notifiers) == ["customer.acme", "customer.beta", "ops"]
    assert book.notifiers["customer.acme"].hidden == ("https://acme.example.com/hook", SECRET)
    assert book.notifiers["customer.beta"].fallback == "customer.acme"
    pick = book.picks["customer"]
    assert (pick.to, pick.otherwise) == ({"acme": "customer.acme", "beta": "customer.beta"}, "ops")
    assert book.warnings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PICK, at(2, "pick") + f"needs the notifiers that a job may pick: write {ENTRY} for each"),
        (PICK + "to = {}\n", at(2, "pick") + f"needs the notifiers that a job may pick: write {ENTRY}"),
        (PICK + "to = 7\n", at(3, "to") + "7 is not a table"),
        (ACME, at(1, "to") + 'needs pick beside it, a template such as pick = "{{ job.user_data.'),
        (
            PICK + 'type = "webhook"\n' + ACME,
            at(3) + f'"type" belongs to the notifiers of a pick: write it below {ENTRY}',
        ),
        (PICK + 'retry = "1h"\n' + ACME, at(3) + '"retry" belongs to the notifiers of a pick'),
        (PICK + 'fallback = "hook"\n' + ACME, at(3) + '"fallback" belongs to the notifiers of a pick'),
        (PICK + "otherwize = 7\n" + ACME, at(3) + 'unknown key "otherwize" (did you mean "otherwise"?)'),
        (PICK + 'otherwise = "opps"\n' + ACME + OPS, at(3, "otherwise") + 'there is no notifier "opps" (did'),
        (PICK + 'otherwise = "customer"\n' + ACME, at(3, "otherwise") + '"customer" is a pick, and'),
        (PICK.replace("customer }}", "}}") + ACME, at(2, "pick") + "the template does not render: "),
        (
            PICK.replace("{{ job.user_data.customer }}", "acme") + ACME,
            at(2, "pick") + 'is "acme" for every job; write a template, such as "{{ job',
        ),
        (PICK.replace('"{{ job.user_data.customer }}"', "7") + ACME, at(2, "pick") + "7 is not a string"),
        (
            PICK + ACME.replace("acme]", "acme.to.x]"),
            at(3, name="customer.acme") + "is a pick inside of a pick; write one notifier here",
        ),
        (
            PICK + 'to.acme = "https://acme.example.com"\n',
            at(3, name="customer.acme") + "is not a table; write [notifier.customer.to.acme], and the keys below it",
        ),
        (
            PICK + ACME.replace("to.acme", 'to." acme"'),
            '3: notifier "customer. acme": " acme" is never picked: what a template gives has no space around it',
        ),
        (PICK + ACME.replace("to.acme", 'to.""'), '3: notifier "customer.": "" is never picked'),
        (
            PICK + ACME.replace("to.acme", f"to.{'a' * 100}"),
            f'3: notifier "customer.{"a" * 69}…: is too long a name; the limit is 100 characters',
        ),
        (
            PICK + ACME.replace("to.acme", 'to."a\\u202eb"'),
            '3: notifier "customer.a\\u202eb": "a\\u202eb" contains an invisible character',
        ),
        (
            PICK + ACME + OPS.replace("ops", '"customer.acme"', 1),
            at(3, name="customer.acme") + 'there is a notifier "customer.acme" already, on line 7',
        ),
        (
            PICK + ACME + 'fallback = "customer"\n',
            at(7, "fallback", "customer.acme") + '"customer" is a pick, and there may be no job to pick by',
        ),
        (
            PICK + ACME + 'fallback = "customer.acme"\n',
            at(7, "fallback", "customer.acme") + "is circular: customer.acme -> customer.acme",
        ),
        (
            PICK + ACME.replace("ACME", "NOT_SET"),
            at(6, "secret", "customer.acme") + "environment variable NOT_SET is not set",
        ),
        (PICK + ACME + "uri = 7\n", at(7, name="customer.acme") + 'unknown key "uri" (did you mean "url"?)'),
        (PICK + ACME.replace('"webhook"', '"mail"'), at(4, "type", "customer.acme") + '"mail" is not a notifier type'),
    ],
)
def test_a_wrong_pick_says_what_would_be_right(text, said):
    found = faults(text + WATCH + PICKED, ENV)
    assert found[0].startswith(said), found
    assert all("customer" in one for one in found)


def test_a_job_may_pick_a_thousand_notifiers_at_most():
    entries = "".join(ACME.replace("to.acme", f"to.c{number}") for number in range(1_001))
    (said,) = faults(PICK + entries + WATCH + PICKED, ENV)
    assert said == (
        '3: notifier "customer", key "to": with these there are 1,001 notifiers that a job may pick; the limit is 1,000'
    )


def test_a_rule_about_watches_names_no_pick():
    (said,) = faults(PICK + ACME + WATCH + PICKED + 'blind = "10m"\n', ENV)
    assert said.endswith(
        'key "notify": "customer" is picked by a job, and a rule with blind is about watches: name a notifier'
    )


def test_a_rule_may_name_an_entry_and_a_near_name_is_suggested():
    assert a_rulebook(PICK + ACME + WATCH + RULE.replace("hook", "customer.acme"), ENV).rules
    (said,) = faults(PICK + ACME + WATCH + RULE.replace("hook", "customer.acne"), ENV)
    assert said.endswith('there is no notifier "customer.acne" (did you mean "customer.acme"?)')


def test_a_pick_that_no_rule_names_is_a_warning_and_its_entries_are_not():
    (said,) = warnings(PICK + ACME + OPS + WATCH + RULE.replace("hook", "ops"), ENV)
    assert said == '1: warning: notifier "customer": no rule notifies it'


def test_a_kept_ruleset_picks_as_the_file_did_and_has_no_secret():
    text = PICK + 'otherwise = "ops"\n' + ACME + OPS + WATCH + PICKED + '[defaults]\ntimezone = "Asia/Shanghai"\n'
    book = a_rulebook(text, ENV)
    kept = ruleset_from_text(book.sha, book.ruleset_text)
    assert kept.picks.keys() == book.picks.keys()
    for user_data in ("customer=acme", "customer=foo", ""):
        step = a_transition(a_job(user_data=user_data))
        told = [[verdict.notifiers for verdict in rules.matcher.match(step)] for rules in (book, kept)]
        assert told[0] == told[1] == [("customer.acme" if "acme" in user_data else "ops",)]
    assert "example.com" not in book.ruleset_text
    assert "ACME" not in book.ruleset_text


def test_a_template_of_a_pick_reads_times_by_the_clock_of_the_file():
    by_day = PICK.replace("{{ job.user_data.customer }}", "{{ (seen_at | local)[8:10] }}")
    text = by_day + ACME.replace("to.acme", 'to."22"') + WATCH + PICKED
    step = a_transition(a_job())
    at_23 = step.seen_at.replace(hour=23)
    book = a_rulebook(text + '[defaults]\ntimezone = "Asia/Shanghai"\n', ENV)
    (verdict,) = book.matcher.match(a_transition(a_job(), seen_at=at_23))
    assert verdict.notifiers == ("customer.22",)


# --- rule tests -----------------------------------------------------------------------------------------------------

TESTED = PICK + ACME + OPS + WATCH + PICKED


def failed(job, expect, text=TESTED):
    return [one.text for one in run(a_rulebook(f"{text}[[test]]\njob = {job}\nexpect = {expect}\n", ENV))]


def test_a_rule_test_expects_what_the_job_picks():
    of_acme, of_foo = '{ user_data = "customer=acme" }', '{ user_data = "customer=foo" }'
    otherwise = TESTED.replace('customer }}"\n', 'customer }}"\notherwise = "ops"\n')
    assert failed(of_acme, '["r1 -> customer.acme"]') == []
    assert failed(of_foo, '["r1 -> ops"]', otherwise) == []
    assert failed(of_foo, '["r1 -> customer"]') == []


def test_a_rule_test_that_fails_says_what_the_job_picks():
    (said,) = failed('{ user_data = "customer=foo" }', '["r1 -> customer.acme"]')
    assert said == (
        'test number 1: not notified: r1 -> customer.acme: it notifies customer: pick gave "foo", which is not among'
        " to: acme (rule on line 16); notified, but not expected: r1 -> customer"
    )
    (said,) = failed(
        '{ to = "Failed", user_data = "customer=acme" }', '["r1 -> customer.acme"]', TESTED + 'to = "Success"\n'
    )
    assert (
        said == 'test number 1: not notified: r1 -> customer.acme: to: "Failed" is not among Success (rule on line 16)'
    )
    (said,) = failed("{}", "[]")
    assert said == "test number 1: notified, but not expected: r1 -> customer"


SICK = (
    PICKED
    + """
to = "Failed"
count = ">= 2"
within = "10m"
recover = true
by = ["user_data.customer"]
"""
)


def test_a_rule_test_of_several_jobs_expects_whom_the_job_picks_that_opens_an_incident():
    jobs = '[{{ to = "Failed", times = 2, user_data = "customer={}" }}]'
    for customer, notifier in (("acme", "customer.acme"), ("foo", "customer")):
        test = f'[[test]]\njobs = {jobs.format(customer)}\nafter = "20m"\nexpect = ["r1 -> {notifier}"]\n'
        assert run(a_rulebook(PICK + ACME + WATCH + SICK + test, ENV)) == []
