"""Pruned jobs are not news again, whatever CI's list still shows; and nothing is pruned that was never sent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from bridge.collect.errors import TemporaryError
from bridge.decide.changes.scan import OVERLAP
from bridge.model import RUNNING, SUCCESS
from bridge.pipeline.poll import Halted
from bridge.pipeline.prune import Pruner
from bridge.record import pruning
from bridge.record.database import Database
from bridge.record.polling import leases, snapshots
from bridge.record.schema import deliveries, jobs, workers
from tests.conftest import on_both
from tests.support.fakes import count, notify_all
from tests.support.nouns import NOW, Clock, a_listed_job, a_message, hours, minutes, new_delivery, seconds
from tests.support.records import put, rows
from tests.support.rig import Rig
from tests.support.slack_rig import ALL, GIVEN, JOB, SlackRig

PRUNED = "older than what is kept"
OTHER = """
[[watch]]
name = "other"
bucket = "clips-1250000000"
region = "ap-chongqing"
"""
COPY = f'{OTHER}tags = ["Transcode"]\nqueue_type = "Transcoding"\n'


def days(number: float) -> timedelta:
    return timedelta(days=number)


class Pruned(Rig):
    """Whose worker prunes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.naps: list[float] = []
        self.pruner = self.new_pruner(self.naps.append)

    def new_pruner(self, nap: Callable[[float], object], worker: str = "w1") -> Pruner:
        return Pruner(db=self.db, clock=self.clock, worker=worker, nap=nap)

    def prune(self) -> dict[str, int]:
        return dict(self.pruner.prune(self.book))

    def after(self, number: float) -> dict[str, int]:
        """Let so many days go by, poll every watch, and prune."""
        self.clock.advance(days(number))
        self.polls_all()
        return self.prune()

    def polls_all(self) -> None:
        for watch in range(len(self.book.watches)):
            self.poll(watch)

    def sends(self, *ids: str, **facts: Any) -> None:
        """See new jobs that have ended, after a poll, and send that."""
        self.polls_all()
        self.clock.advance(minutes(10))
        self.ci.has(*(a_listed_job(id_, SUCCESS, **{"created_at": self.clock(), **facts}) for id_ in ids))
        self.clock.advance(seconds(30))
        self.polls_all()
        self.deliver()

    def ids(self) -> list[str]:
        return sorted(row["id"] for row in rows(self.db, jobs))

    def since(self) -> Any:
        """From when on the last list of all jobs went."""
        return self.ci.listed[-1][1]


@pytest.fixture
def rig(db: Database) -> Pruned:
    return Pruned(db, given=notify_all())


# --- what is pruned -----------------------------------------------------------------------------------------


@on_both
def test_what_has_ended_is_pruned_after_its_time_and_a_line_says_how_much(
    rig: Pruned, caplog: pytest.LogCaptureFixture
) -> None:
    rig.sends("j1", "j2")
    assert rig.prune() == {}
    with caplog.at_level(logging.INFO, logger="bridge.pipeline.prune"):
        assert rig.after(31) == {"deliveries": 2, "jobs": 2}
    assert [(line.message, line.deliveries, line.jobs) for line in caplog.records] == [("pruned", 2, 2)]  # type: ignore[attr-defined]
    assert [count(rig.db, table) for table in ("job", "transition", "delivery", "message", "attempt")] == [0] * 5


def test_nothing_is_pruned_while_a_worker_of_before_there_was_pruning_is_heard_of(rig: Pruned) -> None:
    rig.sends("j1")
    rig.clock.advance(days(40))
    with rig.db.write() as tx:
        leases.register(tx, "new", machine="m", pid=1, now=rig.clock())
        leases.register(tx, "old", machine="m", pid=2, now=rig.clock())
        tx.execute(update(workers).where(workers.c.id == "old").values(revision="0001"))
    assert rig.prune() == {}
    rig.clock.advance(hours(2))
    assert rig.prune() != {}


def test_what_the_rules_keep_longer_stays(rig: Pruned) -> None:
    rig.use(given=notify_all().replace("[defaults]", '[defaults]\nkeep = "60d"\nkeep_dead = "120d"'))
    rig.sends("j1")
    assert rig.after(59) == {}
    assert rig.after(2) == {"deliveries": 1, "jobs": 1}


def test_the_polls_that_follow_store_nothing_again(rig: Pruned) -> None:
    rig.sends("j1")
    for _ in range(20):
        rig.clock.advance(days(4))
        assert rig.poll().transitions == 0
        rig.prune()
    assert (rig.ids(), count(rig.db, "delivery")) == ([], 0)


# --- an unfinished job from long ago --------------------------------------------------------------------------


