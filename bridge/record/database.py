"""SQLite and PostgreSQL behind one interface: engines, transactions, and whether the schema is the one we know."""

from __future__ import annotations

import re
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from bridge.record.schema import HEAD
from bridge.record.sqlite_file import SqliteFile, named

# What is raised when the database does not answer, has no room, or has no connection left.
TROUBLES = (DBAPIError, PoolTimeout)

# An attempt ends after 15 s: who waits longer than that for the database finds answers that came in time too late.
_BUSY_MS = 10_000
_JOURNAL = 4 << 20  # bytes, which is what SQLite writes before it begins again from the start
# Two generations of two kinds of dyno fit into the 20 connections of the smallest plan.
_POOL = {"pool_size": 2, "max_overflow": 3, "pool_recycle": 1800}
# A host that does not answer would be waited for for minutes, and one that falls silent for a quarter of an hour.
# A role or a database may have another encoding for its sessions.
_CONNECTION = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 10_000, "client_encoding": "utf8"}
LAST = "last"  # in a transaction's `info`: what is called with it when all else is done
_RESTED_S = 5.0
_IDLE_MS = 20_000
SHARED = "shared"  # in a connection's `info`: a pooler gives each of its transactions to another session
# Classes of SQLSTATE that no session is to blame for: a value, a constraint, a conflict with another transaction.
_FAULTS_OF_STATEMENTS = ("22", "23", "40")
_NOT_PREPARED = ("26000", "42P05")  # a prepared statement is missing, or there already


class SchemaOld(Exception):
    """The database is not as this version needs it: its revision, its encoding; the text says what to do."""


