"""Dead letters may be discarded, actions are listed, and an action has the name that its author gave.

Workers of the version before leave discarded deliveries alone: they prune none of them, and show no list that has one.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0014"

_INDEXES: tuple[tuple[str, str, list[Any], str | None], ...] = (
    ("delivery_listed_discarded", "delivery", ["created_at", "n"], "state = 7"),
    ("action_listed", "action", ["at", "n"], None),
    ("action_listed_subject", "action", [sa.column("subject").op("||")(sa.literal_column("''")), "at", "n"], None),
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # While others write; what is cut off is completed by the next upgrade.
        with op.get_context().autocommit_block():
            op.add_column("action", sa.Column("claimed", sa.Text), if_not_exists=True)
            _build()
    else:
        op.add_column("action", sa.Column("claimed", sa.Text))
        _build()


def _build() -> None:
    for name, table, columns, where in _INDEXES:
        condition = None if where is None else sa.text(where)
        # One that was cut off exists, but is not valid.
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            name, table, columns, sqlite_where=condition, postgresql_where=condition, postgresql_concurrently=True
        )
