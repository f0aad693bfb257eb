"""The commands about rules.toml: check, backtest and reload; others have modules of their own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from bridge.cli.common import (
    Facts,
    configured_rules,
    contents_of,
    count_of,
    echo,
    echo_json,
    echo_table,
    fail,
    json_option,
    now_of,
    open_database,
    parse_time,
    settings,
)
from bridge.cli.explain import explain
from bridge.cli.history import history, show
from bridge.decide.rules.rulebook import Fault, Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read
from bridge.decide.rulesfile.rulesets import names_of
from bridge.decide.text.times import iso
from bridge.decide.whatif import rule_tests
from bridge.decide.whatif.replay import FIRST
from bridge.pipeline.backtest import Backtest
from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.rulesets import RulesState, WorkerRules
from bridge.wiring import parts
from bridge.wiring.rules import load_rules


@click.group()
def rules() -> None:
    """rules.toml: what is watched, and who is notified."""


for command in (explain, show, history):
    rules.add_command(command)


def _read_file(file: str) -> Rulebook:
    return read(load_rules(file), os.environ, file=file)


# --- check ----------------------------------------------------------------------------------------------------------


@rules.command(short_help="Report every error in rules.toml.")
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@json_option
def check(file: str | None, as_json: bool) -> None:
    """Report every error in rules.toml (or FILE), each with its line, and run its [[test]]s.

    Exits 1 if the file is refused or a test fails. Nothing is polled or sent.

    \b
    Examples:
      ci-bridge rules check
      ci-bridge rules check staging.toml --json
      ci-bridge rules check new.toml && mv new.toml rules.toml
    """
    try:
        book, name = (_read_file(file), file) if file else _configured()
    except RulesRefused as error:
        if as_json:
            echo_json([_fault_facts(fault) for fault in error.faults])
        else:
            _echo_faults(error.faults)
            errors, warnings = (_counted(error.faults, warning=warning) for warning in (False, True))
            click.echo(f"refused: {errors}, {warnings}", err=True)
        sys.exit(1)
    failed = rule_tests.run(book)
    if as_json:
        tests = [{"line": test.line, "level": "test", "text": test.text} for test in failed]
        echo_json([*map(_fault_facts, book.warnings), *tests])
    else:
        _echo_faults(book.warnings)
        for test in failed:
            echo(f"{name}:{test.line}: {test.text}", err=True)
        _echo_result(book, len(failed))
    sys.exit(1 if failed else 0)


def _configured() -> tuple[Rulebook, str]:
    own = configured_rules()
    book, name = own.book, own.file
    if name == "BRIDGE_RULES_TOML" and names_of(book).is_blank:
        raise RulesRefused([parts.emptied_fault(None, name), *book.warnings])
    return book, name


def _fault_facts(fault: Fault) -> Facts:
    return {"line": fault.line, "level": "warning" if fault.warning else "error", "text": fault.text}


def _echo_faults(faults: Sequence[Fault]) -> None:
    for fault in faults:
        echo(str(fault), err=True)


def _counted(faults: Sequence[Fault], *, warning: bool) -> str:
    kind = "warning" if warning else "error"
    counted = [fault for fault in faults if fault.warning == warning]
    if counted and counted[-1].more:
        return f"more than {count_of(len(counted) - 1, kind)}"
    return count_of(len(counted), kind)


def _echo_result(book: Rulebook, failed: int) -> None:
    tests = count_of(len(book.tests), "test")
    if failed:
        click.echo(f"the rules are valid, but {failed} of {tests} {'fails' if failed == 1 else 'fail'}")
        return
    click.echo(f"accepted, with {_counted(book.warnings, warning=True)}: {contents_of(book)} (sha {book.sha})")
    if book.tests:
        click.echo(f"{tests}, 0 failed")


# --- reload ---------------------------------------------------------------------------------------------------------

_POLL_S = 0.25


@rules.command(short_help="Make running processes read rules.toml now.")
@click.option("--allow-empty", is_flag=True, help="Accept a file that no longer has any [[watch]] or [[rule]].")
@click.option("--wait", "wait_s", default=20.0, show_default=True, help="Seconds to wait for the workers.")
@json_option
def reload(allow_empty: bool, wait_s: float, as_json: bool) -> None:
    """Make every running process read rules.toml now, and show which workers have loaded it.

    Without this, a changed file is loaded once it has been the same for two seconds, or for thirty if half of its
    watches or rules have disappeared. Exits 1 if the file here has errors, or if a live worker still has other rules
    when --wait is over. --allow-empty is remembered for this text, also after a restart.

    \b
    Examples:
      ci-bridge rules check new.toml && mv new.toml rules.toml && ci-bridge rules reload
      ci-bridge rules reload --json
      ci-bridge rules reload --allow-empty
    """
    if settings().rules_toml is not None:
        fail("the rules are in BRIDGE_RULES_TOML, which running processes never reread: change it and restart them")
    own = configured_rules()
    book, db = own.book, open_database()
    _echo_faults(book.warnings)
    if allow_empty:
        parts.make_known(db, book)
    with db.write() as tx:
        if allow_empty:
            rulesets.allow_empty(tx, book.sha)
        parts.refuse_emptied(tx, book, own.file)
        rulesets.ask_for_reload(tx, now=now_of(db))
    if not as_json:
        echo(f"{own.file} has {contents_of(book)} (sha {book.sha})")
    standing = _wait_for_workers(db, book, wait_s)
    workers = [_worker_facts(worker, book) for worker in standing.alive]
    if as_json:
        echo_json({"sha": book.sha, "in_force": standing.sha, "workers": workers})
    else:
        _echo_workers(workers)
    sys.exit(0 if all(worker["taken"] for worker in workers) else 1)


def _wait_for_workers(db: Database, book: Rulebook, wait_s: float) -> RulesState:
    """Return when every live worker has the rules, or time is up."""
    until, shown = time.monotonic() + wait_s, ""
    while True:
        now = now_of(db)
        with db.read() as tx:
            standing = rulesets.state(tx, now=now)
        loaded, alive = sum(worker.sha == book.sha for worker in standing.alive), len(standing.alive)
        progress = f"loaded by {loaded} of {count_of(alive, 'worker')}"
        if progress != shown and alive:
            click.echo(shown := progress, err=True)
        if loaded == alive or time.monotonic() > until:
            return standing
        time.sleep(_POLL_S)


def _worker_facts(worker: WorkerRules, book: Rulebook) -> Facts:
    why: str | None = None
    if worker.sha != book.sha and worker.older:
        why = "it runs an older version, which checks the file by itself every 5 s"
    elif worker.sha != book.sha:
        why = worker.fault or worker.note or "it reads another rules.toml, or has not checked it yet"
    return {"worker": worker.id, "pid": worker.pid, "sha": worker.sha, "taken": why is None, "why": why}


def _echo_workers(workers: Sequence[Facts]) -> None:
    for worker in workers:
        result = "has loaded it" if worker["taken"] else f"has {worker['sha']}: {worker['why']}"
        echo(f"worker {worker['worker']} (process {worker['pid']}) {result}", err=not worker["taken"])
    if not workers:
        echo("no worker is running: the next one that starts reads the file")


# --- backtest -------------------------------------------------------------------------------------------------------

_PROGRESS_FROM = 2_000  # transitions
_RESULTS = {  # of a message, and the word for each in a table
    "told": "sent",
    "group": "digest",
    "throttle": "throttled",
    "mute": "muted",
    "silence": "silenced",
    "dropped": "dropped",
}
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@rules.command(short_help="Test rules on past transitions, without sending.")
@click.option(
    "--rules",
    "file",
    type=click.Path(dir_okay=False),
    help="The rules to test.  [default: rules.toml, or BRIDGE_RULES]",
)
@click.option("--since", default="7d", show_default=True, help='Start: "2h" (ago) or 2026-11-21T09:00:00Z.')
@click.option("--fail-on-difference", is_flag=True, help="Exit 1 if there is any difference.")
@json_option
def backtest(file: str | None, since: str, fail_on_difference: bool, as_json: bool) -> None:
    """Replay past transitions through rules.toml (or --rules NEW.toml) without sending anything, and compare.

    Shows for each rule and notifier how many messages would be sent at once, held (by a digest, mute or silence) or
    dropped, and how this differs from what happened. Throttles are not replayed: what one would hold counts as sent.
    Unchanged rules make no difference.

    \b
    Examples:
      ci-bridge rules backtest
      ci-bridge rules backtest --rules new.toml --since 2d
      ci-bridge rules backtest --rules new.toml --json --fail-on-difference
    """
    begin, now = parse_time(since) or parts.utc_now(), parts.utc_now()
    if begin > now:
        raise click.BadParameter(f"{iso(begin)} is in the future", param_hint="--since")
    tested, current = _rulebooks(file)
    db = open_database()
    with db.read() as tx:
        test = Backtest(tx, tested, in_force=current, keep=current.keep, since=begin, now=now)
        with _progress(test.transitions) as on_page:
            test.run(on_page)
    if as_json:
        echo_json(test.facts())
    else:
        _echo_report(test)
    if fail_on_difference and test.tally.differs:
        sys.exit(1)


def _rulebooks(file: str | None) -> tuple[Rulebook, Rulebook]:
    """Return the rules to test and those of rules.toml: the same if there are no others, as in a folder of drafts."""
    if file is None:
        return (book := configured_rules().book), book
    try:
        tested = _read_file(file)
    except RulesRefused as error:
        fail(f"{error}\nEnvironment variables that the file names must be set; any well-formed value will do here.")
    try:
        return tested, configured_rules().book
    except RulesRefused:
        return tested, tested


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], object]]:
    if count <= _PROGRESS_FROM or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=count, label="transitions", file=sys.stderr, show_pos=True) as bar:
        yield bar.update


def _echo_report(test: Backtest) -> None:
    facts = test.facts()
    window = f"from {iso(test.since)} to {iso(test.until)}"
    echo(f"{test.transitions:,} transitions {window}, tested with {test.rules.sha}")
    for note in _notes(test, facts):
        echo(note)
    if facts["rows"]:
        click.echo()
        results = [word for result, word in _RESULTS.items() if result != "throttle"]
        echo_table([_row(row) for row in facts["rows"]], ("rule", "notifier", *results, "before", "difference"))
    click.echo()
    _echo_differences(facts["differences"])


def _notes(test: Backtest, facts: Facts) -> Iterator[str]:
    if test.is_cut:
        yield f"requested since {iso(test.asked)}, but only this much is kept (keep, in rules.toml)"
    shas = facts["judged_by"]
    if shas and shas != [test.rules.sha]:
        count = "one other ruleset" if len(shas) == 1 else f"{len(shas)} rulesets"
        yield f"they were evaluated by {count}: {', '.join(shas[:10])}{' ...' if len(shas) > 10 else ''}"
    if test.has_throttle:
        yield "throttles are not replayed: what one of these rules would hold counts as sent"
    if unknown := facts["transitions_not_compared"]:
        yield f"not compared: {unknown:,} transitions, whose deliveries are no longer on record"
    if unknown := facts["stays_not_compared"]:
        yield f"not compared: {unknown:,} times in a state whose length, or what else was open then, is not on record"
    if unknown := facts["incidents_not_compared"]:
        yield f"not compared: {unknown:,} messages about incidents that depend on polls, people or jobs not on record"


def _rule_and_kind(row: Facts) -> str:
    return f"{row['rule']}" if row["kind"] == "transition" else f"{row['rule']} ({row['kind']})"


def _row(row: Facts) -> Facts:
    before = [f"{row['before'][result]:,} {word}" for result, word in _RESULTS.items() if row["before"][result]]
    return {
        "rule": _rule_and_kind(row),
        "notifier": row["notifier"],
        **{word: f"{row[result]:,}" for result, word in _RESULTS.items()},
        "before": ", ".join(before) or "none",
        "difference": " ".join(f"{sign}{row[what]:,}" for what, sign in _SIGNS.items() if row[what]) or "none",
    }


def _echo_differences(differences: Facts) -> None:
    counts = {what: differences[what] for what in _SIGNS if differences[what]}
    if not counts:
        click.echo("no difference")
        return
    first = f"; the first {FIRST}:" if sum(counts.values()) > FIRST else ":"
    click.echo(", ".join(f"{count:,} {what}" for what, count in counts.items()) + first)
    rows = [
        {
            **row,
            "transition": row["event"] or f"{row['from']} -> {row['to']}",
            "job": row["job"] or "",
            "rule": _rule_and_kind(row),
            "before": _result(row["before"]),
            "after": _result(row["after"]),
        }
        for row in differences["first"]
    ]
    echo_table(rows, ("seen_at", "job", "transition", "rule", "notifier", "before", "after"))


def _result(facts: Facts | None) -> str:
    if facts is None:
        return "nothing"
    word = _RESULTS[facts["fate"]]
    return f"{word}, repeated {facts['repeats']}x" if facts["repeats"] else word
