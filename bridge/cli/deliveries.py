"""The commands about deliveries: what was told, to whom, and telling it again."""

from __future__ import annotations

from typing import Any

import click

from bridge.cli.common import (
    fail,
    json_option,
    now_of,
    open_database,
    plainly,
    say,
    say_json,
    settings,
    show_list,
    show_one,
    some,
)
from bridge.cli.lists import filter_of, filters, show
from bridge.cli.redrives import foresee, give, list_redrives, waits, watch
from bridge.pipeline.redriving import MOST_PER_MINUTE, STATES, USUAL_PER_MINUTE, order_facts
from bridge.record import outbox, reading
from bridge.record.database import Database
from bridge.record.reading import Filter
from bridge.record.schema import DELIVERY_STATES

_ROWS = 50  # that a person is shown of a long list


@click.group()
def deliveries() -> None:
    """What was told, to whom, and how it went."""


_STATE = click.option("--state", type=click.Choice(DELIVERY_STATES), help="Only those in this state.")


@deliveries.command("list")
@_STATE
@filters("notifier", "rule", "job", "digest", "since", "until")
@plainly
def list_deliveries(limit: int, as_json: bool, **options: str | None) -> None:
    """List deliveries, the newest first.

    \b
    Examples:
      ci-bridge deliveries list --state dead
      ci-bridge deliveries list --notifier cms --since 2h --json
      ci-bridge deliveries list --digest dlv_3wgd3btsuo6wb2kdedccezf4qi
    """
    columns = ("id", "notifier", "state", "job", "tells", "rule", "attempts", "created_at", "held_by", "why")
    show(reading.deliveries, filter_of(options), columns, limit, as_json=as_json, also=_said)


def _said(one: dict[str, Any]) -> dict[str, Any]:
    """Name the state that was left where that is what it tells, for people."""
    return {**one, "tells": f"no longer {one['left']}"} if one["left"] else one


@deliveries.command("show")
@click.argument("delivery_id")
@json_option
@plainly
def show_delivery(delivery_id: str, as_json: bool) -> None:
    """Show one delivery: every attempt with its answer, and what was sent."""
    db = open_database(settings())
    with db.read() as tx:
        found = reading.delivery(tx, delivery_id)
    if found is None:
        fail(f'no delivery "{delivery_id}" is on record (ci-bridge deliveries list)')
    show_one(found, as_json=as_json)


def _no_limit(command: Any) -> Any:
    return command


@deliveries.command()
@click.argument("delivery_ids", nargs=-1)
@filters("notifier", "rule", "job", "digest", "since", "until", limit=_no_limit)
@click.option(
    "--state", type=click.Choice(STATES), default=STATES[0], show_default=True, help="What the filters look for."
)
@click.option(
    "--per-minute", type=click.IntRange(1, MOST_PER_MINUTE), default=USUAL_PER_MINUTE, show_default=True,
    help="At most this many of what the filters find.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say which it would be.")
@click.option("--no-wait", is_flag=True, help="Give the order, print its id, and leave the rest to the workers.")
@plainly
def redrive(
    delivery_ids: tuple[str, ...],
    state: str,
    per_minute: int,
    dry_run: bool,
    no_wait: bool,
    as_json: bool,
    **options: str | None,
) -> None:
    """Send dead deliveries again, under the same ids: those named, or all that the filters find.

    Those named are sent at once, and one that was dropped (by a mute or a silence) too. What filters find is an order,
    which workers carry out at its rate; `deliveries redrives` lists orders and ends them.

    \b
    Examples:
      ci-bridge deliveries redrive dlv_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge deliveries redrive --notifier cms --since 2h --dry-run
      ci-bridge deliveries redrive --notifier cms --since 2h --per-minute 60
    """  # fmt: skip
    filtered = any(options.values())
    if bool(delivery_ids) == filtered:
        raise click.UsageError(
            "name deliveries, or say which with --notifier, --rule, --job, --digest, --since, --until: one of the two"
        )
    db = open_database(settings())
    if delivery_ids:
        _redrive_named(db, delivery_ids, dry_run=dry_run, as_json=as_json)
    elif dry_run:
        _foresee(db, filter_of({**options, "state": state}), as_json=as_json)
    else:
        _order(db, filter_of({**options, "state": state}), per_minute, wait=not no_wait, as_json=as_json)


def _redrive_named(db: Database, delivery_ids: tuple[str, ...], *, dry_run: bool, as_json: bool) -> None:
    now = now_of(db)
    with db.write() as tx:
        found = [facts for one in delivery_ids if (facts := _dead(tx, one))]
        if not dry_run:
            again = set(outbox.redrive(tx, reading.numbers_of([one["id"] for one in found]), now=now))
            found = [one for one in found if one["id"] in again]
    _show(found, len(found), "would be sent" if dry_run else "to be sent", as_json=as_json)


def _dead(tx: Any, delivery_id: str) -> dict[str, Any] | None:
    found = reading.delivery(tx, delivery_id)
    if found is None:
        fail(f'no delivery "{delivery_id}" is on record')
    if found["state"] not in STATES:
        say(f"{delivery_id} is {found['state']}, neither dead nor dropped: left alone", err=True)
        return None
    return found


def _foresee(db: Database, which: Filter, *, as_json: bool) -> None:
    total, newest = foresee(db, which, most=_ROWS)
    _show(newest, total, "would be sent", as_json=as_json)


def _show(rows: list[dict[str, Any]], total: int, verb: str, *, as_json: bool) -> None:
    nothing = "no dead delivery is such"
    show_list(rows, ("id", "notifier", "job", "tells", "why"), as_json=as_json, nothing=nothing)
    if total and (not as_json or total > len(rows)):
        more = f"... and {total - len(rows)} more\n" if total > len(rows) else ""
        click.echo(f"{more}{some(total, 'delivery', 'deliveries')} {verb} again", err=True)


def _order(db: Database, which: Filter, per_minute: int, *, wait: bool, as_json: bool) -> None:
    made = give(db, which, per_minute=per_minute)
    if made.total:
        count = some(made.total, "delivery", "deliveries")
        say(f"{made.id}: {count} to be sent again, at most {per_minute} a minute", err=True)
    if wait and made.total:
        made = watch(db, made)
        if made.ended_at is None:
            say(waits(made), err=True)
    if as_json:
        say_json(order_facts(made))
    else:
        say(made.id if made.total else f"no {which.state} delivery is such")


deliveries.add_command(list_redrives)
