"""What level rules say to a stay: each case is brought about by polls."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from bridge.cli.explain import as_text
from bridge.collect.errors import TemporaryError
from bridge.decide.rulesfile.read import read
from bridge.model import RUNNING, SUCCESS
from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from bridge.record.schema import ruleset
from tests.conftest import only_sqlite
from tests.support.explained import EVERYTHING, HEAD, STUCK, World, after, level
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.records import NOW, Clock, minutes, seconds

# What differs between databases the neighbours ask of both.
pytestmark = only_sqlite


@pytest.fixture
def world(db: Database, ci: FakeCi, clock: Clock, poller: Poller, transport: FakeTransport) -> World:
    return World(db, ci, clock, poller, transport)


def test_a_stay_that_is_not_yet_too_long_says_when_it_will_be(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    facts = world.last()
    assert (level(facts)["answer"], level(facts)["due_at"]) == ("waiting", after(minutes(30.5)))
    assert facts["headline"] == (
        f'no rule matched; nearest: "stuck" (line {level(facts)["line"]}): '
        f"Running for 30 s, which is less than 30 min: due at {after(minutes(30.5))}"
    )


def test_a_stay_that_was_told_of_says_when_how_often_and_when_it_was_over(world: World) -> None:
    world.begin(STUCK.rstrip() + '\nrepeat = "10m"\nrecover = true\n')
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(31)
    world.poll()
    world.deliver()
    assert level(world.last())["why"] == f"fired at {after(minutes(31))}"
    assert world.last()["headline"] == '"stuck" notifies ops: sent'
    world.clock.now = NOW + minutes(41)
    world.poll()
    world.sees(SUCCESS)
    stay, end = world.all()
    assert level(stay)["answer"] == "fired"
    assert level(stay)["why"] == (
        f"fired at {after(minutes(31))}, repeated once until {after(minutes(41))}, "
        f"it moved on at {after(minutes(41.5))}"
    )
    assert (level(stay)["repeated"], level(stay)["notifiers"]) == (1, ["ops"])
    assert [one["kind"] for one in stay["deliveries"]] == ["level", "level"]
    assert [(one["kind"], one["rule"], one["answer"]) for one in end["deliveries"]] == [
        ("recovery", "stuck", "waiting")
    ]
    assert level(end)["why"] == 'in: "Success" is not among Running'


def test_an_alarm_that_nobody_hears_the_end_of_says_why(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(31)
    world.poll()
    world.sees(SUCCESS)
    assert level(world.all()[0])["why"].endswith("(recover is not set, so nobody is notified of that)")


def test_a_stay_that_ended_in_time_says_how_long_it_was(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.advance(minutes(11.5))
    world.sees(SUCCESS, ended_at=NOW + minutes(12.5), started_at=NOW + seconds(30))
    facts = world.all()[0]
    assert (level(facts)["answer"], level(facts)["why"]) == ("no", "left Running after 12 min, before 30 min")
    assert (level(facts)["until"], level(facts)["stayed_seconds"]) == (after(minutes(12.5)), 720)


def test_a_stay_that_no_complete_poll_saw_for_long_enough_says_so(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(40)
    world.sees(SUCCESS, ended_at=NOW + minutes(39), started_at=NOW + seconds(30))
    facts = level(world.all()[0])
    assert facts["answer"] == "no"
    assert facts["why"] == (
        "left Running after 38 min 30 s, but no poll saw it for 30 min: "
        f"the last poll that saw it began at {after(seconds(30))}"
    )


def test_a_stay_without_a_complete_poll_since_says_since_when_and_how_the_watch_is(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(35)
    world.ci.refuses["Transcode"] = TemporaryError("503", advice="wait")
    world.poll()
    facts = level(world.last())
    assert facts["answer"] == "waiting"
    assert facts["why"] == (
        f"no poll has seen it since it became overdue at {after(minutes(30.5))}: the last one began at "
        f'{after(seconds(30))}, and 1 failed since; watch "vod" is late: does a worker run?'
    )


def test_a_stay_that_is_too_long_is_told_with_the_next_complete_poll(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(30)
    world.poll()
    world.clock.now = NOW + minutes(30.75)
    assert level(world.last())["answer"] == "waiting"


def test_a_job_that_no_watch_looks_after_any_more_says_so(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(35)
    world.book = read((HEAD + STUCK).replace('tags = ["Transcode"]', 'tags = ["Snapshot"]'), {})
    assert level(world.last())["why"].endswith("no watch of the present rules looks after this job")


def test_a_level_rule_that_fired_stops_only_for_as_long_as_it_holds(world: World) -> None:
    soon = '[[rule]]\nname = "soon"\nin = "Running"\nfor = "10m"\nmatch.age = "< 20m"\nstop = true\nnotify = "cms"\n'
    world.begin(soon, STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(11)
    world.poll()
    assert (level(world.last(), "soon")["answer"], level(world.last())["answer"]) == ("fired", "stopped")
    world.clock.now = NOW + minutes(25)
    assert (level(world.last(), "soon")["answer"], level(world.last())["answer"]) == ("fired", "waiting")
    world.clock.now = NOW + minutes(31)
    assert level(world.last())["answer"] == "waiting"
    world.poll()
    assert (level(world.last(), "soon")["answer"], level(world.last())["answer"]) == ("fired", "fired")


def test_a_stay_that_goes_on_is_judged_by_the_rules_of_now_and_says_so(world: World) -> None:
    world.begin(EVERYTHING)
    old = world.book.sha
    world.sees(RUNNING)
    world.rule(EVERYTHING, STUCK)
    facts = world.last()
    assert (facts["judged_by"], level(facts)["judged_by"]) == (old, world.book.sha)
    assert facts["notes"] == [
        f"judged by the rules that were in force then ({old}), and others are in force now",
        f"level rules: the present ones ({world.book.sha})",
    ]


@pytest.mark.parametrize("kept", [True, False])
def test_a_stay_that_ended_is_judged_by_the_rules_of_its_end_and_says_so(world: World, kept: bool) -> None:
    world.begin(EVERYTHING)
    old = world.book.sha
    world.sees(RUNNING)
    world.rule(EVERYTHING, STUCK)
    end = world.book.sha
    world.sees(SUCCESS)
    world.rule(EVERYTHING, STUCK.replace("30m", "20m"))
    if not kept:
        with world.db.write() as tx:
            tx.execute(delete(ruleset).where(ruleset.c.sha == end))
    facts = world.all()[0]
    assert facts["judged_by"] == old
    assert level(facts)["judged_by"] == (end if kept else world.book.sha)
    assert level(facts)["for_seconds"] == (1_800 if kept else 1_200)
    assert facts["notes"][1:] == [
        f"level rules: those of when it ended ({end})"
        if kept
        else f"level rules: the present ones ({world.book.sha}), as those of when it ended are not on record"
    ]


def test_an_alarm_of_a_rule_that_is_gone_is_still_told_of(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(31)
    world.poll()
    world.rule(EVERYTHING)
    assert (level(world.last())["answer"], level(world.last())["line"]) == ("fired", None)
    assert '"stuck" (no longer in rules.toml)' in as_text(world.last())
