"""`retry`: only time in which a delivery was tried, or stood behind a probe, and in which the bridge ran."""

from __future__ import annotations

from datetime import datetime

import pytest

from bridge.model import Delivery, Rejected, RetryLater
from bridge.record.database import Database, at
from bridge.record.outbox import entries
from bridge.record.queries import lists
from bridge.record.schema import DEAD, WAITING, deliveries, notifiers
from tests.conftest import on_both
from tests.support.fakes import notify_all
from tests.support.nouns import hours, minutes, new_delivery, seconds
from tests.support.records import put, rows
from tests.support.rig import Rig

RETRY = seconds(45)
NO_ANSWER, BUSY = RetryLater("could not connect"), RetryLater("answered 503")


@pytest.fixture
def rig(db: Database) -> Rig:
    """Whose `cms` has a retry time of 45 s, and does not answer."""
    rig = Rig(db, given=notify_all().replace('retry = "1h"\nmax_in_flight = 32', 'retry = "45s"'))
    rig.transport.answer = lambda _: NO_ANSWER
    return rig


def put_new(rig: Rig, how_many: int) -> None:
    put(rig.db, *[new_delivery(f"d{n}") for n in range(how_many)])


def states(rig: Rig) -> set[int]:
    return {*rig.stored_states()}


@on_both
@pytest.mark.parametrize(("waiting", "within_s"), [(1, 47), (4, 47), (100, 52)])
def test_what_a_dead_receiver_never_took_is_dead_when_its_time_is_over_whatever_the_breaker_waits_for(
    rig: Rig, waiting: int, within_s: int
) -> None:
    put_new(rig, waiting)
    rig.lives(RETRY - seconds(2))
    assert WAITING in states(rig)
    # Those that only probes stood for count from the first of them, which comes after 5 s.
    rig.lives(seconds(within_s) - RETRY + seconds(2))
    assert states(rig) == {DEAD}


@on_both
def test_a_notifier_left_alone_for_long_is_tried_in_time_for_each_delivery_to_have_two_attempts(rig: Rig) -> None:
    tried: list[datetime] = []

    def refuse(_: Delivery) -> RetryLater:
        tried.append(rig.clock())
        return NO_ANSWER

    rig.transport.answer = refuse
    put(rig.db, *[new_delivery(f"old{n}") for n in range(20)])
    rig.lives(minutes(3))  # by now it is left alone for a minute at a time
    made: dict[str, datetime] = {}
    for n in range(12):  # whatever the place in that minute, as the probe itself or behind one
        made[f"d{n}"] = rig.clock()
        put(rig.db, new_delivery(f"d{n}", key=f"j{n}" if n % 2 else "j0"), now=rig.clock())
        rig.lives(seconds(17), step=seconds(1))
    rig.lives(seconds(100), step=seconds(1))
    ended = {row["id"]: at(row["ended_at"]) for row in rows(rig.db, deliveries) if row["state"] == DEAD}
    for name, since in made.items():
        counted = [moment for moment in tried if since < moment <= ended[name]]  # each stands for all that is due
        assert len(counted) >= 2, name
        assert ended[name] - counted[0] <= RETRY + seconds(2), name
    assert len(tried) < 60  # it is left alone all the same


@on_both
def test_a_clock_that_leaps_there_and_back_uses_no_retry_time_up(rig: Rig) -> None:
    rig.transport.answer = lambda _: BUSY
    put_new(rig, 3)
    rig.lives(seconds(10))
    rig.leaps(hours(25))
    rig.lives(seconds(15))
    rig.leaps(-hours(25))
    rig.lives(seconds(10))
    assert states(rig) == {WAITING}
    rig.lives(seconds(40))  # due_at is what the worker sets back
    assert all(row["attempts"] >= 2 for row in rows(rig.db, deliveries))


def test_a_stop_of_the_bridge_uses_no_retry_time_up(rig: Rig) -> None:
    rig.transport.answer = lambda _: BUSY
    put_new(rig, 1)
    rig.lives(seconds(3))
    rig.clock.advance(hours(3))
    rig.lives(seconds(1))
    assert states(rig) == {WAITING}


def test_a_place_in_our_own_queue_uses_no_retry_time_up(rig: Rig) -> None:
    rig.transport.status, rig.transport.answer = lambda _: 500, lambda _: RetryLater("answered 500")
    with rig.db.write() as tx:
        tx.execute(notifiers.update().values(interval_ms=20_000, burst=1))
    put_new(rig, 4)
    rig.lives(seconds(210))
    assert states(rig) == {WAITING}  # each had its turn every 80 s, and 35 s of pauses at most
    assert [row["attempts"] for row in rows(rig.db, deliveries)] == [3, 3, 3, 2]
    rig.lives(minutes(4))
    assert states(rig) == {DEAD}


def test_retry_after_prolongs_it_to_three_times_at_most(rig: Rig) -> None:
    rig.transport.status = lambda _: 503
    rig.transport.answer = lambda _: RetryLater("answered 503", after=hours(24), whole_notifier=True)
    put_new(rig, 1)
    rig.lives(3 * RETRY - seconds(2))
    assert states(rig) == {WAITING}
    rig.lives(seconds(5))
    assert states(rig) == {DEAD}
    assert len(rig.transport.begun) == 2


def test_a_receiver_that_comes_back_and_asks_for_time_is_given_it(rig: Rig) -> None:
    put_new(rig, 30)
    rig.lives(seconds(20))
    rig.transport.status = lambda _: 503
    rig.transport.answer = lambda _: RetryLater("answered 503", after=seconds(60), whole_notifier=True)
    rig.lives(seconds(20))
    begun = len(rig.transport.begun)
    rig.lives(seconds(30))
    assert len(rig.transport.begun) == begun


def test_a_notifier_that_is_paused_uses_no_retry_time_up(rig: Rig) -> None:
    put_new(rig, 1)
    rig.lives(seconds(7))
    rig.transport.answer = lambda _: Rejected("gone", pause=True)
    rig.lives(minutes(5))
    with rig.db.write() as tx:
        entries.resume(tx, "cms")
    rig.transport.answer = lambda _: NO_ANSWER
    rig.lives(seconds(2))
    assert states(rig) == {WAITING}


def test_while_the_clock_is_doubted_nothing_is_given_up_and_all_is_tried_on(rig: Rig) -> None:
    faults = ["the clock was set"]
    rig.dispatcher = rig.new_dispatcher(clock_fault=lambda _: next(iter(faults), None))
    put_new(rig, 30)
    rig.lives(minutes(5))
    assert states(rig) == {WAITING}
    faults.clear()
    rig.lives(seconds(75))
    assert DEAD in states(rig)


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_resent_has_its_whole_time_again(rig: Rig, refused: bool) -> None:
    if refused:
        rig.transport.answer = lambda _: Rejected("blocked")
    put_new(rig, 1)
    rig.lives(minutes(1))
    assert states(rig) == {DEAD}
    with rig.db.write() as tx:
        entries.redrive(tx, lists.numbers_of(["d0"]), now=rig.clock())
    rig.transport.answer = lambda _: NO_ANSWER
    rig.lives(RETRY - seconds(2))
    assert states(rig) == {WAITING}
