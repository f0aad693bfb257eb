"""The commands that do the work: run, worker, poll, db upgrade."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack

import click

from bridge.cli.common import Facts, connect, count_of, deliveries_of, echo, echo_json, fail, json_option, open_bridge
from bridge.environment import lookup
from bridge.pipeline.poll import PollResult
from bridge.wiring.parts import share_public_url
from bridge.wiring.web import served, warn_of_open_door, web_app
from bridge.wiring.worker import Worker, poll_all

logger = logging.getLogger(__name__)

_STOP_LIMIT_S = 19  # a second less than promised: the process ends even if something hangs


@click.command()
def worker() -> None:
    """Poll and deliver until SIGTERM or SIGINT; then finish within 20 s and exit 0.

    rules.toml is read again when it changes, and at once on SIGHUP.

    \b
    Example:
      DATABASE_URL=postgres://... ci-bridge worker
    """
    settings, rules, db = open_bridge(polls=True)
    share_public_url(db, settings.public_url)  # a platform may say the same of a worker, where no page is
    working = Worker(settings, rules, db)
    _handle_signals(working)
    working.run()


@click.command()
def run() -> None:
    """Run web and worker in one process: enough for a small team, on SQLite or PostgreSQL.

    Listens on 0.0.0.0:$PORT if PORT is set, else on 127.0.0.1:8000. rules.toml is read again when it changes, and at
    once on SIGHUP.

    \b
    Example:
      PORT=8080 ci-bridge run
    """
    settings, rules, db = open_bridge(polls=True)
    share_public_url(db, settings.web_url)
    working = Worker(settings, rules, db)
    _handle_signals(working)
    routed = lookup(os.environ, "PORT") is not None  # a platform that sets it routes to it
    host = "0.0.0.0" if routed else "127.0.0.1"  # noqa: S104  (the same)
    warn_of_open_door(settings, [host], routed=routed)
    with ExitStack() as stack:
        try:
            stack.enter_context(served(web_app(settings, rules, db), host=host, port=settings.port))
        except OSError as error:
            fail(f"ci-bridge: cannot listen on {host}:{settings.port}: {error.strerror}; set PORT to a free port")
        click.echo(f"listening on http://{host}:{settings.port}", err=True)
        working.run()


def _handle_signals(working: Worker) -> None:
    """Stop on SIGTERM and SIGINT, and exit at the limit even if something hangs; reload the rules on SIGHUP."""
    # A handler in Python has to wait for the main thread, which may be inside SQLite or libpq for half a minute.
    # Python writes the signal's number to the pipe at once, and another thread reads it.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)

    def handle() -> None:
        while os.read(reader, 1)[0] == signal.SIGHUP:
            working.reload()
        working.stop()
        time.sleep(_STOP_LIMIT_S)
        logger.warning("stopped at the time limit; claims expire and are retried")
        os._exit(0)

    threading.Thread(target=handle, name="signals", daemon=True).start()


@click.command()
@click.option("--watch", "names", multiple=True, help="Only the watch with this name; may be repeated.")
@json_option
def poll(names: tuple[str, ...], as_json: bool) -> None:
    """Poll all watches, or those named, once, now. Exits 1 if one of the polls fails.

    Deliveries are recorded; a worker sends them. While workers are running, rules.toml here must be the rules in force.

    \b
    Examples:
      ci-bridge poll
      ci-bridge poll --watch vod --json
    """
    settings, rules, db = open_bridge(polls=True)
    known = [watch.name for watch in rules.book.watches]
    for name in names:
        if name not in known:
            fail(f'there is no watch "{name}"; there are {", ".join(known) or "none"}')
    polls = [_poll_facts(name, poll) for name, poll in poll_all(settings, rules, db, names)]
    if as_json:
        echo_json(polls)
    else:
        for facts in polls:
            echo(_line(facts), err=facts["error"] is not None)
    sys.exit(any(facts["error"] for facts in polls))


def _poll_facts(name: str, poll: PollResult | None) -> Facts:
    if poll is None:
        return {"watch": name, "error": "another worker is polling this bucket, or other rules came into force"}
    return {
        "watch": name,
        "calls": poll.calls,
        "jobs": poll.jobs,
        "transitions": poll.transitions,
        "deliveries": poll.deliveries,
        "error": str(poll.error) if poll.error else None,
    }


def _line(facts: Facts) -> str:
    if facts["error"]:
        return f"{facts['watch']}: {facts['error']}"
    counts = ", ".join(count_of(facts[f"{noun}s"], noun) for noun in ("call", "job", "transition"))
    return f"{facts['watch']}: {counts}, {deliveries_of(facts['deliveries'])}"


@click.group()
def db() -> None:
    """The database."""


@db.command()
def upgrade() -> None:
    """Bring the schema up to date. PostgreSQL needs it for each release; concurrent upgrades wait for each other.

    \b
    Example:
      DATABASE_URL=postgres://... ci-bridge db upgrade
    """
    database = connect()
    before = database.revision()
    database.upgrade()
    after = database.revision()
    result = f"is already at revision {after}" if before == after else f"revision {before or 'none'} -> {after}"
    click.echo(f"{database.shown}: {result}")
