from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime

import pytest

from bridge.decide.retries import BREAKER_THRESHOLD
from bridge.model import Outcome, Rate, Rejected, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.record.database import Database, ms
from bridge.record.outbox import claims, entries, results
from bridge.record.schema import deliveries, notifiers
from tests.conftest import Opener, only_postgresql
from tests.support.nouns import LEASE, NOW, hours, minutes, new_delivery, seconds
from tests.support.records import (
    claim,
    claim_all,
    claimed_ids,
    ended,
    execute,
    know,
    put,
    read,
    row_of,
    rows,
    settle,
    write,
)


def _put_many(db: Database, count: int, now: datetime = NOW) -> None:
    put(db, *[new_delivery(f"d{n}") for n in range(count)], now=now)


def _put_in_order(db: Database, count: int) -> None:
    put(db, *[new_delivery(f"a{n}", key="a") for n in range(1, count + 1)])


ALL = deliveries.select().with_only_columns(deliveries.c.n)


def test_what_is_claimed_is_claimed_by_nobody_else_and_no_more_than_there_are_free_slots(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, *[new_delivery(f"d{n}", to="ops" if n % 2 else "cms") for n in range(10)])
    (mine,) = claim(db, free=1)
    row = row_of(db, deliveries, id="d0")
    assert (mine.id, mine.attempts) == ("d0", 1)
    assert (row["lease"], row["lease_until"]) == (mine.lease, ms(NOW + LEASE))
    assert claim(db, free=0) == []
    assert sorted(claimed_ids(db, worker="w2")) == [f"d{n}" for n in range(1, 10)]
    assert claimed_ids(db, worker="w3") == []


