"""The commands about deliveries: what was sent, to whom, and resending it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import click
from sqlalchemy import Connection

from bridge.cli.common import (
    Facts,
    deliveries_of,
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
from bridge.cli.lists import echo_list, filter_of, filters, follow_option, limit_option
from bridge.cli.tables import times_options
from bridge.decide.text.times import rate
from bridge.pipeline.operations import MOST_PER_MINUTE, RESENDABLE
from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.outbox import batches
from bridge.record.outbox.batches import Batch
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import DELIVERY_STATES

_ROWS = 50  # of a dry run that are printed
_NONE = "no {} delivery matches"

_filters = filters("notifier", "rule", "job", "digest", "batch", "since", "until")


@click.group()
def deliveries() -> None:
    """What was sent, to whom, and the outcome."""


@deliveries.command("list")
@click.option("--state", type=click.Choice(DELIVERY_STATES), help="Only those in this state.")
@_filters
@limit_option
@follow_option
@times_options
@json_option
def list_deliveries(limit: int, follows: bool, as_json: bool, **options: str | None) -> None:
    """List deliveries, newest first.

    \b
    Examples:
      ci-bridge deliveries list --state dead
      ci-bridge deliveries list --notifier cms --since 2h --json
      ci-bridge deliveries list --state dead -f
      ci-bridge deliveries list --digest dlv_3wgd3btsuo6wb2kdedccezf4qi
    """
    columns = ("id", "notifier", "state", "job", "reports", "rule", "attempts", "created_at", "held_by", "why")
    echo_list(
        lists.find_deliveries, options, limit, columns, as_json=as_json, for_people=_with_reports, follows=follows
    )


def _with_reports(delivery: Facts) -> Facts:
    """Add what a delivery reports: a state, that a job left one, or something about a watch."""
    said = f"no longer {delivery['left']}" if delivery["left"] else delivery["tells"]
    return delivery | {"reports": _REPORTS.get(delivery["kind"], said)}


_REPORTS = {"blind": "a watch cannot see", "sees": "a watch sees again", "incident": "an incident"}


@deliveries.command("show")
@click.argument("delivery_id", metavar="ID")
@json_option
def show_delivery(delivery_id: str, as_json: bool) -> None:
    """Show one delivery: the message, and every attempt with its response. For a batch, show its progress.

    \b
    Example:
      ci-bridge deliveries show dlv_3wgd3btsuo6wb2kdedccezf4qi
    """
    db = open_database()
    now = now_of(db)
    with db.read() as tx:
        delivery, batch = lists.delivery_details(tx, delivery_id), batches.progress(tx, delivery_id, now=now)
    if delivery is None and batch is None:
        fail(f'no delivery "{delivery_id}" is on record (ci-bridge deliveries list)')
    (echo_json if as_json else echo_details)(delivery or (batch or Batch(id=delivery_id)).facts())


# --- redrive --------------------------------------------------------------------------------------------------------


def _interval(_ctx: click.Context, _param: click.Parameter, value: str) -> timedelta:
    try:
        interval = rate(value).interval
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if interval < timedelta(minutes=1) / MOST_PER_MINUTE:
        raise click.BadParameter(f'"{value}" is too fast; at most "{MOST_PER_MINUTE // 60}/s" is allowed')
    return interval


@deliveries.command()
@click.argument("delivery_ids", nargs=-1)
@_filters
@click.option(
    "--state", type=click.Choice(RESENDABLE), default=RESENDABLE[0], show_default=True,
    help="The state that the filters select.",
)  # fmt: skip
@click.option(
    "--rate", "interval", default="10/s", show_default=True, callback=_interval,
    help='How fast the selected deliveries become due, such as "1/s" or "100/5m".',
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show which deliveries would be resent.")
@click.option(
    "--cancel", "batch_id", metavar="BATCH", help="Cancel a batch: deliveries that are not due yet become dead letters."
)
@json_option
def redrive(
    delivery_ids: tuple[str, ...],
    state: str,
    interval: timedelta,
    dry_run: bool,
    batch_id: str | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Resend (redrive) dead deliveries under the same ids: those named, or all that the filters select.

    Named deliveries are sent now, also if they were discarded, or dropped by a mute or a silence. Filters make a batch,
    whose deliveries become due one after the other at the given rate. `deliveries show BATCH` shows its progress.

    \b
    Examples:
      ci-bridge deliveries redrive dlv_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge deliveries redrive --notifier cms --since 2h --dry-run
      ci-bridge deliveries redrive --notifier cms --since 2h --rate 1/s
      ci-bridge deliveries redrive --state discarded --batch dsc_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge deliveries redrive --cancel rdr_3wgd3btsuo6wb2kdedccezf4qi
    """
    if sum((bool(delivery_ids), any(options.values()), batch_id is not None)) != 1:
        raise click.UsageError(
            "give exactly one of: delivery ids, filters (--notifier, --rule, --job, --digest, --batch, --since, "
            "--until), --cancel BATCH"
        )
    db = open_database()
    if batch_id is not None:
        _cancel(db, batch_id, as_json=as_json)
    elif delivery_ids:
        _resend_named(db, delivery_ids, dry_run=dry_run, as_json=as_json)
    elif dry_run:
        _preview(db, filter_of({**options, "state": state}), "would be resent", as_json=as_json)
    else:
        _resend_batch(db, filter_of({**options, "state": state}), interval, as_json=as_json)


