"""Which kind of rule an incident is of. Those of before do not say; workers of the version before go on without it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    if_not_exists = op.get_bind().dialect.name == "postgresql" or None
    op.add_column("incident", sa.Column("kind", sa.String(20)), if_not_exists=if_not_exists)
