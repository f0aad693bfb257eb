"""Digests, silences, alarms of level rules, and the rules as they were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _number() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("n", kind, primary_key=True, autoincrement=True)


def upgrade() -> None:
    op.add_column("transition", sa.Column("rules", sa.String(12)))
    op.add_column("transition", sa.Column("still_at", sa.BigInteger))
    for column in (sa.Column("body", sa.Text), sa.Column("channel", sa.Text), sa.Column("held_by", sa.Text)):
        op.add_column("delivery", column)
    op.add_column("delivery", sa.Column("digest", sa.BigInteger))
    held = sa.text("digest IS NOT NULL")
    op.create_index("delivery_digest", "delivery", ["digest", "n"], sqlite_where=held, postgresql_where=held)
    _digest()
    _silence()
    _alarm()
    _rules()


def _digest() -> None:
    op.create_table(
        "digest",
        _number(),
        sa.Column("gate", sa.String(10), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("notifier", sa.String(100), nullable=False),
        sa.Column("key", sa.String(40), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("channel", sa.Text),
        sa.Column("wall", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("open", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("drops", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("passed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("members", sa.Integer, nullable=False, server_default="0"),
        sa.Column("delivery", sa.String(40)),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "digest_open",
        "digest",
        ["gate", "name", "notifier", "key"],
        unique=True,
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open"),
    )
    unended = sa.text("ended_at IS NULL")
    op.create_index("digest_due", "digest", ["due_at"], sqlite_where=unended, postgresql_where=unended)


def _silence() -> None:
    op.create_table(
        "silence",
        _number(),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("mode", sa.String(10), nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("begins_at", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
        sa.Column("ended_by", sa.Text),
        sa.Column("told", sa.Text, nullable=False, server_default="[]"),
        sqlite_autoincrement=True,
    )


def _alarm() -> None:
    op.create_table(
        "alarm",
        _number(),
        sa.Column("bucket", sa.String(100), nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("repeats", sa.Integer, nullable=False),
        sa.Column("notifiers", sa.Text, nullable=False),
        sa.Column("fired_at", sa.BigInteger, nullable=False),
        sa.Column("told_at", sa.BigInteger, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("recovered_at", sa.BigInteger),
        sa.UniqueConstraint("bucket", "job_id", "sequence", "rule", name="alarm_once"),
        sqlite_autoincrement=True,
    )


def _rules() -> None:
    op.create_table(
        "ruleset",
        sa.Column("sha", sa.String(12), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("used_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rule_fault",
        sa.Column("rule", sa.Text, primary_key=True),
        sa.Column("times", sa.Integer, nullable=False, server_default="0"),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
