"""Alembic, run from inside: `upgrade(engine)`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import PendingRollbackError

_ONE_AT_A_TIME = 0x63692D62  # two releases may run at once; any fixed number does
_LOOK_S = 0.2


def config() -> Config:
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent))
    return found


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the schema up to `revision`; a second upgrade at the same time waits.

    All or nothing, but for what PostgreSQL builds outside of a transaction (revision 0005): what fails there is
    completed by the next upgrade.
    """
    with _alone(engine) as connection:
        settings = config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """Yield a connection while no other upgrade has one; on SQLite in a transaction, which says just that."""
    if engine.dialect.name == "sqlite":
        with engine.begin() as tx:
            yield tx
        return
    with engine.connect() as connection:
        try:
            _take_turn(connection)
            yield connection
        except PendingRollbackError as error:
            # Alembic tidies up on a connection that broke, and fails at that: say how it broke instead.
            raise error.__context__ or error from None
        finally:
            connection.invalidate()  # the session ends, and so does its lock, however this went


def _take_turn(connection: Connection) -> None:
    """Wait for the lock outside of a transaction: an index that is being built waits for every transaction."""
    while True:
        with connection.begin():
            # A bound that is right for questions would end every build of an index at the same place.
            connection.execute(text("SET statement_timeout = 0"))
            if connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ONE_AT_A_TIME}).scalar():
                return
        time.sleep(_LOOK_S)
