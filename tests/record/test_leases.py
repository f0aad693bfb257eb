from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import update

from bridge.model import Notifier, Place, Rate
from bridge.record.database import Database, at, ms
from bridge.record.polling import leases
from bridge.record.polling.leases import LEASE, LeaseLost
from bridge.record.schema import lease, notifier, watch, worker
from tests.support.records import BUCKET, NOW, a_watch, hours, know, minutes, row_of, rows, seconds


@pytest.fixture
def _known(db: Database) -> None:
    know(db, watches=[a_watch()])


pytestmark = pytest.mark.usefixtures("_known")


def _acquire(db: Database, token: str, now: datetime = NOW) -> bool:
    with db.write() as tx:
        return leases.acquire(tx, BUCKET, token, now=now)


def _renew(db: Database, token: str, now: datetime = NOW) -> None:
    with db.write() as tx:
        leases.renew(tx, BUCKET, token, now=now)


def test_a_bucket_is_polled_by_one_worker(db: Database) -> None:
    assert _acquire(db, "w1")
    assert not _acquire(db, "w2")
    assert _acquire(db, "w1")  # again: it is its own


def test_a_bucket_that_nobody_knows_is_nobodys(db: Database) -> None:
    with db.write() as tx:
        assert not leases.acquire(tx, "unknown-1250000000", "w1", now=NOW)


def test_a_lease_given_back_is_free_at_once(db: Database) -> None:
    _acquire(db, "w1")
    with db.write() as tx:
        leases.release(tx, BUCKET, "w1")
    assert _acquire(db, "w2")


def test_giving_back_what_another_holds_changes_nothing(db: Database) -> None:
    _acquire(db, "w1")
    with db.write() as tx:
        leases.release(tx, BUCKET, "w2")
    assert not _acquire(db, "w2")


def test_a_lease_that_ran_out_goes_to_who_asks(db: Database) -> None:
    _acquire(db, "w1")
    assert not _acquire(db, "w2", NOW + LEASE)
    assert _acquire(db, "w2", NOW + LEASE + seconds(0.001))
    with pytest.raises(LeaseLost, match=BUCKET):
        _renew(db, "w1", NOW + LEASE + seconds(1))


def test_a_lease_that_ran_out_is_still_its_holders_while_nobody_else_asks(db: Database) -> None:
    _acquire(db, "w1")
    _renew(db, "w1", NOW + hours(1))
    assert not _acquire(db, "w2", NOW + hours(1))


def test_renewing_makes_it_last_longer(db: Database) -> None:
    _acquire(db, "w1")
    _renew(db, "w1", NOW + minutes(1))
    assert row_of(db, lease, name=BUCKET)["until"] == ms(NOW + minutes(1) + LEASE)


def test_a_lease_from_before_the_clock_was_set_back_is_over(db: Database) -> None:
    _acquire(db, "w1", NOW + hours(5))
    assert _acquire(db, "w2", NOW)


def test_workers_whose_clocks_differ_a_little_respect_each_other(db: Database) -> None:
    _acquire(db, "ahead", NOW + seconds(2))
    assert not _acquire(db, "behind", NOW)


def test_a_renewed_lease_is_held_until_the_transaction_ends(db: Database, dialect: str) -> None:
    # On PostgreSQL by the row's lock, on SQLite by the write lock: who asks meanwhile waits, and is refused then.
    _acquire(db, "w1")
    late = NOW + LEASE + seconds(5)
    with db.write() as tx:
        leases.renew(tx, BUCKET, "w1", now=late)
    assert not _acquire(db, "w2", late)


def test_what_rules_name_gets_rows_and_what_they_remember_stays(db: Database) -> None:
    know(db, Notifier(name="cms", rate=Rate(count=10, per=seconds(1))), watches=[a_watch()])
    with db.write() as tx:
        leases.polled(tx, "vod", began=NOW, next_poll=NOW, error=None, failures=0, calls=2, jobs=3)
        tx.execute(notifier.update().values(used_until=77))
    know(db, Notifier(name="cms", max_in_flight=2), watches=[a_watch(), a_watch(name="audio")])
    assert {row["name"]: row["calls"] for row in rows(db, watch)} == {"vod": 2, "audio": 0}
    told = row_of(db, notifier, name="cms")
    assert (told["max_in_flight"], told["interval_ms"], told["burst"], told["used_until"]) == (2, None, 1, 77)


