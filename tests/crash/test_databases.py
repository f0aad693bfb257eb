"""The database is killed and comes back; its disk is full and has room again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bridge.record.database import Database
from tests.crash.laboratory import WIDE_RULES, Laboratory
from tests.crash.ledger import Balance
from tests.crash.servers import open_folder, own_postgres, small_disk
from tests.support.stage import Stage
from tests.support.waiting import wait_until

ROUNDS = 3


def survive(stage: Stage, strike: Callable[[], None], mend: Callable[[], None]) -> Balance:
    """Strike while a worker is busy, let it notice, mend, and go on; several times."""
    laboratory = Laboratory(stage, seed=3, new_jobs=25)
    worker = stage.start_worker()
    stage.await_first_poll()
    for _ in range(ROUNDS):
        laboratory.advance()
        told, noticed = len(stage.accepted["/cms"]), stage.log.count("database unavailable")
        wait_until(lambda n=told: len(stage.accepted["/cms"]) > n, why=lambda: stage.log[-3000:])
        strike()
        laboratory.bear()  # CI does not stop for it
        wait_until(lambda n=noticed: stage.log.count("database unavailable") > n, why=lambda: stage.log[-3000:])
        mend()
        wait_until(stage.is_quiet, within_s=120, why=lambda: stage.log[-3000:])
    assert stage.stop(worker) == 0
    return laboratory.settle()


def upgraded(url: str) -> str:
    db = Database(url)
    db.upgrade()
    db.close()
    return url


def test_a_postgresql_that_is_killed_and_restarted_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with (
        open_folder() as folder,
        own_postgres(folder) as server,
        Stage(tmp_path, upgraded(server.url), rules=WIDE_RULES) as stage,
    ):
        found = survive(stage, server.kill, server.start)
    assert found.faults == {}
    assert found.repeated == 0


def test_a_full_disk_under_sqlite_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with (
        open_folder() as folder,
        small_disk(folder, megabytes=8) as disk,
        Stage(tmp_path, f"sqlite:///{disk.folder}/bridge.db", rules=WIDE_RULES) as stage,
    ):
        found = survive(stage, disk.fill, disk.make_room)
        assert "make room" in stage.log
    assert found.faults == {}
    assert found.repeated == 0


def test_a_full_disk_under_postgresql_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with open_folder() as folder, small_disk(folder, megabytes=160) as disk, own_postgres(folder) as server:

        def mend() -> None:
            disk.make_room()
            if not server.is_alive():  # it ends itself when it has no room for its log
                server.start()

        with Stage(tmp_path, upgraded(server.url), rules=WIDE_RULES) as stage:
            found = survive(stage, disk.fill, mend)
    assert found.faults == {}
    assert found.repeated == 0
