"""A poll, or the telling of a digest, breaks off at each of its statements: no half of it stays on record."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from bridge.model import FAILED, RUNNING, SUCCESS
from bridge.pipeline.digests import DigestDispatcher
from bridge.record.database import Database
from bridge.record.schema import alarm
from tests.support.records import Clock, hours, minutes, rows
from tests.support.simulated_bridge import House

GROUP = '[[rule]]\nname = "over"\nto = "done"\nnotify = "ops"\ngroup.wait = "10m"\n'
STUCK = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nrecover = true\nnotify = "ops"\n'


@pytest.fixture
def clock() -> Clock:
    return Clock()


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


def test_a_digest_whose_telling_breaks_off_anywhere_is_told_once_and_whole(db: Database, clock: Clock) -> None:
    house = House(db, GROUP, clock)
    house.poll()
    digest_dispatcher = DigestDispatcher(db=db, book=lambda: house.book, clock=clock, monotonic=lambda: 0.0)
    for number in itertools.count(1):
        clock.advance(minutes(1))
        house.has(f"a{number}", FAILED)
        house.has(f"b{number}", SUCCESS)
        house.poll()
        clock.advance(minutes(10))
        broke_off = breaks_off(db, number, digest_dispatcher.tell_due)
        clock.advance(minutes(1))  # it may rest that long
        digest_dispatcher.tell_due()
        house.deliver()
        assert [one.title for one in house.heard()] == ["over: 1 Failed, 1 Success"] * number
        if not broke_off:
            break
    assert number > 5


def test_a_stay_whose_poll_breaks_off_anywhere_is_told_once_and_so_is_its_end(db: Database, clock: Clock) -> None:
    house = House(db, STUCK, clock)
    house.poll()
    for number in itertools.count(1):
        clock.advance(minutes(1))
        broke_off = []
        for state in (RUNNING, SUCCESS):
            house.has(f"j{number}", state, started_at=clock() - hours(1))
            broke_off.append(breaks_off(db, number, house.poll))
            house.poll()
            house.deliver()
            clock.advance(minutes(1))
            assert house.poll().stays == 0  # it is not told again
        assert [one.event["type"] for one in house.heard()] == ["ci.job.overdue", "ci.job.recovered"] * number
        assert len(rows(db, alarm)) == number
        if not any(broke_off):
            break
    assert number > 10
