"""`rules check`: every fault of rules.toml at once, and its tests."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from bridge.cli.common import json_option, plainly, said_of, say, say_json, settings, some
from bridge.cli.rules import book_of
from bridge.decide.rules.rulebook import Fault, Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.rulesets import names_of
from bridge.decide.whatif.rule_tests import Failed, run
from bridge.wiring import parts

ENVIRONMENT = "BRIDGE_RULES_TOML"


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@json_option
@plainly
def check(file: str | None, as_json: bool) -> None:
    """Say everything that is wrong with rules.toml (or FILE), each with its line, and run its [[test]]s.

    Exits 1 when it is refused, or a test fails. Nothing is polled and nobody is told.

    \b
    Examples:
      ci-bridge rules check
      ci-bridge rules check staging.toml --json
      ci-bridge rules check new.toml && mv new.toml rules.toml
    """
    try:
        book = _book(file)
    except RulesRefused as error:
        _show_refused(error.faults, as_json=as_json)
        sys.exit(1)
    failed = run(book)
    if as_json:
        say_json([*map(_row, book.warnings), *map(_row_of_test, failed)])
    else:
        _show(book, failed, file or _name())
    sys.exit(1 if failed else 0)


def _book(file: str | None) -> Rulebook:
    book = book_of(file)
    if file is None and _name() == ENVIRONMENT and names_of(book).is_blank:
        raise RulesRefused([parts.emptied_fault(None, ENVIRONMENT), *book.warnings])
    return book


def _name() -> str:
    found = settings()
    return found.rules if found.rules_toml is None else ENVIRONMENT


def _row(fault: Fault) -> dict[str, object]:
    return {"line": fault.line, "level": "warning" if fault.warning else "error", "text": fault.text}


def _row_of_test(failed: Failed) -> dict[str, object]:
    return {"line": failed.line, "level": "test", "text": failed.text}


def _show_refused(faults: Sequence[Fault], *, as_json: bool) -> None:
    if as_json:
        say_json([*map(_row, faults)])
        return
    for fault in faults:
        say(str(fault), err=True)
    warnings = _counted(faults, warning=True)
    click.echo(f"refused: {_counted(faults, warning=False)}, {warnings}", err=True)


def _counted(faults: Sequence[Fault], *, warning: bool) -> str:
    kind = "warning" if warning else "error"
    counted = [fault for fault in faults if fault.warning == warning]
    if counted and counted[-1].more:
        return f"more than {some(len(counted) - 1, kind)}"
    return some(len(counted), kind)


def _show(book: Rulebook, failed: Sequence[Failed], file: str) -> None:
    for warning in book.warnings:
        say(str(warning), err=True)
    for one in failed:
        say(f"{file}:{one.line}: {one.text}", err=True)
    if failed:
        fail = "fails" if len(failed) == 1 else "fail"
        click.echo(f"the rules are right, but {len(failed)} of {some(len(book.tests), 'test')} {fail}")
        return
    click.echo(f"accepted, with {_counted(book.warnings, warning=True)}: {said_of(book)} (sha {book.sha})")
    if book.tests:
        click.echo(f"{some(len(book.tests), 'test')}, 0 failed")
