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
from tests.conftest import on_both
from tests.support.nouns import hours, minutes, seconds
from tests.support.rig import Rig

RULES = '[[rule]]\nname = "all"\nto = "done"\nnotify = "ops"\n'


@pytest.fixture
def rig(db: Database) -> Rig:
    rig = Rig(db, RULES)
    rig.poll()
    return rig


def shown(rig: Rig, span: str = "1h", **which: str) -> Stats:
    with rig.db.read() as tx:
        return stats(tx, span, rig.clock(), **which)


def standing(found: Stats) -> dict[str, tuple[int, ...]]:
    return {f"{one.tag}/{one.queue}/{one.state}": one.counts for one in found.jobs}


@pytest.mark.parametrize("span", SPANS)
def test_slots_are_as_long_as_what_is_left_of_their_age_and_end_now(rig: Rig, span: str) -> None:
    rig.clock.advance(minutes(7))
    found, (length, step) = shown(rig, span), SPANS[span]
    assert {b - a for a, b in pairwise(found.slots)} == {step} == {found.step}
    assert len(found.slots) == length / step
    assert found.since == found.slots[0]
    assert found.slots[-1] <= found.until == rig.clock() < found.slots[-1] + step


def test_jobs_stand_where_they_stood_at_the_end_of_each_slot(rig: Rig) -> None:
    rig.has("j1", "Submitted", tag="Transcode", queue="p1")
    rig.has("j2", "Submitted", tag="Transcode", queue="p1")
    rig.poll()  # 09:00
    rig.passes(minutes(10))
    rig.has("j1", "Running")
    rig.poll()  # 09:10
    rig.passes(minutes(10))
    rig.has("j1", "Success")
    rig.has("j2", "Running")
    rig.poll()  # 09:20
    rig.passes(minutes(6))
    found = shown(rig)
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


def test_what_is_shown_of_hours_and_days_is_the_same_before_and_after_it_is_compacted(rig: Rig) -> None:
    for k in range(30):
        rig.has(f"j{k}", "Running" if k % 3 else "Success", tag="Transcode")
        rig.poll()
        rig.deliver()
        rig.clock.advance(hours(2))
    before = shown(rig, "24h"), shown(rig, "7d")
    with rig.db.write() as tx:
        assert counters.compact(tx, now=rig.clock()) > 0
    assert (shown(rig, "24h"), shown(rig, "7d")) == before
    assert sum(sum(one.counts) for one in before[1].transitions) == 30


def test_pruning_compacts_all_there_is_some_rows_at_a_time(rig: Rig) -> None:
    with rig.db.write() as tx:
        for step in range(3 * counters.AT_ONCE):
            counters.add(tx, [Count("delivery", ("ops", "dead"))], now=rig.clock() - minutes(5 * step))
    naps: list[float] = []
    Pruner(db=rig.db, clock=rig.clock, worker="w9", nap=naps.append).prune(rig.book)
    with rig.db.write() as tx:
        assert counters.compact(tx, now=rig.clock()) == 0
    assert len(naps) > 3
    assert sum(sum(one.counts) for one in shown(rig, "7d").deliveries) == 3 * counters.AT_ONCE


def test_a_tag_or_a_queue_can_be_looked_at_alone(rig: Rig) -> None:
    rig.has("j1", "Running", tag="Transcode", queue="p1")
    rig.has("j2", "Running", tag="Snapshot", queue="p2")
    rig.poll()
    assert set(standing(shown(rig))) == {"Transcode/p1/Running", "Snapshot/p2/Running"}
    assert set(standing(shown(rig, tag="Snapshot"))) == {"Snapshot/p2/Running"}
    assert [one.queue for one in shown(rig, queue="p1").transitions] == ["p1"]
    assert shown(rig, tag="Snapshot", queue="p1").jobs == ()


def test_deliveries_are_shown_by_what_became_of_them_and_how_long_it_took(rig: Rig) -> None:
    for k in range(4):
        rig.has(f"j{k}", "Success")
    rig.clock.advance(seconds(45))
    rig.poll()
    rig.transport.answer = lambda one: Rejected("no") if one.n == 1 else Sent()
    rig.deliver()
    found = shown(rig)
    assert {(one.notifier, one.outcome): sum(one.counts) for one in found.deliveries} == {
        ("ops", "dead"): 1, ("ops", "delivered"): 3,
    }  # fmt: skip
    (latency,) = found.latency
    assert (latency.notifier, latency.count) == ("ops", 3)
    assert latency.p50_s is not None
    assert 30 < latency.p50_s < 60  # the bucket of 45.1 s


@on_both
def test_a_watch_shows_how_soon_changes_were_seen_and_with_how_many_calls(rig: Rig) -> None:
    rig.first_poll()
    calls = rig.ci.calls()
    for k in range(99):
        rig.has(f"j{k}", "Success")
    rig.clock.advance(seconds(1.2))
    rig.poll()
    rig.has("slow", "Success")
    rig.clock.advance(seconds(200))
    rig.has("unsaid", "Cancel", ended_at=None)
    rig.poll()
    (found,) = shown(rig).detection
    assert (found.watch, found.transitions, found.calls) == ("vod", 101, rig.ci.calls())
    assert found.calls_per_transition == found.calls / 101
    assert rig.ci.calls() > calls
    assert found.p50_s is not None
    assert found.p99_s is not None
    assert 1.0 < found.p50_s < found.p99_s <= 1.5  # the bucket of 1.2 s
    rig.clock.advance(minutes(90))
    assert shown(rig, "1h").detection == ()
    assert shown(rig, "24h").detection == (found,)


@on_both
def test_what_is_no_news_has_no_detection_delay(db: Database) -> None:
    rig = Rig(db, RULES)
    rig.has("old", "Success")
    rig.clock.advance(minutes(5))
    rig.poll()  # the first snapshot
    (found,) = shown(rig).detection
    assert (found.transitions, found.p50_s, found.p99_s, found.calls_per_transition) == (0, None, None, None)
    assert found.calls == rig.ci.calls()
    rig.has("quick", "Success", started_at=rig.clock())  # seen once, in its last state
    rig.clock.advance(seconds(3))
    rig.poll()
    (found,) = shown(rig).detection
    assert found.transitions == 1  # its other states are inferred


def test_a_job_that_goes_on_after_a_pause_has_no_detection_delay(rig: Rig) -> None:
    rig.first_poll()
    for state in ("Running", "Pause", "Running"):
        rig.has("j1", state)
        rig.polls(2)
    (found,) = shown(rig).detection
    assert found.transitions == 3
    assert found.p99_s is not None
    assert 20 < found.p99_s <= 30  # of the first alone


def test_a_count_that_does_not_fit_the_jobs_is_never_below_none(rig: Rig) -> None:
    with rig.db.write() as tx:  # as after a restored backup, or of workers that did not count
        counters.add(tx, [Count("transition", ("Transcode", "", "new", "Running"), times=5)], now=rig.clock())
    assert standing(shown(rig)) == {}


def test_a_chart_has_no_more_than_its_largest_lines(rig: Rig) -> None:
    with rig.db.write() as tx:
        many = [Count("transition", ("Transcode", f"p{k}", "new", "Success"), times=k) for k in range(1, 400)]
        counters.add(tx, many, now=rig.clock())
    found = shown(rig).transitions
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


def test_times_are_aware(rig: Rig) -> None:
    assert all(isinstance(slot, datetime) and slot.tzinfo for slot in shown(rig).slots)
