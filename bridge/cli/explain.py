"""`rules explain`: why was (or was not) somebody notified?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from sqlalchemy import Connection

from bridge import shallow_json
from bridge.cli.common import Facts, configured_rules, connect, echo, echo_json, fail, json_option, open_database
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.whatif.rule_tests import sample_transition
from bridge.display import columns, pad, visible
from bridge.pipeline.explain import explain_sample, explain_stored
from bridge.record.database import TROUBLES, SchemaOld, trouble
from bridge.settings import SettingsRefused
from bridge.wiring import parts

_COLUMN = 40  # columns of a terminal, for all cells but the last
_NON_MATCHING = 20  # rules that are shown
_MESSAGE_LINES = 10


@click.command(short_help="Show why each rule does or does not match a job.")
@click.argument("job_id", required=False)
@click.option("--bucket", help="Only the job in this bucket: two buckets may have the same job id.")
@click.option("--job", "file", type=click.Path(dir_okay=False), help="A sample job as JSON (- is stdin).")
@json_option
def explain(job_id: str | None, bucket: str | None, file: str | None, as_json: bool) -> None:
    """Show why each rule does or does not match a job's transitions, and what happened to every message.

    Each transition on record is explained by the rules that were in force then. With --job, a sample job is matched
    against rules.toml and the silences of now; nothing is recorded or sent.

    \b
    Examples:
      ci-bridge rules explain j8d121820f5e411ec926ef19d53ba9c6f
      ci-bridge rules explain j8d121820f5e411ec926ef19d53ba9c6f --json
      echo '{"tag": "Transcode", "from": "Running", "to": "Failed"}' | ci-bridge rules explain --job -
      echo '{"tag": "Transcode", "queue": "vod", "to": "Running", "age": "31m"}' | ci-bridge rules explain --job -
    """
    if (job_id is None) == (file is None):
        raise click.UsageError("give either a job id or --job FILE")
    if file is not None and bucket is not None:
        raise click.UsageError("--bucket is for a job on record; the sample job has a bucket of its own")
    book = configured_rules().book
    items = _sample(file, book) if file is not None else _on_record(str(job_id), bucket, book)
    if as_json:
        echo_json(items)
    else:
        echo("\n\n".join(map(as_text, items)))


def _on_record(job_id: str, bucket: str | None, book: Rulebook) -> list[Facts]:
    db = open_database()
    with db.read() as tx:
        items = explain_stored(tx, job_id, book, bucket=bucket, now=parts.utc_now())
    if not items:
        where = f" in bucket {bucket}" if bucket else ""
        fail(
            f'no job "{job_id}"{where} is on record: is the id right (ci-bridge jobs list), and does a [[watch]] list'
            " its bucket and its tag? Ended jobs are kept for a limited time (keep in [defaults])"
        )
    return items


def _sample(file: str, book: Rulebook) -> list[Facts]:
    now = parts.utc_now()
    try:
        transition = sample_transition(_read_job(file), book, now)
    except ValueError as error:
        raise click.BadParameter(visible(str(error), lines=True)) from error
    with _record() as (tx, unknown):
        return [explain_sample(transition, book, now=now, tx=tx, unknown=unknown)]


@contextmanager
def _record() -> Iterator[tuple[Connection | None, str | None]]:
    """Yield a transaction, or why there is none: a sample job can be explained without a database."""
    try:
        db = connect()
        if db.is_missing:
            yield None, f"there is no database {db.shown} yet"
            return
        db.require_schema()
    except (SettingsRefused, SchemaOld) as error:
        yield None, str(error)
        return
    except TROUBLES as error:
        yield None, trouble(error)
        return
    with db.read() as tx:
        yield tx, None


def _read_job(file: str) -> Facts:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        job = shallow_json.loads(content.decode("utf-8-sig"))  # whatever the locale; editors on Windows write the BOM
        json.dumps(job, ensure_ascii=False).encode()  # refuses half of a surrogate pair
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{file} is not a JSON file: {error}") from error
    if not isinstance(job, dict):
        raise click.BadParameter(f'{file} holds no JSON object such as {{"tag": "Transcode", "to": "Failed"}}')
    return job


# --- as text --------------------------------------------------------------------------------------------------------


def as_text(facts: Facts) -> str:
    """Return the explanation of one transition as lines of text."""
    head = f"{facts['tag'] or 'job'} {facts['job']}: {facts['from']} -> {facts['to']}"
    how = "inferred" if facts["inferred"] else "seen"
    head += f" (number {facts['sequence']}, {how} {facts['seen_at']}, watch {facts['watch']})"
    lines = [head, f"  {facts['headline']}", *_notes(facts), *_deliveries(facts), *_messages(facts), *_rules(facts)]
    return "\n".join(map(visible, lines))  # a line break within a name is escaped


def _notes(facts: Facts) -> Iterator[str]:
    yield from (f"  note: {note}" for note in facts["notes"])
    if now := facts["would_tell_now"]:
        names = ", ".join(f'{", ".join(rule["notifiers"])} by "{rule["rule"]}"' for rule in now["tells"])
        yield f"  note: rules.toml as it is now would notify: {names or 'nobody'}"


def _deliveries(facts: Facts) -> Iterator[str]:
    rows: list[tuple[str, ...]] = []
    for delivery in facts["deliveries"]:
        kind = f"{delivery['kind']}: " if delivery["kind"] != "transition" else ""
        id_ = f" ({delivery['id']})" if delivery["id"] else ""
        rule = f'"{delivery["rule"]}"' if delivery["rule"] else "manual"
        rows.append((delivery["notifier"], rule, kind + delivery["why"] + id_))
    yield from _aligned(rows)


def _messages(facts: Facts) -> Iterator[str]:
    for title, text in dict.fromkeys((message["title"], message["text"]) for message in facts["messages"]):
        yield f"    says: {title}"
        lines = [line for line in visible(text, lines=True).split("\n") if line.strip()]
        yield from (f"          {line}" for line in lines[:_MESSAGE_LINES])
        if len(lines) > _MESSAGE_LINES:
            yield f"          ... and {len(lines) - _MESSAGE_LINES} more lines"


def _rules(facts: Facts) -> Iterator[str]:
    rows = [_edge(rule) for rule in facts["rules"]] + [_level(rule) for rule in facts["levels"]]
    rows += [_incident(one) for one in facts["incidents"]]
    non_matching = [number for number, row in enumerate(rows) if row[0] in ("no", "stopped")]
    left_out = set(non_matching[_NON_MATCHING:])
    yield from _aligned([row for number, row in enumerate(rows) if number not in left_out])
    if left_out:
        yield f"    ... and {len(left_out):,} more that do not match (--json has them all)"


def _edge(rule: Facts) -> tuple[str, ...]:
    name = f'rule "{rule["rule"]}" (line {rule["line"]})'
    if not rule["matches"]:
        return rule["answer"], name, rule["why_not"]
    notifies = f"notifies {', '.join(rule['notifiers'])}" if rule["notifiers"] else "matches"
    already = f"; a rule above notifies {', '.join(rule['already_told'])}" if rule["already_told"] else ""
    return rule["answer"], name, notifies + already


def _level(level: Facts) -> tuple[str, ...]:
    line = f" (line {level['line']})" if level["line"] else " (no longer in rules.toml)"
    return level["answer"], f'rule "{level["rule"]}"{line}', level["why"]


def _incident(one: Facts) -> tuple[str, ...]:
    answer, name, why = _level(one)
    key = ", ".join(f"{field} {value}" for field, value in (one["by"] or {}).items())
    standing = f"{f'{key}: ' if key else ''}{one['standing']}" if one["standing"] else key
    return answer, name, "; ".join(filter(None, (why, standing)))


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows with aligned columns; the last column is not padded."""
    widths = [min(_COLUMN, max(map(columns, column))) for column in zip(*rows, strict=True)][:-1]
    for *cells, last in rows:
        yield "  ".join(["  ", *(pad(cell, width) for cell, width in zip(cells, widths, strict=True)), last])
