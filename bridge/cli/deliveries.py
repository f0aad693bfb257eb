"""The commands about deliveries: what was told, to whom, and telling it again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from bridge import wiring
from bridge.cli.common import fail, json_option, open_database, plainly, say, settings, show_list, show_one, some
from bridge.cli.lists import NO_LIMIT, filter_of, filters, show
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
    show(reading.deliveries, filter_of(options), columns, limit, as_json=as_json)


@deliveries.command("show")
@click.argument("delivery_id")
@json_option
@plainly
def show_delivery(delivery_id: str, as_json: bool) -> None:
    """Show one delivery: every attempt with its answer, and what was sent."""
    db = open_database(settings())
    with db.read() as tx:
        found = reading.delivery(tx, delivery_id)
    db.close()
    if found is None:
        fail(f'no delivery "{delivery_id}" is on record (ci-bridge deliveries list)')
    show_one(found, as_json=as_json)


@deliveries.command()
@click.argument("delivery_ids", nargs=-1)
@filters("notifier", "rule", "job", "since", "until", limit=NO_LIMIT)
@click.option("--dry-run", is_flag=True, help="Only say which it would be.")
@plainly
def redrive(
    delivery_ids: tuple[str, ...], dry_run: bool, limit: int | None, as_json: bool, **options: str | None
) -> None:
    """Send dead deliveries again, under the same ids: those named, or all that the filters find.

    One that was dropped (by a mute or a silence) is sent too, when it is named.

    \b
    Examples:
      ci-bridge deliveries redrive dlv_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge deliveries redrive --notifier cms --since 2h --dry-run
    """
    if not delivery_ids and not any(options.values()):
        raise click.UsageError("name deliveries, or say which with --notifier, --rule, --job, --since, --until")
    which = filter_of({**options, "state": "dead"})
    db = open_database(settings())
    if delivery_ids:
        with db.write() as tx:
            dead = _again(tx, [facts for one in delivery_ids if (facts := _dead(tx, one))], dry_run=dry_run)
    else:
        dead = [facts for page in _pages_again(db, which, limit, dry_run=dry_run) for facts in page]
    db.close()
    rows = dead if as_json else dead[:_ROWS]
    show_list(rows, ("id", "notifier", "job", "tells", "why"), as_json=as_json, nothing="no dead delivery is such")
    if not as_json and dead:
        more = f"... and {len(dead) - len(rows)} more\n" if len(dead) > len(rows) else ""
        verb = "would be sent" if dry_run else "to be sent"
        click.echo(f"{more}{some(len(dead), 'delivery', 'deliveries')} {verb} again", err=True)


def _pages_again(db: Database, which: Filter, limit: int | None, *, dry_run: bool) -> Iterator[list[dict[str, Any]]]:
    """Send all that the filter finds again; a page is a transaction, so that workers get their turn."""
    cursor, left = None, limit or sys.maxsize
    while left:
        with db.read() if dry_run else db.write() as tx:
            page = reading.deliveries(tx, which, cursor=cursor, limit=min(left, reading.MOST))
            found = _again(tx, page.items, dry_run=dry_run)
        yield found
        cursor, left = page.cursor, left - len(page.items)
        if cursor is None:
            return


def _again(tx: Any, dead: list[dict[str, Any]], *, dry_run: bool) -> list[dict[str, Any]]:
    if dry_run:
        return dead
    again = set(outbox.redrive(tx, reading.numbers_of([one["id"] for one in dead]), now=wiring.utc_now()))
    return [one for one in dead if one["id"] in again]


def _dead(tx: Any, delivery_id: str) -> dict[str, Any] | None:
    found = reading.delivery(tx, delivery_id)
    if found is None:
        fail(f'no delivery "{delivery_id}" is on record')
    if found["state"] not in ("dead", "dropped"):
        say(f"{delivery_id} is {found['state']}, neither dead nor dropped: left alone", err=True)
        return None
    return found
