"""What the commands share: the set-up, plain errors, tables and JSON."""

from __future__ import annotations

import functools
import getpass
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from bridge import settings as environment
from bridge.collect.errors import CiError
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.text.times import duration
from bridge.display import DETAIL, columns, fit, one_line, pad, visible, visible_json
from bridge.environment import lookup
from bridge.pipeline.operations import OperationRefused, Operations
from bridge.record.database import TROUBLES, Database, SchemaOld, SharedClock, trouble
from bridge.settings import Settings, SettingsRefused
from bridge.wiring import parts
from bridge.wiring.rules import Rules

P = ParamSpec("P")
R = TypeVar("R")
Facts = Mapping[str, Any]

_WIDEST = 60  # columns of a cell

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def say(text: str, *, err: bool = False) -> None:
    """Print a text of lines; what of it a terminal would act on is spelt out, as it may be a stranger's."""
    click.echo(visible(text, lines=True), err=err)


def say_json(found: object) -> None:
    """Print JSON that a person can read too: only what a terminal would act on is escaped."""
    click.echo(visible_json(json.dumps(found, ensure_ascii=False, indent=2)))


def fail(text: str) -> NoReturn:
    """Say what is wrong on stderr and exit 1."""
    say(text, err=True)
    sys.exit(1)


def plainly(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the failures that a person can mend into their own words and exit 1, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (RulesRefused, CiError, OperationRefused) as error:
            fail(str(error))
        except (SettingsRefused, SchemaOld) as error:
            fail(f"ci-bridge: {error}")
        except TROUBLES as error:
            fail(f"ci-bridge: {trouble(error)}")
        except UnicodeEncodeError as error:
            raise click.UsageError(_not_text(error)) from error

    return wrapped


def _not_text(error: UnicodeEncodeError) -> str:
    """Say what cannot be written down; only the sign, as what is around it may be secret."""
    sign = error.object[error.start]
    if error.encoding != "utf-8":
        return f"{sign!a} cannot be printed here in {error.encoding}; set PYTHONIOENCODING=utf-8"
    # An argument's bytes that are not UTF-8 are half of a surrogate pair each (PEP 383).
    said = f"byte {ord(sign) - 0xDC00:#04x}" if 0xDC80 <= ord(sign) <= 0xDCFF else ascii(sign)
    return f"what is given on the command line is not UTF-8: {said}"


def settings() -> Settings:
    return environment.read(os.environ)


def database_of(found: Settings) -> Database:
    """Return the database as it is, to be closed when the command ends, however it does.

    Raises SettingsRefused when DATABASE_URL cannot be one.
    """
    try:
        db = parts.database(found)
    except ValueError as error:
        raise SettingsRefused(str(error)) from error
    click.get_current_context().call_on_close(db.close)
    return db


def open_database(found: Settings, *, make: bool = False) -> Database:
    """Return the database with the newest schema. Raises SchemaOld with what to do.

    Only with `make` is an SQLite file made where there is none: a question asked in the wrong folder is no reason.
    """
    db = database_of(found)
    if not make and db.is_missing:
        fail(f"there is no database {db.shown} yet: `ci-bridge poll`, `worker` or `run` makes it (or set DATABASE_URL)")
    db.require_schema()
    return db


def everything(*, polls: bool) -> tuple[Settings, Rules, Database]:
    """Return settings, rules and database, with logging started and what the rules name on record.

    `polls`: CI's key must be there, and rules that somebody meant.
    """
    found = settings()
    if polls and found.missing_key:
        raise SettingsRefused(found.missing_key)
    book = Rules(found, os.environ)
    parts.start_logging(found, book.book)
    for warning in book.book.warnings:
        say(str(warning), err=True)
    db = open_database(found, make=True)
    if polls:
        with db.read() as tx:
            parts.refuse_emptied(tx, book.book, book.file)
    parts.make_known(db, book.book)
    return found, book, db


def moment(text: str | None) -> datetime | None:
    """Read "2h" (ago) or an RFC 3339 time."""
    if text is None:
        return None
    if re.fullmatch(r"(\d+[smhd])+", text):
        try:
            return datetime.now(UTC) - duration(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f'"{text}" is not a time; write "2h" (ago) or 2026-11-21T09:00:00Z') from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def some(count: int, one: str, many: str | None = None) -> str:
    """Say a number of things: "1 try", "2 tries"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def said_of(book: Rulebook) -> str:
    """Say what a rulebook has: "1 watch, 2 notifiers, 2 rules"."""
    watches = some(len(book.watches), "watch", "watches")
    return f"{watches}, {some(len(book.notifiers), 'notifier')}, {some(len(book.rules), 'rule')}"


def show_list(items: Sequence[Facts], names: Sequence[str], *, as_json: bool, nothing: str) -> None:
    """Print one JSON array, or a table with a column for each of these names."""
    if as_json:
        say_json(items)
    elif not items:
        say(nothing)
    else:
        rows = [[name.upper() for name in names], *([_cell(item.get(name)) for name in names] for item in items)]
        widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            click.echo("  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_one(facts: Facts, *, as_json: bool) -> None:
    """Print one JSON object, or a line for each fact; lists of tables below."""
    if as_json:
        say_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            click.echo(f"\n{name}:")
            show_list(value, _columns(value), as_json=False, nothing="")
        elif value not in (None, [], {}):
            more = " (--json has all of it)" if len(str(value)) > DETAIL else ""
            click.echo(f"{name:<14}{_text(value, DETAIL)}{more}")


def _columns(rows: Iterable[Facts]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value is not None)
    return [name for name in names if name != "bucket"]


def _cell(value: object) -> str:
    return "-" if value is None else fit(_text(value, _WIDEST), _WIDEST)


def _text(value: object, limit: int) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    text = re.sub(r"(\d\d:\d\d:\d\d)\.\d{3}Z$", r"\1Z", one_line(text, limit))
    return visible(text)


def now_of(db: Database) -> datetime:
    """Return the time that workers go by: on PostgreSQL it is the database's, and this machine's may be another."""
    clock = SharedClock(db, parts.utc_now)
    clock.correct()
    return clock()


def login() -> str | None:
    """Return who asks, where that has a name: a container may know none for its user."""
    try:
        return lookup(os.environ, "USER") or getpass.getuser()
    except (KeyError, OSError):
        return None


def operations(db: Database, who: str | None = None) -> Operations:
    """Return what can be done by hand, now, in the name of `who`: whoever is logged in, where nobody is named."""
    return Operations(db=db, who=who or login() or "command line", now=now_of(db), nonce=secrets.token_hex(8))
