"""What lists and figures need: indexes, tallies, orders to send again, and answers by their key."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _tally()
    _redrive()
    _answered()
    _listed("job", "created_at", ("state", "tag", "queue"))
    _listed("transition", "seen_at", ("state", "tag", "queue"))
    # Deliveries come last: an index that is made keeps writers waiting until all of this is done.
    op.add_column("delivery", sa.Column("rule", sa.Text))
    _listed("delivery", "created_at", ("notifier",))
    op.create_index("delivery_listed_rule", "delivery", ["rule", "created_at", "n"])
    for state, name in ((3, "dead"), (4, "held"), (5, "merged"), (6, "dropped")):
        where = sa.text(f"state = {state}")
        op.create_index(
            f"delivery_listed_{name}", "delivery", ["created_at", "n"], sqlite_where=where, postgresql_where=where
        )


def _listed(table: str, when: str, by: Sequence[str]) -> None:
    op.create_index(f"{table}_listed", table, [when, "n"])
    for column in by:
        # Not the column itself: SQLite would take such an index for other questions too.
        value = sa.column(column).op("||")(sa.literal_column("''"))
        op.create_index(f"{table}_listed_{column}", table, [value, when, "n"])


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
