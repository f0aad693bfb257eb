"""The web: the WSGI application, and a server for `run`."""

from __future__ import annotations

import secrets as randomness
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import SecretStr

from bridge import __version__
from bridge.record.database import Database
from bridge.settings import Settings

if TYPE_CHECKING:
    from flask import Flask


from bridge.wiring.parts import utc_now
from bridge.wiring.rules import Rules


def web_app(settings: Settings, rules: Rules, db: Database) -> Flask:
    """Return the WSGI application. Making it starts nothing."""
    from bridge.admin.api import create_app  # a worker alone needs no Flask

    def token(found: SecretStr | None) -> str | None:
        return found.get_secret_value() if found else None

    return create_app(
        db=db,
        book=lambda: rules.book,
        admin_token=token(settings.admin_token),
        read_token=token(settings.read_token),
        clock=utc_now,
        version=__version__,
        nonce=lambda: randomness.token_hex(8),
    )


@contextmanager
def served(app: Flask, *, host: str, port: int) -> Iterator[int]:
    """Serve the application from a thread meanwhile; yield the port (0 asks for a free one)."""
    from waitress.server import create_server  # only `run` needs it

    server = create_server(
        app, host=host, port=port, threads=4, ident="ci-bridge", max_request_body_size=1 << 20, asyncore_loop_timeout=30
    )
    thread = threading.Thread(target=server.run, name="web", daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        server.close()
        server.task_dispatcher.shutdown()
