"""What level rules say of a time in state: each case is brought about by polls."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from bridge.cli.explain import as_text
from bridge.collect.errors import TemporaryError
from bridge.decide.rulesfile.read import read
from bridge.model import RUNNING, SUCCESS
from bridge.record.schema import rulesets
from tests.support.explained import EVERYTHING, HEAD, STUCK, Explained, Facts, after, level
from tests.support.nouns import NOW, minutes, seconds


def begin(explained: Explained, *rules: str) -> None:
    """Let j1 run since half a minute past nine."""
    explained.begin(*rules or (STUCK,))
    explained.goes(RUNNING)


def first(explained: Explained, rule: str = "stuck") -> Facts:
    """What the level rule says of the first transition."""
    return level(explained.all()[0], rule)


def answers(explained: Explained, *rules: str) -> list[str]:
    return [first(explained, rule)["answer"] for rule in rules or ("stuck",)]


def test_a_time_in_state_that_is_not_yet_too_long_says_when_it_will_be(explained: Explained) -> None:
    begin(explained)
    found = first(explained)
    assert (found["answer"], found["due_at"]) == ("waiting", after(minutes(30.5)))
    assert explained.headline() == (
        f'no rule matched; nearest: "stuck" (line {found["line"]}): '
        f"Running for 30 s, which is less than 30 min: due at {after(minutes(30.5))}"
    )


def test_an_alarm_says_when_how_often_and_when_it_was_over(explained: Explained) -> None:
    begin(explained, f'{STUCK}repeat = "10m"\nrecover = true\n')
    explained.polls_at(31)
    explained.delivers()
    assert first(explained)["why"] == f"fired at {after(minutes(31))}"
    assert explained.headline() == '"stuck" notifies ops: sent'
    explained.polls_at(41)
    explained.goes(SUCCESS)
    began, end = explained.all()
    assert (level(began)["answer"], level(began)["repeated"], level(began)["notifiers"]) == ("fired", 1, ["ops"])
    assert level(began)["why"] == (
        f"fired at {after(minutes(31))}, repeated once until {after(minutes(41))}, "
        f"it moved on at {after(minutes(41.5))}"
    )
    kinds = [(one["kind"], one["answer"]) for step in (began, end) for one in step["deliveries"]]
    assert kinds == [("level", "sent"), ("level", "waiting"), ("recovery", "waiting")]
    assert level(end)["why"] == 'in: "Success" is not among Running'


def test_an_alarm_that_nobody_hears_the_end_of_says_why(explained: Explained) -> None:
    begin(explained)
    explained.polls_at(31)
    explained.goes(SUCCESS)
    assert first(explained)["why"].endswith("(recover is not set, so nobody is notified of that)")


@pytest.mark.parametrize(
    ("ended_at", "seen_at", "why"),
    [
        (12.5, 12.5, "left Running after 12 min, before 30 min"),
        (
            39,
            40,
            "left Running after 38 min 30 s, but no poll saw the job in that state after 30 min; "
            "the last poll that saw it there began at 2026-11-21T09:00:30Z",
        ),
    ],
)
def test_a_time_in_state_that_ended_says_how_long_it_was_and_was_seen(
    explained: Explained, ended_at: float, seen_at: float, why: str
) -> None:
    begin(explained)
    explained.clock.now = NOW + minutes(seen_at)
    explained.goes(SUCCESS, ended_at=NOW + minutes(ended_at), started_at=NOW + seconds(30))
    found = first(explained)
    assert (found["answer"], found["why"], found["until"]) == ("no", why, after(minutes(ended_at)))
    assert found["stayed_seconds"] == (ended_at - 0.5) * 60


def test_one_without_a_complete_poll_since_says_since_when_and_how_the_watch_is(explained: Explained) -> None:
    begin(explained)
    explained.ci.refuses["Transcode"] = TemporaryError("503", advice="wait")
    explained.polls_at(35)
    assert first(explained)["answer"] == "waiting"
    assert first(explained)["why"] == (
        f"no poll has seen the job since it became overdue at {after(minutes(30.5))}: the last one began at "
        f'{after(seconds(30))}, and 1 failed since; watch "vod" is late: is a worker running?'
    )


def test_one_that_is_too_long_fires_with_the_next_complete_poll(explained: Explained) -> None:
    begin(explained)
    explained.polls_at(30)
    explained.clock.now = NOW + minutes(30.75)
    assert answers(explained) == ["waiting"]


def test_a_job_that_no_watch_looks_after_any_more_says_so(explained: Explained) -> None:
    begin(explained)
    explained.clock.now = NOW + minutes(35)
    explained.book = read((HEAD + STUCK).replace('tags = ["Transcode"]', 'tags = ["Snapshot"]'), {})
    assert first(explained)["why"].endswith("no watch in rules.toml covers this job")


def test_a_level_rule_that_fired_stops_only_for_as_long_as_it_holds(explained: Explained) -> None:
    soon = '[[rule]]\nname = "soon"\nin = "Running"\nfor = "10m"\nmatch.age = "< 20m"\nstop = true\nnotify = "cms"\n'
    begin(explained, soon, STUCK)
    explained.polls_at(11)
    assert answers(explained, "soon", "stuck") == ["fired", "stopped"]
    explained.clock.now = NOW + minutes(31)
    assert answers(explained, "soon", "stuck") == ["fired", "waiting"]
    explained.poll_on()
    assert answers(explained, "soon", "stuck") == ["fired", "fired"]


def test_a_time_in_state_that_goes_on_is_judged_by_the_rules_of_now_and_says_so(explained: Explained) -> None:
    begin(explained, EVERYTHING)
    old = explained.book.sha
    explained.rule(EVERYTHING, STUCK)
    facts, new = explained.last(), explained.book.sha
    assert (facts["judged_by"], level(facts)["judged_by"]) == (old, new)
    assert facts["notes"][1:] == [f"level rules: those of rules.toml now ({new})"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_time_in_state_that_ended_is_judged_by_the_rules_of_its_end_and_says_so(
    explained: Explained, kept: bool
) -> None:
    begin(explained, EVERYTHING)
    old = explained.book.sha
    explained.rule(EVERYTHING, STUCK)
    end = explained.book.sha
    explained.goes(SUCCESS)
    explained.rule(EVERYTHING, STUCK.replace("30m", "20m"))
    if not kept:
        with explained.db.write() as tx:
            tx.execute(delete(rulesets).where(rulesets.c.sha == end))
    facts, now = explained.all()[0], explained.book.sha
    assert (facts["judged_by"], level(facts)["judged_by"]) == (old, end if kept else now)
    assert level(facts)["for_seconds"] == (1_800 if kept else 1_200)
    forgotten = (
        f"level rules: those of rules.toml now ({now}), as those in force when the state ended are not on record"
    )
    assert facts["notes"][1:] == [f"level rules: those in force when the state ended ({end})" if kept else forgotten]


def test_an_alarm_of_a_rule_that_is_gone_is_still_shown(explained: Explained) -> None:
    begin(explained)
    explained.polls_at(31)
    explained.rule(EVERYTHING)
    assert (first(explained)["answer"], first(explained)["line"]) == ("fired", None)
    assert '"stuck" (no longer in rules.toml)' in as_text(explained.last())
