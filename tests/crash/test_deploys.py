"""Deploys that overlap: the new worker is at work before the old one has gone."""

from __future__ import annotations

from pathlib import Path

from tests.crash.laboratory import WIDE_RULES, Laboratory
from tests.support.stage import Stage
from tests.support.waiting import wait_until

DEPLOYS = 5


def test_deploys_that_overlap_lose_and_repeat_nothing(tmp_path: Path, db_url: str) -> None:
    with Stage(tmp_path, db_url, rules=WIDE_RULES) as stage:
        laboratory = Laboratory(stage, seed=2, new_jobs=20)
        old = stage.start_worker()
        stage.await_first_poll()
        for count in range(2, DEPLOYS + 2):
            laboratory.advance()
            new = stage.start_worker()
            wait_until(lambda n=count: stage.log.count("worker started") == n, why=lambda: stage.log)
            laboratory.advance()
            told = len(stage.accepted["/cms"])
            wait_until(lambda n=told: len(stage.accepted["/cms"]) > n, why=lambda: stage.log)
            assert stage.stop(old) == 0
            old = new
        assert stage.stop(old) == 0
        found = laboratory.settle()
    assert found.faults == {}
    assert found.repeated == 0
    assert found.transitions >= 200
