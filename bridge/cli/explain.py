"""`rules explain`: why did I (not) get this?"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from bridge import wiring
from bridge.cli.common import fail, json_option, open_database, plainly, say, say_json, settings
from bridge.logs import printable
from bridge.pipeline.explain import Explained, explain_stored, sample_transition


@click.command()
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
