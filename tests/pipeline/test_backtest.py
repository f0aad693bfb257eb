"""The history that real polls have made, put through rules again: the same rules say the same of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from bridge.collect.errors import TemporaryError
from bridge.decide.rulesfile.read import read
from bridge.model import CANCEL, FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS, Job, Rejected
from bridge.pipeline.backtest import Backtest, Report
from bridge.record.database import Database
from bridge.record.outbox import entries, silences
from bridge.record.queries import history, lists
from bridge.record.schema import attempt, delivery, metadata, transition
from tests.conftest import on_both
from tests.support.nouns import by_hand
from tests.support.records import NOW, Clock, minutes, rows, seconds
from tests.support.simulated_bridge import GIVEN, House

KEEP = timedelta(days=30)
EVERY = """
[[rule]]
name = "every"
notify = "ops"
"""
STUCK = """
[[rule]]
name = "stuck"
in = "Running"
for = "30m"
repeat = "1h"
recover = true
notify = ["ops", "cms"]
"""


@pytest.fixture
def house(db: Database, clock: Clock) -> House:
    return began(House(db, EVERY, clock))


def began(house: House, rules: str = EVERY) -> House:
    """Let the first snapshot be over."""
    house.start(rules)
    house.poll()
    house.clock.advance(minutes(1))
    return house


def backtest(house: House, rules: str | None = None, *, since: datetime = NOW, keep: timedelta = KEEP) -> Report:
    tried = house.book if rules is None else read(GIVEN + rules, {})
    with house.db.read() as tx:
        return Backtest(tx, tried, in_force=house.book, keep=keep, since=since, now=house.clock()).run()


def counted(report: Report) -> dict[str, dict[str, int]]:
    """Return for each "kind rule -> notifier" what is not nothing."""
    return {
        f"{row['kind']} {row['rule']} -> {row['notifier']}": {
            name: count for name, count in row.items() if isinstance(count, int) and count
        }
        for row in report.rows()
    }


def said(report: Report) -> list[str]:
    return [
        f"{one.transition.job.id}: {one.transition.was} -> {one.transition.to}, {' '.join(one.line)}: "
        f"{one.before or 'nothing'} -> {one.after or 'nothing'}"
        for one in report.tally.first
    ]


@on_both
def test_rules_that_have_not_changed_differ_in_nothing(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(5))
    house.has("j1", SUCCESS)
    house.passes(minutes(5))
    report = backtest(house)
    assert (report.transitions, report.rulesets) == (2, [house.book.sha])
    assert counted(report) == {"transition every -> ops": {"told": 2}}
    assert not report.tally.differs


def test_a_new_rule_and_one_that_is_gone_are_differences(house: House) -> None:
    house.has("j1", SUBMITTED)
    house.passes(minutes(5))
    house.has("j1", RUNNING)
    house.passes(minutes(5))
    report = backtest(house, '[[rule]]\nname = "begun"\nto = "Running"\nnotify = "cms"\n')
    assert counted(report) == {
        "transition begun -> cms": {"told": 1, "added": 1},
        "transition every -> ops": {"removed": 2},
    }
    assert said(report) == [
        "j1: new -> Submitted, transition every ops: told -> nothing",
        "j1: Submitted -> Running, transition every ops: told -> nothing",
        "j1: Submitted -> Running, transition begun cms: nothing -> told",
    ]


@pytest.mark.parametrize(
    ("more", "fate"),
    [
        ('group = { wait = "10m" }', "group"),
        ('[[mute]]\nname = "now"\nbetween = "09:03-10:00"', "mute"),
        ('[[mute]]\nname = "now"\nbetween = "09:03-10:00"\nmode = "drop"', "dropped"),
    ],
)
def test_what_would_be_held_or_dropped_is_a_change(house: House, more: str, fate: str) -> None:
    for id_ in ("j1", "j2"):
        house.has(id_, RUNNING)
        house.poll()
        house.clock.advance(minutes(5))
    report = backtest(house, EVERY + more)
    assert said(report)[-1] == f"j2: new -> Running, transition every ops: told -> {fate}"


@on_both
def test_what_a_silence_on_record_held_it_holds_again(house: House) -> None:
    house.has("j1", RUNNING)
    house.silence(lasts=minutes(30), rule="every")
    house.passes(minutes(5))
    assert counted(backtest(house)) == {"transition every -> ops": {"silence": 1}}
    renamed = EVERY.replace("every", "all")
    assert counted(backtest(house, renamed)) == {
        "transition all -> ops": {"told": 1, "added": 1},
        "transition every -> ops": {"removed": 1},
    }


def test_what_was_dropped_and_sent_again_by_hand_was_dropped_all_the_same(house: House) -> None:
    house.start(EVERY + '[[mute]]\nname = "m"\nbetween = "00:00-24:00"\nmode = "drop"\n')
    house.has("j1", FAILED)
    house.passes(minutes(10))
    (dropped,) = house.deliveries()
    with house.db.write() as tx:
        assert entries.redrive(tx, lists.numbers_of([dropped["id"]]), now=house.clock()) == [dropped["id"]]
    house.deliver()
    assert [one["state"] for one in house.deliveries()] == ["sent"]
    assert not backtest(house).tally.differs


def test_a_longer_patience_takes_alarms_and_recoveries_away(house: House) -> None:
    began(house, STUCK)
    house.has("j1", RUNNING)
    house.passes(minutes(45))
    house.has("j1", SUCCESS)
    house.passes(minutes(5))
    assert not backtest(house).tally.differs
    assert counted(backtest(house, STUCK.replace("30m", "50m"))) == {
        f"{kind} stuck -> {name}": {"removed": 1} for name in ("cms", "ops") for kind in ("level", "recovery")
    }


def test_a_level_rule_that_was_not_there_is_judged_by_the_polls_on_record(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(100))
    report = backtest(house, EVERY + STUCK)
    assert counted(report)["level stuck -> ops"] == {"told": 1, "added": 1}
    # Running since 09:01, too long since 09:31, again since 10:31; the last poll was at 10:41.
    assert said(report)[-1].endswith("level stuck cms: nothing -> told, repeated 1x")


def test_an_alarm_that_would_be_repeated_more_often_is_a_change(house: House) -> None:
    began(house, STUCK)
    house.has("j1", RUNNING)
    house.passes(minutes(100))
    report = backtest(house, STUCK.replace("1h", "10m"))
    assert said(report)[0] == "j1: new -> Running, level stuck ops: told, repeated 1x -> told, repeated 7x"


def test_what_a_throttle_held_is_counted_as_told_and_no_difference(house: House) -> None:
    began(house, EVERY + 'throttle = "1/1h"\n')
    for id_ in ("j1", "j2"):
        house.has(id_, RUNNING)
        house.passes(minutes(5))
    report = backtest(house)
    (row,) = report.rows()
    assert (row["told"], row["throttle"], row["before"]["told"], row["before"]["throttle"]) == (2, 0, 1, 1)
    assert (report.has_throttle, report.tally.differs) == (True, False)
    assert backtest(house, EVERY).tally.differs


def test_what_a_fallback_told_is_not_compared(house: House) -> None:
    house.rules = EVERY.replace('"every"', '"every"\nto = "Running"')
    house.start()
    house._book = replace(  # ops falls back to cms
        house.book, notifiers={**house.book.notifiers, "ops": replace(house.book.notifiers["ops"], fallback="cms")}
    )
    house.transport.answer = lambda one: Rejected("gone") if one.notifier == "ops" else None
    house.has("j1", RUNNING)
    house.poll()
    house.dispatcher.turn()
    house.dispatcher.turn()
    assert [row["notifier"] for row in rows(house.db, delivery)] == ["ops", "cms"]
    assert counted(backtest(house)) == {"transition every -> ops": {"told": 1}}


@on_both
def test_what_was_pruned_is_counted_and_not_compared(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(5))
    with house.db.write() as tx:
        tx.execute(delete(attempt))
        tx.execute(delete(delivery))
    report = backtest(house)
    assert report.facts()["transitions_not_compared"] == 1
    assert not report.tally.differs


def test_the_window_is_cut_to_what_is_kept(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(5))
    house.clock.advance(timedelta(days=2))
    report = backtest(house, keep=timedelta(days=1))
    assert report.is_cut
    assert report.since == house.clock() - timedelta(days=1)
    assert report.transitions == 0


def test_stays_of_an_older_version_are_counted_and_not_compared(house: House) -> None:
    began(house, STUCK)
    house.has("j1", RUNNING)
    house.passes(minutes(45))
    house.has("j1", SUCCESS)
    house.passes(minutes(5))
    with house.db.write() as tx:
        tx.execute(update(transition).values(still_at=None, rules=None))
    report = backtest(house)
    assert (report.tally.unknown_times, report.tally.differs, report.rulesets) == (1, False, [None])


def test_it_says_how_many_rulesets_judged_the_window(house: House) -> None:
    house.has("j1", RUNNING)
    house.passes(minutes(5))
    house.start(EVERY + STUCK)
    house.has("j1", SUCCESS)
    house.passes(minutes(5))
    assert len(backtest(house).facts()["judged_by"]) == 2


@on_both
def test_pages_come_in_order_and_miss_none(house: House) -> None:
    for number in range(7):
        house.has(f"j{number}", RUNNING)
    house.passes(minutes(5))
    with house.db.read() as tx:
        (whole,) = history.pages(tx, NOW, at_once=500)
        parts = list(history.pages(tx, NOW, at_once=3))
    assert [len(page) for page in parts] == [3, 3, 1]
    assert [one.key for page in parts for one in page] == [one.key for one in whole]


# --- whatever happens -------------------------------------------------------------------------------------------

# By the clock of Auckland it is 22:00 when it begins: the first mute is over midnight. An alarm that stops others comes
# before them, as polls that fail would else make it come later than they.
LANGUAGE = """
[defaults]
timezone = "Pacific/Auckland"

