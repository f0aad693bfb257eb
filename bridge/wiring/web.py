"""The web: the WSGI application, and a server for `run`."""

from __future__ import annotations

import logging
import secrets as randomness
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


from bridge.wiring.parts import may_be_empty, utc_now
from bridge.wiring.rules import Rules

logger = logging.getLogger(__name__)

_CORRECTED_EVERY_S = 15.0


def web_app(settings: Settings, rules: Rules, db: Database, *, alone: bool = False) -> Flask:
    """Return the WSGI application. Making it starts nothing.

    `alone`: no worker of this process looks after the rules, so requests do.
    """
    from bridge.admin import Reloading, create_app  # a worker alone needs no Flask

    def token(found: SecretStr | None) -> str | None:
        return found.get_secret_value() if found else None

    current = Reloading(lambda: rules.book, _looking(rules, db)) if alone else None
    clock = SharedClock(db, utc_now)  # what is asked for here is due by the clock that workers go by
    app = create_app(
        db=db,
        book=current.book if current else lambda: rules.book,
        rules_fault=lambda: rules.fault,
        rules_note=lambda: rules.note,
        admin_token=token(settings.admin_token),
        read_token=token(settings.read_token),
        clock=clock,
        version=__version__,
        nonce=lambda: randomness.token_hex(8),
        environ=rules.environ,
    )
    keep_time(app, clock)
    return app


def _looking(rules: Rules, db: Database) -> Callable[[float], None]:
    """Return how a web process looks at rules.toml. It puts no rules in force: that is for those who judge by them."""

    def look(now_s: float) -> None:
        try:
            with db.read() as tx:
                reloads = rulesets.reloads(tx)
            rules.look(now_s, reloads=reloads)
        except TROUBLES as error:
            logger.warning("rules.toml is not looked at without the database", extra={"reason": trouble(error)})

    rules.may_be_empty = partial(may_be_empty, db)
    return look


def keep_time(app: Flask, clock: SharedClock) -> None:
    """Set the clock by the database's now and then, with a request that has been let in."""
    from flask import request

    next_at = 0.0

    @app.before_request
    def correct() -> None:
        nonlocal next_at
        if request.endpoint != "healthz" and time.monotonic() >= next_at:  # that one asks this process alone
            next_at = time.monotonic() + _CORRECTED_EVERY_S
            try:
                clock.correct()
            except TROUBLES as error:
                logger.warning("the clock could not be compared", extra={"reason": trouble(error)})


def warn_of_open_door(settings: Settings, hosts: Iterable[str], *, routed: bool) -> None:
    """Say at start that a proxy may come before an API without a token: it would make strangers look local."""
    if settings.admin_token is None and (routed or not all(map(_is_loopback, hosts))):
        logger.warning(
            "no BRIDGE_ADMIN_TOKEN is set, so the API answers this machine only: set one where a proxy or router is in "
            "front, as what a proxy on this machine forwards may look local"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def served(app: Flask, *, host: str, port: int) -> Iterator[int]:
    """Serve the application from a thread meanwhile; yield the port (0 asks for a free one)."""
    from waitress.channel import HTTPChannel  # only `run` needs it
    from waitress.parser import HTTPRequestParser, ParsingError
    from waitress.server import create_server

    class Parser(HTTPRequestParser):  # type: ignore[misc]  # it ships no types
        def parse_header(self, header_plus: bytes) -> None:
            try:
                super().parse_header(header_plus)
            except ValueError as error:  # of a target like http://[::1/, which would else go unanswered
                raise ParsingError("Bad URI") from error

    class Channel(HTTPChannel):  # type: ignore[misc]  # the same
        parser_class = Parser

    server = create_server(
        app,
        host=host,
        port=port,
        threads=4,
        ident="ci-bridge",
        max_request_body_size=8 << 20,  # the application takes less everywhere, and says how much
        max_request_header_size=16 * 1024,  # of all headers; gunicorn takes 8 kB of each
        # A request that was forwarded is not a local one: who may enter depends on these headers.
        clear_untrusted_proxy_headers=False,
    )
    server.channel_class = Channel
    stopping = threading.Event()

    def serve() -> None:
        # What server.run() does, save that it can be ended from outside.
        while not stopping.is_set():
            server.asyncore.loop(timeout=30, map=server._map, count=1)
        server.task_dispatcher.shutdown()
        server.asyncore.close_all(server._map)  # the connections too, which server.close() leaves open

    thread = threading.Thread(target=serve, name="web")
    thread.start()
    try:
        yield server.effective_port
    finally:
        stopping.set()
        server.pull_trigger()
        thread.join()
