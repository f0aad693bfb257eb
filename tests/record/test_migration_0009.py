"""Revision 0009: open orders become batches, whatever the version before left, and while its workers still run."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import bindparam, text
from sqlalchemy.exc import DBAPIError

from bridge.model import Hold, Sent
from bridge.record import migrations
from bridge.record.database import Database, at, ms
from bridge.record.outbox import batches, digests
from bridge.record.schema import DELIVERY_STATES
from tests.conftest import Opener
from tests.support.nouns import NOW, a_message, hours, minutes, new_delivery
from tests.support.records import claim, claimed_ids, ended, know_as_before, put_as_before, read, settle

# As the version before writes and asks.
_ORDER = text("""INSERT INTO redrive
    (id, spec, author, per_minute, created_at, after, up_to, total, done, next_at, ended_at)
    VALUES (:id, :spec, 'ann', 60, 0, :after, :up_to, 3, 1, 0, :ended_at)""")
_DUE = text("SELECT n FROM redrive WHERE ended_at IS NULL AND next_at <= 9000000000000")
_PUT = text("""INSERT INTO delivery
    (id, message, notifier, lane, state, due_at, attempts, lost, created_at, since, rule)
    VALUES (:id, :message, 'cms', 'a', 0, :now, 0, 0, :now, :now, '')""")
_REDRIVE = text("""UPDATE delivery SET state = 0, due_at = :now, since = :now, attempts = 0, lost = 0, ended_at = NULL,
    why = 'sent again by hand', retry_from = NULL, retry_due = NULL WHERE id = :id AND (state = 3 OR state = 6)""")
_CLAIM = text("""UPDATE delivery SET state = 1, lease = :lease, lease_until = :now, attempts = attempts + 1 WHERE n IN (
    SELECT n FROM delivery WHERE notifier = 'cms' AND state = 0 AND due_at <= :now AND (lane IS NULL OR NOT EXISTS (
        SELECT * FROM delivery AS other WHERE other.lane = delivery.lane AND other.notifier = delivery.notifier
        AND other.state < 2 AND (other.state = 1 OR other.n < delivery.n) AND other.n != delivery.n))
    ORDER BY due_at, n LIMIT 64) RETURNING id""")
_DEAD = ("done", "a1", "a2", "other", "ops", "late")
_STATE = text("UPDATE delivery SET state = :state, ended_at = :ended WHERE id IN :ids").bindparams(
    bindparam("ids", expanding=True)
)


@pytest.fixture
def old(empty_url: str, opened: Opener) -> Database:
    """A database at 0007: deliveries in every state, a digest that is held, open orders, and one that is over."""
    db = opened(empty_url)
    migrations.upgrade(db.engine, "0007")
    know_as_before(db, "cms", "ops")
    hold = Hold(gate="group", name="all", until=NOW + hours(1), key="k")
    put_as_before(db, *(new_delivery(f"is-{state}") for state in DELIVERY_STATES), new_delivery("grouped", hold=hold))
    put_as_before(
        db,
        *(new_delivery(name, key="a", message=a_message(f"m-{name}", rule="all")) for name in ("done", "a1", "a2")),
    )
    put_as_before(db, new_delivery("ops", to="ops"), new_delivery("other", message=a_message("m-other", rule="failed")))
    put_as_before(db, new_delivery("late", message=a_message("m-late", rule="all")))
    with db.write() as tx:
        for number, state in enumerate(DELIVERY_STATES):
            tx.execute(_STATE, {"state": number, "ended": ms(NOW), "ids": [f"is-{state}"]})
        tx.execute(_STATE, {"state": 3, "ended": ms(NOW), "ids": list(_DEAD)})
        tx.execute(text("UPDATE delivery SET rule = NULL WHERE id = 'a2'"))  # by a version before 0004
        numbers = {row.id: row.n for row in tx.execute(text("SELECT id, n FROM delivery"))}
        marks = {"after": numbers["done"], "up_to": numbers["other"]}
        which = '{"state":"dead","notifier":"cms","rule":"all","since":"2026-11-21T09:00:00Z"}'
        tx.execute(_ORDER, {"id": "rdr_1", "spec": which, "ended_at": None, **marks})
        dropped = '{"state":"dropped","until":"2026-11-21T10:00:00+00:00"}'
        tx.execute(_ORDER, {"id": "rdr_2", "spec": dropped, "ended_at": None, "after": 0, "up_to": numbers["other"]})
        tx.execute(_ORDER, {"id": "rdr_3", "spec": '{"state":"dead"}', "ended_at": 1, "after": 0, "up_to": 99})
    return db


def _deliveries(db: Database) -> dict[str, dict[str, Any]]:
    with db.read() as tx:
        found = [dict(row) for row in tx.execute(text("SELECT * FROM delivery ORDER BY n")).mappings()]
    return {row["id"]: {name: value for name, value in row.items() if name != "batch"} for row in found}


def _batches(db: Database) -> dict[str, str | None]:
    with db.read() as tx:
        return {row.id: row.batch for row in tx.execute(text("SELECT id, batch FROM delivery ORDER BY n"))}


def test_what_is_left_of_an_open_order_becomes_a_batch_at_its_rate(old: Database) -> None:
    before = _deliveries(old)
    migrations.upgrade(old.engine, "0009")
    resent = {id_: batch for id_, batch in _batches(old).items() if batch}
    assert resent == {"is-dropped": "rdr_2", "a1": "rdr_1", "a2": "rdr_1"}
    after = _deliveries(old)
    assert {id_: row for id_, row in after.items() if id_ not in resent} == {
        id_: row for id_, row in before.items() if id_ not in resent
    }
    first, second = after["a1"], after["a2"]
    assert second["due_at"] - first["due_at"] == 1_000  # sixty a minute
    for row in (first, second, after["is-dropped"]):
        assert (row["state"], row["attempts"], row["ended_at"], row["why"]) == (0, 0, None, "sent again by hand")
    assert read(old, batches.progress, "rdr_1", now=NOW + hours(10**4)) == batches.Batch(id="rdr_1", waiting=2)


def test_it_is_done_once(old: Database) -> None:
    migrations.upgrade(old.engine, "0009")
    before = _deliveries(old)
    with old.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '0008'"))
        if old.sqlite:  # as after an upgrade that was cut off: SQLite undoes it
            tx.execute(text("DROP TRIGGER redrive_closed"))
            tx.execute(text("DROP INDEX delivery_batch"))
            tx.execute(text("ALTER TABLE delivery DROP COLUMN batch"))
    migrations.upgrade(old.engine, "0009")
    assert _deliveries(old) == before


def test_workers_of_the_version_before_find_no_open_order_and_take_no_new_one(old: Database) -> None:
    old.upgrade()
    with old.read() as tx:
        assert tx.execute(_DUE).all() == []
        over = tx.execute(text("SELECT id, done, ended_at > 1 AS is_new FROM redrive ORDER BY id")).all()
    assert [(row.id, row.done, bool(row.is_new)) for row in over] == [
        ("rdr_1", 3, True),
        ("rdr_2", 2, True),
        ("rdr_3", 1, False),
    ]
    order = {"id": "rdr_4", "spec": "{}", "after": 0, "up_to": 1, "ended_at": None}
    with pytest.raises(DBAPIError, match="takes no orders any more"), old.write() as tx:
        tx.execute(_ORDER, order)


def test_workers_of_both_versions_send_each_once_and_what_is_due_in_its_order(old: Database) -> None:
    old.upgrade()
    due = _deliveries(old)["a2"]["due_at"]
    sent: list[str] = []
    with old.write() as tx:
        tx.execute(_PUT, {"id": "a3", "message": "m-a1", "now": due})
        tx.execute(_REDRIVE, {"id": "a2", "now": due})  # which waits already
    moment = at(due) + minutes(1)
    for turn in range(8):
        if turn % 2:
            mine = claim(old, now=moment)
            sent += [one.id for one in mine]
            settle(old, *(ended(one, Sent()) for one in mine), now=moment)
        else:
            with old.write() as tx:
                theirs = tx.execute(_CLAIM, {"lease": f"w0.{turn}", "now": ms(moment)}).scalars().all()
                done = text("UPDATE delivery SET state = 2, lease = NULL WHERE lease = :lease")
                tx.execute(done, {"lease": f"w0.{turn}"})
            sent += theirs
    assert sorted(sent) == ["a1", "a2", "a3", "is-dropped", "is-waiting"]
    assert [one for one in sent if one.startswith("a")] == ["a1", "a2", "a3"]
    assert claimed_ids(old, now=moment) == []


def test_what_a_digest_holds_is_told_after_the_upgrade(old: Database) -> None:
    old.upgrade()
    with old.write() as tx:
        (number,) = digests.due(tx, now=NOW + hours(1))
        assert digests.counts(tx, number) == {"": 1}
