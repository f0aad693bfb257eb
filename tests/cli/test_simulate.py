"""`simulate`: a newcomer without an account runs what it prints, and the bridge works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.collect.callbacks import read_callback
from bridge.simulator.web import Answer, Request, WebServer, text_answer
from tests.support.commands import REPOSITORY
from tests.support.waiting import wait_until


class Listener(WebServer):
    def respond(self, request: Request) -> Answer:
        return text_answer("ok")


COMMAND = [sys.executable, "-m", "bridge"]
# As little as a new terminal has.
TERMINAL = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


@contextmanager
def simulated(folder: Path, *options: str) -> Iterator[Path]:
    """Run `simulate`, and yield the file that it prints into; it must end by itself on SIGTERM."""
    printed = folder / "simulate.txt"
    with printed.open("wb") as file:
        words = [*COMMAND, "simulate", "--port", "0", *options]
        process = subprocess.Popen(words, env=TERMINAL, cwd=folder, stdout=file, stderr=file)
    try:
        wait_until(lambda: "Ctrl-C" in printed.read_text() or process.poll(), why=printed.read_text)
        yield printed
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def exports(printed: str) -> str:
    return "\n".join(line for line in printed.splitlines() if line.startswith("  export "))


def in_terminal(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script], env=TERMINAL, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_with_what_it_prints_and_the_example_doctor_is_green(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "rules.toml", tmp_path)
    with simulated(tmp_path) as printed:
        done = in_terminal(tmp_path, f"{exports(printed.read_text())}\n{shlex.join(COMMAND)} doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert "ok    notifier ops: the app is in channel C024BE91L" in done.stdout
    assert "all checks passed" in done.stdout


def test_the_bridge_runs_with_what_it_prints_and_messages_are_shown(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "rules.toml", tmp_path)
    rules = (tmp_path / "rules.toml").read_text().replace('every    = "30s"', 'every    = "1s"')
    (tmp_path / "rules.toml").write_text(rules)
    with simulated(tmp_path, "--speed", "20", "--every", "2", "--seed", "8") as printed:
        script = f"{exports(printed.read_text())}\nexec {shlex.join(COMMAND)} worker"
        with (tmp_path / "worker.txt").open("wb") as log:
            worker = subprocess.Popen(["sh", "-c", script], env=TERMINAL, cwd=tmp_path, stdout=log, stderr=log)
        try:
            wait_until(
                lambda: (
                    re.search("slack .*failed: (?s:.*)webhook .* signature verified", printed.read_text())
                    or re.search("webhook .* signature verified(?s:.*)slack .*failed: ", printed.read_text())
                ),
                why=lambda: printed.read_text() + (tmp_path / "worker.txt").read_text(),
            )
        finally:
            worker.terminate()
            worker.wait(30)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = in_terminal(tmp_path, f"{shlex.join(COMMAND)} simulate --port {port - 2}")
    assert done.returncode == 1
    assert re.search(
        rf"cannot listen on 127.0.0.1:({port}|{port - 1}|{port - 2}): .*; choose another --port", done.stderr
    )


def test_callbacks_go_where_the_bridge_takes_them_and_nowhere_beyond_this_machine(tmp_path: Path) -> None:
    with Listener() as bridge:
        url = f"{bridge.url}/hooks/ci/known-to-all-on-127.0.0.1"
        options = ("--speed", "50", "--every", "1", "--seed", "8", "--callbacks", "json", "--callback-url", url)
        with simulated(tmp_path, *options) as printed:
            wait_until(lambda: bridge.requests, why=printed.read_text)
            assert "export BRIDGE_CALLBACK_TOKEN=known-to-all-on-127.0.0.1" in printed.read_text()
            assert f"Callbacks are posted to {url}" in printed.read_text()
    request = bridge.requests[0]
    assert request.path == "/hooks/ci/known-to-all-on-127.0.0.1"
    assert [job.bucket for job in read_callback(request.body)] == ["media-1250000000"]

    refused = in_terminal(
        tmp_path, f"{shlex.join(COMMAND)} simulate --port 0 --callbacks xml --callback-url https://example.com/x"
    )
    assert (refused.returncode, refused.stderr) == (
        1, "ci-bridge: --callback-url: https://example.com/x is not on this machine\n"
    )  # fmt: skip
