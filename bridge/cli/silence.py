"""The commands about silences: holding messages back for a while, and ending that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

from bridge.cli.common import (
    fail,
    json_option,
    login,
    now_of,
    open_database,
    operations,
    plainly,
    say,
    say_json,
    settings,
    show_list,
    some,
)  # fmt: skip
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.silences import described, read_silence
from bridge.decide.text.times import human
from bridge.decide.text.values import FieldFault, FieldFaults
from bridge.pipeline.operations import OperationRefused
from bridge.pipeline.silences import foresee, silence_facts
from bridge.record.outbox import silences
from bridge.wiring.rules import Rules

Facts = dict[str, Any]


@click.group()
def silence() -> None:
    """Hold messages back for a while: during a migration, or while a fault is known."""


@silence.command()
@click.option("--for", "for_", metavar="SPAN", help='How long, as in "2h" or "1h30m"; at most 30 days.')
@click.option(
    "--until", metavar="TIME", help="Instead: until then, as in 2026-11-21T09:00:00Z (UTC, if it says no zone)."
)
@click.option(
    "--match", "matches", metavar="FIELD=VALUE", multiple=True,
    help='A field as in a rule\'s match: a text, a glob, true, false, or for durations "> 45m". '
    "Several values of one field: any of them.",
)  # fmt: skip
@click.option("--from", "was", metavar="STATE", multiple=True, help="Only transitions from this state.")
@click.option("--to", metavar="STATE", multiple=True, help="Only transitions to this state.")
@click.option("--rule", metavar="NAME", multiple=True, help="Only what this rule tells.")
@click.option("--notifier", metavar="NAME", multiple=True, help="Only what this notifier is told.")
@click.option("--everything", is_flag=True, help="Instead of all of these.")
@click.option(
    "--mode", type=click.Choice(["hold", "drop"]), default="hold", show_default=True,
    help="hold: told in one digest when it ends.  drop: never told, but on record.",
)  # fmt: skip
@click.option("--reason", required=True, metavar="TEXT", help="Why, for those who wonder.")
@click.option("--author", metavar="NAME", help="Who wants it.  [default: $USER]")
@click.option("--dry-run", is_flag=True, help="Only say what it would have matched in the last day.")
@json_option
@plainly
def add(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Hold (or drop) what matches, until it ends. Says what it would have matched in the last day.

    \b
    Examples:
      ci-bridge silence add --for 2h --match tag=Transcode --to Failed --reason "new encoder"
      ci-bridge silence add --until 2026-11-21T09:00:00Z --notifier ops --reason "moving" --dry-run
      ci-bridge silence add --for 30m --match queue=vod --match "duration=> 45m" --mode drop --reason "load test"
    """
    _check(options)
    db = open_database(settings())
    now = now_of(db)
    try:
        wanted = read_silence(_said(options), now=now, author=login())
    except FieldFaults as error:
        raise click.UsageError("\n".join(map(_in_its_words, error.faults))) from error
    with db.read() as tx:
        foreseen = foresee(tx, wanted, _book(), now=now)
    made = None if dry_run else silence_facts(operations(db).make_silence(wanted), 0, now=now)
    for warning in foreseen["warnings"]:
        say(f"warning: {warning}", err=True)
    if as_json:
        say_json({"silence": made, **foreseen})
        return
    if made:
        what = "drops" if wanted.drop else "holds"
        say(f"{made['id']} {what} what matches {_matches(made)} until {_until(made, now)}")
    say(_foreseen(foreseen["preview"], drops=wanted.drop))


def _check(options: Facts) -> None:
    """Say in the options' names what the reader would say in the API's."""
    if (options["for_"] is None) == (options["until"] is None):
        raise click.UsageError("say when it ends, with --for 2h or --until 2026-11-21T09:00:00Z: one of the two")
    named = any(options[name] for name in ("matches", "was", "to", "rule", "notifier"))
    if named and options["everything"]:
        raise click.UsageError("with --everything nothing else can be named; leave one of the two out")
    if not named and not options["everything"]:
        raise click.UsageError("say what it matches, with --match, --from, --to, --rule, --notifier, or --everything")


def _said(options: Facts) -> Facts:
    """Return the options as the API takes them, without those that were not given."""
    said: Facts = {"mode": options["mode"], "reason": options["reason"]}
    for key, option in (("from", "was"), ("to", "to"), ("rule", "rule"), ("notifier", "notifier")):
        if options[option]:
            said[key] = list(options[option])
    if options["matches"]:
        said["match"] = _match(options["matches"])
    given = {"for": options["for_"], "ends_at": _with_zone(options["until"]), "author": options["author"]}
    said |= {key: value for key, value in given.items() if value is not None}
    return said | ({"everything": True} if options["everything"] else {})


