from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bridge.record import migrations
from bridge.record.database import Database, SchemaOld
from bridge.record.schema import HEAD, attempts, metadata, notifiers
from tests.conftest import Opener, on_both, only_postgresql, only_sqlite
from tests.support.nouns import a_listed_job, new_delivery
from tests.support.records import know_as_before, put_as_before, rows, see
from tests.support.waiting import wait_until


def _set_revision(db: Database, revision: str) -> None:
    with db.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})


_LEFT = ("redrive", "answered")  # tables that the next version drops

_INDEXES = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
}


def _indexes(db: Database, dialect: str) -> list[str]:
    with db.read() as tx:
        found = tx.execute(text(_INDEXES[dialect])).scalars().all()
    ours = (one for one in found if not any(f"{name}_" in one for name in ("alembic", *_LEFT)))
    return sorted(" ".join(one.replace('"', "").split()) for one in ours)


def _is_of_this_version(name: str | None, kind: str, _parents: object) -> bool:
    """Leave out the tables that the next version drops."""
    return kind != "table" or name not in _LEFT


# SQLite shows no index on an expression; the next test compares those.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_the_migrations_make_what_the_schema_says(db: Database) -> None:
    with db.read() as tx:
        opts = {"compare_type": True, "compare_server_default": True, "include_name": _is_of_this_version}
        context = MigrationContext.configure(tx, opts=opts)
        assert compare_metadata(context, metadata) == []


def test_the_indexes_of_both_have_the_same_columns_and_conditions(
    db: Database, empty_url: str, opened: Opener, dialect: str
) -> None:
    other = opened(empty_url)
    metadata.create_all(other.engine)
    assert _indexes(db, dialect) == _indexes(other, dialect)


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(migrations.config()).get_current_head() == HEAD


def test_upgrading_twice_is_upgrading_once(db: Database) -> None:
    db.upgrade()
    assert db.revision() == HEAD
    db.require_schema()


@only_postgresql
def test_an_empty_or_older_postgresql_is_refused_with_the_command_to_run(
    db: Database, empty_url: str, opened: Opener
) -> None:
    empty = opened(empty_url)
    assert empty.revision() is None
    with pytest.raises(SchemaOld, match=r"has no tables yet: run `ci-bridge db upgrade`"):
        empty.require_schema()
    _set_revision(db, "0000")
    with pytest.raises(SchemaOld, match=rf"at revision 0000, this version needs {HEAD}: run `ci-bridge db upgrade`"):
        db.require_schema()


def test_a_newer_schema_is_refused_and_left_as_it_is(db: Database) -> None:
    _set_revision(db, "9999")
    with pytest.raises(SchemaOld, match=r"revision 9999, newer than .*: deploy the newer version"):
        db.require_schema()
    assert db.revision() == "9999"


@only_sqlite
def test_sqlite_brings_itself_up_to_date(empty_url: str, opened: Opener) -> None:
    db = opened(empty_url)
    assert db.revision() is None
    db.require_schema()
    assert db.revision() == HEAD


def test_two_upgrades_at_once_both_succeed(empty_url: str, opened: Opener) -> None:
    dbs, together = [opened(empty_url), opened(empty_url)], threading.Barrier(2, timeout=10)

    def upgrade(db: Database) -> None:
        together.wait()
        db.upgrade()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(upgrade, dbs))
    assert [db.revision() for db in dbs] == [HEAD, HEAD]


def test_an_upgrade_that_fails_leaves_nothing_behind(empty_url: str, opened: Opener) -> None:
    db = opened(empty_url)
    with db.write() as tx:
        tx.execute(text("CREATE TABLE thread (oops INTEGER)"))  # in the way of the first migration
    with pytest.raises(Exception, match="already exists"):
        db.upgrade()
    assert db.revision() is None


_ATTEMPT = """INSERT INTO attempt (delivery, number, outcome, why, status, started_at, ms)
    SELECT n, {}, 'later', 'answered 503 Service Unavailable', 503, 1, 1 FROM delivery"""
_PAUSE = "UPDATE notifier SET paused_at = 1, paused_why = 'answered 410 Gone'"


@on_both
def test_what_a_version_wrote_that_gives_no_reasons_has_none(empty_url: str, opened: Opener) -> None:
    db = opened(empty_url)
    migrations.upgrade(db.engine, "0007")
    know_as_before(db, "cms")
    put_as_before(db, new_delivery("d1"))
    with db.write() as tx:
        tx.execute(text(_ATTEMPT.format(1)))
        tx.execute(text(_PAUSE))
    db.upgrade()
    with db.write() as tx:
        tx.execute(text(_ATTEMPT.format(2)))  # such a worker may still run
    assert [(row["number"], row["reason"]) for row in rows(db, attempts)] == [(1, None), (2, None)]
    assert [row["paused_reason"] for row in rows(db, notifiers)] == [None]


# --- indexes that PostgreSQL builds while others write ----------------------------------------------------------

_READ_LONG_AGO = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM delivery"
_WROTE = "BEGIN; UPDATE delivery SET attempts = attempts"
_BUILDER = """SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND query LIKE 'CREATE INDEX%{}%' AND clock_timestamp() > query_start + interval '{} ms'"""
_IN_LINE = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%try_advisory_lock%'"
_LOCKED = """SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND datname = current_database()"""
_BUILT = """SELECT relname, indexrelid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indisvalid = {} AND relname LIKE '%\\_listed%'"""


def _with(url: str, setting: str) -> str:
    """The address with one more setting of the session."""
    return f"{url}%20-c{setting.replace('=', '%3D')}"


