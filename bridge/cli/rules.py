"""The commands about rules.toml: check, explain."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bridge import wiring
from bridge.cli.common import fail, json_option, open_database, plainly, said_of, say, say_json, settings, some
from bridge.decide.rulebook import Fault, Rulebook, RulesRefused, read
from bridge.logs import printable
from bridge.pipeline.explain import Explained, explain_stored, sample_transition


@click.group()
def rules() -> None:
    """rules.toml: what is watched, and who is told."""


@rules.command()
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
        book = _book(file)
    except RulesRefused as error:
        _show_faults(error.faults, None, as_json=as_json)
        sys.exit(1)
    _show_faults(book.warnings, book, as_json=as_json)


def _book(file: str | None) -> Rulebook:
    if file is None:
        return wiring.Rules(settings(), os.environ).book
    return read(wiring.load_rules(file), os.environ, file=file)


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


@rules.command()
@click.argument("job_id", required=False)
@click.option("--job", "file", type=click.Path(dir_okay=False), help="A job as JSON, instead of one on record.")
@json_option
@plainly
def explain(job_id: str | None, file: str | None, as_json: bool) -> None:
    """Say of a job why each rule does or does not hear of it, and what came of every message.

    \b
    Examples:
      ci-bridge rules explain j8d121820f5e411ec926ef19d53ba9c6f
      echo '{"tag": "Transcode", "from": "Running", "to": "Failed"}' | ci-bridge rules explain --job -
    """
    if (job_id is None) == (file is None):
        raise click.UsageError("give a job's id, or --job FILE: one of the two")
    found = settings()
    book = wiring.Rules(found, os.environ).book
    if file is not None:
        try:
            explained = [Explained.of(sample_transition(_job_file(file), book, wiring.utc_now()), book)]
        except ValueError as error:
            raise click.BadParameter(printable(str(error))) from error
    else:
        db = open_database(found)
        with db.read() as tx:
            explained = explain_stored(tx, str(job_id), book)
        db.close()
    if not explained:
        fail(f'no job "{job_id}" is on record; has a watch seen it? (ci-bridge jobs list)')
    if as_json:
        say_json([one.facts() for one in explained])
    else:
        say("\n\n".join(one.text() for one in explained))


def _job_file(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{file} is not a file of JSON: {error}") from error
    if not isinstance(found, dict):
        raise click.BadParameter(f"{file} holds no JSON object")
    return found
