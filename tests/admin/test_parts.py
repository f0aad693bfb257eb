"""What every part works with: rules that are reloaded, and the clock of the workers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from bridge.admin import Reloading
from bridge.record.database import SharedClock
from bridge.wiring.web import keep_time
from tests.conftest import only_postgresql
from tests.support.admin_world import RULES, World, a_book


class FakeRules:
    def __init__(self) -> None:
        self.books = a_book()
        self.looks: list[float] = []
        self.hold = threading.Event()
        self.hold.set()
        self.looking = threading.Event()

    def check_file(self, now_s: float) -> None:
        self.looks.append(now_s)
        self.looking.set()
        self.hold.wait(5)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def reloading(rules: FakeRules, clock: Clock) -> Reloading:
    return Reloading(lambda: rules.books, rules.check_file, monotonic=clock)


def test_the_file_is_looked_at_every_five_seconds_at_most() -> None:
    rules, clock = FakeRules(), Clock()
    current = reloading(rules, clock)
    for clock.now in (100, 104.9, 105, 105.1, 109.9, 110):
        current.book()
    assert rules.looks == [105, 110]


def test_new_rules_are_handed_out() -> None:
    rules = FakeRules()
    current = reloading(rules, Clock())
    rules.books = a_book(RULES + "\n# changed")
    assert current.book() is rules.books


def test_a_request_does_not_wait_for_another_that_looks_at_the_file() -> None:
    rules, clock = FakeRules(), Clock()
    current = reloading(rules, clock)
    clock.now += 5
    rules.hold.clear()
    first = threading.Thread(target=current.book)
    first.start()
    assert rules.looking.wait(5)
    clock.now += 5
    assert current.book() is rules.books
    assert len(rules.looks) == 1
    rules.hold.set()
    first.join(5)


AHEAD = timedelta(hours=3)


@only_postgresql
def test_a_web_machine_whose_clock_is_wrong_goes_by_the_databases(either_world: World) -> None:
    app = either_world.app()
    clock = SharedClock(either_world.db, lambda: datetime.now(UTC) + AHEAD)
    keep_time(app, clock)
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    assert clock() - datetime.now(UTC) > AHEAD / 2  # the process alone was asked
    assert client.get("/readyz").status_code in (200, 503)
    with either_world.db.read() as tx:
        now = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert abs(clock() - now) < timedelta(minutes=1)
