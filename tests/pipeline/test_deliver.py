from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Delivery, Notifier, Outcome, Rate, Rejected, RetryLater, Sent
from bridge.pipeline.dispatch import LEASE, WINDOW, Dispatcher
from bridge.record.database import Database, at, ms
from bridge.record.outbox import entries, results
from bridge.record.queries import lists
from bridge.record.schema import DEAD, SENDING, SENT, WAITING, attempt, delivery, notifier
from tests.conftest import Opener, PostgresServer, only_postgresql
from tests.support.fakes import FakeTransport, a_book, impatient, outage
from tests.support.records import (
    NOW,
    Clock,
    a_message,
    claim,
    hours,
    know,
    let_run,
    minutes,
    new_delivery,
    put,
    row_of,
    rows,
    seconds,
    settle,
)
from tests.support.records import ended as ended_with

PLAIN = a_book()
WITH_FALLBACK = a_book(cms='fallback = "pager"')

NewDispatcher = Callable[..., Dispatcher]


@pytest.fixture
def new_dispatcher(db: Database, transport: FakeTransport, clock: Clock) -> NewDispatcher:
    def dispatcher(book: Rulebook = PLAIN, **parts: Any) -> Dispatcher:
        know(db, *book.notifiers.values())
        whole = {"db": db, "transport": transport, "clock": clock, "monotonic": lambda: clock().timestamp()}
        whole |= {"chance": lambda: 0.0, "worker": "w1"}
        return Dispatcher(book=lambda: book, **{**whole, **parts})

    return dispatcher


@pytest.fixture
def dispatcher(new_dispatcher: NewDispatcher) -> Dispatcher:
    return new_dispatcher()


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(request: pytest.FixtureRequest, dialect: str) -> PostgresServer | None:
    return request.getfixturevalue("postgres") if dialect == "postgresql" else None


def _work(dispatcher: Dispatcher) -> None:
    """Turn until there is nothing to do now."""
    while dispatcher.turn() or dispatcher.unfinished:
        pass


def _work_for(time: timedelta, dispatcher: Dispatcher, clock: Clock) -> None:
    """Let so much time go by, with a look around every five seconds."""
    until = clock() + time
    while clock() < until:
        clock.advance(min(seconds(5), until - clock()))
        _work(dispatcher)


def _states(db: Database) -> list[int]:
    return [row["state"] for row in rows(db, delivery)]


# --- the way of a delivery ----------------------------------------------------------------------------------


def test_what_is_due_is_sent_and_recorded(db: Database, dispatcher: Dispatcher, transport: FakeTransport) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"))
    _work(dispatcher)
    assert transport.ids() == ["d1", "d2"]
    assert _states(db) == [SENT, SENT]
    assert [row["outcome"] for row in rows(db, attempt)] == ["sent", "sent"]


def test_a_lane_is_sent_in_order(db: Database, dispatcher: Dispatcher, transport: FakeTransport) -> None:
    put(db, *[new_delivery(f"d{n}", key="j1") for n in range(5)])
    _work(dispatcher)
    assert transport.ids() == [f"d{n}" for n in range(5)]