@on_both
def test_a_list_does_not_go_back_behind_what_was_pruned_for_an_old_unfinished_job_which_is_followed(
    rig: Pruned,
) -> None:
    rig.ci.has(a_listed_job("old", RUNNING, created_at=rig.clock() - hours(1)))
    rig.sends("j1")
    assert rig.after(31) == {"deliveries": 1, "jobs": 1}
    rig.clock.advance(minutes(1))
    assert rig.poll().transitions == 0
    assert rig.since() is not None
    assert rig.since() >= rig.clock() - minutes(1) - OVERLAP
    assert (rig.ci.described[-1], rig.ids()) == (("old",), ["old"])
    rig.ci.has(a_listed_job("old", SUCCESS, created_at=NOW - hours(1)))
    assert rig.poll().deliveries == 1
    assert [state for id_, _, state in rig.steps() if id_ == "old"] == [RUNNING, SUCCESS]
    assert rig.prune() == {}


def test_a_list_still_goes_back_to_an_unfinished_job_that_is_younger_than_what_was_pruned(rig: Pruned) -> None:
    rig.sends("j1")
    rig.clock.advance(days(31))
    young = rig.clock()
    rig.ci.has(a_listed_job("young", RUNNING, created_at=young))
    rig.after(0)
    rig.polls(2, minutes(10))
    assert rig.since() == young - seconds(1)


@on_both
def test_a_job_that_is_pruned_while_a_list_shows_it_is_no_news(rig: Pruned) -> None:
    rig.ci.has(a_listed_job("open", RUNNING, created_at=rig.clock()))
    rig.sends("j1")
    rig.clock.advance(days(31))
    rig.poll()
    rig.clock.advance(minutes(1))
    # Nothing was pruned when this list began, so it goes back to the unfinished job.
    rig.ci.before_call = rig.prune
    assert rig.poll().deliveries == 0
    assert (rig.since(), rig.silent()["j1"]) == (NOW - seconds(1), PRUNED)


# --- lists that go far back -----------------------------------------------------------------------------------


def test_after_forty_days_off_all_that_came_meanwhile_is_news_and_is_kept_as_long_as_any_other(rig: Pruned) -> None:
    rig.sends("before")
    rig.clock.advance(days(40))
    rig.ci.has(a_listed_job("meanwhile", SUCCESS, created_at=rig.clock() - days(39)))
    rig.prune()
    found = rig.poll()
    assert (found.transitions, found.deliveries, rig.silent()["meanwhile"]) == (1, 1, None)
    rig.after(29)
    assert rig.ids() == ["meanwhile"]
    rig.clock.advance(minutes(1))
    assert rig.poll().transitions == 0


def test_a_job_within_the_overlap_of_the_last_list_stays(rig: Pruned) -> None:
    rig.sends("j1")  # half a minute before the last complete listing began
    rig.clock.advance(days(40))
    assert rig.prune() == {"deliveries": 1}
    assert rig.poll().transitions == 0
    assert rig.prune() == {"jobs": 1}


@pytest.mark.parametrize("ahead", [days(-2), minutes(-20), minutes(20), days(2)])
def test_nothing_is_news_again_when_the_clock_of_ci_is_another(rig: Pruned, ahead: timedelta) -> None:
    theirs = rig.ci.clock = Clock(rig.clock() + ahead)
    rig.poll()
    rig.clock.advance(minutes(10))
    theirs.advance(minutes(10))
    rig.ci.has(a_listed_job("open", RUNNING, created_at=theirs()), a_listed_job("j1", SUCCESS, created_at=theirs()))
    for _ in range(12):
        found = rig.poll()
        rig.prune()
        rig.clock.advance(days(5))
        theirs.advance(days(5))
    assert found.transitions == 0
    assert [id_ for id_, _, _ in rig.steps()] == ["open"]


@on_both
def test_a_job_without_a_creation_time_is_kept_from_when_it_was_first_seen(rig: Pruned) -> None:
    rig.sends("j1", created_at=None)
    assert rig.after(29) == {}
    rig.ci.forgets("j1")
    assert rig.after(2) == {"deliveries": 1, "jobs": 1}


# --- other streams of the bucket ------------------------------------------------------------------------------


def test_a_stream_added_later_announces_what_its_first_list_finds(rig: Pruned) -> None:
    rig.sends("j1")
    rig.after(31)
    rig.ci.has(a_listed_job("s1", SUCCESS, tag="Snapshot", created_at=rig.clock() - days(30)))
    rig.use(given=notify_all("Transcode", "Snapshot", announce=True, lookback="30d"))
    assert rig.poll().deliveries == 1
    assert rig.silent() == {"s1": None}


