"""`retry`: only time in which a delivery was tried, or stood behind a probe, and in which the bridge ran."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from bridge.model import Delivery, Notifier, Rejected, RetryLater
from bridge.pipeline.dispatch import Dispatcher
from bridge.record.database import Database, at
from bridge.record.outbox import entries
from bridge.record.queries import lists
from bridge.record.schema import DEAD, WAITING, delivery, notifier
from tests.conftest import on_both
from tests.support.fakes import FakeTransport, a_book
from tests.support.records import Clock, hours, know, minutes, new_delivery, put, rows, seconds

RETRY = seconds(45)


class Time:
    """The clock and the monotonic clock, which goes on when the other one is set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.s = 1000.0

    def passes(self, dispatcher: Dispatcher, time: timedelta) -> None:
        for _ in range(int(time.total_seconds())):
            self.s += 1
            self._clock.advance(seconds(1))
            while dispatcher.turn() or dispatcher.unfinished:
                pass


@pytest.fixture
def time(clock: Clock) -> Time:
    return Time(clock)


@pytest.fixture
def faults() -> list[str]:
    """Why the clock is doubted."""
    return []


@pytest.fixture
def dispatcher(db: Database, transport: FakeTransport, clock: Clock, time: Time, faults: list[str]) -> Dispatcher:
    book = a_book(cms="").notifiers
    cms = Notifier(name="cms", retry=RETRY)
    know(db, cms, "pager")
    rules = a_book()
    object.__setattr__(rules, "notifiers", book | {"cms": cms})
    return Dispatcher(
        db=db,
        transport=transport,
        book=lambda: rules,
        clock=clock,
        chance=lambda: 0.0,
        worker="w1",
        monotonic=lambda: time.s,
        clock_fault=lambda _: next(iter(faults), None),
    )


def states(db: Database) -> set[int]:
    return {row["state"] for row in rows(db, delivery)}


@on_both
@pytest.mark.parametrize(("waiting", "within_s"), [(1, 47), (4, 47), (100, 52)])
def test_what_a_dead_receiver_never_took_is_dead_when_its_time_is_over_whatever_the_breaker_waits_for(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time, waiting: int, within_s: int
) -> None:
    transport.answer = lambda _: RetryLater("could not connect")
    put(db, *[new_delivery(f"d{n}") for n in range(waiting)])
    time.passes(dispatcher, RETRY - seconds(2))
    assert WAITING in states(db)
    # Those that only probes stood for count from the first of them, which comes after 5 s.
    time.passes(dispatcher, seconds(within_s) - RETRY + seconds(2))
    assert states(db) == {DEAD}


@on_both
def test_a_notifier_left_alone_for_long_is_tried_in_time_for_each_delivery_to_have_two_attempts(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time, clock: Clock
) -> None:
    tried: list[datetime] = []

    def refuse(_: Delivery) -> RetryLater:
        tried.append(clock())
        return RetryLater("could not connect")

    transport.answer = refuse
    put(db, *[new_delivery(f"old{n}") for n in range(20)])
    time.passes(dispatcher, minutes(3))  # by now it is left alone for a minute at a time
    made: dict[str, datetime] = {}
    for n in range(12):  # whatever the place in that minute, as the probe itself or behind one
        made[f"d{n}"] = clock()
        put(db, new_delivery(f"d{n}", key=f"j{n}" if n % 2 else "j0"), now=clock())
        time.passes(dispatcher, seconds(17))
    time.passes(dispatcher, seconds(100))
    ended = {row["id"]: at(row["ended_at"]) for row in rows(db, delivery) if row["state"] == DEAD}
    for name, since in made.items():
        counted = [one for one in tried if since < one <= ended[name]]  # each stands for all that is due
        assert len(counted) >= 2, name
        assert ended[name] - counted[0] <= RETRY + seconds(2), name
    assert len(tried) < 60  # it is left alone all the same


