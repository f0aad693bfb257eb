"""The commands that show the record, notify by hand and test notifiers: jobs, transitions, notifier."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from bridge.cli.common import (
    everything,
    fail,
    json_option,
    moment,
    open_database,
    operations,
    plainly,
    say,
    say_json,
    settings,
    show_list,
    show_one,
)
from bridge.decide.text.values import suggest
from bridge.model import GONE, STATES
from bridge.record.database import Database
from bridge.record.polling import problems
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter

Command = Callable[..., Any]


_LIMIT = click.option(
    "--limit",
    type=click.IntRange(1, lists.MOST),
    default=50,
    show_default=True,
    help="At most this many, the newest.",
)


def filters(*names: str, limit: Callable[[Command], Command] = _LIMIT) -> Callable[[Command], Command]:
    """Add the options of these filters, and --limit and --json."""

    def add(command: Command) -> Command:
        command = json_option(command)
        command = limit(command)
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
    "digest": "Only those that the delivery of this id told, as one.",
    "batch": "Only those that were resent with this batch.",
    "since": 'Only since then: "2h" (ago) or 2026-11-21T09:00:00Z.',
    "until": "Only before then.",
}


def _job_state(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Take a state in any case; what looks like a slip of the pen is said, what is new is let through."""
    if value is None:
        return None
    if value.lower() in ("done", "active", "*"):
        raise click.BadParameter(
            f'"{value}" is a set of states, known in rules.toml only: name one state, as in Failed'
        )
    known = {state.lower(): state for state in (*STATES, GONE)}
    if value.lower() not in known and (near := suggest(value, known.values())):
        raise click.BadParameter(f'no job state is called "{value}"{near}')
    return known.get(value.lower(), value)


def filter_of(options: dict[str, str | None]) -> Filter:
    since, until = moment(options.pop("since", None)), moment(options.pop("until", None))
    return Filter(**options, since=since, until=until)


