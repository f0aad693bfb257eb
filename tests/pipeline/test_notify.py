"""Notifying manually of what no rule notified of, and how `explain` shows it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from bridge.cli.explain import as_text
from bridge.decide.messages.build import delivery_id
from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS, Delivery, Rejected
from bridge.pipeline.operations import Accepted, OperationRefused
from tests.support.explained import EVERYTHING, MUTE, ONLY_FAILED, Explained
from tests.support.nouns import by_hand

# One of these tests opens the file.
pytestmark = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


def notify(explained: Explained, notifier: str = "ops", **which: Any) -> Accepted:
    return by_hand(explained.db, now=explained.clock()).notify(explained.book, job_id="j1", notifier=notifier, **which)


def begun(explained: Explained, notifier: str = "ops") -> list[Delivery]:
    return [one for one in explained.transport.begun if one.notifier == notifier]


def test_a_silent_first_snapshot_is_sent_with_the_usual_text(explained: Explained) -> None:
    explained.rule(EVERYTHING)
    explained.goes(FAILED, message="broken")
    accepted = notify(explained)
    explained.delivers()
    (sent,) = begun(explained)
    assert sent.id == accepted.delivery
    assert "by ann" in (sent.note or "")
    says, event = json.loads(sent.says), json.loads(sent.event)
    assert (says["text"], says["rule"], event["data"]["rule"], event["data"]["to"]) == ("broken", None, None, FAILED)
    silent = 'nobody was notified: first snapshot of Transcode in watch "vod"'
    assert explained.headline() == f"{silent}; manually to ops: sent"


def test_a_transition_that_no_rule_matched_keeps_its_near_miss_beside_the_manual_delivery(explained: Explained) -> None:
    explained.begin(ONLY_FAILED)
    explained.goes(SUBMITTED, RUNNING)
    accepted = notify(explained, sequence=1)
    first, last = explained.all()
    assert first["headline"].startswith('no rule matched; nearest: "failed"')
    assert first["headline"].endswith("; manually to ops: waits for its first attempt")
    (delivery,) = first["deliveries"]
    assert (delivery["id"], delivery["rule"], delivery["answer"]) == (accepted.delivery, None, "waiting")
    assert [message["rule"] for message in first["messages"]] == [None]
    assert f"ops  manual  {delivery['why']} ({accepted.delivery})" in as_text(first)
    assert last["deliveries"] == []


def test_no_mute_holds_what_a_person_asked_for(explained: Explained) -> None:
    explained.begin(EVERYTHING, MUTE.format("drop"))
    explained.goes(SUBMITTED)
    notify(explained, "cms")
    explained.delivers()
    assert len(begun(explained, "cms")) == 1
    answers = [(delivery["rule"], delivery["answer"]) for delivery in explained.last()["deliveries"]]
    assert answers == [("everything", "dropped"), (None, "sent")]


def test_it_is_sent_after_what_waits_for_the_same_job(explained: Explained) -> None:
    explained.begin(EVERYTHING)
    explained.goes(SUBMITTED, RUNNING)
    notify(explained, "cms", sequence=1)
    explained.delivers()
    states = [json.loads(one.event)["data"]["to"] for one in begun(explained, "cms")]
    assert states == [SUBMITTED, RUNNING, SUBMITTED]


def test_asked_twice_it_is_one_delivery_and_a_dead_one_is_resent(explained: Explained) -> None:
    explained.begin(ONLY_FAILED)
    explained.goes(SUBMITTED)
    first = notify(explained)
    with pytest.raises(OperationRefused, match=f"notified manually before: delivery {first.delivery} is waiting"):
        notify(explained)
    explained.delivers(Rejected("no"))
    assert notify(explained) == first
    explained.delivers()
    with pytest.raises(OperationRefused, match="is sent"):
        notify(explained)
    assert [one.id for one in begun(explained)] == [first.delivery] * 2


def test_what_an_older_version_sent_under_another_id_is_not_sent_again(explained: Explained) -> None:
    explained.begin(ONLY_FAILED)
    explained.goes(SUCCESS)
    notify(explained)
    explained.delivers()
    old = delivery_id("msg_old", "ops")
    with closing(sqlite3.connect(str(explained.db.url.database))) as db, db:  # which minds no foreign keys
        db.execute("UPDATE delivery SET id = ?, message = 'msg_old' WHERE notifier = 'ops'", [old])
        db.execute("UPDATE message SET id = 'msg_old'")
    with pytest.raises(OperationRefused, match=f"delivery {old} is sent"):
        notify(explained)


def test_a_notifier_with_a_body_of_its_own_is_sent_that(explained: Explained) -> None:
    explained.begin(ONLY_FAILED, '[notifier.ops.body]\nid = "{{ job.id }}"\nrule = "{{ rule }}"\n')
    explained.goes(SUBMITTED)
    notify(explained)
    explained.delivers()
    assert json.loads(begun(explained)[0].body or "") == {"id": "j1", "rule": None}


def test_a_rule_named_as_nothing_else_has_another_message(explained: Explained) -> None:
    explained.begin('[[rule]]\nname = "by hand"\nnotify = "ops"\n')
    explained.goes(SUBMITTED)
    notify(explained)
    assert len({delivery["id"] for delivery in explained.last()["deliveries"]}) == 2