def _match(given: Sequence[str]) -> Facts:
    values: dict[str, list[str]] = {}
    for one in given:
        field, equals, value = one.partition("=")
        if not (field and equals):
            raise click.UsageError(f'--match: "{one[:100]}" is not FIELD=VALUE, as in tag=Transcode')
        values.setdefault(field.strip(), []).append(value.strip())
    return {field: _value(field, found) for field, found in values.items()}


def _value(field: str, found: list[str]) -> object:
    if len(found) == 1:
        return {"true": True, "false": False}.get(found[0], found[0])
    if flag := next((one for one in found if one in ("true", "false")), None):
        is_there = "has a value at all" if flag == "true" else "has none"
        raise click.UsageError(f"--match: {field[:100]}={flag} says that it {is_there}, and goes with no other value")
    return found


def _with_zone(until: str | None) -> str | None:
    try:
        found = datetime.fromisoformat(until or "")
    except ValueError:
        return until  # what is wrong with it is said with all else
    return found.isoformat() if found.tzinfo else found.replace(tzinfo=UTC).isoformat()


_OPTIONS = {"ends_at": "--until", "for": "--for", "match": "--match"}


def _in_its_words(fault: FieldFault) -> str:
    """Return a fault with the options' names for the API's."""
    return str(replace(fault, key=_OPTIONS.get(fault.key or "", fault.key)))


def _book() -> Rulebook | None:
    """Return the rules, or None: whoever wants quiet now must not need to mend them first."""
    try:
        return Rules(settings(), os.environ).book
    except RulesRefused:
        return None


def _until(made: Facts, now: datetime) -> str:
    left = datetime.fromisoformat(made["ends_at"]) - now
    return f"{made['ends_at']} (in {human(left.total_seconds())})"


def _matches(made: Facts) -> str:
    return described(made["matches"])


def _foreseen(found: Facts, *, drops: bool) -> str:
    looked = some(found["looked_at"], "message")
    of = f"the newest {looked}" if found["cut"] else looked
    done = "dropped" if drops else "held"
    lines = [f"it would have {done} {found['matched']} of {of} of the last day"]
    lines += [f"  {one['messages']:>6}  {one['rule']} -> {one['notifier']}" for one in found["by"]]
    if found["newest"]:
        lines.append("the newest:")
    for one in found["newest"]:
        step = f"{one['tag'] or 'job'} {one['job']}: {one['from']} -> {one['to']}"
        lines.append(f"  {one['told_at']}  {step}  ({one['rule']} -> {one['notifier']})")
    return "\n".join(lines)


@silence.command("list")
@click.option("--all", "also_over", is_flag=True, help="Also those that are over.")
@json_option
@plainly
def list_silences(also_over: bool, as_json: bool) -> None:
    """List silences, the newest first, with how much each has held or dropped.

    \b
    Examples:
      ci-bridge silence list
      ci-bridge silence list --all --json
    """
    db = open_database(settings())
    now = now_of(db)
    with db.read() as tx:
        found = [silence_facts(*one, now=now) for one in silences.every(tx, since=None if also_over else now)]
    rows = found if as_json else [{**one, "matches": _matches(one), "until": one["ends_at"]} for one in found]
    columns = ("id", "state", "until", "mode", "author", "reason", "matches", "held")
    nothing = (
        "there has been no silence" if also_over else "there is no silence now (--all also lists those that are over)"
    )
    show_list(rows, columns, as_json=as_json, nothing=nothing)


@silence.command()
@click.argument("silence_id", metavar="ID")
@click.option("--by", metavar="NAME", help="Who ends it.  [default: $USER]")
@plainly
def end(silence_id: str, by: str | None) -> None:
    """End a silence now; a worker tells what it held, in one digest for each notifier.

    \b
    Examples:
      ci-bridge silence end sil_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge silence end sil_3wgd3btsuo6wb2kdedccezf4qi --by ann
    """
    if not (who := (by or login() or "").strip()) or len(who) > 100 or not who.isprintable():
        raise click.UsageError("say who ends it with --by NAME, in at most 100 characters")
    try:
        ended, count = operations(open_database(settings()), who).end_silence(silence_id)
    except OperationRefused as error:
        fail(f"{error} (ci-bridge silence list --all)")
    what = "it dropped" if ended.drop else "a worker tells in one digest for each notifier what it held:"
    say(f"{silence_id} is over; {what} {some(count, 'message')}" if count else f"{silence_id} is over; it held nothing")
