"""Databases for every test that asks for one: SQLite and PostgreSQL, each with the schema and nothing in it.

TEST_POSTGRES_URL names a PostgreSQL where databases may be made. Where none answers its tests are skipped, and
the last lines of the run say so; under CI they fail.
The same goes for tests/browser/, Playwright and Debian's chromium (CHROMIUM names another), and for Debian's pgbouncer.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from sqlite3 import Connection

import psycopg
import pytest
from hypothesis import settings
from sqlalchemy import event

from bridge.record.database import Database
from bridge.record.schema import HEAD, metadata

settings.register_profile("untimed", deadline=None)  # how long something takes is for the benchmarks
settings.load_profile("untimed")

# Tests may run on such a platform, and their databases are not to outlive them; and certificates that settings name
# are read with them, each time.
for _name in (
    "KUBERNETES_SERVICE_HOST",
    "K_SERVICE",
    "CLOUD_RUN_JOB",
    "FLY_APP_NAME",
    "FLY_MACHINE_ID",
    "KOYEB_APP_NAME",
    "SSL_CERT_FILE",
):
    os.environ.pop(_name, None)

SERVER = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
MISSING = "PostgreSQL does not answer"
NO_CHROMIUM = "there is no browser"
NO_PGBOUNCER = "there is no pgbouncer"

# Nobody needs what a test has written after a power cut.
_IN_A_HURRY = "options=-csynchronous_commit%3Doff"


_WORKERS = 5  # as in pyproject.toml
_TOGETHER = "tests/browser/"  # these share a browser and the bridges that it looks at
_SLOW = ("tests/crash/", "tests/world/", "tests/test_story.py", "tests/test_bad_days.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--one-database",
        choices=["sqlite", "postgresql"],
        help="Of tests that run on both databases, run those on this one alone.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if chosen := config.getoption("one_database"):
        config.pluginmanager.register(_OneDatabase(chosen))


class _OneDatabase:
    def __init__(self, chosen: str) -> None:
        self._chosen = chosen

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what runs on the other database, unless it runs on that one alone."""
        both = {_without_dialect(item) for item in items if _dialect(item) == self._chosen}
        left_out = [
            item for item in items if _dialect(item) not in (None, self._chosen) and _without_dialect(item) in both
        ]
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def _dialect(item: pytest.Item) -> str | None:
    found: str | None = item.callspec.params.get("dialect") if hasattr(item, "callspec") else None
    return found


def _without_dialect(item: pytest.Item) -> tuple[str, tuple[str, ...]]:
    name, _, rest = item.nodeid.partition("[")
    return name, tuple(part for part in rest.rstrip("]").split("-") if part not in ("sqlite", "postgresql"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every worker begin with some of what takes long: at the end the others would wait for it.

    Each is dealt an equal run of the items, and what is stolen from it comes from its end.
    """
    together = [item for item in items if item.nodeid.startswith(_TOGETHER)]
    slow = [item for item in items if item.nodeid.startswith(_SLOW)]
    rest = iter([item for item in items if not item.nodeid.startswith((_TOGETHER, *_SLOW))])
    share = -(-len(items) // _WORKERS)
    dealt = []
    for worker in range(_WORKERS):
        first = [*(together if worker == 0 else ()), *slow[worker::_WORKERS]]
        dealt += [*first, *islice(rest, max(0, share - len(first)))]
    items[:] = [*dealt, *rest]


_HAS_PLAYWRIGHT = find_spec("playwright") is not None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the tests of the pages where nothing can drive a browser; under CI that is an error."""
    is_left_out = collection_path == Path(__file__).parent / "browser" and not _HAS_PLAYWRIGHT
    return True if is_left_out and not os.environ.get("CI") else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _HAS_PLAYWRIGHT:
        said = "WARNING: playwright is not installed: tests/browser was left out; pip install playwright to run it"
        terminalreporter.write_line(said, yellow=True, bold=True)
    for missing, advice in (
        (MISSING, "set TEST_POSTGRES_URL"), (NO_CHROMIUM, "set CHROMIUM"), (NO_PGBOUNCER, "install it")
    ):  # fmt: skip
        skipped = [report for report in terminalreporter.stats.get("skipped", ()) if missing in str(report.longrepr)]
        if skipped:
            said = f"WARNING: {missing}: {len(skipped)} tests were skipped; {advice} to run them"
            terminalreporter.write_line(said, yellow=True, bold=True)


class PostgresServer:
    """Makes and drops databases."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._admin = psycopg.connect(url, autocommit=True, connect_timeout=5)

    @contextmanager
    def new(self, how: str = "") -> Iterator[str]:
        """Yield the name of an empty database, and drop it in the end."""
        name = f"ci_bridge_test_{secrets.token_hex(6)}"
        self.do(f"CREATE DATABASE {name} {how}")
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


_DELETES = " ".join(f'DELETE FROM "{table.name}";' for table in reversed(metadata.sorted_tables))  # noqa: S608  (ours)
_EMPTY = f"DO $$ BEGIN {_DELETES} UPDATE alembic_version SET version_num = '{HEAD}'; END $$".encode()  # noqa: S608  (ours)


def _emptied(url: str) -> None:
    """Take out what the last test has left, its connections too: it may have killed a process."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute(_EMPTY)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "bridge.db"
    _upgraded(f"sqlite:///{path}")  # closing it folds the write-ahead log into the file
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Which database; `only_sqlite`, `only_postgresql` and `on_both` choose."""
    return str(request.param)


only_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
on_both = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)


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
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The address of an SQLite file with the newest schema and nothing in it."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'bridge.db')}"


@pytest.fixture
def db_url(dialect: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database with the newest schema and nothing in it."""
    if dialect == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.url_of(request.getfixturevalue("postgres_database"))
    _emptied(url)
    yield url


def _in_a_hurry(connection: Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous = OFF").close()


Opener = Callable[[str], Database]


def _open(url: str) -> Database:
    db = Database(url)
    if db.sqlite:
        event.listen(db.engine, "connect", _in_a_hurry)
    return db


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens databases by address, and closes them in the end."""
    databases: list[Database] = []

    def open_(url: str) -> Database:
        databases.append(_open(url))
        return databases[-1]

    yield open_
    for db in databases:
        db.close()


@pytest.fixture(scope="session")
def reopened() -> Opener:
    """Opens databases by address, for tests that come after one another: their statements stay compiled."""
    return lru_cache(maxsize=4)(_open)


@pytest.fixture
def db(dialect: str, request: pytest.FixtureRequest, sqlite_template: Path, reopened: Opener) -> Iterator[Database]:
    """A database with the newest schema and nothing in it."""
    if dialect == "sqlite" and not {"db_url", "sqlite_url"} & {*request.fixturenames}:
        path = sqlite_template.with_name("used-again.db")
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        url = f"sqlite:///{shutil.copyfile(sqlite_template, path)}"  # into the same file: it was opened
    else:
        url = request.getfixturevalue("db_url")
    db = reopened(url)
    yield db
    db.close()