def test_a_rate_becomes_an_interval_and_a_burst(db: Database) -> None:
    know(db, Notifier(name="cms", rate=Rate(count=100, per=minutes(5))))
    told = row_of(db, notifier, name="cms")
    assert (told["interval_ms"], told["burst"]) == (3000, 100)  # 300 s / 100


def test_a_failed_poll_leaves_the_last_good_one(db: Database) -> None:
    with db.write() as tx:
        leases.polled(tx, "vod", began=NOW, next_poll=NOW, error=None, failures=0, calls=1, jobs=1)
        leases.polled(
            tx, "vod", began=NOW + hours(1), next_poll=NOW + hours(2), error="no", failures=1, calls=1, jobs=0
        )
        (due,) = leases.polls(tx, ["vod"])
    assert (due.ok_at, at(due.next_poll_at), due.failures) == (NOW, NOW + hours(2), 1)
    assert row_of(db, watch, name="vod")["error"] == "no"


def test_the_watch_that_waits_longest_comes_first(db: Database) -> None:
    know(db, watches=[a_watch(name="a"), a_watch(name="b")])
    with db.write() as tx:
        leases.polled(tx, "a", began=NOW, next_poll=NOW + hours(1), error=None, failures=0, calls=1, jobs=1)
        assert [due.name for due in leases.polls(tx, ["a", "b"])] == ["b", "a"]


def test_a_watch_can_be_paused_and_brought_forward(db: Database) -> None:
    with db.write() as tx:
        leases.polled(tx, "vod", began=NOW, next_poll=NOW + hours(1), error=None, failures=0, calls=1, jobs=1)
        assert leases.set_watch(tx, "vod", paused=True)
        assert leases.set_watch(tx, "vod", poll_now=True)
        assert not leases.set_watch(tx, "nobody", paused=True)
        (due,) = leases.polls(tx, ["vod"])
    assert (due.paused, due.next_poll_at) == (True, 0)


def test_burying_a_worker_frees_its_buckets_only(db: Database) -> None:
    know(db, watches=[a_watch(name="other", place=Place(bucket="b-1250000000", region="r"))])
    _acquire(db, "w1")
    with db.write() as tx:
        leases.acquire(tx, "b-1250000000", "w10", now=NOW)
        for name in ("w1", "w10"):
            leases.enlist(tx, name, machine="m", pid=1, now=NOW)
        leases.bury(tx, "w1")
        assert leases.workers_on(tx, "m") == [("w10", 1)]
    assert _acquire(db, "w2")
    assert row_of(db, lease, name="b-1250000000")["token"] == "w10"


def test_a_worker_says_that_it_lives_and_which_rules_it_has(db: Database) -> None:
    with db.write() as tx:
        leases.enlist(tx, "w1", machine="m", pid=7, now=NOW)
        assert leases.beat(tx, "w1", now=NOW + hours(1), rules_sha="abc", rules_fault="rules.toml:1: no")
    told = row_of(db, worker, id="w1")
    assert (told["beat_at"], told["rules_sha"], told["rules_fault"]) == (ms(NOW + hours(1)), "abc", "rules.toml:1: no")


def test_a_worker_that_says_nothing_for_ten_minutes_is_struck_off_and_one_of_before_after_an_hour(db: Database) -> None:
    """One that is only asleep may wake, and what it does not know must be heeded."""
    with db.write() as tx:
        for name in ("silent", "older", "alive"):
            leases.enlist(tx, name, machine="m", pid=7, now=NOW)
        tx.execute(update(worker).where(worker.c.id == "older").values(revision="0001"))

    def left(at: datetime) -> list[str]:
        with db.write() as tx:
            leases.beat(tx, "alive", now=at, rules_sha="abc", rules_fault=None)
            leases.strike_silent(tx, now=at)
        return sorted(row["id"] for row in rows(db, worker))

    assert left(NOW + minutes(10)) == ["alive", "older", "silent"]
    assert left(NOW + minutes(11)) == ["alive", "older"]
    assert left(NOW + minutes(61)) == ["alive"]
    with db.write() as tx:
        assert not leases.beat(tx, "silent", now=NOW, rules_sha="abc", rules_fault=None)
