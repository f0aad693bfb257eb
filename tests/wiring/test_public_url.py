"""Which process says where the pages are, and what the others make of it."""

from __future__ import annotations

import pytest

from bridge.links import Links
from bridge.record import public_url
from bridge.record.database import Database
from bridge.record.schema import shared_texts
from bridge.wiring.parts import share_public_url
from tests.conftest import Opener
from tests.support.records import rows


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
