"""The links of messages: where every kind of message gets them from, and what it is without."""

from __future__ import annotations

import json
from typing import Any

from bridge.model import Rejected, Sent
from bridge.record import public_url
from bridge.record.schema import messages
from tests.conftest import on_both
from tests.support.nouns import by_hand, minutes
from tests.support.records import rows, write
from tests.support.rig import OVER, STUCK, WITH_FALLBACK, Rig

BASE = "https://bridge.example.com"
LINK_IN_BODY = '[notifier.NAME.body]\nlink = "{{ job.url }}"\n'


def linked(rig: Rig) -> None:
    write(rig.db, public_url.store, BASE, now=rig.clock())


def urls(rig: Rig) -> list[Any]:
    return [message.event["data"]["url"] for message in rig.received()]


def bases(rig: Rig) -> set[Any]:
    """Return what the stored messages give a chat to link to."""
    return {json.loads(row["says"])["public_url"] for row in rows(rig.db, messages)}


@on_both
def test_a_message_links_to_the_page_of_its_job(rig: Rig) -> None:
    linked(rig)
    rig.start(OVER + STUCK)
    rig.sees("j1")
    rig.sees("j2", state="Running")
    rig.passes(minutes(35))
    assert urls(rig) == [f"{BASE}/jobs/j1", f"{BASE}/jobs/j2"]
    assert bases(rig) == {BASE}


def test_while_nobody_knows_where_the_pages_are_there_is_no_link(rig: Rig) -> None:
    rig.sees("j1")
    assert (urls(rig), bases(rig)) == ([None], {None})
    linked(rig)
    rig.sees("j2")
    assert urls(rig) == [None, f"{BASE}/jobs/j2"]


def test_a_digest_links_to_the_list_of_what_it_sums_up(rig: Rig) -> None:
    linked(rig)
    rig.start(OVER + 'group.wait = "10m"\n')
    rig.sees("j1", "j2")
    rig.passes(minutes(11))
    (digest,) = rig.transport.begun
    assert urls(rig) == [f"{BASE}/deliveries?digest={digest.id}"]
    assert json.loads(digest.says)["public_url"] == BASE


def test_a_template_and_a_body_of_ones_own_can_link_to_the_job(rig: Rig) -> None:
    linked(rig)
    rig.start(LINK_IN_BODY.replace("NAME", "ops") + OVER + 'template = "t"\n[template.t]\ntext = "see {{ job.url }}"\n')
    rig.sees("j1")
    (delivery,) = rig.transport.begun
    assert json.loads(delivery.says)["text"] == f"see {BASE}/jobs/j1"
    assert json.loads(delivery.body or "") == {"link": f"{BASE}/jobs/j1"}


def test_a_fallback_has_the_link_too(rig: Rig) -> None:
    linked(rig)
    rig.start(LINK_IN_BODY.replace("NAME", "cms") + OVER, given=WITH_FALLBACK)
    rig.transport.answer = lambda one: Rejected("no") if one.notifier == "ops" else Sent()
    rig.sees("j1")
    assert urls(rig) == [f"{BASE}/jobs/j1"] * 2
    assert [json.loads(one.body) for one in rig.transport.begun if one.body] == [{"link": f"{BASE}/jobs/j1"}]


def test_what_a_person_sends_has_a_link(rig: Rig) -> None:
    linked(rig)
    rig.start("")
    rig.sees("j1")
    ann = by_hand(rig.db, now=rig.clock(), nonce="1")
    ann.notify(rig.book, job_id="j1", notifier="ops")
    ann.test_notifier(rig.book, "cms")
    rig.deliver()
    assert sorted(urls(rig)) == [f"{BASE}/", f"{BASE}/jobs/j1"]
