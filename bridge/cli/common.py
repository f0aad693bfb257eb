"""What the commands share: set-up, error messages, tables and JSON."""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import click

from bridge import settings as settings_module
from bridge.cli.tables import Times, coloured, fitting, moment, times_of
from bridge.collect.errors import CiError
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.silences import LONGEST_AUTHOR
from bridge.decide.text.times import duration
from bridge.display import DETAIL, columns, fit, one_line, visible, visible_json
from bridge.env_file import EnvFileRefused
from bridge.environment import lookup
from bridge.pipeline.operations import OperationRefused, Operations
from bridge.record.actions import Author
from bridge.record.database import TROUBLES, Database, SchemaOld, SharedClock, trouble
from bridge.settings import Settings, SettingsRefused
from bridge.wiring import parts
from bridge.wiring.rules import Rules

Facts = dict[str, Any]

_CELL = 60  # columns of a cell at most

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


# --- output and errors ----------------------------------------------------------------------------------------------


def echo(text: str, *, err: bool = False) -> None:
    """Print lines of text; control characters are escaped, as the text may be foreign."""
    click.echo(visible(text, lines=True), err=err)


def echo_json(value: object) -> None:
    click.echo(visible_json(json.dumps(value, ensure_ascii=False, indent=2)))


def echo_json_line(value: object) -> None:
    click.echo(visible_json(json.dumps(value, ensure_ascii=False)))


def fail(text: str) -> NoReturn:
    """Print what is wrong on stderr and exit 1."""
    echo(text, err=True)
    sys.exit(1)


def plain_message(error: Exception) -> str | None:
    """Return the message of a failure that a person can fix, None for a bug. Raises UsageError for bad arguments."""
    if isinstance(error, RulesRefused | CiError | OperationRefused):
        return str(error)
    if isinstance(error, SettingsRefused | SchemaOld | EnvFileRefused):
        return f"ci-bridge: {error}"
    if isinstance(error, TROUBLES):
        return f"ci-bridge: {trouble(error)}"
    if isinstance(error, UnicodeEncodeError):
        raise click.UsageError(_not_encodable(error)) from error
    return None


def _not_encodable(error: UnicodeEncodeError) -> str:
    """Name the character, and nothing around it, which may be secret."""
    character = error.object[error.start]
    if error.encoding != "utf-8":
        return f"{character!a} cannot be printed in {error.encoding}; set PYTHONIOENCODING=utf-8"
    # Each byte of an argument that is not UTF-8 is half of a surrogate pair (PEP 383).
    code = ord(character)
    shown = f"byte {code - 0xDC00:#04x}" if 0xDC80 <= code <= 0xDCFF else ascii(character)
    return f"an argument is not UTF-8: {shown}"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 delivery", "2 deliveries"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def deliveries_of(number: int) -> str:
    return count_of(number, "delivery", "deliveries")


def contents_of(book: Rulebook) -> str:
    """Return what a rulebook has: "1 watch, 2 notifiers, 2 rules"."""
    watches = count_of(len(book.watches), "watch", "watches")
    return f"{watches}, {count_of(len(book.notifiers), 'notifier')}, {count_of(len(book.rules), 'rule')}"


def echo_table(rows: Sequence[Facts], names: Sequence[str], *, empty: str = "") -> None:
    """Print a table with a column for each of these names, or `empty` if there are no rows."""
    if not rows:
        echo(empty)
        return
    Table(names, times_of(click.get_current_context())).echo(rows)


class Table:
    """A table that may be printed part by part. The first part decides which columns there are."""

    def __init__(self, names: Sequence[str], times: Times) -> None:
        self._names, self._times = list(names), times
        self._widths: dict[str, int] = {}

    def echo(self, rows: Sequence[Facts]) -> None:
        if not rows:
            return
        is_first, now = not self._widths, datetime.now(UTC)
        lines = [{name: name.upper() for name in self._names}] if is_first else []
        lines += [{name: _cell(moment(row.get(name), self._times, now)) for name in self._names} for row in rows]
        widths = [max(self._widths.get(name, 0), *(columns(line[name]) for line in lines)) for name in self._names]
        room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        empties = [name for name in self._names if is_first and all(row.get(name) is None for row in rows)]
        self._widths = fitting(self._names, widths, room, empties)
        for line in lines:
            click.echo("  ".join(coloured(name, line[name], width) for name, width in self._widths.items()).rstrip())
        if left := [name.upper() for name in self._names if name not in (*self._widths, *empties)]:
            echo(f"no room for {', '.join(left)}: --json has all", err=True)
        self._names = list(self._widths)


