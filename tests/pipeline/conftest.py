from __future__ import annotations

import pytest

from bridge.record.database import Database
from tests.support.explained import Explained
from tests.support.rig import OVER, Rig
from tests.support.slack_rig import SlackRig


@pytest.fixture(params=["sqlite"])
def dialect(request: pytest.FixtureRequest) -> str:
    """SQLite, where a test does not say `on_both`: each statement is asked of both by some."""
    return str(request.param)


@pytest.fixture
def rig(db: Database) -> Rig:
    """Notifies `ops` of all that is over; the first snapshot was a minute ago, at 09:00."""
    rig = Rig(db, OVER)
    rig.first_poll()
    return rig


@pytest.fixture
def explained(db: Database) -> Explained:
    return Explained(db)


@pytest.fixture
def slack(db: Database) -> SlackRig:
    return SlackRig(db)