def show(
    what: Callable[..., lists.Found],
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


@click.group()
def jobs() -> None:
    """The jobs as last seen."""


@jobs.command("list")
@filters("state", "tag", "queue", "since", "until")
@plainly
def list_jobs(limit: int, as_json: bool, **options: str | None) -> None:
    """List jobs, the newest first."""
    columns = ("id", "tag", "state", "progress", "created_at", "changed_at", "input")
    show(lists.find_jobs, filter_of(options), columns, limit, as_json=as_json, also=_state)


def _state(job: dict[str, Any]) -> dict[str, Any]:
    return job | {"state": f"{job['state']}, unwatched"} if job["unwatched_since"] else job


@jobs.command("show")
@click.argument("job_id")
@click.option("--bucket", help="The job of this bucket: ids of two buckets may clash.")
@json_option
@plainly
def show_job(job_id: str, bucket: str | None, as_json: bool) -> None:
    """Show one job: what CI says, its transitions, and who was told."""
    db = open_database(settings())
    with db.read() as tx:
        found = [one for one in lists.job_details(tx, job_id) if bucket in (None, one["bucket"])]
        for one in found:
            one["problems"] = problems.of_job(tx, one["bucket"], job_id)
        none = "" if found else problems.no_job(tx, job_id, bucket)
    if not found:
        fail(f"{none} (ci-bridge jobs list)")
    if len(found) > 1:
        buckets = ", ".join(one["bucket"] for one in found)
        fail(f'several buckets have a job "{job_id}"; add --bucket with one of: {buckets}')
    show_one(found[0], as_json=as_json)


@jobs.command("tell")
@click.argument("job_id")
@click.option("--notifier", required=True, metavar="NAME", help="Whom to tell.")
@click.option("--sequence", type=click.IntRange(1), metavar="N", help="Which transition.  [default: the last]")
@click.option("--bucket", help="The job of this bucket: ids of two buckets may clash.")
@json_option
@plainly
def notify(job_id: str, notifier: str, sequence: int | None, bucket: str | None, as_json: bool) -> None:
    """Tell a notifier of a transition by hand, as when no rule matched or a mute dropped it.

    No mute, silence or throttle holds it. `rules explain JOB_ID` says who was told, and why nobody else.

    \b
    Examples:
      ci-bridge jobs tell j8d121820f5e411ec926ef19d53ba9c6f --notifier cms
      ci-bridge jobs tell j8d121820f5e411ec926ef19d53ba9c6f --notifier cms --sequence 2
    """
    _, rules, db = everything(polls=False)
    new = operations(db).notify(rules.book, job_id=job_id, notifier=notifier, bucket=bucket, sequence=sequence)
    if as_json:
        say_json({"delivery": new.delivery, "waits": new.waits})
    else:
        say(f"{new.delivery} is for {notifier}, and a worker sends it")
    if new.waits:
        say(new.waits, err=True)


@click.group()
def transitions() -> None:
    """What changed, and which rules heard of it."""


@transitions.command("list")
@filters("job", "state", "tag", "queue", "since", "until")
@plainly
def list_transitions(limit: int, as_json: bool, **options: str | None) -> None:
    """List transitions, the newest first."""
    columns = ("seen_at", "job", "tag", "from", "to", "told", "silent")
    show(lists.find_transitions, filter_of(options), columns, limit, as_json=as_json, also=_told)


def _told(step: dict[str, Any]) -> dict[str, Any]:
    """Add who was told by which rule, for people."""
    told = [f"{fired['rule']} -> {', '.join(fired['notifiers']) or 'nobody'}" for fired in step["rules"]]
    return {**step, "told": "; ".join(told) or "no rule matched"}


@click.group()
def notifier() -> None:
    """One Slack channel or webhook."""


@notifier.command()
@click.argument("name")
@click.option("--wait", "wait_s", default=20.0, show_default=True, help="Seconds to wait for the outcome.")
@json_option
@plainly
def test(name: str, wait_s: float, as_json: bool) -> None:
    """Send a test message through the outbox, signed and sent by the worker like any other, but at once.

    Exits 1 unless it has arrived, with what the attempt came to, or why there was none.
    """
    _, rules, db = everything(polls=False)
    new = operations(db).test_notifier(rules.book, name)
    if not new.waits:
        click.echo(f"a worker sends {new.delivery} to {name} ...", err=True)
    found = _await(db, new.delivery, 0 if new.waits else wait_s)
    if as_json:
        show_one(found, as_json=True)
    elif found["state"] == "sent":
        click.echo(f"arrived: {name} accepted the test message {new.delivery}")
    if found["state"] != "sent":
        fail(f"not accepted: {found['why']}" if found["attempts"] else new.waits or _why_not_sent(found, wait_s))


def _await(db: Database, delivery_id: str, wait_s: float) -> dict[str, Any]:
    until = time.monotonic() + wait_s
    while True:
        with db.read() as tx:
            found = lists.delivery_details(tx, delivery_id)
        assert found  # noqa: S101  (it was put there a moment ago)
        has_ended = found["tries"] if found["state"] == "waiting" else found["state"] != "sending"
        if has_ended or time.monotonic() > until:
            return found
        time.sleep(0.2)


def _why_not_sent(found: dict[str, Any], wait_s: float) -> str:
    """Say what is known of a test that no attempt of has ended in time."""
    if found["state"] == "sending":
        return f"no answer within {wait_s:g} s, and the attempt goes on: `ci-bridge deliveries show {found['id']}`"
    return (
        f"not begun within {wait_s:g} s: {found['notifier']} has as many in flight as it may, or waits for its rate;"
        f" `ci-bridge deliveries show {found['id']}` says what became of it"
    )


@notifier.command()
@click.argument("name")
@plainly
def resume(name: str) -> None:
    """Let a paused notifier be told again; what waited for it is sent."""
    operations(open_database(settings())).resume_notifier(name)
    click.echo(f"{name} goes on")
