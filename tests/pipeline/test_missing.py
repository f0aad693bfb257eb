"""CI's word that it does not know a job is believed late, and never for good."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.collect.errors import TemporaryError
from bridge.model import CANCEL, FAILED, GONE, NEW, PAUSE, RUNNING, SUBMITTED, SUCCESS, Description
from bridge.record import pruning
from bridge.record.database import Database
from bridge.record.pruning import Cutoffs
from bridge.record.schema import job_problems, transitions
from bridge.record.schema import jobs as job_table
from tests.conftest import on_both
from tests.support.fakes import notify_all
from tests.support.nouns import BUCKET, NOW, a_listed_job, hours, minutes, seconds
from tests.support.records import row_of, rows
from tests.support.rig import Rig

ENDED = '\n[[rule]]\nname = "ended"\nfrom = ["Submitted", "Running"]\nto = "done"\nnotify = "pager"\n'
OTHER = """
[[watch]]
name = "other"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
every = "5m"
"""


class Missing(Rig):
    """A watch every 30 s with one job, which is older than the lists go back, so it is asked for by id."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ci.has(*[a_listed_job(f"old{n}", SUCCESS, created_at=NOW - hours(1)) for n in range(150)])
        self.moves(RUNNING)
        self.polls()
        assert self.of_job() == [(NEW, RUNNING)]

    def moves(self, state: str) -> None:
        self.ci.has(a_listed_job("j1", state, created_at=NOW - hours(2), queue="p1"))

    def until_gone(self) -> None:
        self.ci.forgets("j1")
        self.polls(3)
        assert self.of_job()[-1] == (RUNNING, GONE)

    def of_job(self) -> list[tuple[str, str]]:
        return [(was, state) for job, was, state in self.steps() if job == "j1"]

    def asked(self) -> int:
        return sum("j1" in ids for ids in self.ci.described)

    def missing(self) -> dict[str, Any] | None:
        return next(iter(rows(self.db, job_problems)), None)


@pytest.fixture
def rig(db: Database) -> Missing:
    return Missing(db, ENDED, given=notify_all())


# --- before it is gone ------------------------------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize("denials", [1, 2])
def test_a_job_that_ci_denies_once_or_twice_goes_on(rig: Missing, denials: int) -> None:
    rig.ci.forgets("j1")
    rig.polls(denials)
    rig.moves(SUCCESS)
    rig.polls()
    assert (rig.of_job(), rig.missing()) == ([(NEW, RUNNING), (RUNNING, SUCCESS)], None)


def test_the_third_denial_makes_it_gone_if_two_intervals_have_passed(rig: Missing) -> None:
    rig.ci.forgets("j1")
    rig.polls(4, seconds(10))
    rig.polls(1, seconds(29))
    assert rig.of_job() == [(NEW, RUNNING)]
    rig.polls(1, seconds(1))
    assert rig.of_job() == [(NEW, RUNNING), (RUNNING, GONE)]


def test_intervals_without_answers_do_not_count(rig: Missing) -> None:
    rig.ci.forgets("j1")
    rig.polls()
    rig.ci.refuses["describe"] = TemporaryError("502")
    rig.polls(3, hours(1))
    del rig.ci.refuses["describe"]
    rig.polls()
    assert rig.of_job() == [(NEW, RUNNING)]
    rig.polls()
    assert rig.of_job()[-1] == (RUNNING, GONE)


@on_both
@pytest.mark.parametrize("listed", [False, True])
def test_an_answer_that_shows_the_job_ends_the_count(rig: Missing, listed: bool) -> None:
    job = rig.ci.jobs["j1"]
    for _ in range(3):
        rig.ci.forgets("j1")
        rig.polls(2)
        rig.ci.has(replace(job, created_at=rig.clock()) if listed else job)
        rig.polls()
        rig.ci.has(job)
    assert rig.of_job() == [(NEW, RUNNING)]


def test_an_answer_that_says_nothing_of_the_job_is_no_denial(rig: Missing) -> None:
    rig.ci.describe = lambda *_: Description(jobs=())  # type: ignore[method-assign]
    rig.polls(9)
    assert rig.of_job() == [(NEW, RUNNING)]


def test_a_date_of_cis_that_stands_still_hides_no_job_that_is_gone(rig: Missing) -> None:
    stuck, honest = rig.clock(), rig.ci.list
    rig.ci.list = lambda *said, **asked: replace(honest(*said, **asked), served_at=stuck)  # type: ignore[method-assign]
    rig.until_gone()


def test_watches_that_overlap_count_one_jobs_denials_together(rig: Missing) -> None:
    rig.use(ENDED + OTHER)  # both ask for the same stream
    rig.ci.forgets("j1")
    rig.polls()
    for watch in (1, 1, 0):
        rig.clock.advance(seconds(10))
        rig.poll(watch)
    assert rig.of_job() == [(NEW, RUNNING)]  # four denials in half a minute
    for watch, after_s in ((1, 10), (0, 20)):
        rig.clock.advance(seconds(after_s))
        rig.poll(watch)
    assert rig.of_job()[-1] == (RUNNING, GONE)


def test_a_clock_that_was_set_back_begins_the_count_anew(rig: Missing) -> None:
    rig.ci.forgets("j1")
    rig.polls(2)
    rig.clock.advance(-hours(5))
    rig.polls(2)
    assert rig.of_job() == [(NEW, RUNNING)]
    rig.polls()
    assert rig.of_job()[-1] == (RUNNING, GONE)


# --- afterwards -------------------------------------------------------------------------------------------------------


