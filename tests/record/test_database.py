from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from sqlalchemy import event, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from bridge.record.database import Database, SchemaOld, at, ms, trouble
from bridge.record.schema import HEAD, leases, streams
from tests.conftest import Opener, PostgresServer, only_postgresql, only_sqlite
from tests.crash.servers import open_folder, own_postgres
from tests.support.commands import run
from tests.support.nouns import NOW
from tests.support.records import execute, rows
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgres+asyncpg", "POSTGRESQL"]
)
def test_every_spelling_of_a_postgresql_address_uses_psycopg(scheme: str) -> None:
    db = Database(f"{scheme}://user:hidden@db.example.com/bridge")
    assert (db.sqlite, db.url.drivername) == (False, "postgresql+psycopg")
    assert db.shown == "postgresql+psycopg://user:***@db.example.com/bridge"
    db.close()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("bridge.db", "write sqlite:///bridge.db"),
        ("mysql://h/b", "mysql is not supported"),
        *(
            (f"postgresql://u@127.0.0.1/d?prepare_threshold={given}", "prepare_threshold is a number: 0 for a pooler")
            for given in ("off", "-1", "1.5", "5&prepare_threshold=6")
        ),
    ],
)
def test_another_address_is_refused_with_what_would_be_right(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Database(url)


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite3", "SQLite", "sqlite+pysqlite", "sqlite+aiosqlite"])
def test_every_spelling_of_an_sqlite_address_names_the_same_file(scheme: str, tmp_path: Path) -> None:
    db = Database(f"{scheme}:///{tmp_path}/bridge.db")
    assert (db.sqlite, db.url.database, db.is_missing) == (True, f"{tmp_path}/bridge.db", True)
    db.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:", "names no file; write sqlite:///bridge.db"),
        ("sqlite://", "names no file; write sqlite:///bridge.db"),
        ("sqlite:///", "names no file; write sqlite:///bridge.db"),
        ("sqlite://bridge.db", "names no file; write sqlite:///bridge.db"),
        ("sqlite:///:memory:", "what is in memory is lost"),
        ("sqlite:///{}/bridge.db?mode=memory", "takes no options"),
        ("sqlite:///file:{}/bridge.db?uri=true", "takes no options"),
        ("sqlite:///{}", "is a folder; name a file in it"),
        ("sqlite:///{}/", "is a folder; name a file in it"),
        ("sqlite:////", "/ is a folder; name a file in it"),
        ("sqlite:///{}/not/there/bridge.db", "there is no folder .*/not/there; make it, or name one that is there"),
        ("sqlite:///{}/bridge.db/bridge.db", "cannot be looked at: Not a directory"),
        ("sqlite:////dev/null", "is not a regular file; name one"),
        ("sqlite:///{}/" + "b" * 300, "cannot be looked at: File name too long"),
        ("sqlite+pysqlcipher://:hush@/{}/bridge.db", "sqlite.pysqlcipher is not supported"),
    ],
)
def test_a_file_that_cannot_be_kept_is_refused_and_nothing_is_made(url: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bridge.db").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=said) as refused:
        Database(url.format(tmp_path))
    assert str(refused.value).startswith("DATABASE_URL")
    assert "hush" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a while")
@pytest.mark.parametrize(
    ("folder", "file", "said"),
    [(0o755, 0o600, "may not read and write"), (0o755, 0o644, "may not read and write"),
     (0o755, None, "may not make files in the folder"), (0o755, 0o666, "may not make files in the folder"),
     (0o700, None, "Permission denied")],
)  # fmt: skip
def test_a_file_without_the_rights_to_it_is_refused(folder: int, file: int | None, said: str) -> None:
    with TemporaryDirectory() as name:  # not below the one of a test, which is closed to everybody else
        path = Path(name) / "bridge.db"
        if file is not None:
            path.touch()
            path.chmod(file)
        path.parent.chmod(folder)
        with _somebody_else(), pytest.raises(ValueError, match=said):
            Database(f"sqlite:///{path}")


@contextmanager
def _somebody_else() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mask", [0o022, 0o000])
def test_a_new_file_and_its_journal_are_their_owners_alone(mask: int, tmp_path: Path, opened: Opener) -> None:
    before = os.umask(mask)
    try:
        opened(f"sqlite:///{tmp_path}/bridge.db").upgrade()
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {
        "bridge.db": "0o600", "bridge.db-wal": "0o600", "bridge.db-shm": "0o600"
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "expected"), [(0o644, 0o600), (0o660, 0o660), (0o640, 0o640)])
def test_a_file_that_everybody_could_read_is_closed_and_what_somebody_chose_stays(
    mode: int, expected: int, sqlite_url: str, opened: Opener
) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.chmod(mode)
    with opened(sqlite_url).write():
        assert path.stat().st_mode & 0o777 == expected