def test_a_failed_delivery_is_tried_again_on_the_schedule_until_its_time_is_over(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = lambda _: RetryLater("503")
    put(db, new_delivery("d1"))
    tries: list[float] = []
    while row_of(db, delivery, id="d1")["state"] == WAITING:
        begun = len(transport.begun)
        _work(dispatcher)
        if len(transport.begun) > begun:
            tries.append(round((clock() - NOW).total_seconds()))
        let_run(db, clock, max(timedelta(), at(row_of(db, delivery, id="d1")["due_at"]) - clock()))
    # 5 s, 30 s, 2 min, 10 min and 30 min apart; the last when the hour that its notifier has is over
    assert tries == [0, 5, 35, 155, 755, 2555, 3600]
    assert row_of(db, delivery, id="d1")["why"] == "503"
    assert len(rows(db, attempt)) == 7


def test_chance_makes_a_pause_up_to_a_fifth_longer(
    db: Database, new_dispatcher: NewDispatcher, transport: FakeTransport
) -> None:
    transport.answer = lambda _: RetryLater("503")
    put(db, new_delivery("d1"))
    _work(new_dispatcher(chance=lambda: 0.5))
    assert at(row_of(db, delivery, id="d1")["due_at"]) == NOW + seconds(5 * 1.1)


def test_a_receiver_is_given_the_time_that_it_asks_for(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = lambda _: RetryLater("429", after=minutes(7), whole_notifier=True)
    put(db, new_delivery("d1"))
    _work(dispatcher)
    put(db, new_delivery("d2"))
    clock.advance(minutes(7) - seconds(1))
    _work(dispatcher)
    assert transport.ids() == ["d1"]
    clock.advance(seconds(1))
    transport.answer = lambda _: Sent()
    _work(dispatcher)
    assert _states(db) == [SENT, SENT]


def test_a_dead_delivery_that_is_redriven_has_its_whole_time_again(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = lambda _: Rejected("blocked")
    put(db, new_delivery("d1"))
    _work(dispatcher)
    clock.advance(hours(5))
    with db.write() as tx:
        entries.redrive(tx, lists.numbers_of(["d1"]), now=clock())
    transport.answer = lambda _: RetryLater("503")
    _work(dispatcher)
    assert _states(db) == [WAITING]
    assert transport.ids() == ["d1", "d1"]


# --- the fallback -------------------------------------------------------------------------------------------


def _fallbacks(db: Database) -> list[tuple[str, str | None]]:
    return [(row["message"], row["note"]) for row in rows(db, delivery) if row["notifier"] == "pager"]


def test_a_dead_delivery_is_told_to_the_fallback_once_with_the_reason(
    db: Database, new_dispatcher: NewDispatcher, transport: FakeTransport
) -> None:
    dispatcher = new_dispatcher(WITH_FALLBACK)
    transport.answer = lambda one: Rejected("blocked address") if one.notifier == "cms" else Sent()
    put(db, new_delivery("d1", message=a_message("m")))
    for _ in range(2):  # the second time it was sent again by hand
        _work(dispatcher)
        with db.write() as tx:
            entries.redrive(tx, lists.numbers_of(["d1"]), now=NOW)
    assert _fallbacks(db) == [("m", "This could not be sent to cms: blocked address")]
    assert [one.notifier for one in transport.begun].count("pager") == 1


def test_a_dead_delivery_without_a_fallback_is_only_dead(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport
) -> None:
    transport.answer = lambda _: Rejected("blocked address")
    put(db, new_delivery("d1"))
    _work(dispatcher)
    assert _states(db) == [DEAD]


def test_what_waits_for_a_paused_notifier_goes_to_its_fallback(
    db: Database, new_dispatcher: NewDispatcher, transport: FakeTransport, clock: Clock
) -> None:
    dispatcher = new_dispatcher(WITH_FALLBACK)
    transport.answer = lambda one: Rejected("410 Gone", pause=True) if one.notifier == "cms" else Sent()
    put(
        db,
        new_delivery("d1", message=a_message("m1"), key="j1"),
        new_delivery("d2", message=a_message("m2"), key="j1"),
    )
    for _ in range(4):
        _work(dispatcher)
        clock.advance(seconds(5))
    assert [one.id for one in transport.begun if one.notifier == "cms"] == ["d1"]
    note = "This could not be sent to cms: notifier cms is paused: 410 Gone"
    assert _fallbacks(db) == [("m1", note), ("m2", note)]
    assert [row_of(db, delivery, id=id_)["state"] for id_ in ("d1", "d2")] == [DEAD, DEAD]


def test_what_waits_for_a_paused_notifier_without_a_fallback_waits(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    transport.answer = lambda _: Rejected("410 Gone", pause=True)
    put(db, new_delivery("d1"), new_delivery("d2"))
    for _ in range(4):
        _work(dispatcher)
        clock.advance(hours(48))
    assert _states(db) == [WAITING, WAITING]
    with db.write() as tx:
        entries.resume(tx, "cms")
    transport.answer = lambda _: Sent()
    _work(dispatcher)
    assert _states(db) == [SENT, SENT]


def test_a_notifier_that_rules_no_longer_have_is_tried_for_a_day_and_then_dead(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    know(db, "old")
    transport.answer = lambda _: RetryLater("rules.toml has no notifier of this name")
    put(db, new_delivery("d1", to="old"))
    _work(dispatcher)
    while (waits := at(row_of(db, delivery, id="d1")["due_at"]) - clock()) > timedelta():
        let_run(db, clock, waits)
        _work(dispatcher)
    assert _states(db) == [DEAD]
    assert clock() - NOW == hours(24) - seconds(0.1)  # the first attempt took as long


# --- bounds -------------------------------------------------------------------------------------------------


def test_no_more_than_the_window_is_ever_in_flight_or_unrecorded(
    db: Database, new_dispatcher: NewDispatcher, transport: FakeTransport
) -> None:
    dispatcher = new_dispatcher()
    put(db, *[new_delivery(f"d{n}", to="cms" if n % 2 else "pager") for n in range(300)])
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE notifier SET max_in_flight = 64")
    unfinished: list[int] = []
    transport.before_wait = lambda: unfinished.append(dispatcher.unfinished)
    # Every third answers at once, the others only when asked for the third time.
    asked: dict[str, int] = {}

    def answer(one: Delivery) -> Outcome | None:
        asked[one.id] = asked.get(one.id, 0) + 1
        return Sent() if asked[one.id] == 3 or int(one.id[1:]) % 3 == 0 else None

    transport.answer = answer
    _work(dispatcher)
    assert max(unfinished) == WINDOW
    assert set(_states(db)) == {SENT}


def test_a_hung_receiver_delays_no_other(db: Database, dispatcher: Dispatcher, transport: FakeTransport) -> None:
    know(db, Notifier(name="cms", max_in_flight=4))
    transport.answer = lambda one: None if one.notifier == "cms" else Sent()
    put(db, *[new_delivery(f"c{n}") for n in range(50)], *[new_delivery(f"p{n}", to="pager") for n in range(50)])
    for _ in range(50):
        dispatcher.turn()
    told = [row["state"] for row in rows(db, delivery) if row["notifier"] == "pager"]
    assert told == [SENT] * 50


def test_when_nothing_is_due_it_waits_without_hurry(dispatcher: Dispatcher, transport: FakeTransport) -> None:
    dispatcher.turn()
    assert transport.waited == [2.0]


def test_a_notifier_at_its_rate_is_waited_for_as_long_as_it_takes(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport
) -> None:
    know(db, Notifier(name="cms", rate=Rate(count=4, per=seconds(1))))
    put(db, *[new_delivery(f"d{n}") for n in range(5)])
    _work(dispatcher)
    transport.waited.clear()
    dispatcher.turn()
    assert transport.waited == [0.25]


def test_it_does_not_spin_when_what_waited_for_its_rate_is_no_longer_due(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    know(db, Notifier(name="cms", rate=Rate(count=1, per=seconds(1))))
    put(db, new_delivery("d1"), new_delivery("d2"))
    _work(dispatcher)
    with db.write() as tx:
        entries.pause(tx, "cms", "being repaired", now=NOW)
    clock.advance(seconds(2))
    transport.waited.clear()
    dispatcher.turn()
    assert transport.waited == [2.0]


def test_waking_wakes_the_transport(dispatcher: Dispatcher, transport: FakeTransport) -> None:
    dispatcher.wake()
    assert transport.woken == 1


# --- workers that are lost ----------------------------------------------------------------------------------


def test_what_a_lost_worker_held_is_sent_again_under_the_same_id(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    put(db, new_delivery("d1"))
    claim(db, worker="lost")
    _work(dispatcher)
    assert transport.begun == []
    _work_for(LEASE + seconds(6), dispatcher, clock)
    assert transport.ids() == ["d1"]
    assert [row["outcome"] for row in rows(db, attempt)] == ["lost", "sent"]


def test_attempts_that_were_lost_with_their_worker_make_no_pause_longer(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    put(db, new_delivery("d1"))
    for _ in range(3):
        claim(db, worker="lost", now=clock())
        with db.write() as tx:
            results.bury(tx, "lost", now=clock())
    transport.answer = lambda _: RetryLater("503")
    _work(dispatcher)
    assert row_of(db, delivery, id="d1")["attempts"] == 4
    assert row_of(db, delivery, id="d1")["due_at"] == ms(clock() + seconds(5))


def test_what_this_worker_sends_itself_is_never_taken_for_lost(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock
) -> None:
    put(db, new_delivery("d1"))
    transport.answer = lambda _: None
    for _ in range(12):
        dispatcher.turn()
        clock.advance(seconds(5))
    transport.answer = lambda _: Sent()
    _work(dispatcher)
    assert transport.ids() == ["d1"]
    assert [row["outcome"] for row in rows(db, attempt)] == ["sent"]


@only_postgresql
def test_after_an_outage_claims_of_others_are_watched_anew(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock, server: PostgresServer, opened: Opener
) -> None:
    put(db, new_delivery("d1"))
    claim(db, worker="other")
    _work_for(seconds(25), dispatcher, clock)
    with outage(db, server, opened):
        clock.advance(seconds(5))
        assert dispatcher.turn() == 0
    _work_for(seconds(25), dispatcher, clock)
    assert transport.begun == []
    _work_for(seconds(15), dispatcher, clock)
    assert transport.ids() == ["d1"]


def test_no_two_claims_share_a_lease(db: Database, dispatcher: Dispatcher, transport: FakeTransport) -> None:
    for id_ in ("d1", "d2"):
        put(db, new_delivery(id_))
        _work(dispatcher)
    first, second = transport.begun
    assert first.lease != second.lease


def test_an_outcome_that_comes_after_the_lease_is_not_recorded(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    put(db, new_delivery("d1", thread="t"))

    def take_over() -> None:
        transport.before_wait = lambda: None
        with db.write() as tx:
            assert results.bury(tx, "w1", now=NOW) == 1
        (theirs,) = claim(db, worker="w2")
        settle(db, ended_with(theirs, Sent("theirs")))

    transport.before_wait = take_over
    transport.answer = lambda _: Rejected("late", pause=True)
    _work(dispatcher)
    assert _states(db) == [SENT]
    assert row_of(db, notifier, name="cms")["paused_at"] is None
    assert [row["outcome"] for row in rows(db, attempt)] == ["lost", "sent"]
    assert "lease lost" in caplog.text


def test_a_late_death_is_told_to_no_fallback(
    db: Database, new_dispatcher: NewDispatcher, transport: FakeTransport, clock: Clock
) -> None:
    dispatcher = new_dispatcher(WITH_FALLBACK)
    put(db, new_delivery("d1"))

    def take_over() -> None:
        transport.before_wait = lambda: None
        with db.write() as tx:
            results.bury(tx, "w1", now=NOW + hours(1))  # it waits

    transport.before_wait = take_over
    transport.answer = lambda _: Rejected("late")
    dispatcher.turn()
    dispatcher.turn()
    assert (_states(db), _fallbacks(db)) == ([WAITING], [])


# --- the database is away -----------------------------------------------------------------------------------


def test_outcomes_are_kept_while_the_database_is_away_and_recorded_once_it_is_back(
    db_url: str,
    new_dispatcher: NewDispatcher,
    transport: FakeTransport,
    server: PostgresServer | None,
    opened: Opener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    db = impatient(opened(db_url))
    dispatcher = new_dispatcher(db=db)
    put(db, *[new_delivery(f"d{n}") for n in range(3)])
    assert dispatcher.turn() == 3
    with outage(db, server, opened):
        for _ in range(3):
            assert dispatcher.turn() == 0
        assert dispatcher.unfinished == 3
    assert "delivering waits for the database" in caplog.text
    _work(dispatcher)
    assert _states(db) == [SENT] * 3
    assert len(transport.begun) == 3


@only_postgresql
def test_a_connection_that_breaks_while_outcomes_are_recorded_loses_none(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport, server: PostgresServer, db_url: str, opened: Opener
) -> None:
    put(db, *[new_delivery(f"d{n}") for n in range(3)])
    assert dispatcher.turn() == 3
    other = opened(db_url)
    name = db.url.database
    with other.write() as holding, ThreadPoolExecutor(1) as pool:
        holding.execute(update(delivery).values(note="held"))  # so that recording waits for this row
        turn = pool.submit(dispatcher.turn)
        held_up = f"datname = '{name}' AND wait_event_type = 'Lock'"
        while not holding.execute(
            text(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {held_up}")  # noqa: S608  (ours)
        ).scalar():
            pass
        assert turn.result(10) == 0
    _work(dispatcher)
    assert _states(db) == [SENT] * 3
    assert len(transport.begun) == 3


def test_one_answer_that_cannot_be_recorded_does_not_stop_the_others(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport
) -> None:
    transport.answer = lambda one: RetryLater("it said \0 and \ud800") if one.id == "d0" else Sent()
    put(db, *[new_delivery(f"d{n}") for n in range(3)])
    for _ in range(5):
        dispatcher.turn()
    assert _states(db) == [WAITING, SENT, SENT]


# --- the end ------------------------------------------------------------------------------------------------


def test_finishing_records_what_is_in_flight_and_begins_nothing_new(
    db: Database, new_dispatcher: NewDispatcher, transport: FakeTransport
) -> None:
    dispatcher = new_dispatcher(window=2)
    put(db, *[new_delivery(f"d{n}") for n in range(5)])
    transport.answer = lambda _: None
    assert dispatcher.turn() == 2
    transport.answer = lambda _: Sent()
    dispatcher.finish(until=lambda: False)
    assert dispatcher.unfinished == 0
    assert _states(db) == [SENT, SENT, WAITING, WAITING, WAITING]


def test_finishing_ends_when_its_time_is_over(db: Database, dispatcher: Dispatcher, transport: FakeTransport) -> None:
    put(db, new_delivery("d1"))
    transport.answer = lambda _: None
    dispatcher.turn()
    waits = len(transport.waited)
    dispatcher.finish(until=lambda: len(transport.waited) >= waits + 3)
    assert _states(db) == [SENDING]  # its lease runs out


def test_finishing_with_nothing_in_flight_is_at_once(dispatcher: Dispatcher, transport: FakeTransport) -> None:
    dispatcher.finish(until=lambda: False)
    assert transport.waited == []


def test_finishing_waits_for_a_database_that_is_away(
    db_url: str, new_dispatcher: NewDispatcher, transport: FakeTransport, server: PostgresServer | None, opened: Opener
) -> None:
    db = impatient(opened(db_url))
    dispatcher = new_dispatcher(db=db)
    put(db, new_delivery("d1"))
    dispatcher.turn()
    waits = len(transport.waited)
    with outage(db, server, opened):
        dispatcher.finish(until=lambda: len(transport.waited) >= waits + 2)
    assert dispatcher.unfinished == 1
    dispatcher.finish(until=lambda: False)
    assert _states(db) == [SENT]


def test_an_outage_longer_than_the_lease_repeats_nothing_that_this_worker_has_sent(
    db_url: str,
    new_dispatcher: NewDispatcher,
    transport: FakeTransport,
    clock: Clock,
    dialect: str,
    request: pytest.FixtureRequest,
    opened: Opener,
) -> None:
    server = request.getfixturevalue("postgres") if dialect == "postgresql" else None
    db = impatient(opened(db_url))
    dispatcher = new_dispatcher(db=db)
    put(db, *[new_delivery(f"d{n}") for n in range(3)])
    assert dispatcher.turn() == 3
    with outage(db, server, opened):
        dispatcher.turn()
        clock.advance(LEASE + seconds(10))
        dispatcher.turn()
        assert dispatcher.unfinished == 3
    clock.advance(seconds(6))
    _work(dispatcher)
    _work(dispatcher)
    assert len(transport.begun) == 3
    assert [row["outcome"] for row in rows(db, attempt)] == ["sent"] * 3


def test_a_quick_receiver_that_asks_to_wait_gets_nothing_more_of_its_line(
    db: Database, dispatcher: Dispatcher, transport: FakeTransport
) -> None:
    know(db, Notifier(name="cms", max_in_flight=2))
    put(db, new_delivery("d0"))
    _work(dispatcher)  # it was quick
    put(db, *[new_delivery(f"d{n}") for n in range(1, 9)])
    transport.answer = lambda _: RetryLater("429", after=seconds(60), whole_notifier=True)
    _work(dispatcher)
    waiting = [row for row in rows(db, delivery) if row["state"] == WAITING]
    assert len(waiting) == 8
    assert sum(row["attempts"] for row in waiting) == len(transport.begun) - 1  # what was not begun counts no try
