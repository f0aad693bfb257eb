"""Why did I (not) get this? What the rules say, by which rules, and how people are told."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from bridge.cli.explain import as_text
from bridge.model import CANCEL, FAILED, PAUSE, RUNNING, SUBMITTED, Rejected
from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from bridge.record.schema import ruleset, transition
from tests.conftest import on_both
from tests.support.explained import EVERYTHING, MUTE, ONLY_FAILED, STUCK, World, after, rule_of
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.records import NOW, Clock, a_listed_job, hours, minutes, seconds


@pytest.fixture
def world(db: Database, ci: FakeCi, clock: Clock, poller: Poller, transport: FakeTransport) -> World:
    return World(db, ci, clock, poller, transport)


@on_both
def test_a_job_that_a_rule_matched_says_when_it_was_told(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.deliver()
    facts = world.last()
    assert facts["headline"] == '"everything" notifies cms: sent'
    assert [(one["rule"], one["answer"], one["notifiers"]) for one in facts["rules"]] == [
        ("everything", "fired", ["cms"])
    ]
    assert (world.told()["answer"], world.told()["why"]) == ("sent", f"sent at {after(minutes(1))}")
    assert (facts["from"], facts["to"], facts["judged_by"], facts["notes"]) == ("new", SUBMITTED, world.book.sha, [])


def test_of_a_job_that_no_rule_matched_the_nearest_miss_is_named_first(world: World) -> None:
    far = '[[rule]]\nname = "far"\nto = "Cancel"\nmatch.queue = "p9"\nmatch.code = true\nnotify = "ops"\n'
    other = '[[rule]]\nname = "other"\nto = "Success"\nnotify = "ops"\n'
    world.begin(far, other, ONLY_FAILED)
    world.sees(RUNNING, FAILED, queue="p2")
    facts = world.last()
    line = rule_of(facts, "failed")["line"]
    assert [(one["rule"], one["misses"]) for one in facts["rules"]] == [("failed", 1), ("other", 1), ("far", 3)]
    assert facts["headline"] == (f'no rule matched; nearest: "failed" (line {line}): match.queue: "p2" is not "p1"')
    assert facts["deliveries"] == []


def test_a_miss_by_several_conditions_says_by_how_many(world: World) -> None:
    world.begin(ONLY_FAILED)
    world.sees(RUNNING, queue="p2")
    assert world.last()["headline"].endswith('(line 21): to: "Running" is not among Failed (and 1 more)')


def test_a_rule_after_one_that_stops_says_which_one_that_was(world: World) -> None:
    stops = '[[rule]]\nname = "first"\nstop = true\nnotify = "ops"\n'
    world.begin(stops, EVERYTHING, ONLY_FAILED)
    world.sees(SUBMITTED, queue="p1")
    facts = world.last()
    stopped = [one for one in facts["deliveries"] if one["answer"] == "stopped"]
    assert [(one["rule"], one["notifier"]) for one in stopped] == [("everything", "cms")]
    assert 'rule "first" (line ' in stopped[0]["why"]
    assert stopped[0]["why"].endswith("matched and stops")
    assert [rule_of(facts, name)["answer"] for name in ("first", "everything", "failed")] == [
        "fired",
        "stopped",
        "stopped",
    ]
    assert facts["headline"] == '"first" notifies ops: waits for its first attempt'


def test_a_notifier_that_an_earlier_rule_told_is_not_told_twice(world: World) -> None:
    world.begin('[[rule]]\nname = "special"\nnotify = "cms"\n', EVERYTHING.replace('"cms"', '["cms", "ops"]'))
    world.sees(SUBMITTED)
    answers = {(one["rule"], one["notifier"]): one for one in world.last()["deliveries"]}
    assert {pair: one["answer"] for pair, one in answers.items()} == {
        ("special", "cms"): "waiting",
        ("everything", "ops"): "waiting",
        ("everything", "cms"): "already_told",
    }
    assert world.last()["headline"] == (
        '"special" notifies cms: waits for its first attempt; "everything" notifies ops: waits for its first attempt'
    )
    assert answers["everything", "cms"]["why"] == ('rule "special" above notifies cms of this (waits to be sent)')


def test_a_rule_that_should_have_told_somebody_first_is_named_with_what_came_of_it(world: World) -> None:
    special = '[[rule]]\nname = "special"\nnotify = "cms"\n'
    world.begin(special, EVERYTHING)
    world.sees(SUBMITTED)
    world.deliver(Rejected("404 Not Found"))
    world.rule(special, EVERYTHING, MUTE.format("drop"))
    world.sees(RUNNING)
    world.rule(special, EVERYTHING, MUTE.format("hold"))
    world.sees(PAUSE)
    world.rule(special, EVERYTHING)
    world.sees(RUNNING)
    world.deliver()
    whys = [one["why"] for step in world.all() for one in step["deliveries"] if one["answer"] == "already_told"]
    sent_at = world.told_by("special")["ended_at"]
    assert whys == [
        f'rule "special" above notifies cms of this ({fate})'
        for fate in ("dead", "dropped", "held until 2026-11-21T10:00:00Z", f"sent at {sent_at}")
    ]


def test_a_first_snapshot_says_that_it_was_silent(world: World) -> None:
    world.ci.has(a_listed_job("j1", RUNNING, created_at=NOW - hours(1)))
    world.begin(EVERYTHING)
    assert world.last()["headline"] == 'nobody was notified: first snapshot of Transcode in watch "vod"'
    assert world.last()["deliveries"] == []


def test_a_rulebook_without_rules_says_so(world: World) -> None:
    world.begin()
    world.sees(SUBMITTED)
    assert world.last()["headline"] == "no rule matched: there are none"


@on_both
def test_a_transition_is_judged_by_the_rules_of_then_and_told_what_those_of_now_would_do(world: World) -> None:
    world.begin(ONLY_FAILED)
    old = world.book.sha
    world.sees(SUBMITTED)
    world.rule(EVERYTHING)
    world.sees(RUNNING)
    first, second = world.all()
    assert (first["judged_by"], [one["rule"] for one in first["rules"]]) == (old, ["failed"])
    assert first["headline"].startswith("no rule matched; nearest")
    assert first["would_tell_now"] == {"rules": world.book.sha, "tells": [{"rule": "everything", "notifiers": ["cms"]}]}
    assert 'the present rules would notify: cms by "everything"' in as_text(first)
    assert first["notes"] == [f"judged by the rules that were in force then ({old}), and others are in force now"]
    assert (second["judged_by"], second["would_tell_now"]) == (world.book.sha, None)


def test_that_there_are_no_rules_is_said_only_of_those_that_were_asked(world: World) -> None:
    world.begin(STUCK)
    world.sees(SUBMITTED)
    old = world.book.sha
    world.rule()
    facts = world.last()
    assert facts["judged_by"] == old
    assert facts["headline"] == ("no rule matched: there were none, neither edge nor level rules")
    assert facts["notes"] == [
        f"judged by the rules that were in force then ({old}), and others are in force now",
        f"level rules: the present ones ({world.book.sha})",
    ]


def test_rules_of_now_that_would_tell_the_same_are_not_mentioned(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.rule(EVERYTHING, ONLY_FAILED)
    assert world.last()["would_tell_now"] is None


@pytest.mark.parametrize("known", [False, True])
def test_where_the_rules_of_then_are_not_on_record_it_says_so_and_asks_those_of_now(world: World, known: bool) -> None:
    world.begin(ONLY_FAILED)
    old = world.book.sha
    world.sees(SUBMITTED)
    world.rule(EVERYTHING)
    with world.db.write() as tx:
        tx.execute(delete(ruleset).where(ruleset.c.sha == old))
        if not known:  # as a version wrote it that kept none
            tx.execute(update(transition).values(rules=None))
    facts = world.last()
    assert facts["judged_by"] == world.book.sha
    (note,) = facts["notes"]
    assert "are not on record; these are the verdicts of the present rules" in note
    assert (old in note) is known
    assert (world.told()["answer"], world.told()["why"]) == (
        "not_on_record",
        "no delivery is on record: other rules were in force then",
    )


def test_rules_that_this_version_cannot_read_are_as_if_they_were_not_kept(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.rule(EVERYTHING, ONLY_FAILED)
    with world.db.write() as tx:
        tx.execute(update(ruleset).values(text='{"of": "another version"}'))
    assert "cannot be read any more" in world.last()["notes"][0]


def test_a_job_that_nobody_saw_has_no_answer(world: World) -> None:
    assert world.all("j404") == []


@on_both
def test_the_bucket_says_which_of_two_jobs_is_meant(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    assert [one["bucket"] for one in world.all(bucket="clips-1250000000")] == ["clips-1250000000"]
    assert world.all(bucket="other-1250000000") == []


# --- for people ---------------------------------------------------------------------------------------------


def test_the_text_says_the_answer_first_and_lines_up_what_it_is_made_of(world: World) -> None:
    world.begin(EVERYTHING, ONLY_FAILED)
    world.sees(SUBMITTED, queue="p2", input="in/a.mp4")
    world.deliver()
    one = world.told()["id"]
    lines = {one["rule"]: one["line"] for one in world.last()["rules"]}
    assert as_text(world.last()).splitlines() == [
        f"Transcode j1: new -> Submitted (number 1, seen {after(seconds(30))}, watch vod)",
        '  "everything" notifies cms: sent',
        f'    cms  "everything"  sent at {after(minutes(1))} ({one})',
        "    says: Transcode Submitted: a.mp4",
        "          seen for the first time",
        f'    yes  rule "everything" (line {lines["everything"]})  notifies cms',
        f'    no   rule "failed" (line {lines["failed"]})      to: "Submitted" is not among Failed',
    ]


def test_the_text_leaves_most_rules_that_say_no_to_json(world: World) -> None:
    many = [ONLY_FAILED.replace('"failed"', f'"r{n}"') for n in range(30)]
    world.begin(*many, EVERYTHING)
    world.sees(SUBMITTED)
    text = as_text(world.last())
    assert '"r19"' in text
    assert '"r20"' not in text
    assert "... and 10 more that do not match (--json has them all)" in text
    assert 'yes  rule "everything"' in text
    assert len(world.last()["rules"]) == 31


def test_a_long_message_is_cut_for_people(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED, FAILED, message="\n".join(f"line {n}" for n in range(50)))
    assert "... and 40 more lines" in as_text(world.last())
    assert "line 10" not in as_text(world.last())


@on_both
def test_many_transitions_and_many_rules_are_explained(world: World) -> None:
    many = [ONLY_FAILED.replace('"failed"', f'"r{n}"') for n in range(1_000)]
    world.begin(*many, EVERYTHING)
    world.sees(SUBMITTED, *([RUNNING, PAUSE] * 24), CANCEL)
    world.deliver()
    found = world.all()
    assert [len(one["rules"]) for one in found] == [1_001] * 50
    assert {one["headline"] for one in found} == {'"everything" notifies cms: sent'}
