"""The commands about rules.toml."""

from __future__ import annotations

import os

import click

from bridge.cli import LazyGroup
from bridge.cli.common import settings
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.wiring.rules import Rules, load_rules

_COMMANDS = {
    "check": ("bridge.cli.check:check", "Say everything that is wrong with rules.toml."),
    "explain": ("bridge.cli.explain:explain", "Say why each rule does or does not hear of a job."),
    "reload": ("bridge.cli.reload:reload_rules", "Make running processes read rules.toml now."),
    "backtest": ("bridge.cli.backtest:backtest", "Try rules on what has happened, without sending."),
}


@click.command(cls=LazyGroup, lazy=_COMMANDS)
def rules() -> None:
    """rules.toml: what is watched, and who is told."""


def book_of(file: str | None) -> Rulebook:
    """Return the rules of a file, or those in force. Raises RulesRefused."""
    if file is None:
        return Rules(settings(), os.environ).book
    return read(load_rules(file), os.environ, file=file)