def echo_details(facts: Facts) -> None:
    """Print a line for each fact, then the lists as tables."""
    for name, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            used = dict.fromkeys(key for row in value for key, cell in row.items() if cell is not None)
            click.echo(f"\n{name}:")
            echo_table(value, [key for key in used if key != "bucket"])
        elif value not in (None, [], {}):
            more = " (--json has all of it)" if len(str(value)) > DETAIL else ""
            click.echo(f"{name:<14}{_text(value, DETAIL)}{more}")


def _cell(value: object) -> str:
    return "-" if value is None else fit(_text(value, _CELL), _CELL)


def _text(value: object, limit: int) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    text = re.sub(r"(\d\d:\d\d:\d\d)\.\d{3}Z$", r"\1Z", one_line(text, limit))
    return visible(text)


# --- set-up ---------------------------------------------------------------------------------------------------------


def settings() -> Settings:
    return settings_module.read(os.environ)


def configured_rules() -> Rules:
    """Return the rules that BRIDGE_RULES or BRIDGE_RULES_TOML names. Raises RulesRefused."""
    return Rules(settings(), os.environ)


def connect() -> Database:
    """Return the database whatever its schema; it is closed when the command ends.

    Raises SettingsRefused when DATABASE_URL is wrong.
    """
    try:
        db = parts.database(settings())
    except ValueError as error:
        raise SettingsRefused(str(error)) from error
    click.get_current_context().call_on_close(db.close)
    return db


def open_database(*, create: bool = False) -> Database:
    """Return the database with the newest schema. Raises SchemaOld, which says what to do.

    Without `create` no SQLite file is created: a query in the wrong folder must not leave one behind.
    """
    db = connect()
    if not create and db.is_missing:
        fail(
            f"there is no database {db.shown} yet: `ci-bridge poll`, `worker` or `run` creates it; or set DATABASE_URL"
        )
    db.require_schema()
    return db


def open_bridge(*, polls: bool) -> tuple[Settings, Rules, Database]:
    """Return settings, rules and database, with logging set up and the rules' watches and notifiers on record.

    `polls`: CI's key must be set, and the rules must not be empty by mistake.
    """
    config = settings()
    rules = Rules(config, os.environ)
    if polls and (missing := parts.missing_key(config, rules.book)):
        raise SettingsRefused(missing)
    parts.start_logging(config, rules.book)
    for warning in rules.book.warnings:
        echo(str(warning), err=True)
    db = open_database(create=True)
    if polls:
        with db.read() as tx:
            parts.refuse_emptied(tx, rules.book, rules.file)
    parts.make_known(db, rules.book)
    return config, rules, db


def parse_time(text: str | None) -> datetime | None:
    """Parse "2h" (ago) or an RFC 3339 time."""
    if text is None:
        return None
    if re.fullmatch(r"(\d+[smhd])+", text):
        try:
            return datetime.now(UTC) - duration(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f'"{text}" is not a time; write "2h" (ago) or 2026-11-21T09:00:00Z') from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def now_of(db: Database) -> datetime:
    """Return the time that workers use: on PostgreSQL the database's, which may differ from this machine's."""
    clock = SharedClock(db, parts.utc_now)
    clock.correct()
    return clock()


def login() -> str | None:
    """Return who is logged in, if the user has a name: in a container it may have none."""
    try:
        return lookup(os.environ, "USER") or getpass.getuser()
    except (KeyError, OSError):
        return None


def author(by: str | None, does: str) -> str:
    """Return who does something, by default the user who is logged in. Raises UsageError."""
    if not (who := (by or login() or "").strip()) or len(who) > LONGEST_AUTHOR or not who.isprintable():
        raise click.UsageError(f"say who {does} with --by NAME, in at most {LONGEST_AUTHOR} printable characters")
    return who


def operations(db: Database, who: str | None = None) -> Operations:
    """Return the manual operations, done now in the name of `who`, by default the user who is logged in."""
    return Operations(db=db, who=Author(who or login() or "command line"), now=now_of(db), nonce=secrets.token_hex(8))
