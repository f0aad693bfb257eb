from __future__ import annotations

import pytest

from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.records import Clock


@pytest.fixture(params=["sqlite"])
def dialect(request: pytest.FixtureRequest) -> str:
    """SQLite, where a test does not say `on_both`: each statement is asked of both by some."""
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ci(clock: Clock) -> FakeCi:
    return FakeCi(clock)


@pytest.fixture
def transport(clock: Clock) -> FakeTransport:
    return FakeTransport(clock)


@pytest.fixture
def poller(db: Database, ci: FakeCi, clock: Clock) -> Poller:
    return Poller(db=db, source=ci, clock=clock, worker="w1")
