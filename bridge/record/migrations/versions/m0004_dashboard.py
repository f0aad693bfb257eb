"""What the dashboard needs: tallies, orders to send again, answers by their key, and the rule of a delivery."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _tally()
    _redrive()
    _answered()
    # Last: who changes a table that is in use keeps everybody waiting until all of this is done.
    op.add_column("delivery", sa.Column("rule", sa.Text))


def _tally() -> None:
    op.create_table(
        "tally",
        sa.Column("metric", sa.String(40), primary_key=True),
        sa.Column("slot", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("labels", sa.Text, primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("ms", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


def _redrive() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "redrive",
        sa.Column("n", number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("per_minute", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("after", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("up_to", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("ended_by", sa.Text),
        sqlite_autoincrement=True,
    )
    unended = sa.text("ended_at IS NULL")
    op.create_index("redrive_open", "redrive", ["next_at"], sqlite_where=unended, postgresql_where=unended)


def _answered() -> None:
    op.create_table(
        "answered",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("location", sa.Text),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index("answered_at", "answered", ["at"])