[[rule]]
name = "urgent"
in = "Running"
for = "8m"
match.tag = "Snapshot"
notify = "cms"
recover = true
stop = true

[[rule]]
name = "stuck"
in = "Running"
for = "10m"
repeat = "7m"
recover = true
notify = ["ops", "cms"]

[[rule]]
name = "slow"
in = "active"
for = "20m"
recover = true
throttle = "1/30m"
notify = "ops"

[[rule]]
name = "lost"
in = "gone"
for = "5m"
group = { wait = "10m" }
notify = "cms"

[[rule]]
name = "failed"
to = ["Failed", "gone"]
throttle = "2/15m"
notify = ["ops", "cms"]

[[rule]]
name = "digest"
to = "done"
group = { by = ["queue", "tag"], wait = "10m", max = 3 }
throttle = "1/20m"
notify = ["cms", "ops"]

[[rule]]
name = "daily"
from = "new"
group = { at = "22:30" }
notify = "ops"

[[rule]]
name = "vod"
match.queue = "vod"
throttle = "3/20m"
notify = "cms"
stop = true

[[rule]]
name = "rest"
match.age = "< 40m"
throttle = "1/3m"
notify = ["cms", "ops"]

[[mute]]
name = "night"
between = "23:30-00:20"
match.queue = "vod"

