"""What level rules say to a job's time in a state, and what gates do to that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.decide.routing import evaluate, evaluate_overdue
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.levels import TimeInState, evaluate_time_in_state
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import GONE, RUNNING, SUCCESS, Alarm, Silence
from tests.support.nouns import NOON, a_job, a_rulebook, a_transition

STUCK = '[[rule]]\nname = "stuck"\nin = ["Running", "gone"]\nfor = "30m"\nnotify = "hook"\n'


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def running(**facts: object) -> TimeInState:
    return TimeInState(began=a_transition(a_job(state=RUNNING, tag="Transcode"), seen_at=NOON, **facts))


def said(rules: str, time: TimeInState, after: timedelta) -> list[tuple[str, str | None]]:
    matcher = a_rulebook(rules).matcher
    return [(one.answer, one.why_not) for one in evaluate_time_in_state(time, matcher, NOON + after, matcher.levels)]


def gates(book: Rulebook, now: timedelta, *silences: Silence) -> Gates:
    return Gates(mutes=book.mutes, silences=silences, zone=book.zone, now=NOON + now)


@pytest.mark.parametrize(
    ("more", "time", "after", "answer", "why_not"),
    [
        ("", running(), minutes(30), "fired", None),
        ("", running(), minutes(29), "waiting", "Running for 29 min, which is less than 30 min"),
        ('match.tag = "Snapshot"\n', running(), minutes(29), "no", 'match.tag: "Transcode" is not "Snapshot"'),
        ("", running(to=SUCCESS), minutes(40), "no", 'in: "Success" is not among Running, gone'),
        ("", running(to=GONE), minutes(30) + timedelta(days=1), "fired", None),
        ("", running(to=GONE), minutes(31) + timedelta(days=1), "no", "gone for a day longer than `for` says"),
    ],
)  # fmt: skip
def test_a_level_rule_says_why_it_has_not_fired(
    more: str, time: TimeInState, after: timedelta, answer: str, why_not: str | None
) -> None:
    assert said(STUCK + more, time, after) == [(answer, why_not)]


def test_what_a_first_snapshot_found_too_long_already_is_not_notified_of() -> None:
    started = a_job(state=RUNNING, started_at=NOON - minutes(30))
    found = TimeInState(began=a_transition(started, seen_at=NOON, silent="first snapshot"))
    assert said(STUCK, found, minutes(5)) == [("no", "the first snapshot found it so, Running for too long")]


def test_a_level_rule_stops_those_below_once_its_own_time_is_over() -> None:
    rules = f"{STUCK}stop = true\n{STUCK.replace('stuck', 'later').replace('30m', '20m')}"
    assert [answer for answer, _ in said(rules, running(), minutes(25))] == ["waiting", "fired"]
    assert said(rules, running(), minutes(30))[1] == ("stopped", 'rule "stuck" (line 1) matched and stops')


def test_repetitions_stand_on_a_grid_that_begins_with_the_first() -> None:
    book = a_rulebook(STUCK.replace(', "gone"', "") + 'repeat = "10m"\n')
    at = NOON + minutes(32)
    first = Alarm(rule="stuck", since=NOON, fired_at=at, last_at=at, notifiers=("hook",))
    time = TimeInState(began=running().began, alarms={"stuck": first})
    counts = [
        [
            one.level_event and one.level_event.count
            for one in evaluate_overdue(time, book.matcher, gates(book, at), NOON + at)
        ]
        for at in (minutes(39), minutes(40), minutes(55))
    ]
    assert counts == [[], [1], [2]]


@pytest.mark.parametrize(("mode", "drops"), [("hold", False), ("drop", True)])
def test_a_verdict_says_which_gate_holds_the_message_for_whom(mode: str, drops: bool) -> None:
    book = a_rulebook(f'{STUCK}[[mute]]\nname = "lunch"\nbetween = "12:00-13:00"\nmode = "{mode}"\n')
    (verdict,) = evaluate_overdue(running(), book.matcher, gates(book, minutes(30)), NOON + minutes(30))
    assert (verdict.kind, verdict.holds["hook"].gate, verdict.drops("hook")) == ("level", "mute", drops)


def test_who_is_notified_of_the_end_anyway_hears_of_no_recovery() -> None:
    stuck = STUCK + "recover = true\n"
    at = NOON + minutes(30)
    alarm = Alarm(rule="stuck", state=RUNNING, notifiers=["hook"], since=NOON, fired_at=at, last_at=at)
    end = a_transition(a_job(state=SUCCESS), was=RUNNING, sequence=2)
    done = '[[rule]]\nname = "done"\nto = "Success"\nnotify = "hook"\n'
    grouped = f'{done}group = {{ wait = "1h" }}\n'
    for more, kinds in [
        ("", {"recovery": ["hook"]}),
        (done, {"transition": ["hook"], "recovery": []}),
        (grouped, {"transition": ["hook"], "recovery": ["hook"]}),
    ]:
        book = a_rulebook(stuck + more)
        verdicts = evaluate(end, book.matcher, gates(book, minutes(40)), [alarm])
        assert {one.kind: list(one.notifiers) for one in verdicts} == kinds


def test_a_silent_transition_is_matched_by_no_rule() -> None:
    book = a_rulebook('[[rule]]\nname = "all"\nnotify = "hook"\n')
    assert evaluate(running(silent="first snapshot").began, book.matcher, gates(book, minutes(0))) == []
