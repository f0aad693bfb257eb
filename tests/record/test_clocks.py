from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from bridge.model import RetryLater
from bridge.record.clocks import rewind
from bridge.record.database import Database, ms
from bridge.record.outbox import entries
from bridge.record.polling import leases
from bridge.record.schema import deliveries, notifiers, watches, workers
from tests.conftest import Opener, only_postgresql
from tests.support.nouns import NOW, a_watch, hours, minutes, new_delivery, seconds
from tests.support.records import claim, ended, execute, know, put, row_of, rows, settle, write
from tests.support.waiting import wait_until

HOUR = hours(1)


@pytest.fixture(autouse=True)
def _known(db: Database) -> None:
    know(db, "cms", watches=[a_watch()])
    write(db, leases.register, "w1", machine="m", pid=1, now=NOW)


def _rewind(db: Database, now: object = NOW - HOUR) -> timedelta:
    return write(db, rewind, now=now)


def test_what_waits_is_set_back_once_as_far_as_the_clock(db: Database) -> None:
    put(db, new_delivery("d1"), now=NOW + minutes(10))
    put(db, new_delivery("due"), now=NOW - 2 * HOUR)
    write(db, entries.postpone_notifier, "cms", NOW + minutes(5))
    execute(db, update(notifiers).values(used_until=ms(NOW + minutes(2))))
    poll = {"began": NOW, "next_poll": NOW + seconds(30), "error": None, "failures": 0, "calls": 1, "jobs": 0}
    write(db, leases.polled, "vod", **poll)
    assert _rewind(db) == HOUR
    assert row_of(db, deliveries, id="d1")["due_at"] == ms(NOW - HOUR + minutes(10))
    assert row_of(db, deliveries, id="due")["due_at"] == ms(NOW - 2 * HOUR)
    cms, vod = row_of(db, notifiers, name="cms"), row_of(db, watches, name="vod")
    assert (cms["not_before"], cms["used_until"]) == (ms(NOW - HOUR + minutes(5)), ms(NOW - HOUR + minutes(2)))
    assert (vod["polled_at"], vod["next_poll_at"]) == (ms(NOW - HOUR), ms(NOW - HOUR + seconds(30)))
    tables = (deliveries, notifiers, watches, workers)
    before = [rows(db, table) for table in tables]
    assert _rewind(db) == timedelta()
    assert [rows(db, table) for table in tables] == before


def test_a_clock_that_was_ahead_for_one_attempt_is_known_by_it(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"), now=NOW - HOUR)
    ahead = NOW + 24 * HOUR
    for moment, again_at in ((ahead, ahead + minutes(1)), (NOW - HOUR, NOW)):
        (one,) = claim(db, now=moment, free=1)
        settle(db, ended(one, RetryLater("busy"), again_at=again_at, started_at=moment), now=moment)
    execute(db, update(workers).values(beat_at=ms(NOW - HOUR)))
    assert _rewind(db) == 25 * HOUR
    assert all(row["due_at"] <= ms(NOW) for row in rows(db, deliveries))
    assert _rewind(db) == timedelta()


@pytest.mark.parametrize("now", [NOW - seconds(4), NOW, NOW + HOUR])
def test_a_clock_that_goes_forward_or_is_a_little_behind_changes_nothing(db: Database, now: object) -> None:
    put(db, new_delivery("d1"), now=NOW + 2 * HOUR)
    assert _rewind(db, now) == timedelta()
    assert row_of(db, deliveries, id="d1")["due_at"] == ms(NOW + 2 * HOUR)


@only_postgresql
def test_of_two_workers_that_notice_at_once_one_sets_back(db: Database, db_url: str, opened: Opener) -> None:
    put(db, new_delivery("d1"), now=NOW + minutes(90))
    other = opened(db_url)
    with ThreadPoolExecutor(1) as pool, db.write() as first:
        assert rewind(first, now=NOW - HOUR) == HOUR
        second = pool.submit(_rewind, other)
        wait_until(lambda: _waits_for_a_lock(db))
    assert second.result(30) == timedelta()
    assert row_of(db, deliveries, id="d1")["due_at"] == ms(NOW + minutes(30))


def _waits_for_a_lock(db: Database) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with db.read() as tx:
        return bool(tx.execute(text(waiting)).scalar())
