"""Which calls a poll makes: lists of unfinished jobs, what they do not show, and what is read from the record."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from bridge.collect.errors import BrokenReply, ConfigError, TemporaryError
from bridge.decide.changes.scan import LISTED_STATES, OVERLAP
from bridge.model import FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS, Job
from bridge.pipeline.looks import Looks
from bridge.record.database import Database, at
from bridge.record.polling import snapshots
from bridge.record.schema import streams
from tests.conftest import on_both
from tests.support.fakes import notify_all
from tests.support.nouns import NOW, a_listed_job, a_stream, hours, minutes, seconds
from tests.support.records import rows
from tests.support.rig import Rig

SECOND, TEN = seconds(1), seconds(10)


@pytest.fixture
def rig(db: Database) -> Rig:
    return Rig(db, given=notify_all(every="10s"))


def fill(rig: Rig, unfinished: int, finished: int) -> None:
    """Let CI have jobs spread over 20 hours, the unfinished ones evenly among the finished."""
    whole = unfinished + finished
    for n in range(whole):
        is_open = n * unfinished // whole != (n + 1) * unfinished // whole
        created = rig.clock() - hours(1) - hours(20) * n / whole
        rig.ci.has(a_listed_job(f"j{n}", RUNNING if is_open else SUCCESS, created_at=created))


def open_jobs(rig: Rig) -> list[Job]:
    """Return CI's running jobs, oldest first."""
    running = [job for job in rig.ci.jobs.values() if job.state == RUNNING]
    return sorted(running, key=lambda job: job.created_at or rig.clock())


def ends(rig: Rig, *jobs: Job, state: str = SUCCESS) -> None:
    rig.ci.has(*[replace(job, state=state) for job in jobs])


def poll_later(rig: Rig) -> list[tuple[str, ...]]:
    """Poll ten seconds later; return the states that its lists were asked for."""
    rig.clock.advance(TEN)
    rig.ci.states.clear()
    rig.ci.described.clear()
    assert rig.poll().error is None
    return rig.ci.states


@pytest.fixture
def spread(rig: Rig) -> Rig:
    """50 unfinished jobs among 950 finished ones, over 20 hours."""
    fill(rig, 50, 950)
    rig.poll()
    return rig


# --- lists by states ------------------------------------------------------------------------------------------------


@on_both
def test_one_list_of_unfinished_jobs_replaces_questions_by_id(spread: Rig) -> None:
    assert poll_later(spread) == [(), LISTED_STATES]
    assert spread.ci.described == []


@on_both
def test_only_what_no_list_shows_is_asked_for_by_id(spread: Rig) -> None:
    ended, odd, hidden, forgotten, *_ = open_jobs(spread)
    ends(spread, ended)
    ends(spread, odd, state="Mending")
    spread.ci.hidden.add(hidden.id)
    spread.ci.forgets(forgotten.id)
    poll_later(spread)
    assert [{*ids} for ids in spread.ci.described] == [{ended.id, odd.id, hidden.id, forgotten.id}]
    assert {step[0]: step[2] for step in spread.steps()[1000:]} == {ended.id: SUCCESS, odd.id: "Mending"}


@pytest.mark.parametrize("state", [SUBMITTED, PAUSE])
def test_a_list_by_states_shows_what_became_of_unfinished_jobs(spread: Rig, state: str) -> None:
    ends(spread, *open_jobs(spread)[:5], state=state)
    poll_later(spread)
    assert spread.ci.described == []
    assert [step[1:] for step in spread.steps()[1000:]] == [(RUNNING, state)] * 5


def test_what_several_pages_by_states_do_not_show_is_asked_for_when_they_have_been_read(spread: Rig) -> None:
    spread.ci.page_size = 10
    ended = open_jobs(spread)[0]
    ends(spread, ended)
    assert poll_later(spread).count(LISTED_STATES) == 5
    assert spread.ci.described == [(ended.id,)]
    assert len(spread.steps()) == 1001


def test_a_list_by_states_moves_no_mark(spread: Rig) -> None:
    spread.ci.refuses["Transcode"] = TemporaryError("502")
    before = spread.mark()
    spread.clock.advance(TEN)
    assert spread.poll().error
    assert spread.mark() == before


def test_a_list_by_states_that_fails_is_asked_for_in_the_next_poll(spread: Rig) -> None:
    spread.ci.refuses["Transcode by state"] = TemporaryError("502")
    ends(spread, open_jobs(spread)[0])
    spread.clock.advance(TEN)
    assert str(spread.poll().error) == "502"
    assert spread.ci.described == []
    del spread.ci.refuses["Transcode by state"]
    assert poll_later(spread) == [(), LISTED_STATES]
    assert len(spread.steps()) == 1001


