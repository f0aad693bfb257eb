"""What is counted is counted once, with what it counts, and stays right as it ages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from bridge.model import Sent
from bridge.record import counters
from bridge.record.counters import AT_ONCE, BOUNDS, MOST_KEPT, Count, timed
from bridge.record.database import Database
from bridge.record.schema import tallies as counted
from tests.conftest import Opener, only_sqlite
from tests.support.nouns import NOW, hours, minutes, new_delivery, seconds
from tests.support.records import claim, ended, know, put, read, rows, settle, write

NINE = NOW.replace(hour=9, minute=0, second=0, microsecond=0)


def count(db: Database, *counts: Count, now: datetime = NOW) -> None:
    write(db, counters.add, counts, now=now)


def total(db: Database, *metrics: str) -> dict[tuple[str, ...], int]:
    with db.read() as tx:
        return {(one.metric, *one.labels): one.count for one in counters.totals(tx, metrics)}


def series(db: Database, metric: str, since: datetime, span: timedelta) -> dict[str, list[tuple[str, int]]]:
    first = since - timedelta(seconds=since.timestamp() % span.total_seconds())
    slots = [first + span * place for place in range((NOW + hours(24) - first) // span)]
    found = read(db, counters.series, metric, slots)
    return {
        "/".join(labels): [(f"{slot:%d %H:%M}", count) for slot, count in zip(slots, counts, strict=True) if count]
        for labels, counts in found.items()
    }


def compact(db: Database, now: datetime) -> list[int]:
    """Compact until there is nothing left to do; return how many rows each time."""
    found: list[int] = []
    while not found or found[-1]:
        with db.write() as tx:
            found.append(counters.compact(tx, now=now))
    return found


# --- counting -----------------------------------------------------------------------------------------------


def test_counts_add_up_over_transactions_and_within_one(db: Database) -> None:
    one, many = Count("match", ("vod",)), Count("match", ("vod",), times=40)
    count(db, one, Count("match", ("other",)), one)
    count(db, many, now=NOW + minutes(3))
    count(db, one, now=NOW - minutes(3))
    assert total(db, "match") == {("match", "vod"): 43, ("match", "other"): 1}
    with db.read() as tx:
        assert counters.matches(tx) == {"vod": (43, NOW + minutes(3)), "other": (1, NOW)}
        assert counters.matches(tx)["vod"][1].tzinfo


def test_what_a_transaction_counts_is_written_at_its_end_or_not_at_all(db: Database) -> None:
    def fail() -> None:
        with db.write() as tx:
            counters.add(tx, [Count("unmatched", ())], now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with db.write() as tx:
        for _ in range(3):
            counters.add(tx, [Count("match", ("vod",))], now=NOW)
        assert tx.execute(select(counted)).all() == []
    assert total(db, "match", "unmatched") == {("match", "vod"): 3}


def test_a_duration_is_counted_in_the_bucket_that_reaches_up_to_it(db: Database) -> None:
    bounds = BOUNDS["attempt"]
    # By clocks that disagree it may seem to be less than nothing.
    durations = (-5.0, 0.0, bounds[0], 0.03, 15.0, 15.001, 9_000.0)
    count(db, *(timed("attempt", ("cms", "ok"), duration) for duration in durations))
    assert [(row["bucket"], row["count"], row["ms"]) for row in rows(db, counted)] == [
        (0, 3, 25), (1, 1, 30), (len(bounds) - 1, 1, 15_000), (len(bounds), 2, 9_015_001),
    ]  # fmt: skip


def test_a_label_may_be_any_text_of_any_length(db: Database) -> None:
    longest = ("\U0001f600" * 5_000, '"\\\x01\x7f' * 1_000, "\0\ud800", "ä" * 500)
    count(db, Count("transition", longest), Count("transition", longest))
    (found,) = total(db, "transition")
    assert [len(label) for label in found[1:]] == [100, 100, 1, 100]


def test_only_what_is_charted_has_slots(db: Database) -> None:
    count(db, Count("match", ("vod",)), Count("delivery", ("cms", "dead")), now=NINE + minutes(7))
    assert [(row["metric"], row["slot"]) for row in rows(db, counted)] == [
        ("delivery", 0), ("delivery", int((NINE + minutes(5)).timestamp()) * 1000), ("match", 0),
    ]  # fmt: skip


def test_a_series_has_the_sums_of_each_span(db: Database) -> None:
    for minute in (0, 4, 5, 59, 60, 70):
        count(db, Count("delivery", ("cms", "dead"), times=minute + 1), now=NINE + minutes(minute))
    count(db, Count("delivery", ("ops", "dead")), now=NINE + minutes(10))
    assert series(db, "delivery", NINE, hours(1)) == {
        "cms/dead": [("21 09:00", 1 + 5 + 6 + 60), ("21 10:00", 61 + 71)], "ops/dead": [("21 09:00", 1)],
    }  # fmt: skip
    assert series(db, "delivery", NINE + minutes(55), minutes(5)) == {
        "cms/dead": [("21 09:55", 60), ("21 10:00", 61), ("21 10:10", 71)]
    }


# --- many at once ---------------------------------------------------------------------------------------------------


def test_workers_that_count_the_same_at_once_neither_lose_any_nor_wait_in_a_circle_while_slots_are_merged(
    db: Database, db_url: str, opened: Opener
) -> None:
    def work(number: int) -> None:
        other, chance = opened(db_url), random.Random(number)
        for turn in range(25):
            names = [("rule", str(k)) for k in range(10)]
            chance.shuffle(names)  # counted in any order, written in one
            count(other, *(Count("suppressed", labels) for labels in names), now=NOW + seconds(turn))

    for k in range(60):
        count(db, Count("delivery", ("cms", "dead")), now=NINE - hours(5) + minutes(5 * (k % 12)))
    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, number) for number in range(4)]
        while not all(worker.done() for worker in working):
            write(db, counters.compact, now=NINE)
    for worker in working:
        worker.result()
    assert total(db, "suppressed") == {("suppressed", "rule", str(k)): 100 for k in range(10)}
    assert series(db, "delivery", NINE - hours(6), hours(1)) == {"cms/dead": [("21 04:00", 60)]}


# --- as they age --------------------------------------------------------------------------------------------


def _days(db: Database, count_of: int) -> Iterator[datetime]:
    """Count one delivery every five minutes of some days."""
    with db.write() as tx:
        for step in range(count_of * 24 * 12):
            moment = NINE - minutes(5 * step)
            counters.add(tx, [Count("delivery", ("cms", "dead"))], now=moment)
            yield moment


def test_slots_become_longer_as_they_age_and_lose_nothing(db: Database) -> None:
    moments = list(_days(db, 3))
    before = series(db, "delivery", NINE - timedelta(days=3), hours(6))
    assert compact(db, NINE) == [AT_ONCE, 70 * 11 + 17 - AT_ONCE, 0]
    assert series(db, "delivery", NINE - timedelta(days=3), hours(6)) == before
    assert total(db, "delivery") == {("delivery", "cms", "dead"): len(moments)}
    ages = [NINE.timestamp() - row["slot"] / 1000 for row in rows(db, counted) if row["slot"]]
    assert {age % 3600 for age in ages if age > 2 * 3600} == {0}
    assert len([age for age in ages if age <= 2 * 3600]) == 25
    # 07:00 and 09:00 of today are begun hours; two days ago ends with the quarter of 06:00.
    assert len([age for age in ages if 2 * 3600 < age <= 51 * 3600]) == 49
    assert len([age for age in ages if age > 51 * 3600]) == 4
    before = rows(db, counted)
    assert compact(db, NINE + minutes(4)) == [0]
    assert rows(db, counted) == before


def test_what_is_older_than_a_month_goes_but_not_what_it_is_in_all(db: Database) -> None:
    count(db, Count("delivery", ("cms", "dead")), Count("match", ("r",)), now=NINE - timedelta(days=32))
    compact(db, NINE)
    assert [(row["metric"], row["slot"]) for row in rows(db, counted)] == [("delivery", 0), ("match", 0)]


@only_sqlite
def test_of_very_many_queues_the_rarest_are_counted_as_others(db: Database) -> None:
    with db.write() as tx:
        names = [("Transcode", f"p{k}", "new", "Running") for k in range(2 * MOST_KEPT + 1)]
        counters.add(tx, [Count("transition", labels) for labels in names], now=NOW - timedelta(days=40))
        counters.add(tx, [Count("transition", labels) for labels in names[:50]], now=NOW - timedelta(days=40))
    compact(db, NINE)
    found = total(db, "transition")
    assert len(found) == 2 * MOST_KEPT + 1 - AT_ONCE + 1
    assert found["transition", "other", "other", "other", "other"] == AT_ONCE
    assert sum(found.values()) == 2 * MOST_KEPT + 1 + 50
    assert all(found["transition", *labels] == 2 for labels in names[:50])


def test_an_end_that_comes_too_late_is_not_counted_again(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("d1"))
    (claimed,) = claim(db)
    assert settle(db, ended(claimed, Sent())) == frozenset()
    assert settle(db, ended(claimed, Sent())) == {claimed.n}
    assert total(db, "attempt", "delivery") == {("attempt", "cms", "ok"): 1, ("delivery", "cms", "delivered"): 1}
