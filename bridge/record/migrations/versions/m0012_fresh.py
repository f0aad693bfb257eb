"""Fresh: callbacks' hints, queues, how streams are listed, how polls keep their promise, inferred transitions.

Workers of the version before go on: they know nothing of these columns, and leave them as they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "hint",
        sa.Column("bucket", sa.String(100), primary_key=True),
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("ask_at", sa.BigInteger),
        sa.Column("asked_at", sa.BigInteger),
        sa.Column("denied", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("times", sa.Integer, nullable=False, server_default="1"),
        if_not_exists=True,
    )
    op.create_table(
        "queue",
        sa.Column("bucket", sa.String(100), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    condition = sa.text("ask_at IS NOT NULL")
    index = ("hint_ask", "hint", ["ask_at"])
    if op.get_bind().dialect.name == "postgresql":
        # Each by itself, so that nobody waits for a table for long. What is cut off is completed by the next upgrade.
        with op.get_context().autocommit_block():
            for table, column in _columns():
                op.add_column(table, column, if_not_exists=True)
            op.create_index(*index, postgresql_where=condition, if_not_exists=True)
    else:
        for table, column in _columns():
            op.add_column(table, column)
        op.create_index(*index, sqlite_where=condition)


def _columns() -> list[tuple[str, sa.Column[object]]]:
    return [
        ("watch", sa.Column("took_ms", sa.BigInteger)),
        ("watch", sa.Column("waited_ms", sa.BigInteger)),
        ("watch", sa.Column("looked_at", sa.BigInteger)),
        ("watch", sa.Column("progress", sa.Text)),
        ("watch", sa.Column("blind", sa.Text)),
        ("watch", sa.Column("hint_at", sa.BigInteger)),
        ("stream", sa.Column("lag_ms", sa.BigInteger)),
        ("stream", sa.Column("deep_at", sa.BigInteger)),
        ("stream", sa.Column("news_at", sa.BigInteger)),
        ("stream", sa.Column("states_ignored_at", sa.BigInteger)),
        ("lease", sa.Column("starts", sa.Text)),
        ("lease", sa.Column("queues_at", sa.BigInteger)),
        ("lease", sa.Column("queues_error", sa.Text)),
        ("transition", sa.Column("inferred", sa.Boolean, nullable=False, server_default=sa.text("false"))),
    ]
