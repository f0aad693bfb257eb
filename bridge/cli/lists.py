"""The commands that show the record and send again: jobs, transitions, deliveries, notifier."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import click

from bridge import wiring
from bridge.cli.common import (
    everything,
    fail,
    json_option,
    moment,
    open_database,
    plainly,
    settings,
    show_list,
    show_one,
    some,
)
from bridge.decide.messages import address, test_message
from bridge.decide.words import suggest
from bridge.model import GONE, STATES
from bridge.record import outbox, reading
from bridge.record.database import Database
from bridge.record.reading import Filter
from bridge.record.schema import DELIVERY_STATES

Command = Callable[..., Any]


def _filters(*names: str) -> Callable[[Command], Command]:
    """Add the options of these filters, and --limit and --json."""

    def add(command: Command) -> Command:
        command = json_option(command)
        command = click.option("--limit", default=50, show_default=True, help="At most this many, the newest.")(command)
        for name in reversed(names):
            callback = _job_state if name == "state" else None
            command = click.option(f"--{name}", help=_FILTER_HELP[name], callback=callback)(command)
        return command

    return add


_FILTER_HELP = {
    "state": "Only those in this state.",
    "tag": "Only jobs of this tag.",
    "queue": "Only jobs of this queue id.",
    "notifier": "Only to this notifier.",
    "rule": "Only by this rule.",
    "job": "Only of this job id.",
    "since": 'Only since then: "2h" (ago) or 2026-11-21T09:00:00Z.',
    "until": "Only before then.",
}


def _job_state(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Take a state in any case; what looks like a slip of the pen is said, what is new is let through."""
    if value is None:
        return None
    known = {state.lower(): state for state in (*STATES, GONE)}
    if value.lower() not in known and (near := suggest(value, known.values())):
        raise click.BadParameter(f'no job state is called "{value}"{near}')
    return known.get(value.lower(), value)


def _filter(options: dict[str, str | None]) -> Filter:
    since, until = moment(options.pop("since", None)), moment(options.pop("until", None))
    return Filter(**options, since=since, until=until)


