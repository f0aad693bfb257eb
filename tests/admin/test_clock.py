"""What is asked for over HTTP is due by the clock that workers go by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from bridge.record.database import SharedClock
from bridge.wiring.web import keep_time
from tests.conftest import only_postgresql
from tests.support.admin_world import World

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
