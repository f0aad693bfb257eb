"""What charts show, against what happened."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import pytest

from bridge.model import Rejected, Sent
from bridge.pipeline.prune import Pruner
from bridge.pipeline.stats import SPANS, Stats, quantile, stats
from bridge.record import counters
from bridge.record.counters import BOUNDS, Count
from bridge.record.database import Database
from tests.support.records import Clock, hours, minutes, seconds
from tests.support.simulated_bridge import House

RULES = '[[rule]]\nname = "all"\nto = "done"\nnotify = "ops"\n'


@pytest.fixture
def house(db: Database, clock: Clock) -> House:
    house = House(db, RULES, clock)
    house.poll()
    return house


def shown(house: House, span: str = "1h", **which: str) -> Stats:
    with house.db.read() as tx:
        return stats(tx, span, house.clock(), **which)


def standing(found: Stats) -> dict[str, tuple[int, ...]]:
    return {f"{one.tag}/{one.queue}/{one.state}": one.counts for one in found.jobs}


@pytest.mark.parametrize("span", SPANS)
def test_slots_are_as_long_as_what_is_left_of_their_age_and_end_now(house: House, span: str) -> None:
    house.clock.advance(minutes(7))
    found, (length, step) = shown(house, span), SPANS[span]
    assert {b - a for a, b in pairwise(found.slots)} == {step} == {found.step}
    assert len(found.slots) == length / step
    assert found.since == found.slots[0]
    assert found.slots[-1] <= found.until == house.clock() < found.slots[-1] + step


def test_jobs_stand_where_they_stood_at_the_end_of_each_slot(house: House) -> None:
    house.has("j1", "Submitted", tag="Transcode", queue="p1")
    house.has("j2", "Submitted", tag="Transcode", queue="p1")
    house.poll()  # 09:00
    house.passes(minutes(10))
    house.has("j1", "Running")
    house.poll()  # 09:10
    house.passes(minutes(10))
    house.has("j1", "Success")
    house.has("j2", "Running")
    house.poll()  # 09:20
    house.passes(minutes(6))
    found = shown(house)
    assert f"{found.slots[-6]:%H:%M}" == "09:00"
    none = (0,) * 6
    assert standing(found) == {
        "Transcode/p1/Submitted": (*none, 2, 2, 1, 1, 0, 0),
        "Transcode/p1/Running": (*none, 0, 0, 1, 1, 1, 1),
    }
    moved = {f"{one.tag}/{one.queue}/{one.to}": one.counts[-6:] for one in found.transitions}
    assert moved == {
        "Transcode/p1/Submitted": (2, 0, 0, 0, 0, 0),
        "Transcode/p1/Running": (0, 0, 1, 0, 1, 0),
        "Transcode/p1/Success": (0, 0, 0, 0, 1, 0),
    }


def test_what_is_shown_of_hours_and_days_is_the_same_before_and_after_it_is_compacted(house: House) -> None:
    for k in range(30):
        house.has(f"j{k}", "Running" if k % 3 else "Success", tag="Transcode")
        house.poll()
        house.deliver()
        house.clock.advance(hours(2))
    before = shown(house, "24h"), shown(house, "7d")
    with house.db.write() as tx:
        assert counters.compact(tx, now=house.clock()) > 0
    assert (shown(house, "24h"), shown(house, "7d")) == before
    assert sum(sum(one.counts) for one in before[1].transitions) == 30


def test_pruning_compacts_all_there_is_some_rows_at_a_time(house: House, clock: Clock) -> None:
    with house.db.write() as tx:
        for step in range(3 * counters.AT_ONCE):
            counters.add(tx, [Count("delivery", ("ops", "dead"))], now=clock() - minutes(5 * step))
    naps: list[float] = []
    Pruner(db=house.db, clock=clock, worker="w9", nap=naps.append).prune(house.book)
    with house.db.write() as tx:
        assert counters.compact(tx, now=clock()) == 0
    assert len(naps) > 3
    assert sum(sum(one.counts) for one in shown(house, "7d").deliveries) == 3 * counters.AT_ONCE


def test_a_tag_or_a_queue_can_be_looked_at_alone(house: House) -> None:
    house.has("j1", "Running", tag="Transcode", queue="p1")
    house.has("j2", "Running", tag="Snapshot", queue="p2")
    house.poll()
    assert set(standing(shown(house))) == {"Transcode/p1/Running", "Snapshot/p2/Running"}
    assert set(standing(shown(house, tag="Snapshot"))) == {"Snapshot/p2/Running"}
    assert [one.queue for one in shown(house, queue="p1").transitions] == ["p1"]
    assert shown(house, tag="Snapshot", queue="p1").jobs == ()


def test_deliveries_are_shown_by_what_became_of_them_and_how_long_it_took(house: House) -> None:
    for k in range(4):
        house.has(f"j{k}", "Success")
    house.clock.advance(seconds(45))
    house.poll()
    house.transport.answer = lambda one: Rejected("no") if one.n == 1 else Sent()
    house.deliver()
    found = shown(house)
    assert {(one.notifier, one.outcome): sum(one.counts) for one in found.deliveries} == {
        ("ops", "dead"): 1, ("ops", "delivered"): 3,
    }  # fmt: skip
    (latency,) = found.latency
    assert (latency.notifier, latency.count) == ("ops", 3)
    assert latency.p50_s is not None
    assert 30 < latency.p50_s < 60  # the bucket of 45.1 s


def test_a_count_that_does_not_fit_the_jobs_is_never_below_none(house: House, clock: Clock) -> None:
    with house.db.write() as tx:  # as after a restored backup, or of workers that did not count
        counters.add(tx, [Count("transition", ("Transcode", "", "new", "Running"), times=5)], now=clock())
    assert standing(shown(house)) == {}


def test_a_chart_has_no_more_than_its_largest_lines(house: House, clock: Clock) -> None:
    with house.db.write() as tx:
        many = [Count("transition", ("Transcode", f"p{k}", "new", "Success"), times=k) for k in range(1, 400)]
        counters.add(tx, many, now=clock())
    found = shown(house).transitions
    assert len(found) == 200
    assert min(sum(one.counts) for one in found) == 200


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, {}, None),
        (0.5, {0: 10}, 0.25),  # half of the first, which reaches to 0.5
        (0.5, {0: 1, 1: 3}, 0.5 + (1.0 - 0.5) * (2 - 1) / 3),
        (0.95, {0: 95, 3: 5}, 0.5),
        (0.99, {0: 95, 3: 5}, 2.5 + (5.0 - 2.5) * 4 / 5),
        (0.95, {14: 3}, 86400.0),  # no end: where it begins
    ],
)
def test_a_quantile_is_estimated_within_its_bucket(
    share: float, buckets: dict[int, int], expected: float | None
) -> None:
    assert quantile(share, buckets, BOUNDS["delivery"]) == pytest.approx(expected)


def test_times_are_aware(house: House) -> None:
    assert all(isinstance(slot, datetime) and slot.tzinfo for slot in shown(house).slots)
