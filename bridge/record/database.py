"""SQLite and PostgreSQL behind one interface: engines, transactions, and whether the schema is the one we know."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, Select, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from bridge.record.schema import HEAD

# Raised when the database does not answer, has no room, or has no connection left.
TROUBLES = (DBAPIError, PoolTimeout)

# An attempt ends after 15 s: a longer wait for the database would make answers late that came in time.
_BUSY_MS = 10_000
_JOURNAL = 4 << 20  # bytes: what SQLite writes before it starts over
# Two generations of two kinds of dyno fit into the 20 connections of the smallest plan.
_POOL = {"pool_size": 2, "max_overflow": 3, "pool_recycle": 1800}
# The defaults wait for minutes for a host that does not answer, and a quarter of an hour for one that falls silent.
# A role or a database may set another encoding for its sessions.
_CONNECTION = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 10_000, "client_encoding": "utf8"}
LAST = "last"  # in a transaction's `info`: a callback for its end
_RESTED_S = 5.0
_IDLE_MS = 20_000
SHARED = "shared"  # in a connection's `info`: a pooler gives each of its transactions to another session
# SQLSTATE classes that are no fault of the session: a value, a constraint, a conflict with another transaction.
_FAULTS_OF_STATEMENTS = ("22", "23", "40")
_NOT_PREPARED = ("26000", "42P05")  # a prepared statement is missing, or there already


class SchemaOld(Exception):
    """The database does not have the revision or the encoding that this version needs; the text says what to do."""


class Database:
    """Transactions on one database. `write` takes SQLite's write lock at once, `read` never takes it."""

    def __init__(self, url: str) -> None:
        """Raises ValueError if the address is invalid, or its file cannot be kept."""
        path = sqlite_path(url)
        self._file = None if path is None else SqliteFile(path)
        self.sqlite = self._file is not None
        self.url = _url(url) if path is None else URL.create("sqlite", database=path)
        self.engine = _sqlite(self.url, self._file) if self._file else _postgresql(self.url)
        self._reader = self.engine.execution_options(reading=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self.engine.begin() as tx:
            tx.info.pop(LAST, None)  # left by a transaction that was rolled back: connections are reused
            yield tx
            if last := tx.info.pop(LAST, None):
                last(tx)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._reader.begin() as tx:
            yield tx

    @property
    def shown(self) -> str:
        """The address without its password, and without the query, which may contain another."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def is_missing(self) -> bool:
        """True when the SQLite file is not there."""
        return self._file is not None and self._file.is_missing

    @property
    def lost(self) -> str | None:
        """Why the SQLite file that was opened is no longer usable."""
        return self._file.lost if self._file else None

    def revision(self) -> str | None:
        """Return the schema's revision; None if the database is empty."""
        try:
            with self.read() as tx:
                revision: str | None = tx.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except DBAPIError:
            with self.read() as tx:  # only afterwards: this takes longer than the query above
                if inspect(tx).has_table("alembic_version"):
                    raise
            return None
        return revision

    def require_schema(self) -> None:
        """Raise SchemaOld unless the schema is the newest; SQLite is brought up to date instead."""
        self._require_utf8()
        revision = self.revision()
        if revision == HEAD:
            return
        if not self.sqlite or (revision is not None and revision > HEAD):
            raise SchemaOld(_advice(revision))
        self.upgrade()

    def upgrade(self) -> None:
        """Bring the schema to the newest revision. Raises SchemaOld if the database cannot store every text."""
        from bridge.record.migrations import upgrade

        self._require_utf8()
        upgrade(self.engine)

    def _require_utf8(self) -> None:
        if self.sqlite:
            return
        with self.read() as tx:
            encoding = tx.execute(text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            raise SchemaOld(_encoding_advice(self.url, encoding))

    def close(self) -> None:
        self.engine.dispose()


def _advice(revision: str | None) -> str:
    if revision is not None and revision > HEAD:
        return f"the database is at revision {revision}, newer than this version's {HEAD}: deploy the newer version"
    state = "has no tables yet" if revision is None else f"is at revision {revision}, this version needs {HEAD}"
    return f"the database {state}: run `ci-bridge db upgrade` (the release phase does it on Heroku)"


def _encoding_advice(url: URL, encoding: str) -> str:
    """Name the two commands that move the data; they ask for a password if one is needed."""
    options = (("-h", url.host), ("-p", url.port), ("-U", url.username))
    server = "".join(f" {option} {shlex.quote(str(value))}" for option, value in options if value)
    old, new = (shlex.quote(f"{url.database}{end}") for end in ("", "_utf8"))
    return (
        f"the database {url.database} is in {encoding}, and must be in UTF8 to hold every text. Stop the bridge, run "
        f"`createdb{server} -T template0 -E UTF8 --locale=C {new}` and "
        f"`pg_dump{server} -E UTF8 {old} | psql{server} -q -v ON_ERROR_STOP=1 {new}`, "
        f"and let DATABASE_URL name the new one"
    )


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def _url(url: str) -> URL:
    """Parse the address of a PostgreSQL, whatever driver it names. Raises ValueError saying what would be right."""
    try:
        parsed = make_url(re.sub(r"(?i)^postgres(ql)?(\+\w*)?://", "postgresql+psycopg://", url))
    except (ArgumentError, ValueError):  # their own texts quote what may be the password
        raise ValueError("DATABASE_URL is not one; write sqlite:///bridge.db or postgresql://...") from None
    if parsed.drivername != "postgresql+psycopg":
        raise ValueError(f"DATABASE_URL: {parsed.drivername[:40]} is not supported; use sqlite or postgresql")
    # Otherwise the end of the password would be taken for a part of the host or database.
    if "@" in f"{parsed.host}/{parsed.database}":
        raise ValueError("DATABASE_URL has an @ too many; in a user name or password write it as %40")
    return parsed


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
    """Read the one setting that belongs to psycopg, not libpq. Raises ValueError saying what would be right."""
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
        # A pooler that shares sessions cannot name the process that serves one (PgBouncer invents a number).
        served_by = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        if self._prepares and served_by == connection.info.backend_pid:
            connection.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_MS}")
        else:
            connection.prepare_threshold = None
            record.info[SHARED] = True
        connection.commit()

    def begun(self, connection: Connection) -> None:
        # Otherwise a process that is stopped within a transaction holds its locks, and blocks everybody.
        if SHARED in connection.info:
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {_IDLE_MS}")

    def failed(self, context: ExceptionContext) -> None:
        """Close the session, and make the pool drop older ones: they may be read-only, or set up wrongly."""
        sqlstate = getattr(context.original_exception, "sqlstate", None)
        if sqlstate in _NOT_PREPARED:
            self._prepares = False
        if sqlstate and sqlstate[:2] not in _FAULTS_OF_STATEMENTS:
            context.is_disconnect = True


def _rest(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["since"] = time.monotonic()


def _ping(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Check that a connection that was idle is alive; one in use needs no round trip for that."""
    if time.monotonic() - record.info.get("since", time.monotonic()) < _RESTED_S:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except Exception as error:  # of any kind: the pool makes another one
        raise DisconnectionError from error


# --- SQLite ----------------------------------------------------------------------------------------------------------

_ADDRESS = re.compile(r"sqlite3?(?:\+(?:pysqlite|aiosqlite)?)?:(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_RIGHT = "write sqlite:///bridge.db, or sqlite:////data/bridge.db for a path from the root"
_LOST = "the database's file was deleted or replaced while the bridge runs: stop it, put the file back, start it"
_PRIVATE, _USUAL = 0o600, 0o644


def sqlite_path(url: str) -> str | None:
    """Return the path that an address of SQLite names; None: it is of another database. Raises ValueError."""
    match = _ADDRESS.fullmatch(url)
    if match is None:
        return None
    path, question, _ = match["rest"].partition("?")
    if question:
        raise ValueError(f"DATABASE_URL: SQLite takes no options here; {_RIGHT}")
    if not path.startswith("///") or path == "///":
        raise ValueError(f"DATABASE_URL names no file; {_RIGHT}")
    if path == "///:memory:":
        raise ValueError(f"DATABASE_URL: what is in memory is lost, and each connection has its own; {_RIGHT}")
    return path[3:]


class SqliteFile:
    """The file of a database, which may not exist yet."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._known: tuple[int, int] | None = None
        self._making = Lock()

    @property
    def is_missing(self) -> bool:
        return not self.path.exists()

    @property
    def lost(self) -> str | None:
        """An error text if the opened file was deleted or replaced."""
        return _LOST if self._known not in (None, self._identity()) else None

    def check(self) -> None:
        """Raise ValueError if SQLite cannot keep the file, saying what would be right."""
        try:
            mode = self._mode()
        except OSError as error:
            raise ValueError(f"DATABASE_URL: {self.path} cannot be looked at: {error.strerror}") from error
        if mode is not None and stat.S_ISDIR(mode):
            raise ValueError(f"DATABASE_URL: {self.path} is a folder; name a file in it")
        if mode is not None and not stat.S_ISREG(mode):
            raise ValueError(f"DATABASE_URL: {self.path} is not a regular file; name one")
        if not self.path.parent.is_dir():
            raise ValueError(f"DATABASE_URL: there is no folder {self.path.parent}; make it, or name one that is there")
        if mode is not None and not _allowed(self.path, os.R_OK | os.W_OK):
            raise ValueError(f"DATABASE_URL: this user may not read and write {self.path}")
        # The journal is created beside it.
        if not _allowed(self.path.parent, os.W_OK | os.X_OK) and not (mode and self._beside("-wal").exists()):
            raise ValueError(f"DATABASE_URL: this user may not make files in the folder {self.path.parent}")

    def make(self) -> None:
        """Create the file if there is none, readable by its owner alone. SQLite gives its journal the same mode."""
        # One at a time: closing a file of SQLite releases the locks that this process has on it.
        with self._making, suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _PRIVATE))

    def opened(self) -> None:
        """Note which file was opened. One that an older version made readable for everybody is closed to others."""
        self._known = self._known or self._identity()
        for path in (self.path, self._beside("-wal"), self._beside("-shm")):
            with suppress(OSError):  # not there, or another's
                if stat.S_IMODE(path.stat().st_mode) == _USUAL:
                    path.chmod(_PRIVATE)

    def _mode(self) -> int | None:
        with suppress(FileNotFoundError):
            return self.path.stat().st_mode
        return None

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _beside(self, end: str) -> Path:
        return self.path.with_name(self.path.name + end)


def _allowed(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _sqlite(url: URL, file: SqliteFile) -> Engine:
    file.check()
    engine = create_engine(url, connect_args={"timeout": _BUSY_MS / 1000, "check_same_thread": False})

    def connecting(*_: object) -> None:
        required()  # SQLite would create a new file where the old one was
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
    connection.isolation_level = None  # otherwise the driver begins transactions by itself, and late
    _write_ahead(connection)
    # Without a limit, the journal never shrinks.
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-4000", f"journal_size_limit={_JOURNAL}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _write_ahead(connection: Any) -> None:
    # SQLite's busy timeout does not cover this change, and two processes may open a new file at once.
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


# --- statements, times and errors ------------------------------------------------------------------------------------


def upsert(tx: Connection, table: Table) -> Any:
    """Return the dialect's INSERT, which has ON CONFLICT."""
    return (postgresql if tx.dialect.name == "postgresql" else sqlite).insert(table)


def skip_locked(tx: Connection, rows: Select[Any]) -> Select[Any]:
    """Lock the rows that no other transaction has locked, and leave out the others. SQLite lets one write at a time."""
    return rows.with_for_update(skip_locked=True) if tx.dialect.name == "postgresql" else rows


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def maybe_at(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else at(milliseconds)


def trouble(error: DBAPIError | PoolTimeout) -> str:
    """Describe a database error in one line, with what to do where that is known."""
    if isinstance(error, PoolTimeout):
        return "all connections to the database are in use"
    reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
    if "disk is full" in reason or "No space left" in reason:
        return f"{reason}: make room; nothing accepted is lost"
    if isinstance(error, OperationalError):
        return f"the database does not answer: {reason}"
    return reason


Clock = Callable[[], datetime]


class SharedClock:
    """The clock of leases. On PostgreSQL it is the database's, the same for every worker.

    Between two queries it advances with the machine's monotonic clock, so setting the machine's clock changes
    nothing. On SQLite there is one machine, and its own clock is used.
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
        """How far the machine's own clock is ahead of this one."""
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
