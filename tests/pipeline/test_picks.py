"""Picks: the job picks one of several notifiers, from the transition to the receiver, and what picks none."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.model import Rejected, Sent
from bridge.pipeline.operations import Conflict
from bridge.pipeline.picks import pick_again
from bridge.record import rulesets
from bridge.record.queries import gauges
from bridge.record.schema import DEAD, deliveries
from tests.conftest import on_both, only_postgresql
from tests.pipeline.test_backtest import backtest, counted
from tests.support.explained import Explained
from tests.support.nouns import by_hand, hours, minutes
from tests.support.records import rows
from tests.support.rig import GIVEN, HALF_A_MINUTE, OVER, STUCK, Rig

ACME, BETA = (
    f'[notifier.customer.to.{name}]\ntype = "webhook"\nurl = "https://{name}.example.com/hook"\n'
    for name in ("acme", "beta")
)
PICK = '[notifier.customer]\npick = "{{ job.user_data.customer }}"\n'
CUSTOMERS = GIVEN + PICK + ACME + BETA
OTHERWISE = GIVEN + PICK + 'otherwise = "ops"\n' + ACME + BETA
RULE = OVER.replace('"ops"', '"customer"')
NOBODY = 'pick gave "foo", which is not among to: acme, beta'


def of(customer: object) -> str:
    return json.dumps({"customer": customer})


def begun(rig: Rig, rules: str = RULE, given: str = CUSTOMERS) -> Rig:
    rig.start(rules, given=given)
    return rig


def dead(rig: Rig) -> list[tuple[str, str]]:
    return [(row["notifier"], row["why"]) for row in rows(rig.db, deliveries) if row["state"] == DEAD]


@on_both
def test_each_job_picks_its_notifier(rig: Rig) -> None:
    begun(rig).sees("j1", user_data=of("acme"))
    rig.sees("j2", user_data="customer = beta ;k=v")
    assert [(one.notifier, one.event["subject"]) for one in rig.received()] == [
        ("customer.acme", "j1"),
        ("customer.beta", "j2"),
    ]


@on_both
def test_a_job_that_picks_none_leaves_a_dead_letter_with_the_reason(rig: Rig) -> None:
    begun(rig).sees("j1", user_data=of("foo"))
    rig.sees("j2")
    assert rig.received() == []
    assert dead(rig) == [("customer", NOBODY), ("customer", "pick gave nothing")]
    with rig.db.read() as tx:
        (row,) = (row for row in gauges.read_notifiers(tx) if row["name"] == "customer")
    assert (row["type"], row["dead"], row["waiting"]) == ("pick", 2, 0)


def test_what_picks_none_goes_to_otherwise_and_says_so(rig: Rig) -> None:
    begun(rig, given=OTHERWISE).sees("j1", user_data=of("foo"))
    (message,) = rig.received()
    assert (message.notifier, message.note) == ("ops", f"Meant for customer: {NOBODY}.")


@pytest.mark.parametrize(
    ("user_data", "why"),
    [
        (of("x" * 5_000), f'pick gave "{"x" * 78}…, which is not among to: acme, beta'),
        (of("\u202eemca"), 'pick gave "\\u202eemca", which is not among to: acme, beta'),
        (of("{{ 'acme' }}"), "pick gave \"{{ 'acme' }}\", which is not among to: acme, beta"),
        (of(7), 'pick gave "7", which is not among to: acme, beta'),
        (of(None), "pick gave nothing"),
        (of("Acme"), 'pick gave "Acme", which is not among to: acme, beta'),
        (of("acme\nx"), 'pick gave "acme\\nx", which is not among to: acme, beta'),
        (of("acme.to"), 'pick gave "acme.to", which is not among to: acme, beta'),
        (of("customer.acme"), 'pick gave "customer.acme", which is not among to: acme, beta'),
        ("{", "pick gave nothing"),
    ],
)
def test_an_uploader_picks_only_what_is_on_the_list(rig: Rig, user_data: str, why: str) -> None:
    begun(rig).sees("j1", user_data=user_data)
    assert (rig.received(), dead(rig)) == ([], [("customer", why)])


def test_space_around_the_text_is_left_out_and_a_number_is_its_text(rig: Rig) -> None:
    begun(rig, given=CUSTOMERS + ACME.replace("acme", "7")).sees("j1", user_data=of("\t acme "))
    rig.sees("j2", user_data=of(7))
    assert [one.notifier for one in rig.received()] == ["customer.acme", "customer.7"]


def test_thousands_of_customers_are_dead_letters_of_one_name(rig: Rig) -> None:
    begun(rig)
    for number in range(5_000):
        rig.has(f"j{number}", "Failed", user_data=of(f"c{number}"))
    rig.poll()
    found = [(row["notifier"], row["why"], row["state"]) for row in rows(rig.db, deliveries)]
    assert len(set(found)) == 5_000
    assert {(name, state) for name, _, state in found} == {("customer", DEAD)}


@on_both
def test_a_notifier_that_is_picked_and_named_is_told_once(rig: Rig) -> None:
    named = RULE.replace("over", "named").replace('"customer"', '["customer.acme", "ops"]')
    begun(rig, RULE + named).sees("j1", user_data=of("acme"))
    assert sorted((one.notifier, one.event["data"]["rule"]) for one in rig.received()) == [
        ("customer.acme", "over"),
        ("ops", "named"),
    ]


def test_a_template_that_fails_picks_none_and_is_noted(rig: Rig) -> None:
    fails = CUSTOMERS.replace("job.user_data.customer", "1 // (job.outputs_total - 3)")
    begun(rig, given=fails).sees("j1", outputs_total=3)
    ((name, why),) = dead(rig)
    assert name == "customer"
    assert why.startswith("pick does not render: ZeroDivisionError: ")
    with rig.db.read() as tx:
        assert rulesets.faults(tx)["over"]["why"].startswith('notifier "customer": pick: ZeroDivisionError')


# --- redriven -------------------------------------------------------------------------------------------------------


@on_both
def test_a_dead_letter_goes_to_the_entry_that_the_file_has_got_since(rig: Rig) -> None:
    begun(rig).sees("j1", user_data=of("foo"))
    (row,) = rig.deliveries(state="dead")
    rig.use(given=CUSTOMERS + ACME.replace("acme", "foo"))
    by_hand(rig.db, now=rig.clock()).redrive(row["id"])
    rig.lives(minutes(1))
    (message,) = rig.received()
    assert (message.notifier, message.event["subject"], rig.states()) == ("customer.foo", "j1", {"j1": "sent"})
    assert rig.transport.ids() == [row["id"]]


@on_both
def test_a_dead_letter_that_still_picks_none_is_dead_again(rig: Rig) -> None:
    begun(rig).sees("j1", user_data=of("foo"))
    (row,) = rig.deliveries(state="dead")
    by_hand(rig.db, now=rig.clock()).redrive(row["id"])
    assert rig.states() == {"j1": "waiting"}
    rig.lives(minutes(1))
    assert (dead(rig), rig.received()) == ([("customer", NOBODY)], [])


def test_a_dead_letter_of_a_pick_that_is_gone_says_what_to_do(rig: Rig) -> None:
    begun(rig).sees("j1", user_data=of("foo"))
    (row,) = rig.deliveries(state="dead")
    rig.use(OVER, given=GIVEN)
    by_hand(rig.db, now=rig.clock()).redrive(row["id"])
    rig.lives(minutes(1))
    assert dead(rig) == [("customer", 'rules.toml has no notifier "customer" any more; restore it, then resend this')]


def test_many_that_are_resent_together_all_end(rig: Rig) -> None:
    begun(rig)
    for number in range(450):
        rig.has(f"j{number}", "Failed", user_data=of("foo"))
    rig.poll()
    rig.use(given=CUSTOMERS + ACME.replace("acme", "foo"))
    by_hand(rig.db, now=rig.clock()).redrive_chosen([row["id"] for row in rig.deliveries(state="dead")])
    rig.lives(minutes(1))
    assert {row["state"] for row in rig.deliveries()} == {"sent"}


def test_what_waited_for_a_notifier_that_became_a_pick_is_picked(rig: Rig) -> None:
    plain = GIVEN + '[notifier.customer]\ntype = "webhook"\nurl = "https://all.example.com/hook"\n'
    begun(rig, given=plain).has("j1", "Failed", user_data=of("acme"))
    rig.poll()
    rig.use(given=CUSTOMERS)
    rig.lives(minutes(1))
    assert [one.notifier for one in rig.received()] == ["customer.acme"]


# --- gates, level rules, fallbacks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("named", "kept"), [("customer", ["acme", "beta"]), ("customer.acme", ["acme"])])
def test_a_silence_holds_what_a_pick_leads_to_or_one_notifier_of_it(rig: Rig, named: str, kept: list[str]) -> None:
    begun(rig).silence(notifier=named)
    for customer in ("acme", "beta"):
        rig.sees(customer, user_data=of(customer))
    assert [id_ for id_, state in rig.states().items() if state == "held"] == kept
    rig.passes(hours(2), polls=False, every=minutes(5))
    digests = [one.notifier for one in rig.received() if one.event["type"] == "ci.digest"]
    assert sorted(digests) == [f"customer.{customer}" for customer in kept]


def test_what_picks_none_is_dead_at_once_unless_it_is_dropped(rig: Rig) -> None:
    rule = RULE + 'group.wait = "10m"\n'
    begun(rig, rule).silence(to="Failed")
    rig.sees("j1", user_data=of("foo"))
    assert rig.states() == {"j1": "dead"}
    rig.silence("sil_2", drop=True, to="Cancel")
    rig.sees("j2", state="Cancel", user_data=of("foo"))
    assert rig.states() == {"j1": "dead", "j2": "dropped"}


@pytest.mark.parametrize("more", ['group.wait = "10m"\n', 'throttle = "1/10m"\n'])
def test_a_digest_goes_to_the_notifier_that_was_picked(rig: Rig, more: str) -> None:
    begun(rig, RULE + more)
    for number in range(3):
        for customer in ("acme", "beta", "foo"):
            rig.has(f"{customer}{number}", "Failed", user_data=of(customer))
    rig.poll()
    rig.passes(hours(1), polls=False, every=minutes(5))
    digests = [(one.notifier, one.event["data"]["total"]) for one in rig.received() if one.event["type"] == "ci.digest"]
    count = 3 if "group" in more else 2
    assert sorted(digests) == [("customer.acme", count), ("customer.beta", count)]
    assert [name for name, _ in dead(rig)] == ["customer"] * 3


@on_both
def test_who_was_sent_an_alarm_hears_of_its_end(rig: Rig) -> None:
    begun(rig, STUCK.replace('"ops"', '"customer"') + "recover = true\n")
    rig.has("j1", "Running", user_data=of("acme"))
    rig.has("j2", "Running", user_data=of("foo"))
    rig.has("j3", "Running", user_data=of("bar"))
    rig.passes(minutes(40))
    (j2,) = rig.deliveries(state="dead", job="j2")
    rig.use(given=CUSTOMERS + ACME.replace("acme", "foo"))
    by_hand(rig.db, now=rig.clock()).redrive(j2["id"])
    rig.lives(minutes(1))
    rig.sees("j1", "j2", "j3", user_data=of("beta"))
    assert sorted((one.notifier, one.event["type"], one.event["subject"]) for one in rig.received()) == [
        ("customer.acme", "ci.job.overdue", "j1"),
        ("customer.acme", "ci.job.recovered", "j1"),
        ("customer.foo", "ci.job.overdue", "j2"),
        ("customer.foo", "ci.job.recovered", "j2"),
    ]
    assert [name for name, _ in dead(rig)] == ["customer"]


SICK = """
[[rule]]
name = "sick"
to = "Failed"
by = ["user_data.customer"]
count = ">= 2"
within = "10m"
recover = true
notify = "customer"
escalate = { after = "20m", notify = "customer" }
"""


@on_both
def test_an_incident_goes_to_whom_the_job_picks_that_opens_it(rig: Rig) -> None:
    begun(rig, SICK)
    for number in range(2):
        rig.sees(f"a{number}", user_data=of("acme"))
        rig.sees(f"f{number}", user_data=of("foo"))
    (letter,) = rig.deliveries(state="dead")
    rig.use(given=CUSTOMERS + ACME.replace("acme", "foo"))
    by_hand(rig.db, now=rig.clock()).redrive(letter["id"])
    rig.lives(minutes(1))
    rig.passes(minutes(15))
    assert sorted((one.notifier, one.event["type"]) for one in rig.received()) == [
        ("customer.acme", "ci.incident.closed"),
        ("customer.acme", "ci.incident.opened"),
        ("customer.foo", "ci.incident.closed"),
        ("customer.foo", "ci.incident.opened"),
    ]


def test_an_incident_that_no_job_has_opened_picks_none(rig: Rig) -> None:
    silent = '[[rule]]\nname = "silent"\nabsent = "Success"\nfor = "2h"\nnotify = "customer"\n'
    begun(rig, silent).passes(hours(3))
    assert dead(rig) == [("customer", "no job is on record that could pick")]


def test_an_alarm_is_escalated_to_whom_the_job_picks(rig: Rig) -> None:
    begun(rig, STUCK + 'recover = true\nescalate = { after = "20m", notify = "customer" }\n')
    rig.has("j1", "Running", user_data=of("acme"))
    rig.passes(hours(2))
    rig.sees("j1", user_data=of("acme"))
    assert sorted((one.notifier, one.event["type"]) for one in rig.received()) == [
        ("customer.acme", "ci.incident.escalated"),
        ("customer.acme", "ci.job.recovered"),
        ("ops", "ci.job.overdue"),
        ("ops", "ci.job.recovered"),
    ]


def test_an_alarm_of_a_notifier_that_became_a_pick_ends_where_the_job_picks(rig: Rig) -> None:
    plain = GIVEN + '[notifier.customer]\ntype = "webhook"\nurl = "https://all.example.com/hook"\n'
    begun(rig, STUCK.replace('"ops"', '"customer"') + "recover = true\n", given=plain)
    rig.has("j1", "Running", user_data=of("acme"))
    rig.passes(minutes(40))
    rig.use(given=CUSTOMERS)
    rig.sees("j1", user_data=of("acme"))
    assert [(one.notifier, one.event["type"]) for one in rig.received()] == [
        ("customer", "ci.job.overdue"),
        ("customer.acme", "ci.job.recovered"),
    ]


@only_postgresql
def test_two_workers_pick_again_once(rig: Rig) -> None:
    begun(rig)
    for number in range(50):
        rig.has(f"j{number}", "Failed", user_data=of("foo"))
    rig.poll()
    rig.use(given=CUSTOMERS + ACME.replace("acme", "foo"))
    by_hand(rig.db, now=rig.clock()).redrive_chosen([row["id"] for row in rig.deliveries(state="dead")])
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: pick_again(rig.db, rig.book, rig.clock()), range(2)))
    rig.lives(minutes(1))
    assert sorted(one.event["subject"] for one in rig.received()) == sorted(f"j{number}" for number in range(50))


def test_a_notifier_of_a_pick_has_a_fallback_of_its_own(rig: Rig) -> None:
    begun(rig, given=GIVEN + PICK + ACME + 'fallback = "ops"\n')
    rig.transport.answer = lambda one: Sent() if one.notifier == "ops" else Rejected("no")
    rig.sees("j1", user_data=of("acme"))
    assert [(one.notifier, one.note) for one in rig.received()][1:] == [
        ("ops", "This could not be sent to customer.acme: no")
    ]


# --- by hand, explain, backtest -------------------------------------------------------------------------------------


def test_a_person_notifies_whom_the_job_picks(rig: Rig) -> None:
    begun(rig, OVER).sees("j1", user_data=of("acme"))
    by_hand(rig.db, now=rig.clock()).notify(rig.book, job_id="j1", notifier="customer")
    rig.deliver()
    assert [one.notifier for one in rig.received()] == ["ops", "customer.acme"]
    rig.sees("j2", user_data=of("foo"))
    with pytest.raises(
        Conflict, match=f'"customer" leads to nobody: {NOBODY}; name one of customer.acme, customer.beta'
    ):
        by_hand(rig.db, now=rig.clock()).notify(rig.book, job_id="j2", notifier="customer")


def test_a_test_goes_to_one_notifier_and_not_to_a_pick(rig: Rig) -> None:
    begun(rig)
    operations = by_hand(rig.db, now=rig.clock())
    operations.test_notifier(rig.book, "customer.acme")
    with pytest.raises(
        Conflict, match=re.escape('"customer" is a pick; name one of the notifiers that it leads to: customer.acme')
    ):
        operations.test_notifier(rig.book, "customer")


def test_explain_says_whom_a_job_picked_then_and_later(explained: Explained) -> None:
    given = explained.given + PICK + ACME + BETA
    explained.begin(RULE, given=given)
    explained.goes("Failed", user_data=of("foo"))
    assert explained.answer() == ("dead", f"given up at 2026-11-21T09:00:30Z: {NOBODY}")
    assert '"over" notifies customer: dead' in explained.headline()
    explained.use(given=given + ACME.replace("acme", "foo"))
    explained.resend_all()
    explained.clock.advance(HALF_A_MINUTE)
    explained.delivers()
    explained.delivers()
    (found,) = explained.last()["deliveries"]
    assert (found["notifier"], found["answer"]) == ("customer.foo", "sent")


def test_a_sample_is_explained_with_its_pick(explained: Explained) -> None:
    explained.begin(RULE, given=explained.given + PICK + ACME + BETA)
    (found,) = explained.sample(to="Failed", user_data=of("acme"))["deliveries"]
    assert (found["notifier"], found["answer"]) == ("customer.acme", "at_once")
    (found,) = explained.sample(to="Failed", user_data=of("foo"))["deliveries"]
    assert (found["notifier"], found["answer"], found["why"]) == (
        "customer",
        "dead",
        f"would be a dead letter: {NOBODY}",
    )


@on_both
def test_a_backtest_agrees_with_what_was_told(rig: Rig) -> None:
    rules = RULE + STUCK.replace('"ops"', '"customer"') + "recover = true\n"
    begun(rig, rules)
    for customer in ("acme", "foo"):
        rig.has(customer, "Running", user_data=of(customer))
    rig.passes(minutes(40))
    rig.sees("acme", "foo", user_data=of("beta"))
    rig.passes(minutes(5))
    rig.silence(drop=True, notifier="customer")
    for customer in ("beta", "foo"):
        rig.sees(f"late-{customer}", user_data=of(customer))
    test = backtest(rig)
    assert not test.tally.differs
    assert counted(test) == {
        "level stuck -> customer": {"told": 1},
        "level stuck -> customer.acme": {"told": 1},
        "recovery stuck -> customer.acme": {"told": 1},
        "transition over -> customer": {"dropped": 1},
        "transition over -> customer.beta": {"told": 2, "dropped": 1},
    }
