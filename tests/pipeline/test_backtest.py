"""The history that real polls have made, put through rules again: the same rules say the same of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from bridge.collect.errors import TemporaryError
from bridge.decide.rulesfile.read import read
from bridge.decide.whatif.replay_incidents import IncidentChange
from bridge.model import CANCEL, FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS, Job, Rejected, Sent, Transition
from bridge.pipeline.backtest import Backtest
from bridge.pipeline.digests import send_due_digests
from bridge.record.database import Database
from bridge.record.outbox import entries, silences
from bridge.record.queries import history, lists
from bridge.record.schema import attempts, deliveries, metadata, transitions
from tests.conftest import on_both
from tests.support.nouns import NOW, by_hand, minutes, seconds
from tests.support.records import rows
from tests.support.rig import GIVEN, STUCK, WITH_FALLBACK, Rig

KEEP = timedelta(days=30)
EVERY = '[[rule]]\nname = "every"\nnotify = "ops"\n'
ALARM = STUCK.replace('"ops"', '["ops", "cms"]') + 'repeat = "1h"\nrecover = true\n'


@pytest.fixture
def rig(db: Database) -> Rig:
    rig = Rig(db, EVERY)
    rig.first_poll()
    return rig


def lives(rig: Rig, *lasts: tuple[str, float], id_: str = "j1") -> None:
    """Let a job be in these states one after the other, each for so many minutes."""
    for state, for_minutes in lasts:
        rig.has(id_, state)
        rig.passes(minutes(for_minutes))


def backtest(rig: Rig, rules: str | None = None, *, since: datetime = NOW, keep: timedelta = KEEP) -> Backtest:
    tried = rig.book if rules is None else read(GIVEN + rules, {})
    with rig.db.read() as tx:
        test = Backtest(tx, tried, in_force=rig.book, keep=keep, since=since, now=rig.clock())
        test.run()
        return test


def counted(report: Backtest) -> dict[str, dict[str, int]]:
    """Return for each "kind rule -> notifier" what is not nothing."""
    return {
        f"{row['kind']} {row['rule']} -> {row['notifier']}": {
            name: count for name, count in row.items() if isinstance(count, int) and count
        }
        for row in report.facts()["rows"]
    }


def _about(about: Transition | IncidentChange) -> str:
    return about.event if isinstance(about, IncidentChange) else f"{about.job.id}: {about.was} -> {about.to}"


def differences(report: Backtest) -> list[str]:
    return [
        f"{_about(one.about)}, {' '.join(one.line)}: {one.before or 'nothing'} -> {one.after or 'nothing'}"
        for one in report.tally.first
    ]


@on_both
def test_rules_that_have_not_changed_differ_in_nothing(rig: Rig) -> None:
    lives(rig, (RUNNING, 5), (SUCCESS, 5))
    test = backtest(rig)
    assert (test.transitions, test.facts()["judged_by"]) == (3, [rig.book.sha])  # with Submitted, which is inferred
    assert counted(test) == {"transition every -> ops": {"told": 2}}
    assert not test.tally.differs


@on_both
def test_what_was_inferred_is_put_through_rules_as_such_and_alarms_end_after_it(rig: Rig) -> None:
    waits = ALARM.replace("Running", "Submitted") + '[[rule]]\nname = "ran"\nto = "Running"\nnotify = "ops"\n'
    rig.start(EVERY + waits)
    lives(rig, (SUBMITTED, 40), (SUCCESS, 5))
    test = backtest(rig)
    assert counted(test)["transition ran -> ops"] == {"told": 1}
    assert any(line.startswith("recovery") for line in counted(test))
    assert (test.tally.differs, test.tally.unknown, test.tally.unknown_times) == (False, 0, 0)


def test_a_new_rule_and_one_that_is_gone_are_differences(rig: Rig) -> None:
    lives(rig, (SUBMITTED, 5), (RUNNING, 5))
    test = backtest(rig, '[[rule]]\nname = "begun"\nto = "Running"\nnotify = "cms"\n')
    assert counted(test) == {
        "transition begun -> cms": {"told": 1, "added": 1},
        "transition every -> ops": {"removed": 2},
    }
    assert differences(test) == [
        "j1: new -> Submitted, transition every ops: told -> nothing",
        "j1: Submitted -> Running, transition every ops: told -> nothing",
        "j1: Submitted -> Running, transition begun cms: nothing -> told",
    ]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ('group = { wait = "10m" }', "group"),
        ('[[mute]]\nname = "now"\nbetween = "09:03-10:00"', "mute"),
        ('[[mute]]\nname = "now"\nbetween = "09:03-10:00"\nmode = "drop"', "dropped"),
    ],
)
def test_what_would_be_held_or_dropped_is_a_change(rig: Rig, more: str, status: str) -> None:
    for id_ in ("j1", "j2"):
        rig.has(id_, RUNNING)
        rig.poll()
        rig.clock.advance(minutes(5))
    assert differences(backtest(rig, EVERY + more))[-1] == (
        f"j2: new -> Running, transition every ops: told -> {status}"
    )


@on_both
def test_what_a_silence_on_record_held_it_holds_again(rig: Rig) -> None:
    rig.silence(lasts=minutes(30), rule="every")
    lives(rig, (RUNNING, 5))
    assert counted(backtest(rig)) == {"transition every -> ops": {"silence": 1}}
    assert counted(backtest(rig, EVERY.replace("every", "all"))) == {
        "transition all -> ops": {"told": 1, "added": 1},
        "transition every -> ops": {"removed": 1},
    }


def test_what_was_dropped_and_resent_was_dropped_all_the_same(rig: Rig) -> None:
    rig.start(EVERY + '[[mute]]\nname = "m"\nbetween = "00:00-24:00"\nmode = "drop"\n')
    lives(rig, (FAILED, 10))
    (dropped,) = rig.deliveries()
    with rig.db.write() as tx:
        assert entries.redrive(tx, lists.numbers_of([dropped["id"]]), now=rig.clock()) == [dropped["id"]]
    rig.deliver()
    assert rig.states() == {"j1": "sent"}
    assert not backtest(rig).tally.differs


def test_a_longer_patience_takes_alarms_and_recoveries_away(rig: Rig) -> None:
    rig.start(ALARM)
    lives(rig, (RUNNING, 45), (SUCCESS, 5))
    assert not backtest(rig).tally.differs
    assert counted(backtest(rig, ALARM.replace("30m", "50m"))) == {
        f"{kind} stuck -> {name}": {"removed": 1} for name in ("cms", "ops") for kind in ("level", "recovery")
    }


def test_a_level_rule_that_was_not_there_is_judged_by_the_polls_on_record(rig: Rig) -> None:
    lives(rig, (RUNNING, 100))
    test = backtest(rig, EVERY + ALARM)
    assert counted(test)["level stuck -> ops"] == {"told": 1, "added": 1}
    # Running since 09:01, too long since 09:31, again since 10:31; the last poll was at 10:41.
    assert differences(test)[-1].endswith("level stuck cms: nothing -> told, repeated 1x")


def test_an_alarm_that_would_be_repeated_more_often_is_a_change(rig: Rig) -> None:
    rig.start(ALARM)
    lives(rig, (RUNNING, 100))
    test = backtest(rig, ALARM.replace("1h", "10m"))
    assert differences(test)[0] == "j1: new -> Running, level stuck ops: told, repeated 1x -> told, repeated 7x"


def test_what_a_throttle_held_is_counted_as_sent_and_no_difference(rig: Rig) -> None:
    rig.start(EVERY + 'throttle = "1/1h"\n')
    for id_ in ("j1", "j2"):
        lives(rig, (RUNNING, 5), id_=id_)
    test = backtest(rig)
    (row,) = test.facts()["rows"]
    assert (row["told"], row["throttle"], row["before"]["told"], row["before"]["throttle"]) == (2, 0, 1, 1)
    assert (test.has_throttle, test.tally.differs) == (True, False)
    assert backtest(rig, EVERY).tally.differs


def test_what_a_full_channel_held_counts_as_sent(rig: Rig) -> None:
    lives(rig, (RUNNING, 5))
    with rig.db.write() as tx:
        tx.exec_driver_sql("UPDATE delivery SET held_by = 'flood:slack channel C1'")
    assert counted(backtest(rig)) == {"transition every -> ops": {"told": 1}}


def test_what_a_fallback_or_a_person_sent_is_no_rules_doing(rig: Rig) -> None:
    rig.start(EVERY.replace('"every"', '"every"\nto = "Running"'), given=WITH_FALLBACK)
    rig.transport.answer = lambda one: Rejected("gone") if one.notifier == "ops" else Sent()
    lives(rig, (RUNNING, 5))
    by_hand(rig.db, now=rig.clock()).notify(rig.book, job_id="j1", notifier="cms")
    rig.deliver()
    assert [row["notifier"] for row in rig.deliveries()] == ["ops", "cms", "cms"]
    assert counted(backtest(rig)) == {"transition every -> ops": {"told": 1}}


@on_both
def test_what_was_pruned_is_counted_and_not_compared(rig: Rig) -> None:
    lives(rig, (RUNNING, 5))
    with rig.db.write() as tx:
        tx.execute(delete(attempts))
        tx.execute(delete(deliveries))
    test = backtest(rig)
    assert (test.facts()["transitions_not_compared"], test.tally.differs) == (1, False)


def test_the_window_is_cut_to_what_is_kept(rig: Rig) -> None:
    lives(rig, (RUNNING, 5))
    rig.clock.advance(timedelta(days=2))
    test = backtest(rig, keep=timedelta(days=1))
    assert (test.is_cut, test.since, test.transitions) == (True, rig.clock() - timedelta(days=1), 0)


def test_times_in_state_of_an_older_version_are_counted_and_not_compared(rig: Rig) -> None:
    rig.start(ALARM)
    lives(rig, (RUNNING, 45), (SUCCESS, 5))
    with rig.db.write() as tx:
        tx.execute(update(transitions).values(still_at=None, rules=None))
    test = backtest(rig)
    assert (test.tally.unknown_times, test.tally.differs, test.facts()["judged_by"]) == (1, False, ["unknown"])


def test_it_says_how_many_rulesets_judged_the_window(rig: Rig) -> None:
    lives(rig, (RUNNING, 5))
    rig.start(EVERY + ALARM)
    lives(rig, (SUCCESS, 5))
    assert len(backtest(rig).facts()["judged_by"]) == 2


@on_both
def test_pages_come_in_order_and_miss_none(rig: Rig) -> None:
    rig.sees(*(f"j{number}" for number in range(7)), state=RUNNING)
    with rig.db.read() as tx:
        (whole,) = history.pages(tx, NOW, at_once=500)
        pages = list(history.pages(tx, NOW, at_once=3))
    assert [len(page) for page in pages] == [3, 3, 3, 3, 2]  # each with Submitted, which is inferred
    assert [stored.key for page in pages for stored in page] == [stored.key for stored in whole]


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

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.made = 0
        self.lost: dict[str, Job] = {}

    def job(self, number: int, state: str) -> None:
        id_ = f"j{number}"
        known = self.rig.ci.jobs
        if state == "Lost":
            self.lost |= {id_: known.pop(id_)} if id_ in known else {}
            return
        if id_ in self.lost:
            known[id_] = self.lost.pop(id_)  # CI gives no id twice
        tag, queue = ("Snapshot", None) if number % 3 == 0 else ("Transcode", "p1" if number % 2 else "p2")
        self.rig.has(id_, state, tag=tag, queue=queue)

    def poll(self, passed_s: int) -> None:
        self.rig.clock.advance(seconds(passed_s))
        self.rig.poll()

    def outage(self, passed_s: int) -> None:
        self.rig.ci.refuses = {"Snapshot": TemporaryError("down")}
        self.poll(passed_s)
        self.rig.ci.refuses = {}

    def digests(self) -> None:
        send_due_digests(self.rig.db, self.rig.book, self.rig.clock())

    def silence(self, spec: dict[str, Any], lasts: int, drop: bool) -> None:
        self.made += 1
        self.rig.clock.advance(seconds(1))  # whether it or a poll of the same moment came first is not on record
        self.rig.silence(f"sil_{self.made}", lasts=minutes(lasts), drop=drop, **spec)

    def end(self) -> None:
        self.rig.clock.advance(seconds(1))
        with self.rig.db.write() as tx:
            silences.end(tx, f"sil_{self.made}", by="ann", now=self.rig.clock())


@given(st.lists(st.tuples(JOBS, STATES), max_size=3), st.lists(EVENTS, min_size=30, max_size=80), st.floats(0, 1))
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_has_happened_the_rules_that_judged_it_say_the_same_again(
    db: Database, there_before: list[tuple[int, str]], happens: list[tuple[Any, ...]], part: float
) -> None:
    with db.write() as tx:
        for table in reversed(metadata.sorted_tables):
            tx.execute(delete(table))
    rig = Rig(db, LANGUAGE)
    life = Life(rig)
    for number, state in there_before:
        life.job(number, state)
    life.poll(900)
    for what, *facts in happens:
        getattr(life, what)(*facts)
    life.poll(60)
    report = backtest(rig)
    event(f"{report.transitions // 10 * 10} transitions or more")
    for line in counted(report):
        event(line)
    for fate in {fate for row in report.tally.rows.values() for fate in row.after}:
        event(fate)
    assert (differences(report), report.tally.unknown, report.tally.unknown_times) == ([], 0, 0)
    told = [row for row in rows(db, deliveries) if row["lane"] is not None]
    assert sum(sum(row.after.values()) for row in report.tally.rows.values()) <= len(told)
    later = NOW + (rig.clock() - NOW) * part
    assert differences(backtest(rig, since=later)) == []