class Database:
    """Transactions on one database. `write` takes SQLite's write lock at once, `read` never takes it."""

    def __init__(self, url: str) -> None:
        """Raises ValueError where the address cannot be one, or its file cannot be kept."""
        path = named(url)
        self._file = None if path is None else SqliteFile(path)
        self.sqlite = self._file is not None
        self.url = _url(url) if path is None else URL.create("sqlite", database=path)
        self._engine = _sqlite(self.url, self._file) if self._file else _postgresql(self.url)
        self._reader = self._engine.execution_options(reading=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._engine.begin() as tx:
            tx.info.pop(LAST, None)  # of one that was rolled back: connections are used again
            yield tx
            if last := tx.info.pop(LAST, None):
                last(tx)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._reader.begin() as tx:
            yield tx

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def shown(self) -> str:
        """The address without its password, and without the query, which may have another."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def is_missing(self) -> bool:
        """True when the SQLite file is not there."""
        return self._file is not None and self._file.is_missing

    @property
    def lost(self) -> str | None:
        """Say that the SQLite file that was opened is no longer there."""
        return self._file.lost if self._file else None

    def revision(self) -> str | None:
        """Return the schema's revision; None when the database is empty."""
        try:
            with self.read() as tx:
                found = tx.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except DBAPIError:
            with self.read() as tx:  # asked afterwards only: it takes longer than the question itself
                if inspect(tx).has_table("alembic_version"):
                    raise
            return None
        return str(found) if found else None

    def require_schema(self) -> None:
        """Raise SchemaOld unless the schema is the newest; SQLite is brought up to date instead."""
        self._require_utf8()
        found = self.revision()
        if found == HEAD:
            return
        if self.sqlite and (found is None or found < HEAD):
            self.upgrade()
            return
        raise SchemaOld(_advice(found))

    def upgrade(self) -> None:
        """Bring the schema to the newest revision. Raises SchemaOld where the database cannot hold every text."""
        from bridge.record.migrations import upgrade

        self._require_utf8()
        upgrade(self._engine)

    def _require_utf8(self) -> None:
        if self.sqlite:
            return
        with self.read() as tx:
            encoding = tx.execute(text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            raise SchemaOld(_encoding_advice(self.url, encoding))

    def close(self) -> None:
        self._engine.dispose()


def _advice(found: str | None) -> str:
    if found is not None and found > HEAD:
        return f"the database is at revision {found}, newer than this version's {HEAD}: deploy the newer version"
    state = "has no tables yet" if found is None else f"is at revision {found}, this version needs {HEAD}"
    return f"the database {state}: run `ci-bridge db upgrade` (the release phase does it on Heroku)"


def _encoding_advice(url: URL, encoding: str) -> str:
    """Say which two commands move the data; they ask for a password where one is needed."""
    options = (("-h", url.host), ("-p", url.port), ("-U", url.username))
    server = "".join(f" {option} {shlex.quote(str(value))}" for option, value in options if value)
    old, new = (shlex.quote(f"{url.database}{end}") for end in ("", "_utf8"))
    return (
        f"the database {url.database} is in {encoding}, and must be in UTF8 to hold every text. Stop the bridge, run "
        f"`createdb{server} -T template0 -E UTF8 --locale=C {new}` and "
        f"`pg_dump{server} -E UTF8 {old} | psql{server} -q -v ON_ERROR_STOP=1 {new}`, "
        f"and let DATABASE_URL name the new one"
    )


def _url(url: str) -> URL:
    """Read the address of a PostgreSQL, whatever driver it names. Raises ValueError saying what would be right."""
    try:
        found = make_url(re.sub(r"(?i)^postgres(ql)?(\+\w*)?://", "postgresql+psycopg://", url))
    except (ArgumentError, ValueError):  # their own texts quote what may be the password
        raise ValueError("DATABASE_URL is not one; write sqlite:///bridge.db or postgresql://...") from None
    if found.drivername != "postgresql+psycopg":
        raise ValueError(f"DATABASE_URL: {found.drivername[:40]} is not supported; use sqlite or postgresql")
    # What is taken for the host or the database would have the end of the password in it.
    if "@" in f"{found.host}/{found.database}":
        raise ValueError("DATABASE_URL has an @ too many; in a user name or password write it as %40")
    return found


def _postgresql(url: URL) -> Engine:
    arguments = {**_CONNECTION, **_prepare_threshold(url)}
    engine = create_engine(url.difference_update_query(["prepare_threshold"]), connect_args=arguments, **_POOL)
    sessions = _Sessions(prepares=arguments.get("prepare_threshold", 0) is not None)
    event.listen(engine, "do_connect", _want_the_primary)
    event.listen(engine, "connect", sessions.opened)
    event.listen(engine, "begin", sessions.begun)
    event.listen(engine, "handle_error", sessions.failed)
    event.listen(engine, "checkin", _rest)
    event.listen(engine, "checkout", _ping)
    return engine


def _prepare_threshold(url: URL) -> dict[str, int | None]:
    """Read the one setting of psycopg that is none of libpq's. Raises ValueError saying what would be right."""
    if "prepare_threshold" not in url.query:
        return {}
    given = url.query["prepare_threshold"]
    if given in ("0", "None", "none"):
        return {"prepare_threshold": None}
    if isinstance(given, str) and re.fullmatch(r"[1-9][0-9]{0,8}", given):
        return {"prepare_threshold": int(given)}
    raise ValueError("DATABASE_URL: prepare_threshold is a number: 0 for a pooler, where no statement may be prepared")


def _want_the_primary(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
    """Of several hosts, take one that can be written to."""
    if "," in str(options.get("host")):
        options.setdefault("target_session_attrs", "read-write")


class _Sessions:
    """How sessions on PostgreSQL begin, and what ends them."""

    def __init__(self, *, prepares: bool) -> None:
        self._prepares = prepares

    def opened(self, connection: Any, record: ConnectionPoolEntry) -> None:
        try:
            self._set_up(connection, record)
        except Exception:
            connection.close()  # the pool does not know it yet
            raise

    def _set_up(self, connection: Any, record: ConnectionPoolEntry) -> None:
        # A pooler that shares sessions cannot name the process that serves one (PgBouncer makes a number up).
        served_by = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        if self._prepares and served_by == connection.info.backend_pid:
            connection.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_MS}")
        else:
            connection.prepare_threshold = None
            record.info[SHARED] = True
        connection.commit()

    def begun(self, connection: Connection) -> None:
        # A process that is stopped in the middle of a transaction would hold its locks for as long, and everybody up.
        if SHARED in connection.info:
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {_IDLE_MS}")

    def failed(self, context: ExceptionContext) -> None:
        """Close the session, and let the pool forget those opened before: it may be read-only, or set up wrongly."""
        sqlstate = getattr(context.original_exception, "sqlstate", None)
        if sqlstate in _NOT_PREPARED:
            self._prepares = False
        if sqlstate and sqlstate[:2] not in _FAULTS_OF_STATEMENTS:
            context.is_disconnect = True


def _rest(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["since"] = time.monotonic()


def _ping(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ask a connection that has rested whether it is alive; one in use says so by itself, without a round trip more."""
    if time.monotonic() - record.info.get("since", time.monotonic()) < _RESTED_S:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except Exception as error:  # whatever it says: the pool makes another one
        raise DisconnectionError from error


def _sqlite(url: URL, file: SqliteFile) -> Engine:
    file.check()
    engine = create_engine(url, connect_args={"timeout": _BUSY_MS / 1000, "check_same_thread": False})

    def connecting(*_: object) -> None:
        required()  # SQLite would make a new file where the old one was
        try:
            file.make()
        except OSError as error:
            raise sqlite3.OperationalError(f"{file.path} cannot be made: {error.strerror}") from error

    def connected(connection: Any, _record: object) -> None:
        _prepare(connection)
        file.opened()

    def required(*_: object) -> None:
        if why := file.lost:
            raise sqlite3.OperationalError(why)

    event.listen(engine, "do_connect", connecting)
    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", required)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any) -> None:
    connection.isolation_level = None  # else the driver begins by itself, and late
    _write_ahead(connection)
    # Unless it is said, the journal stays as large as it once was.
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-4000", f"journal_size_limit={_JOURNAL}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _write_ahead(connection: Any) -> None:
    # SQLite's own waiting does not cover this change, and two processes may begin with a new file at once.
    until = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait for its turn: SQLite refuses it at once.
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def upsert(tx: Connection, table: Table) -> Any:
    """Return the dialect's INSERT, which knows ON CONFLICT."""
    return (postgresql if tx.dialect.name == "postgresql" else sqlite).insert(table)


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def maybe_at(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else at(milliseconds)


def trouble(error: DBAPIError | PoolTimeout) -> str:
    """Say a database failure in one line, with what to do where that is known."""
    if isinstance(error, PoolTimeout):
        return "all connections to the database are in use"
    said = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
    if "disk is full" in said or "No space left" in said:
        return f"{said}: make room; nothing accepted is lost"
    if isinstance(error, OperationalError):
        return f"the database does not answer: {said}"
    return said


Clock = Callable[[], datetime]


class SharedClock:
    """The time that leases are counted in. On PostgreSQL it is the database's, the same for every worker.

    Between two looks at it time goes on by the machine's monotonic clock, so that setting the machine's clock
    changes nothing. On SQLite there is one machine, and its own clock is the one.
    """

    def __init__(self, db: Database, local: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._local = local
        self._monotonic = monotonic
        self._base: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        if self._base is None:
            return self._local()
        at_base, monotonic_then = self._base
        return at_base + timedelta(seconds=self._monotonic() - monotonic_then)

    @property
    def local_ahead(self) -> timedelta:
        """How far the machine's own clock is ahead of it."""
        return timedelta(0) if self._base is None else self._local() - self()

    def correct(self) -> None:
        """Set it by the database's clock."""
        if self._db.sqlite:
            return
        with self._db.read() as tx:
            before = self._monotonic()
            now: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
            after = self._monotonic()
        self._base = (now.astimezone(UTC), (before + after) / 2)
