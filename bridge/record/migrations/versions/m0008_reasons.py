"""Why an attempt failed and why a notifier is paused, as a word that programs go by.

What is there already stays without: only its sentence says why, and programs read no sentences.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("attempt", sa.Column("reason", sa.String(20)))
    op.add_column("notifier", sa.Column("paused_reason", sa.String(20)))
