"""The commands about silences: holding messages back for a while, and ending that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

from bridge.cli.common import (
    Facts,
    author,
    configured_rules,
    count_of,
    echo,
    echo_json,
    echo_table,
    fail,
    json_option,
    login,
    now_of,
    open_database,
    operations,
)
from bridge.cli.tables import times_options
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.silences import described, read_silence
from bridge.decide.text.times import human, iso
from bridge.decide.text.values import FieldFault, FieldFaults
from bridge.pipeline.operations import OperationRefused, foresee, silence_facts, what_it_held
from bridge.record.outbox import silences


@click.group()
def silence() -> None:
    """Hold messages back for a while, for example during a migration or a known fault."""


# --- add ------------------------------------------------------------------------------------------------------------


@silence.command()
@click.option("--start", metavar="WHEN", help='When it begins: "2h" from now, or a time (UTC).  [default: now]')
@click.option("--for", "for_", metavar="SPAN", help='How long, such as "2h" or "1h30m"; at most 30 days.')
@click.option("--until", metavar="TIME", help="Instead of --for: the end, such as 2026-11-21T09:00:00Z (default UTC).")
@click.option(
    "--match", "matches", metavar="FIELD=VALUE", multiple=True,
    help='A field as in a rule\'s match: a text, a glob, true, false, or for durations "> 45m". '
    "Several values of one field: any of them.",
)  # fmt: skip
@click.option("--from", "was", metavar="STATE", multiple=True, help="Only transitions from this state.")
@click.option("--to", metavar="STATE", multiple=True, help="Only transitions to this state.")
@click.option("--rule", metavar="NAME", multiple=True, help="Only messages of this rule.")
@click.option("--notifier", metavar="NAME", multiple=True, help="Only messages to this notifier.")
@click.option("--everything", is_flag=True, help="All messages, instead of the options above.")
@click.option(
    "--mode", type=click.Choice(["hold", "drop"]), default="hold", show_default=True,
    help="hold: send one digest for each notifier at the end.  drop: never send, but keep on record.",
)  # fmt: skip
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to others.")
@click.option("--author", metavar="NAME", help="Who is responsible.  [default: $USER]")
@click.option("--dry-run", is_flag=True, help="Only show what it would have matched in the last day.")
@json_option
def add(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Hold (or drop) matching messages until the silence ends. Shows what it would have matched in the last day.

    \b
    Examples:
      ci-bridge silence add --for 2h --match tag=Transcode --to Failed --reason "new encoder"
      ci-bridge silence add --until 2026-11-21T09:00:00Z --notifier ops --reason "moving" --dry-run
      ci-bridge silence add --start 2026-11-21T22:00:00Z --for 4h --everything --reason "migration"
      ci-bridge silence add --for 30m --match queue=vod --match "duration=> 45m" --mode drop --reason "load test"
    """
    _check(options)
    db = open_database()
    now = now_of(db)
    try:
        wanted = read_silence(_as_in_api(options), now=now, author=login())
    except FieldFaults as error:
        raise click.UsageError("\n".join(map(_with_option, error.faults))) from error
    with db.read() as tx:
        foreseen = foresee(tx, wanted, _rulebook(), now=now)
    made = None if dry_run else silence_facts(operations(db).make_silence(wanted), 0, now=now)
    for warning in foreseen["warnings"]:
        echo(f"warning: {warning}", err=True)
    if as_json:
        echo_json({"silence": made, **foreseen})
        return
    if made:
        left = human((datetime.fromisoformat(made["ends_at"]) - now).total_seconds())
        verb = ("drops" if wanted.drop else "holds") + (f", from {made['begins_at']} on," if wanted.begins_at else "")
        echo(
            f"{made['id']} {verb} messages that match {described(made['matches'])} until {made['ends_at']} (in {left})"
        )
    echo(_preview(foreseen["preview"], drops=wanted.drop))


def _check(options: Facts) -> None:
    """Report in terms of the options what `read_wanted` would report in terms of the API."""
    if (options["for_"] is None) == (options["until"] is None):
        raise click.UsageError("say when it ends: either --for 2h or --until 2026-11-21T09:00:00Z")
    named = any(options[name] for name in ("matches", "was", "to", "rule", "notifier"))
    if named and options["everything"]:
        raise click.UsageError("--everything cannot be combined with --match, --from, --to, --rule or --notifier")
    if not named and not options["everything"]:
        raise click.UsageError("say what it matches: --match, --from, --to, --rule, --notifier, or --everything")


def _as_in_api(options: Facts) -> Facts:
    """Return the options as the API takes them, without those that were not given."""
    given: Facts = {
        "mode": options["mode"],
        "reason": options["reason"],
        **_start(options["start"]),
        "for": options["for_"],
        "ends_at": _with_zone(options["until"]),
        "author": options["author"],
        "match": _match(options["matches"]) or None,
        "from": list(options["was"]) or None,
        "everything": options["everything"] or None,
        **{name: list(options[name]) or None for name in ("to", "rule", "notifier")},
    }
    return {key: value for key, value in given.items() if value is not None}


