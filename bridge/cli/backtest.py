"""`rules backtest`: what would these rules have told of what has happened?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from bridge.cli.common import fail, json_option, moment, open_database, plainly, say, say_json, settings, show_list
from bridge.cli.rules import book_of
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.text.times import iso
from bridge.decide.whatif.replay import FIRST
from bridge.pipeline.backtest import Backtest
from bridge.wiring import parts

Facts = Mapping[str, Any]

_LONG = 2_000  # transitions, from which on a person wants to see it go on
_FATES = {
    "told": "told",
    "grouped": "group",
    "throttled": "throttle",
    "muted": "mute",
    "silenced": "silence",
    "dropped": "dropped",
}
_COLUMNS = {name: fate for name, fate in _FATES.items() if fate != "throttle"}
_UNSET = "environment variable"
_HINT = "a backtest reads a file as the bridge would: give these variables any value of the right form, nothing is sent"


@click.command()
@click.option("--rules", "file", type=click.Path(dir_okay=False), help="The rules to try.  [default: those in force]")
@click.option("--since", default="7d", show_default=True, help='From then on: "2h" (ago) or 2026-11-21T09:00:00Z.')
@click.option("--fail-on-difference", is_flag=True, help="Exit 1 when there is a difference.")
@json_option
@plainly
def backtest(file: str | None, since: str, fail_on_difference: bool, as_json: bool) -> None:
    """Put what has happened through rules.toml (or --rules NEW.toml) without sending anything, and compare.

    Says for each rule and notifier how many messages would be sent at once, held (by a digest, mute or silence) or
    dropped, and how this differs from what was. Throttles are not replayed: what one would hold counts as told.
    Unchanged rules make no difference.

    \b
    Examples:
      ci-bridge rules backtest
      ci-bridge rules backtest --rules new.toml --since 2d
      ci-bridge rules backtest --rules new.toml --json --fail-on-difference
    """
    begin, now = moment(since) or parts.utc_now(), parts.utc_now()
    if begin > now:
        raise click.BadParameter(f"{iso(begin)} is yet to come", param_hint="--since")
    found = settings()
    tried = _tried(file)
    in_force = tried if file is None else _in_force(tried)
    db = open_database(found)
    with db.read() as tx:
        test = Backtest(tx, tried, in_force=in_force, keep=in_force.keep, since=begin, now=now)
        with _progress(test.transitions) as on_page:
            test.run(on_page)
    if as_json:
        say_json(test.facts())
    else:
        _show(test)
    if fail_on_difference and test.tally.differs:
        sys.exit(1)


def _tried(file: str | None) -> Rulebook:
    try:
        return book_of(file)
    except RulesRefused as error:
        hint = f"\n{_HINT}" if file and any(_UNSET in fault.text for fault in error.faults) else ""
        fail(f"{error}{hint}")


def _in_force(tried: Rulebook) -> Rulebook:
    """Return the rules in force; those that are tried where there are none, as in a folder of drafts."""
    try:
        return book_of(None)
    except RulesRefused:
        return tried


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], object]]:
    if count <= _LONG or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=count, label="transitions", file=sys.stderr, show_pos=True) as bar:
        yield bar.update


def _show(test: Backtest) -> None:
    facts = test.facts()
    window = f"from {iso(test.since)} to {iso(test.until)}"
    say(f"{test.transitions:,} transitions {window}, tried with {test.rules.sha}")
    for note in _notes(test, facts):
        say(note)
    if test.tally.rows:
        click.echo()
        columns = ("rule", "notifier", *_COLUMNS, "before", "difference")
        show_list([_row(row) for row in facts["rows"]], columns, as_json=False, nothing="")
    click.echo()
    _show_differences(facts["differences"])


def _notes(test: Backtest, facts: Facts) -> Iterator[str]:
    if test.is_cut:
        yield f"asked for since {iso(test.asked)}, but only this much is kept (keep, in rules.toml)"
    shas = facts["judged_by"]
    if shas and shas != [test.rules.sha]:
        said = "one other ruleset" if len(shas) == 1 else f"{len(shas)} rulesets"
        yield f"they were judged by {said}: {', '.join(shas[:10])}{' ...' if len(shas) > 10 else ''}"
    if test.has_throttle:
        yield "throttles are not replayed: what one of these rules would hold counts as told"
    if unknown := facts["transitions_not_compared"]:
        yield f"not compared: {unknown:,} transitions, as what was told of them is kept no longer"
    if unknown := facts["stays_not_compared"]:
        yield f"not compared: {unknown:,} stays in a state, of which is not on record how long they were seen to last"


def _row(row: Facts) -> Facts:
    kind = "" if row["kind"] == "transition" else f" ({row['kind']})"
    before = [f"{row['before'][fate]:,} {name}" for name, fate in _FATES.items() if row["before"][fate]]
    signs = [f"{sign}{row[what]:,}" for sign, what in _SIGNS if row[what]]
    return {
        "rule": f"{row['rule']}{kind}",
        "notifier": row["notifier"],
        **{name: f"{row[fate]:,}" for name, fate in _COLUMNS.items()},
        "before": ", ".join(before) or "none",
        "difference": " ".join(signs) or "none",
    }


_SIGNS = (("+", "added"), ("-", "removed"), ("~", "changed"))


def _show_differences(found: Facts) -> None:
    count = sum(found[what] for _, what in _SIGNS)
    if not count:
        click.echo("no difference")
        return
    parts = ", ".join(f"{found[what]:,} {what}" for _, what in _SIGNS if found[what])
    click.echo(f"{parts}{f'; the first {FIRST}:' if count > FIRST else ':'}")
    columns = ("seen_at", "job", "transition", "rule", "notifier", "before", "after")
    show_list([_difference(one) for one in found["first"]], columns, as_json=False, nothing="")


def _difference(one: Facts) -> Facts:
    kind = "" if one["kind"] == "transition" else f" ({one['kind']})"
    return {
        **one,
        "transition": f"{one['from']} -> {one['to']}",
        "rule": f"{one['rule']}{kind}",
        "before": _fate(one["before"]),
        "after": _fate(one["after"]),
    }


def _fate(said: Facts | None) -> str:
    if said is None:
        return "nothing"
    name = next(name for name, fate in _FATES.items() if fate == said["fate"])
    return f"{name}, repeated {said['repeats']}x" if said["repeats"] else name
