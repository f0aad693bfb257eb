"""What people are told when a notifier fails: one message for each reason, which says what was not delivered."""

from __future__ import annotations

import json

import pytest

from bridge.model import SUCCESS, Delivery, Outcome, Rejected, RetryLater, Sent
from bridge.pipeline.explain import explain_stored
from bridge.record.database import Database
from bridge.send.slack.blocks import blocks
from tests.conftest import on_both
from tests.support.nouns import minutes, seconds
from tests.support.rig import GIVEN, OVER, Rig

SLACK = """
[notifier.people]
type = "slack"
channel = "C1"
token = { env = "TOKEN" }
thread = "job"
update = true
fallback = "cms"
"""
TO_PEOPLE = GIVEN.replace('ops.example.com/hook"', 'ops.example.com/hook"\nfallback = "people"\nretry = "1m"') + SLACK
RULES = OVER.replace('"over"', '"over"\nmention = ["here"]')


@pytest.fixture
def rig(db: Database) -> Rig:
    rig = Rig(db, RULES, given=TO_PEOPLE, environ={"TOKEN": "xoxb-1"})
    rig.transport.answer = lambda one: Rejected("answered 410 Gone: it wants no more") if _fails(one) else Sent()
    rig.transport.status = lambda one: 410 if _fails(one) else 200
    rig.first_poll()
    return rig


def _fails(delivery: Delivery) -> bool:
    return delivery.notifier == "ops"


@on_both
def test_what_fails_for_one_reason_within_ten_seconds_is_one_message(rig: Rig) -> None:
    rig.sees(*(f"j{n}" for n in range(14)))
    assert rig.received("people") == []
    rig.lives(seconds(10))
    (message,) = rig.received("people")
    assert message.title == "Not delivered to ops (410): 14 messages"
    assert message.text.splitlines() == [
        "answered 410 Gone: it wants no more",
        "• 14 x CI gave no reason, since 2026-11-21T09:01:00Z: j0.mp4, j1.mp4, j2.mp4 and 11 more",
    ]
    assert message.event["data"]["gate"] == "fallback"
    assert {row["state"] for row in rig.deliveries(notifier="ops")} == {"dead"}
    assert [row["state"] for row in rig.deliveries(notifier="people")] == ["merged"] * 14 + ["sent"]
    rig.lives(minutes(5), step=seconds(30))
    assert len(rig.received("people")) == 1


@on_both
def test_a_success_that_was_not_delivered_is_no_success_and_mentions_nobody(rig: Rig) -> None:
    rig.sees("j1", state=SUCCESS)
    rig.lives(seconds(10))
    (sent,) = [one for one in rig.transport.begun if one.notifier == "people"]
    assert (sent.thread, json.loads(sent.says)["mention"]) == (None, [])
    text, _ = blocks(sent, rig.clock())
    assert text.startswith("⚠️ Not delivered to ops (410): j1.mp4\nanswered 410 Gone")


@on_both
def test_each_reason_has_a_message_of_its_own(rig: Rig) -> None:
    def answer(one: Delivery) -> Outcome:
        return Rejected("blocked address" if "j1.mp4" in one.says else "not accepted: no") if _fails(one) else Sent()

    rig.transport.answer, rig.transport.status = answer, lambda _: None
    rig.sees("j1", "j2", "j3")
    rig.lives(seconds(15))
    assert sorted(rig.titles("people")) == [
        "Not delivered to ops (blocked address): j1.mp4",
        "Not delivered to ops (not accepted): 2 messages",
    ]


def test_what_fails_later_is_told_later(rig: Rig) -> None:
    for id_ in ("j1", "j2"):
        rig.sees(id_)
        rig.lives(seconds(15))
    assert rig.titles("people") == [f"Not delivered to ops (410): {id_}.mp4" for id_ in ("j1", "j2")]


@on_both
def test_a_digest_that_was_not_delivered_is_told_too(rig: Rig) -> None:
    rig.start(RULES + 'group.wait = "10m"\n')
    rig.sees("j1", "j2")
    rig.lives(minutes(11), step=seconds(10))
    (message,) = rig.received("people")
    assert message.title == "Not delivered to ops (410): over: 2 Failed"
    (member,) = message.event["data"]["members"]
    assert (member["job"], member["href"], message.event["data"]["states"]) == (None, None, {"": 1})


@on_both
def test_while_it_is_quiet_for_people_they_are_told_nothing(rig: Rig) -> None:
    rig.silence(notifier="people")
    rig.sees("j1")
    rig.lives(minutes(30), step=minutes(5))
    assert rig.titles("people") == []
    rig.lives(minutes(40), step=minutes(5))
    assert rig.titles("people") == ["The silence by ann (maintenance) is over, 1 held: 1 Failed"]


def test_a_silence_made_meanwhile_holds_what_was_gathered(rig: Rig) -> None:
    rig.sees("j1")
    rig.silence(notifier="people")
    rig.lives(minutes(5), step=seconds(5))
    assert rig.titles("people") == []


@on_both
def test_if_people_cannot_be_told_either_their_fallback_is(rig: Rig) -> None:
    rig.transport.answer = lambda one: Sent() if one.notifier == "cms" else Rejected("Slack says no_text: it refuses")
    rig.transport.status = lambda _: 200
    rig.sees("j1")
    rig.lives(seconds(10))
    (message,) = rig.received("cms")
    assert message.title == "Not delivered to ops (Slack says no_text): j1.mp4"
    assert message.note == "This could not be sent to people: Slack says no_text: it refuses"


def test_what_is_given_up_says_its_last_status(rig: Rig) -> None:
    rig.transport.answer = lambda one: RetryLater("answered 503 Service Unavailable") if _fails(one) else Sent()
    rig.transport.status = lambda one: 503 if _fails(one) else 200
    rig.sees("j1")
    rig.lives(minutes(5), step=seconds(5))
    assert rig.titles("people") == ["Not delivered to ops (503): j1.mp4"]


def test_an_explanation_says_what_it_stands_for_and_what_came_of_it(rig: Rig) -> None:
    def why() -> str:
        with rig.db.read() as tx:
            *_, found = explain_stored(tx, "j1", rig.book, now=rig.clock())
        (delivery,) = [one for one in found["deliveries"] if one["notifier"] == "people"]
        assert delivery["fallback_for"] == "ops"
        return f"{delivery['answer']}: {delivery['why']}"

    instead = 'in place of "ops", which could not be notified'
    rig.sees("j1")
    assert why() == f'digest: waits in the digest of what "ops" did not get, until 2026-11-21T09:01:10Z; {instead}'
    rig.lives(seconds(10))
    (digest,) = [row["id"] for row in rig.deliveries(notifier="people") if row["kind"] == "digest"]
    sent = f"sent in {digest} at 2026-11-21T09:01:10Z"
    assert why() == f'merged: in the digest of what "ops" did not get, {sent}; {instead}'
