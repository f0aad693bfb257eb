"""Slack: what the root of a thread shows and should show, limits that notifiers share, urgent deliveries; links.

Workers of the version before go on: they post and edit by `thread.receipt` alone, and know of no shared limit.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_INDEXES = (
    ("thread_thread", "thread", ["thread"], None),
    ("thread_stale", "thread", ["notifier", "due_at"], "wanted_no > shown_no AND receipt <> ''"),
    ("delivery_urgent", "delivery", ["notifier", "due_at", "n"], "state = 0 AND urgent_since IS NOT NULL"),
    ("delivery_shown_with", "delivery", ["notifier", "thread", "shown_with"], "state = 4 AND shown_with IS NOT NULL"),
)


def upgrade() -> None:
    op.create_table(
        "shared_text",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "rate_limit",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("used_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("not_before", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("served", sa.String(100)),
        sa.Column("slow_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("claims", sa.BigInteger, nullable=False, server_default="0"),
        if_not_exists=True,
    )
    if op.get_bind().dialect.name == "postgresql":
        # Each by itself, so that nobody waits for a table while an index is built. What is cut off is completed by the
        # next upgrade.
        with op.get_context().autocommit_block():
            for table, column in _columns():
                op.add_column(table, column, if_not_exists=True)
            for name, *_ in _INDEXES:
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            _indexes(concurrently=True)
    else:
        for table, column in _columns():
            op.add_column(table, column)
        _indexes(concurrently=False)


def _columns() -> list[tuple[str, sa.Column[object]]]:
    return [
        ("thread", sa.Column("wanted", sa.Text)),
        ("thread", sa.Column("wanted_no", sa.Integer, nullable=False, server_default="0")),
        ("thread", sa.Column("shown_no", sa.Integer, nullable=False, server_default="0")),
        ("thread", sa.Column("job_states", sa.Text)),
        ("thread", sa.Column("due_at", sa.BigInteger, nullable=False, server_default="0")),
        ("thread", sa.Column("attempts", sa.Integer, nullable=False, server_default="0")),
        ("thread", sa.Column("retry_from", sa.BigInteger)),
        ("thread", sa.Column("retry_due", sa.BigInteger)),
        ("thread", sa.Column("lease", sa.Text)),
        ("thread", sa.Column("lease_until", sa.BigInteger)),
        ("thread", sa.Column("why", sa.Text)),
        # Last: who changes a table that is in use keeps everybody waiting until all of this is done.
        ("delivery", sa.Column("urgent_since", sa.BigInteger)),
        ("delivery", sa.Column("shown_with", sa.Integer)),
    ]


def _indexes(*, concurrently: bool) -> None:
    for name, table, columns, where in _INDEXES:
        condition = sa.text(where) if where else None
        op.create_index(
            name, table, columns, sqlite_where=condition, postgresql_where=condition,
            postgresql_concurrently=concurrently,
        )  # fmt: skip
