"""The commands, called in this process: a process for each call takes longer than most of them do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from bridge.cli import main

REPOSITORY = Path(__file__).parents[2]


def call(*words: str, stdin: str | None = None, **environ: str) -> Result:
    """Call `ci-bridge` with these words, and these variables beside those of the process.

    What would be a traceback in a process of its own is raised.
    """
    with logging_kept():
        return CliRunner(env=environ).invoke(main, words, input=stdin, prog_name="ci-bridge", catch_exceptions=False)


def run(*words: str, stdin: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, for what is the process's: its locale, its end, its tracebacks."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words],
        env=os.environ | environ,
        cwd=REPOSITORY,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def logging_kept() -> Iterator[None]:
    """Put back what a command sets up for the whole of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    root.handlers.clear()  # those of pytest: setting up logging would close them
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, threading.excepthook = hooks
