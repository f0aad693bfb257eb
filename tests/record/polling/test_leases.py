from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import update

from bridge.model import Place, Rate
from bridge.notifiers import Notifier
from bridge.record import schema
from bridge.record.database import Database, at, ms
from bridge.record.polling import leases
from bridge.record.polling.leases import BUCKET_LEASE, LeaseLost
from bridge.record.schema import notifiers, watches, workers
from tests.support.nouns import BUCKET, NOW, a_watch, hours, minutes, seconds
from tests.support.records import execute, know, read, row_of, rows, write

AFTER = NOW + BUCKET_LEASE + seconds(0.001)


@pytest.fixture
def _known(db: Database) -> None:
    know(db, watches=[a_watch()])


pytestmark = pytest.mark.usefixtures("_known")


def _acquire(db: Database, token: str, now: datetime = NOW) -> bool:
    return write(db, leases.acquire, BUCKET, token, now=now)


def _polled(db: Database, name: str = "vod", **facts: Any) -> None:
    usual = {"began": NOW, "next_poll": NOW, "error": None, "failures": 0, "calls": 1, "jobs": 1}
    write(db, leases.polled, name, **usual | facts)


@pytest.mark.parametrize(
    ("first", "second", "now", "gets_it"),
    [
        ("w1", "w2", NOW, False),
        ("w1", "w1", NOW, True),
        ("w1", "w2", NOW + BUCKET_LEASE, False),
        ("w1", "w2", AFTER, True),
        ("w1", "w2", NOW - seconds(2), False),  # the clocks of two workers differ a little
        ("w1", "w2", NOW - hours(5), True),  # the clock was set back
    ],
)
def test_a_bucket_is_polled_by_one_worker_until_its_lease_is_over(
    db: Database, first: str, second: str, now: datetime, *, gets_it: bool
) -> None:
    assert _acquire(db, first)
    assert _acquire(db, second, now) is gets_it


def test_an_unknown_bucket_has_no_lease(db: Database) -> None:
    assert not write(db, leases.acquire, "unknown-1250000000", "w1", now=NOW)


def test_a_lease_is_released_by_its_holder_alone(db: Database) -> None:
    _acquire(db, "w1")
    write(db, leases.release, BUCKET, "w2")
    assert not _acquire(db, "w2")
    write(db, leases.release, BUCKET, "w1")
    assert _acquire(db, "w2")


def test_a_lease_is_renewed_until_another_worker_has_it(db: Database) -> None:
    # Its row is locked until the end of the transaction: on PostgreSQL by itself, on SQLite by the write lock.
    _acquire(db, "w1")
    write(db, leases.renew, BUCKET, "w1", now=NOW + hours(1))  # it was over, and nobody else has asked
    assert row_of(db, schema.leases, name=BUCKET)["until"] == ms(NOW + hours(1) + BUCKET_LEASE)
    assert not _acquire(db, "w2", NOW + hours(1))
    assert _acquire(db, "w2", NOW + hours(2))
    with pytest.raises(LeaseLost, match=BUCKET):
        write(db, leases.renew, BUCKET, "w1", now=NOW + hours(2))


def test_the_rows_of_rules_toml_are_updated_and_what_they_remember_stays(db: Database) -> None:
    know(db, Notifier(name="cms", rate=Rate(count=100, per=minutes(5))), watches=[a_watch()])
    cms = row_of(db, notifiers, name="cms")
    assert (cms["interval_ms"], cms["burst"]) == (3000, 100)  # 300 s / 100
    _polled(db, calls=2)
    execute(db, notifiers.update().values(used_until=77))
    know(db, Notifier(name="cms", max_in_flight=2), watches=[a_watch(), a_watch(name="audio")])
    assert {row["name"]: row["calls"] for row in rows(db, watches)} == {"vod": 2, "audio": 0}
    cms = row_of(db, notifiers, name="cms")
    assert (cms["max_in_flight"], cms["interval_ms"], cms["burst"], cms["used_until"]) == (2, None, 1, 77)


def test_a_failed_poll_leaves_the_last_good_one(db: Database) -> None:
    _polled(db)
    _polled(db, began=NOW + hours(1), next_poll=NOW + hours(2), error="no", failures=1)
    (due,) = read(db, leases.polls, ["vod"])
    assert (due.ok_at, at(due.next_poll_at), due.failures) == (NOW, NOW + hours(2), 1)
    assert row_of(db, watches, name="vod")["error"] == "no"


def test_the_watch_that_waits_longest_comes_first(db: Database) -> None:
    know(db, watches=[a_watch(name="a"), a_watch(name="b")])
    _polled(db, "a", next_poll=NOW + hours(1))
    assert [due.name for due in read(db, leases.polls, ["a", "b"])] == ["b", "a"]


def test_a_watch_can_be_paused_and_brought_forward(db: Database) -> None:
    _polled(db, next_poll=NOW + hours(1))
    assert write(db, leases.set_watch, "vod", paused=True)
    assert write(db, leases.set_watch, "vod", poll_now=True)
    assert not write(db, leases.set_watch, "nobody", paused=True)
    (due,) = read(db, leases.polls, ["vod"])
    assert (due.paused, due.next_poll_at) == (True, 0)


def test_burying_a_worker_frees_its_buckets_only(db: Database) -> None:
    know(db, watches=[a_watch(name="other", place=Place(bucket="b-1250000000", region="r"))])
    _acquire(db, "w1")
    with db.write() as tx:
        leases.acquire(tx, "b-1250000000", "w10", now=NOW)
        for name in ("w1", "w10"):
            leases.register(tx, name, machine="m", pid=1, now=NOW)
        leases.unregister(tx, "w1")
        assert leases.workers_on(tx, "m") == [("w10", 1)]
    assert _acquire(db, "w2")
    assert row_of(db, schema.leases, name="b-1250000000")["token"] == "w10"


def test_a_worker_that_says_nothing_for_ten_minutes_is_deleted_and_an_older_one_after_an_hour(db: Database) -> None:
    """One that is only asleep may wake, and what it does not know must be heeded."""
    with db.write() as tx:
        for name in ("silent", "older", "alive"):
            leases.register(tx, name, machine="m", pid=7, now=NOW)
        tx.execute(update(workers).where(workers.c.id == "older").values(revision="0001"))

    def left(now: datetime) -> list[str]:
        write(db, leases.beat, "alive", now=now, rules_sha="abc", rules_fault="rules.toml:1: no")
        write(db, leases.delete_silent_workers, now=now)
        return sorted(row["id"] for row in rows(db, workers))

    assert left(NOW + minutes(10)) == ["alive", "older", "silent"]
    assert left(NOW + minutes(11)) == ["alive", "older"]
    assert left(NOW + minutes(61)) == ["alive"]
    assert not write(db, leases.beat, "silent", now=NOW, rules_sha="abc", rules_fault=None)
    (alive,) = rows(db, workers)
    beat = (alive["beat_at"], alive["rules_sha"], alive["rules_fault"])
    assert beat == (ms(NOW + minutes(61)), "abc", "rules.toml:1: no")
