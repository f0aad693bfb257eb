"""The breaker's count, and what pruning must remember."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("delivery", sa.Column("lost", sa.Integer, nullable=False, server_default="0"))
    op.add_column("notifier", sa.Column("failures", sa.Integer, nullable=False, server_default="0"))
    op.add_column("notifier", sa.Column("claims", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("worker", sa.Column("revision", sa.String(10), nullable=False, server_default="0001"))
    op.add_column("thread", sa.Column("used_at", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "horizon",
        sa.Column("bucket", sa.String(100), primary_key=True),
        sa.Column("pruned_to", sa.BigInteger, nullable=False),
    )
