from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from bridge.collect.errors import AuthError, CiError, ConfigError, TemporaryError, Throttled
from bridge.decide.changes.scan import OVERLAP
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import FAILED, GONE, RUNNING, SUBMITTED, SUCCESS, Job, Page
from bridge.pipeline.poll import Halted, Poller
from bridge.pipeline.poll_context import Poll
from bridge.record.database import Database, at
from bridge.record.polling import leases, snapshots
from bridge.record.polling.leases import LEASE
from bridge.record.schema import delivery, lease, transition, watch
from bridge.record.schema import job as job_table
from bridge.record.schema import stream as stream_table
from bridge.wiring import parts
from tests.conftest import Opener, on_both
from tests.support.fakes import RULES, FakeCi, a_book, count, watch_of
from tests.support.records import (
    BUCKET,
    NOW,
    Clock,
    a_listed_job,
    a_stream,
    hours,
    know,
    minutes,
    row_of,
    rows,
    seconds,
)

Polls = Callable[..., Poll]

pytestmark = on_both

BOOK = a_book()


@pytest.fixture
def poll(poller: Poller, db: Database) -> Polls:
    """Polls the watch of a book, and returns what came of it."""

    def polls(book: Rulebook = BOOK, by: Poller = poller) -> Poll:
        know(db, *book.notifiers.values(), watches=book.watches)
        found = by.poll_once(watch_of(book), book)
        assert found is not None
        return found

    return polls


@pytest.fixture
def polled(poll: Polls, clock: Clock) -> Polls:
    """The same, after a first poll half a minute ago."""
    poll()
    clock.advance(seconds(30))
    return poll


def _steps(db: Database) -> list[tuple[str, str, str]]:
    return [(row["job_id"], row["was"], row["state"]) for row in rows(db, transition)]


def _told(db: Database) -> int:
    return count(db, "delivery")


def _mark(db: Database, tag: str = "Transcode") -> datetime | None:
    with db.read() as tx:
        return next((known.mark for known in snapshots.listed(tx, [a_stream(tag).key]).values()), None)


def _new(clock: Clock, id_: str, state: str = SUBMITTED, **facts: Any) -> Job:
    return a_listed_job(id_, state, **{"created_at": clock(), **facts})


# --- the first snapshot -------------------------------------------------------------------------------------


def test_a_first_snapshot_is_recorded_and_told_to_nobody(db: Database, ci: FakeCi, poll: Polls) -> None:
    ci.has(a_listed_job("old", SUCCESS), a_listed_job("running", RUNNING))
    found = poll()
    assert (found.jobs, found.transitions, found.deliveries, found.error) == (2, 2, 0, None)
    assert {row["silent"] for row in rows(db, transition)} == {'first snapshot of Transcode in watch "vod"'}


def test_a_first_snapshot_can_be_announced(db: Database, ci: FakeCi, poll: Polls) -> None:
    ci.has(a_listed_job("old", SUCCESS), a_listed_job("running", RUNNING))
    assert poll(a_book(announce=True)).deliveries == 2
    assert _steps(db) == [("old", "new", SUCCESS), ("running", "new", RUNNING)]


@pytest.mark.parametrize(("behind_s", "told"), [(1200, True), (30, False), (20, False)])
def test_a_job_that_only_looks_older_than_the_first_question_as_cis_clock_is_behind_is_told(
    db: Database, ci: FakeCi, poll: Polls, clock: Clock, behind_s: int, told: bool
) -> None:
    ci.has(a_listed_job("j1", created_at=clock() + seconds(10 - behind_s)))
    ci.pages["Transcode"] = [Page(jobs=tuple(ci.jobs.values()), served_at=clock() + seconds(20 - behind_s))]
    ci.before_call = lambda: clock.advance(seconds(20))
    assert poll().deliveries == told


def test_a_first_snapshot_looks_back_as_far_as_the_watch_says(ci: FakeCi, poll: Polls) -> None:
    poll()
    assert ci.listed == [("Transcode", NOW - hours(24) - OVERLAP, None)]


def test_the_next_state_of_a_job_of_a_first_snapshot_is_told(db: Database, ci: FakeCi, poll: Polls) -> None:
    ci.has(a_listed_job("j1", RUNNING))
    poll()
    ci.has(a_listed_job("j1", SUCCESS))
    assert poll().deliveries == 1
    assert _steps(db) == [("j1", "new", RUNNING), ("j1", RUNNING, SUCCESS)]


