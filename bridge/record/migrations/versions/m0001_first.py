"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# SQLite counts by itself only in INTEGER columns.
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _number() -> sa.Column[Any]:
    return sa.Column("n", _Number, primary_key=True, autoincrement=True)


def _index(name: str, table: str, columns: list[str], where: str | None = None, *, unique: bool = False) -> None:
    clause = sa.text(where) if where else None
    op.create_index(name, table, columns, unique=unique, sqlite_where=clause, postgresql_where=clause)


def upgrade() -> None:
    op.create_table(
        "watch",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("next_poll_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("polled_at", sa.BigInteger),
        sa.Column("ok_at", sa.BigInteger),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        sa.Column("calls", sa.Integer, nullable=False, server_default="0"),
        sa.Column("jobs", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "stream",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("told_from", sa.BigInteger, nullable=False),
        sa.Column("mark", sa.BigInteger),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("token", sa.Text),
        sa.Column("until", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("beat_at", sa.BigInteger, nullable=False),
        sa.Column("rules_sha", sa.String(12)),
        sa.Column("rules_fault", sa.Text),
    )
    op.create_table(
        "job",
        _number(),
        sa.Column("bucket", sa.String(100), nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("tag", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.UniqueConstraint("bucket", "id", name="job_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "transition",
        _number(),
        sa.Column("bucket", sa.String(100), nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("was", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("tag", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("watch", sa.String(100), nullable=False),
        sa.Column("happened_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("silent", sa.Text),
        sa.Column("verdicts", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.UniqueConstraint("bucket", "job_id", "sequence", name="transition_once"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "message",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("bucket", sa.String(100)),
        sa.Column("job_id", sa.Text),
        sa.Column("sequence", sa.Integer),
        sa.Column("rule", sa.Text),
        sa.Column("state", sa.Text),
        sa.Column("workflow_run", sa.Text),
        sa.Column("says", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("happened_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "notifier",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("max_in_flight", sa.Integer, nullable=False),
        sa.Column("interval_ms", sa.BigInteger),
        sa.Column("burst", sa.Integer, nullable=False, server_default="1"),
        sa.Column("used_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("not_before", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("paused_at", sa.BigInteger),
        sa.Column("paused_why", sa.Text),
        sa.Column("ok_at", sa.BigInteger),
    )
    op.create_table(
        "thread",
        sa.Column("notifier", sa.String(100), primary_key=True),
        sa.Column("thread", sa.Text, primary_key=True),
        sa.Column("receipt", sa.Text, nullable=False),
    )
    op.create_table(
        "delivery",
        _number(),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("message", sa.String(40), sa.ForeignKey("message.id"), nullable=False),
        sa.Column("notifier", sa.String(100), nullable=False),
        sa.Column("lane", sa.Text),
        sa.Column("thread", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("state", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease", sa.Text),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("why", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "attempt",
        _number(),
        sa.Column("delivery", _Number, sa.ForeignKey("delivery.n"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("why", sa.Text),
        sa.Column("status", sa.Integer),
        sa.Column("answer", sa.Text),
        sa.Column("address", sa.Text),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ms", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "job_open", "job", ["stream", "created_at"], sqlite_where=sa.text("open = 1"), postgresql_where=sa.text("open")
    )
    _index("job_created", "job", ["stream", "created_at"])
    _index("job_by_id", "job", ["id"])
    _index("transition_job", "transition", ["job_id"])
    _index("message_job", "message", ["job_id"])
    _index("delivery_due", "delivery", ["notifier", "due_at", "n"], "state = 0")
    _index("delivery_sending", "delivery", ["notifier", "lease_until"], "state = 1")
    _index("delivery_dead", "delivery", ["notifier", "n"], "state = 3")
    _index("delivery_lane", "delivery", ["lane", "notifier", "n"], "state < 2 AND lane IS NOT NULL")
    _index("delivery_lane_one", "delivery", ["lane", "notifier"], "state = 1 AND lane IS NOT NULL", unique=True)
    _index("delivery_message", "delivery", ["message"])
    _index("attempt_delivery", "attempt", ["delivery"])
    if op.get_bind().dialect.name == "postgresql":
        # Every row of it is updated two or three times in its life; the default vacuum comes far too late.
        op.execute(
            "ALTER TABLE delivery SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 500)"
        )
