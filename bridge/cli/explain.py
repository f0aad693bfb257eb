"""`rules explain`: why did I (not) get this?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection

from bridge import shallow_json
from bridge.cli.common import database_of, fail, json_option, open_database, plainly, say, say_json, settings
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.whatif.rule_tests import sample_transition
from bridge.display import columns, pad, visible
from bridge.pipeline.explain import explain_sample, explain_stored
from bridge.record.database import TROUBLES, Database, SchemaOld, trouble
from bridge.settings import Settings, SettingsRefused
from bridge.wiring import parts
from bridge.wiring.rules import Rules

_WIDEST = 40  # characters of a column but the last
_MOST_RULES = 20  # of those that said no
_LONGEST_TEXT = 10  # lines of a message
_ANSWERS = {"fired": "yes", "waiting": "wait", "stopped": "no", "no": "no"}

Facts = Mapping[str, Any]


@click.command()
@click.argument("job_id", required=False)
@click.option("--bucket", help="Only the job of this bucket: two may have one of the same id.")
@click.option("--job", "file", type=click.Path(dir_okay=False), help="A sample job as JSON (- is stdin).")
@json_option
@plainly
def explain(job_id: str | None, bucket: str | None, file: str | None, as_json: bool) -> None:
    """Say why each rule does or does not match a job's transitions, and what became of every message.

    Each transition on record is judged by the rules that were in force then. With --job the present rules are asked
    about a sample job, and what mutes and silences would do to its messages now; nothing is recorded or sent.

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
    book = Rules(found, os.environ).book
    items = _sample(file, book, found) if file is not None else _on_record(str(job_id), bucket, book, found)
    if as_json:
        say_json(items)
    else:
        say("\n\n".join(map(as_text, items)))


def _on_record(job_id: str, bucket: str | None, book: Rulebook, found: Settings) -> list[dict[str, Any]]:
    db = open_database(found)
    with db.read() as tx:
        items = explain_stored(tx, job_id, book, bucket=bucket, now=parts.utc_now())
    if not items:
        where = f" in bucket {bucket}" if bucket else ""
        fail(
            f'no job "{job_id}"{where} is on record: is the id right (ci-bridge jobs list), and does a [[watch]] list'
            " its bucket and its tag? What has ended is kept for a time only (keep in [defaults])"
        )
    return items


def _sample(file: str, book: Rulebook, found: Settings) -> list[dict[str, Any]]:
    now = parts.utc_now()
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


# --- the answer for people --------------------------------------------------------------------------------------


def as_text(facts: Facts) -> str:
    """Return one transition's answer as lines without an end of line."""
    head = f"{facts['tag'] or 'job'} {facts['job']}: {facts['from']} -> {facts['to']}"
    head += f" (number {facts['sequence']}, seen {facts['seen_at']}, watch {facts['watch']})"
    lines = [head, f"  {facts['headline']}", *_notes(facts), *_deliveries(facts), *_messages(facts)]
    lines += _rules(facts)
    return "\n".join(map(visible, lines))  # a line break in a name begins none


def _notes(facts: Facts) -> Iterator[str]:
    yield from (f"  note: {note}" for note in facts["notes"])
    if now := facts["would_tell_now"]:
        names = ", ".join(f'{", ".join(rule["notifiers"])} by "{rule["rule"]}"' for rule in now["tells"])
        yield f"  note: the present rules would notify: {names or 'nobody'}"


def _deliveries(facts: Facts) -> Iterator[str]:
    for_rule = [
        (delivery, f'"{delivery["rule"]}"' if delivery["rule"] else "manual") for delivery in facts["deliveries"]
    ]
    yield from _aligned([(delivery["notifier"], rule, _why(delivery)) for delivery, rule in for_rule])


def _why(delivery: Facts) -> str:
    kind = f"{delivery['kind']}: " if delivery["kind"] != "transition" else ""
    return " ".join([kind + delivery["why"], *([f"({delivery['id']})"] if delivery["id"] else [])])


def _messages(facts: Facts) -> Iterator[str]:
    for title, text in dict.fromkeys((message["title"], message["text"]) for message in facts["messages"]):
        yield f"    says: {title}"
        lines = [line for line in visible(text, lines=True).split("\n") if line.strip()]
        yield from (f"          {line}" for line in lines[:_LONGEST_TEXT])
        if len(lines) > _LONGEST_TEXT:
            yield f"          ... and {len(lines) - _LONGEST_TEXT} lines more"


def _rules(facts: Facts) -> Iterator[str]:
    rows = [_edge(rule) for rule in facts["rules"]] + [_level(rule) for rule in facts["levels"]]
    no = [row for row in rows if row[0] == "no"]
    left_out = {id(row) for row in no[_MOST_RULES:]}
    yield from _aligned([row for row in rows if id(row) not in left_out])
    if left_out:
        yield f"    ... and {len(left_out):,} more that say no (--json has them all)"


def _edge(rule: Facts) -> tuple[str, ...]:
    name = f'rule "{rule["rule"]}" (line {rule["line"]})'
    if not rule["matches"]:
        return _ANSWERS[rule["answer"]], name, rule["why_not"]
    notifies = f"notifies {', '.join(rule['notifiers'])}" if rule["notifiers"] else "matches"
    already = f"; a rule above notifies {', '.join(rule['already_told'])}" if rule["already_told"] else ""
    return _ANSWERS[rule["answer"]], name, notifies + already


def _level(level: Facts) -> tuple[str, ...]:
    line = f" (line {level['line']})" if level["line"] else " (no longer among the rules)"
    return _ANSWERS[level["answer"]], f'rule "{level["rule"]}"{line}', level["why"]


def _aligned(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows with columns of one width; the last is as long as it is."""
    listed = list(rows)
    widths = [min(_WIDEST, max(map(columns, column))) for column in zip(*listed, strict=True)][:-1]
    for *cells, last in listed:
        yield "  ".join(["  ", *(pad(cell, width) for cell, width in zip(cells, widths, strict=True)), last])
