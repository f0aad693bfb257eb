"""A worker that is stopped for longer than its lease, and then goes on as if nothing had been."""

from __future__ import annotations

import signal
from pathlib import Path

from sqlalchemy import select

from bridge.record.queries import lists
from bridge.record.schema import leases
from bridge.simulator.receiver import Received
from bridge.simulator.web import Answer
from tests.support.processes import Process
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until


def stop_outside_of_transactions(stage: Stage, worker: Process) -> None:
    """Stop the worker where it holds no lock: neither SQLite's nor, in the middle of a poll, a row's."""

    def is_stopped() -> bool:
        threads = Path(f"/proc/{worker.pid}/task").glob("*/stat")
        return all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)

    def stop() -> bool:
        with stage.db.write() as tx:  # on SQLite nobody else is in a write transaction meanwhile
            if tx.execute(select(leases.c.token).where(leases.c.name == BUCKET)).scalar() is not None:
                return False
            worker.send_signal(signal.SIGSTOP)
            wait_until(is_stopped)
            return True

    wait_until(stop)


def test_the_late_finish_of_a_worker_that_was_stopped_is_refused(tmp_path: Path, db_url: str) -> None:
    with Stage(tmp_path, db_url) as stage:
        zombie = stage.start_worker()
        stage.await_first_poll()

        def stop_whoever_asks_first(_: Received) -> Answer | None:
            if not stage.accepted["/cms"]:
                stop_outside_of_transactions(stage, zombie)
            return None

        stage.refuse = stop_whoever_asks_first
        job = stage.ci.create(BUCKET, "Transcode", "p1")
        wait_until(lambda: stage.accepted["/cms"], why=lambda: stage.log)
        other = stage.start_worker()
        wait_until(lambda: len(stage.accepted["/cms"]) == 2, why=lambda: stage.log)
        stage.ci.move(job, "Running")
        wait_until(lambda: "lease lost" in stage.log or len(stage.accepted["/cms"]) == 3, within_s=150)
        zombie.send_signal(signal.SIGCONT)
        wait_until(lambda: "lease lost" in stage.log, why=lambda: stage.log)
        wait_until(stage.is_quiet, within_s=150, why=lambda: stage.log)
        assert [stage.stop(worker) for worker in (zombie, other)] == [0, 0]
        first, again, running = stage.accepted["/cms"]
        assert (first.id, first.body) == (again.id, again.body)
        assert running.json["data"]["to"] == "Running"
        with stage.db.read() as tx:
            told = lists.delivery_details(tx, first.id or "")
        assert told
        assert [one["outcome"] for one in told["tries"]] == ["lost", "sent"]
