"""`rules explain`: why did I (not) get this?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection

from bridge import shallow_json, wiring
from bridge.cli.common import database_of, fail, json_option, open_database, plainly, say, say_json, settings
from bridge.decide.rulebook import Rulebook
from bridge.decide.samples import sample_transition
from bridge.display import visible
from bridge.pipeline.explain import as_text, explain_sample, explain_stored
from bridge.record.database import TROUBLES, Database, SchemaOld, trouble
from bridge.settings import Settings, SettingsRefused


@click.command()
@click.argument("job_id", required=False)
@click.option("--bucket", help="Only the job of this bucket: two may have one of the same id.")
@click.option("--job", "file", type=click.Path(dir_okay=False), help="A job as JSON (- is stdin), made up or not.")
@json_option
@plainly
def explain(job_id: str | None, bucket: str | None, file: str | None, as_json: bool) -> None:
    """Say of a job why each rule does or does not hear of it, and what came of every message.

    Each transition on record is judged by the rules that were in force then. With --job it is a job that the rules
    of now are asked about, and what mutes and silences would do to its messages now; nothing is recorded or sent.

    \b
    Examples:
      ci-bridge rules explain j8d121820f5e411ec926ef19d53ba9c6f
      ci-bridge rules explain j8d121820f5e411ec926ef19d53ba9c6f --json
      echo '{"tag": "Transcode", "from": "Running", "to": "Failed"}' | ci-bridge rules explain --job -
      echo '{"tag": "Transcode", "queue": "vod", "to": "Running", "age": "31m"}' | ci-bridge rules explain --job -
    """
    if (job_id is None) == (file is None):
        raise click.UsageError("give a job's id, or --job FILE: one of the two")
    if file is not None and bucket is not None:
        raise click.UsageError("--bucket is for a job on record; a job of --job names its own")
    found = settings()
    book = wiring.Rules(found, os.environ).book
    items = _made_up(file, book, found) if file is not None else _on_record(str(job_id), bucket, book, found)
    if as_json:
        say_json(items)
    else:
        say("\n\n".join(map(as_text, items)))


def _on_record(job_id: str, bucket: str | None, book: Rulebook, found: Settings) -> list[dict[str, Any]]:
    db = open_database(found)
    with db.read() as tx:
        items = explain_stored(tx, job_id, book, bucket=bucket, now=wiring.utc_now())
    if not items:
        where = f" in bucket {bucket}" if bucket else ""
        fail(
            f'no job "{job_id}"{where} is on record: is the id right (ci-bridge jobs list), and does a [[watch]] list'
            " its bucket and its tag? What has ended is kept for a time only (keep in [defaults])"
        )
    return items


def _made_up(file: str, book: Rulebook, found: Settings) -> list[dict[str, Any]]:
    now = wiring.utc_now()
    try:
        step = sample_transition(_job_file(file), book, now)
    except ValueError as error:
        raise click.BadParameter(visible(str(error), lines=True)) from error
    with _record_of(found) as (tx, unknown):
        return [explain_sample(step, book, now=now, tx=tx, unknown=unknown)]


@contextmanager
def _record_of(found: Settings) -> Iterator[tuple[Connection | None, str | None]]:
    """Yield a transaction, or why there is none: the rules can be asked without a database."""
    try:
        db = database_of(found)
    except SettingsRefused as error:
        yield None, str(error)
        return
    try:
        why = _why_unreadable(db)
        if why:
            yield None, why
            return
        with db.read() as tx:
            yield tx, None
    finally:
        db.close()


def _why_unreadable(db: Database) -> str | None:
    if db.is_missing:
        return f"there is no database {db.shown} yet"
    try:
        db.require_schema()
    except SchemaOld as error:
        return str(error)
    except TROUBLES as error:
        return trouble(error)
    return None


def _job_file(file: str) -> dict[str, Any]:
    try:
        given = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        found = shallow_json.loads(given.decode("utf-8-sig"))  # whatever the locale; editors on Windows write the mark
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{file} is not a file of JSON: {error}") from error
    if not isinstance(found, dict):
        raise click.BadParameter(f'{file} holds no JSON object, such as {{"tag": "Transcode", "to": "Failed"}}')
    return found
