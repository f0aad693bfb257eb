"""A poll, or the transaction of a digest, breaks off at each of its statements: no half of it remains on record."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from bridge.model import FAILED, RUNNING, SUCCESS
from bridge.pipeline.digests import send_due_digests
from bridge.record.database import Database
from bridge.record.schema import alarms
from tests.support.nouns import hours, minutes
from tests.support.records import rows
from tests.support.rig import OVER, STUCK, Rig


def breaks_off(db: Database, number: int, does: Callable[[], object]) -> bool:
    """Let the connection be lost at the statement of this number; tell whether there was one."""
    statements: list[str] = []

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)
        if len(statements) == number:
            raise OperationalError(statement, None, ConnectionError("the connection is lost"))

    event.listen(db.engine, "before_cursor_execute", fail)
    with suppress(OperationalError):
        does()
    event.remove(db.engine, "before_cursor_execute", fail)
    return len(statements) >= number


def test_a_digest_whose_transaction_breaks_off_anywhere_is_sent_once_and_whole(db: Database) -> None:
    rig = Rig(db, OVER + 'group.wait = "10m"\n')
    rig.poll()
    for number in itertools.count(1):
        rig.clock.advance(minutes(1))
        rig.has(f"a{number}", FAILED)
        rig.has(f"b{number}", SUCCESS)
        rig.poll()
        rig.clock.advance(minutes(10))
        broke_off = breaks_off(db, number, lambda: send_due_digests(db, rig.book, rig.clock()))
        rig.clock.advance(minutes(1))  # it may rest that long
        send_due_digests(db, rig.book, rig.clock())
        rig.deliver()
        assert rig.titles() == ["over: 1 Failed, 1 Success"] * number
        if not broke_off:
            break
    assert number > 5


def test_an_overdue_job_whose_poll_breaks_off_anywhere_notifies_once_and_so_does_its_end(db: Database) -> None:
    rig = Rig(db, STUCK + "recover = true\n")
    rig.poll()
    for number in itertools.count(1):
        rig.clock.advance(minutes(1))
        broke_off = []
        for state in (RUNNING, SUCCESS):
            rig.has(f"j{number}", state, started_at=rig.clock() - hours(1))
            broke_off.append(breaks_off(db, number, rig.poll))
            rig.sees()
            rig.clock.advance(minutes(1))
            assert rig.poll().overdue == 0  # it does not fire again
        assert [one.event["type"] for one in rig.received()] == ["ci.job.overdue", "ci.job.recovered"] * number
        assert len(rows(db, alarms)) == number
        if not any(broke_off):
            break
    assert number > 10


INCIDENTS = """
[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 2"
within = "10m"
recover = true
notify = "ops"

[[rule]]
name = "asset"
all = "done"
by = ["queue"]
expect = 2
notify = "cms"
"""


def test_an_incident_whose_polls_break_off_anywhere_opens_and_closes_once(db: Database) -> None:
    rig = Rig(db, INCIDENTS)
    rig.poll()
    for number in itertools.count(1):
        rig.clock.advance(minutes(1))
        rig.has(f"a{number}", FAILED, queue=f"q{number}")
        rig.has(f"b{number}", FAILED, queue=f"q{number}")
        broke_off = [breaks_off(db, number, rig.poll)]
        rig.sees()
        rig.clock.advance(minutes(11))
        broke_off.append(breaks_off(db, number, rig.poll))
        rig.sees()
        assert [one.event["type"] for one in rig.received("ops")] == [
            "ci.incident.opened",
            "ci.incident.closed",
        ] * number
        assert [one.event["data"]["jobs_total"] for one in rig.received("cms")] == [2] * number
        if not any(broke_off):
            break
    assert number > 20
