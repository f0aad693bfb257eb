"""Actions: who did what, to what, and what it changed."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.model import Rejected
from bridge.record import actions
from bridge.record.actions import Action, Author
from tests.admin.pages.reading import text_of
from tests.support.admin_world import NOON, World
from tests.support.nouns import by_hand

EVIL = '"><script>alert(1)</script>\u202e'


def did(world: World, what: str, subject: str, who: str = "ann", **after: Any) -> None:
    with world.db.write() as tx:
        actions.add(tx, [Action(what=what, subject=subject, after=after)], who=Author(who), now=NOON)


def test_a_row_shows_who_did_what_and_what_it_changed(world: World, reader: FlaskClient) -> None:
    delivery = world.delivery_of(1)
    world.attempt(Rejected("no"))
    by_hand(world.db, now=NOON).discard(delivery, "not needed")
    page = reader.get("/actions").text
    assert f"ann discard {delivery} state dead → discarded reason not needed" in text_of(page)
    assert f'href="/deliveries/{delivery}"' in page
    assert 'href="/actions" aria-current="page"' in page


@pytest.mark.parametrize(
    ("what", "subject", "link"),
    [
        ("redrive_batch", "rdr_1", "/deliveries/batches/rdr_1"), ("acknowledge_incident", "inc_1", "/incidents/inc_1"),
        ("pause_watch", "vod", "/watches#watch-vod"), ("test_notifier", "ops/1", "/notifiers#notifier-ops/1"),
        ("end_silence", "sil_1", "/silences#silence-sil_1"), ("notify", "dlv_1", "/deliveries/dlv_1"),
    ],
)  # fmt: skip
def test_what_it_was_done_to_is_linked(world: World, reader: FlaskClient, what: str, subject: str, link: str) -> None:
    did(world, what, subject)
    assert f'href="{link}"' in reader.get("/actions").text


def test_actions_are_filtered_by_the_address(world: World, reader: FlaskClient) -> None:
    did(world, "pause_watch", "vod")
    did(world, "test_notifier", "cms", who="ben")
    assert "ben" not in text_of(reader.get("/actions?who=ann").text)
    assert "pause watch vod" in text_of(reader.get("/actions?what=pause_watch&subject=vod").text)
    assert "No action matches." in reader.get("/actions?who=eve").text
    assert 'role="alert"' in reader.get("/actions?since=soon").text


def test_hostile_texts_and_kinds_of_later_versions_are_shown_as_texts(world: World, reader: FlaskClient) -> None:
    did(world, "make_silence", EVIL, who=EVIL, reason=EVIL, matches={EVIL: [EVIL]})
    did(world, f"ponder_{EVIL[:9]}", EVIL)
    page = reader.get("/actions").text
    assert "<script>alert" not in page
    assert "\u202e" not in page


def test_without_any_the_page_says_what_it_will_list(reader: FlaskClient) -> None:
    assert "Nobody has done anything yet." in reader.get("/actions").text
