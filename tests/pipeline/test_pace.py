"""How often CI is asked: by all processes together, and by a watch with a rate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from bridge.collect.client import TencentCi
from bridge.collect.credentials import Credentials
from bridge.model import Pace, Watch
from bridge.pipeline.health import Reader, assess, rate_note
from bridge.pipeline.poll import Halted
from bridge.pipeline.poller import Poller
from bridge.record.database import Database
from bridge.record.polling import leases
from bridge.record.queries import gauges
from bridge.record.queries.lists import Facts
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from tests.conftest import on_both
from tests.support.nouns import minutes, seconds
from tests.support.rig import GIVEN, Rig

BUCKET = "clips-1250000000"
OWN = GIVEN.replace('lookback = "24h"', 'lookback = "24h"\nrate = "RATE"')


@pytest.fixture
def rig(db: Database) -> Rig:
    """A rig that has not polled yet."""
    return Rig(db)


class World:
    """A real client for each process, a simulated CI, and when that was asked for jobs."""

    def __init__(self, rig: Rig, ci: CiSimulator) -> None:
        self.rig, self.ci = rig, ci
        self.asked: list[datetime] = []
        self.processes = 0
        ci.fault = self._note

    def _note(self, _: object) -> None:
        self.asked.append(self.rig.clock())

    def process(self, *, halted: bool = False) -> Poller:
        """Start a process: its monotonic clock is another, and it remembers nothing."""
        self.processes += 1
        started = 1_000.0 * self.processes

        def sleep(seconds_: float) -> None:
            if halted:
                raise Halted
            self.rig.clock.advance(seconds(seconds_))

        source = TencentCi(
            credentials=Credentials(secret_id=DEMO_SECRET_ID, secret_key=DEMO_SECRET_KEY),
            endpoint=self.ci.url,
            rate=self.rig.book.rate,
            clock=lambda: self.rig.clock().timestamp(),
            monotonic=lambda: self.rig.clock().timestamp() - started,
            sleep=sleep,
        )
        return self.rig.new_poller(source=source)

    def most_in(self, span: timedelta) -> int:
        return max(sum(at <= one < at + span for one in self.asked) for at in self.asked)


@contextmanager
def world(rig: Rig, rules: str) -> Iterator[World]:
    rig.start("", given=rules)
    with CiSimulator(clock=lambda: rig.clock().timestamp()) as ci:
        yield World(rig, ci)


def the_watch(rig: Rig) -> tuple[Watch, Facts]:
    with rig.db.read() as tx:
        (row,) = gauges.read_watches(tx)
    return rig.book.watches[0], row


def poll(rig: Rig, poller: Poller) -> None:
    poller.poll_once(rig.book.watches[0], rig.book)
    poller.source.close()


def test_restarts_do_not_burst(rig: Rig) -> None:
    with world(rig, '[defaults]\nrate = "3/20s"\n' + GIVEN) as there:
        for _ in range(6):
            poll(rig, there.process())
        assert len(there.asked) >= 13  # two lists each, and the queues once
        assert there.most_in(seconds(20)) <= 3


@on_both
def test_a_watch_s_own_rate_holds_over_restarts_too_and_its_cost_is_known(rig: Rig) -> None:
    with world(rig, OWN.replace("RATE", "2/50s")) as there:
        poll(rig, there.process())
        watch, row = the_watch(rig)
        assert (row["waited_seconds"], rate_note(watch, row)) == (0, None)
        rig.clock.advance(seconds(10))
        poll(rig, there.process())
        assert there.most_in(seconds(50)) <= 2
        watch, row = the_watch(rig)
    # Two lists and the queues were asked for at 0 s (the third call waited), and two lists from 60 s on.
    assert 30 <= row["waited_seconds"] <= 50
    assert rate_note(watch, row | {"took_seconds": 50.0, "waited_seconds": 40.0}) == (
        "polls take 50 s, 40 s of it because of its rate: states are seen within 5 min 50 s"
    )


def test_a_poll_that_is_stopped_tells_its_successor_what_it_asked(rig: Rig) -> None:
    with world(rig, '[defaults]\nrate = "1/20s"\n' + GIVEN) as there:
        stopped = there.process(halted=True)
        assert stopped.poll_once(rig.book.watches[0], rig.book) is None
        stopped.source.close()
        assert len(there.asked) == 1
        poll(rig, there.process())
        assert there.most_in(seconds(20)) == 1


def test_a_process_takes_over_what_another_stored_and_keeps_what_it_knows_itself(rig: Rig) -> None:
    told: list[Pace] = []
    mine = Pace(calls=((rig.clock(), 1),))
    rig.ci.set_pace = lambda _bucket, pace, *, now: told.append(pace)  # type: ignore[method-assign]  # noqa: ARG005
    rig.ci.pace = lambda _bucket, *, now: mine  # type: ignore[method-assign]  # noqa: ARG005
    rig.poll()
    rig.clock.advance(minutes(5))
    rig.poll()
    assert told == []
    other = Pace(calls=((rig.clock(), 7),), slowdown=2.0)
    with rig.db.write() as tx:
        leases.set_pace(tx, BUCKET, leases.text_of(other))
    rig.clock.advance(minutes(5))
    rig.poll()
    assert told == [other]


def test_what_waiting_costs_is_said_and_makes_no_watch_overdue(rig: Rig) -> None:
    rig.start("", given=GIVEN.replace('every = "5m"', 'every = "10s"'))
    rig.poll()
    watch, row = the_watch(rig)
    slow = row | {"took_seconds": 45.0, "waited_seconds": 45.0}
    said = "polls take 45 s, 45 s of it because of its bucket's rate: states are seen within 55 s"
    assert rate_note(watch, slow) == said
    assert rate_note(watch, row | {"took_seconds": 1.0, "waited_seconds": 0.9}) is None
    with rig.db.read() as tx:
        state = gauges.state(tx, now=rig.clock())
    now = rig.clock() + seconds(100)  # the poll that is under way began 45 s after the one before
    for found, kinds in ((slow, set()), (row, {"watches that are overdue"})):
        health = assess(replace(state, watches=[found]), rig.book, Reader(sha=rig.book.sha, since=rig.clock()), now)
        assert {warning.kind for warning in health.of("polls").warnings} == kinds
