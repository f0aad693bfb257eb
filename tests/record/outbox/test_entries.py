from __future__ import annotations

import pytest

from bridge.model import RetryLater, Sent
from bridge.record.database import Database, ms
from bridge.record.outbox import entries
from bridge.record.queries import lists
from bridge.record.schema import deliveries, messages, notifiers
from tests.support.nouns import NOW, a_message, hours, new_delivery
from tests.support.records import claim, claimed_ids, ended, know, put, read, row_of, rows, settle, write


@pytest.fixture(autouse=True)
def _known(db: Database) -> None:
    know(db, "cms", "ops")


def test_what_is_put_twice_is_sent_once(db: Database) -> None:
    put(db)
    put(db, new_delivery("d1"), new_delivery("d2"))
    claim(db, free=1)
    put(db, new_delivery("d1"), new_delivery("d2"), new_delivery("d3"), now=NOW + hours(1))
    assert [(row["id"], row["state"]) for row in rows(db, deliveries)] == [("d1", 1), ("d2", 0), ("d3", 0)]
    assert len(rows(db, messages)) == 3


def test_one_message_to_two_notifiers_is_stored_once(db: Database) -> None:
    message = a_message(event={"text": '转码 "ok"'}, fields=(("queue", "vod"),), job_id="j1", state="Success", rule="r")
    put(db, new_delivery("d1", message=message), new_delivery("d2", to="ops", message=message, note="no", thread="t"))
    first, second = claim(db)
    assert (first.event, first.says, first.happened_at) == (second.event, second.says, NOW)
    assert first.event == '{"text":"转码 \\"ok\\""}'
    assert (second.note, second.thread, second.root) == ("no", "t", None)
    assert read(db, entries.message_of, second.n) == message


def test_only_what_is_dead_is_resent_under_its_own_id(db: Database) -> None:
    put(db, new_delivery("d1"))
    for now, again_at in ((NOW, NOW), (NOW + hours(24), None)):
        (mine,) = claim(db)
        settle(db, ended(mine, RetryLater("down"), again_at=again_at, retry_from=hours(1), retry_due=hours(1)), now=now)
    assert claim(db, now=NOW + hours(25)) == []
    put(db, new_delivery("waiting"), new_delivery("sent"))
    settle(db, *[ended(delivery, Sent()) for delivery in claim(db) if delivery.id == "sent"])
    chosen = lists.numbers_of(["d1", "waiting", "sent", "unknown"])
    assert write(db, entries.redrive, chosen, now=NOW + hours(30)) == ["d1"]
    assert write(db, entries.redrive, chosen, now=NOW + hours(30)) == []
    (again,) = claim(db, now=NOW + hours(30))
    assert (again.id, again.attempts) == ("d1", 1)
    assert (again.retry_from, again.retry_due) == (None, None)  # so the retry time and the schedule begin anew
    assert row_of(db, deliveries, id="d1")["created_at"] == ms(NOW)  # but it is not a younger one
    settle(db, ended(again, Sent()))
    assert row_of(db, deliveries, id="d1")["why"] is None


def test_a_paused_notifier_is_sent_nothing_until_it_is_resumed(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2", to="ops"))
    write(db, entries.pause, "cms", "being repaired", now=NOW)
    write(db, entries.pause, "cms", "a second reason", now=NOW + hours(1))
    assert claimed_ids(db) == ["d2"]
    paused = row_of(db, notifiers, name="cms")
    assert (paused["paused_at"], paused["paused_why"]) == (ms(NOW), "being repaired")
    assert write(db, entries.resume, "cms")
    assert not write(db, entries.resume, "nobody")
    assert claimed_ids(db) == ["d1"]


def test_resuming_ends_the_wait_that_a_receiver_asked_for(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"))
    (first,) = claim(db, free=1)
    settle(db, ended(first, RetryLater("429", whole_notifier=True), again_at=NOW + hours(1)))
    assert claimed_ids(db) == []
    write(db, entries.resume, "cms")
    assert claimed_ids(db) == ["d2"]