@only_sqlite
def test_the_journal_becomes_short_again_when_nobody_reads_what_was_before(db_url: str, opened: Opener) -> None:
    db, journal = opened(db_url), Path(db_url.removeprefix("sqlite:///") + "-wal")
    with db.write() as tx:
        tx.execute(text("CREATE TABLE filler (said TEXT)"))
    with db.read() as reader:
        reader.execute(text("SELECT count(*) FROM filler")).scalar()
        for _ in range(4):
            with db.write() as tx:
                tx.execute(text("INSERT INTO filler VALUES (:said)"), {"said": "x" * 4_000_000})
        assert journal.stat().st_size > 15_000_000
    for _ in range(3):
        with db.write() as tx:
            tx.execute(text("INSERT INTO filler VALUES ('x')"))
    assert journal.stat().st_size < 5_000_000


@only_sqlite
@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
def test_a_file_that_is_gone_is_trouble_and_no_new_one_is_made(how: str, db_url: str, opened: Opener) -> None:
    db, path = opened(db_url), Path(db_url.removeprefix("sqlite:///"))
    assert db.revision()
    assert db.lost is None
    copy = path.with_name("copy.db")
    if how == "moved":
        path.rename(copy)
    else:
        shutil.copy(path, copy)
        path.unlink()
    if how == "replaced":
        copy.rename(path)
    for transaction in (db.read, db.write):
        with pytest.raises(DBAPIError) as refused, transaction():
            pytest.fail("nobody would ever read this")
        assert "was deleted or replaced while the bridge runs" in trouble(refused.value)
    assert path.exists() == (how == "replaced")
    if how == "moved":
        copy.rename(path)
        assert (db.lost, db.revision()) == (None, HEAD)


def _impatient(url: str, opened: Opener) -> Database:
    db = opened(url)
    event.listen(db.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 10").close())
    return db


@only_sqlite
def test_writing_takes_the_lock_of_sqlite_at_once(db_url: str, opened: Opener) -> None:
    db, other = opened(db_url), _impatient(db_url, opened)
    with db.write(), pytest.raises(OperationalError, match="locked"), other.write():
        pytest.fail("both write")


@only_sqlite
def test_reading_takes_no_lock_and_waits_for_none(db_url: str, opened: Opener) -> None:
    db, other = opened(db_url), _impatient(db_url, opened)
    with db.read() as reading:
        assert reading.execute(select(streams)).all() == []
        with other.write() as tx:  # no waiting for who reads
            tx.execute(insert(streams).values(key="k", told_from=1))
            with db.read() as second:  # nor for who writes
                assert second.execute(select(streams)).all() == []
        assert reading.execute(select(streams)).all() == []  # and what is read stays the same till the end


def test_a_database_that_is_not_there_is_trouble_in_one_line() -> None:
    db = Database("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(OperationalError) as caught, db.read():
        pytest.fail("it answered")
    db.close()
    said = trouble(caught.value)
    assert said.startswith("the database does not answer: ")
    assert "\n" not in said


@only_postgresql
def test_a_worker_that_is_stopped_in_a_transaction_does_not_hold_its_locks_for_ever(db: Database) -> None:
    for _ in range(2):  # the second time the connection has been used
        with db.write() as tx:
            assert tx.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "20s"


@pytest.fixture
def own_url(empty_url: str, opened: Opener) -> str:
    """The address of a database whose settings may be changed."""
    opened(empty_url).upgrade()
    return empty_url


def _set_up(url: str, setting: str) -> None:
    """Say how new sessions begin."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f"ALTER DATABASE {admin.info.dbname} {setting}".encode())


def _write(db: Database, name: str) -> None:
    execute(db, insert(leases).values(name=name, until=1))


@only_postgresql
@pytest.mark.parametrize("setting", ["default_transaction_read_only = on", "search_path = nowhere"])
def test_sessions_that_were_set_up_wrongly_end_with_their_first_error(
    own_url: str, opened: Opener, setting: str
) -> None:
    _set_up(own_url, f"SET {setting}")
    db = opened(own_url)
    with db.read(), db.read():  # two sessions
        pass
    with pytest.raises(DBAPIError):
        _write(db, "a")
    _set_up(own_url, f"RESET {setting.split()[0]}")
    with db.write() as tx, db.write() as other:
        tx.execute(insert(leases).values(name="b", until=1))
        other.execute(insert(leases).values(name="c", until=1))
    assert {row["name"] for row in rows(db, leases)} == {"b", "c"}


@only_postgresql
def test_a_row_that_is_there_already_ends_no_session(db: Database) -> None:
    def session() -> object:
        with db.read() as tx:
            return tx.execute(text("SELECT pg_backend_pid()")).scalar()

    _write(db, "a")
    before = session()
    with pytest.raises(IntegrityError):
        _write(db, "a")
    assert session() == before


@only_postgresql
def test_where_prepared_statements_vanish_none_is_prepared_any_more(db: Database) -> None:
    def ask() -> object:
        with db.read() as tx:
            return tx.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar()

    wait_until(ask)  # what is asked often is prepared
    with db.read() as tx:
        tx.exec_driver_sql("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")  # unseen by the driver, as a pooler would
    with pytest.raises(DBAPIError, match="does not exist"):
        ask()
    assert [ask() for _ in range(20)] == [0] * 20


@pytest.mark.parametrize("given", ["0", "None"])
@only_postgresql
def test_preparing_can_be_switched_off_in_the_address(db_url: str, opened: Opener, given: str) -> None:
    db = opened(f"{db_url}&prepare_threshold={given}")
    for _ in range(20):
        with db.read() as tx:
            assert tx.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar() == 0


@only_postgresql
def test_of_several_hosts_one_is_taken_that_can_be_written_to(
    own_url: str, opened: Opener, postgres: PostgresServer
) -> None:
    with open_folder() as folder, own_postgres(folder) as other:
        name = make_url(own_url).database
        with psycopg.connect(other.url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
            admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        hosts = [f"{url.host}:{url.port}" for url in (make_url(other.url), make_url(own_url))]
        db = opened(f"postgresql://postgres@/{name}?host={hosts[0]}&host={hosts[1]}")
        _write(db, "a")
        db.close()
    assert len(rows(opened(own_url), leases)) == 1


@only_postgresql
def test_the_encoding_that_a_role_or_database_asks_for_is_not_used(own_url: str, opened: Opener) -> None:
    _set_up(own_url, "SET client_encoding = 'LATIN1'")
    db = opened(own_url)
    _write(db, "测试")
    assert [row["name"] for row in rows(db, leases)] == ["测试"]


@pytest.mark.parametrize(("encoding", "commands"), [("LATIN1", ["db upgrade", "jobs list"]), ("SQL_ASCII", ["doctor"])])
def test_a_database_that_cannot_hold_every_text_is_refused_with_the_commands_that_move_it(
    postgres: PostgresServer, opened: Opener, encoding: str, commands: list[str]
) -> None:
    with postgres.new(f"TEMPLATE template0 ENCODING {encoding} LOCALE 'C'") as name:
        url = postgres.url_of(name)
        with psycopg.connect(url, client_encoding="utf8") as connection:
            connection.execute("CREATE TABLE said (what text)")
            connection.execute("INSERT INTO said VALUES ('café')")
        db = opened(url)
        for use in (db.upgrade, db.require_schema):
            with pytest.raises(SchemaOld, match=f"{name} is in {encoding}, and must be in UTF8") as caught:
                use()
        for command in commands:
            seen = run(*command.split(), DATABASE_URL=url)
            assert seen.returncode == 1
            assert "createdb" in seen.stdout + seen.stderr
        moves = re.findall("`(.*?)`", str(caught.value))
        assert len(moves) == 2
        try:
            for command in moves:
                subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)  # noqa: S602  (as a person would)
            moved = opened(postgres.url_of(f"{name}_utf8"))
            moved.upgrade()
            with moved.read() as tx:
                assert tx.execute(text("SELECT what FROM said")).scalar() == "café"
            moved.close()
        finally:
            postgres.do(f"DROP DATABASE IF EXISTS {name}_utf8 WITH (FORCE)")


def test_times_come_back_to_the_millisecond() -> None:
    assert at(ms(NOW)) == NOW
