"""What a page is shown of a delivery is what a worker is given of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from bridge.record.codec import iso
from bridge.record.database import Database, ms
from bridge.record.outbox import claims, entries
from bridge.record.queries import lists
from tests.support.records import NOW, claim, know, minutes, new_delivery, put, read, seconds


def delivery(db: Database, id_: str) -> Any:
    return read(db, claims.sendable, id_)


def lane(db: Database, notifier: str = "cms") -> Any:
    return read(db, lists.notifier_row, notifier)


def said(at: datetime) -> str | None:
    return iso(ms(at))


def test_a_delivery_is_shown_as_a_worker_gets_it(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1", note="不行", body='{"a": 1}', channel="C2", thread="b/j1"))
    before = delivery(db, "d1")
    (claimed,) = claim(db)
    assert delivery(db, "d1") == claimed
    assert before == replace(claimed, attempts=0, lease="")


def test_what_is_not_there_is_nothing(db: Database) -> None:
    assert delivery(db, "d1") is None
    assert lane(db) is None


def test_what_keeps_a_notifier_waiting_is_known(db: Database) -> None:
    know(db, "cms")
    assert lane(db) == {"paused_at": None, "paused_why": None, "not_before": None, "failures": 0}
    with db.write() as tx:
        entries.pause(tx, "cms", "gone", now=NOW)
        entries.hold(tx, "cms", NOW + minutes(5))
        entries.failed(tx, "cms", 3, broken_at=10, run=seconds(0))
    assert lane(db) == {
        "paused_at": said(NOW), "paused_why": "gone", "not_before": said(NOW + minutes(5)), "failures": 3,
    }  # fmt: skip
