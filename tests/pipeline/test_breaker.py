"""A receiver that fails again and again is left alone, and found again when it is back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.model import Delivery, Outcome, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.record.database import Database
from bridge.record.outbox import entries
from bridge.record.schema import DEAD, SENT, WAITING, deliveries, notifiers
from tests.conftest import on_both
from tests.support.fakes import notify_all
from tests.support.nouns import a_message, hours, minutes, new_delivery, seconds
from tests.support.records import know, put, row_of, rows
from tests.support.rig import Rig


@pytest.fixture
def rig(db: Database) -> Rig:
    """Whose `cms` does not answer."""
    rig = Rig(db, given=notify_all(cms='fallback = "pager"'))
    know(db, Notifier(name="cms", max_in_flight=4))
    rig.transport.answer = unanswered
    return rig


def unanswered(one: Delivery) -> Outcome:
    return RetryLater("could not connect") if one.notifier == "cms" else Sent()


def put_new(rig: Rig, how_many: int, name: str = "d") -> None:
    put(
        rig.db,
        *[new_delivery(f"{name}{n}", message=a_message(f"m{name}{n}")) for n in range(how_many)],
        now=rig.clock(),
    )


def lives(rig: Rig, time: timedelta, every_s: float = 2) -> None:
    rig.lives(time, step=seconds(every_s))


def attempts(rig: Rig, name: str = "cms") -> int:
    return sum(one.notifier == name for one in rig.transport.begun)


def sent(rig: Rig) -> set[str]:
    return {row["id"] for row in rows(rig.db, deliveries) if row["state"] == SENT}


def failures(rig: Rig) -> int:
    return int(row_of(rig.db, notifiers, name="cms")["failures"])


@on_both
@pytest.mark.parametrize("status", [None, 502, 503, 504])  # a gateway's answer for a receiver that is not there is none
def test_a_dead_receiver_with_much_waiting_is_asked_one_by_one_about_once_a_minute(
    rig: Rig, status: int | None
) -> None:
    rig.transport.status = lambda _: status
    put_new(rig, 200)
    lives(rig, minutes(5))
    first, rig.transport.most = attempts(rig), 0
    assert first < 25
    lives(rig, minutes(10), 5)
    assert 8 <= attempts(rig) - first <= 11
    assert rig.transport.most == 1


def test_a_receiver_that_is_back_gets_everything_within_about_a_minute(rig: Rig) -> None:
    put_new(rig, 200)
    lives(rig, minutes(30))
    tried = {one.id for one in rig.transport.begun}
    rig.transport.answer = lambda _: Sent()
    lives(rig, seconds(61))
    assert sent(rig) >= {f"d{n}" for n in range(200)} - tried  # those that were tried have a time of their own
    assert failures(rig) == 0


def test_messages_that_a_receiver_does_not_answer_hold_up_no_others_for_long(rig: Rig) -> None:
    rig.transport.answer = lambda one: RetryLater("no answer within 15 s") if one.id.startswith("poison") else Sent()
    put_new(rig, 100, "poison")
    lives(rig, minutes(5))
    put_new(rig, 40)
    lives(rig, minutes(10))
    assert sent(rig) == {f"d{n}" for n in range(40)}


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_receiver_that_refuses_some_messages_is_not_broken(rig: Rig, status: int) -> None:
    rig.transport.answer = lambda one: RetryLater(f"answered {status}") if one.id.startswith("poison") else Sent()
    rig.transport.status = lambda one: status if one.id.startswith("poison") else 204
    put_new(rig, 100, "poison")
    put_new(rig, 40)
    lives(rig, seconds(2))
    assert (sent(rig), failures(rig)) == ({f"d{n}" for n in range(40)}, 0)


def test_nothing_is_given_up_for_what_was_found_out_long_ago(rig: Rig) -> None:
    put_new(rig, 100)
    lives(rig, minutes(3))
    rig.transport.answer = lambda _: Sent()
    rig.clock.advance(hours(3))  # the bridge was off; the retry time is over, and the receiver is well
    lives(rig, minutes(2))
    assert {*rig.stored_states()} == {SENT}


def test_a_receiver_that_asks_for_time_is_not_broken(rig: Rig) -> None:
    rig.transport.answer = lambda _: RetryLater("429", after=seconds(1), whole_notifier=True)
    put_new(rig, 40)
    lives(rig, seconds(30))
    assert attempts(rig) > 10
    assert failures(rig) == 0


@on_both
def test_the_count_of_failures_outlives_the_worker(rig: Rig) -> None:
    put_new(rig, 50)
    lives(rig, minutes(2))
    before = attempts(rig)
    rig.start()
    lives(rig, minutes(3))
    assert attempts(rig) - before <= 3
    rig.transport.answer = lambda _: Sent()
    lives(rig, seconds(75))
    assert failures(rig) == 0


@on_both
def test_what_was_never_tried_is_dead_when_its_retry_time_is_over_and_the_fallback_is_notified(rig: Rig) -> None:
    put_new(rig, 100)
    lives(rig, hours(1) + minutes(12), 10)  # the rules say retry = "1h"
    assert {*rig.stored_states("cms")} == {DEAD}
    assert attempts(rig) < 80
    assert attempts(rig, "pager") == 100
    assert row_of(rig.db, deliveries, id="d99")["why"] == "its retry time is over, and cms answers nobody"


@on_both
def test_resuming_a_notifier_asks_it_at_once(rig: Rig) -> None:
    put_new(rig, 50)
    lives(rig, minutes(10))
    rig.transport.answer = lambda _: Sent()
    with rig.db.write() as tx:
        entries.resume(tx, "cms")
    lives(rig, seconds(1), 1)
    untried = [row for row in rows(rig.db, deliveries) if row["state"] == WAITING and not row["attempts"]]
    assert (untried, len(sent(rig)) > 20) == ([], True)