def _start(text: str | None) -> Facts:
    """Return when it begins: a time has a date, a span has none."""
    return {"begins_at" if text and "-" in text else "starts_in": _with_zone(text) if text and "-" in text else text}


def _match(pairs: Sequence[str]) -> Facts:
    values: dict[str, list[str]] = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not (field and equals):
            raise click.UsageError(f'--match: "{pair[:100]}" is not FIELD=VALUE, as in tag=Transcode')
        values.setdefault(field.strip(), []).append(value.strip())
    return {field: _value(field, several) for field, several in values.items()}


def _value(field: str, values: list[str]) -> object:
    if len(values) == 1:
        return {"true": True, "false": False}.get(values[0], values[0])
    if flag := next((value for value in values if value in ("true", "false")), None):
        meaning = "has any value" if flag == "true" else "has no value"
        raise click.UsageError(
            f"--match: {field[:100]}={flag} means that it {meaning}, and cannot be combined with another value"
        )
    return values


def _with_zone(until: str | None) -> str | None:
    try:
        time = datetime.fromisoformat(until or "")
    except ValueError:
        return until  # reported together with all other faults
    return time.isoformat() if time.tzinfo else time.replace(tzinfo=UTC).isoformat()


def _with_option(fault: FieldFault) -> str:
    """Return a fault with the option's name instead of the API's."""
    options = {"ends_at": "--until", "for": "--for", "starts_in": "--start", "begins_at": "--start", "match": "--match"}
    return str(replace(fault, key=options.get(fault.key or "", fault.key)))


def _rulebook() -> Rulebook | None:
    """Return the rules, or None if they are refused: a silence must be possible before they are fixed."""
    try:
        return configured_rules().book
    except RulesRefused:
        return None


def _preview(found: Facts, *, drops: bool) -> str:
    newest = "newest " if found["cut"] else ""
    of = f"the last day's {newest}{count_of(found['looked_at'], 'message')}"
    verb = "dropped" if drops else "held"
    lines = [f"it would have {verb} {found['matched']} of {of}"]
    lines += [f"  {row['messages']:>6}  {row['rule']} -> {row['notifier']}" for row in found["by"]]
    if found["newest"]:
        lines.append("the newest:")
    for row in found["newest"]:
        transition = f"{row['tag'] or 'job'} {row['job']}: {row['from']} -> {row['to']}"
        lines.append(f"  {row['told_at']}  {transition}  ({row['rule']} -> {row['notifier']})")
    return "\n".join(lines)


# --- list and end ---------------------------------------------------------------------------------------------------


@silence.command("list")
@click.option("--all", "with_ended", is_flag=True, help="Also those that have ended.")
@times_options
@json_option
def list_silences(with_ended: bool, as_json: bool) -> None:
    """List silences, newest first, with the number of messages that each has held or dropped.

    \b
    Examples:
      ci-bridge silence list
      ci-bridge silence list --all --json
    """
    db = open_database()
    now = now_of(db)
    with db.read() as tx:
        listed = [
            silence_facts(*row, now=now) for row in silences.all_with_counts(tx, since=None if with_ended else now)
        ]
    if as_json:
        echo_json(listed)
        return
    rows = [
        {**facts, "state": _state(facts, now), "matches": described(facts["matches"]), "until": facts["ends_at"]}
        for facts in listed
    ]
    columns = ("id", "state", "until", "mode", "author", "reason", "matches", "held")
    echo_table(rows, columns, empty="there are none" if with_ended else "none is active (--all also lists ended ones)")


def _state(facts: Facts, now: datetime) -> str:
    if facts["state"] != "pending":
        return str(facts["state"])
    return f"begins in {human((datetime.fromisoformat(facts['begins_at']) - now).total_seconds())}"


@silence.command()
@click.argument("silence_id", metavar="ID")
@click.argument("span")
@click.option("--by", metavar="NAME", help="Who extends it.  [default: $USER]")
def extend(silence_id: str, span: str, by: str | None) -> None:
    """Let a silence end later by SPAN; what it holds is sent then.

    \b
    Example:
      ci-bridge silence extend sil_3wgd3btsuo6wb2kdedccezf4qi 2h
    """
    who = author(by, "extends it")
    try:
        changed, _ = operations(open_database(), who).change_silence(silence_id, {"extend_by": span})
    except FieldFaults as error:
        raise click.UsageError("\n".join(fault.text for fault in error.faults)) from error
    except OperationRefused as error:
        fail(f"{error} (ci-bridge silence list --all)")
    echo(f"{silence_id} ends at {iso(changed.ends_at)}")


@silence.command()
@click.argument("silence_id", metavar="ID")
@click.option("--by", metavar="NAME", help="Who ends it.  [default: $USER]")
def end(silence_id: str, by: str | None) -> None:
    """End a silence now; a worker sends what it held, in one digest for each notifier.

    \b
    Examples:
      ci-bridge silence end sil_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge silence end sil_3wgd3btsuo6wb2kdedccezf4qi --by ann
    """
    who = author(by, "ends it")
    try:
        ended, count = operations(open_database(), who).end_silence(silence_id)
    except OperationRefused as error:
        fail(f"{error} (ci-bridge silence list --all)")
    echo(f"{silence_id} has ended; {what_it_held(ended, count)}")
