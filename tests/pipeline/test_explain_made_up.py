"""A job that is made up: what would be told of it now, and what would hold it."""

from __future__ import annotations

import pytest

from bridge.model import SUBMITTED
from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from bridge.record.outbox import entries
from bridge.record.schema import delivery
from tests.conftest import only_sqlite
from tests.support.explained import EVERYTHING, MUTE, STUCK, World, after, level
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.records import NOW, Clock, hours, minutes, rows

# What differs between databases the neighbours ask of both.
pytestmark = only_sqlite


@pytest.fixture
def world(db: Database, ci: FakeCi, clock: Clock, poller: Poller, transport: FakeTransport) -> World:
    return World(db, ci, clock, poller, transport)


def test_a_made_up_job_says_who_would_be_told_and_what(world: World) -> None:
    world.rule(EVERYTHING, STUCK)
    facts = world.try_out(tag="Transcode", to="Failed", message="no such object", input="in/a.mp4")
    (told,) = facts["deliveries"]
    assert (told["answer"], told["why"], told["id"]) == ("at_once", "would be sent at once", None)
    assert facts["headline"] == '"everything" notifies cms: at once'
    assert [(one["title"], one["text"]) for one in facts["messages"]] == [("Transcode Failed: a.mp4", "no such object")]
    assert facts["notes"] == []
    assert rows(world.db, delivery) == []


def test_a_made_up_job_is_asked_about_by_level_rules_too(world: World) -> None:
    world.rule(STUCK)
    facts = world.try_out(to="Running", age="31m")
    assert level(facts)["answer"] == "waiting"
    assert [(one["kind"], one["notifier"], one["answer"]) for one in facts["deliveries"]] == [
        ("level", "ops", "at_once")
    ]
    assert level(world.try_out(to="Running", age="29m"))["answer"] == "waiting"


@pytest.mark.parametrize(
    ("rules", "answer", "why"),
    [
        (MUTE.format("hold"), "muted", 'would be held by the mute "mornings" until 2026-11-21T10:00:00Z'),
        (MUTE.format("drop"), "dropped", 'would be dropped by the mute "mornings", which ends at 2026-11-21T10:00:00Z'),
        ("", "at_once", "would be sent at once"),
    ],
)
def test_a_made_up_job_meets_the_mutes_of_now(world: World, rules: str, answer: str, why: str) -> None:
    world.rule(EVERYTHING, rules)
    (told,) = world.try_out(to="Failed")["deliveries"]
    assert (told["answer"], told["why"]) == (answer, why)


def test_a_made_up_job_meets_the_silences_of_now_where_they_are_known(world: World) -> None:
    world.rule(EVERYTHING)
    world.silence()
    (told,) = world.try_out(tag="Transcode")["deliveries"]
    assert told["answer"] == "silenced"
    assert told["why"] == f"would be held by the silence sil_1 by ann (a deploy) until {after(hours(1))}"
    unknown = world.try_out(tag="Transcode", known=False)
    assert unknown["deliveries"][0]["answer"] == "at_once"
    assert unknown["notes"] == ["silences and paused notifiers are not known: there is no database"]


def test_a_made_up_job_says_what_its_rule_does_with_the_message(world: World) -> None:
    grouped = EVERYTHING.rstrip() + '\ngroup = { wait = "10m", max = 50 }\n'
    world.rule(grouped, EVERYTHING.replace('"everything"', '"throttled"').rstrip() + '\nthrottle = "10/5m"\n')
    assert [(one["answer"], one["why"]) for one in world.try_out(to="Failed")["deliveries"]] == [
        ("digest", f'would wait in the digest of "everything", sent at {after(minutes(10))}, or as soon as it has 50'),
        ("at_once", "would be sent at once: its throttle is not used up (10 in 5 min)"),
    ]


def test_a_made_up_job_meets_the_throttle_of_now_where_it_is_known(world: World) -> None:
    world.begin(EVERYTHING.rstrip() + '\nthrottle = "1/5m"\n')
    world.sees(SUBMITTED)
    (told,) = world.try_out(to="Failed")["deliveries"]
    assert (told["answer"], told["why"]) == (
        "throttled",
        f'would be over the throttle of "everything" (1 in 5 min), held until {after(minutes(5.5))}',
    )
    assert (told["gate"], told["gate_name"], told["until"]) == ("throttle", "everything", after(minutes(5.5)))
    (unknown,) = world.try_out(to="Failed", known=False)["deliveries"]
    assert unknown["why"] == "would be sent at once, as long as its throttle is not used up (1 in 5 min)"
    world.clock.now = NOW + minutes(5.5)
    assert world.try_out(to="Failed")["deliveries"][0]["answer"] == "at_once"


def test_a_made_up_job_says_that_the_notifier_is_paused(world: World) -> None:
    world.rule(EVERYTHING)
    with world.db.write() as tx:
        entries.pause(tx, "cms", "410 Gone", now=NOW)
    (told,) = world.try_out(to="Failed")["deliveries"]
    assert (told["answer"], told["why"]) == (
        "paused",
        f"would wait, as the notifier is paused since {after(minutes(0))}: 410 Gone",
    )


def test_a_made_up_job_is_stopped_by_the_same_rules_as_any_other(world: World) -> None:
    first = '[[rule]]\nname = "first"\nnotify = "cms"\n'
    world.rule(first, EVERYTHING.rstrip() + "\nstop = true\n", EVERYTHING.replace('"everything"', '"later"'))
    found = {one["rule"]: one for one in world.try_out(to="Failed")["deliveries"]}
    assert found["everything"]["why"] == 'rule "first" above notifies cms of this (at once)'
    answers = {rule: one["answer"] for rule, one in found.items()}
    assert answers == {"first": "at_once", "everything": "already_told", "later": "stopped"}


def test_a_template_that_does_not_render_for_a_made_up_job_is_noted(world: World) -> None:
    template = '[template.short]\ntitle = "{{ job.outputs[0] | upper }} {{ 7 // job.outputs_total }}"\n'
    world.rule(EVERYTHING.rstrip() + '\ntemplate = "short"\n', template)
    facts = world.try_out(to="Failed")
    assert any('rule "everything": template "short"' in note for note in facts["notes"])
