"""Processes forked from one that has imported the bridge already: the imports take longer than most workers live."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

from bridge.cli import main as commands

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["tests.crash.victim", "tests.crash.moment", "bridge.wiring.web", "bridge.wiring.worker"]
)  # with all of the bridge


class Process(Protocol):
    """As much of subprocess.Popen as tests ask for."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...


class Forked:
    """A process of its own, killed and signalled as any other."""

    def __init__(self, main: Callable[[], object], *, environ: Mapping[str, str], folder: Path, log: Path) -> None:
        """Call `main`, a function of a module, as a program in `folder`; what it prints is written to `log`."""
        self._process = _FORKS.Process(target=_become, args=(main, dict(environ), folder, log))
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self._process.exitcode

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self._process.kill()


def worker() -> None:
    commands(["worker"])


def run() -> None:
    commands(["run"])


def _become(main: Callable[[], object], environ: dict[str, str], folder: Path, log: Path) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    main()
