"""Where this bridge's pages are: a process that knows it stores it for all of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from bridge.links import Links
from bridge.record.database import ms, upsert
from bridge.record.schema import shared_texts as texts

_NAME = "public_url"


def links(tx: Connection) -> Links:
    """Return the links that messages of this moment have."""
    return Links(tx.execute(select(texts.c.value).filter_by(name=_NAME)).scalar())


def store(tx: Connection, url: str, *, now: datetime) -> None:
    values = {"value": url, "at": ms(now)}
    tx.execute(
        upsert(tx, texts).values(name=_NAME, **values).on_conflict_do_update(index_elements=["name"], set_=values)
    )
