"""A worker killed at every point there is, on both databases: nothing lost, nothing out of order, little repeated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bridge.pipeline.dispatch import WINDOW
from tests.crash.laboratory import WIDE_RULES, Laboratory
from tests.crash.points import ALL, AT_RANDOM
from tests.support.stage import Stage


def test_a_worker_killed_at_every_point_loses_nothing_and_repeats_little(tmp_path: Path, db_url: str) -> None:
    with Stage(tmp_path, db_url, rules=WIDE_RULES) as stage:
        laboratory = Laboratory(stage, seed=1)
        first = stage.start_worker()
        stage.await_first_poll()
        assert stage.stop(first) == 0
        for point in ALL:
            laboratory.kill(point, beside=point == AT_RANDOM)
        found = laboratory.settle()
    assert found.faults == {}
    assert 0 < found.most_repeated <= WINDOW
    assert found.transitions >= 150
    assert found.deliveries >= found.transitions
    assert found.incidents >= 20
    assert min(found.owed.merged["digest"], found.owed.merged["flood"], found.owed.alarms) >= 10
    planned = Counter(kill.point for kill in laboratory.kills if kill.as_planned)
    assert planned == Counter(ALL), f"not reached: {Counter(ALL) - planned}"
