"""`rules check`: every fault of rules.toml at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from bridge.cli.common import json_option, plainly, said_of, say, say_json, some
from bridge.cli.rules import book_of
from bridge.decide.rulebook import Fault, Rulebook, RulesRefused


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@json_option
@plainly
def check(file: str | None, as_json: bool) -> None:
    """Say everything that is wrong with rules.toml (or FILE), each with its line. Exits 1 when it is refused.

    \b
    Examples:
      ci-bridge rules check
      ci-bridge rules check staging.toml --json
    """
    try:
        book = book_of(file)
    except RulesRefused as error:
        _show_faults(error.faults, None, as_json=as_json)
        sys.exit(1)
    _show_faults(book.warnings, book, as_json=as_json)


def _show_faults(faults: Sequence[Fault], book: Rulebook | None, *, as_json: bool) -> None:
    if as_json:
        rows = [{"line": f.line, "level": "warning" if f.warning else "error", "text": f.text} for f in faults]
        say_json(rows)
        return
    for fault in faults:
        say(str(fault), err=True)
    if book:
        click.echo(f"accepted, with {some(len(faults), 'warning')}: {said_of(book)} (sha {book.sha})")
    else:
        errors = sum(not fault.warning for fault in faults)
        click.echo(f"refused: {some(errors, 'error')}, {some(len(faults) - errors, 'warning')}", err=True)
