"""Rules keep their file, masked, and when they were accepted. Those of before have neither."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    if_not_exists = op.get_bind().dialect.name == "postgresql" or None
    op.add_column("ruleset", sa.Column("source", sa.Text), if_not_exists=if_not_exists)
    op.add_column("ruleset", sa.Column("accepted_at", sa.BigInteger), if_not_exists=if_not_exists)
