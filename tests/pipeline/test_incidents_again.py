"""What was sent about incidents, put through rules again: backtest and explanation agree with what happened."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS
from bridge.pipeline.backtest import Backtest
from bridge.pipeline.explain import explain_stored
from bridge.record import incidents
from bridge.record.database import Database
from bridge.record.schema import incidents as table
from bridge.record.schema import metadata
from tests.conftest import on_both
from tests.pipeline.test_backtest import backtest, counted, differences
from tests.pipeline.test_incidents import ASSET, BACKLOG, ESCALATE, ROW, SETTLE, SHARE, SICK, SILENT, a_rig, fail, part
from tests.support.nouns import NOW, hours, minutes, seconds
from tests.support.records import rows
from tests.support.rig import STUCK, Rig

LANGUAGE = "".join((
    SICK + ESCALATE,
    ROW,
    SHARE,
    SILENT.replace('"2h"', '"40m"'),
    BACKLOG,
    ASSET,
    SETTLE.replace('"asset"', '"settled"'),
))  # fmt: skip


@on_both
def test_rules_that_have_not_changed_differ_in_nothing(db: Database) -> None:
    rig = a_rig(db, SICK + ESCALATE, SILENT, ASSET)
    fail(rig, "j1", "j2", "j3")
    part(rig, "a1", SUCCESS)
    part(rig, "a2", SUCCESS)
    part(rig, "a3", SUCCESS)
    rig.passes(hours(5))
    report = backtest(rig)
    assert differences(report) == []
    assert counted(report)["incident sick -> ops"] == {"told": 1}
    assert counted(report)["incident asset -> cms"] == {"told": 1}
    assert counted(report)["incident silent -> ops"] == {"told": 1}


def test_another_limit_is_a_difference(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(30))
    assert counted(backtest(rig, SICK.replace(">= 3", ">= 4")))["incident sick -> ops"] == {"removed": 1}
    more = backtest(rig, SICK + SICK.replace('"sick"', '"ill"').replace(">= 3", ">= 2"))
    assert counted(more)["incident ill -> ops"] == {"told": 1, "added": 1}
    assert more.facts()["differences"]["first"][0]["event"] == "opened"


def test_what_was_acknowledged_is_not_compared(db: Database) -> None:
    rig = a_rig(db, SICK.replace("10m", "2h") + ESCALATE)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    with db.write() as tx:
        incidents.change(tx, rows(db, table)[0]["n"], acknowledged_at=rig.clock(), acknowledged_by="ann")
    rig.passes(hours(1))
    rig.has("j9", SUCCESS)
    rig.passes(minutes(5))
    report = backtest(rig)
    assert (differences(report), report.tally.unknown_incidents) == ([], 1)


def test_a_level_rule_that_waits_for_another_is_not_compared(db: Database) -> None:
    rig = a_rig(db, SICK, STUCK + 'unless = "sick"\n')
    fail(rig, "j1", "j2", "j3")
    rig.has("r1", RUNNING)
    rig.passes(hours(1))
    report = backtest(rig)
    assert (differences(report), report.tally.unknown_times) == ([], 1)


def test_what_began_before_the_window_is_known(db: Database) -> None:
    rig = a_rig(db, SICK)
    fail(rig, "j1", "j2")
    rig.passes(minutes(2))
    since = rig.clock()
    fail(rig, "j3")
    rig.passes(minutes(30))
    report = backtest(rig, since=since)
    assert (differences(report), counted(report)) == ([], {"incident sick -> ops": {"told": 1}})


@pytest.mark.parametrize("mode", ["hold", "drop"])
def test_a_mute_holds_or_drops_them_again(db: Database, mode: str) -> None:
    mute = f'[[mute]]\nname = "now"\nbetween = "08:00-12:00"\nmode = "{mode}"\n'
    rig = a_rig(db, SICK, mute)
    fail(rig, "j1", "j2", "j3")
    rig.passes(minutes(5))
    status = {"hold": "mute", "drop": "dropped"}[mode]
    report = backtest(rig)
    assert (differences(report), counted(report)) == ([], {"incident sick -> ops": {status: 1}})
    assert differences(backtest(rig, SICK)) == [f"opened, incident sick ops: {status} -> told"]


# --- whatever happens -------------------------------------------------------------------------------------------------

STATES = st.sampled_from([SUBMITTED, RUNNING, SUCCESS, FAILED, FAILED])
EVENTS = st.one_of(
    st.tuples(st.just("job"), st.integers(1, 12), STATES),
    st.tuples(st.just("job"), st.integers(1, 12), STATES),
    st.tuples(st.just("job"), st.integers(1, 12), STATES),
    st.tuples(st.just("storm"), st.integers(2, 5), STATES),
    st.tuples(st.just("polls"), st.integers(1, 8)),
    st.tuples(st.just("late"), st.integers(1, 1_500)),
)


def happens(rig: Rig, what: str, *facts: Any) -> None:
    match what, facts:
        case "job", (int(number), str(state)):
            data = f"asset=a{number % 4};parts=3" if number % 4 else None
            rig.has(f"j{number}", state, queue="p1" if number % 3 else "p2", user_data=data)
            rig.clock.advance(seconds(7))
        case "storm", (int(number), str(state)):
            for _ in range(number):
                rig.has(f"k{len(rig.ci.jobs)}", state, queue="p1")
        case "polls", (int(number),):
            rig.passes(minutes(5 * number))
        case "late", (int(passed_s),):
            rig.clock.advance(seconds(passed_s))
            rig.poll()


def plays(db: Database, history: list[tuple[Any, ...]]) -> Rig:
    with db.write() as tx:
        for each in reversed(metadata.sorted_tables):
            tx.execute(delete(each))
    rig = a_rig(db, LANGUAGE)
    for what, *facts in history:
        happens(rig, what, *facts)
    rig.passes(hours(1))
    return rig


def explained(rig: Rig, id_: str) -> set[str]:
    """Return the incidents that the explanation of a job names."""
    with rig.db.read() as tx:
        found = explain_stored(tx, id_, rig.book, now=rig.clock())
    return {one["incident"] for facts in found for one in facts["incidents"] if one["answer"] in ("counts", "compared")}


def agrees(rig: Rig, later: datetime) -> Backtest:
    report = backtest(rig)
    assert differences(report) == []
    assert differences(backtest(rig, since=later)) == []
    for message in rig.received():
        kind, data = message.event["type"], message.event["data"]
        for job in data["jobs"] if kind.endswith((".opened", ".completed", ".failed")) else ():
            assert data["incident"] in explained(rig, job["id"])
    return report


STORM = [("job", 1, FAILED), ("job", 2, FAILED), ("job", 4, FAILED), ("polls", 3), ("job", 5, SUBMITTED),
         ("job", 7, SUBMITTED), ("job", 8, SUBMITTED), ("polls", 5), ("job", 5, SUCCESS), ("late", 900)]  # fmt: skip


@on_both
def test_a_storm_and_a_backlog_are_the_same_again(db: Database) -> None:
    agrees(plays(db, STORM), NOW + timedelta(minutes=10))


@given(st.lists(EVENTS, min_size=10, max_size=50), st.floats(0, 1))
@example(STORM, 0.5)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_has_happened_backtest_and_explanations_agree_with_what_was_sent(
    db: Database, history: list[tuple[Any, ...]], part_: float
) -> None:
    rig = plays(db, history)
    report = agrees(rig, NOW + (rig.clock() - NOW) * part_)
    for line in counted(report):
        event(line)
    event(f"{report.tally.unknown_incidents} not compared")
