"""What keeping to `rate` costs a watch, on its page and in the API."""

from __future__ import annotations

from datetime import timedelta

from flask.testing import FlaskClient
from sqlalchemy import update

from bridge.record.polling import leases
from bridge.record.schema import watches
from tests.admin.pages.reading import text_of
from tests.support.admin_world import RULES, World, a_book


def test_a_watch_says_what_its_rate_costs(world: World, admin: FlaskClient) -> None:
    world.book = a_book(RULES.replace('region = "ap-chongqing"', 'region = "ap-chongqing"\nrate = "4/10s"'))
    world.polled()
    listed = world.client().get("/api/v1/watches").json["items"][0]
    assert (listed["rate"], listed["waited_seconds"], listed["rate_note"]) == ("4/10s", None, None)
    assert "because of" not in admin.get("/watches").text
    with world.db.write() as tx:
        leases.waited(tx, "vod", timedelta(seconds=40))
        tx.execute(update(watches).values(took_ms=45_000))
    said = "polls take 45 s, 40 s of it because of its rate: states are seen within 1 min 15 s"
    listed = world.client().get("/api/v1/watches").json["items"][0]
    assert (listed["took_seconds"], listed["waited_seconds"], listed["rate_note"]) == (45, 40, said)
    page = text_of(admin.get("/watches").text)
    assert f"P{said[1:]}." in page
    assert "Rate 4/10s" in page
