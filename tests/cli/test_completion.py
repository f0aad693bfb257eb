"""Completion: the script of each shell, and what bash proposes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import call


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_ci_bridge(shell: str) -> None:
    seen = call("completion", shell)
    assert seen.exit_code == 0
    assert f"_CI_BRIDGE_COMPLETE={shell}_complete" in seen.stdout


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        ("ci-bridge wat", {"watches"}),
        ("ci-bridge watches pa", {"pause"}),
        ("ci-bridge jobs list --st", {"--state"}),
        ("ci-bridge deliveries list --state de", {"dead"}),
    ],
)
def test_commands_options_and_values_are_proposed(words: str, proposed: set[str]) -> None:
    place = str(len(words.split()) - 1)
    asked = {"_CI_BRIDGE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": place}
    program = Path(sys.executable).parent / "ci-bridge"
    seen = subprocess.run([program], env=os.environ | asked, capture_output=True, text=True, check=True, timeout=60)
    assert {line.partition(",")[2] for line in seen.stdout.splitlines()} == proposed