[[mute]]
name = "never mind"
between = "22:45-23:15"
days = ["sat"]
to = "Running"
mode = "drop"
"""

JOBS = st.integers(1, 6)
STATES = st.sampled_from([SUBMITTED, RUNNING, PAUSE, SUCCESS, FAILED, CANCEL, "Lost"])
SPECS: list[dict[str, Any]] = [
    {}, {"rule": "stuck"}, {"notifier": ["ops"], "to": "Failed"}, {"match": {"tag": "Snapshot"}},
    {"rule": ["slow", "rest"], "from": "Running"},
]  # fmt: skip
EVENTS = st.one_of(
    st.tuples(st.just("job"), JOBS, STATES),
    st.tuples(st.just("job"), JOBS, STATES),
    st.tuples(st.just("job"), JOBS, STATES),
    st.tuples(st.just("poll"), st.integers(1, 900)),
    st.tuples(st.just("poll"), st.integers(1, 900)),
    st.tuples(st.just("poll"), st.integers(1, 900)),
    st.tuples(st.just("outage"), st.integers(1, 900)),
    st.tuples(st.just("digests")),
    st.tuples(st.just("silence"), st.sampled_from(SPECS), st.integers(1, 40), st.booleans()),
    st.tuples(st.just("end")),
)


class Life:
    """What hypothesis makes happen."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.made = 0
        self.lost: dict[str, Job] = {}

    def job(self, number: int, state: str) -> None:
        id_ = f"j{number}"
        known = self.house.ci.jobs
        if state == "Lost":
            self.lost |= {id_: known.pop(id_)} if id_ in known else {}
            return
        if id_ in self.lost:
            known[id_] = self.lost.pop(id_)  # CI gives no id twice
        tag, queue = ("Snapshot", None) if number % 3 == 0 else ("Transcode", "p1" if number % 2 else "p2")
        self.house.has(id_, state, tag=tag, queue=queue)

    def poll(self, passed_s: int) -> None:
        self.house.clock.advance(seconds(passed_s))
        self.house.poll()

    def outage(self, passed_s: int) -> None:
        self.house.ci.refuses = {"Snapshot": TemporaryError("down")}
        self.poll(passed_s)
        self.house.ci.refuses = {}

    def digests(self) -> None:
        self.house.dispatcher._digest_dispatcher.tell_due()

    def silence(self, spec: dict[str, Any], lasts: int, drop: bool) -> None:
        self.made += 1
        self.house.clock.advance(seconds(1))  # whether it or a poll of the same moment came first is not on record
        self.house.silence(f"sil_{self.made}", lasts=minutes(lasts), drop=drop, **spec)

    def end(self) -> None:
        self.house.clock.advance(seconds(1))
        with self.house.db.write() as tx:
            silences.end(tx, f"sil_{self.made}", by="ann", now=self.house.clock())


