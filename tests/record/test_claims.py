from __future__ import annotations

from collections import Counter

import pytest

from bridge.decide.retries import BROKEN_AT
from bridge.model import Notifier, Rate, Rejected, RetryLater, Sent
from bridge.record.database import Database, ms
from bridge.record.outbox import claims, entries, results
from bridge.record.schema import deliveries, notifiers
from tests.conftest import Opener, only_postgresql
from tests.support.records import (
    LEASE,
    NOW,
    claim,
    claim_all,
    claimed_ids,
    ended,
    execute,
    hours,
    know,
    minutes,
    new_delivery,
    put,
    read,
    row_of,
    rows,
    seconds,
    settle,
    write,
)


def test_what_is_claimed_is_claimed_by_nobody_else(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1"), new_delivery("d2"))
    assert claimed_ids(db, free=1) == ["d1"]
    assert claimed_ids(db, worker="w2") == ["d2"]
    assert claimed_ids(db, worker="w3") == []


def test_a_claim_counts_the_attempt_and_has_a_lease(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1"))
    (mine,) = claim(db)
    stored = row_of(db, deliveries, id="d1")
    assert mine.attempts == 1
    assert (stored["lease"], stored["lease_until"]) == (mine.lease, ms(NOW + LEASE))


def test_no_more_is_claimed_than_there_are_free_slots(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, *[new_delivery(f"d{n}", to="ops" if n % 2 else "cms") for n in range(10)])
    assert len(claim(db, free=3)) == 3
    assert claim(db, free=0) == []
    assert len(claim(db)) == 7


def test_what_is_not_due_yet_is_left(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1"), now=NOW + minutes(1))
    assert claim(db) == []
    assert claimed_ids(db, now=NOW + minutes(1)) == ["d1"]


def test_a_notifier_that_the_record_does_not_know_is_told_nothing(db: Database) -> None:
    put(db, new_delivery("d1", to="unknown"))
    assert claim(db) == []


# --- order --------------------------------------------------------------------------------------------------


def test_a_lane_is_told_one_after_the_other(db: Database) -> None:
    know(db, "cms")
    put(
        db,
        new_delivery("a1", key="a"),
        new_delivery("b1", key="b"),
        new_delivery("a2", key="a"),
        new_delivery("free"),
    )
    first = claim(db)
    assert [d.id for d in first] == ["a1", "b1", "free"]
    assert claim(db) == []
    settle(db, ended(first[0], Sent()))
    assert claimed_ids(db) == ["a2"]


def test_lanes_of_two_notifiers_do_not_wait_for_each_other(db: Database) -> None:
    know(db, "cms", "ops")
    put(
        db,
        new_delivery("c1", key="a"),
        new_delivery("o1", to="ops", key="a"),
        new_delivery("o2", to="ops", key="a"),
    )
    assert sorted(claimed_ids(db)) == ["c1", "o1"]


def test_those_behind_one_that_is_tried_later_wait_as_long(db: Database) -> None:
    know(db, "cms")
    put(
        db,
        new_delivery("a1", key="a"),
        new_delivery("a2", key="a"),
        new_delivery("b1", key="b"),
    )
    first, other = claim(db)
    settle(db, ended(first, RetryLater("503"), again_at=NOW + hours(1)), ended(other, Sent()))
    assert row_of(db, deliveries, id="a2")["due_at"] == ms(NOW + hours(1))
    assert claim(db, now=NOW + minutes(59)) == []
    (again,) = claim(db, now=NOW + hours(1))
    assert (again.id, again.attempts) == ("a1", 2)


def test_those_behind_go_at_once_when_the_first_was_sent_at_last(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("a1", key="a"), new_delivery("a2", key="a"))
    settle(db, ended(claim(db)[0], RetryLater("503"), again_at=NOW + minutes(1)))
    put(db, new_delivery("a3", key="a"), now=NOW + seconds(1))
    (again,) = claim(db, now=NOW + minutes(1))
    settle(db, ended(again, RetryLater("503"), again_at=NOW + hours(1)), now=NOW + minutes(1))
    (again,) = claim(db, now=NOW + hours(1))
    assert again.id == "a1"
    # As after a redrive of the first alone: the others wait till later than now.
    settle(db, ended(again, Sent()), now=NOW + minutes(30))
    assert claimed_ids(db, now=NOW + minutes(30)) == ["a2"]


def test_those_behind_go_at_once_when_the_first_is_dead(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("a1", key="a"), new_delivery("a2", key="a"))
    settle(db, ended(claim(db)[0], RetryLater("503"), again_at=NOW + hours(1)))
    (again,) = claim(db, now=NOW + hours(1))
    settle(db, ended(again, Rejected("no")), now=NOW + minutes(30))
    assert claimed_ids(db, now=NOW + minutes(30)) == ["a2"]


def test_one_that_is_redriven_goes_before_those_behind_it(db: Database) -> None:
    know(db, "cms")
    put(
        db,
        new_delivery("a1", key="a"),
        new_delivery("a2", key="a"),
        new_delivery("a3", key="a"),
    )
    settle(db, ended(claim(db)[0], Rejected("no")))
    (second,) = claim(db)
    write(db, entries.redrive, deliveries.select().with_only_columns(deliveries.c.n), now=NOW)
    assert claim(db) == []  # the second is being sent
    settle(db, ended(second, Sent()))
    assert claimed_ids(db) == ["a1"]


@only_postgresql
def test_a_redrive_between_two_claims_never_sends_two_of_a_lane_at_once(
    db: Database, db_url: str, opened: Opener
) -> None:
    know(db, "cms")
    put(db, new_delivery("a1", key="a"), new_delivery("a2", key="a"))
    settle(db, ended(claim(db)[0], Rejected("no")))
    other = opened(db_url)
    with other.write() as redriving:
        entries.redrive(redriving, deliveries.select().with_only_columns(deliveries.c.n), now=NOW)
        assert claimed_ids(db) == ["a2"]  # it does not see the first yet
    assert claimed_ids(other) == []


# --- bounds -------------------------------------------------------------------------------------------------


def test_a_notifier_has_no_more_in_flight_than_it_may(db: Database) -> None:
    know(db, Notifier(name="cms", max_in_flight=2))
    put(db, *[new_delivery(f"d{n}") for n in range(5)])
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
    put(db, *[new_delivery(f"d{n}") for n in range(20)], new_delivery("o1", to="ops"))
    with db.write() as mine:
        claimed = claims.claim(mine, free=64, lease="w1.1", lease_for=LEASE, now=NOW).deliveries
        # The other one looks while the first claim is not committed, waits for nobody, and goes away empty.
        assert claim(opened(db_url), worker="w2") == []
    assert len(claimed) == 5
    assert claim(db, worker="w2") == []


def test_every_notifier_gets_its_turn_to_be_first(db: Database) -> None:
    know(db, "a", "b", "c")
    put(db, *[new_delivery(f"{to}{n}", to=to) for to in "abc" for n in range(100)])
    told = Counter(d.notifier for turn in range(12) for d in claim(db, free=1, turn=turn))
    assert told == {"a": 4, "b": 4, "c": 4}


def test_a_notifier_that_asked_everyone_to_wait_delays_no_other(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, new_delivery("c1"), new_delivery("c2"), new_delivery("o1", to="ops"))
    (first,) = claim(db, free=1)
    settle(db, ended(first, RetryLater("429", after=minutes(5), whole_notifier=True), again_at=NOW + minutes(5)))
    assert claimed_ids(db, now=NOW + minutes(4)) == ["o1"]
    assert sorted(claimed_ids(db, now=NOW + minutes(5))) == ["c1", "c2"]


def test_a_shorter_wish_does_not_shorten_a_longer_one(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1"), new_delivery("d2"), new_delivery("d3"))
    first, second = claim(db, free=2)
    settle(db, ended(first, RetryLater("429", whole_notifier=True), again_at=NOW + hours(1)))
    settle(db, ended(second, RetryLater("429", whole_notifier=True), again_at=NOW + minutes(1)))
    assert claim(db, now=NOW + minutes(59)) == []


# --- rate ---------------------------------------------------------------------------------------------------

_TEN_A_SECOND = Notifier(name="cms", rate=Rate(count=10, per=seconds(1)), max_in_flight=64)


def test_a_rate_lets_a_burst_through_and_then_one_an_interval(db: Database) -> None:
    know(db, _TEN_A_SECOND)
    put(db, *[new_delivery(f"d{n}") for n in range(30)])
    found = claim_all(db)
    assert (len(found.deliveries), found.again_at) == (10, None)
    waiting = claim_all(db)
    assert (waiting.deliveries, waiting.again_at) == ((), NOW + seconds(0.1))
    assert len(claim(db, now=NOW + seconds(0.1))) == 1
    assert len(claim(db, now=NOW + seconds(0.5))) == 4  # 0.2, 0.3, 0.4, 0.5
    assert len(claim(db, now=NOW + hours(1))) == 10  # a long rest saves up one burst, no more


def test_two_workers_share_the_rate_of_a_notifier(db: Database, db_url: str, opened: Opener) -> None:
    know(db, _TEN_A_SECOND)
    put(db, *[new_delivery(f"d{n}") for n in range(100)])
    other = opened(db_url)
    told = 0
    for tick in range(20):  # two seconds: a burst of 10, and one for each 0.1 s after
        now = NOW + seconds(tick / 10)
        told += len(claim(db, now=now, worker="w1")) + len(claim(other, now=now, worker="w2"))
    assert told == 10 + 19


def test_a_notifier_at_its_rate_delays_no_other(db: Database) -> None:
    know(db, _TEN_A_SECOND, "ops")
    put(db, *[new_delivery(f"d{n}") for n in range(20)])
    claim(db)
    put(db, new_delivery("o1", to="ops"))
    assert claimed_ids(db) == ["o1"]


def test_what_a_lane_holds_back_uses_up_no_rate(db: Database) -> None:
    know(db, Notifier(name="cms", rate=Rate(count=2, per=minutes(1)), max_in_flight=64))
    put(db, new_delivery("a1", key="a"), new_delivery("a2", key="a"))
    assert claimed_ids(db) == ["a1"]
    for _ in range(3):
        assert claim(db) == []
    put(db, new_delivery("b1", key="b"))
    assert claimed_ids(db) == ["b1"]


def test_a_rate_from_before_the_clock_was_set_back_does_not_silence_a_notifier(db: Database) -> None:
    know(db, _TEN_A_SECOND)
    put(db, *[new_delivery(f"d{n}") for n in range(12)], now=NOW - hours(5))
    assert len(claim(db)) == 10
    assert len(claim(db, now=NOW - hours(4))) == 2


# --- paused -------------------------------------------------------------------------------------------------


def _claim_paused(db: Database, name: str, most: int = 64) -> list[str]:
    found = write(db, claims.claim_paused, name, lease="w1.p", lease_for=LEASE, now=NOW, most=most)
    return [one.id for one in found]


def test_what_waits_for_a_paused_notifier_can_be_taken_to_be_told_elsewhere(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, new_delivery("d1"), new_delivery("d2"), new_delivery("o1", to="ops"))
    put(db, new_delivery("later"), now=NOW + hours(1))
    with db.write() as tx:
        entries.pause(tx, "cms", "410", now=NOW)
        assert claims.paused_and_waiting(tx) == [("cms", "410")]
    assert _claim_paused(db, "cms", most=2) == ["d1", "d2"]
    assert _claim_paused(db, "cms") == ["later"]
    assert read(db, claims.paused_and_waiting) == []


def test_nothing_is_taken_from_a_notifier_that_was_resumed_meanwhile(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1"))
    assert _claim_paused(db, "cms") == []
    assert claimed_ids(db) == ["d1"]


# --- the breaker --------------------------------------------------------------------------------------------


def _fail(db: Database, name: str, count: int) -> None:
    write(db, entries.failed, name, count, broken_at=BROKEN_AT, run=seconds(0))


def test_of_a_notifier_that_failed_too_often_one_at_a_time_is_claimed(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, *[new_delivery(f"d{n}") for n in range(5)], new_delivery("o1", to="ops"))
    _fail(db, "cms", 4)
    assert set(claimed_ids(db, broken_at=4)) == {"d0", "o1"}
    assert claimed_ids(db, broken_at=4) == []


def test_failures_that_are_fewer_than_too_often_change_nothing_and_are_said(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, *[new_delivery(f"d{n}") for n in range(3)], new_delivery("o1", to="ops"))
    _fail(db, "cms", 2)
    found = claim_all(db, broken_at=3)
    assert len(found.deliveries) == 4
    assert found.failing == {"cms"}


def test_a_notifier_that_was_told_something_counts_anew(db: Database) -> None:
    know(db, "cms")
    _fail(db, "cms", 9)
    with db.write() as tx:
        entries.recovered(tx, "cms", broken_at=BROKEN_AT)
        assert entries.failed(tx, "cms", 2, broken_at=BROKEN_AT, run=seconds(0)) == 2


def test_many_failures_at_once_are_one_piece_of_bad_news(db: Database) -> None:
    know(db, "cms")
    with db.write() as tx:
        counts = [entries.failed(tx, "cms", count, broken_at=BROKEN_AT, run=seconds(0)) for count in (3, 32, 32, 1)]
    assert counts == [3, 10, 11, 12]


@pytest.mark.parametrize(("failures", "waits"), [(BROKEN_AT, False), (BROKEN_AT - 1, True)])
def test_who_answers_again_is_left_alone_no_longer_but_what_he_asked_for_counts(
    db: Database, failures: int, waits: bool
) -> None:
    know(db, "cms")
    _fail(db, "cms", failures)
    with db.write() as tx:
        entries.hold(tx, "cms", NOW + minutes(1))
        entries.recovered(tx, "cms", broken_at=BROKEN_AT)
    put(db, new_delivery("d1"))
    assert claimed_ids(db) == ([] if waits else ["d1"])


def test_of_a_notifier_that_failed_the_oldest_and_the_newest_are_told_by_turns(db: Database) -> None:
    know(db, "cms")
    _fail(db, "cms", BROKEN_AT)
    put(db, new_delivery("old"), now=NOW - hours(1))
    put(db, new_delivery("new"))
    asked = []
    for newest in ((), {"cms"}, ()):
        (probe,) = claim(db, broken_at=BROKEN_AT, newest=newest)
        asked.append(probe.id)
        write(db, results.hand_back, [probe])
    assert asked == ["old", "new", "old"]


def test_a_notifier_that_was_resumed_counts_anew(db: Database) -> None:
    know(db, "cms")
    _fail(db, "cms", BROKEN_AT)
    write(db, entries.resume, "cms")
    put(db, *[new_delivery(f"d{n}") for n in range(3)])
    assert len(claim(db, broken_at=BROKEN_AT)) == 3


@pytest.mark.parametrize(("failures", "found"), [(BROKEN_AT, ["old", "tried"]), (BROKEN_AT - 1, [])])
def test_what_waited_too_long_is_claimed_to_be_given_up_only_if_the_notifier_is_left_alone(
    db: Database, failures: int, found: list[str]
) -> None:
    know(db, "cms", "ops")
    put(
        db,
        new_delivery("old"),
        new_delivery("tried", key="b"),
        new_delivery("o1", to="ops"),
        new_delivery("young"),
    )
    _fail(db, "cms", failures)
    numbers = [row["n"] for row in rows(db, deliveries) if row["id"] != "young"]
    with db.write() as tx:
        claimed = claims.claim_hopeless(
            tx, "cms", numbers, broken_at=BROKEN_AT, lease="w1.h", lease_for=LEASE, now=NOW + hours(3)
        )
    assert [one.id for one in claimed] == found


def test_what_is_due_is_looked_at_a_few_at_a_time(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, *[new_delivery(f"d{n}") for n in range(5)], new_delivery("o1", to="ops"))
    put(db, new_delivery("later"), now=NOW + minutes(1))
    seen, after = list[int](), (0, 0)
    with db.read() as tx:
        while page := claims.due(tx, "cms", after=after, now=NOW, most=2):
            seen += [one.n for one in page]
            after = (page[-1].due_at, page[-1].n)
    assert seen == [row["n"] for row in rows(db, deliveries) if row["id"].startswith("d")]


def test_a_probe_begins_the_retry_time_of_what_was_never_tried(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1"), new_delivery("d2"))
    numbers = [row["n"] for row in rows(db, deliveries)]
    with db.write() as tx:
        claims.begin_retry(tx, numbers[:1], seconds(5))
        claims.begin_retry(tx, numbers, seconds(9))
    assert [row["retry_from"] for row in rows(db, deliveries)] == [5_000, 9_000]


# --- threads ------------------------------------------------------------------------------------------------


def test_the_receipt_of_the_first_message_of_a_thread_is_seen_by_the_next(db: Database) -> None:
    know(db, "ops", "cms")
    put(db, *[new_delivery(f"o{n}", to="ops", key="t", thread="t") for n in (1, 2, 3)])
    put(db, new_delivery("c1", key="t", thread="t"))
    first, other = sorted(claim(db), key=lambda d: d.notifier, reverse=True)
    assert (first.id, first.root, other.id) == ("o1", None, "c1")
    settle(db, ended(first, Sent("C1 171.1")), ended(other, Sent()))
    (second,) = claim(db)
    assert second.root == "C1 171.1"
    settle(db, ended(second, Sent("C1 171.2")))  # a new root, where the old one was deleted
    assert claim(db)[0].root == "C1 171.2"


@pytest.mark.parametrize("failures", [0, BROKEN_AT])
def test_what_is_to_go_out_at_once_does_so_alone_whatever_its_notifier_waits_for(db: Database, failures: int) -> None:
    know(db, "cms")
    put(db, *[new_delivery(f"d{n}") for n in range(3)])
    put(db, new_delivery("asked"), at_once=True)
    with db.write() as tx:
        tx.execute(notifiers.update().values(failures=failures))
        entries.hold(tx, "cms", NOW + minutes(1))
    assert claimed_ids(db, broken_at=BROKEN_AT) == ["asked"]
    assert claimed_ids(db, broken_at=BROKEN_AT) == []


def test_what_is_to_go_out_at_once_waits_for_no_probe_that_is_under_way(db: Database) -> None:
    know(db, "cms")
    put(db, *[new_delivery(f"d{n}") for n in range(3)])
    execute(db, notifiers.update().values(failures=BROKEN_AT))
    assert claimed_ids(db, broken_at=BROKEN_AT) == ["d0"]
    put(db, new_delivery("asked"), at_once=True)
    assert claimed_ids(db, broken_at=BROKEN_AT, newest={"cms"}) == ["asked"]
    assert claimed_ids(db, broken_at=BROKEN_AT) == []


def test_what_is_to_go_out_at_once_is_first_and_goes_to_no_notifier_that_is_paused_or_has_no_place(
    db: Database,
) -> None:
    know(db, Notifier(name="cms", max_in_flight=1), "ops")
    put(db, new_delivery("d1"))
    put(db, new_delivery("asked"), at_once=True)
    assert claimed_ids(db) == ["asked"]
    put(db, new_delivery("again"), at_once=True)
    assert claimed_ids(db) == []
    put(db, new_delivery("paused", to="ops"), at_once=True)
    write(db, entries.pause, "ops", "410", now=NOW)
    assert claimed_ids(db) == []


def test_only_one_that_may_go_out_is_urged_and_none_while_one_is_sent(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1", key="j1"), new_delivery("d2", key="j1"), new_delivery("d3"))
    numbers = {row["id"]: row["n"] for row in rows(db, deliveries)}
    urge(db, numbers["d2"], numbers["d3"])
    assert [row["id"] for row in rows(db, deliveries) if row["due_at"] == claims.AT_ONCE] == ["d3"]
    assert claimed_ids(db, free=1) == ["d3"]
    urge(db, numbers["d1"])
    assert all(row["due_at"] != claims.AT_ONCE for row in rows(db, deliveries) if row["id"] != "d3")


def urge(db: Database, *numbers: int) -> None:
    write(db, claims.urge, "cms", numbers, now=NOW)
