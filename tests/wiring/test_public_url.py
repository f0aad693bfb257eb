"""Which process says where the pages are, and what the others make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.links import Links
from bridge.record import public_url
from bridge.record.database import Database
from bridge.record.schema import shared_texts
from bridge.wiring.parts import share_public_url
from tests.conftest import Opener
from tests.support.http import free_port
from tests.support.processes import run, worker
from tests.support.records import rows
from tests.support.stage import Stage


def links(db: Database) -> Links:
    with db.read() as tx:
        return public_url.links(tx)


def test_whoever_starts_last_and_knows_where_the_pages_are_is_right(db: Database) -> None:
    for known in ("https://old.example.com", None, "https://new.example.com", None):
        share_public_url(db, known)
    assert links(db) == Links("https://new.example.com")


def test_what_is_stored_already_is_not_written_again(db: Database) -> None:
    share_public_url(db, "https://bridge.example.com")
    before = rows(db, shared_texts)
    share_public_url(db, "https://bridge.example.com")
    assert rows(db, shared_texts) == before


@pytest.mark.parametrize("broken", ["PRAGMA query_only = on", "DROP TABLE shared_text"])
def test_a_database_that_takes_nothing_keeps_nobody_from_starting(
    sqlite_url: str, opened: Opener, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    db = opened(sqlite_url)
    with db.write() as tx:
        tx.exec_driver_sql(broken)
    share_public_url(db, "https://bridge.example.com")
    assert [record.message for record in caplog.records] == ["where the pages are could not be stored"]


@pytest.mark.parametrize(
    ("main", "environ", "url"),
    [
        (run, {"FLY_APP_NAME": "bridge"}, "https://bridge.fly.dev"),
        (run, {"FLY_APP_NAME": "bridge", "BRIDGE_PUBLIC_URL": "https://own.example.com"}, "https://own.example.com"),
        (worker, {"BRIDGE_PUBLIC_URL": "https://own.example.com"}, "https://own.example.com"),
        (worker, {"FLY_APP_NAME": "bridge"}, None),  # Fly.io says it of processes without pages, too
    ],
)
def test_a_worker_alone_says_only_what_a_person_has_set(
    tmp_path: Path, sqlite_url: str, main: Callable[[], object], environ: dict[str, str], url: str | None
) -> None:
    with Stage(tmp_path, sqlite_url) as stage:
        process = stage.start_worker(main, PORT=str(free_port()), **environ)
        stage.await_first_poll()
        assert links(stage.db) == Links(url)
        assert stage.stop(process) == 0