def _show(
    what: Callable[..., reading.Found],
    which: Filter,
    columns: tuple[str, ...],
    limit: int,
    *,
    as_json: bool,
    also: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    db = open_database(settings())
    with db.read() as tx:
        items = what(tx, which, limit=limit).items
    nothing = f"none on record in {db.shown}"
    show_list(items if as_json else list(map(also, items)), columns, as_json=as_json, nothing=nothing)
    db.close()


@click.group()
def jobs() -> None:
    """The jobs as last seen."""


@jobs.command("list")
@_filters("state", "tag", "queue", "since", "until")
@plainly
def list_jobs(limit: int, as_json: bool, **options: str | None) -> None:
    """List jobs, the newest first."""
    columns = ("id", "tag", "state", "progress", "created_at", "changed_at", "input")
    _show(reading.jobs, _filter(options), columns, limit, as_json=as_json)


@jobs.command("show")
@click.argument("job_id")
@json_option
@plainly
def show_job(job_id: str, as_json: bool) -> None:
    """Show one job: what CI says, its transitions, and who was told."""
    db = open_database(settings())
    with db.read() as tx:
        found = reading.job(tx, job_id)
    db.close()
    if not found:
        fail(f'no job "{job_id}" is on record (ci-bridge jobs list)')
    for one in found:
        show_one(one, as_json=as_json)


@click.group()
def transitions() -> None:
    """What changed, and which rules heard of it."""


@transitions.command("list")
@_filters("job", "state", "tag", "queue", "since", "until")
@plainly
def list_transitions(limit: int, as_json: bool, **options: str | None) -> None:
    """List transitions, the newest first."""
    columns = ("seen_at", "job", "tag", "from", "to", "told", "silent")
    _show(reading.transitions, _filter(options), columns, limit, as_json=as_json, also=_told)


def _told(step: dict[str, Any]) -> dict[str, Any]:
    """Add who was told by which rule, for people."""
    told = [f"{fired['rule']} -> {', '.join(fired['notifiers']) or 'nobody'}" for fired in step["rules"]]
    return {**step, "told": "; ".join(told) or "no rule matched"}


@click.group()
def deliveries() -> None:
    """What was told, to whom, and how it went."""


_STATE = click.option("--state", type=click.Choice(DELIVERY_STATES), help="Only those in this state.")


@deliveries.command("list")
@_STATE
@_filters("notifier", "rule", "job", "since", "until")
@plainly
def list_deliveries(limit: int, as_json: bool, **options: str | None) -> None:
    """List deliveries, the newest first.

    \b
    Examples:
      ci-bridge deliveries list --state dead
      ci-bridge deliveries list --notifier cms --since 2h --json
    """
    columns = ("id", "notifier", "state", "job", "tells", "rule", "attempts", "created_at", "why")
    _show(reading.deliveries, _filter(options), columns, limit, as_json=as_json)


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
@_filters("notifier", "rule", "job", "since", "until")
@click.option("--dry-run", is_flag=True, help="Only say which it would be.")
@plainly
def redrive(delivery_ids: tuple[str, ...], dry_run: bool, limit: int, as_json: bool, **options: str | None) -> None:
    """Send dead deliveries again, under the same ids: those named, or those that the filters find.

    \b
    Examples:
      ci-bridge deliveries redrive dlv_3wgd3btsuo6wb2kdedccezf4qi
      ci-bridge deliveries redrive --notifier cms --since 2h --dry-run
    """
    if not delivery_ids and not any(options.values()):
        raise click.UsageError("name deliveries, or say which with --notifier, --rule, --job, --since, --until")
    db = open_database(settings())
    with db.write() as tx:
        dead = [facts for one in delivery_ids if (facts := _dead(tx, one))]
        if not delivery_ids:
            dead = reading.deliveries(tx, _filter({**options, "state": "dead"}), limit=limit).items
        if not dry_run:
            outbox.redrive(tx, reading.numbers_of([one["id"] for one in dead]), now=wiring.utc_now())
    db.close()
    verb = "would be sent" if dry_run else "to be sent"
    show_list(dead, ("id", "notifier", "job", "tells", "why"), as_json=as_json, nothing="no dead delivery is such")
    if not as_json and dead:
        click.echo(f"{some(len(dead), 'delivery', 'deliveries')} {verb} again", err=True)


def _dead(tx: Any, delivery_id: str) -> dict[str, Any] | None:
    found = reading.delivery(tx, delivery_id)
    if found is None:
        fail(f'no delivery "{delivery_id}" is on record')
    if found["state"] != "dead":
        click.echo(f"{delivery_id} is {found['state']}, not dead: left alone", err=True)
        return None
    return found


@click.group()
def notifier() -> None:
    """One Slack channel or webhook."""


@notifier.command()
@click.argument("name")
@click.option("--wait", "wait_s", default=20.0, show_default=True, help="Seconds to wait for the outcome.")
@json_option
@plainly
def test(name: str, wait_s: float, as_json: bool) -> None:
    """Send a test message through the outbox, signed and sent by the worker like any other.

    Exits 1 unless it has arrived.
    """
    _, rules, db = everything(polls=False)
    if name not in rules.book.notifiers:
        fail(f'no notifier is called "{name}"; there are {", ".join(rules.book.notifiers) or "none"}')
    message = test_message(name, nonce=secrets.token_hex(8), now=wiring.utc_now())
    told = address(message, rules.book.notifiers[name])
    with db.write() as tx:
        outbox.put(tx, [told], now=wiring.utc_now())
    found = _await(db, told.id, wait_s)
    if as_json:
        show_one(found, as_json=True)
    elif found["state"] == "sent":
        click.echo(f"arrived: {name} accepted the test message {told.id}")
    with db.read() as tx:
        alive = reading.workers(tx)
    db.close()
    if found["state"] != "sent":
        fail(_why_not_sent(found, alive))


def _await(db: Database, delivery_id: str, wait_s: float) -> dict[str, Any]:
    until = time.monotonic() + wait_s
    while True:
        with db.read() as tx:
            found = reading.delivery(tx, delivery_id)
        assert found  # noqa: S101  (it was put there a moment ago)
        if (found["attempts"] and found["state"] != "sending") or time.monotonic() > until:
            return found
        time.sleep(0.2)


def _why_not_sent(found: dict[str, Any], workers: list[dict[str, Any]]) -> str:
    if found["attempts"]:
        return f"not accepted: {found['why']}"
    if not workers:
        return "no worker runs, so it waits in the outbox: start one with `ci-bridge worker` or `ci-bridge run`"
    return "not sent yet: the notifier may be paused or waiting for its rate (ci-bridge doctor)"


@notifier.command()
@click.argument("name")
@plainly
def resume(name: str) -> None:
    """Let a paused notifier be told again; what waited for it is sent."""
    db = open_database(settings())
    with db.write() as tx:
        done = outbox.resume(tx, name)
    db.close()
    if not done:
        fail(f'no notifier "{name}" is on record')
    click.echo(f"{name} goes on")