def test_a_job_that_is_gone_is_asked_for_again_for_a_day(rig: Missing) -> None:
    rig.until_gone()
    gone_at, asked, found = rig.clock(), rig.asked(), []
    while rig.clock() < gone_at + hours(30):
        rig.polls(1, minutes(5) if rig.clock() < gone_at + hours(1) else minutes(30))
        if rig.asked() > asked:
            asked = rig.asked()
            found.append((rig.clock() - gone_at) / minutes(1))
    assert found == [5, 30, 120, 480, 1440]
    assert (rig.of_job(), rig.missing()) == ([(NEW, RUNNING), (RUNNING, GONE)], None)


@on_both
@pytest.mark.parametrize(
    ("end", "later"), [(SUCCESS, minutes(5)), (FAILED, hours(24)), (CANCEL, hours(24 * 9))], ids=str
)
def test_a_job_that_was_denied_ends_from_the_state_that_ci_named_last(rig: Missing, end: str, later: timedelta) -> None:
    rig.until_gone()
    rig.moves(end)
    rig.polls(1, later)
    assert rig.of_job() == [(NEW, RUNNING), (RUNNING, GONE), (RUNNING, end)]
    last = rows(rig.db, transitions)[-1]
    assert (last["sequence"], last["verdicts"]) == (3, '[["every",["cms"]],["ended",["pager"]]]')
    rig.moves(RUNNING)
    rig.polls(9, hours(5))  # and that is final
    assert len(rig.of_job()) == 3


def test_a_job_that_comes_back_unfinished_goes_on(rig: Missing) -> None:
    rig.until_gone()
    for state in (PAUSE, SUBMITTED, SUCCESS):
        rig.moves(state)
        rig.polls(1, minutes(5))
    assert rig.of_job()[2:] == [(RUNNING, PAUSE), (PAUSE, SUBMITTED), (SUBMITTED, SUCCESS)]


@on_both
def test_a_job_that_comes_back_as_it_was_comes_from_gone_and_then_from_that_state(rig: Missing) -> None:
    rig.until_gone()
    rig.moves(RUNNING)
    rig.polls(3, minutes(5))
    assert rig.of_job()[2:] == [(GONE, RUNNING)]
    assert row_of(rig.db, job_table, id="j1")["open"]
    rig.moves(SUCCESS)
    rig.polls()
    assert rig.of_job()[3:] == [(RUNNING, SUCCESS)]


def test_a_job_that_came_back_is_gone_again_only_after_three_more_denials(rig: Missing) -> None:
    rig.until_gone()
    rig.moves(PAUSE)
    rig.polls(1, minutes(5))
    rig.ci.forgets("j1")
    rig.polls(2)
    assert rig.of_job()[-1] == (RUNNING, PAUSE)
    rig.polls()
    assert rig.of_job()[-1] == (PAUSE, GONE)


def test_answers_that_say_nothing_of_it_end_the_questions_too(rig: Missing) -> None:
    rig.until_gone()
    asked: list[object] = []
    rig.ci.describe = lambda _, ids: (asked.append(ids), Description(jobs=()))[1]  # type: ignore[assignment,method-assign]
    rig.polls(40, hours(1))
    assert len(asked) == 4  # the polls are an hour apart: the first two come as one
    assert rig.missing() is None


def _shown_by_a_list(rig: Missing) -> None:
    rig.ci.has(a_listed_job("j1", SUCCESS, created_at=rig.clock()))


def _outage(rig: Missing) -> None:
    rig.ci.refuses["describe"] = TemporaryError("502")
    rig.polls(30, hours(1))
    del rig.ci.refuses["describe"]


def _clock_set_back(rig: Missing) -> None:
    rig.clock.advance(-hours(24 * 100))


def _other_stream(rig: Missing) -> None:
    """Another stream takes its jobs over."""
    rig.use(given=notify_all(watch='queues = ["p1"]'))
    rig.clock.advance(minutes(5))


def _back_in_the_rules(rig: Missing) -> None:
    """A watch that is gone asks no more, and one that comes back does."""
    rig.use(given=notify_all("Snapshot"))
    asked = rig.asked()
    rig.polls(3, hours(1))
    assert rig.asked() == asked
    rig.use(given=notify_all())


def _older_worker(rig: Missing) -> None:
    """What an older worker believed at once is asked for again: it keeps no denials."""
    with rig.db.write() as tx:
        tx.execute(job_problems.delete())
    rig.clock.advance(hours(3))


@on_both
@pytest.mark.parametrize(
    "happens", [_shown_by_a_list, _outage, _clock_set_back, _other_stream, _back_in_the_rules, _older_worker]
)
def test_whatever_happens_meanwhile_the_end_of_a_job_that_is_gone_is_seen(rig: Missing, happens: Any) -> None:
    rig.clock.advance(hours(24 * 100) if happens is _clock_set_back else seconds(0))
    rig.until_gone()
    happens(rig)
    if happens is not _shown_by_a_list:
        rig.moves(SUCCESS)
    rig.polls()
    assert rig.of_job()[-1] == (RUNNING, SUCCESS)
    assert rig.missing() is None


@on_both
def test_a_job_that_is_pruned_is_forgotten_whole(rig: Missing) -> None:
    rig.until_gone()
    later = rig.clock() + hours(1)
    cut = Cutoffs(now=later, ended=later, dead=later, created={BUCKET: later})
    with rig.db.write() as tx:
        assert pruning.prune_jobs(tx, [row_of(rig.db, job_table, id="j1")["n"]], cut=cut) == 1
    asked = rig.asked()
    rig.polls(1, hours(2))
    assert (rig.missing(), rig.asked()) == (None, asked)
