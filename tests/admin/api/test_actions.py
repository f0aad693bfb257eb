"""GET /api/v1/actions: what people did, found by who, what, subject and time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.model import Rejected
from bridge.record import actions
from bridge.record.actions import Action, Author
from tests.support.admin_world import NOON, READ, World
from tests.support.nouns import by_hand


def get(world: World, query: str = "", status: int = 200) -> Any:
    answer = world.client(READ).get(f"/api/v1/actions{query}")
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def subjects(world: World, query: str) -> list[str]:
    return [item["subject"] for item in get(world, query)["items"]]


def test_what_was_done_is_listed_with_before_and_after(either_world: World) -> None:
    world = either_world
    delivery = world.delivery_of(1)
    world.attempt(Rejected("no"))
    by_hand(world.db, now=NOON).discard(delivery, "not needed")
    (item,) = get(world)["items"]
    assert item.pop("n") > 0  # on PostgreSQL it goes on after those of other tests
    assert item == {
        "at": "2026-11-21T12:00:00.000Z", "who": "ann", "claimed": None, "what": "discard", "subject": delivery,
        "before": {"state": "dead"}, "after": {"state": "discarded", "reason": "not needed"},
    }  # fmt: skip


def test_actions_are_found_by_who_what_subject_and_time(either_world: World) -> None:
    world = either_world
    for minute, (who, what, subject) in enumerate(
        (("ann", "pause_watch", "vod"), ("ben", "resume_watch", "vod"), ("ann", "test_notifier", "cms"))
    ):
        with world.db.write() as tx:
            actions.add(tx, [Action(what=what, subject=subject)], who=Author(who), now=NOON + timedelta(minutes=minute))
    for query, found in (
        ("", ["cms", "vod", "vod"]), ("?who=ann", ["cms", "vod"]), ("?what=resume_watch", ["vod"]),
        ("?subject=cms", ["cms"]), ("?subject=vod&who=ann", ["vod"]), ("?who=eve", []),
        ("?since=2026-11-21T12:01:00Z", ["cms", "vod"]), ("?until=2026-11-21T12:01:00Z", ["vod"]),
    ):  # fmt: skip
        assert subjects(world, query) == found, query
    first = get(world, "?limit=2")
    assert [item["who"] for item in get(world, f"?limit=2&cursor={first['cursor']}")["items"]] == ["ann"]


@pytest.mark.parametrize(
    ("query", "said"),
    [("?what=ponder", "what: Input should be 'redrive'"), ("?who=", "who: is empty"), ("?job=j1", "unknown")],
)
def test_a_filter_that_cannot_be_read_is_refused(world: World, query: str, said: str) -> None:
    assert said in get(world, query, 400)["detail"]


def test_what_a_later_version_stored_is_shown(world: World) -> None:
    with world.db.write() as tx:
        actions.add(tx, [Action(what="ponder_life", subject="x")], who=Author("ann"), now=NOON)
    assert subjects(world, "") == ["x"]
