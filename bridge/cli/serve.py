"""The commands that do the work: run, worker, poll, db."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack

import click

from bridge.cli.common import database_of, everything, fail, json_option, plainly, say, say_json, settings, some
from bridge.environment import lookup
from bridge.pipeline.poll import Poll
from bridge.wiring.web import served, warn_of_open_door, web_app
from bridge.wiring.worker import Worker, poll_all, take_over

logger = logging.getLogger(__name__)

_LIMIT_S = 19  # a second less than what is promised: whatever hangs, the process ends


@click.command()
@plainly
def worker() -> None:
    """Poll and deliver until SIGTERM or SIGINT; then finish within 20 s and exit 0.

    rules.toml is read again when it changes, and at once on SIGHUP.
    """
    found, rules, db = everything(polls=True)
    working = Worker(found, rules, db)
    _heed_signals(working)
    working.run()


@click.command()
@plainly
def run() -> None:
    """Web and worker in one process: enough for a small team, on SQLite or PostgreSQL.

    Listens on 0.0.0.0:$PORT when PORT is set, else on 127.0.0.1:8000. rules.toml is read again when it changes, and at
    once on SIGHUP.
    """
    found, rules, db = everything(polls=True)
    working = Worker(found, rules, db)
    _heed_signals(working)
    routed = lookup(os.environ, "PORT") is not None  # a platform that sets it routes to it
    host = "0.0.0.0" if routed else "127.0.0.1"  # noqa: S104  (the same)
    warn_of_open_door(found, [host], routed=routed)
    with ExitStack() as stack:
        try:
            stack.enter_context(served(web_app(found, rules, db), host=host, port=found.port))
        except OSError as error:
            fail(f"ci-bridge: cannot listen on {host}:{found.port}: {error.strerror}; set PORT to a free one")
        click.echo(f"listening on http://{host}:{found.port}", err=True)
        working.run()


def _heed_signals(working: Worker) -> None:
    """Stop on SIGTERM and SIGINT, and end the process at the limit whatever it hangs in; read the rules on SIGHUP."""
    # A handler in Python has to wait for the main thread, which may be inside of SQLite or libpq for half a
    # minute. The byte written here is the signal's number, and another thread reads it.
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_heed, args=(working, heard), name="signals", daemon=True).start()


def _heed(working: Worker, heard: int) -> None:
    while os.read(heard, 1)[0] == signal.SIGHUP:
        working.reload()
    working.stop()
    time.sleep(_LIMIT_S)
    logger.warning("stopped at the limit, what was under way is freed by its lease")
    os._exit(0)


@click.command()
@click.option("--watch", "names", multiple=True, help="Only the watch of this name; may be given again.")
@json_option
@plainly
def poll(names: tuple[str, ...], as_json: bool) -> None:
    """Poll every watch once, now. Exits 1 when one of them fails.

    What was found is recorded, and sent by the worker that runs, now or later. While workers run, the rules here must
    be those in force.
    """
    found, rules, db = everything(polls=True)
    known = [watch.name for watch in rules.book.watches]
    for name in names:
        if name not in known:
            fail(f'no watch is called "{name}"; there are {", ".join(known) or "none"}')
    wanted = [name for name in known if not names or name in names]
    if why := take_over(db, rules.book):
        fail(
            f"not polled: {why}. Poll where the rules in force are (BRIDGE_RULES), or put those here in force:"
            " `ci-bridge rules reload` where the workers run, or a restart"
        )
    polls = list(zip(wanted, poll_all(found, rules, db, list(names)), strict=True))
    if as_json:
        say_json([_facts(name, poll) for name, poll in polls])
    else:
        for name, poll in polls:
            say(_line(name, poll), err=poll is None or poll.error is not None)
    sys.exit(any(poll is None or poll.error for _, poll in polls))


def _facts(name: str, poll: Poll | None) -> dict[str, object]:
    if poll is None:
        return {"watch": name, "error": "another worker is polling this bucket, or other rules came into force"}
    error = str(poll.error) if poll.error else None
    return {
        "watch": name,
        "calls": poll.calls,
        "jobs": poll.jobs,
        "transitions": poll.transitions,
        "deliveries": poll.deliveries,
        "error": error,
    }


def _line(name: str, poll: Poll | None) -> str:
    if poll is None or poll.error:
        return f"{name}: {_facts(name, poll)['error']}"
    counts = (some(poll.calls, "call"), some(poll.jobs, "job"), some(poll.transitions, "transition"))
    return f"{name}: {', '.join(counts)}, {some(poll.deliveries, 'delivery', 'deliveries')}"


@click.group()
def db() -> None:
    """The database."""


@db.command()
@plainly
def upgrade() -> None:
    """Bring the schema up to date. On PostgreSQL nothing else does it; two at once wait for each other."""
    database = database_of(settings())
    before = database.revision()
    database.upgrade()
    after = database.revision()
    said = f"is at revision {after} already" if before == after else f"revision {before or 'none'} -> {after}"
    click.echo(f"{database.shown}: {said}")