@on_both
def test_a_clock_that_leaps_there_and_back_uses_no_retry_time_up(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time, clock: Clock
) -> None:
    transport.answer = lambda _: RetryLater("answered 503")
    put(db, *[new_delivery(f"d{n}") for n in range(3)])
    time.passes(dispatcher, seconds(10))
    clock.advance(hours(25))
    time.passes(dispatcher, seconds(15))
    clock.advance(-hours(25))
    time.passes(dispatcher, seconds(10))
    assert states(db) == {WAITING}
    time.passes(dispatcher, seconds(40))  # due_at is what the worker sets back
    assert all(row["attempts"] >= 2 for row in rows(db, delivery))


def test_a_stop_of_the_bridge_uses_no_retry_time_up(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time, clock: Clock
) -> None:
    transport.answer = lambda _: RetryLater("answered 503")
    put(db, new_delivery("d1"))
    time.passes(dispatcher, seconds(3))
    clock.advance(hours(3))
    time.s += hours(3).total_seconds()
    time.passes(dispatcher, seconds(1))
    assert states(db) == {WAITING}


def test_a_place_in_our_own_queue_uses_no_retry_time_up(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time
) -> None:
    transport.status = lambda _: 500
    transport.answer = lambda _: RetryLater("answered 500")
    with db.write() as tx:
        tx.execute(notifier.update().values(interval_ms=20_000, burst=1))
    put(db, *[new_delivery(f"d{n}") for n in range(4)])
    time.passes(dispatcher, seconds(210))
    assert states(db) == {WAITING}  # each had its turn every 80 s, and 35 s of pauses at most
    assert [row["attempts"] for row in rows(db, delivery)] == [3, 3, 3, 2]
    time.passes(dispatcher, minutes(4))
    assert states(db) == {DEAD}


def test_retry_after_prolongs_it_to_three_times_at_most(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time
) -> None:
    transport.status = lambda _: 503
    transport.answer = lambda _: RetryLater("answered 503", after=hours(24), whole_notifier=True)
    put(db, new_delivery("d1"))
    time.passes(dispatcher, 3 * RETRY - seconds(2))
    assert states(db) == {WAITING}
    time.passes(dispatcher, seconds(5))
    assert states(db) == {DEAD}
    assert len(transport.begun) == 2


def test_a_receiver_that_comes_back_with_a_wish_is_given_that_time(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time
) -> None:
    transport.answer = lambda _: RetryLater("could not connect")
    put(db, *[new_delivery(f"d{n}") for n in range(30)])
    time.passes(dispatcher, seconds(20))
    transport.status = lambda _: 503
    transport.answer = lambda _: RetryLater("answered 503", after=seconds(60), whole_notifier=True)
    time.passes(dispatcher, seconds(20))
    begun = len(transport.begun)
    time.passes(dispatcher, seconds(30))
    assert len(transport.begun) == begun


def test_a_notifier_that_is_paused_uses_no_retry_time_up(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time
) -> None:
    transport.answer = lambda _: RetryLater("could not connect")
    put(db, new_delivery("d1"))
    time.passes(dispatcher, seconds(7))
    transport.answer = lambda _: Rejected("gone", pause=True)
    time.passes(dispatcher, minutes(5))
    with db.write() as tx:
        entries.resume(tx, "cms")
    transport.answer = lambda _: RetryLater("could not connect")
    time.passes(dispatcher, seconds(2))
    assert states(db) == {WAITING}


def test_while_the_clock_is_doubted_nothing_is_given_up_and_all_is_tried_on(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time, faults: list[str]
) -> None:
    transport.answer = lambda _: RetryLater("could not connect")
    put(db, *[new_delivery(f"d{n}") for n in range(30)])
    faults.append("the clock was set")
    time.passes(dispatcher, minutes(5))
    assert states(db) == {WAITING}
    faults.clear()
    time.passes(dispatcher, seconds(75))
    assert DEAD in states(db)


def test_what_is_sent_again_has_its_whole_time_again(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, time: Time, clock: Clock
) -> None:
    transport.answer = lambda _: RetryLater("could not connect")
    put(db, new_delivery("d1"))
    time.passes(dispatcher, minutes(1))
    assert states(db) == {DEAD}
    with db.write() as tx:
        entries.redrive(tx, lists.numbers_of(["d1"]), now=clock())
    time.passes(dispatcher, RETRY - seconds(2))
    assert states(db) == {WAITING}