def test_a_stream_added_later_makes_no_news_of_what_another_one_sent(rig: Pruned) -> None:
    rig.sends("j1")
    rig.after(31)
    longer = notify_all(announce=True).replace("[defaults]", '[defaults]\nkeep = "90d"')
    rig.use(f'{COPY}lookback = "60d"\n', given=longer)
    rig.polls_all()
    assert (rig.silent(), count(rig.db, "delivery")) == ({"j1": PRUNED}, 0)
    # What was found again is kept as long as anything seen now, and the horizon has not moved back.
    rig.prune()
    assert rig.ids() == ["j1"]
    rig.use("", given=notify_all())
    assert rig.after(31) == {"jobs": 1}


@on_both
def test_nothing_is_pruned_that_a_paused_watch_of_the_bucket_has_still_to_show(rig: Pruned) -> None:
    rig.use(COPY)
    rig.sends("j1")
    rig.clock.advance(minutes(10))
    rig.ci.has(a_listed_job("j2", SUCCESS, created_at=rig.clock()))
    for _ in range(3):
        rig.poll()
        rig.clock.advance(days(15))
    rig.prune()
    assert rig.ids() == ["j1", "j2"]
    assert rig.poll(1).transitions == 0


def test_a_stream_that_was_never_listed_whole_holds_what_came_since_it_was_asked_for(rig: Pruned) -> None:
    rig.sends("j1")
    rig.clock.advance(minutes(10))
    rig.use(f'{OTHER}tags = ["Snapshot"]\n')
    rig.ci.refuses["Snapshot"] = TemporaryError("CI is ill", advice="wait")
    rig.poll(1)
    rig.ci.has(a_listed_job("s1", SUCCESS, tag="Snapshot", created_at=rig.clock() + minutes(1)))
    rig.ci.has(a_listed_job("j2", SUCCESS, created_at=rig.clock() + minutes(1)))
    rig.polls(1, minutes(2))
    rig.polls(1, days(40))
    rig.prune()
    assert rig.ids() == ["j2"]
    rig.ci.refuses.clear()
    assert (rig.poll(1).deliveries, rig.silent()["s1"]) == (1, None)


def test_a_stream_that_comes_back_into_the_rules_makes_no_news_of_what_was_sent(rig: Pruned) -> None:
    both, without = (notify_all(*tags, lookback="30d") for tags in (("Transcode", "Snapshot"), ("Transcode",)))
    rig.use(given=both)
    for id_ in ("s1", "s2"):
        rig.sends(id_, tag="Snapshot")
    rig.clock.advance(days(5))
    rig.use(given=without)
    rig.polls(2, days(14))
    assert rig.prune() == {"deliveries": 2, "jobs": 2}
    rig.ci.has(a_listed_job("s3", SUCCESS, tag="Snapshot", created_at=rig.clock() - days(1)))
    rig.use(given=both)
    assert rig.poll().deliveries == 1
    assert rig.silent() == {"s2": PRUNED, "s3": None}


# --- batches --------------------------------------------------------------------------------------------------


def fill(rig: Pruned, batches: int) -> None:
    """Store so many batches of old jobs."""
    with rig.db.write() as tx:
        jobs = [a_listed_job(f"j{n}", SUCCESS) for n in range(batches * pruning.AT_ONCE)]
        snapshots.save(tx, jobs, [], {}, stream="s", streams=(), now=NOW)
    rig.clock.advance(days(31))


@on_both
def test_it_pauses_before_each_batch_and_ends_when_the_worker_stops(rig: Pruned) -> None:
    fill(rig, 3)

    def nap(seconds_: float) -> None:
        rig.naps.append(seconds_)
        if len(rig.naps) == 5:
            raise Halted

    assert rig.new_pruner(nap).prune(rig.book) == {"jobs": 2 * pruning.AT_ONCE}
    assert rig.naps[:2] == [0, 0]  # there was no delivery and no incident to prune
    assert min(rig.naps[2:]) > 0
    assert count(rig.db, "job") == pruning.AT_ONCE
    with rig.db.write() as tx:
        assert pruning.acquire(tx, "w2", now=rig.clock())


@on_both
def test_another_worker_goes_on_when_this_one_has_lost_its_lease(rig: Pruned) -> None:
    fill(rig, 2)

    def away(_: float) -> None:
        if count(rig.db, "job") == pruning.AT_ONCE:
            rig.clock.advance(2 * leases.BUCKET_LEASE)
            with rig.db.write() as tx:
                assert pruning.acquire(tx, "w2", now=rig.clock())

    slow = rig.new_pruner(away)
    assert [slow.prune(rig.book), slow.prune(rig.book)] == [{"jobs": pruning.AT_ONCE}, {}]
    with rig.db.write() as tx:
        leases.release(tx, pruning.LEASE_NAME, "w2")
    assert rig.new_pruner(lambda _: None, "w3").prune(rig.book) == {"jobs": pruning.AT_ONCE}


# --- what older versions did not write ------------------------------------------------------------------------


def put_without_rules(rig: Pruned, how_many: int) -> None:
    put(rig.db, *(new_delivery(f"d{n}", message=a_message(f"m{n}", rule="r")) for n in range(how_many)))
    forget_rules(rig)


