"""The commands, called in this process: a process for each call takes longer than most of them do."""

from __future__ import annotations

from click.testing import CliRunner, Result

from bridge.cli import main


def call(*words: str, **environ: str) -> Result:
    """Call `ci-bridge` with these words, and these variables beside those of the process."""
    return CliRunner(env=environ).invoke(main, words, prog_name="ci-bridge")
