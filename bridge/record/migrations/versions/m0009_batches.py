"""Resending many deliveries is a batch: each is due at a time of its own. Orders that are open become batches.

The tables `redrive` and `answered` stay for one version, as workers of the version before may still run: they find no
open order, and are refused when they are given one.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_OPEN = sa.text("SELECT * FROM redrive WHERE ended_at IS NULL ORDER BY n")
_CONDITIONS = {
    "notifier": "d.notifier = :notifier",
    "rule": "coalesce(d.rule, (SELECT rule FROM message WHERE message.id = d.message)) = :rule",
    "job": "d.message IN (SELECT id FROM message WHERE job_id = :job)",
    "digest": "d.digest IN (SELECT n FROM digest WHERE delivery = :digest)",
    "since": "d.created_at >= :since",
    "until": "d.created_at < :until",
}
_STATES = {"dead": 3, "dropped": 6}
_RESEND = """
    UPDATE delivery SET state = 0, due_at = :now + chosen.place * 60000 / :per_minute,
        since = :now + chosen.place * 60000 / :per_minute, batch = :id, attempts = 0, lost = 0, ended_at = NULL,
        why = 'sent again by hand', retry_from = NULL, retry_due = NULL
    FROM (
        SELECT d.n, row_number() OVER (ORDER BY d.n) - 1 AS place FROM delivery d
        WHERE d.n > :after AND d.n <= :up_to AND d.state = :state {}
    ) AS chosen
    WHERE delivery.n = chosen.n AND delivery.state = :state"""
_REFUSED = "this version takes no orders any more: ask the next one, which is being started"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # Each by itself, so that nobody waits for the table while the index is built or orders become batches; what is
        # cut off is completed by the next upgrade.
        with op.get_context().autocommit_block():
            op.add_column("delivery", sa.Column("batch", sa.String(40)), if_not_exists=True)
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS delivery_batch")
            _index()
            _close_orders_on_postgresql()
    else:
        op.add_column("delivery", sa.Column("batch", sa.String(40)))
        _index()
        _close_orders_on_sqlite()
    _turn_orders()


def _index() -> None:
    condition = sa.text("batch IS NOT NULL")
    op.create_index(
        "delivery_batch", "delivery", ["batch", "state", "due_at"], sqlite_where=condition,
        postgresql_where=condition, postgresql_concurrently=True,
    )  # fmt: skip


def _close_orders_on_postgresql() -> None:
    refuse = f"BEGIN RAISE EXCEPTION '{_REFUSED}'; END"
    op.execute(f"CREATE OR REPLACE FUNCTION redrive_closed() RETURNS trigger LANGUAGE plpgsql AS $${refuse}$$")
    op.execute("DROP TRIGGER IF EXISTS redrive_closed ON redrive")
    op.execute("CREATE TRIGGER redrive_closed BEFORE INSERT ON redrive FOR EACH ROW EXECUTE FUNCTION redrive_closed()")


def _close_orders_on_sqlite() -> None:
    op.execute(f"CREATE TRIGGER redrive_closed BEFORE INSERT ON redrive BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END")


def _turn_orders() -> None:
    """Resend what is left of each open order, at its rate, and end it: no worker carries it out a second time."""
    bind = op.get_bind()
    # A worker that is carrying one out has its row: it is waited for, and its mark is read after it.
    locked = sa.text(f"{_OPEN.text} FOR UPDATE") if bind.dialect.name == "postgresql" else _OPEN
    now = time.time_ns() // 1_000_000
    for order in bind.execute(locked).all():
        _turn(bind, order, now)


def _turn(bind: sa.Connection, order: sa.Row[Any], now: int) -> None:
    wanted = json.loads(order.spec)
    state = _STATES[wanted.pop("state")]
    conditions = "".join(f" AND {_CONDITIONS[key]}" for key in wanted)
    times = {key: _ms(wanted[key]) for key in ("since", "until") if key in wanted}
    marks = {"after": order.after, "up_to": order.up_to, "per_minute": order.per_minute, "id": order.id}
    resent = bind.execute(sa.text(_RESEND.format(conditions)), {**wanted, **times, **marks, "state": state, "now": now})
    bind.execute(
        sa.text("UPDATE redrive SET ended_at = :now, done = done + :more, after = up_to WHERE n = :n"),
        {"now": now, "more": resent.rowcount, "n": order.n},
    )


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
