"""What DingTalk is sent, signed as its pages say, and what its answers mean."""

from __future__ import annotations

import json

import pytest

from bridge.model import Reason, Rejected, RetryLater, Sent
from bridge.notifiers import DingTalkNotifier
from bridge.send.dingtalk import CODES, DingTalk, signature
from bridge.simulator.robots import DingTalk as LookAlike
from bridge.simulator.web import json_answer
from tests.send.test_robots import SECRET, a_robot, sent, shown
from tests.support.nouns import NOON, hours, minutes
from tests.support.receivers import a_delivery


def answered(code: object, words: str = "no") -> object:
    with a_robot("dingtalk") as robot:
        robot.fault = lambda _: json_answer({"errcode": code, "errmsg": words})
        return sent(robot).outcome


def test_the_signature_is_that_of_the_tools_own_example():
    # By openssl: printf '1700000000000\nSEC0' | openssl dgst -sha256 -hmac SEC0 -binary | base64
    assert signature("1700000000000", "SEC0") == "grq97xXoTUjTHFvKaCG7ayUVYZj98Kc7erzY+P9gZxg="


def test_a_signed_message_is_accepted_and_one_that_another_secret_signed_pauses_the_notifier():
    with a_robot("dingtalk", secret=SECRET) as robot:
        assert isinstance(sent(robot, secret=SECRET).outcome, Sent)
        outcome = sent(robot, secret="SEC-other").outcome
    assert isinstance(outcome, Rejected)
    assert outcome.pause
    assert "DingTalk says 310000 (sign not match): compare its security settings" in outcome.why


def test_a_signature_is_made_when_it_is_sent():
    robot = DingTalk(
        DingTalkNotifier(name="ops", url="https://oapi.dingtalk.com/robot/send?access_token=k", secret="s")
    )
    at = [robot.request(a_delivery(), when).url for when in (NOON, NOON + hours(2))]
    assert at[0] != at[1]
    assert f"&timestamp={int(NOON.timestamp())}000&sign=" in at[0]


def test_a_message_without_the_robots_keyword_pauses_the_notifier():
    with a_robot("dingtalk", keywords=["转码"]) as robot:
        outcome = sent(robot).outcome
        assert isinstance(outcome, Rejected)
        assert outcome.pause
        assert isinstance(sent(robot, says={"text": "转码"}).outcome, Sent)


def test_the_title_is_for_the_list_of_chats_and_has_no_markup():
    assert shown("dingtalk", title="failed: [a](b)", file="a").title == "❌ failed: [a](b)"


def test_lines_end_as_dingtalk_wants_them_to():
    assert "one  \n  two" in shown("dingtalk", text="one\ntwo").text


def test_a_person_is_called_by_the_list_and_by_the_text():
    with a_robot("dingtalk") as robot:
        sent(robot, says={"mention": ["dingtalk:manager4220", "wecom:x"]})
        body = json.loads(robot.requests[0].body)
    assert body["at"] == {"atUserIds": ["manager4220"], "isAtAll": False}
    assert body["markdown"]["text"].endswith("@manager4220")


@pytest.mark.parametrize("code", [130101, 410100, 660026])
def test_too_many_messages_are_waited_out_for_ten_minutes(code):
    outcome = answered(code)
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after) == (Reason.RATE_LIMITED, minutes(10))
    assert (outcome.limit or "").startswith("dingtalk robot ")


@pytest.mark.parametrize("code", [300001, 300005, 310000, 400013, 400101, 400102, 400106])
def test_what_only_a_person_can_mend_pauses_the_notifier_with_advice(code):
    outcome = answered(code)
    assert isinstance(outcome, Rejected)
    assert outcome.pause
    assert outcome.why == f"DingTalk says {code} (no): {CODES[code].advice}"


@pytest.mark.parametrize("code", [40035, 43004, 400105, 430101, 430102, 430103, 430104, 460101])
def test_a_message_that_it_does_not_take_is_dead_alone(code):
    outcome = answered(code)
    assert isinstance(outcome, Rejected)
    assert (outcome.pause, outcome.reason) == (False, Reason.INVALID_PAYLOAD)


@pytest.mark.parametrize("code", [-1, 88])
def test_when_it_is_busy_the_message_is_tried_again(code):
    outcome = answered(code)
    assert isinstance(outcome, RetryLater)
    assert (outcome.attempts, outcome.limit) == (None, None)


def test_a_code_in_quotes_is_a_code():
    assert isinstance(answered("0"), Sent)
    assert isinstance(answered("310000"), Rejected)


def test_its_look_alike_is_refused_for_ten_minutes_and_the_bridge_waits_as_long():
    assert LookAlike.refuses_for == CODES[130101].after / minutes(1)
