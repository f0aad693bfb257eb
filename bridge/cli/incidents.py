"""The commands about incidents: what rules over several jobs have found, and acknowledging it."""

from __future__ import annotations

import click

from bridge.cli.common import (
    Facts,
    author,
    configured_rules,
    echo,
    echo_details,
    echo_json,
    echo_table,
    fail,
    json_option,
    now_of,
    open_database,
    operations,
)
from bridge.cli.lists import limit_option
from bridge.cli.tables import times_options
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.pipeline.incident_facts import find_incidents, incident_details, rules_in_force
from bridge.pipeline.operations import OperationRefused
from bridge.record.queries.incidents import STATES
from bridge.record.queries.lists import Filter

_COLUMNS = ("id", "state", "rule", "key", "what", "since", "acknowledged_by")


@click.group()
def incidents() -> None:
    """What rules over several jobs have found."""


@incidents.command("list")
@click.option(
    "--state", type=click.Choice(STATES), help="Only those in this state; watched: those that have not opened yet."
)
@click.option("--rule", metavar="NAME", help="Only those of this rule.")
@limit_option
@times_options
@json_option
def list_incidents(state: str | None, rule: str | None, limit: int, as_json: bool) -> None:
    """List incidents that are or were open, those that opened last first.

    \b
    Examples:
      ci-bridge incidents list --state open
      ci-bridge incidents list --rule queue-sick --json
    """
    db = open_database()
    now = now_of(db)
    with db.read() as tx:
        found = find_incidents(tx, Filter(state=state, rule=rule), rules_in_force(tx), now=now, limit=limit).items
    if as_json:
        echo_json(found)
    else:
        echo_table(list(map(_row, found)), _COLUMNS, empty=f"none on record in {db.shown}")


def _row(incident: Facts) -> Facts:
    return incident | {"key": incident["key"] or None, "since": incident["opened_at"] or incident["since"]}


@incidents.command("show")
@click.argument("incident_id", metavar="ID")
@limit_option
@json_option
def show_incident(incident_id: str, limit: int, as_json: bool) -> None:
    """Show one incident: what it is about, its messages, and its jobs, the last first.

    \b
    Example:
      ci-bridge incidents show inc_3wgd3btsuo6wb2kdedccezf4qi
    """
    db = open_database()
    now = now_of(db)
    with db.read() as tx:
        found = incident_details(tx, incident_id, rules_in_force(tx), now=now, limit=limit)
    if found is None:
        fail(f'no incident "{incident_id}" is on record (ci-bridge incidents list)')
    facts, cursor = found
    if as_json:
        echo_json(facts)
        return
    echo_details(facts)
    if cursor:
        echo(f"... and older jobs, of {facts['count']:,} (--limit)")


@incidents.command()
@click.argument("incident_id", metavar="ID")
@click.option("--by", metavar="NAME", help="Who takes care of it.  [default: $USER]")
def acknowledge(incident_id: str, by: str | None) -> None:
    """Say that somebody takes care of an incident: it does not escalate then.

    \b
    Examples:
      ci-bridge incidents acknowledge inc_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge incidents acknowledge inc_3wgd3btsuo6wb2kdedccezf4qi --by ann
    """
    who = author(by, "acknowledges it")
    try:
        operations(open_database(), who).acknowledge(incident_id, _rulebook())
    except OperationRefused as error:
        fail(f"{error} (ci-bridge incidents list)")
    echo(f"{incident_id} is acknowledged by {who}")


def _rulebook() -> Rulebook | None:
    """Return the rules, or None if they are refused: it must be possible before they are fixed."""
    try:
        return configured_rules().book
    except RulesRefused:
        return None
