"""CI's word that it does not know a job is believed late, and never for good."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.collect.errors import TemporaryError
from bridge.decide.rulesfile.read import read
from bridge.model import CANCEL, FAILED, GONE, NEW, PAUSE, RUNNING, SUBMITTED, SUCCESS, Description
from bridge.pipeline.poll import Poller
from bridge.record import pruning
from bridge.record.database import Database
from bridge.record.pruning import Cutoffs
from bridge.record.schema import job as job_table
from bridge.record.schema import job_problem, transition
from bridge.wiring import parts
from tests.conftest import on_both
from tests.support.fakes import RULES, FakeCi
from tests.support.records import BUCKET, NOW, Clock, a_listed_job, hours, minutes, row_of, rows, seconds
from tests.support.simulated_bridge import House

pytestmark = on_both

EVERY = seconds(30)
TEXT = RULES.format(tags='"Transcode"', cms="").replace(
    "[[rule]]",
    '[[rule]]\nname = "ended"\nfrom = ["Submitted", "Running"]\nto = "done"\nnotify = "pager"\n[[rule]]',
)
OTHER = """
[[watch]]
name = "other"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
queues = ["p1"]
every = "5m"
"""


class Bridge:
    """A watch every 30 s with one job, which is older than the lists go back, so it is asked for by id."""

    def __init__(self, db: Database, text: str = TEXT) -> None:
        self.db, self.clock = db, Clock()
        self.ci = FakeCi(self.clock)
        self.poller = Poller(db=db, source=self.ci, clock=self.clock, worker="w1")
        self.use(text)
        self.ci.has(*[a_listed_job(f"old{n}", SUCCESS, created_at=NOW - hours(1)) for n in range(150)])
        self.moves(RUNNING)
        self.polls(1)
        assert self.steps() == [(NEW, RUNNING)]

    def use(self, text: str) -> None:
        self.book = read(text, {})
        parts.sync(self.db, self.book, clock=self.clock)

    def moves(self, state: str, id_: str = "j1", **facts: Any) -> None:
        self.ci.has(a_listed_job(id_, state, created_at=NOW - hours(2), queue="p1", **facts))

    def polls(self, times: int, after: timedelta = EVERY, watch: int = 0) -> None:
        for _ in range(times):
            self.clock.advance(after)
            assert self.poller.poll_once(self.book.watches[watch], self.book) is not None

    def until_gone(self) -> None:
        self.ci.forgets("j1")
        self.polls(3)
        assert self.steps()[-1] == (RUNNING, GONE)

    def steps(self, id_: str = "j1") -> list[tuple[str, str]]:
        return [(row["was"], row["state"]) for row in rows(self.db, transition) if row["job_id"] == id_]

    def asked(self) -> int:
        return sum("j1" in ids for ids in self.ci.described)

    def missing(self) -> dict[str, Any] | None:
        return next(iter(rows(self.db, job_problem)), None)


@pytest.fixture
def bridge(db: Database) -> Bridge:
    return Bridge(db)


# --- before it is told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("denials", [1, 2])
def test_a_job_that_ci_denies_once_or_twice_goes_on(bridge: Bridge, denials: int) -> None:
    bridge.ci.forgets("j1")
    bridge.polls(denials)
    bridge.moves(SUCCESS)
    bridge.polls(1)
    assert bridge.steps() == [(NEW, RUNNING), (RUNNING, SUCCESS)]
    assert bridge.missing() is None


def test_the_third_denial_tells_that_it_is_gone_if_two_intervals_have_passed(bridge: Bridge) -> None:
    bridge.ci.forgets("j1")
    bridge.polls(4, seconds(10))
    bridge.polls(1, seconds(29))
    assert bridge.steps() == [(NEW, RUNNING)]
    bridge.polls(1, seconds(1))
    assert bridge.steps() == [(NEW, RUNNING), (RUNNING, GONE)]


def test_intervals_without_answers_do_not_count(bridge: Bridge) -> None:
    bridge.ci.forgets("j1")
    bridge.polls(1)
    bridge.ci.refuses["describe"] = TemporaryError("502")
    bridge.polls(3, hours(1))
    del bridge.ci.refuses["describe"]
    bridge.polls(1)
    assert bridge.steps() == [(NEW, RUNNING)]
    bridge.polls(1)
    assert bridge.steps()[-1] == (RUNNING, GONE)


@pytest.mark.parametrize("listed", [False, True])
def test_an_answer_that_shows_the_job_ends_the_count(bridge: Bridge, listed: bool) -> None:
    job = bridge.ci.jobs["j1"]
    for _ in range(3):
        bridge.ci.forgets("j1")
        bridge.polls(2)
        bridge.ci.has(replace(job, created_at=bridge.clock()) if listed else job)
        bridge.polls(1)
        bridge.ci.has(job)
    assert bridge.steps() == [(NEW, RUNNING)]


def test_an_answer_that_says_nothing_of_the_job_is_no_denial(bridge: Bridge) -> None:
    bridge.ci.describe = lambda *_: Description(jobs=())  # type: ignore[method-assign]
    bridge.polls(9)
    assert bridge.steps() == [(NEW, RUNNING)]


def test_a_date_of_cis_that_stands_still_hides_no_job_that_is_gone(bridge: Bridge) -> None:
    stuck, honest = bridge.clock(), bridge.ci.list
    bridge.ci.list = lambda *said, **asked: replace(honest(*said, **asked), served_at=stuck)  # type: ignore[method-assign]
    bridge.until_gone()


def test_watches_that_overlap_count_one_jobs_denials_together(db: Database) -> None:
    bridge = Bridge(db, TEXT + OTHER.replace('queues = ["p1"]\n', ""))  # both ask for the same stream
    bridge.ci.forgets("j1")
    bridge.polls(1)
    bridge.polls(2, seconds(10), watch=1)
    bridge.polls(1, seconds(10))
    assert bridge.steps() == [(NEW, RUNNING)]  # four denials in half a minute
    bridge.polls(1, seconds(10), watch=1)
    bridge.polls(1, seconds(20))
    assert bridge.steps()[-1] == (RUNNING, GONE)


def test_a_clock_that_was_set_back_begins_the_count_anew(bridge: Bridge) -> None:
    bridge.ci.forgets("j1")
    bridge.polls(2)
    bridge.clock.advance(-hours(5))
    bridge.polls(2)
    assert bridge.steps() == [(NEW, RUNNING)]
    bridge.polls(1)
    assert bridge.steps()[-1] == (RUNNING, GONE)


# --- afterwards -------------------------------------------------------------------------------------------------------


def test_a_job_that_is_gone_is_asked_for_again_for_a_day(bridge: Bridge) -> None:
    bridge.until_gone()
    told_at, asked, found = bridge.clock(), bridge.asked(), []
    while bridge.clock() < told_at + hours(30):
        bridge.polls(1, minutes(5) if bridge.clock() < told_at + hours(1) else minutes(30))
        if bridge.asked() > asked:
            asked = bridge.asked()
            found.append((bridge.clock() - told_at) / minutes(1))
    assert found == [5, 30, 120, 480, 1440]
    assert bridge.missing() is None
    assert bridge.steps() == [(NEW, RUNNING), (RUNNING, GONE)]


@pytest.mark.parametrize("end", [SUCCESS, FAILED, CANCEL])
@pytest.mark.parametrize("later", [minutes(5), hours(24), hours(24 * 9)], ids=str)
def test_a_job_that_was_denied_tells_its_end_from_the_state_that_ci_named_last(
    bridge: Bridge, end: str, later: timedelta
) -> None:
    bridge.until_gone()
    bridge.moves(end)
    bridge.polls(1, later)
    assert bridge.steps() == [(NEW, RUNNING), (RUNNING, GONE), (RUNNING, end)]
    last = rows(bridge.db, transition)[-1]
    assert (last["sequence"], last["verdicts"]) == (3, '[["ended",["pager"]],["every",["cms"]]]')
    bridge.moves(RUNNING)
    bridge.polls(9, hours(5))  # and that is final
    assert len(bridge.steps()) == 3


def test_a_job_that_comes_back_unfinished_goes_on(bridge: Bridge) -> None:
    bridge.until_gone()
    bridge.moves(PAUSE)
    bridge.polls(1, minutes(5))
    bridge.moves(SUBMITTED)
    bridge.polls(1)
    bridge.moves(SUCCESS)
    bridge.polls(1)
    assert bridge.steps()[2:] == [(RUNNING, PAUSE), (PAUSE, SUBMITTED), (SUBMITTED, SUCCESS)]


def test_a_job_that_comes_back_as_it_was_comes_from_gone_and_then_from_that_state(bridge: Bridge) -> None:
    bridge.until_gone()
    bridge.moves(RUNNING)
    bridge.polls(3, minutes(5))
    assert bridge.steps()[2:] == [(GONE, RUNNING)]
    assert row_of(bridge.db, job_table, id="j1")["open"]
    bridge.moves(SUCCESS)
    bridge.polls(1)
    assert bridge.steps()[3:] == [(RUNNING, SUCCESS)]


def test_a_list_that_shows_it_again_counts_as_well(bridge: Bridge) -> None:
    bridge.until_gone()
    bridge.ci.has(a_listed_job("j1", SUCCESS, created_at=bridge.clock()))
    bridge.polls(1)
    assert bridge.steps()[-1] == (RUNNING, SUCCESS)
    assert bridge.missing() is None


def test_a_job_that_came_back_is_gone_again_only_after_three_more_denials(bridge: Bridge) -> None:
    bridge.until_gone()
    bridge.moves(PAUSE)
    bridge.polls(1, minutes(5))
    bridge.ci.forgets("j1")
    bridge.polls(2)
    assert bridge.steps()[-1] == (RUNNING, PAUSE)
    bridge.polls(1)
    assert bridge.steps()[-1] == (PAUSE, GONE)


def test_an_outage_does_not_use_up_the_questions(bridge: Bridge) -> None:
    bridge.until_gone()
    bridge.ci.refuses["describe"] = TemporaryError("502")
    bridge.polls(30, hours(1))
    del bridge.ci.refuses["describe"]
    bridge.moves(SUCCESS)
    bridge.polls(1)
    assert bridge.steps()[-1] == (RUNNING, SUCCESS)


def test_answers_that_say_nothing_of_it_end_the_questions_too(bridge: Bridge) -> None:
    bridge.until_gone()
    asked: list[object] = []
    bridge.ci.describe = lambda _, ids: (asked.append(ids), Description(jobs=()))[1]  # type: ignore[assignment,method-assign]
    bridge.polls(40, hours(1))
    assert len(asked) == 4  # the polls are an hour apart: the first two come as one
    assert bridge.missing() is None


def test_a_clock_that_was_set_back_does_not_put_the_question_off(bridge: Bridge) -> None:
    bridge.clock.advance(hours(24 * 100))
    bridge.until_gone()
    bridge.clock.advance(-hours(24 * 100))
    bridge.moves(SUCCESS)
    bridge.polls(1)
    assert bridge.steps()[-1] == (RUNNING, SUCCESS)


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_another_stream_that_takes_its_jobs_over_asks_for_it(bridge: Bridge) -> None:
    bridge.until_gone()
    bridge.use(TEXT.replace('tags = ["Transcode"]', 'tags = ["Transcode"]\nqueues = ["p1"]'))
    bridge.moves(SUCCESS)
    bridge.polls(1, minutes(5))
    assert bridge.steps()[-1] == (RUNNING, SUCCESS)


def test_a_watch_that_is_gone_asks_no_more_and_one_that_comes_back_does(bridge: Bridge) -> None:
    bridge.until_gone()
    bridge.use(TEXT.replace('"Transcode"', '"Snapshot"'))
    asked = bridge.asked()
    bridge.polls(3, hours(1))
    assert bridge.asked() == asked
    bridge.use(TEXT)
    bridge.moves(SUCCESS)
    bridge.polls(1)
    assert bridge.steps()[-1] == (RUNNING, SUCCESS)


def test_what_an_older_worker_believed_at_once_is_asked_for_again(bridge: Bridge) -> None:
    bridge.until_gone()
    with bridge.db.write() as tx:
        tx.execute(job_problem.delete())  # it keeps none
    bridge.moves(SUCCESS)
    bridge.polls(1, hours(3))
    assert bridge.steps()[-1] == (RUNNING, SUCCESS)


def test_a_job_that_is_pruned_is_forgotten_whole(bridge: Bridge) -> None:
    bridge.until_gone()
    later = bridge.clock() + hours(1)
    cut = Cutoffs(now=later, ended=later, dead=later, created={BUCKET: later})
    with bridge.db.write() as tx:
        number = row_of(bridge.db, job_table, id="j1")["n"]
        assert pruning.prune_jobs(tx, [number], cut=cut) == 1
    assert bridge.missing() is None
    asked = bridge.asked()
    bridge.polls(1, hours(2))
    assert bridge.asked() == asked


# --- level rules ------------------------------------------------------------------------------------------------------

LEVELS = """
[[rule]]
name = "stuck"
in = "Running"
for = "1h"
notify = "ops"
[[rule]]
name = "lost"
in = "gone"
for = "20m"
recover = true
notify = "ops"
"""


def test_level_rules_tell_of_it_while_it_is_gone_when_it_is_back_and_again(db: Database, clock: Clock) -> None:
    house = House(db, LEVELS, clock)
    house.poll()
    clock.advance(minutes(1))
    house.has("j1", RUNNING)
    house.passes(minutes(20))
    job = house.ci.jobs["j1"]
    house.ci.forgets("j1")
    house.passes(minutes(40))
    house.ci.has(job)
    house.passes(hours(2))
    assert house.said() == [
        "09:56 ops: Transcode gone for 20 min: j1.mp4",
        "10:06 ops: Transcode Running after 30 min gone: j1.mp4",
        "11:06 ops: Transcode Running for 1 h: j1.mp4",
    ]
