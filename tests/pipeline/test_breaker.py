"""A receiver that fails again and again is left alone, and found again when it is back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.model import Delivery, Notifier, Outcome, RetryLater, Sent
from bridge.pipeline.dispatch import Dispatcher
from bridge.record.database import Database
from bridge.record.outbox import entries
from bridge.record.schema import DEAD, SENT, WAITING, delivery, notifier
from tests.conftest import on_both
from tests.support.fakes import FakeTransport, a_book
from tests.support.records import Clock, a_message, hours, know, minutes, new_delivery, put, row_of, rows, seconds


@pytest.fixture
def dispatcher(db: Database, transport: FakeTransport, clock: Clock) -> Dispatcher:
    book = a_book(cms='fallback = "pager"')
    know(db, *book.notifiers.values())
    know(db, Notifier(name="cms", max_in_flight=4))
    return Dispatcher(
        db=db,
        transport=transport,
        book=lambda: book,
        clock=clock,
        chance=lambda: 0.0,
        worker="w1",
        monotonic=lambda: clock().timestamp(),
    )


SECOND = seconds(1)


def live(dispatcher: Dispatcher, clock: Clock, time: timedelta, *, step: timedelta = 2 * SECOND) -> None:
    """Let time go by, and do what is due."""
    until = clock() + time
    while clock() < until:
        clock.advance(step)
        while dispatcher.turn() or dispatcher.unfinished:
            pass


def dead_cms(one: Delivery) -> Outcome:
    return RetryLater("could not connect") if one.notifier == "cms" else Sent()


def attempts_on(transport: FakeTransport, name: str = "cms") -> int:
    return sum(one.notifier == name for one in transport.begun)


def test_a_dead_receiver_with_much_waiting_is_asked_about_once_a_minute(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = dead_cms
    put(db, *[new_delivery(f"d{n}") for n in range(500)])
    live(dispatcher, clock, minutes(5))
    first = attempts_on(transport)
    live(dispatcher, clock, minutes(20))
    assert first < 25
    assert 18 <= attempts_on(transport) - first <= 21


@on_both
def test_never_more_than_one_is_on_its_way_to_a_broken_receiver(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = dead_cms
    put(db, *[new_delivery(f"d{n}") for n in range(50)])
    live(dispatcher, clock, minutes(2))
    transport.most = 0
    live(dispatcher, clock, minutes(10))
    assert transport.most == 1


def test_a_receiver_that_is_back_is_told_everything_within_about_a_minute(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = dead_cms
    put(db, *[new_delivery(f"d{n}") for n in range(200)])
    live(dispatcher, clock, minutes(30))
    tried = {one.id for one in transport.begun}
    transport.answer = lambda _: Sent()
    live(dispatcher, clock, seconds(61))
    told = {row["id"] for row in rows(db, delivery) if row["state"] == SENT}
    assert told >= {f"d{n}" for n in range(200)} - tried  # those that were tried have a time of their own
    assert row_of(db, notifier, name="cms")["failures"] == 0


def test_messages_that_make_a_receiver_silent_hold_up_no_others_for_long(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = lambda one: RetryLater("no answer within 15 s") if one.id.startswith("poison") else Sent()
    put(db, *[new_delivery(f"poison{n}") for n in range(100)])
    live(dispatcher, clock, minutes(5))
    put(db, *[new_delivery(f"d{n}") for n in range(40)], now=clock())
    live(dispatcher, clock, minutes(10))
    assert {row["id"] for row in rows(db, delivery) if row["state"] == SENT} == {f"d{n}" for n in range(40)}


@pytest.mark.parametrize("status", [400, 404, 500])
def test_who_refuses_some_messages_is_not_broken(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock, status: int
) -> None:
    transport.answer = lambda one: RetryLater(f"answered {status}") if one.id.startswith("poison") else Sent()
    transport.status = lambda one: status if one.id.startswith("poison") else 204
    put(db, *[new_delivery(f"poison{n}") for n in range(100)], *[new_delivery(f"d{n}") for n in range(40)])
    live(dispatcher, clock, seconds(2))
    assert {row["id"] for row in rows(db, delivery) if row["state"] == SENT} == {f"d{n}" for n in range(40)}
    assert row_of(db, notifier, name="cms")["failures"] == 0


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_answers_for_a_receiver_that_is_not_there_is_no_answer(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock, status: int
) -> None:
    transport.answer, transport.status = dead_cms, lambda _: status
    put(db, *[new_delivery(f"d{n}") for n in range(100)])
    live(dispatcher, clock, minutes(5))
    assert attempts_on(transport) < 25


def test_nothing_is_given_up_for_what_was_found_out_long_ago(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = dead_cms
    put(db, *[new_delivery(f"d{n}") for n in range(100)])
    live(dispatcher, clock, minutes(3))
    transport.answer = lambda _: Sent()
    clock.advance(hours(3))  # the bridge was off; the retry time is over, and the receiver is well
    live(dispatcher, clock, minutes(2))
    assert {row["state"] for row in rows(db, delivery)} == {SENT}


def test_who_asks_everybody_to_wait_is_not_broken(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = lambda _: RetryLater("429", after=seconds(1), whole_notifier=True)
    put(db, *[new_delivery(f"d{n}") for n in range(40)])
    live(dispatcher, clock, seconds(30))
    assert attempts_on(transport) > 10
    assert row_of(db, notifier, name="cms")["failures"] == 0


@on_both
def test_the_count_of_failures_outlives_the_worker(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = dead_cms
    put(db, *[new_delivery(f"d{n}") for n in range(50)])
    live(dispatcher, clock, minutes(2))
    before = attempts_on(transport)
    book = a_book()
    other = Dispatcher(
        db=db, transport=transport, book=lambda: book, clock=clock, chance=lambda: 0.0, worker="w2",
        monotonic=lambda: clock().timestamp(),
    )  # fmt: skip
    live(other, clock, minutes(3))
    assert attempts_on(transport) - before <= 3
    transport.answer = lambda _: Sent()
    live(other, clock, seconds(75))
    assert row_of(db, notifier, name="cms")["failures"] == 0


@on_both
def test_what_was_never_tried_is_dead_when_its_retry_time_is_over_and_the_fallback_is_told(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = dead_cms
    put(db, *[new_delivery(f"d{n}", message=a_message(f"m{n}")) for n in range(100)])
    live(dispatcher, clock, hours(1) + minutes(12), step=seconds(10))  # the rules say retry = "1h"
    states = {row["state"] for row in rows(db, delivery) if row["notifier"] == "cms"}
    assert states == {DEAD}
    assert attempts_on(transport) < 80
    assert attempts_on(transport, "pager") == 100
    never_tried = row_of(db, delivery, id="d99")
    assert never_tried["why"] == "its retry time is over, and cms answers nobody"


@on_both
def test_resuming_a_notifier_by_hand_asks_it_at_once(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = dead_cms
    put(db, *[new_delivery(f"d{n}") for n in range(50)])
    live(dispatcher, clock, minutes(10))
    transport.answer = lambda _: Sent()
    with db.write() as tx:
        entries.resume(tx, "cms")
    live(dispatcher, clock, seconds(1))
    untried = [row for row in rows(db, delivery) if row["state"] == WAITING and not row["attempts"]]
    told = [row for row in rows(db, delivery) if row["state"] == SENT]
    assert (untried, len(told) > 20) == ([], True)
