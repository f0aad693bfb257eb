"""A worker that is stopped for longer than its lease, and then goes on as if nothing had been."""

from __future__ import annotations

import signal
from pathlib import Path

from sqlalchemy import select

from bridge.record.queries import lists
from bridge.record.schema import leases
from bridge.simulator.receiver import Received
from bridge.simulator.web import Answer
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until


def is_polled(stage: Stage) -> bool:
    with stage.db.read() as tx:
        return tx.execute(select(leases.c.token).where(leases.c.name == BUCKET)).scalar() is not None


def test_the_late_finish_of_a_worker_that_was_stopped_is_refused(tmp_path: Path, db_url: str) -> None:
    with Stage(tmp_path, db_url) as stage:
        zombie = stage.start_worker()
        stage.await_first_poll()

        def stop_whoever_asks_first(_: Received) -> Answer | None:
            if not stage.accepted["/cms"]:
                # Not in the middle of a poll, whose transaction would keep SQLite's lock with it.
                wait_until(lambda: not is_polled(stage))
                zombie.send_signal(signal.SIGSTOP)
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
