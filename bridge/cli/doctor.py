"""`doctor`: is everything as the bridge needs it? One line a check, and what to do where it is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click

from bridge import settings as environment
from bridge import wiring
from bridge.cli.common import json_option, now_of, said_of, say, say_json, some
from bridge.collect.errors import CiError
from bridge.decide.mark import Clocks, said_of_clocks
from bridge.decide.rulebook import Rulebook, RulesRefused
from bridge.pipeline import rules_standing
from bridge.record import gauges, problems, rulesets
from bridge.record.database import TROUBLES, Database, SchemaOld, trouble
from bridge.settings import Settings, SettingsRefused


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
    wrong = sum(check.ok is False for check in found)
    if as_json:
        say_json([asdict(check) for check in found])
    elif wrong:
        click.echo(f"\n{wrong} of {len(found)} checks failed", err=True)
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
    yield from _guarded(_database, "database", settings)
    try:
        rules = wiring.Rules(settings, os.environ)
    except RulesRefused as error:
        yield from (Check("rules", None if fault.warning else False, str(fault)) for fault in error.faults)
        yield Check("CI and notifiers", None, "not looked at while the rules are wrong")
        return
    book = rules.book
    yield from _emptied(settings, rules)
    yield Check("rules", True, said_of(book))
    yield from (Check("rules", None, str(warning)) for warning in book.warnings)
    if settings.missing_key is None:
        yield from _ci(settings, book)
    yield from wiring.notifier_checks(settings, book, Check)
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
    db: Database = wiring.database(settings)
    try:
        db.require_schema()
        yield Check("database", True, f"{db.shown}, revision {db.revision()}")
        now = now_of(db)
        with db.read() as tx:
            unread = problems.counts(tx)
            workers, paused = gauges.workers(tx), [n for n in gauges.notifiers(tx) if n["paused_at"]]
            standing = rulesets.standing(tx, now=now)
        yield Check("workers", True if workers else None, some(len(workers), "runs", "run") if workers else "none runs")
        yield from (Check("rules in force", None, said) for said in rules_standing.warnings(standing))
        for worker in standing.alive:
            if worker.fault:
                yield Check(f"worker {worker.id}", None, f"keeps its old rules: {worker.fault}")
        if any(unread.values()):
            text = f"{unread['left_out']} left out, {unread['field']} with a field that cannot be read"
            yield Check("jobs", None, f"{text}; `ci-bridge jobs show ID` and the log say which")
        for one in paused:
            advice = f"mend it, then `ci-bridge notifier resume {one['name']}`"
            yield Check(f"notifier {one['name']}", False, f"paused: {one['paused_why']}; {advice}")
    finally:
        db.close()


def _emptied(settings: Settings, rules: wiring.Rules) -> Iterator[Check]:
    try:
        db = wiring.database(settings)
    except ValueError:  # which was said already
        return
    try:
        with db.read() as tx:
            wiring.refuse_emptied(tx, rules.book, rules.file)
    except RulesRefused as error:
        yield Check("rules", False, str(error))
    except TROUBLES:  # likewise
        return
    finally:
        db.close()


def _ci(settings: Settings, book: Rulebook) -> Iterator[Check]:
    ci = wiring.source(settings, book)
    try:
        for watch in book.watches:
            quiet = True
            for stream in watch.streams:
                name = f"watch {watch.name}, {stream.tag}" + (f", queue {stream.queue}" if stream.queue else "")
                try:
                    asked = wiring.utc_now()
                    page = ci.list(stream, order="Desc", size=1)
                except CiError as error:
                    yield Check(name, False, str(error))
                    continue
                newest = page.jobs[0] if page.jobs else None
                quiet = quiet and newest is None
                yield Check(name, True, f"newest job {newest.id} is {newest.state}" if newest else "no job yet")
                clocks = Clocks(asked=asked, answered=wiring.utc_now(), date=page.served_at)
                if not clocks.agree:
                    yield Check("clock", None, said_of_clocks(clocks.ahead) or "CI's answer has no Date to compare")
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
