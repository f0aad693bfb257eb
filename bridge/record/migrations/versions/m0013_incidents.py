"""Incidents: rules over several jobs, and the jobs that count for them.

Workers of the version before go on: they have no such rules.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "incident",
        sa.Column("n", number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("rule", sa.String(100), nullable=False),
        sa.Column("key", sa.String(40), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("opened_at", sa.BigInteger),
        sa.Column("notified_at", sa.BigInteger),
        sa.Column("closed_at", sa.BigInteger),
        sa.Column("closed_why", sa.Text),
        sa.Column("acknowledged_at", sa.BigInteger),
        sa.Column("acknowledged_by", sa.Text),
        sa.Column("escalated_at", sa.BigInteger),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("last_at", sa.BigInteger),
        sa.Column("counted", sa.Integer, nullable=False, server_default="0"),
        sa.Column("total", sa.Integer, nullable=False, server_default="0"),
        sa.Column("expected", sa.Integer),
        sa.Column("said", sa.Integer, nullable=False, server_default="0"),
        sa.Column("notifiers", sa.Text, nullable=False, server_default="[]"),
        sa.Column("judged", sa.BigInteger, nullable=False, server_default="0"),
        sa.UniqueConstraint("rule", "key", "generation", name="incident_once"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "incident_job",
        sa.Column("n", number, primary_key=True, autoincrement=True),
        sa.Column("incident", number, sa.ForeignKey("incident.n"), nullable=False),
        sa.Column("bucket", sa.String(100), nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("happened_at", sa.BigInteger, nullable=False),
        sa.Column("counts", sa.Boolean, nullable=False),
        sa.Column("silent", sa.Boolean, nullable=False),
        sa.Column("left_at", sa.BigInteger),
        sa.UniqueConstraint("bucket", "job_id", "incident", name="incident_job_once"),
        sqlite_autoincrement=True,
    )
    for name, columns, condition, unique in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, "incident", columns, unique=unique, sqlite_where=where, postgresql_where=where)
    op.create_index("incident_job_order", "incident_job", ["incident", "happened_at", "n"])


# Not the column itself: SQLite would take such an index for other questions too.
_RULE = sa.column("rule").op("||")(sa.literal_column("''"))
_INDEXES: tuple[tuple[str, list[Any], str, bool], ...] = (
    ("incident_current", ["rule", "key"], "closed_at IS NULL", True),
    ("incident_due", ["due_at", "n"], "due_at IS NOT NULL", False),
    ("incident_open", ["opened_at", "n"], "opened_at IS NOT NULL AND closed_at IS NULL", False),
    ("incident_listed", ["opened_at", "n"], "opened_at IS NOT NULL", False),
    ("incident_listed_rule", [_RULE, "opened_at", "n"], "opened_at IS NOT NULL", False),
)
