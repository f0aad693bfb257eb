"""The commands that show the record and notify manually: jobs, transitions, actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from bridge.admin.schemas.jobs import MOST_OF_EACH, JobDetail, timeline
from bridge.cli.common import (
    Facts,
    Table,
    echo,
    echo_details,
    echo_json,
    echo_table,
    fail,
    json_option,
    open_bridge,
    open_database,
    operations,
    parse_time,
)
from bridge.cli.follow import NewRows, follow, show_json
from bridge.cli.tables import times_of, times_options
from bridge.decide.text.values import suggest
from bridge.model import GONE, STATES
from bridge.pipeline.incident_facts import incidents_of_job, rules_in_force
from bridge.pipeline.operations import WHATS
from bridge.record.polling import problems, queues
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter

Command = Callable[..., Any]

limit_option = click.option(
    "--limit", type=click.IntRange(1, lists.MOST), default=50, show_default=True, help="At most this many, the newest."
)
follow_option = click.option(
    "-f", "--follow", "follows", is_flag=True,
    help="Then print new rows as they come, the newest last, until Ctrl-C; with --json, an object on each line.",
)  # fmt: skip
_bucket_option = click.option("--bucket", help="The job in this bucket: two buckets may have the same job id.")

_FILTERS = {
    "state": "Only those in this state.",
    "tag": "Only jobs with this tag.",
    "queue": "Only jobs in this queue (id).",
    "notifier": "Only those to this notifier.",
    "rule": "Only those of this rule.",
    "job": "Only those of this job id.",
    "digest": "Only those that the digest with this delivery id contains.",
    "batch": "Only those that were resent or discarded with this batch.",
    "who": "Only those of this author, or of who gave this name.",
    "subject": "Only those done to what has this id or name.",
    "since": 'Only since this time: "2h" (ago) or 2026-11-21T09:00:00Z.',
    "until": "Only before this time.",
}


def filters(*names: str) -> Callable[[Command], Command]:
    """Add the options of these filters."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            callback = _job_state if name == "state" else None
            command = click.option(f"--{name}", help=_FILTERS[name], callback=callback)(command)
        return command

    return add


