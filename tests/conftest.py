"""Databases for every test that asks for one: SQLite and PostgreSQL, each with the schema and nothing in it.

TEST_POSTGRES_URL names a PostgreSQL where databases may be made. Where none answers its tests are skipped, and
the last lines of the run say so; under CI they fail.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from bridge.record.database import Database
from bridge.record.schema import HEAD, metadata

settings.register_profile("untimed", deadline=None)  # how long something takes is for the benchmarks
settings.load_profile("untimed")

SERVER = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
MISSING = "PostgreSQL does not answer"

# Nobody needs what a test has written after a power cut.
_IN_A_HURRY = "options=-csynchronous_commit%3Doff"


_WORKERS = 4  # as in pyproject.toml
_SLOW = ("tests/crash/", "tests/world/", "tests/test_story.py", "tests/test_bad_days.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every worker begin with some of what takes long: at the end the others would wait for it."""
    slow = [item for item in items if item.nodeid.startswith(_SLOW)]
    rest = [item for item in items if not item.nodeid.startswith(_SLOW)]
    share = -(-len(rest) // _WORKERS)
    items[:] = [
        item
        for worker in range(_WORKERS)
        for item in (*slow[worker::_WORKERS], *rest[worker * share : (worker + 1) * share])
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if MISSING in str(report.longrepr)]
    if skipped:
        said = f"WARNING: {MISSING}: {len(skipped)} tests were skipped; set TEST_POSTGRES_URL to run them"
        terminalreporter.write_line(said, yellow=True, bold=True)


class PostgresServer:
    """Makes and drops databases."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._admin = psycopg.connect(url, autocommit=True, connect_timeout=5)

    @contextmanager
    def new(self) -> Iterator[str]:
        """Yield the name of an empty database, and drop it in the end."""
        name = f"ci_bridge_test_{secrets.token_hex(6)}"
        self.do(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.do(f"DROP DATABASE {name} WITH (FORCE)")

    def do(self, statement: str) -> None:
        self._admin.execute(statement.encode())

    def url_of(self, name: str) -> str:
        parts = psycopg.conninfo.conninfo_to_dict(self._url)
        password = f":{parts['password']}" if "password" in parts else ""
        return f"postgresql://{parts['user']}{password}@{parts['host']}:{parts.get('port', 5432)}/{name}?{_IN_A_HURRY}"

    def close(self) -> None:
        self._admin.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    try:
        server = PostgresServer(SERVER)
    except psycopg.OperationalError as error:
        said = str(error).strip().splitlines()[0]
        reason = f"{MISSING} ({said}); set TEST_POSTGRES_URL"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    yield server
    server.close()


def _upgraded(url: str) -> None:
    db = Database(url)
    db.upgrade()
    db.close()


@pytest.fixture(scope="session")
def postgres_database(postgres: PostgresServer) -> Iterator[str]:
    """One database for all tests of a run: making one for each takes longer than most tests do."""
    with postgres.new() as name:
        _upgraded(postgres.url_of(name))
        yield name


def _emptied(url: str) -> None:
    """Take out what the last test has left, its connections too: it may have killed a process."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        for table in reversed(metadata.sorted_tables):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table.name)))
        connection.execute("UPDATE alembic_version SET version_num = %s", [HEAD])


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "bridge.db"
    _upgraded(f"sqlite:///{path}")  # closing it folds the write-ahead log into the file
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Which database; `only_sqlite` and `only_postgresql` choose."""
    return str(request.param)


only_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)


@pytest.fixture
def empty_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new database without any table."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.new() as name:
        yield server.url_of(name)


@pytest.fixture
def db_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database with the newest schema and nothing in it."""
    if dialect == "sqlite":
        path = tmp_path / "bridge.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.url_of(request.getfixturevalue("postgres_database"))
    _emptied(url)
    yield url


Opener = Callable[[str], Database]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens databases by address, and closes them in the end."""
    found: list[Database] = []

    def open_(url: str) -> Database:
        found.append(Database(url))
        return found[-1]

    yield open_
    for db in found:
        db.close()


@pytest.fixture
def db(db_url: str, opened: Opener) -> Database:
    """A database with the newest schema and nothing in it."""
    return opened(db_url)