def test_a_list_by_states_is_read_to_its_end_whatever_time_is_left(rig: Rig) -> None:
    fill(rig, 350, 2000)
    rig.poll()
    rig.clock.advance(TEN)
    looks = itertools.count()
    rig.poller = rig.new_poller(monotonic=lambda: float(next(looks)))
    assert not rig.poll(within=seconds(0)).behind
    assert rig.ci.states[-4:] == [LISTED_STATES] * 4


# --- a CI that ignores the states -----------------------------------------------------------------------------------


@contextmanager
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    said: list[str] = []
    with caplog.at_level(logging.WARNING, "bridge.pipeline.poller"):
        yield said
    said += [record.reason for record in caplog.records if "by their states" in record.message]  # type: ignore[attr-defined]


def ignored(rig: Rig) -> Any:
    return rows(rig.db, streams)[0]["states_ignored_at"]


@on_both
def test_a_ci_that_ignores_states_is_noticed_with_the_first_page_and_asked_by_id(
    spread: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    spread.ci.ignores_states = True
    ends(spread, open_jobs(spread)[0])
    with warnings(caplog) as said:
        assert poll_later(spread) == [(), LISTED_STATES]
        assert (len(spread.ci.described), len(spread.steps())) == (5, 1001)
        assert [poll_later(spread) for _ in range(3)] == [[()]] * 3
        assert len(spread.ci.described) == 5
    assert said == ["it shows jobs in other states, or does not end"]
    assert at(ignored(spread)) < spread.clock()


def test_states_that_were_ignored_are_tried_again_after_some_hours(spread: Rig) -> None:
    spread.ci.ignores_states = True
    poll_later(spread)
    spread.ci.ignores_states = False
    assert poll_later(spread) == [()]
    spread.clock.advance(hours(6))
    assert poll_later(spread)[:2] == [(), LISTED_STATES]
    assert poll_later(spread) == [(), LISTED_STATES]


def test_a_list_by_states_that_leaves_out_most_unfinished_jobs_is_noticed(
    spread: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    spread.ci.hidden.update(job.id for job in open_jobs(spread)[:40])
    with warnings(caplog) as said:
        poll_later(spread)
    assert len(spread.ci.described) == 4
    assert said == ["it leaves out jobs that are in these states"]
    assert poll_later(spread) == [()]
    assert len(spread.ci.described) == 5


def test_many_jobs_that_end_at_once_are_no_evidence(spread: Rig) -> None:
    ends(spread, *open_jobs(spread)[:40])
    poll_later(spread)
    assert len(spread.steps()) == 1040
    assert ignored(spread) is None


def test_a_few_stale_entries_are_no_evidence(spread: Rig) -> None:
    stale = open_jobs(spread)[:3]
    ends(spread, *stale)
    poll_later(spread)
    spread.ci.has(*[replace(job, state=RUNNING) for job in stale])
    poll_later(spread)
    assert ignored(spread) is None
    assert len(spread.steps()) == 1003


@pytest.mark.parametrize(
    "error", [ConfigError("states is invalid"), BrokenReply("an answer is cut off")], ids=["400", "cut off"]
)
def test_a_refused_list_by_states_fails_no_poll(spread: Rig, error: Exception) -> None:
    spread.ci.refuses["Transcode by state"] = error  # type: ignore[assignment]
    ends(spread, open_jobs(spread)[0])
    assert poll_later(spread) == [(), LISTED_STATES]
    assert len(spread.steps()) == 1001
    assert poll_later(spread) == [()]


# --- lists that change while they are read --------------------------------------------------------------------------

MOVES = st.lists(st.tuples(st.integers(0, 39), st.sampled_from([SUCCESS, FAILED, PAUSE, SUBMITTED, "Mending", "new"])))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    page_size=st.integers(1, 7),
    unfinished=st.integers(5, 40),
    before=st.lists(MOVES, max_size=2),
    during=st.lists(MOVES, max_size=12),
    ignores=st.booleans(),
)
def test_whatever_ends_or_comes_while_pages_are_read_nothing_is_missed(
    db: Database, page_size: int, unfinished: int, before: list[Any], during: list[Any], ignores: bool
) -> None:
    with db.write() as tx:
        for table in reversed(streams.metadata.sorted_tables):
            tx.execute(table.delete())
    rig = Rig(db, given=notify_all(every="10s"))
    fill(rig, unfinished, 300)
    rig.poll()
    rig.ci.page_size, rig.ci.ignores_states = page_size, ignores
    born = itertools.count()

    def move(moves: list[tuple[int, str]]) -> None:
        for which, state in moves:
            if state == "new":
                rig.ci.has(a_listed_job(f"new{next(born)}", created_at=rig.clock()))
            elif jobs := open_jobs(rig):
                ends(rig, jobs[which % len(jobs)], state=state)

    for moves in before:
        rig.clock.advance(TEN)
        move(moves)
        rig.poll()
    coming = iter(during)
    rig.ci.before_call = lambda: move(next(coming, []))
    rig.clock.advance(TEN)
    rig.poll()
    rig.ci.before_call = lambda: None
    rig.clock.advance(TEN)
    assert rig.poll().error is None
    last = {job: to for job, _, to in rig.steps()}
    assert last == {job.id: job.state for job in rig.ci.jobs.values()}


# --- how far lists overlap ------------------------------------------------------------------------------------------


def since(rig: Rig) -> timedelta:
    """Return how long before the mark the list of the next poll begins."""
    mark = rig.mark()
    rig.ci.listed.clear()
    rig.clock.advance(TEN)
    rig.poll()
    _, since, _ = rig.ci.listed[0]
    assert since
    assert mark
    return mark - since


def knows_the_lag(rig: Rig, lag_s: float) -> None:
    with rig.db.write() as tx:
        tx.execute(streams.update().values(lag_ms=round(lag_s * 1000)))


def comes(rig: Rig, id_: str, age: timedelta = NOW - NOW, state: str = SUCCESS) -> None:
    rig.ci.has(a_listed_job(id_, state, created_at=rig.clock() - age))


@on_both
def test_a_job_that_ci_lists_late_makes_the_next_lists_overlap_by_more(rig: Rig) -> None:
    rig.poll()
    assert since(rig) == OVERLAP
    knows_the_lag(rig, 60)
    assert since(rig) == seconds(100)
    comes(rig, "late", age=seconds(90))  # a list began 80 seconds before that
    since(rig)
    assert rig.news() == ["late"]
    assert since(rig) == seconds(145)


def test_lists_overlap_by_less_after_each_ten_minutes_in_which_jobs_came_in_time(rig: Rig) -> None:
    rig.poll()
    overlaps = []
    for n in range(8):
        comes(rig, f"j{n}")
        overlaps.append(since(rig))
        rig.clock.advance(minutes(11))
    assert [round(overlap / SECOND) for overlap in overlaps] == [300, 300, 210, 143, 99, 69, 50, 36]


@pytest.mark.parametrize("every", [10, 60])
def test_a_ci_that_always_takes_a_minute_to_list_a_job_delays_none_by_more(rig: Rig, every: int) -> None:
    rig.use(given=notify_all(every=f"{every}s"))
    for second in range(0, 7200, every):
        created = [n for n in range(17, 7200, 97) if second - every < n + 60 <= second]
        rig.ci.has(*[a_listed_job(f"j{n}", SUCCESS, created_at=NOW + seconds(n)) for n in created])
        rig.poll()
        assert {f"j{n}" for n in created} <= {job for job, _, _ in rig.steps()}
        rig.clock.advance(seconds(every))


def test_lists_overlap_by_as_much_as_before_while_no_job_comes(rig: Rig) -> None:
    rig.poll()
    for _ in range(5):
        assert since(rig) == OVERLAP
        rig.clock.advance(minutes(11))


@on_both
def test_a_list_an_hour_before_the_mark_finds_every_ten_minutes_what_ci_listed_too_late(rig: Rig) -> None:
    rig.poll()
    knows_the_lag(rig, 0)
    comes(rig, "in time")
    rig.clock.advance(TEN)
    rig.poll()
    comes(rig, "late", age=minutes(50))
    rig.polls(40, TEN)
    assert rig.news() == ["in time"]
    rig.polls(20, TEN)
    assert rig.news() == ["in time", "late"]
    (again,) = rig.ci.listed_again
    assert again[1] == NOW + minutes(10) - TEN - hours(1)
    assert since(rig) > minutes(40)


def test_a_job_of_before_the_first_snapshot_stays_silent_when_a_list_goes_back_further(rig: Rig) -> None:
    rig.use(given=notify_all(every="10s", lookback="5m"))
    rig.poll()
    comes(rig, "before", age=minutes(40))
    rig.polls(2, minutes(10))
    assert [step[0] for step in rig.steps()] == ["before"]
    assert rig.news() == []


def test_a_list_before_the_mark_waits_for_what_is_fresh_and_goes_on_in_the_next_poll(rig: Rig) -> None:
    rig.poll()
    for n in range(9):
        comes(rig, f"j{n}", age=seconds(n))
    rig.polls(1, TEN)
    knows_the_lag(rig, 0)
    rig.clock.advance(minutes(11))
    rig.ci.page_size = 2
    looks = itertools.count()
    rig.poller = rig.new_poller(monotonic=lambda: float(next(looks)))
    pages = []
    for _ in range(3):
        assert rig.poll(within=seconds(3)).behind == []
        pages.append(len(rig.ci.listed_again))
        rig.clock.advance(TEN)
    assert pages == [2, 4, 5]
    assert rig.mark() == rig.clock() - TEN


def test_a_list_before_the_mark_that_another_worker_has_ended_does_not_go_on(rig: Rig) -> None:
    rig.poll()
    for n in range(9):
        comes(rig, f"j{n}", age=seconds(n))
    rig.polls(1, TEN)
    knows_the_lag(rig, 0)
    rig.clock.advance(minutes(11))
    rig.ci.page_size = 2
    looks = itertools.count()
    first = rig.new_poller(monotonic=lambda: float(next(looks)))
    assert first.poll_once(rig.book.watches[0], rig.book, within=seconds(3))
    rig.polls(1, TEN)
    rig.ci.listed_again.clear()
    rig.clock.advance(TEN)
    assert first.poll_once(rig.book.watches[0], rig.book)
    assert rig.ci.listed_again == []


# --- how many calls -------------------------------------------------------------------------------------------------


def look_early(rig: Rig) -> None:
    looks = Looks(poller=rig.poller)
    for watch in looks.due(rig.book):
        looks.ask(watch, rig.book)


@pytest.mark.parametrize(
    ("unfinished", "finished", "least"), [(50, 2000, 2), (500, 2000, 6), (10, 2000, 2), (0, 500, 1)]
)
def test_ten_minutes_of_polls_take_one_call_an_interval_more_than_the_fewest(
    rig: Rig, unfinished: int, finished: int, least: int
) -> None:
    fill(rig, unfinished, finished)
    rig.poll()
    rig.clock.advance(minutes(10))
    rig.poll()  # as often as this one, one list goes back by an hour
    before = rig.ci.calls()
    for _ in range(60):
        rig.clock.advance(TEN / 2)
        look_early(rig)
        rig.clock.advance(TEN / 2)
        rig.poll()
    assert rig.ci.calls() - before <= 60 * (least + 1)


def test_a_steady_stream_of_jobs_takes_one_call_an_interval_and_at_most_one_more(rig: Rig) -> None:
    for n in range(3600):
        comes(rig, f"old{n}", age=seconds(n))
    rig.poll()
    knows_the_lag(rig, 0)
    numbers, calls = itertools.count(), list[int]()
    for _ in range(120):
        rig.clock.advance(TEN / 2)
        look_early(rig)
        rig.clock.advance(TEN / 2)
        for n in range(10):
            comes(rig, f"j{next(numbers)}", age=seconds(n), state=RUNNING)
        ends(rig, *open_jobs(rig)[:-30])  # each runs for half a minute
        rig.poll()
        calls.append(rig.ci.calls())
    assert len(rig.ci.jobs) == len({job for job, _, _ in rig.steps()})
    assert len(rig.ci.listed_again) == 2 * 36
    assert calls[-1] - calls[59] <= 60 * 2  # as from the first to the second list that goes back by an hour


# --- what is read from the record -----------------------------------------------------------------------------------


def remember(rig: Rig, finished: range) -> None:
    """Let these finished jobs be on record, created over 20 hours."""
    created = [rig.clock() - hours(22) + hours(20) * (n - finished.start) / len(finished) for n in finished]
    jobs = [a_listed_job(f"done{n}", SUCCESS, created_at=time) for n, time in zip(finished, created, strict=True)]
    with rig.db.write() as tx:
        snapshots.save(tx, jobs, [], {}, stream=a_stream().key, streams=(), now=rig.clock())


def test_a_poll_reads_no_more_from_the_record_however_many_jobs_have_ended(spread: Rig) -> None:
    spread.use('[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nnotify = "cms"\n')
    poll_later(spread)
    taken = [0]

    def count() -> None:
        taken[0] += 1

    event.listen(spread.db.engine, "connect", lambda made, _: made.set_progress_handler(count, 10))
    spread.db.close()
    costs = []
    for finished in (range(1_000), range(1_000, 100_000)):
        remember(spread, finished)
        taken[0] = 0
        assert poll_later(spread) == [(), LISTED_STATES]
        costs.append(taken[0])  # tens of steps of SQLite's machine
    assert 0 < costs[1] <= 1.5 * costs[0]