def _job_state(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Accept a state in any case; refuse what looks like a typo, let unknown words through."""
    if value is None:
        return None
    if value.lower() in ("done", "active", "*"):
        raise click.BadParameter(f'"{value}" is a set of states for rules.toml; name one state, such as Failed')
    known = {state.lower(): state for state in (*STATES, GONE)}
    if value.lower() not in known and (suggestion := suggest(value, known.values())):
        raise click.BadParameter(f'there is no job state "{value}"{suggestion}')
    return known.get(value.lower(), value)


def filter_of(options: dict[str, str | None]) -> Filter:
    since, until = parse_time(options.pop("since", None)), parse_time(options.pop("until", None))
    return Filter(**options, since=since, until=until)


def echo_list(
    query: Callable[..., lists.Found],
    options: dict[str, str | None],
    limit: int,
    columns: tuple[str, ...],
    *,
    as_json: bool,
    for_people: Callable[[Facts], Facts],
    follows: bool = False,
) -> None:
    """Print what a query finds: as JSON, or as a table of rows that `for_people` returns."""
    which, db = filter_of(options), open_database()
    if follows:
        times = times_of(click.get_current_context())
        table = Table(columns, "utc" if times == "ago" else times)  # an age would soon be wrong
        show = show_json if as_json else lambda rows: table.echo(list(map(for_people, rows)))
        follow(db, NewRows(query, which), show, limit=limit)
        return
    with db.read() as tx:
        items = query(tx, which, limit=limit).items
    if as_json:
        echo_json(items)
    else:
        echo_table(list(map(for_people, items)), columns, empty=f"none on record in {db.shown}")


# --- jobs -----------------------------------------------------------------------------------------------------------


@click.group()
def jobs() -> None:
    """The jobs as last seen."""


@jobs.command("list")
@filters("state", "tag", "queue", "since", "until")
@limit_option
@follow_option
@times_options
@json_option
def list_jobs(limit: int, follows: bool, as_json: bool, **options: str | None) -> None:
    """List jobs, newest first. --follow prints a job again when its state has changed.

    \b
    Examples:
      ci-bridge jobs list --state Failed --since 2h
      ci-bridge jobs list --tag Transcode --json
      ci-bridge jobs list -f
    """
    columns = ("id", "tag", "state", "progress", "created_at", "changed_at", "input")
    echo_list(lists.find_jobs, options, limit, columns, as_json=as_json, for_people=_with_unwatched, follows=follows)


def _with_unwatched(job: Facts) -> Facts:
    return job | {"state": f"{job['state']}, unwatched"} if job["unwatched_since"] else job


@jobs.command("show")
@click.argument("job_id")
@_bucket_option
@json_option
def show_job(job_id: str, bucket: str | None, as_json: bool) -> None:
    """Show one job: its details from CI, and its timeline: transitions, deliveries and their attempts.

    \b
    Example:
      ci-bridge jobs show j8d121820f5e411ec926ef19d53ba9c6f
    """
    db = open_database()
    with db.read() as tx:
        found = [job for job in lists.job_details(tx, job_id) if bucket in (None, job["bucket"])]
        if not found:
            fail(f"{problems.no_job(tx, job_id, bucket)} (ci-bridge jobs list)")
        if len(found) > 1:
            buckets = ", ".join(job["bucket"] for job in found)
            fail(f'job "{job_id}" is in several buckets; add --bucket with one of: {buckets}')
        bucket = found[0]["bucket"]
        counts_for = incidents_of_job(tx, bucket, job_id, rules_in_force(tx))
        more = {"problems": problems.of_job(tx, bucket, job_id), "incidents": counts_for}
        job = found[0] | more
        detail = JobDetail.of(job, queues.names(tx))
        attempts = lists.attempts_of(tx, [delivery.id for delivery in detail.deliveries[-MOST_OF_EACH:]])
    if as_json:
        echo_json(job)
        return
    echo_details({name: value for name, value in job.items() if name not in ("transitions", "deliveries")})
    click.echo("\ntimeline:")
    events = [_event_row(event) for event in timeline(detail, attempts)[-MOST_OF_EACH:]]
    echo_table(events, ("at", "what", "detail"))


def _event_row(event: Facts) -> Facts:
    """Return a line of the timeline, as the job's page has it."""
    facts: Any = event.get("facts")
    match event["kind"]:
        case "ci":
            what, detail = f"CI: {event['word']}", ""
        case "transition":
            fired = "; ".join(f"{one.rule} -> {', '.join(one.notifiers) or 'nobody'}" for one in facts.rules)
            what = f"{facts.was} -> {facts.to}{' (inferred)' if facts.inferred else ''}"
            detail = f"nobody notified: {facts.silent}" if facts.silent else fired or "no rule matched"
        case "delivery":
            what = f"message for {facts.notifier}: {facts.state}"
            detail = " ".join(filter(None, (facts.id, facts.held_by and f"held by {facts.held_by}", facts.note)))
        case _:
            what = f"attempt {facts['number']} for {event['delivery'].notifier}: {facts['outcome']}"
            status = facts["status"] and f"status {facts['status']}"
            detail = ", ".join(filter(None, (status, f"{facts['ms']} ms", facts["why"])))
    return {"at": event["at"], "what": what, "detail": detail}


@jobs.command("tell")
@click.argument("job_id")
@click.option("--notifier", required=True, metavar="NAME", help="The notifier.")
@click.option("--sequence", type=click.IntRange(1), metavar="N", help="Which transition.  [default: the last]")
@_bucket_option
@json_option
def notify(job_id: str, notifier: str, sequence: int | None, bucket: str | None, as_json: bool) -> None:
    """Notify manually (tell): send a transition to a notifier, for example if no rule matched or a mute dropped it.

    No mute, silence or throttle holds it. `rules explain JOB_ID` shows who was notified, and why nobody else was.

    \b
    Examples:
      ci-bridge jobs tell j8d121820f5e411ec926ef19d53ba9c6f --notifier cms
      ci-bridge jobs tell j8d121820f5e411ec926ef19d53ba9c6f --notifier cms --sequence 2
    """
    _, rules, db = open_bridge(polls=False)
    new = operations(db).notify(rules.book, job_id=job_id, notifier=notifier, bucket=bucket, sequence=sequence)
    if as_json:
        echo_json({"delivery": new.delivery, "waits": new.waits})
    else:
        echo(f"queued: {new.delivery} for {notifier}")
    if new.waits:
        echo(new.waits, err=True)


# --- transitions ----------------------------------------------------------------------------------------------------


@click.group()
def transitions() -> None:
    """What changed, and which rules matched."""


@transitions.command("list")
@filters("job", "state", "tag", "queue", "since", "until")
@limit_option
@follow_option
@times_options
@json_option
def list_transitions(limit: int, follows: bool, as_json: bool, **options: str | None) -> None:
    """List transitions, newest first.

    \b
    Examples:
      ci-bridge transitions list --state Failed --since 1d
      ci-bridge transitions list -f --json | jq .to
    """
    columns = ("seen_at", "job", "tag", "from", "to", "notified", "silent")
    echo_list(
        lists.find_transitions, options, limit, columns, as_json=as_json, for_people=_with_notified, follows=follows
    )


def _with_notified(transition: Facts) -> Facts:
    notified = [f"{rule['rule']} -> {', '.join(rule['notifiers']) or 'nobody'}" for rule in transition["rules"]]
    nobody = "nobody" if transition["silent"] else "no rule matched"  # of a silent one no rule was asked
    to = f"{transition['to']}{' (inferred)' if transition['inferred'] else ''}"
    return {**transition, "to": to, "notified": "; ".join(notified) or nobody}


# --- actions ---------------------------------------------------------------------------------------------------------


@click.group()
def actions() -> None:
    """What people did, and who did it."""


@actions.command("list")
@click.option("--what", type=click.Choice(WHATS), help="Only those of this kind.")
@filters("who", "subject", "since", "until")
@limit_option
@times_options
@json_option
def list_actions(limit: int, as_json: bool, **options: str | None) -> None:
    """List what people did, newest first, with what it changed.

    \b
    Examples:
      ci-bridge actions list --since 1d
      ci-bridge actions list --what discard --who ann --json
      ci-bridge actions list --subject dlv_3wgd3btsuo6wb2kdedccezf4qi
    """
    columns = ("at", "who", "claimed", "what", "subject", "before", "after")
    echo_list(lists.find_actions, options, limit, columns, as_json=as_json, for_people=dict)