def test_what_is_not_due_or_for_a_notifier_without_a_row_is_left(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1"), new_delivery("d2", to="unknown"), now=NOW + minutes(1))
    assert claim(db) == []
    assert claimed_ids(db, now=NOW + minutes(1)) == ["d1"]


# --- order ----------------------------------------------------------------------------------------------------------


def test_what_has_one_ordering_key_is_sent_one_after_the_other_for_each_notifier(db: Database) -> None:
    know(db, "cms", "ops")
    _put_in_order(db, 2)
    put(db, new_delivery("b1", key="b"), new_delivery("free"))
    put(db, *[new_delivery(f"o{n}", to="ops", key="a") for n in (1, 2)])
    first = {delivery.id: delivery for delivery in claim(db)}
    assert sorted(first) == ["a1", "b1", "free", "o1"]
    assert claim(db) == []
    settle(db, ended(first["a1"], Sent()))
    assert claimed_ids(db) == ["a2"]


def test_those_behind_one_that_is_tried_later_wait_as_long(db: Database) -> None:
    know(db, "cms")
    _put_in_order(db, 2)
    put(db, new_delivery("b1", key="b"))
    first, other = claim(db)
    settle(db, ended(first, RetryLater("503"), again_at=NOW + hours(1)), ended(other, Sent()))
    assert row_of(db, deliveries, id="a2")["due_at"] == ms(NOW + hours(1))
    assert claim(db, now=NOW + minutes(59)) == []
    (again,) = claim(db, now=NOW + hours(1))
    assert (again.id, again.attempts) == ("a1", 2)


@pytest.mark.parametrize("outcome", [Sent(), Rejected("no")])
def test_those_behind_go_at_once_when_the_first_was_sent_at_last_or_is_dead(db: Database, outcome: Outcome) -> None:
    know(db, "cms")
    _put_in_order(db, 2)
    settle(db, ended(claim(db)[0], RetryLater("503"), again_at=NOW + minutes(1)))
    put(db, new_delivery("a3", key="a"), now=NOW + seconds(1))
    (again,) = claim(db, now=NOW + minutes(1))
    settle(db, ended(again, RetryLater("503"), again_at=NOW + hours(1)), now=NOW + minutes(1))
    (again,) = claim(db, now=NOW + hours(1))
    assert again.id == "a1"
    # As after a redrive of the first alone: the others wait till later than now.
    settle(db, ended(again, outcome), now=NOW + minutes(30))
    assert claimed_ids(db, now=NOW + minutes(30)) == ["a2"]


def test_one_that_is_redriven_goes_before_those_behind_it(db: Database) -> None:
    know(db, "cms")
    _put_in_order(db, 3)
    settle(db, ended(claim(db)[0], Rejected("no")))
    (second,) = claim(db)
    write(db, entries.redrive, ALL, now=NOW)
    assert claim(db) == []  # the second is being sent
    settle(db, ended(second, Sent()))
    assert claimed_ids(db) == ["a1"]


@only_postgresql
def test_a_redrive_between_two_claims_never_sends_two_of_one_key_at_once(
    db: Database, db_url: str, opened: Opener
) -> None:
    know(db, "cms")
    _put_in_order(db, 2)
    settle(db, ended(claim(db)[0], Rejected("no")))
    other = opened(db_url)
    with other.write() as redriving:
        entries.redrive(redriving, ALL, now=NOW)
        assert claimed_ids(db) == ["a2"]  # it does not see the first yet
    assert claimed_ids(other) == []


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_a_notifier_has_no_more_in_flight_than_it_may(db: Database) -> None:
    know(db, Notifier(name="cms", max_in_flight=2))
    _put_many(db, 5)
    first = claim(db)
    assert len(first) == 2
    assert claim(db, worker="w2") == []  # the bound is the notifier's, not the worker's
    settle(db, ended(first[0], Sent()))
    assert len(claim(db, worker="w2")) == 1


@only_postgresql
@pytest.mark.parametrize("rate", [None, Rate(count=4, per=seconds(60))])
def test_two_workers_that_claim_at_once_take_no_more_than_may_be_in_flight(
    db: Database, db_url: str, opened: Opener, rate: Rate | None
) -> None:
    know(db, Notifier(name="cms", max_in_flight=4, rate=rate), "ops")
    _put_many(db, 20)
    put(db, new_delivery("o1", to="ops"))
    with db.write() as mine:
        claimed = claims.claim(mine, free=64, lease="w1.1", lease_for=LEASE, now=NOW).deliveries
        # The other one looks while the first claim is not committed, waits for nobody, and goes away empty.
        assert claim(opened(db_url), worker="w2") == []
    assert len(claimed) == 5
    assert claim(db, worker="w2") == []


def test_every_notifier_gets_its_turn_to_be_first(db: Database) -> None:
    know(db, "a", "b", "c")
    put(db, *[new_delivery(f"{to}{n}", to=to) for to in "abc" for n in range(5)])
    claimed = Counter(delivery.notifier for turn in range(12) for delivery in claim(db, free=1, turn=turn))
    assert claimed == {"a": 4, "b": 4, "c": 4}


def test_a_notifier_that_asked_to_wait_is_left_alone_and_delays_no_other(db: Database) -> None:
    know(db, "cms", "ops")
    _put_many(db, 3)
    put(db, new_delivery("o1", to="ops"))
    first, second = claim(db, free=2)
    settle(db, ended(first, RetryLater("429", after=hours(1), whole_notifier=True), again_at=NOW + hours(1)))
    # A shorter wish does not shorten a longer one.
    settle(db, ended(second, RetryLater("429", whole_notifier=True), again_at=NOW + minutes(1)))
    assert claimed_ids(db, now=NOW + minutes(59)) == ["o1"]
    assert sorted(claimed_ids(db, now=NOW + hours(1))) == ["d0", "d1", "d2"]


# --- rate -----------------------------------------------------------------------------------------------------------

_TEN_A_SECOND = Notifier(name="cms", rate=Rate(count=10, per=seconds(1)), max_in_flight=64)


def test_a_rate_lets_a_burst_through_and_then_one_an_interval(db: Database) -> None:
    know(db, _TEN_A_SECOND, "ops")
    _put_many(db, 30)
    found = claim_all(db)
    assert (len(found.deliveries), found.again_at) == (10, None)
    put(db, new_delivery("o1", to="ops"))
    found = claim_all(db)
    assert found.again_at == NOW + seconds(0.1)
    assert [delivery.id for delivery in found.deliveries] == ["o1"]  # which does not wait for the other's rate
    assert len(claim(db, now=NOW + seconds(0.1))) == 1
    assert len(claim(db, now=NOW + seconds(0.5))) == 4  # 0.2, 0.3, 0.4, 0.5
    assert len(claim(db, now=NOW + hours(1))) == 10  # a long rest saves up one burst, no more


def test_what_the_order_holds_back_uses_up_no_rate(db: Database) -> None:
    know(db, Notifier(name="cms", rate=Rate(count=2, per=minutes(1)), max_in_flight=64))
    _put_in_order(db, 2)
    assert claimed_ids(db) == ["a1"]
    for _ in range(3):
        assert claim(db) == []
    put(db, new_delivery("b1", key="b"))
    assert claimed_ids(db) == ["b1"]


def test_a_rate_from_before_the_clock_was_set_back_does_not_silence_a_notifier(db: Database) -> None:
    know(db, _TEN_A_SECOND)
    _put_many(db, 12, now=NOW - hours(5))
    assert len(claim(db)) == 10
    assert len(claim(db, now=NOW - hours(4))) == 2


# --- paused ---------------------------------------------------------------------------------------------------------


def _claim_paused(db: Database, most: int = 64) -> list[str]:
    claimed = write(db, claims.claim_paused, "cms", lease="w1.p", lease_for=LEASE, now=NOW, most=most)
    return [delivery.id for delivery in claimed]


def test_what_waits_for_a_paused_notifier_can_be_claimed_for_its_fallback(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, new_delivery("d1"), new_delivery("d2"), new_delivery("o1", to="ops"))
    put(db, new_delivery("later"), now=NOW + hours(1))
    assert _claim_paused(db) == []  # it is not paused
    write(db, entries.pause, "cms", "410", now=NOW)
    assert read(db, claims.paused_and_waiting) == [("cms", "410")]
    assert _claim_paused(db, most=2) == ["d1", "d2"]
    assert _claim_paused(db) == ["later"]
    assert read(db, claims.paused_and_waiting) == []


# --- the breaker ----------------------------------------------------------------------------------------------------


def _fail(db: Database, count: int) -> int:
    return write(db, entries.failed, "cms", count, threshold=BREAKER_THRESHOLD, run=seconds(0))


def test_of_a_notifier_that_failed_too_often_one_at_a_time_is_claimed(db: Database) -> None:
    know(db, "cms", "ops")
    _put_many(db, 5)
    put(db, new_delivery("o1", to="ops"))
    _fail(db, 4)
    found = claim_all(db, threshold=4, free=64)
    assert {delivery.id for delivery in found.deliveries} == {"d0", "o1"}
    assert claimed_ids(db, threshold=4) == []
    found = claim_all(db, threshold=5)
    assert len(found.deliveries) == 4
    assert found.failing == {"cms"}


def test_many_failures_at_once_count_as_one_until_an_answer(db: Database) -> None:
    know(db, "cms")
    assert [_fail(db, count) for count in (3, 32, 32, 1)] == [3, 10, 11, 12]
    write(db, entries.recovered, "cms", threshold=BREAKER_THRESHOLD)
    assert _fail(db, 2) == 2
    _fail(db, BREAKER_THRESHOLD)
    write(db, entries.resume, "cms")
    _put_many(db, 3)
    assert len(claim(db, threshold=BREAKER_THRESHOLD)) == 3


@pytest.mark.parametrize(("failures", "waits"), [(BREAKER_THRESHOLD, False), (BREAKER_THRESHOLD - 1, True)])
def test_who_answers_again_is_left_alone_no_longer_but_the_time_it_asked_for_counts(
    db: Database, failures: int, *, waits: bool
) -> None:
    know(db, "cms")
    _fail(db, failures)
    write(db, entries.postpone_notifier, "cms", NOW + minutes(1))
    write(db, entries.recovered, "cms", threshold=BREAKER_THRESHOLD)
    put(db, new_delivery("d1"))
    assert claimed_ids(db) == ([] if waits else ["d1"])


def test_of_a_notifier_that_failed_the_oldest_and_the_newest_are_sent_by_turns(db: Database) -> None:
    know(db, "cms")
    _fail(db, BREAKER_THRESHOLD)
    put(db, new_delivery("old"), now=NOW - hours(1))
    put(db, new_delivery("new"))
    probed = []
    for newest in ((), {"cms"}, ()):
        (probe,) = claim(db, threshold=BREAKER_THRESHOLD, newest=newest)
        probed.append(probe.id)
        write(db, results.hand_back, [probe])
    assert probed == ["old", "new", "old"]


@pytest.mark.parametrize(("failures", "expected"), [(BREAKER_THRESHOLD, ["old", "tried"]), (BREAKER_THRESHOLD - 1, [])])
def test_what_waited_too_long_is_claimed_to_be_given_up_only_if_the_notifier_is_left_alone(
    db: Database, failures: int, expected: list[str]
) -> None:
    know(db, "cms", "ops")
    put(db, new_delivery("old"), new_delivery("tried", key="b"), new_delivery("o1", to="ops"), new_delivery("young"))
    _fail(db, failures)
    numbers = [row["n"] for row in rows(db, deliveries) if row["id"] != "young"]
    bounds = {"threshold": BREAKER_THRESHOLD, "lease_for": LEASE, "now": NOW + hours(3)}
    claimed = write(db, claims.claim_to_give_up, "cms", numbers, lease="w1.h", **bounds)
    assert [delivery.id for delivery in claimed] == expected


def test_what_is_due_is_read_a_few_at_a_time(db: Database) -> None:
    know(db, "cms", "ops")
    _put_many(db, 5)
    put(db, new_delivery("o1", to="ops"))
    put(db, new_delivery("later"), now=NOW + minutes(1))
    seen, after = list[int](), (0, 0)
    while page := read(db, claims.due, "cms", after=after, now=NOW, most=2):
        seen += [delivery.n for delivery in page]
        after = (page[-1].due_at, page[-1].n)
    assert seen == [row["n"] for row in rows(db, deliveries) if row["id"].startswith("d")]


def test_a_probe_begins_the_retry_time_of_what_was_never_tried(db: Database) -> None:
    know(db, "cms")
    _put_many(db, 2)
    numbers = [row["n"] for row in rows(db, deliveries)]
    write(db, claims.begin_retry, numbers[:1], seconds(5))
    write(db, claims.begin_retry, numbers, seconds(9))
    assert [row["retry_from"] for row in rows(db, deliveries)] == [5_000, 9_000]


# --- at once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [0, BREAKER_THRESHOLD])
def test_what_is_to_go_out_at_once_does_so_alone_whatever_its_notifier_waits_for(db: Database, failures: int) -> None:
    know(db, "cms")
    _put_many(db, 3)
    put(db, new_delivery("asked"), at_once=True)
    execute(db, notifiers.update().values(failures=failures, not_before=ms(NOW + minutes(1))))
    assert claimed_ids(db, threshold=BREAKER_THRESHOLD) == ["asked"]
    assert claimed_ids(db, threshold=BREAKER_THRESHOLD) == []


def test_what_is_to_go_out_at_once_waits_for_no_probe_that_is_under_way(db: Database) -> None:
    know(db, "cms")
    _put_many(db, 3)
    execute(db, notifiers.update().values(failures=BREAKER_THRESHOLD))
    assert claimed_ids(db, threshold=BREAKER_THRESHOLD) == ["d0"]
    put(db, new_delivery("asked"), at_once=True)
    assert claimed_ids(db, threshold=BREAKER_THRESHOLD, newest={"cms"}) == ["asked"]
    assert claimed_ids(db, threshold=BREAKER_THRESHOLD) == []


def test_what_is_to_go_out_at_once_is_first_but_not_for_a_notifier_that_is_paused_or_has_no_place(db: Database) -> None:
    know(db, Notifier(name="cms", max_in_flight=1), "ops")
    put(db, new_delivery("d1"))
    put(db, new_delivery("asked"), at_once=True)
    assert claimed_ids(db) == ["asked"]
    put(db, new_delivery("again"), new_delivery("paused", to="ops"), at_once=True)
    write(db, entries.pause, "ops", "410", now=NOW)
    assert claimed_ids(db) == []


def test_only_one_that_may_go_out_is_urged_and_none_while_one_is_sent(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1", key="j1"), new_delivery("d2", key="j1"), new_delivery("d3"))
    numbers = {row["id"]: row["n"] for row in rows(db, deliveries)}
    write(db, claims.urge, "cms", [numbers["d2"], numbers["d3"]], now=NOW)
    assert [row["id"] for row in rows(db, deliveries) if row["due_at"] == claims.DUE_AT_ONCE] == ["d3"]
    assert claimed_ids(db, free=1) == ["d3"]
    write(db, claims.urge, "cms", [numbers["d1"]], now=NOW)
    assert all(row["due_at"] != claims.DUE_AT_ONCE for row in rows(db, deliveries) if row["id"] != "d3")


# --- threads --------------------------------------------------------------------------------------------------------


def test_the_receipt_of_the_first_message_of_a_thread_is_read_by_the_next(db: Database) -> None:
    know(db, "ops", "cms")
    put(db, *[new_delivery(f"o{n}", to="ops", key="t", thread="t") for n in (1, 2, 3)])
    put(db, new_delivery("c1", key="t", thread="t"))
    first, other = sorted(claim(db), key=lambda delivery: delivery.notifier, reverse=True)
    assert (first.id, first.root, other.id) == ("o1", None, "c1")
    settle(db, ended(first, Sent("C1 171.1")), ended(other, Sent()))
    (second,) = claim(db)
    assert second.root == "C1 171.1"
    settle(db, ended(second, Sent("C1 171.2")))  # a new root, where the old one was deleted
    assert claim(db)[0].root == "C1 171.2"


def test_a_delivery_is_shown_as_a_worker_gets_it(db: Database) -> None:
    assert read(db, claims.sendable, "d1") is None
    know(db, "cms")
    put(db, new_delivery("d1", note="不行", body='{"a": 1}', channel="C2", thread="b/j1"))
    before = read(db, claims.sendable, "d1")
    (claimed,) = claim(db)
    assert read(db, claims.sendable, "d1") == claimed
    assert before == replace(claimed, attempts=0, lease="")
