from __future__ import annotations

import pytest

from bridge.model import Rejected, RetryLater, Sent
from bridge.record.database import Database, ms
from bridge.record.outbox import entries
from bridge.record.queries import lists
from bridge.record.schema import deliveries, messages, notifiers
from tests.support.records import (
    NOW,
    a_message,
    claim,
    claimed_ids,
    ended,
    hours,
    know,
    new_delivery,
    put,
    read,
    row_of,
    rows,
    settle,
    write,
)


@pytest.fixture(autouse=True)
def _known(request: pytest.FixtureRequest) -> None:
    if "db" in request.fixturenames:
        know(request.getfixturevalue("db"), "cms", "ops")


def test_what_is_put_twice_is_told_once(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"))
    claim(db, free=1)
    put(db, new_delivery("d1"), new_delivery("d2"), new_delivery("d3"), now=NOW + hours(1))
    assert [(row["id"], row["state"]) for row in rows(db, deliveries)] == [("d1", 1), ("d2", 0), ("d3", 0)]
    assert len(rows(db, messages)) == 3


def test_putting_nothing_is_allowed(db: Database) -> None:
    put(db)
    assert rows(db, deliveries) == []


def test_one_message_to_two_notifiers_is_stored_once(db: Database) -> None:
    told = a_message(event={"text": '转码 "ok"'}, fields=(("queue", "vod"),), job_id="j1", state="Success", rule="r")
    put(db, new_delivery("d1", message=told), new_delivery("d2", to="ops", message=told, note="a note", thread="t"))
    first, second = claim(db)
    assert (first.event, first.says, first.happened_at) == (second.event, second.says, NOW)
    assert first.event == '{"text":"转码 \\"ok\\""}'
    assert (second.note, second.thread, second.root) == ("a note", "t", None)
    assert read(db, entries.message_of, second.n) == told


def _dead(db: Database, id_: str = "d1") -> None:
    put(db, new_delivery(id_))
    (mine,) = claim(db)
    settle(db, ended(mine, RetryLater("down"), again_at=NOW, retry_from=hours(1), retry_due=hours(1)))
    (mine,) = claim(db)
    settle(db, ended(mine, RetryLater("down")), now=NOW + hours(24))


def test_a_dead_delivery_is_sent_again_under_its_own_id(db: Database) -> None:
    _dead(db)
    assert claim(db, now=NOW + hours(25)) == []
    assert write(db, entries.redrive, lists.numbers_of(["d1"]), now=NOW + hours(30)) == ["d1"]
    (again,) = claim(db, now=NOW + hours(30))
    assert (again.id, again.attempts) == ("d1", 1)
    assert (again.retry_from, again.retry_due) == (None, None)  # so the retry time and the schedule begin anew
    assert row_of(db, deliveries, id="d1")["created_at"] == ms(NOW)  # but it is not a younger one
    settle(db, ended(again, Sent()))
    assert row_of(db, deliveries, id="d1")["why"] is None


def test_only_dead_deliveries_are_redriven(db: Database) -> None:
    _dead(db)
    put(db, new_delivery("waiting"), new_delivery("sent"))
    settle(db, *[ended(one, Sent()) for one in claim(db) if one.id == "sent"])
    with db.write() as tx:
        every = lists.numbers_of(["d1", "waiting", "sent", "unknown"])
        assert entries.redrive(tx, every, now=NOW) == ["d1"]
        assert entries.redrive(tx, every, now=NOW) == []


def test_a_paused_notifier_is_told_nothing_until_it_is_resumed(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2", to="ops"))
    with db.write() as tx:
        entries.pause(tx, "cms", "being repaired", now=NOW)
        entries.pause(tx, "cms", "a second reason", now=NOW + hours(1))
    assert claimed_ids(db) == ["d2"]
    paused = row_of(db, notifiers, name="cms")
    assert (paused["paused_at"], paused["paused_why"]) == (ms(NOW), "being repaired")
    with db.write() as tx:
        assert entries.resume(tx, "cms")
        assert not entries.resume(tx, "nobody")
    assert claimed_ids(db) == ["d1"]


def test_resuming_ends_the_wait_that_a_receiver_asked_for(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"))
    (first,) = claim(db, free=1)
    settle(db, ended(first, RetryLater("429", whole_notifier=True), again_at=NOW + hours(1)))
    assert claimed_ids(db) == []
    write(db, entries.resume, "cms")
    assert claimed_ids(db) == ["d2"]


def test_a_refused_delivery_can_be_redriven_too(db: Database) -> None:
    put(db, new_delivery("d1"))
    (mine,) = claim(db)
    settle(db, ended(mine, Rejected("not this one")))
    assert write(db, entries.redrive, lists.numbers_of(["d1"]), now=NOW) == ["d1"]
    assert claimed_ids(db) == ["d1"]
