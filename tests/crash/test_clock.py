"""The machine's clock jumps an hour, forward and back, while workers are at work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.simulator.receiver import Received
from bridge.simulator.web import Answer, text_answer
from tests.conftest import only_sqlite
from tests.support.processes import Process
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = pytest.mark.skipif(
    not _LIBRARIES and not os.environ.get("CI"), reason="libfaketime is not here: apt-get install faketime"
)
HOUR_S = 3600


class Machine:
    """A machine whose clock can be set: that of its workers, not CI's and not PostgreSQL's."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set_by(0)

    def set_by(self, seconds: int) -> None:
        """Let the clock be so far from the right time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self._file)
        self._off_s = seconds

    def now(self) -> float:
        return time.time() + self._off_s

    def start_worker(self, stage: Stage) -> Process:
        environ = {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        return stage.start_program(sys.executable, "-m", "bridge", "worker", **environ)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def stage(tmp_path: Path, db_url: str, machine: Machine, dialect: str) -> Iterator[Stage]:
    # The time in a signature is PostgreSQL's; with SQLite it is the machine's, and a receiver elsewhere refuses it.
    with Stage(tmp_path, db_url, clock=machine.now if dialect == "sqlite" else time.time) as found:
        yield found


def told_of(stage: Stage, job: str) -> list[str]:
    return [one.json["data"]["to"] for one in stage.accepted["/cms"] if one.json["subject"] == job]


def test_jumps_of_the_clock_stop_neither_polls_nor_deliveries_and_double_nothing(
    stage: Stage, machine: Machine
) -> None:
    workers = [machine.start_worker(stage) for _ in range(2)]
    stage.await_first_poll()
    jobs = []
    for off_s in (HOUR_S, 0, -HOUR_S, 0):
        machine.set_by(off_s)
        jobs.append(stage.ci.create(BUCKET, "Transcode", "p1"))
        wait_until(lambda: told_of(stage, jobs[-1]) == ["Submitted"], why=lambda: stage.log[-3000:])
    wait_until(stage.is_quiet, why=lambda: stage.log[-3000:])
    assert [stage.stop(worker) for worker in workers] == [0, 0]
    assert [told_of(stage, job) for job in jobs] == [["Submitted"]] * 4


@only_sqlite  # PostgreSQL goes by its own clock
def test_a_clock_set_forward_takes_no_delivery_from_the_worker_that_sends_it(stage: Stage, machine: Machine) -> None:
    workers = [machine.start_worker(stage) for _ in range(2)]
    stage.await_first_poll()
    stage.refuse = lambda _: Answer(status=204, delay_s=8.0)  # others look for lost claims every 5 s
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    wait_until(lambda: stage.accepted["/cms"], why=lambda: stage.log[-3000:])
    machine.set_by(HOUR_S)
    wait_until(stage.is_quiet, why=lambda: stage.log[-3000:])
    assert [stage.stop(worker) for worker in workers] == [0, 0]
    assert told_of(stage, job) == ["Submitted"]


@only_sqlite
def test_what_waits_to_be_tried_again_waits_no_longer_when_the_clock_is_set_back(
    stage: Stage, machine: Machine
) -> None:
    worker = machine.start_worker(stage)
    stage.await_first_poll()
    asked: list[str] = []

    def busy_once(received: Received) -> Answer | None:
        asked.append(received.id or "")
        return text_answer("busy", status=503) if len(asked) == 1 else None

    stage.refuse = busy_once
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    wait_until(lambda: asked, why=lambda: stage.log[-3000:])
    machine.set_by(-HOUR_S)
    wait_until(lambda: told_of(stage, job) == ["Submitted"], why=lambda: stage.log[-3000:])
    assert stage.stop(worker) == 0


@pytest.mark.parametrize(("dialect", "days"), [("sqlite", 100), ("postgresql", -100)], indirect=["dialect"])
def test_a_worker_that_is_started_with_a_clock_months_off_erases_nothing(
    stage: Stage, machine: Machine, days: int
) -> None:
    first = machine.start_worker(stage)
    stage.await_first_poll()
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    wait_until(lambda: told_of(stage, job) == ["Submitted"], why=lambda: stage.log[-3000:])
    stage.ci.move(job, "Running")
    wait_until(lambda: told_of(stage, job) == ["Submitted", "Running"], why=lambda: stage.log[-3000:])
    wait_until(stage.is_quiet, why=lambda: stage.log[-3000:])
    assert stage.stop(first) == 0
    before = len(stage.deliveries())
    machine.set_by(days * 24 * HOUR_S)
    second = machine.start_worker(stage)
    wait_until(lambda: stage.log.count("worker started") == 2, why=lambda: stage.log[-3000:])
    machine.set_by(days * 24 * HOUR_S + 10)  # all ticks come at once when the clock is set, that of pruning too
    pruned = ("is pruned by", "event=pruned")
    wait_until(lambda: any(one in stage.log for one in pruned), why=lambda: stage.log[-3000:])
    assert "nothing is pruned by a clock that is doubted" in stage.log
    assert len(stage.deliveries()) == before
    assert stage.stop(second) == 0


@only_sqlite  # likewise
def test_a_day_that_passes_at_once_gives_up_nothing_that_a_receiver_asks_to_send_later(
    stage: Stage, machine: Machine
) -> None:
    worker = machine.start_worker(stage)
    stage.await_first_poll()
    asked: list[str] = []

    def busy(received: Received) -> Answer | None:
        asked.append(received.id or "")
        return text_answer("busy", status=503)

    stage.refuse = busy
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    wait_until(lambda: asked, why=lambda: stage.log[-3000:])
    machine.set_by(25 * HOUR_S)
    wait_until(lambda: len(asked) == 2, why=lambda: stage.log[-3000:])
    wait_until(lambda: [one["state"] for one in stage.deliveries(notifier="cms")] != ["sending"])
    assert [one["state"] for one in stage.deliveries(notifier="cms")] == ["waiting"]
    machine.set_by(0)
    stage.refuse = lambda _: None
    wait_until(lambda: told_of(stage, job) == ["Submitted"], within_s=90, why=lambda: stage.log[-3000:])
    assert stage.stop(worker) == 0