def _resend_named(db: Database, delivery_ids: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    selected = _selected(db, delivery_ids, RESENDABLE)
    if not dry_run:
        resent = operations(db).redrive_chosen([delivery["id"] for delivery in selected])
        selected = [delivery for delivery in selected if delivery["id"] in resent]
    verb = "would be resent" if dry_run else "queued for resending"
    _echo_selected(selected, len(selected), verb, states=" or ".join(RESENDABLE), as_json=as_json)


def _selected(db: Database, delivery_ids: Sequence[str], states: Sequence[str]) -> list[Facts]:
    """Return those of the named deliveries that are in one of these states; say so of the others."""
    with db.read() as tx:
        return [delivery for id_ in delivery_ids if (delivery := _in_state(tx, id_, states))]


def _in_state(tx: Connection, delivery_id: str, states: Sequence[str]) -> Facts | None:
    delivery = lists.delivery_details(tx, delivery_id)
    if delivery is None:
        fail(f'no delivery "{delivery_id}" is on record')
    if delivery["state"] not in states:
        echo(f"{delivery_id} is {delivery['state']}, not {' or '.join(states)}: skipped", err=True)
        return None
    return delivery


def _preview(db: Database, which: Filter, verb: str, *, as_json: bool) -> None:
    with db.read() as tx:
        total, newest = batches.count(tx, which), lists.find_deliveries(tx, which, limit=_ROWS).items
    _echo_selected(newest, total, verb, states=str(which.state), as_json=as_json)


def _echo_selected(rows: Sequence[Facts], total: int, verb: str, *, states: str, as_json: bool) -> None:
    if as_json:
        echo_json(rows)
    else:
        columns = ("id", "notifier", "job", "reports", "why")
        echo_table(list(map(_with_reports, rows)), columns, empty=_NONE.format(states))
    if total and (not as_json or total > len(rows)):
        more = f"... and {total - len(rows)} more\n" if total > len(rows) else ""
        click.echo(f"{more}{deliveries_of(total)} {verb}", err=True)


def _resend_batch(db: Database, which: Filter, interval: timedelta, *, as_json: bool) -> None:
    batch = operations(db).redrive_batch(which, interval=interval)
    if batch.total:
        last = f", the last at {batch.last_due_at:%Y-%m-%dT%H:%M:%SZ}" if batch.last_due_at else ""
        echo(f"{deliveries_of(batch.total)} queued for resending{last}", err=True)
        with db.read() as tx:
            if not rulesets.state(tx, now=now_of(db)).alive:
                echo("they wait, as no worker is running: start one with `ci-bridge worker` or `run`", err=True)
    if as_json:
        echo_json(batch.facts() | ({} if batch.total else {"id": None}))
    else:
        echo(batch.id if batch.total else _NONE.format(which.state))


def _cancel(db: Database, batch_id: str, *, as_json: bool) -> None:
    batch, cancelled = operations(db).cancel_batch(batch_id)
    if as_json:
        echo_json(batch.facts() | {"cancelled": cancelled})
    else:
        echo(f"cancelled {cancelled:,} of {deliveries_of(batch.total)}")


# --- discard --------------------------------------------------------------------------------------------------------


@deliveries.command()
@click.argument("delivery_ids", nargs=-1)
@_filters
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to others.")
@click.option("--dry-run", is_flag=True, help="Only show which deliveries would be discarded.")
@json_option
def discard(delivery_ids: tuple[str, ...], reason: str, dry_run: bool, as_json: bool, **options: str | None) -> None:
    """Discard dead deliveries that nobody needs: those named, or all that the filters select, as a batch.

    They are no longer counted as dead. They stay on record as long as dead ones, and can be resent.

    \b
    Examples:
      ci-bridge deliveries discard dlv_3wgd3btsuo6wb2kdedccezf4qi --reason "sent by hand"
      ci-bridge deliveries discard --notifier cms --until 2d --reason "cms was shut down" --dry-run
      ci-bridge deliveries discard --notifier cms --until 2d --reason "cms was shut down"
    """
    if bool(delivery_ids) == any(options.values()):
        raise click.UsageError(
            "give either delivery ids or filters (--notifier, --rule, --job, --digest, --batch, --since, --until)"
        )
    db, verb = open_database(), "would be discarded" if dry_run else "discarded"
    if delivery_ids:
        selected = _selected(db, delivery_ids, ["dead"])
        if not dry_run:
            gone = operations(db).discard_chosen([delivery["id"] for delivery in selected], reason)
            selected = [delivery for delivery in selected if delivery["id"] in gone]
        _echo_selected(selected, len(selected), verb, states="dead", as_json=as_json)
    elif dry_run:
        _preview(db, filter_of({**options, "state": "dead"}), verb, as_json=as_json)
    else:
        _discard_batch(db, filter_of({**options, "state": "dead"}), reason, as_json=as_json)


def _discard_batch(db: Database, which: Filter, reason: str, *, as_json: bool) -> None:
    batch = operations(db).discard_batch(which, reason)
    if as_json:
        echo_json(batch.facts() | ({} if batch.total else {"id": None}))
    elif batch.total:
        echo(f"{deliveries_of(batch.discarded)} discarded as {batch.id}")
    else:
        echo(_NONE.format("dead"))
