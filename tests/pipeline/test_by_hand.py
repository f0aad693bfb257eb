"""What no rule told is told by hand, and `explain` shows it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from bridge.cli.explain import as_text
from bridge.decide.messages.build import delivery_id
from bridge.decide.rulesfile.read import read
from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS, Delivery, Rejected
from bridge.pipeline.operations import Accepted, OperationRefused
from bridge.pipeline.poll import Poller
from tests.conftest import Opener
from tests.support.explained import EVERYTHING, HEAD, MUTE, ONLY_FAILED, World
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.nouns import by_hand
from tests.support.records import Clock


@pytest.fixture
def world(sqlite_url: str, opened: Opener, clock: Clock, transport: FakeTransport) -> World:
    db, ci = opened(sqlite_url), FakeCi(clock)
    return World(db, ci, clock, Poller(db=db, source=ci, clock=clock, worker="w"), transport)


def notify(world: World, notifier: str = "ops", **which: Any) -> Accepted:
    return by_hand(world.db, now=world.clock()).notify(world.book, job_id="j1", notifier=notifier, **which)


def begun(world: World, notifier: str = "ops") -> list[Delivery]:
    return [one for one in world.transport.begun if one.notifier == notifier]


def test_a_silent_first_snapshot_is_told_with_the_usual_text(world: World) -> None:
    world.rule(EVERYTHING)
    world.sees(FAILED, message="broken")
    told = notify(world)
    world.deliver()
    (heard,) = begun(world)
    assert (heard.id, heard.note) == (told.delivery, "Sent manually by ann.")
    says, event = json.loads(heard.says), json.loads(heard.event)
    assert (says["text"], says["rule"], event["data"]["rule"], event["data"]["to"]) == ("broken", None, None, FAILED)
    assert world.last()["headline"] == (
        'nobody was notified: first snapshot of Transcode in watch "vod"; manually to ops: sent'
    )


def test_a_transition_that_no_rule_matched_keeps_its_near_miss_beside_what_was_told_by_hand(world: World) -> None:
    world.begin(ONLY_FAILED)
    world.sees(SUBMITTED, RUNNING)
    told = notify(world, sequence=1)
    first, last = world.all()
    assert first["headline"].startswith('no rule matched; nearest: "failed"')
    assert first["headline"].endswith("; manually to ops: waits for its first attempt")
    (delivery,) = first["deliveries"]
    assert (delivery["id"], delivery["rule"], delivery["answer"]) == (told.delivery, None, "waiting")
    assert [one["rule"] for one in first["messages"]] == [None]
    assert f"ops  manual  {delivery['why']} ({told.delivery})" in as_text(first)
    assert last["deliveries"] == []


def test_no_mute_holds_what_a_person_asked_for(world: World) -> None:
    world.begin(EVERYTHING, MUTE.format("drop"))
    world.sees(SUBMITTED)
    assert world.told()["answer"] == "dropped"
    notify(world, "cms")
    world.deliver()
    (heard,) = begun(world, "cms")
    assert heard.note == "Sent manually by ann."
    assert [(one["rule"], one["answer"]) for one in world.last()["deliveries"]] == [
        ("everything", "dropped"), (None, "sent"),
    ]  # fmt: skip


def test_it_is_told_after_what_waits_for_the_same_job(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED, RUNNING)
    notify(world, "cms", sequence=1)
    world.deliver()
    assert [json.loads(one.event)["data"]["to"] for one in begun(world, "cms")] == [SUBMITTED, RUNNING, SUBMITTED]


def test_asked_twice_it_is_one_delivery_and_a_dead_one_is_sent_again(world: World) -> None:
    world.begin(ONLY_FAILED)
    world.sees(SUBMITTED)
    first = notify(world)
    with pytest.raises(OperationRefused, match=f"delivery {first.delivery} is waiting"):
        notify(world)
    world.deliver(Rejected("no"))
    assert notify(world) == first
    world.deliver()
    with pytest.raises(OperationRefused, match="is sent"):
        notify(world)
    assert [one.id for one in begun(world)] == [first.delivery] * 2


def test_what_an_older_version_told_by_hand_under_another_id_is_not_told_again(world: World) -> None:
    world.begin(ONLY_FAILED)
    world.sees(SUCCESS)
    notify(world)
    world.deliver()
    old = delivery_id("msg_old", "ops")
    with closing(sqlite3.connect(str(world.db.url.database))) as db, db:  # which minds no foreign keys
        db.execute("UPDATE delivery SET id = ?, message = 'msg_old' WHERE notifier = 'ops'", [old])
        db.execute("UPDATE message SET id = 'msg_old'")
    with pytest.raises(OperationRefused, match=f"delivery {old} is sent"):
        notify(world)


def test_a_notifier_with_a_body_of_its_own_is_sent_that(world: World) -> None:
    world.begin(ONLY_FAILED)
    world.sees(SUBMITTED)
    world.book = read(HEAD + ONLY_FAILED + '[notifier.ops.body]\nid = "{{ job.id }}"\nrule = "{{ rule }}"\n', {})
    notify(world)
    world.deliver()
    assert json.loads(begun(world)[0].body or "") == {"id": "j1", "rule": None}


def test_a_rule_named_as_nothing_else_has_another_message(world: World) -> None:
    world.begin('[[rule]]\nname = "by hand"\nnotify = "ops"\n')
    world.sees(SUBMITTED)
    notify(world)
    assert len({one["id"] for one in world.last()["deliveries"]}) == 2
