"""`simulate --report`: a load is played to a worker, and the figures say what it saw of it."""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.report import Figures, Load, figures
from tests.cli.test_simulate import COMMAND, TERMINAL
from tests.support.commands import run
from tests.support.waiting import wait_until

LOAD = Load(
    bucket="media-1250000000", tags=["Transcode"], queues=["p1"], every_s=1.0, speed=1.0, seed=8,
    lasts=timedelta(seconds=10), poll_every=timedelta(seconds=10), callbacks=None,
)  # fmt: skip
QUICK = ("--every", "0.2", "--speed", "20", "--seed", "8", "--poll-every", "1s")


def step(job: str, sequence: int, to: str, seen_s: float, *, inferred: bool = False) -> dict[str, Any]:
    seen_at = datetime.fromtimestamp(seen_s, UTC).isoformat()
    return {"job": job, "sequence": sequence, "to": to, "seen_at": seen_at, "inferred": inferred}


def found(timelines: dict[str, list[tuple[str, float]]], *steps: dict[str, Any]) -> Figures:
    return figures(LOAD, timelines, reversed(steps), complete=True, seconds=20.0, calls=6)


def test_each_true_state_is_compared_with_when_it_was_recorded() -> None:
    timelines = {
        "j1": [("Submitted", 100.0), ("Running", 101.5), ("Success", 104.0)],
        "j2": [("Submitted", 100.0), ("Cancel", 103.0)],
    }
    one = found(
        timelines,
        step("j1", 1, "Submitted", 101.0),
        step("j1", 2, "Running", 106.0, inferred=True),
        step("j1", 3, "Success", 106.0),
        step("j2", 1, "Cancel", 106.0),
        step("another", 1, "Success", 106.0),
    )
    assert (one.jobs, one.states, one.seen, one.inferred) == (2, 5, 3, 1)
    assert (one.p50_seconds, one.p99_seconds) == (2.0, 3.0)
    assert (one.final_p50_seconds, one.final_p99_seconds) == (2.0, 3.0)
    assert (one.calls, one.calls_per_transition, one.calls_per_10_seconds) == (6, 2.0, 3.0)


def test_a_state_that_came_twice_is_the_last_one_that_could_be_seen() -> None:
    timeline = [("Submitted", 100.0), ("Pause", 101.0), ("Submitted", 103.0), ("Pause", 108.0), ("Submitted", 109.0)]
    one = found({"j1": timeline}, step("j1", 1, "Submitted", 104.0), step("j1", 2, "Pause", 108.5))
    assert (one.states, one.seen, one.p50_seconds, one.p99_seconds) == (5, 2, 0.5, 1.0)


def test_what_never_was_is_not_counted_as_recorded_and_nothing_has_no_figures() -> None:
    one = found({"j1": [("Submitted", 100.0)]}, step("j1", 1, "Failed", 104.0))
    assert (one.seen, one.inferred, one.p50_seconds, one.final_p99_seconds) == (0, 0, None, None)
    assert one.calls_per_transition is None


@pytest.mark.parametrize("callbacks", [None, "json"])
def test_a_load_is_played_to_a_worker_which_records_its_last_states(callbacks: str | None) -> None:
    words = ("--callbacks", callbacks) if callbacks else ()
    done = run("simulate", "--report", "--json", "--for", "3s", *QUICK, *words)
    assert done.returncode == 0, done.stderr
    one = json.loads(done.stdout)
    assert one["complete"]
    assert one["callbacks"] == callbacks
    assert 1 <= one["jobs"] <= one["states"]
    assert one["jobs"] <= one["seen"] + one["inferred"] <= one["states"]
    assert 0 <= one["p50_seconds"] <= one["p99_seconds"]
    assert one["calls"] > 0
    assert "0 s: " in done.stderr


def test_ctrl_c_prints_what_there_is(tmp_path: Path) -> None:
    said = tmp_path / "stderr.txt"
    with said.open("wb") as file:
        words = [*COMMAND, "simulate", "--report", "--for", "1h", *QUICK]
        process = subprocess.Popen(words, env=TERMINAL, cwd=tmp_path, stdout=subprocess.PIPE, stderr=file, text=True)
    try:
        wait_until(lambda: "0 s: " in said.read_text() or process.poll(), why=said.read_text)
    finally:
        process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said.read_text()
    assert "stopped before a poll could show the last changes" in printed
    assert "calls" in printed


def test_json_alone_and_a_wrong_duration_are_refused() -> None:
    assert "--json goes with --report" in run("simulate", "--json").stderr
    assert '"soon" is not a duration' in run("simulate", "--report", "--for", "soon").stderr