# --- transitions --------------------------------------------------------------------------------------------


def test_every_state_that_is_seen_is_one_transition_and_is_told(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    created = clock()
    for state in (SUBMITTED, RUNNING, SUCCESS):
        ci.has(a_listed_job("j1", state, created_at=created))
        for _ in range(2):
            polled()
            clock.advance(seconds(30))
    assert _steps(db) == [("j1", "new", SUBMITTED), ("j1", SUBMITTED, RUNNING), ("j1", RUNNING, SUCCESS)]
    assert [row["sequence"] for row in rows(db, transition)] == [1, 2, 3]
    assert _told(db) == 3


def test_progress_is_no_transition(db: Database, ci: FakeCi, polled: Polls, clock: Clock) -> None:
    for progress in (1, 50, 99):
        ci.has(_new(clock, "j1", RUNNING, progress=progress))
        polled()
    assert len(_steps(db)) == 1


def test_a_final_state_is_final(db: Database, ci: FakeCi, polled: Polls, clock: Clock) -> None:
    ci.has(_new(clock, "j1", SUCCESS))
    polled()
    for stale in (RUNNING, FAILED, SUBMITTED):
        ci.has(_new(clock, "j1", stale))
        polled()
    assert _steps(db) == [("j1", "new", SUCCESS)]
    assert row_of(db, job_table, id="j1")["state"] == SUCCESS


class _Fails:
    levels = ()

    def match(self, _: object) -> None:
        raise ZeroDivisionError


def test_a_page_is_stored_with_its_deliveries_or_not_at_all(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    ci.has(_new(clock, "j1"))
    tables = [job_table, transition, delivery, stream_table]
    before = [rows(db, table) for table in tables]
    with pytest.raises(ZeroDivisionError):
        polled(replace(BOOK, matcher=_Fails()))
    assert [rows(db, table) for table in tables] == before
    assert row_of(db, lease, name=BUCKET)["token"] is None  # free for the next poll
    assert polled().deliveries == 1  # seen again, told once


@pytest.mark.parametrize("table", ["delivery", "job", "transition"])
def test_deliveries_and_snapshot_are_stored_together_or_not_at_all(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock, table: str
) -> None:
    ci.has(_new(clock, "j1"))
    tables = [job_table, transition, delivery, stream_table]
    before = [rows(db, table) for table in tables]

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(f"INSERT INTO {table} "):
            raise ZeroDivisionError

    event.listen(db.engine, "before_cursor_execute", fail)
    with pytest.raises(ZeroDivisionError):
        polled()
    event.remove(db.engine, "before_cursor_execute", fail)
    assert [rows(db, table) for table in tables] == before
    assert polled().deliveries == 1


def test_who_is_told_is_woken_after_each_page_is_stored(db: Database, ci: FakeCi, clock: Clock, poll: Polls) -> None:
    woken: list[int] = []
    by = Poller(db=db, source=ci, clock=clock, worker="w1", on_told=lambda: woken.append(count(db, "job")))
    ci.page_size = 2
    ci.has(*[_new(clock, f"j{n}") for n in range(3)])
    poll(by=by)
    assert woken == [2, 3]


# --- pages --------------------------------------------------------------------------------------------------


def test_a_job_on_two_pages_is_told_once(db: Database, ci: FakeCi, polled: Polls, clock: Clock) -> None:
    first = Page(jobs=(_new(clock, "j1"), _new(clock, "j2")), next_token="a")
    second = Page(jobs=(_new(clock, "j2"), _new(clock, "j3")))
    ci.pages["Transcode"] = [first, second]
    assert polled().deliveries == 3
    assert [job for job, _, _ in _steps(db)] == ["j1", "j2", "j3"]


def test_a_job_that_moves_on_between_two_pages_is_told_both(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    ci.pages["Transcode"] = [
        Page(jobs=(_new(clock, "j1"),), next_token="a"),
        Page(jobs=(_new(clock, "j1", RUNNING),)),
    ]
    polled()
    assert _steps(db) == [("j1", "new", SUBMITTED), ("j1", SUBMITTED, RUNNING)]


def test_a_job_twice_on_one_page_counts_by_its_further_state(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    ci.pages["Transcode"] = [Page(jobs=(_new(clock, "j1", SUCCESS), _new(clock, "j1", RUNNING)))]
    polled()
    assert _steps(db) == [("j1", "new", SUCCESS)]


def test_jobs_that_arrive_while_pages_are_read_are_not_missed(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    ci.page_size = 10
    ci.has(*[_new(clock, f"j{n}", created_at=clock() - seconds(n)) for n in range(25)])
    arrivals = iter(range(100))
    ci.before_call = lambda: ci.has(_new(clock, f"late{next(arrivals)}", created_at=clock() + seconds(1)))
    polled()
    ci.before_call = lambda: None
    clock.advance(seconds(30))
    polled()
    assert sorted(job for job, _, _ in _steps(db)) == sorted(ci.jobs)


def test_the_mark_moves_with_the_last_page_only(db: Database, ci: FakeCi, polled: Polls, clock: Clock) -> None:
    assert _mark(db) == NOW
    ci.page_size = 2
    ci.has(*[_new(clock, f"j{n}") for n in range(5)])
    marks: list[datetime | None] = []
    ci.before_call = lambda: (marks.append(_mark(db)), clock.advance(seconds(5)))
    polled()
    assert marks == [NOW, NOW, NOW]
    assert _mark(db) == NOW + seconds(30)  # when the poll began: that is earlier than CI's Date


def test_a_list_that_fails_halfway_keeps_what_was_read_and_not_the_mark(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    ci.page_size = 2
    ci.has(*[_new(clock, f"j{n}") for n in range(4)])

    def fail_later() -> None:
        if len(ci.listed) == 3:
            raise TemporaryError("reset by peer")

    ci.before_call = fail_later
    assert str(polled().error) == "reset by peer"
    assert (count(db, "job"), _told(db), _mark(db)) == (2, 2, NOW)
    ci.before_call = lambda: None
    assert polled().error is None
    assert (count(db, "job"), _told(db), _mark(db)) == (4, 4, clock())


def test_a_list_that_gives_the_same_token_for_ever_ends_with_an_error(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    ci.pages["Transcode"] = [Page(jobs=(_new(clock, f"j{n}"),), next_token="again") for n in range(50)]
    found = polled()
    assert "does not end: page token 'again' came again" in str(found.error)
    assert found.calls == 2
    assert (_told(db), _mark(db)) == (2, NOW)


# --- what the list does not show ----------------------------------------------------------------------------


@pytest.fixture
def aged(ci: FakeCi, poll: Polls, clock: Clock) -> Polls:
    """A watch with 12 old unfinished jobs among so many finished ones that listing them all is dearer."""
    created = clock() - hours(20)
    ci.has(*[a_listed_job(f"open{n:02}", RUNNING, created_at=created + seconds(n)) for n in range(12)])
    ci.has(*[a_listed_job(f"done{n}", SUCCESS, created_at=created + minutes(1)) for n in range(900)])
    poll()
    ci.listed.clear()
    clock.advance(seconds(30))
    return poll


def _later(poll: Polls, clock: Clock) -> Poll:
    found = poll()
    clock.advance(seconds(30))
    return found


def test_unfinished_jobs_that_the_list_does_not_show_are_asked_for_by_id_in_tens(
    db: Database, ci: FakeCi, aged: Polls
) -> None:
    ci.has(replace(ci.jobs["open07"], state=SUCCESS))
    found = aged()
    assert [len(ids) for ids in ci.described] == [10, 2]
    assert (found.calls, found.transitions, found.deliveries) == (3, 1, 1)
    assert ("open07", RUNNING, SUCCESS) in _steps(db)


def test_what_is_done_is_asked_for_no_more(ci: FakeCi, aged: Polls) -> None:
    ci.has(*[replace(job, state=SUCCESS) for job in ci.jobs.values()])
    aged()
    ci.described.clear()
    aged()
    assert ci.described == []


def test_a_job_that_ci_no_longer_knows_is_gone_and_told_once(
    db: Database, ci: FakeCi, aged: Polls, clock: Clock
) -> None:
    ci.forgets("open03")
    assert [_later(aged, clock).deliveries for _ in range(4)] == [0, 0, 1, 0]
    assert ("open03", RUNNING, GONE) in _steps(db)
    told = row_of(db, job_table, id="open03")
    assert (told["state"], told["open"]) == (GONE, False)
    assert sum("open03" in ids for ids in ci.described) == 3


def test_a_job_that_left_the_list_is_not_gone_while_ci_knows_it(db: Database, ci: FakeCi, aged: Polls) -> None:
    aged()
    assert not any(state == GONE for _, _, state in _steps(db))


def test_what_ci_describes_unasked_is_left_alone(db: Database, ci: FakeCi, aged: Polls) -> None:
    ci.forgets("open03")
    ci.has(a_listed_job("open04", "Success", tag="Transcode", created_at=NOW - hours(20)))
    before = count(db, "job")
    aged()
    assert count(db, "job") == before


def test_a_describe_that_fails_fails_the_poll_and_is_tried_again(ci: FakeCi, aged: Polls) -> None:
    ci.refuses["describe"] = TemporaryError("timed out")
    ci.has(replace(ci.jobs["open07"], state=SUCCESS))
    assert str(aged().error) == "timed out"
    ci.refuses.clear()
    assert aged().deliveries == 1


# --- many streams -------------------------------------------------------------------------------------------

_TWO = a_book("Transcode", "Snapshot")


def test_a_tag_added_later_is_silent_about_old_jobs_and_tells_the_new_ones(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    ci.has(a_listed_job("old", RUNNING, tag="Snapshot", created_at=NOW - hours(1)))
    ci.has(_new(clock, "new", SUBMITTED, tag="Snapshot", created_at=NOW + seconds(10)))
    assert polled(_TWO).deliveries == 1
    assert {row["job_id"]: row["silent"] is None for row in rows(db, transition)} == {"old": False, "new": True}
    ci.has(a_listed_job("old", SUCCESS, tag="Snapshot", created_at=NOW - hours(1)))
    assert polled(_TWO).deliveries == 1


def test_an_outage_longer_than_the_lookback_is_covered_by_the_mark(
    db: Database, ci: FakeCi, polled: Polls, clock: Clock
) -> None:
    ci.has(*[_new(clock, f"j{day}", SUCCESS, created_at=clock() + hours(24 * day)) for day in range(7)])
    clock.advance(hours(24 * 7))
    assert polled().deliveries == 7
    assert ci.listed[-1][1] == NOW - OVERLAP


def test_a_stream_that_fails_does_not_stop_the_others(db: Database, ci: FakeCi, poll: Polls, clock: Clock) -> None:
    poll(_TWO)
    ci.refuses["Transcode"] = TemporaryError("502")
    ci.has(_new(clock, "s1", tag="Snapshot"), _new(clock, "t1"))
    found = poll(_TWO)
    assert (str(found.error), found.deliveries) == ("502", 1)
    assert row_of(db, watch, name="vod")["error"] == "Transcode: 502"
    ci.refuses["Snapshot"] = ConfigError("no such tag")
    poll(_TWO)
    assert row_of(db, watch, name="vod")["error"] == "Transcode: 502; Snapshot: no such tag"
    ci.refuses.clear()
    assert poll(_TWO).deliveries == 1
    assert row_of(db, watch, name="vod")["error"] is None


def test_a_stream_that_fails_does_not_keep_old_jobs_of_others_from_being_asked_for(ci: FakeCi, aged: Polls) -> None:
    ci.refuses["Snapshot"] = ConfigError("no such tag")
    ci.has(replace(ci.jobs["open07"], state=SUCCESS))
    found = aged(_TWO)
    assert (str(found.error), found.deliveries) == ("no such tag", 1)


@pytest.mark.parametrize("error", [AuthError("denied"), Throttled("slow down")], ids=lambda error: error.kind)
def test_what_would_fail_for_every_stream_is_asked_once(ci: FakeCi, poll: Polls, error: CiError) -> None:
    poll(_TWO)
    ci.listed.clear()
    ci.refuses = {"Transcode": error, "Snapshot": error}
    assert poll(_TWO).error is error
    assert [tag for tag, _, _ in ci.listed] == ["Transcode"]


def test_a_job_that_two_watches_show_is_told_once(db: Database, ci: FakeCi, poller: Poller, clock: Clock) -> None:
    (one,) = BOOK.watches
    book = replace(BOOK, watches=(one, replace(one, name="copy")))
    know(db, *book.notifiers.values(), watches=book.watches)
    for _ in range(2):
        for watch_ in book.watches:
            assert poller.poll_once(watch_, book)
        ci.has(_new(clock, "j1"))
    assert _told(db) == 1


# --- when ---------------------------------------------------------------------------------------------------


def _next(db: Database) -> datetime:
    return at(row_of(db, watch, name="vod")["next_poll_at"])


def test_the_next_poll_is_counted_from_the_beginning_of_this_one(
    db: Database, ci: FakeCi, poll: Polls, clock: Clock
) -> None:
    ci.before_call = lambda: clock.advance(seconds(10))
    poll()
    assert _next(db) == NOW + seconds(30)
    ci.before_call = lambda: clock.advance(seconds(90))
    poll()
    assert _next(db) == clock()  # late already: at once


def _every(interval: timedelta, *tags: str) -> Rulebook:
    book = a_book(*tags)
    return replace(book, watches=tuple(replace(one, every=interval) for one in book.watches))


@pytest.mark.parametrize(("every_s", "probed_s"), [(10, 30), (30, 30), (300, 300)])
def test_a_ci_that_answers_nothing_is_asked_by_one_call_every_half_minute_or_as_seldom_as_usual(
    db: Database, ci: FakeCi, poll: Polls, clock: Clock, every_s: int, probed_s: int
) -> None:
    book = _every(seconds(every_s), "Transcode", "Snapshot")
    poll(book)
    ci.refuses = {"Transcode": TemporaryError("502"), "Snapshot": TemporaryError("502")}
    poll(book)
    ci.listed.clear()
    for _ in range(7):
        assert _next(db) == clock() + seconds(probed_s)
        clock.now = _next(db)
        poll(book)
    assert [tag for tag, _, _ in ci.listed] == ["Transcode"] * 7


def test_when_ci_answers_again_the_poll_that_notices_sees_everything_and_the_next_is_as_usual(
    db: Database, ci: FakeCi, poll: Polls, clock: Clock
) -> None:
    book = _every(seconds(10), "Transcode", "Snapshot")
    poll(book)
    ci.refuses = {"Transcode": TemporaryError("502"), "Snapshot": TemporaryError("502")}
    for _ in range(3):
        poll(book)
    ci.refuses.clear()
    ci.has(_new(clock, "s1", tag="Snapshot"), _new(clock, "t1"))
    assert poll(book).deliveries == 2
    assert _next(db) == clock() + seconds(10)
    assert row_of(db, watch, name="vod")["failures"] == 0


def test_a_tag_that_ci_refuses_delays_no_other(db: Database, ci: FakeCi, poll: Polls, clock: Clock) -> None:
    book = _every(seconds(10), "Bogus", "Transcode")
    ci.refuses["Bogus"] = ConfigError("no such tag")
    for number in range(3):
        ci.has(_new(clock, f"t{number}"))
        poll(book)
        assert _next(db) == clock() + seconds(10)
        clock.now = _next(db)
    assert len(_steps(db)) == 3


@pytest.mark.parametrize(("asked_s", "given_s"), [(1, 30), (60, 60), (600, 600), (86_400, 600)])
def test_ci_is_given_the_time_that_it_asks_for_up_to_ten_minutes(
    db: Database, ci: FakeCi, poll: Polls, clock: Clock, asked_s: int, given_s: int
) -> None:
    ci.refuses["Transcode"] = Throttled("slow down", retry_after=seconds(asked_s))
    poll()
    assert _next(db) == clock() + seconds(given_s)


# --- taking turns -------------------------------------------------------------------------------------------


def _many(clock: Clock, tag: str, count: int) -> list[Job]:
    return [a_listed_job(f"{tag}{n:03}", tag=tag, created_at=clock() - seconds(n)) for n in range(count)]


def test_long_lists_take_turns_page_by_page_and_short_ones_come_first(ci: FakeCi, poll: Polls, clock: Clock) -> None:
    ci.page_size = 2
    ci.has(*_many(clock, "Transcode", 6), *_many(clock, "Snapshot", 4), *_many(clock, "Concat", 1))
    poll(a_book("Transcode", "Snapshot", "Concat"))
    tags = [tag for tag, _, _ in ci.listed]
    assert tags == ["Transcode", "Snapshot", "Concat", "Transcode", "Snapshot", "Transcode"]


def test_news_of_known_jobs_come_before_the_rest_of_a_long_list(
    db: Database, ci: FakeCi, poll: Polls, clock: Clock
) -> None:
    book = a_book("Transcode", "Snapshot")
    old = a_listed_job("old", RUNNING, tag="Snapshot", created_at=clock() - hours(30))
    poll(book)
    with db.write() as tx:
        snapshots.save(tx, [old], [], {}, stream=a_stream("Snapshot").key, streams=(), now=clock())
    ci.page_size = 2
    ci.has(replace(old, state=SUCCESS), *_many(clock, "Transcode", 6))
    ci.pages["Snapshot"] = [Page(jobs=(), served_at=clock())]
    ci.before_call = lambda: calls.append(len(ci.described))
    calls: list[int] = []
    poll(book)
    assert calls == [0, 0, 1, 1, 1]  # two first pages, then by id, then two more pages


class Ticking:
    """A monotonic clock by which each look takes a second."""

    seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


@pytest.fixture
def hurried(db: Database, ci: FakeCi, clock: Clock) -> Polls:
    """Polls as a worker does: what takes longer than three looks at the clock goes on in the next poll."""
    know(db, *BOOK.notifiers.values(), watches=a_book("Transcode", "Snapshot").watches)
    poller = Poller(db=db, source=ci, clock=clock, worker="w1", monotonic=Ticking())

    def polls(book: Rulebook, by: Poller = poller, *, at: int = 0) -> Poll:
        found = by.poll_once(book.watches[at], book, within=seconds(3))
        assert found is not None
        return found

    return polls


def test_a_list_that_takes_too_long_goes_on_in_the_next_poll_after_what_is_fresh(
    db: Database, ci: FakeCi, hurried: Polls, clock: Clock
) -> None:
    book = a_book("Transcode", "Snapshot", announce=True)
    ci.page_size = 1
    ci.has(*_many(clock, "Transcode", 8))
    first = hurried(book)
    assert (first.behind, first.error) == (["Transcode"], None)
    assert _next(db) == clock()
    assert _mark(db) is None
    assert _mark(db, "Snapshot") == clock()
    ci.listed.clear()
    ci.has(_new(clock, "s1", tag="Snapshot"))
    polls = 0
    while hurried(book).behind:
        polls += 1
        assert polls < 9
    assert ci.listed[0][0] == "Snapshot"
    assert [tag for tag, _, _ in ci.listed].count("Transcode") == 8 - 3  # no page is asked for again
    assert len(_steps(db)) == 9
    assert _mark(db) == NOW


def test_a_worker_keeps_the_bucket_while_a_list_goes_on(
    ci: FakeCi, hurried: Polls, rival: Poller, clock: Clock
) -> None:
    ci.page_size = 1
    ci.has(*_many(clock, "Transcode", 8))
    assert hurried(BOOK).behind
    assert rival.poll_once(watch_of(BOOK), BOOK) is None
    while hurried(BOOK).behind:
        pass
    assert rival.poll_once(watch_of(BOOK), BOOK) is not None


def test_a_list_that_goes_on_makes_way_for_another_watch_of_the_bucket(
    db: Database, ci: FakeCi, hurried: Polls, clock: Clock
) -> None:
    (one,) = BOOK.watches
    other = a_book("Snapshot").watches[0]
    book = replace(BOOK, watches=(one, replace(other, name="other")))
    know(db, watches=book.watches)
    ci.page_size = 1
    ci.has(*_many(clock, "Transcode", 8))
    assert hurried(book).behind  # "other" has never been polled
    assert [tag for tag, _, _ in ci.listed] == ["Transcode"]
    assert not hurried(book, at=1).behind
    hurried(book)
    assert len(ci.listed) > 3


def test_what_another_worker_has_listed_meanwhile_is_not_listed_on(
    db: Database, ci: FakeCi, hurried: Polls, rival: Poller, clock: Clock
) -> None:
    ci.page_size = 1
    ci.has(*_many(clock, "Transcode", 8))
    assert hurried(BOOK).behind
    clock.advance(LEASE + seconds(1))
    assert rival.poll_once(watch_of(BOOK), BOOK)
    clock.advance(LEASE + seconds(1))
    ci.listed.clear()
    hurried(BOOK)
    assert ci.listed[0][2] is None  # it begins anew, from the other's mark


def test_a_failed_poll_says_why_and_remembers_the_last_good_one(db: Database, ci: FakeCi, polled: Polls) -> None:
    ci.refuses["Transcode"] = AuthError("denied", advice="check the keys")
    polled()
    told = row_of(db, watch, name="vod")
    assert (told["error"], told["failures"], at(told["ok_at"])) == ("denied; check the keys", 1, NOW)


def test_a_watch_is_due_when_its_time_has_come(poller: Poller, polled: Polls, clock: Clock) -> None:
    clock.now = NOW
    assert poller.due(BOOK.watches) == []
    clock.advance(seconds(29.4))
    assert poller.due(BOOK.watches) == []
    assert poller.due(BOOK.watches, early=seconds(0.6)) == list(BOOK.watches)
    clock.advance(seconds(0.6))
    assert poller.due(BOOK.watches) == list(BOOK.watches)


def test_a_paused_watch_is_never_due(db: Database, poller: Poller, polled: Polls, clock: Clock) -> None:
    clock.advance(hours(1))
    with db.write() as tx:
        leases.set_watch(tx, "vod", paused=True)
    assert poller.due(BOOK.watches) == []


def test_a_watch_is_due_when_the_clock_was_set_back_far(poller: Poller, polled: Polls, clock: Clock) -> None:
    clock.now = NOW - hours(24 * 30)
    assert poller.due(BOOK.watches) == list(BOOK.watches)


def test_a_long_wish_of_ci_is_not_taken_for_a_clock_that_was_set_back(
    ci: FakeCi, poller: Poller, poll: Polls, clock: Clock
) -> None:
    ci.refuses["Transcode"] = Throttled("slow down", retry_after=hours(24 * 7))
    poll()
    assert poller.due(BOOK.watches) == []
    clock.advance(minutes(10))
    assert poller.due(BOOK.watches) == list(BOOK.watches)  # no wish is longer than ten minutes


# --- two at once --------------------------------------------------------------------------------------------


@pytest.fixture
def rival(db_url: str, opened: Opener, ci: FakeCi, clock: Clock) -> Poller:
    return Poller(db=opened(db_url), source=FakeCi(clock, jobs=ci.jobs), clock=clock, worker="w2")


def test_of_two_pollers_at_one_bucket_one_polls(ci: FakeCi, poll: Polls, rival: Poller) -> None:
    refused: list[object] = []
    ci.before_call = lambda: refused.append(rival.poll_once(watch_of(BOOK), BOOK))
    assert poll().error is None
    assert refused == [None]
    assert rival.poll_once(watch_of(BOOK), BOOK) is not None  # afterwards it may


def test_a_poller_that_was_away_too_long_stores_nothing(
    db: Database, ci: FakeCi, polled: Polls, poller: Poller, rival: Poller, clock: Clock
) -> None:
    ci.has(_new(clock, "j1", RUNNING))

    def away() -> None:
        ci.before_call = lambda: None
        clock.advance(LEASE + seconds(1))
        ci.has(_new(clock, "j1", SUCCESS, created_at=NOW))
        found = rival.poll_once(watch_of(BOOK), BOOK)
        assert found is not None
        ci.has(_new(clock, "j1", RUNNING, created_at=NOW), _new(clock, "j2", RUNNING, created_at=NOW))

    ci.before_call = away
    assert poller.poll_once(watch_of(BOOK), BOOK) is None
    assert _steps(db) == [("j1", "new", SUCCESS)]


def test_a_poller_whose_bucket_another_has_taken_stores_nothing(
    db: Database, ci: FakeCi, polled: Polls, poller: Poller, clock: Clock
) -> None:
    ci.has(_new(clock, "j1", RUNNING))

    def taken() -> None:
        clock.advance(LEASE + seconds(1))
        with db.write() as tx:
            assert leases.acquire(tx, BUCKET, "w2", now=clock())

    before = rows(db, watch), _mark(db)
    ci.before_call = taken
    assert poller.poll_once(watch_of(BOOK), BOOK) is None
    assert _steps(db) == []
    assert (rows(db, watch), _mark(db)) == before
    assert row_of(db, lease, name=BUCKET)["token"] == "w2"  # and is left what it has


def test_a_poll_stops_between_two_calls_when_the_process_stops(
    db: Database, ci: FakeCi, clock: Clock, poll: Polls
) -> None:
    poll()
    ci.page_size = 1
    ci.has(_new(clock, "j1"), _new(clock, "j2"))
    stopping = Poller(db=db, source=ci, clock=clock, worker="w1", halted=lambda: len(ci.listed) > 1)
    assert stopping.poll_once(watch_of(BOOK), BOOK) is None
    assert (count(db, "job"), _mark(db)) == (1, NOW)
    assert row_of(db, lease, name=BUCKET)["token"] is None


def test_a_source_that_is_halted_while_it_waits_gives_the_poll_up(ci: FakeCi, polled: Polls, poller: Poller) -> None:
    def halt() -> None:
        raise Halted

    ci.before_call = halt
    assert poller.poll_once(watch_of(BOOK), BOOK) is None


# --- rules that change -----------------------------------------------------------------------------------------

_QUEUE = "p2242ab62c7c94486915508540933a2c6"
_PLAIN = RULES.format(tags='"Transcode"', cms="")
_SECOND = f'''
[[watch]]
name = "second"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
queues = ["{_QUEUE}"]
'''


def _in_force(db: Database, text: str) -> Rulebook:
    book = read(text, {})
    parts.sync(db, book)
    return book


def test_a_new_watch_that_overlaps_does_not_keep_silent_about_jobs_that_nobody_has_told(
    db: Database, clock: Clock, ci: FakeCi, poll: Polls, poller: Poller
) -> None:
    poll()
    clock.advance(seconds(40))
    ci.has(_new(clock, "j1", queue=_QUEUE))
    clock.advance(seconds(10))
    book = _in_force(db, _PLAIN + _SECOND)
    for one in sorted(book.watches, key=lambda one: one.name != "second"):
        poller.poll_once(one, book)
    assert _told(db) == 1


def test_unfinished_jobs_are_followed_on_when_the_queues_of_their_watch_change(
    db: Database, clock: Clock, ci: FakeCi, poll: Polls
) -> None:
    job = _new(clock, "j1", RUNNING, queue=_QUEUE)
    ci.has(job)
    poll()
    for _ in range(4):
        clock.advance(hours(9))
        poll()
    book = _in_force(db, _PLAIN.replace('every = "30s"', f'every = "30s"\nqueues = ["{_QUEUE}"]'))
    ci.has(replace(job, state=SUCCESS))
    clock.advance(seconds(30))
    poll(book)
    assert _steps(db)[-1] == ("j1", RUNNING, SUCCESS)
    assert _told(db) == 1


def test_a_first_poll_that_fails_makes_no_job_born_later_silent(
    db: Database, clock: Clock, ci: FakeCi, poll: Polls
) -> None:
    ci.has(_new(clock, "before"))
    clock.advance(minutes(1))
    ci.refuses["Transcode"] = TemporaryError("500")
    poll()
    clock.advance(minutes(30))
    ci.has(_new(clock, "before", created_at=clock() - minutes(31)), _new(clock, "later"))
    clock.advance(minutes(30))
    ci.refuses.clear()
    poll()
    silent = {row["job_id"]: row["silent"] is not None for row in rows(db, transition)}
    assert silent == {"before": True, "later": False}


def test_an_interval_that_was_shortened_counts_at_once(db: Database, clock: Clock, poll: Polls, poller: Poller) -> None:
    slow = _in_force(db, _PLAIN.replace('every = "30s"', 'every = "1h"'))
    poll(slow)
    clock.advance(seconds(31))
    assert poller.due(slow.watches) == []
    quick = _in_force(db, _PLAIN)
    assert poller.due(quick.watches) == list(quick.watches)


@pytest.mark.parametrize("before", [1, 2])
def test_a_poll_that_is_under_way_when_other_rules_come_into_force_stores_nothing_more(
    db: Database, clock: Clock, ci: FakeCi, poll: Polls, poller: Poller, before: int
) -> None:
    """Whether the first or the second page is on its way."""
    book = _in_force(db, _PLAIN)
    poll(book)
    clock.advance(seconds(10))
    for number in range(3):
        ci.has(_new(clock, f"j{number}"))
    ci.page_size, asked = 2, ci.calls()

    def change() -> None:
        if ci.calls() == asked + before:
            _in_force(db, _PLAIN + "# changed")

    ci.before_call = change
    clock.advance(seconds(30))
    assert poller.poll_once(watch_of(book), book) is None
    assert _told(db) == (before - 1) * 2
    ci.before_call = lambda: None
    assert poller.poll_once(watch_of(book), book) is None  # nor does it begin another one
    poll(_in_force(db, _PLAIN + "# changed"))
    assert _told(db) == 3


def test_level_rules_are_not_asked_by_rules_that_are_not_in_force(
    db: Database, clock: Clock, ci: FakeCi, poll: Polls, poller: Poller
) -> None:
    level = '\n[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nnotify = "cms"\n'
    book = _in_force(db, _PLAIN + level)
    poll(book)
    clock.advance(seconds(10))
    ci.has(_new(clock, "j1", RUNNING))
    clock.advance(seconds(30))
    poll(book)
    told = _told(db)
    clock.advance(hours(1))
    other = _in_force(db, _PLAIN)
    assert poller.poll_once(watch_of(book), book) is None
    assert _told(db) == told
    poll(other)
    assert _told(db) == told
