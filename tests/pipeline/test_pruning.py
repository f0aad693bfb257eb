"""What was pruned is not told again, whatever CI's list still shows; and nothing is pruned that was never told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from bridge.collect.errors import TemporaryError
from bridge.decide.changes.scan import OVERLAP
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import RUNNING, SUCCESS, Sent, Watch
from bridge.pipeline.poll import Halted, Poller
from bridge.pipeline.poll_context import Poll
from bridge.pipeline.prune import Pruner
from bridge.record import pruning
from bridge.record.database import Database
from bridge.record.polling import leases, snapshots
from bridge.record.schema import delivery, job, transition, worker
from tests.conftest import on_both
from tests.record.test_pruning import days
from tests.support.fakes import FakeCi, a_book, count, watch_of
from tests.support.records import (
    NOW,
    Clock,
    a_listed_job,
    a_message,
    a_stream,
    claim,
    ended,
    hours,
    know,
    minutes,
    new_delivery,
    put,
    rows,
    seconds,
    settle,
)

BOOK = a_book()
PRUNED = "older than what is kept"

Polls = Callable[..., Poll]
Prunes = Callable[..., dict[str, int]]


@pytest.fixture
def naps() -> list[float]:
    return []


@pytest.fixture
def pruner(db: Database, clock: Clock, naps: list[float]) -> Pruner:
    return Pruner(db=db, clock=clock, worker="w1", nap=naps.append)


@pytest.fixture
def prune(pruner: Pruner) -> Prunes:
    return lambda book=BOOK: dict(pruner.prune(book))


@pytest.fixture
def poll(poller: Poller, db: Database) -> Polls:
    """Polls every watch of a book, and returns what came of the first."""

    def polls(book: Rulebook = BOOK) -> Poll:
        know(db, *book.notifiers.values(), watches=book.watches)
        found = [poller.poll_once(watch, book) for watch in book.watches]
        assert found[0] is not None
        return found[0]

    return polls


@pytest.fixture
def told(db: Database, poll: Polls, ci: FakeCi, clock: Clock) -> Callable[..., None]:
    """After a first poll, sees new jobs that have ended, and tells them to `cms`."""

    def tells(*ids: str, book: Rulebook = BOOK, **facts: Any) -> None:
        poll(book)
        clock.advance(minutes(10))
        ci.has(*(a_listed_job(id_, SUCCESS, **{"created_at": clock(), **facts}) for id_ in ids))
        clock.advance(seconds(30))
        poll(book)
        settle(db, *(ended(one, Sent()) for one in claim(db, now=clock())), now=clock())

    return tells


def _ids(db: Database) -> list[str]:
    return sorted(row["id"] for row in rows(db, job))


def _silent(db: Database) -> dict[str, str | None]:
    return {row["job_id"]: row["silent"] for row in rows(db, transition)}


def _since(ci: FakeCi) -> datetime:
    """From when on the last list went."""
    since = ci.listed[-1][1]
    assert since is not None
    return since


def _with(book: Rulebook, *watches: Watch, **facts: Any) -> Rulebook:
    return replace(book, watches=watches or book.watches, **facts)


def _other(*tags: str, name: str = "other", **facts: Any) -> Watch:
    """Another watch of the same bucket."""
    streams = tuple(a_stream(tag, **facts) for tag in tags or ("Transcode",))
    return replace(watch_of(BOOK), name=name, streams=streams)


# --- what goes ----------------------------------------------------------------------------------------------


@on_both
def test_what_has_ended_goes_after_its_time_and_a_line_says_how_much(
    db: Database, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told("j1", "j2")
    assert prune() == {}
    clock.advance(days(31))
    poll()
    with caplog.at_level(logging.INFO):
        assert prune() == {"deliveries": 2, "jobs": 2}
    assert [(line.message, line.deliveries, line.jobs) for line in caplog.records] == [("pruned", 2, 2)]  # type: ignore[attr-defined]
    assert [count(db, table) for table in ("job", "transition", "delivery", "message", "attempt")] == [0] * 5


def test_nothing_goes_while_a_worker_of_before_there_was_pruning_is_heard_of(
    db: Database, told: Callable[..., None], prune: Prunes, clock: Clock
) -> None:
    told("j1")
    clock.advance(days(40))
    with db.write() as tx:
        leases.enlist(tx, "new", machine="m", pid=1, now=clock())
        leases.enlist(tx, "old", machine="m", pid=2, now=clock())
        tx.execute(update(worker).where(worker.c.id == "old").values(revision="0001"))
    assert prune() == {}
    clock.advance(hours(2))
    assert prune() != {}


def test_what_the_rules_keep_longer_stays(told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock) -> None:
    longer = _with(BOOK, keep=days(60), keep_dead=days(120))
    told("j1", book=longer)
    clock.advance(days(59))
    poll(longer)
    assert prune(longer) == {}
    clock.advance(days(2))
    poll(longer)
    assert prune(longer) == {"deliveries": 1, "jobs": 1}


def test_nothing_is_told_or_stored_again_by_the_polls_that_follow(
    db: Database, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    told("j1")
    for _ in range(20):
        clock.advance(days(4))
        assert poll().transitions == 0
        prune()
    assert (_ids(db), count(db, "delivery")) == ([], 0)


# --- an unfinished job from long ago --------------------------------------------------------------------------


@on_both
def test_a_list_does_not_go_back_behind_what_was_pruned_for_an_old_unfinished_job(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    ci.has(a_listed_job("old", RUNNING, created_at=clock() - hours(1)))
    told("j1")
    clock.advance(days(31))
    poll()
    assert prune() == {"deliveries": 1, "jobs": 1}
    clock.advance(minutes(1))
    assert poll().transitions == 0
    assert _since(ci) == clock() - minutes(1) - OVERLAP
    assert ci.described[-1] == ("old",)
    assert _ids(db) == ["old"]


def test_an_old_unfinished_job_is_followed_to_its_end_and_told(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    ci.has(a_listed_job("old", RUNNING, created_at=clock() - hours(1)))
    told("j1")
    clock.advance(days(100))
    poll()
    prune()
    ci.has(a_listed_job("old", SUCCESS, created_at=NOW - hours(1)))
    assert poll().deliveries == 1
    assert [row["state"] for row in rows(db, transition) if row["job_id"] == "old"] == [RUNNING, SUCCESS]
    assert prune() == {}


def test_a_list_still_goes_back_to_an_unfinished_job_that_is_younger_than_what_was_pruned(
    ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    told("j1")
    clock.advance(days(31))
    young = clock()
    ci.has(a_listed_job("young", RUNNING, created_at=young))
    poll()
    prune()
    clock.advance(minutes(10))
    poll()
    clock.advance(minutes(10))
    poll()
    assert _since(ci) == young - seconds(1)


@on_both
def test_a_job_that_is_pruned_while_a_list_shows_it_is_not_told_again(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    ci.has(a_listed_job("open", RUNNING, created_at=clock()))
    told("j1")
    clock.advance(days(31))
    poll()
    clock.advance(minutes(1))
    # Nothing was pruned when this list began, so it goes back to the unfinished job.
    ci.before_call = prune
    assert poll().deliveries == 0
    assert _since(ci) == NOW - seconds(1)
    assert _silent(db)["j1"] == PRUNED


# --- lists that go far back -----------------------------------------------------------------------------------


def test_after_forty_days_off_all_is_told_that_came_meanwhile_and_nothing_again(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    told("before")
    last = clock()
    clock.advance(days(40))
    ci.has(a_listed_job("meanwhile", SUCCESS, created_at=last + minutes(1)))
    prune()
    found = poll()
    assert (found.transitions, found.deliveries) == (1, 1)
    assert _silent(db)["meanwhile"] is None
    prune()
    assert _ids(db) == ["meanwhile"]
    clock.advance(minutes(1))
    assert poll().transitions == 0


def test_what_is_seen_late_is_kept_as_long_as_what_is_seen_at_once(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    told("before")
    clock.advance(days(40))
    ci.has(a_listed_job("meanwhile", SUCCESS, created_at=clock() - days(39)))
    poll()
    clock.advance(days(29))
    poll()
    prune()
    assert _ids(db) == ["meanwhile"]


def test_a_job_within_the_overlap_of_the_last_list_stays(
    db: Database, told: Callable[..., None], prune: Prunes, poll: Polls, clock: Clock
) -> None:
    told("j1")  # half a minute before the last complete listing began
    clock.advance(days(40))
    assert prune() == {"deliveries": 1}
    assert poll().transitions == 0
    assert prune() == {"jobs": 1}


@pytest.mark.parametrize("ahead", [days(-2), minutes(-20), minutes(20), days(2)])
def test_nothing_is_told_again_when_the_clock_of_ci_is_another(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock, ahead: timedelta
) -> None:
    theirs = Clock(clock() + ahead)
    ci.clock = theirs
    poll()
    clock.advance(minutes(10))
    theirs.advance(minutes(10))
    ci.has(a_listed_job("open", RUNNING, created_at=theirs()), a_listed_job("j1", SUCCESS, created_at=theirs()))
    for _ in range(12):
        found = poll()
        prune()
        clock.advance(days(5))
        theirs.advance(days(5))
    assert found.transitions == 0
    assert [row["job_id"] for row in rows(db, transition)] == ["open"]


@on_both
def test_a_job_without_a_creation_time_goes_by_when_it_was_first_seen(
    db: Database, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock, ci: FakeCi
) -> None:
    told("j1", created_at=None)
    clock.advance(days(29))
    poll()
    assert prune() == {}
    ci.forgets("j1")
    clock.advance(days(2))
    poll()
    assert prune() == {"deliveries": 1, "jobs": 1}


# --- other streams of the bucket ------------------------------------------------------------------------------


def test_a_stream_added_later_announces_what_its_first_list_finds(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    told("j1")
    clock.advance(days(31))
    poll()
    prune()
    ci.has(a_listed_job("s1", SUCCESS, tag="Snapshot", created_at=clock() - days(30)))
    book = a_book("Transcode", "Snapshot", announce=True)
    watch = replace(watch_of(book), lookback=days(30))
    assert poll(_with(book, watch)).deliveries == 1
    assert _silent(db) == {"s1": None}


def test_a_stream_added_later_tells_nothing_again_that_another_one_told(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    told("j1")
    clock.advance(days(31))
    poll()
    prune()
    longer = _with(a_book(announce=True), keep=days(90))
    wide = replace(_other(queue_type="Transcoding"), lookback=days(60), announce_first=True)
    book = _with(longer, watch_of(longer), wide)
    poll(book)
    assert (_silent(db), count(db, "delivery")) == ({"j1": PRUNED}, 0)
    # What was found again is kept as long as anything seen now, and the horizon has not moved back.
    prune(book)
    assert _ids(db) == ["j1"]
    clock.advance(days(31))
    poll()
    assert prune() == {"jobs": 1}


@on_both
def test_nothing_goes_that_a_paused_watch_of_the_bucket_has_still_to_show(
    db: Database, ci: FakeCi, told: Callable[..., None], poller: Poller, prune: Prunes, clock: Clock
) -> None:
    other = _other(queue_type="Transcoding")
    book = _with(BOOK, watch_of(BOOK), other)
    told("j1", book=book)
    clock.advance(minutes(10))
    ci.has(a_listed_job("j2", SUCCESS, created_at=clock()))
    for _ in range(3):
        poller.poll_once(watch_of(book), book)
        clock.advance(days(15))
    prune(book)
    assert _ids(db) == ["j1", "j2"]
    found = poller.poll_once(other, book)
    assert found is not None
    assert found.transitions == 0


def test_a_stream_that_was_never_listed_whole_holds_what_came_since_it_was_asked_for(
    db: Database, ci: FakeCi, told: Callable[..., None], poller: Poller, prune: Prunes, clock: Clock
) -> None:
    told("j1")
    clock.advance(minutes(10))
    other = _other("Snapshot")
    book = _with(BOOK, watch_of(BOOK), other)
    know(db, watches=book.watches)
    ci.refuses["Snapshot"] = TemporaryError("CI is ill", advice="wait")
    poller.poll_once(other, book)
    ci.has(a_listed_job("s1", SUCCESS, tag="Snapshot", created_at=clock() + minutes(1)))
    ci.has(a_listed_job("j2", SUCCESS, created_at=clock() + minutes(1)))
    clock.advance(minutes(2))
    poller.poll_once(watch_of(book), book)
    clock.advance(days(40))
    poller.poll_once(watch_of(book), book)
    prune(book)
    assert _ids(db) == ["j2"]
    ci.refuses.clear()
    found = poller.poll_once(other, book)
    assert found is not None
    assert (found.deliveries, _silent(db)["s1"]) == (1, None)


def test_a_stream_that_comes_back_into_the_rules_tells_nothing_again(
    db: Database, ci: FakeCi, told: Callable[..., None], poll: Polls, prune: Prunes, clock: Clock
) -> None:
    both = a_book("Transcode", "Snapshot")
    for id_ in ("s1", "s2"):
        told(id_, tag="Snapshot", book=both)
    for _ in range(2):  # without it meanwhile
        clock.advance(days(20))
        poll()
    assert prune() == {"deliveries": 2, "jobs": 2}
    ci.has(a_listed_job("s3", SUCCESS, tag="Snapshot", created_at=clock() - days(1)))
    assert poll(both).deliveries == 1
    assert _silent(db) == {"s2": PRUNED, "s3": None}


# --- how it goes ----------------------------------------------------------------------------------------------


def _fill(db: Database, how_many: int) -> None:
    with db.write() as tx:
        jobs = [a_listed_job(f"j{n}", SUCCESS) for n in range(how_many)]
        snapshots.save(tx, jobs, [], {}, stream="s", streams=(), now=NOW)


@on_both
def test_it_pauses_before_each_batch_and_ends_when_the_worker_stops(
    db: Database, clock: Clock, naps: list[float]
) -> None:
    _fill(db, 3 * pruning.AT_ONCE)
    clock.advance(days(31))

    def nap(seconds_: float) -> None:
        naps.append(seconds_)
        if len(naps) == 4:
            raise Halted

    halting = Pruner(db=db, clock=clock, worker="w1", nap=nap)
    assert halting.prune(BOOK) == {"jobs": 2 * pruning.AT_ONCE}
    assert naps[0] == 0  # there was no delivery to prune
    assert min(naps[1:]) > 0
    assert count(db, "job") == pruning.AT_ONCE
    with db.write() as tx:
        assert pruning.acquire(tx, "w2", now=clock())


@on_both
def test_another_worker_goes_on_when_this_one_has_lost_its_lease(db: Database, clock: Clock) -> None:
    _fill(db, 2 * pruning.AT_ONCE)
    clock.advance(days(31))

    def away(_: float) -> None:
        if count(db, "job") == pruning.AT_ONCE:
            clock.advance(2 * leases.LEASE)
            with db.write() as tx:
                assert pruning.acquire(tx, "w2", now=clock())

    slow = Pruner(db=db, clock=clock, worker="w1", nap=away)
    assert slow.prune(BOOK) == {"jobs": pruning.AT_ONCE}
    assert slow.prune(BOOK) == {}
    with db.write() as tx:
        leases.release(tx, pruning.LEASE, "w2")
    assert Pruner(db=db, clock=clock, worker="w3", nap=lambda _: None).prune(BOOK) == {"jobs": pruning.AT_ONCE}


# --- what older versions did not write ------------------------------------------------------------------------


def _without_rules(db: Database, how_many: int) -> None:
    put(db, *(new_delivery(f"d{n}", message=a_message(f"m{n}", rule="r")) for n in range(how_many)))
    with db.write() as tx:
        tx.execute(update(delivery).values(rule=None))


def _unsaid(db: Database) -> list[str]:
    return [row["id"] for row in rows(db, delivery) if row["rule"] is None]


@on_both
def test_the_rules_of_deliveries_are_written_down_with_a_pause_before_each_batch(
    db: Database, prune: Prunes, naps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    count_ = pruning.RULES_AT_ONCE + 10
    _without_rules(db, count_)
    with caplog.at_level(logging.INFO):
        assert prune() == {}
    assert _unsaid(db) == []
    assert [nap > 0 for nap in naps[-4:]] == [False, True, True, True]  # the others' walks, compacting, two batches
    said = [(line.message, line.deliveries) for line in caplog.records]  # type: ignore[attr-defined]
    assert said == [("wrote down the rules of deliveries", count_)]


@on_both
def test_a_run_that_ends_early_has_written_the_newest_rules_and_the_next_one_goes_on(
    db: Database, clock: Clock
) -> None:
    _without_rules(db, 2 * pruning.RULES_AT_ONCE + 10)
    rest = [f"d{n}" for n in range(pruning.RULES_AT_ONCE + 10)]
    halts = [Halted()]

    def nap(_: float) -> None:
        if halts and len(_unsaid(db)) == len(rest):
            raise halts.pop()

    halting = Pruner(db=db, clock=clock, worker="w1", nap=nap)
    halting.prune(BOOK)
    assert _unsaid(db) == rest
    halting.prune(BOOK)
    assert _unsaid(db) == []


def test_rules_are_written_down_though_a_worker_of_an_older_version_is_about(
    db: Database, told: Callable[..., None], prune: Prunes, clock: Clock
) -> None:
    told("j1")
    clock.advance(days(40))
    _without_rules(db, 3)
    with db.write() as tx:
        leases.enlist(tx, "old", machine="m", pid=2, now=clock())
        tx.execute(update(worker).values(revision="0003"))
    assert prune() == {}
    assert _unsaid(db) == []
    with db.write() as tx:
        tx.execute(update(delivery).values(rule=None))  # the older one writes again
    prune()
    assert _unsaid(db) == []


def test_rules_are_left_to_the_worker_that_prunes(db: Database, prune: Prunes, clock: Clock) -> None:
    _without_rules(db, 3)
    with db.write() as tx:
        assert pruning.acquire(tx, "w2", now=clock())
    prune()
    assert len(_unsaid(db)) == 3
