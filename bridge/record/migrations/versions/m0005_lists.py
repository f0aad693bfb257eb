"""The indexes of lists. PostgreSQL builds them while workers write; the next upgrade completes what was cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_Index = tuple[str, str, Sequence[Any], str | None]  # name, table, what of it, which rows

_INVALID = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")


def upgrade() -> None:
    # Outside of a transaction there is no way back: each step leaves what the next upgrade can go on from.
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            _build()
    else:
        _build()


def _build() -> None:
    for name, table, columns, where in _indexes():
        _drop_invalid(name)
        condition = None if where is None else sa.text(where)
        op.create_index(
            name,
            table,
            columns,
            if_not_exists=True,
            sqlite_where=condition,
            postgresql_where=condition,
            postgresql_concurrently=True,
        )


def _drop_invalid(name: str) -> None:
    """Drop what is left of a build that was cut off; to PostgreSQL it exists."""
    bind = op.get_bind()
    if bind.dialect.name == "postgresql" and bind.execute(_INVALID, {"name": name}).first():
        op.drop_index(name, if_exists=True, postgresql_concurrently=True)


def _indexes() -> Iterator[_Index]:
    yield from _listed("job", "created_at", "state", "tag", "queue")
    yield from _listed("transition", "seen_at", "state", "tag", "queue")
    yield from _listed("delivery", "created_at", "notifier")
    yield "delivery_listed_rule", "delivery", ["rule", "created_at", "n"], None
    for state, name in ((3, "dead"), (4, "held"), (5, "merged"), (6, "dropped")):
        yield f"delivery_listed_{name}", "delivery", ["created_at", "n"], f"state = {state}"


def _listed(table: str, when: str, *by: str) -> Iterator[_Index]:
    yield f"{table}_listed", table, [when, "n"], None
    for column in by:
        # Not the column itself: SQLite would take such an index for other questions too.
        value = sa.column(column).op("||")(sa.literal_column("''"))
        yield f"{table}_listed_{column}", table, [value, when, "n"], None
