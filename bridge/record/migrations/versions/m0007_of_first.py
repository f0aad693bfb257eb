"""Which of the jobs that cannot be read were in a first snapshot: these are no news when they can."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("job_problem", sa.Column("of_first", sa.Boolean, nullable=False, server_default=sa.text("false")))
