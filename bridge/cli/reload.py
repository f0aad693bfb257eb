"""`rules reload`: every process reads rules.toml now, and it is shown who has taken it."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from bridge.cli.common import (
    fail,
    json_option,
    now_of,
    open_database,
    plainly,
    said_of,
    say,
    say_json,
    settings,
    some,
)  # fmt: skip
from bridge.decide.rules.rulebook import Rulebook
from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.rulesets import Holder, Standing
from bridge.wiring import parts
from bridge.wiring.rules import Rules

_LOOK_S = 0.25


@click.command("reload")
@click.option("--allow-empty", is_flag=True, help="Take it although it has no [[watch]] or no [[rule]] any more.")
@click.option("--wait", "wait_s", default=20.0, show_default=True, help="Seconds to wait for the workers.")
@json_option
@plainly
def reload_rules(allow_empty: bool, wait_s: float, as_json: bool) -> None:
    """Make every running process read rules.toml now, and say which workers have taken it.

    Without this they take a changed file when it has stayed the same for two seconds, or for thirty when half of its
    watches or rules have vanished. Exits 1 when the file here is wrong, or a live worker has other rules in the end.
    --allow-empty is remembered for this text, also at the next start.

    \b
    Examples:
      ci-bridge rules check new.toml && mv new.toml rules.toml && ci-bridge rules reload
      ci-bridge rules reload --json
      ci-bridge rules reload --allow-empty
    """
    found = settings()
    if found.rules_toml is not None:
        fail("the rules are in BRIDGE_RULES_TOML, which no running process reads again: change it, and restart them")
    rules = Rules(found, os.environ)
    book, db = rules.book, open_database(found)
    for warning in book.warnings:
        say(str(warning), err=True)
    if allow_empty:
        parts.make_known(db, book)
    with db.write() as tx:
        if allow_empty:
            rulesets.allow_empty(tx, book.sha)
        parts.refuse_emptied(tx, book, rules.file)
        rulesets.ask_for_reload(tx, now=now_of(db))
    if not as_json:
        say(f"{rules.file} has {said_of(book)} (sha {book.sha})")
    standing = _await(db, book, wait_s)
    _show(standing, book, as_json=as_json)
    sys.exit(1 if _without(standing, book) else 0)


def _await(db: Database, book: Rulebook, wait_s: float) -> Standing:
    """Wait until every live worker has the rules, or time is up."""
    until, said = time.monotonic() + wait_s, ""
    while True:
        now = now_of(db)
        with db.read() as tx:
            found = rulesets.standing(tx, now=now)
        left = _without(found, book)
        have = f"{len(found.alive) - len(left)} of {some(len(found.alive), 'worker')} have it"
        if have != said and found.alive:
            click.echo(said := have, err=True)
        if not left or time.monotonic() > until:
            return found
        time.sleep(_LOOK_S)


def _without(found: Standing, book: Rulebook) -> list[Holder]:
    return [one for one in found.alive if one.sha != book.sha]


def _show(found: Standing, book: Rulebook, *, as_json: bool) -> None:
    if as_json:
        say_json({"sha": book.sha, "in_force": found.sha, "workers": [_facts(one, book) for one in found.alive]})
        return
    for one in found.alive:
        facts = _facts(one, book)
        why = "has taken it" if facts["taken"] else f"has {one.sha}: {facts['why']}"
        say(f"worker {one.id} (process {one.pid}) {why}", err=not facts["taken"])
    if not found.alive:
        say("no worker runs: the next one that starts reads it")


def _facts(one: Holder, book: Rulebook) -> dict[str, Any]:
    taken = one.sha == book.sha
    return {"worker": one.id, "pid": one.pid, "sha": one.sha, "taken": taken, "why": None if taken else _why(one)}


def _why(one: Holder) -> str:
    if one.older:
        return "it is of an older version, which looks by itself every 5 s"
    return one.fault or one.note or "the rules.toml that it reads is another one, or it has not looked yet"
