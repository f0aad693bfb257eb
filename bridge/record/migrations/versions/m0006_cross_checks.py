"""What is needed to cross-check what others say: clocks, jobs, rules files, and how long a receiver was tried."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    _job_problem()
    _shared_number()
    for name, column in _columns():
        op.add_column(name, column)
    accepted = sa.text("accepted IS NOT NULL")
    op.create_index(
        "ruleset_accepted", "ruleset", ["stands_in", "accepted", "sha"], sqlite_where=accepted,
        postgresql_where=accepted,
    )  # fmt: skip


def _columns() -> list[tuple[str, sa.Column[object]]]:
    return [
        ("watch", sa.Column("clock_ms", sa.BigInteger)),
        ("watch", sa.Column("behind", sa.Text)),
        ("stream", sa.Column("out_at", sa.BigInteger)),
        ("stream", sa.Column("seen_at", sa.BigInteger)),
        ("worker", sa.Column("clock_fault", sa.Text)),
        ("worker", sa.Column("rules_note", sa.Text)),
        ("ruleset", sa.Column("accepted", sa.BigInteger)),
        ("ruleset", sa.Column("stands_in", sa.Boolean, nullable=False, server_default=sa.text("false"))),
        ("ruleset", sa.Column("empty_allowed", sa.Boolean, nullable=False, server_default=sa.text("false"))),
        ("notifier", sa.Column("broken_run", sa.BigInteger)),
        ("notifier", sa.Column("probed_run", sa.BigInteger)),
        ("notifier", sa.Column("asked_run", sa.BigInteger)),
        # Last: who changes a table that is in use keeps everybody waiting until all of this is done.
        ("delivery", sa.Column("retry_from", sa.BigInteger)),
        ("delivery", sa.Column("retry_due", sa.BigInteger)),
    ]


def _job_problem() -> None:
    op.create_table(
        "job_problem",
        sa.Column("bucket", sa.String(100), primary_key=True),
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("times", sa.Integer, nullable=False, server_default="1"),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("ask_at", sa.BigInteger),
        sa.Column("seen_at", sa.BigInteger),
        sa.Column("detail", sa.Text, nullable=False, server_default="[]"),
    )
    asked = sa.text("ask_at IS NOT NULL")
    op.create_index("job_problem_ask", "job_problem", ["stream", "ask_at"], sqlite_where=asked, postgresql_where=asked)


def _shared_number() -> None:
    op.create_table(
        "shared_number",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("at", sa.BigInteger, nullable=False, server_default="0"),
    )
