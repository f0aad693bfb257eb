"""Orders to send deliveries again: given, watched, listed and ended."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
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
    some,
    who_asks,
)  # fmt: skip
from bridge.decide.ids import ident
from bridge.pipeline.redriving import TooMany, order, order_facts
from bridge.record import gauges, reading, redrives
from bridge.record.database import Database
from bridge.record.reading import Filter

_LOOK_S = 0.5
_SILENT_FOR = timedelta(seconds=60)  # then a worker is no longer counted on


def foresee(db: Database, which: Filter, *, most: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many deliveries an order would send again, and the newest of them."""
    with db.read() as tx:
        return redrives.count(tx, which), reading.deliveries(tx, which, limit=most).items


def give(db: Database, which: Filter, *, per_minute: int) -> redrives.Order:
    id_, now = ident("rdr", secrets.token_hex(8)), now_of(db)
    try:
        with db.write() as tx:
            return order(tx, which, per_minute=per_minute, author=who_asks(), id_=id_, now=now)
    except TooMany as error:
        fail(f"{error} (ci-bridge deliveries redrives)")


def watch(db: Database, made: redrives.Order) -> redrives.Order:
    """Show how far an order is until it is over, or nobody works on it; return it as it is then."""
    while made.ended_at is None and _works(db):
        _progress(made)
        time.sleep(_LOOK_S)
        made = _now_is(db, made)
    _progress(made, last=True)
    return made


def _now_is(db: Database, made: redrives.Order) -> redrives.Order:
    with db.read() as tx:
        found = redrives.one(tx, made.id)
    if found is None:
        fail(f"order {made.id} is no longer on record")
    return found


def _works(db: Database) -> bool:
    now = now_of(db)
    with db.read() as tx:
        found = gauges.workers(tx)
    return any(now - datetime.fromisoformat(worker["beat_at"]) < _SILENT_FOR for worker in found)


def _progress(made: redrives.Order, *, last: bool = False) -> None:
    """Show one line, which the next one replaces where somebody sees it."""
    tty = sys.stderr.isatty()
    if tty or last:
        click.echo(f"{chr(13) * tty}{made.done} of {made.total} sent again", err=True, nl=last)


def waits(made: redrives.Order) -> str:
    stop = f"ci-bridge deliveries redrives --stop {made.id}"
    return f"no worker runs, so {made.id} waits for one: start it with `ci-bridge worker` or `run`, or end it: {stop}"


@click.command("redrives")
@click.option(
    "--limit", type=click.IntRange(1, reading.MOST), default=50, show_default=True, help="The newest so many."
)
@click.option("--stop", "order_id", metavar="ID", help="Instead: end this order now.")
@json_option
@plainly
def list_redrives(limit: int, order_id: str | None, as_json: bool) -> None:
    """List the orders to send deliveries again, the newest first, or end one.

    \b
    Examples:
      ci-bridge deliveries redrives
      ci-bridge deliveries redrives --stop rdr_3wgd3btsuo6wb2kdedccezf4qi
    """
    db = open_database(settings())
    if order_id:
        _stop(db, order_id, as_json=as_json)
    else:
        with db.read() as tx:
            found = [order_facts(one) for one in redrives.page(tx, limit=limit)[0]]
        rows = found if as_json else [{**one, "filter": _said(one["filter"])} for one in found]
        columns = ("id", "filter", "done", "total", "per_minute", "author", "created_at", "ended_at", "ended_by")
        show_list(rows, columns, as_json=as_json, nothing="there has been no such order")


def _said(which: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in which.items())


def _stop(db: Database, order_id: str, *, as_json: bool) -> None:
    now = now_of(db)
    with db.write() as tx:
        done = redrives.end(tx, order_id, by=who_asks(), now=now)
        found = redrives.one(tx, order_id)
    if found is None:
        fail(f'no order "{order_id}" is on record (ci-bridge deliveries redrives)')
    if not done:
        fail(f"order {order_id} is over since {found.ended_at:%Y-%m-%dT%H:%M:%SZ}")
    if as_json:
        say_json(order_facts(found))
    else:
        say(f"{order_id} is over; {some(found.done, 'delivery', 'deliveries')} sent again, {found.left} not")