def forget_rules(rig: Pruned) -> None:
    with rig.db.write() as tx:
        tx.execute(update(deliveries).values(rule=None))


def without_rule(rig: Pruned) -> list[str]:
    return [row["id"] for row in rows(rig.db, deliveries) if row["rule"] is None]


@on_both
def test_the_rules_of_deliveries_are_written_down_with_a_pause_before_each_batch(
    rig: Pruned, caplog: pytest.LogCaptureFixture
) -> None:
    how_many = pruning.RULES_AT_ONCE + 10
    put_without_rules(rig, how_many)
    with caplog.at_level(logging.INFO, logger="bridge.pipeline.prune"):
        assert rig.prune() == {}
    assert without_rule(rig) == []
    assert [nap > 0 for nap in rig.naps[-4:]] == [False, True, True, True]  # other walks, compacting, two batches
    lines = [(line.message, line.deliveries) for line in caplog.records]  # type: ignore[attr-defined]
    assert lines == [("backfilled deliveries' rules", how_many)]


@on_both
def test_a_run_that_ends_early_has_written_the_newest_rules_and_the_next_one_goes_on(rig: Pruned) -> None:
    put_without_rules(rig, 2 * pruning.RULES_AT_ONCE + 10)
    rest = [f"d{n}" for n in range(pruning.RULES_AT_ONCE + 10)]
    halts = [Halted()]

    def nap(_: float) -> None:
        if halts and len(without_rule(rig)) == len(rest):
            raise halts.pop()

    halting = rig.new_pruner(nap)
    halting.prune(rig.book)
    assert without_rule(rig) == rest
    halting.prune(rig.book)
    assert without_rule(rig) == []


def test_rules_are_written_down_though_a_worker_of_an_older_version_runs(rig: Pruned) -> None:
    rig.sends("j1")
    rig.clock.advance(days(40))
    put_without_rules(rig, 3)
    with rig.db.write() as tx:
        leases.register(tx, "old", machine="m", pid=2, now=rig.clock())
        tx.execute(update(workers).values(revision="0003"))
    assert rig.prune() == {}
    assert without_rule(rig) == []
    forget_rules(rig)  # the older one writes again
    rig.prune()
    assert without_rule(rig) == []


def test_rules_are_left_to_the_worker_that_prunes(rig: Pruned) -> None:
    put_without_rules(rig, 3)
    with rig.db.write() as tx:
        assert pruning.acquire(tx, "w2", now=rig.clock())
    rig.prune()
    assert len(without_rule(rig)) == 3


def test_a_thread_of_an_open_job_in_a_channel_that_it_names_stays(slack: SlackRig) -> None:
    slack.begin(ALL, ops=JOB)
    given = GIVEN.format(ops=JOB + '\nchannels = ["C024BE91L", "C024BE91M"]')
    given = given.replace('channel = "C024BE91L"', 'channel = "{{ job.user_data.channel }}"')
    slack.start(given=given)
    slack.has("j1", RUNNING, user_data='{"channel":"C024BE91M"}')
    slack.poll()
    slack.lives(seconds(5))
    slack.clock.advance(hours(2400))
    now = slack.clock()
    cut = pruning.Cutoffs(now=now, ended=now - hours(24), dead=now - hours(720), created={})
    with slack.db.read() as tx:
        assert pruning.old_threads(tx, after=("", ""), cut=cut).keys == []


INCIDENTS = """
[[rule]]
name = "asset"
all = "done"
by = ["user_data.asset"]
expect = "{{ job.user_data.parts }}"
notify = "cms"
"""


@on_both
def test_a_job_stays_until_the_group_it_belongs_to_has_ended_and_so_does_its_incident(db: Database) -> None:
    rig = Pruned(db, INCIDENTS)
    rig.sends("p1", user_data="asset=a1;parts=2")
    rig.after(20)
    rig.sends("p2", user_data="asset=a1;parts=3")
    rig.after(20)
    assert rig.ids() == ["p1", "p2"]  # p1 ended 40 days ago, and one is missing
    rig.sends("p3", user_data="asset=a1;parts=3")
    assert rig.titles("cms") == ["asset (user_data.asset a1) is complete: 3 Success"]
    rig.after(31)
    assert (rig.ids(), count(db, "incident")) == ([], 1)
    rig.after(121)
    assert (count(db, "incident"), count(db, "incident_job")) == (0, 0)


@on_both
def test_a_group_that_is_never_complete_is_forgotten_with_its_jobs(db: Database) -> None:
    rig = Pruned(db, INCIDENTS)
    rig.sends("p1", user_data="asset=a1;parts=2")
    rig.after(31)
    rig.after(1)
    assert (rig.ids(), count(db, "incident"), count(db, "incident_job")) == ([], 0, 0)
