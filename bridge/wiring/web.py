"""The web application, and the server of `run`."""

from __future__ import annotations

import logging
import secrets as randomness
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

from pydantic import SecretStr

from bridge import __version__
from bridge.record import rulesets
from bridge.record.database import TROUBLES, Database, SharedClock, trouble
from bridge.settings import Settings

if TYPE_CHECKING:
    from flask import Flask


from bridge.send.integration import Egress
from bridge.wiring.parts import http_client, may_be_empty, utc_now
from bridge.wiring.rules import Rules

logger = logging.getLogger(__name__)

_CORRECTED_EVERY_S = 15.0


def web_app(settings: Settings, rules: Rules, db: Database, *, alone: bool = False) -> Flask:
    """Return the WSGI application. This starts nothing.

    `alone`: there is no worker in this process to reload the rules, so requests do.
    """
    from bridge.admin import Reloading, create_app  # a worker alone needs no Flask

    def token(found: SecretStr | None) -> str | None:
        return found.get_secret_value() if found else None

    current = Reloading(lambda: rules.book, _looking(rules, db)) if alone else None
    clock = SharedClock(db, utc_now)  # what is due is set by the clock that workers use
    app = create_app(
        db=db,
        book=current.book if current else lambda: rules.book,
        rules_fault=lambda: rules.fault,
        rules_note=lambda: rules.note,
        admin_token=token(settings.admin_token),
        read_token=token(settings.read_token),
        tokens=settings.named_tokens,
        clock=clock,
        version=__version__,
        nonce=lambda: randomness.token_hex(8),
        environ=rules.environ,
        callback_tokens=settings.callback_tokens,
        egress=partial(_egress, settings),
    )
    keep_time(app, clock)
    return app


@contextmanager
def _egress(settings: Settings) -> Iterator[Egress]:
    """Open what a click in Slack is answered with: clicks are rare, so it is not kept."""
    with closing(http_client(settings)) as client:
        yield Egress(client, settings.slack_api_url)


def _looking(rules: Rules, db: Database) -> Callable[[float], None]:
    """Return how a web process reloads rules.toml. Only workers put rules in force."""

    def look(now_s: float) -> None:
        try:
            with db.read() as tx:
                reloads = rulesets.reloads(tx)
            rules.check_file(now_s, reloads=reloads)
        except TROUBLES as error:
            logger.warning("rules.toml is not reloaded without the database", extra={"reason": trouble(error)})

    rules.may_be_empty = partial(may_be_empty, db)
    return look


def keep_time(app: Flask, clock: SharedClock) -> None:
    """Set the clock by the database's from time to time, with a request."""
    from flask import request

    next_at = 0.0

    @app.before_request
    def correct() -> None:
        nonlocal next_at
        if request.endpoint != "healthz" and time.monotonic() >= next_at:  # which must not need the database
            next_at = time.monotonic() + _CORRECTED_EVERY_S
            try:
                clock.correct()
            except TROUBLES as error:
                logger.warning("the clock could not be compared with the database's", extra={"reason": trouble(error)})


def warn_of_open_door(settings: Settings, hosts: Iterable[str], *, routed: bool) -> None:
    """Warn at start if a proxy may be in front of an API without a token: strangers would look local."""
    if not settings.has_admin_token and (routed or not all(map(_is_loopback, hosts))):
        logger.warning(
            "no BRIDGE_ADMIN_TOKEN is set, so the API answers this machine only; set one if a proxy or router is in "
            "front, as requests that a proxy on this machine forwards may look local"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def served(app: Flask, *, host: str, port: int) -> Iterator[int]:
    """Serve the application from a thread until the block ends; yield the port (0 asks for a free one)."""
    from bridge.wiring.server import Server  # a worker alone needs none

    with socket.create_server((host, port)) as listener:
        server = Server(app, [listener])
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                server.turn(30)
            server.close()

        thread = threading.Thread(target=serve, name="web")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
            server.wake()
            thread.join()
