"""`doctor`: is everything as the bridge needs it? One line a check, and what to do where it is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click

from bridge import settings as environment
from bridge.cli.common import json_option, now_of, said_of, say, say_json, some
from bridge.collect.errors import CiError
from bridge.decide.changes.clocks import Clocks, clock_warning
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.pipeline.health import Level, Reader, warnings
from bridge.record.database import TROUBLES, Database, SchemaOld, trouble
from bridge.record.queries import gauges
from bridge.settings import Settings, SettingsRefused
from bridge.wiring import parts
from bridge.wiring.parts import notifier_checks
from bridge.wiring.rules import Rules


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `ok` None is a warning."""

    name: str
    ok: bool | None
    detail: str


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check settings, database, rules, CI and notifiers, and say what to do. Exits 1 when something is wrong.

    Asks CI for one job of each stream, looks up each webhook's address, asks Slack whether each token is good.
    Sends no message: `ci-bridge notifier test NAME` does.
    """
    found = []
    for check in _checks():
        found.append(check)
        if not as_json:
            mark = {True: "ok  ", None: "warn", False: "FAIL"}[check.ok]
            say(f"{mark}  {check.name}: {' '.join(check.detail.split())}")
    wrong, odd = (sum(check.ok is ok for check in found) for ok in (False, None))
    if as_json:
        say_json([asdict(check) for check in found])
    elif wrong:
        click.echo(f"\n{wrong} of {len(found)} checks failed", err=True)
    elif odd:
        click.echo(f"\n`ci-bridge run` works, with {some(odd, 'warning')}")
    else:
        click.echo("\nAll is well: `ci-bridge run` works.")
    sys.exit(1 if wrong else 0)


def _checks() -> Iterator[Check]:
    try:
        settings = environment.read(os.environ)
    except SettingsRefused as error:
        yield from (Check("environment", False, line) for line in str(error).splitlines())
        return
    yield Check("environment", settings.missing_key is None, settings.missing_key or "read")
    yield from (of_database := list(_guarded(_database, "database", settings)))
    try:
        rules = Rules(settings, os.environ)
    except RulesRefused as error:
        yield from (Check("rules", None if fault.warning else False, str(fault)) for fault in error.faults)
        yield Check("CI and notifiers", None, "not looked at while the rules are wrong")
        return
    book = rules.book
    yield from _emptied(settings, rules)
    if all(check.ok for check in of_database):
        yield from _guarded(_health, "bridge", settings, rules)
    yield Check("rules", True, said_of(book))
    yield from (Check("rules", None, str(warning)) for warning in book.warnings)
    if settings.missing_key is None:
        yield from _ci(settings, book)
    yield from notifier_checks(settings, book, Check)
    yield from _admin(settings)


def _guarded(check: Callable[..., Iterator[Check]], name: str, *args: Any) -> Iterator[Check]:
    try:
        yield from check(*args)
    except SchemaOld as error:
        yield Check(name, False, str(error))
    except TROUBLES as error:
        yield Check(name, False, trouble(error))
    except ValueError as error:
        yield Check(name, False, str(error))


def _database(settings: Settings) -> Iterator[Check]:
    db: Database = parts.database(settings)
    try:
        db.require_schema()
        yield Check("database", True, f"{db.shown}, revision {db.revision()}")
    finally:
        db.close()


def _health(settings: Settings, rules: Rules) -> Iterator[Check]:
    """Say what is not as it should be, as the overview and /readyz do."""
    db, book = parts.database(settings), rules.book
    try:
        now = now_of(db)
        with db.read() as tx:
            state = gauges.state(tx, now=now)
    finally:
        db.close()
    if alive := state.standing.alive:
        yield Check("workers", True, some(len(alive), "runs", "run"))
    # A worker that has these rules had the time since then to poll by them.
    since = state.standing.changed if any(one.sha == book.sha for one in alive) else now
    for one in warnings(state, book, Reader(sha=book.sha, since=since), now):
        # Where nothing was polled yet it may be that no worker was to run yet.
        is_early = (one.check, one.who) == ("worker", None) and not any(row["polled_at"] for row in state.watches)
        is_wrong = one.level < Level.ODD and not is_early
        yield Check(one.who or one.check, False if is_wrong else None, one.detail)
    for worker in alive:
        if worker.fault:
            yield Check(f"worker {worker.id}", None, f"keeps its old rules: {worker.fault}")


def _emptied(settings: Settings, rules: Rules) -> Iterator[Check]:
    try:
        db = parts.database(settings)
    except ValueError:  # which was said already
        return
    try:
        with db.read() as tx:
            parts.refuse_emptied(tx, rules.book, rules.file)
    except RulesRefused as error:
        yield Check("rules", False, str(error))
    except TROUBLES:  # likewise
        return
    finally:
        db.close()


def _ci(settings: Settings, book: Rulebook) -> Iterator[Check]:
    ci = parts.source(settings, book)
    try:
        for watch in book.watches:
            quiet = True
            for stream in watch.streams:
                name = f"watch {watch.name}, {stream.tag}" + (f", queue {stream.queue}" if stream.queue else "")
                try:
                    asked = parts.utc_now()
                    page = ci.list(stream, order="Desc", size=1)
                except CiError as error:
                    yield Check(name, False, str(error))
                    continue
                newest = page.jobs[0] if page.jobs else None
                quiet = quiet and newest is None
                yield Check(name, True, f"newest job {newest.id} is {newest.state}" if newest else "no job yet")
                clocks = Clocks(asked=asked, answered=parts.utc_now(), date=page.served_at)
                if not clocks.agree:
                    yield Check("clock", None, clock_warning(clocks.ahead) or "CI's answer has no Date to compare")
            if quiet:
                yield Check(f"watch {watch.name}", None, "has no job at all: are bucket, region and tags right?")
    finally:
        ci.close()


def _admin(settings: Settings) -> Iterator[Check]:
    if settings.admin_token is None:
        yield Check(
            "admin", None, "BRIDGE_ADMIN_TOKEN is not set: the API answers this machine only; set it behind a proxy"
        )
    else:
        yield Check("admin", True, "token set")
