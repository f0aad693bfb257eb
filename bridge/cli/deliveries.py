"""The commands about deliveries: what was told, to whom, and resending it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from bridge.cli.common import (
    fail,
    json_option,
    now_of,
    open_database,
    operations,
    plainly,
    say,
    say_json,
    settings,
    show_list,
    show_one,
    some,
)
from bridge.cli.lists import filter_of, filters, show
from bridge.decide.text.times import rate
from bridge.pipeline.operations import MOST_PER_MINUTE, RESENDABLE
from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.outbox import batches
from bridge.record.outbox.batches import Batch
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import DELIVERY_STATES

_ROWS = 50  # that a person is shown of a long list


@click.group()
def deliveries() -> None:
    """What was told, to whom, and how it went."""


_STATE = click.option("--state", type=click.Choice(DELIVERY_STATES), help="Only those in this state.")


@deliveries.command("list")
@_STATE
@filters("notifier", "rule", "job", "digest", "batch", "since", "until")
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
    show(lists.find_deliveries, filter_of(options), columns, limit, as_json=as_json, also=_said)


def _said(one: dict[str, Any]) -> dict[str, Any]:
    """Name the state that was left where that is what it tells, for people."""
    return {**one, "tells": f"no longer {one['left']}"} if one["left"] else one


@deliveries.command("show")
@click.argument("delivery_id", metavar="ID")
@json_option
@plainly
def show_delivery(delivery_id: str, as_json: bool) -> None:
    """Show one delivery: every attempt with its answer, and what was sent. Of a batch, show how far it is."""
    db = open_database(settings())
    now = now_of(db)
    with db.read() as tx:
        found, batch = lists.delivery_details(tx, delivery_id), batches.progress(tx, delivery_id, now=now)
    if found is None and batch is None:
        fail(f'no delivery "{delivery_id}" is on record (ci-bridge deliveries list)')
    show_one(found or (batch or Batch(id=delivery_id)).facts(), as_json=as_json)


def _no_limit(command: Any) -> Any:
    return command


def _interval(_ctx: click.Context, _param: click.Parameter, value: str) -> timedelta:
    try:
        wanted = rate(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    interval = wanted.per / wanted.count
    if interval < timedelta(minutes=1) / MOST_PER_MINUTE:
        raise click.BadParameter(f'"{value}" is too fast; "{MOST_PER_MINUTE // 60}/s" is the most')
    return interval


@deliveries.command()
@click.argument("delivery_ids", nargs=-1)
@filters("notifier", "rule", "job", "digest", "batch", "since", "until", limit=_no_limit)
@click.option(
    "--state", type=click.Choice(RESENDABLE), default=RESENDABLE[0], show_default=True,
    help="What the filters look for.",
)  # fmt: skip
@click.option(
    "--rate", "interval", default="10/s", show_default=True, callback=_interval,
    help='How fast what the filters find becomes due, as in "1/s" or "100/5m".',
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say which it would be.")
@click.option(
    "--cancel", "batch_id", metavar="BATCH", help="Instead: let what is not due yet of this batch be dead again."
)
@plainly
def redrive(
    delivery_ids: tuple[str, ...],
    state: str,
    interval: timedelta,
    dry_run: bool,
    batch_id: str | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Resend dead deliveries, under the same ids: those named, or all that the filters find.

    Those named are sent now, and one that was dropped (by a mute or a silence) too. What filters find is a batch: one
    after the other becomes due, at its rate. `deliveries show BATCH` says how far it is.

    \b
    Examples:
      ci-bridge deliveries redrive dlv_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge deliveries redrive --notifier cms --since 2h --dry-run
      ci-bridge deliveries redrive --notifier cms --since 2h --rate 1/s
      ci-bridge deliveries redrive --cancel rdr_3wgd3btsuo6wb2kdedccezf4qi
    """  # fmt: skip
    wanted = (bool(delivery_ids), any(options.values()), batch_id is not None)
    if sum(wanted) != 1:
        raise click.UsageError(
            "name deliveries, or say which with --notifier, --rule, --job, --digest, --batch, --since, --until, "
            "or name a batch with --cancel: one of the three"
        )
    db = open_database(settings())
    if batch_id is not None:
        _cancel(db, batch_id, as_json=as_json)
    elif delivery_ids:
        _redrive_named(db, delivery_ids, dry_run=dry_run, as_json=as_json)
    elif dry_run:
        _foresee(db, filter_of({**options, "state": state}), as_json=as_json)
    else:
        _resend(db, filter_of({**options, "state": state}), interval, as_json=as_json)


def _redrive_named(db: Database, delivery_ids: tuple[str, ...], *, dry_run: bool, as_json: bool) -> None:
    with db.read() as tx:
        found = [facts for one in delivery_ids if (facts := _dead(tx, one))]
    if not dry_run:
        resent = operations(db).redrive_chosen([facts["id"] for facts in found])
        found = [facts for facts in found if facts["id"] in resent]
    _show(found, len(found), "would be resent" if dry_run else "to be resent", as_json=as_json)


def _dead(tx: Any, delivery_id: str) -> dict[str, Any] | None:
    found = lists.delivery_details(tx, delivery_id)
    if found is None:
        fail(f'no delivery "{delivery_id}" is on record')
    if found["state"] not in RESENDABLE:
        say(f"{delivery_id} is {found['state']}, neither dead nor dropped: left alone", err=True)
        return None
    return found


def _foresee(db: Database, which: Filter, *, as_json: bool) -> None:
    with db.read() as tx:
        total, newest = batches.count(tx, which), lists.find_deliveries(tx, which, limit=_ROWS).items
    _show(newest, total, "would be resent", as_json=as_json)


def _show(rows: list[dict[str, Any]], total: int, verb: str, *, as_json: bool) -> None:
    nothing = "no dead delivery is such"
    show_list(rows, ("id", "notifier", "job", "tells", "why"), as_json=as_json, nothing=nothing)
    if total and (not as_json or total > len(rows)):
        more = f"... and {total - len(rows)} more\n" if total > len(rows) else ""
        click.echo(f"{more}{some(total, 'delivery', 'deliveries')} {verb}", err=True)


def _resend(db: Database, which: Filter, interval: timedelta, *, as_json: bool) -> None:
    batch = operations(db).redrive_batch(which, interval=interval)
    if batch.total:
        last = f", the last at {batch.last_due_at:%Y-%m-%dT%H:%M:%SZ}" if batch.last_due_at else ""
        say(f"{some(batch.total, 'delivery', 'deliveries')} to be resent{last}", err=True)
        with db.read() as tx:
            if not rulesets.standing(tx, now=now_of(db)).alive:
                say("no worker runs, so they wait: start one with `ci-bridge worker` or `run`", err=True)
    if as_json:
        say_json(batch.facts() | ({} if batch.total else {"id": None}))
    else:
        say(batch.id if batch.total else f"no {which.state} delivery is such")


def _cancel(db: Database, batch_id: str, *, as_json: bool) -> None:
    batch, cancelled = operations(db).cancel_batch(batch_id)
    if as_json:
        say_json(batch.facts() | {"cancelled": cancelled})
    else:
        say(f"{some(cancelled, 'delivery', 'deliveries')} of {batch.total} dead again")
