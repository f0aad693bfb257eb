"""A fresh record for each test: on SQLite, or on both databases in turn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.record.database import Database
from tests.conftest import Opener, PostgresServer
from tests.support.admin_world import World
from tests.support.servers import an_environ


@pytest.fixture
def world(sqlite_template: Path, tmp_path: Path, opened: Opener) -> World:
    path = tmp_path / "bridge.db"
    shutil.copy(sqlite_template, path)
    return _world(opened(f"sqlite:///{path}"))


@pytest.fixture
def either_world(db: Database) -> World:
    """The same test on SQLite and PostgreSQL."""
    return _world(db)


@pytest.fixture
def empty_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.new() as name:
        yield postgres.url_of(name)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What a gunicorn of its own is started with."""
    return an_environ(tmp_path)


def _world(db: Database) -> World:
    world = World(db)
    world.sync()
    return world
