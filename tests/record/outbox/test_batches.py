"""Batches: many that are resent at a rate, each once, in order, and in nobody's way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from bridge.model import Rate, Rejected, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.pipeline.operations import OperationRefused
from bridge.record.clocks import rewind
from bridge.record.database import Database, ms
from bridge.record.outbox import batches, claims, entries
from bridge.record.outbox.batches import Batch
from bridge.record.outbox.claims import LATE
from bridge.record.polling import leases
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import DEAD, DROPPED, WAITING, deliveries
from tests.conftest import Opener, only_postgresql, only_sqlite
from tests.support.nouns import LEASE, NOW, a_message, batch_id, by_hand, hours, minutes, new_delivery, seconds
from tests.support.records import claim, claimed_ids, ended, know, put, read, row_of, rows, settle, write

CMS = Filter(state="dead", notifier="cms")
A_SECOND = seconds(1)
FIRST = batch_id()


def bury(db: Database, *ids: str, to: str = "cms", state: int = DEAD, key: str | None = None, **facts: Any) -> None:
    put(db, *(new_delivery(one, to, key=key, message=a_message(f"m-{one}", **facts)) for one in ids))
    with db.write() as tx:
        these = update(deliveries).where(deliveries.c.id.in_(ids))
        tx.execute(these.values(state=state, ended_at=ms(NOW), attempts=3, why="answered 500"))


def again(
    db: Database, which: Filter = CMS, *, every: timedelta = A_SECOND, nonce: str = "1", now: datetime = NOW
) -> Batch:
    return by_hand(db, now=now, nonce=nonce).redrive_batch(which, interval=every, at_once=7)


def cancel(db: Database, *, now: datetime = NOW) -> tuple[Batch, int]:
    return by_hand(db, now=now, who="ben").cancel_batch(FIRST, at_once=7)


def standing(db: Database, id_: str = FIRST, *, now: datetime = NOW) -> Batch:
    found = read(db, batches.progress, id_, now=now)
    assert found
    return found


def dues(db: Database) -> dict[str, timedelta]:
    """When those that wait are due, after NOW."""
    found = [row for row in rows(db, deliveries) if row["state"] == WAITING]
    return {row["id"]: timedelta(milliseconds=row["due_at"] - ms(NOW)) for row in found}


def send(db: Database, now: datetime = NOW, **how: Any) -> list[str]:
    """Send what can be claimed; return the ids."""
    claimed = claim(db, now=now, **how)
    settle(db, *(ended(delivery, Sent()) for delivery in claimed), now=now)
    return [delivery.id for delivery in claimed]


def names(count: int) -> list[str]:
    return [f"d{number:03}" for number in range(count)]


def test_what_is_dead_waits_again_under_its_id_one_an_interval(db: Database) -> None:
    bury(db, *names(30))
    put(db, new_delivery("alive"))
    assert again(db) == Batch(id=FIRST, scheduled=29, waiting=1, last_due_at=NOW + seconds(29))
    assert dues(db) == {name: seconds(place) for place, name in enumerate(names(30))} | {"alive": seconds(0)}
    first = row_of(db, deliveries, id="d005")
    assert (first["attempts"], first["why"], first["ended_at"]) == (0, "sent again by hand", None)


def test_a_filter_says_which(db: Database) -> None:
    bury(db, "c1", rule="all", job_id="j1")
    bury(db, "c2", rule="failed", job_id="j2")
    bury(db, "o1", to="ops", rule="all", job_id="j1")
    bury(db, "x1", state=DROPPED, rule="all")
    for which, expected in (
        ({"notifier": "cms"}, ["c1", "c2"]),
        ({"rule": "all"}, ["c1", "o1"]),
        ({"job": "j2"}, ["c2"]),
        ({"notifier": "cms", "rule": "all"}, ["c1"]),
        ({"since": NOW}, ["c1", "c2", "o1"]),
        ({"since": NOW + seconds(1)}, []),
        ({"until": NOW}, []),
        ({"digest": "dlv_none"}, []),
        ({"state": "dropped", "rule": "all"}, ["x1"]),
    ):
        wanted = Filter(**{"state": "dead", **which})
        assert read(db, batches.count, wanted) == len(expected)
        ids = {row["n"]: row["id"] for row in rows(db, deliveries)}
        assert [ids[n] for n in read(db, batches.numbers, wanted, most=9)] == expected
    assert again(db, Filter(state="dead", rule="all")).total == 2
    assert list(dues(db)) == ["c1", "o1"]


@only_sqlite
def test_a_batch_may_be_empty_and_has_a_bound(db: Database) -> None:
    assert again(db) == Batch(id=FIRST)
    assert read(db, batches.progress, FIRST, now=NOW) is None
    bury(db, *names(3))
    with pytest.raises(OperationRefused, match="there are more such deliveries than the 2 that one batch may have"):
        by_hand(db).redrive_batch(CMS, interval=seconds(1), largest=2)
    assert dues(db) == {}


def test_progress_is_a_count_of_its_deliveries(db: Database) -> None:
    know(db, "cms")
    bury(db, *names(6))
    again(db)
    for outcome, again_at in ((Sent(), None), (Rejected("no"), None), (RetryLater("busy"), NOW + hours(1))):
        settle(
            db, *(ended(delivery, outcome, again_at=again_at) for delivery in claim(db, now=NOW + seconds(2), free=1))
        )
    claim(db, now=NOW + seconds(3))
    moment = NOW + seconds(4)
    assert standing(db, now=moment) == Batch(
        id=FIRST, scheduled=2, waiting=1, sending=1, sent=1, dead=1, last_due_at=NOW + hours(1)
    )
    with db.read() as tx:
        assert [row["batch"] for row in lists.find_deliveries(tx, Filter(batch=FIRST, state="dead")).items] == [FIRST]


def test_batches_under_way_are_those_of_which_something_waits(db: Database) -> None:
    know(db, "cms", "ops")
    bury(db, "c1", "c2")
    bury(db, "o1", to="ops")
    again(db, every=hours(1), nonce="long")
    again(db, Filter(state="dead", notifier="ops"), nonce="short")
    found = read(db, batches.under_way, now=NOW)
    assert [(batch.id, batch.scheduled, batch.waiting) for batch in found] == [
        (batch_id("short"), 0, 1),
        (batch_id("long"), 1, 1),
    ]
    send(db)
    with db.read() as tx:
        assert [batch.id for batch in batches.under_way(tx, now=NOW)] == [batch_id("long")]


# --- in order, and in nobody's way ------------------------------------------------------------------------------


def test_what_is_not_due_yet_stands_in_nobodys_way(db: Database) -> None:
    know(db, "cms")
    bury(db, "a1", "a2", key="a")
    again(db, every=hours(1), now=NOW + hours(1))
    put(db, new_delivery("a3", key="a"))
    assert claimed_ids(db) == ["a3"]


def test_what_is_due_goes_in_the_order_of_its_key(db: Database) -> None:
    know(db, "cms")
    bury(db, "a1", "a2", key="a")
    again(db)
    put(db, new_delivery("a3", key="a"))
    assert [id_ for _ in range(3) for id_ in send(db, NOW + seconds(5))] == ["a1", "a2", "a3"]


def test_one_that_was_tried_and_waits_holds_up_those_behind(db: Database) -> None:
    know(db, "cms")
    bury(db, "a1", "a2", key="a")
    again(db)
    settle(db, *(ended(delivery, RetryLater("busy"), again_at=NOW + minutes(1)) for delivery in claim(db)))
    put(db, new_delivery("a3", key="a"))
    assert claim(db, now=NOW + seconds(59)) == []
    assert claimed_ids(db, now=NOW + minutes(1)) == ["a1"]


@only_postgresql
def test_a_batch_that_is_made_between_two_claims_never_sends_two_of_one_key_at_once(
    db: Database, db_url: str, opened: Opener
) -> None:
    know(db, "cms")
    bury(db, "a1", key="a")
    put(db, new_delivery("a2", key="a"))
    other = opened(db_url)
    with other.write() as tx:
        (number,) = batches.numbers(tx, CMS, most=7)
        batches.resend(tx, FIRST, {number: NOW})
        assert claimed_ids(db) == ["a2"]  # it does not see the first yet
    assert claimed_ids(other) == []


@pytest.mark.parametrize("rate", [Rate(count=1, per=seconds(1)), None])
def test_what_is_new_does_not_wait_behind_a_batch(db: Database, rate: Rate | None) -> None:
    know(db, Notifier(name="cms", rate=rate, max_in_flight=1))
    bury(db, *names(200))
    again(db, every=seconds(0.01))
    sent: list[str] = []
    for second in range(60):
        if second == 30:
            put(db, new_delivery("new"), now=NOW + seconds(second))
        sent += send(db, NOW + seconds(second), newest={"cms"} if second % 2 else ())
    assert sent.index("new") in (30, 31)
    assert [id_ for id_ in sent if id_ != "new"] == names(59)  # and nobody idles


@only_sqlite
def test_of_what_is_new_the_oldest_goes_first_and_takes_turns_with_the_batch(db: Database) -> None:
    know(db, Notifier(name="cms", max_in_flight=1))
    bury(db, *names(5))
    again(db, every=seconds(0))
    put(db, new_delivery("new1"), new_delivery("new2"), now=NOW + seconds(1))
    turns = [send(db, NOW + LATE, newest={"cms"} if turn % 2 else ()) for turn in range(4)]
    assert turns == [["d000"], ["new1"], ["d001"], ["new2"]]


@only_sqlite
def test_a_backlog_that_is_no_batch_goes_in_its_order(db: Database) -> None:
    know(db, Notifier(name="cms", max_in_flight=1))
    put(db, new_delivery("old"))
    put(db, new_delivery("new"), now=NOW + hours(1))
    assert claimed_ids(db, now=NOW + hours(1), newest={"cms"}) == ["old"]


def test_a_fallback_is_told_no_faster_than_the_batch_becomes_due(db: Database) -> None:
    know(db, "cms")
    bury(db, "d1", "d2", "d3")
    again(db, every=minutes(1))
    put(db, new_delivery("later"), now=NOW + hours(1))
    write(db, entries.pause, "cms", "410", now=NOW)
    for minute, expected in enumerate((["d1", "later"], ["d2"])):
        lease = {"lease": f"w1.{minute}", "lease_for": LEASE, "now": NOW + minutes(minute)}
        claimed = write(db, claims.claim_paused, "cms", most=9, **lease)
        assert [delivery.id for delivery in claimed] == expected


@only_sqlite
def test_what_is_not_due_yet_is_not_late(db: Database) -> None:
    know(db, "cms")
    bury(db, "d1")
    again(db, now=NOW + hours(2))
    (row,) = read(db, gauges.read_notifiers)
    assert (row["waiting"], row["oldest_waiting_at"]) == (1, "2026-11-21T11:00:00.000Z")


# --- cancelling -------------------------------------------------------------------------------------------------


def test_cancelling_lets_what_is_not_due_yet_be_dead_again(db: Database) -> None:
    bury(db, *names(30))
    again(db)
    moment = NOW + seconds(10)
    left, cancelled = cancel(db, now=moment)
    assert (left, cancelled) == (Batch(id=FIRST, waiting=11, dead=19), 19)
    assert list(dues(db)) == names(11)
    one = row_of(db, deliveries, id="d020")
    assert (one["state"], one["ended_at"], one["why"]) == (DEAD, ms(moment), "its batch was cancelled")
    assert cancel(db, now=moment)[1] == 0


def test_cancelling_touches_no_other_batch_and_what_was_cancelled_can_be_resent(db: Database) -> None:
    bury(db, *names(3))
    bury(db, "o1", "o2", to="ops")
    again(db)
    again(db, Filter(state="dead", notifier="ops"), nonce="2")
    assert cancel(db)[1] == 2
    assert list(dues(db)) == ["d000", "o1", "o2"]
    with pytest.raises(OperationRefused, match='there is no batch "rdr_3"'):
        by_hand(db).cancel_batch("rdr_3")
    assert again(db, Filter(state="dead", batch=FIRST), nonce="3").total == 2
    assert standing(db).total == 1


# --- each once, whoever else is about -----------------------------------------------------------------------------


def test_one_that_is_resent_alone_belongs_to_no_batch(db: Database) -> None:
    know(db, "cms")
    bury(db, "d1", "d2")
    again(db, every=hours(1))
    settle(db, *(ended(delivery, Rejected("no")) for delivery in claim(db)))
    write(db, entries.redrive, select(deliveries.c.n).where(deliveries.c.id == "d1"), now=NOW)
    assert standing(db).total == 1
    assert cancel(db, now=NOW - seconds(1)) == (Batch(id=FIRST, dead=1), 1)


def test_any_number_of_people_who_resend_at_once_resend_each_once(db: Database, db_url: str, opened: Opener) -> None:
    bury(db, *names(300))
    others = [opened(db_url) for _ in range(3)]

    def work(place: int) -> int:
        return again(others[place], replace(CMS, until=NOW + hours(1)), nonce=str(place)).total

    with ThreadPoolExecutor(len(others)) as pool:
        assert sum(pool.map(work, range(len(others)))) == 300
    assert sorted(dues(db)) == names(300)


def test_whoever_dies_on_the_way_leaves_the_rest_as_it_was(db: Database) -> None:
    bury(db, *names(10))
    with db.engine.connect() as tx:  # which is closed without a commit, as SIGKILL would
        numbers = batches.numbers(tx, CMS, most=7)
        assert batches.resend(tx, FIRST, dict.fromkeys(numbers, NOW)) == 7
    assert dues(db) == {}
    assert write(db, batches.resend, FIRST, dict.fromkeys(numbers, NOW)) == 7
    assert again(db, nonce="2").total == 3


def test_a_large_batch_is_made_in_small_transactions(db: Database, db_url: str, opened: Opener) -> None:
    """Between any two of them others write, and each is a few statements for some hundred deliveries."""
    bury(db, *names(1_100))
    sizes: list[int] = []
    event.listen(
        db.engine, "after_cursor_execute",
        lambda *seen: sizes.append(seen[1].rowcount) if seen[2].startswith("UPDATE delivery") else None,
    )  # fmt: skip
    assert by_hand(db).redrive_batch(CMS, interval=seconds(1)).total == 1_100
    assert sum(sizes) == 1_100
    assert max(sizes) <= 500


@only_sqlite
def test_a_batch_goes_on_when_the_clock_was_set_back(db: Database) -> None:
    know(db, "cms")
    bury(db, "d1", "d2")
    again(db, every=minutes(1))
    assert claimed_ids(db) == ["d1"]
    write(db, leases.register, "w1", machine="m", pid=1, now=NOW)
    assert write(db, rewind, now=NOW - hours(1)) == hours(1)
    assert claimed_ids(db, now=NOW - hours(1) + seconds(59)) == []
    assert claimed_ids(db, now=NOW - hours(1) + minutes(1)) == ["d2"]


# --- what is discarded ----------------------------------------------------------------------------------------------


def test_what_is_discarded_keeps_nothing_waiting_and_is_resent_at_its_place(db: Database) -> None:
    know(db, "cms")
    bury(db, "d1", "d2", key="j1")
    put(db, new_delivery("d3", key="j1"))
    assert by_hand(db, now=NOW).discard_chosen(["d1"], "not needed") == ["d1"]
    assert claimed_ids(db) == ["d3"]
    assert by_hand(db, now=NOW).redrive_chosen(["d1"]) == ["d1"]
    assert row_of(db, deliveries, id="d1")["why"] == "sent again by hand"


def test_a_batch_that_was_discarded_holds_none_that_died_or_was_resent_since(db: Database) -> None:
    know(db, "cms")
    bury(db, *(f"d{n}" for n in range(20)))
    gone = by_hand(db, now=NOW).discard_batch(CMS, "shut down", at_once=7)
    bury(db, "later")
    by_hand(db, now=NOW).redrive_chosen(["d3"])
    assert standing(db, gone.id) == Batch(id=gone.id, discarded=19)
    assert read(db, batches.under_way, now=NOW) == []
    assert standing(db, again(db, Filter(state="discarded", batch=gone.id)).id).total == 19
    assert read(db, batches.progress, gone.id, now=NOW) is None