@pytest.fixture
def before(empty_url: str, opened: Opener) -> Database:
    """A database of before these indexes, with something in it."""
    db = opened(empty_url)
    migrations.upgrade(db.engine, "0004")
    know_as_before(db, "cms")
    put_as_before(db, new_delivery("d1"))
    return db


@contextmanager
def _held_back(
    url: str, how: str, upgrade: Callable[[], None], *, at: str = "", for_ms: int = 0
) -> Iterator[Future[None]]:
    """Begin an upgrade, and yield when it has waited that long for a transaction that is open until the end."""
    with psycopg.connect(url, autocommit=True) as look, ThreadPoolExecutor(1) as pool, psycopg.connect(url) as holder:
        holder.execute(how.encode())
        done = pool.submit(upgrade)
        wait_until(lambda: done.done() or look.execute(_BUILDER.format(at, for_ms).encode()).fetchone())
        assert not done.done(), done.result()
        yield done


def _built(db: Database, *, valid: bool) -> dict[str, int]:
    with db.read() as tx:
        return {row.relname: row.indexrelid for row in tx.execute(text(_BUILT.format(valid)))}


def _lists() -> set[str]:
    names = (str(index.name) for table in metadata.sorted_tables for index in table.indexes)
    return {name for name in names if "_listed" in name}


@only_postgresql
@pytest.mark.parametrize("how", [_READ_LONG_AGO, _WROTE])
def test_workers_write_while_an_index_is_built(empty_url: str, before: Database, opened: Opener, how: str) -> None:
    worker = opened(_with(empty_url, "lock_timeout=5s"))
    with _held_back(empty_url, how, before.upgrade) as upgraded:
        put_as_before(worker, new_delivery("d2"), new_delivery("d3"))
        see(worker, a_listed_job("j1"))
        with worker.write() as tx:  # as a version does that knows no more columns
            sent = tx.execute(text("UPDATE delivery SET state = 2 WHERE id <> 'd1' RETURNING id")).scalars().all()
        assert {"d2", "d3"} == set(sent)
        assert not upgraded.done()
    assert upgraded.result() is None
    assert before.revision() == HEAD
    assert _built(before, valid=True).keys() == _lists()


@only_postgresql
@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_build_that_is_cut_off_is_completed_by_the_next_upgrade(
    empty_url: str, before: Database, opened: Opener, end: str
) -> None:
    with _held_back(empty_url, _WROTE, before.upgrade, at="delivery_listed") as upgraded:
        with before.read() as tx:
            tx.execute(text(_BUILDER.format("delivery_listed", 0).replace("pid", f"{end}(pid)", 1)))
        with pytest.raises(DBAPIError):
            upgraded.result()
    assert before.revision() == "0004"
    assert _built(before, valid=False).keys() == {"delivery_listed"}
    kept = _built(before, valid=True)
    wait_until(lambda: not _any(before, _LOCKED))  # a session that is ended takes a moment
    opened(empty_url).upgrade()
    assert before.revision() == HEAD
    assert _built(before, valid=False) == {}
    now = _built(before, valid=True)
    assert now.keys() == _lists()
    assert kept.items() <= now.items()  # and was not built again


@on_both
def test_an_index_that_is_there_already_is_kept(before: Database, dialect: str) -> None:
    with before.write() as tx:
        tx.execute(text("CREATE INDEX job_listed ON job (created_at, n)"))
    before.upgrade()
    assert before.revision() == HEAD
    assert sum(" job_listed ON " in one for one in _indexes(before, dialect)) == 1


@only_postgresql
def test_an_upgrade_that_waits_for_another_does_not_hold_it_up(
    empty_url: str, before: Database, opened: Opener
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with _held_back(empty_url, _WROTE, before.upgrade) as first:
            second = pool.submit(opened(empty_url).upgrade)
            wait_until(lambda: _any(before, _IN_LINE))
            assert not second.done()
        assert (first.result(), second.result()) == (None, None)
    assert before.revision() == HEAD


def _any(db: Database, question: str) -> Any:
    with db.read() as tx:
        return tx.execute(text(question)).first()


@only_postgresql
def test_an_upgrade_that_ends_a_deadlock_with_a_worker_begins_anew(empty_url: str, opened: Opener) -> None:
    db = opened(empty_url)
    migrations.upgrade(db.engine, "0007")
    waits = "SELECT count(*) FROM pg_locks WHERE relation = 'notifier'::regclass AND NOT granted"
    with (
        psycopg.connect(empty_url) as worker,
        psycopg.connect(empty_url, autocommit=True) as onlooker,
        ThreadPoolExecutor() as threads,
    ):
        worker.execute("SET deadlock_timeout = '1min'")  # so that it is the upgrade that PostgreSQL rolls back
        worker.execute("UPDATE notifier SET failures = 0")
        upgrade = threads.submit(migrations.upgrade, db.engine)
        wait_until(lambda: upgrade.done() or onlooker.execute(waits).fetchone() == (1,))
        worker.execute("DELETE FROM attempt")
        worker.commit()
        upgrade.result(30)
    assert db.revision() == HEAD


@only_postgresql
def test_a_bound_for_questions_does_not_end_a_build(empty_url: str, before: Database, opened: Opener) -> None:
    bounded = opened(_with(empty_url, "statement_timeout=400"))
    with _held_back(empty_url, _WROTE, bounded.upgrade, for_ms=800) as upgraded:
        pass
    assert upgraded.result() is None
    assert before.revision() == HEAD
