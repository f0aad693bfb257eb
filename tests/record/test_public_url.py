from __future__ import annotations

from bridge.links import NO_LINKS, Links
from bridge.record import public_url
from bridge.record.database import Database
from tests.support.nouns import NOW
from tests.support.records import write


def links(db: Database) -> Links:
    with db.read() as tx:
        return public_url.links(tx)


def test_while_nobody_has_stored_where_the_pages_are_there_are_no_links(db: Database) -> None:
    assert links(db) == NO_LINKS


def test_links_are_below_what_was_stored_last(db: Database) -> None:
    for url in ("https://old.example.com", "https://new.example.com"):
        write(db, public_url.store, url, now=NOW)
    assert links(db) == Links("https://new.example.com")
