"""The commands about what rules.toml names: watches and notifiers, and how they do."""

from __future__ import annotations

import time

import click

from bridge.admin.schemas import rulebook
from bridge.cli.common import (
    Facts,
    configured_rules,
    echo,
    echo_json,
    echo_table,
    fail,
    json_option,
    now_of,
    open_bridge,
    open_database,
    operations,
)
from bridge.cli.tables import times_options
from bridge.pipeline.stats import detection
from bridge.record.database import Database
from bridge.record.polling import queues
from bridge.record.queries import gauges, lists

# --- watches --------------------------------------------------------------------------------------------------------


@click.group()
def watches() -> None:
    """What is polled, and how the polls do."""


@watches.command("list")
@times_options
@json_option
def list_watches(as_json: bool) -> None:
    """List the watches of rules.toml, and those that only the record knows, with their last poll.

    \b
    Examples:
      ci-bridge watches list
      ci-bridge watches list --json
    """
    book, db = configured_rules().book, open_database()
    now = now_of(db)
    with db.read() as tx:
        names = {**queues.names(tx), **book.queue_names}
        paused, seen = queues.paused(tx, now=now), detection(tx, "24h", now)
        found = rulebook.Watch.all(book, gauges.read_watches(tx), names, paused, seen)
    facts = [watch.model_dump(mode="json") for watch in found]
    if as_json:
        echo_json(facts)
    else:
        columns = ("name", "state", "bucket", "tags", "ok_at", "next_poll_at", "error")
        echo_table(list(map(_watch_row, facts)), columns, empty="rules.toml has no watch")


def _watch_row(watch: Facts) -> Facts:
    return watch | {"state": _state(watch, "ok" if watch["ok_at"] else "not polled yet", watch["failures"] > 0)}


def _state(facts: Facts, fine: str, failing: bool) -> str:
    """Return how a watch or a notifier does, in a word."""
    if not facts["in_rules"]:
        return "not in rules.toml"
    if facts.get("paused") or facts.get("paused_at"):
        return "paused"
    return "failing" if failing else fine


@watches.command("poll")
@click.argument("name")
def poll_watch(name: str) -> None:
    """Let a running worker poll a watch next. Without workers, `ci-bridge poll --watch NAME` polls it here.

    \b
    Example:
      ci-bridge watches poll vod
    """
    _, rules, db = open_bridge(polls=False)
    operations(db).poll_watch(rules.book, name)
    echo(f"{name} is polled as soon as a worker is free")


@watches.command("pause")
@click.argument("name")
def pause_watch(name: str) -> None:
    """Stop polling a watch until it is resumed; what happens meanwhile is found then.

    \b
    Example:
      ci-bridge watches pause vod
    """
    _, rules, db = open_bridge(polls=False)
    operations(db).pause_watch(rules.book, name)
    echo(f"{name} is paused: it is not polled")


@watches.command("resume")
@click.argument("name")
def resume_watch(name: str) -> None:
    """Poll a paused watch again.

    \b
    Example:
      ci-bridge watches resume vod
    """
    _, rules, db = open_bridge(polls=False)
    operations(db).resume_watch(rules.book, name)
    echo(f"{name} is polled again")


# --- notifiers ------------------------------------------------------------------------------------------------------


@click.group()
def notifier() -> None:
    """One chat, webhook or mailbox."""


@notifier.command()
@click.argument("name")
@click.option("--wait", "wait_s", default=20.0, show_default=True, help="Seconds to wait for the outcome.")
@json_option
def test(name: str, wait_s: float, as_json: bool) -> None:
    """Send a test message through the outbox: a worker signs and sends it like any other, but at once.

    Exits 1 unless the receiver accepted it, and prints the result of the attempt, or why there was none.

    \b
    Example:
      ci-bridge notifier test ops
    """
    _, rules, db = open_bridge(polls=False)
    new = operations(db).test_notifier(rules.book, name)
    if not new.waits:
        click.echo(f"queued: {new.delivery} for {name}; waiting for the outcome ...", err=True)
    delivery = _wait_for(db, new.delivery, 0 if new.waits else wait_s)
    if as_json:
        echo_json(delivery)
    elif delivery["state"] == "sent":
        click.echo(f"{name} accepted the test message {new.delivery}")
    if delivery["state"] != "sent":
        fail(
            f"not accepted: {delivery['why']}" if delivery["attempts"] else new.waits or _why_not_sent(delivery, wait_s)
        )


def _wait_for(db: Database, delivery_id: str, wait_s: float) -> Facts:
    """Return a delivery when an attempt has ended, or time is up."""
    until = time.monotonic() + wait_s
    while True:
        with db.read() as tx:
            delivery = lists.delivery_details(tx, delivery_id)
        assert delivery  # noqa: S101  (it was stored a moment ago)
        has_ended = delivery["tries"] if delivery["state"] == "waiting" else delivery["state"] != "sending"
        if has_ended or time.monotonic() > until:
            return delivery
        time.sleep(0.2)


def _why_not_sent(delivery: Facts, wait_s: float) -> str:
    details = f"`ci-bridge deliveries show {delivery['id']}`"
    if delivery["state"] == "sending":
        return f"no response within {wait_s:g} s; the attempt continues: {details}"
    return (
        f"not sent within {wait_s:g} s; probably {delivery['notifier']} has reached max_in_flight or its rate;"
        f" {details} shows the outcome later"
    )


@notifier.command("list")
@times_options
@json_option
def list_notifiers(as_json: bool) -> None:
    """List the notifiers of rules.toml, and those that only the record knows, with their deliveries.

    \b
    Examples:
      ci-bridge notifier list
      ci-bridge notifier list --json
    """
    book, db = configured_rules().book, open_database()
    with db.read() as tx:
        found = rulebook.Notifier.all(book, gauges.read_notifiers(tx))
    facts = [notifier.model_dump(mode="json") for notifier in found]
    if as_json:
        echo_json(facts)
    else:
        columns = ("name", "type", "state", "target", "waiting", "dead", "held", "paused_at", "paused_why")
        rows = [one | {"state": _state(one, "ok", one["failures"] > 0)} for one in facts]
        echo_table(rows, columns, empty="rules.toml has no notifier")


@notifier.command()
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to others.")
def pause(name: str, reason: str) -> None:
    """Send a notifier nothing until it is resumed: its deliveries wait, also if it has a fallback.

    \b
    Example:
      ci-bridge notifier pause cms --reason "moving to another host"
    """
    _, rules, db = open_bridge(polls=False)
    operations(db).pause_notifier(rules.book, name, reason)
    echo(f"{name} is paused: its deliveries wait")


@notifier.command()
@click.argument("name")
def resume(name: str) -> None:
    """Resume a paused notifier; what waited for it is sent.

    \b
    Example:
      ci-bridge notifier resume ops
    """
    operations(open_database()).resume_notifier(name)
    echo(f"{name} is resumed")
