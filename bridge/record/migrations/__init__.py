"""Alembic, run from inside: `upgrade(engine)`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from psycopg.errors import DeadlockDetected
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, PendingRollbackError

from bridge.record.database import SHARED

_ONE_AT_A_TIME = 0x63692D62  # two releases may run at once; any fixed number does
_LOOK_S = 0.2
_ATTEMPTS = 20
_TRY = text("SELECT pg_try_advisory_xact_lock(:key)")  # to wait for it would be to hold a snapshot


logger = logging.getLogger(__name__)


def config() -> Config:
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent))
    return found


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the schema up to `revision`; a second upgrade at the same time waits.

    All or nothing, but for what PostgreSQL builds outside of a transaction (revision 0005): what fails there is
    completed by the next upgrade.
    """
    attempts, done = _ATTEMPTS, False
    while not done:
        try:
            with _alone(engine) as connection:
                settings = config()
                settings.attributes["connection"] = connection
                command.upgrade(settings, revision)
        except OperationalError as error:
            attempts -= 1
            # A worker that still runs locks tables in its own order. PostgreSQL rolled the upgrade back for it.
            if not isinstance(error.orig, DeadlockDetected) or not attempts:
                raise
            logger.warning("the upgrade deadlocked with a worker and begins anew", extra={"attempts_left": attempts})
        else:
            done = True


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """Yield a connection while no other upgrade has one; on SQLite in a transaction, which says just that."""
    if engine.dialect.name == "sqlite":
        with engine.begin() as tx:
            yield tx
        return
    with _turn(engine), engine.connect() as connection:
        try:
            if SHARED not in connection.info:  # else it would be set for whoever gets that session next
                with connection.begin():
                    # A bound that is right for questions would end every build of an index at the same place.
                    connection.execute(text("SET statement_timeout = 0"))
            yield connection
        except PendingRollbackError as error:
            # Alembic tidies up on a connection that broke, and fails at that: say how it broke instead.
            raise error.__context__ or error from None
        finally:
            connection.invalidate()  # what was set for it ends with it


@contextmanager
def _turn(engine: Engine) -> Iterator[None]:
    """Wait for the lock, and hold it in a transaction: behind a pooler a session's lock would outlive the upgrade."""
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        while not connection.execute(_TRY, {"key": _ONE_AT_A_TIME}).scalar():
            connection.rollback()
            time.sleep(_LOOK_S)
        # An index that is being built waits for every snapshot, and this ends that of the statement before.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield
