from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event, insert, select, text
from sqlalchemy.exc import OperationalError

from bridge.record.database import Database, at, ms, trouble
from bridge.record.schema import lease, stream
from tests.conftest import Opener, only_postgresql, only_sqlite
from tests.record.builders import NOW, rows


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_a_postgresql_address_uses_psycopg(scheme: str) -> None:
    db = Database(f"{scheme}://user:hidden@db.example.com/bridge")
    assert db.url.drivername == "postgresql+psycopg"
    assert not db.sqlite
    assert db.shown == "postgresql+psycopg://user:***@db.example.com/bridge"
    db.close()


@pytest.mark.parametrize(
    ("url", "said"), [("bridge.db", "write sqlite:///bridge.db"), ("mysql://h/b", "mysql is not supported")]
)
def test_another_address_is_refused_with_what_would_be_right(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Database(url)


@only_sqlite
def test_the_directory_of_a_new_sqlite_file_is_made(dialect: str, tmp_path: Path, opened: Opener) -> None:
    path = tmp_path / "not" / "there" / "bridge.db"
    opened(f"sqlite:///{path}").upgrade()
    assert path.exists()


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
        assert reading.execute(select(stream)).all() == []
        with other.write() as tx:  # no waiting for who reads
            tx.execute(insert(stream).values(key="k", told_from=1))
            with db.read() as second:  # nor for who writes
                assert second.execute(select(stream)).all() == []
        assert reading.execute(select(stream)).all() == []  # and what is read stays the same till the end


def test_an_exception_undoes_the_transaction(db: Database) -> None:
    def fail() -> None:
        with db.write() as tx:
            tx.execute(insert(lease).values(name="a", until=1))
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fail()
    assert rows(db, lease) == []


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


def test_times_come_back_to_the_millisecond() -> None:
    assert at(ms(NOW)) == NOW