@given(st.lists(st.tuples(JOBS, STATES), max_size=3), st.lists(EVENTS, min_size=30, max_size=80), st.floats(0, 1))
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_has_happened_the_rules_that_judged_it_say_the_same_again(
    db: Database, there_before: list[tuple[int, str]], happens: list[tuple[Any, ...]], part: float
) -> None:
    with db.write() as tx:
        for table in reversed(metadata.sorted_tables):
            tx.execute(delete(table))
    house = House(db, LANGUAGE, Clock())
    life = Life(house)
    for number, state in there_before:
        life.job(number, state)
    life.poll(900)
    for what, *facts in happens:
        getattr(life, what)(*facts)
    life.poll(60)
    report = backtest(house)
    event(f"{report.transitions // 10 * 10} transitions or more")
    for line in counted(report):
        event(line)
    for fate in {fate for row in report.tally.rows.values() for fate in row.after}:
        event(fate)
    assert (said(report), report.tally.unknown, report.tally.unknown_times) == ([], 0, 0)
    told = [row for row in rows(db, delivery) if row["lane"] is not None]
    assert sum(sum(row.after.values()) for row in report.tally.rows.values()) <= len(told)
    later = NOW + (house.clock() - NOW) * part
    assert said(backtest(house, since=later)) == []


def test_what_a_person_told_by_hand_is_no_rules_doing(db: Database) -> None:
    house = House(db, EVERY, Clock())
    house.poll()
    house.has("j1", RUNNING)
    house.poll()
    by_hand(db, now=house.clock()).notify(house.book, job_id="j1", notifier="cms")
    house.deliver()
    assert len(house.heard("cms")) == 1
    assert said(backtest(house)) == []
