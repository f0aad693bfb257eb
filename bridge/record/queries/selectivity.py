"""Which of several filters SQLite finds rows by: it knows not how often a value is there, and would take any of them.

PostgreSQL knows, and is left all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

Said = tuple[ColumnElement[bool], ColumnElement[bool]]  # a condition as an index knows it, and as none does

_LOOKED_AT = 500


def said(*asked: tuple[ColumnElement[Any], ColumnElement[Any], str | None]) -> list[Said]:
    """Return conditions for those values that are asked for: of the expression an index has, and of one none has."""
    return [(indexed == value, unindexed == value) for indexed, unindexed, value in asked if value is not None]


def plain(column: ColumnElement[int]) -> ColumnElement[int]:
    """Return a number as no index knows it."""
    return column + literal_column("0")


def by_rarest(tx: Connection, found: Sequence[Said]) -> list[ColumnElement[bool]]:
    """Return all conditions, on SQLite the rarest alone as an index knows it; of equals, the first."""
    if tx.dialect.name != "sqlite" or len(found) < 2:
        return [indexed for indexed, _ in found]
    some = (select(literal_column("1")).where(indexed).limit(_LOOKED_AT).subquery() for indexed, _ in found)
    counts = [tx.execute(select(func.count()).select_from(rows)).scalar_one() for rows in some]
    rarest = counts.index(min(counts))
    return [indexed if place == rarest else unindexed for place, (indexed, unindexed) in enumerate(found)]
