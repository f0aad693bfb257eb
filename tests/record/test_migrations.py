from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from bridge.record import migrations
from bridge.record.database import Database, SchemaOld
from bridge.record.schema import HEAD, metadata
from tests.conftest import Opener, only_postgresql, only_sqlite


def _set_revision(db: Database, revision: str) -> None:
    with db.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})


_INDEXES = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
}


def _indexes(db: Database, dialect: str) -> list[str]:
    with db.read() as tx:
        found = tx.execute(text(_INDEXES[dialect])).scalars().all()
    return sorted(" ".join(one.replace('"', "").split()) for one in found if "alembic" not in one)


# SQLite shows no index on an expression; the next test compares those.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_the_migrations_make_what_the_schema_says(db: Database) -> None:
    with db.read() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_indexes_of_both_have_the_same_columns_and_conditions(
    db: Database, empty_url: str, opened: Opener, dialect: str
) -> None:
    other = opened(empty_url)
    metadata.create_all(other.engine)
    assert _indexes(db, dialect) == _indexes(other, dialect)


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(migrations.config()).get_current_head() == HEAD


def test_a_new_database_has_no_revision(empty_url: str, opened: Opener) -> None:
    assert opened(empty_url).revision() is None


def test_upgrading_twice_is_upgrading_once(db: Database) -> None:
    db.upgrade()
    assert db.revision() == HEAD
    db.require_schema()


@only_postgresql
def test_an_empty_postgresql_is_refused_with_the_command_to_run(empty_url: str, opened: Opener) -> None:
    with pytest.raises(SchemaOld, match=r"has no tables yet: run `ci-bridge db upgrade`"):
        opened(empty_url).require_schema()


@only_postgresql
def test_an_older_postgresql_is_refused_with_the_command_to_run(db: Database) -> None:
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
    db.require_schema()
    assert db.revision() == HEAD


@pytest.mark.parametrize("round_", range(3))
def test_two_upgrades_at_once_both_succeed(empty_url: str, opened: Opener, round_: int) -> None:
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
