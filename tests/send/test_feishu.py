"""What Feishu is sent, signed as its page says, and what its answers mean."""

from __future__ import annotations

import json

import pytest

from bridge.model import Outcome, Reason, Rejected, RetryLater, Sent
from bridge.send.feishu import CODES, signature
from bridge.simulator.web import json_answer
from tests.send.test_robots import SECRET, a_robot, sent, shown
from tests.support.nouns import NOON, hours, seconds


def answered(code: int, words: str = "no", *, status: int = 200) -> Outcome:
    with a_robot("feishu") as robot:
        robot.fault = lambda _: json_answer({"code": code, "msg": words, "StatusCode": 0}, status=status)
        return sent(robot).outcome


def test_the_signature_is_that_of_the_tools_own_example():
    # By openssl: openssl dgst -sha256 -mac HMAC -macopt key:$'1700000000\nSEC0' -binary /dev/null | base64
    assert signature("1700000000", "SEC0") == "LJwVqKBrh53wM6KSg59hIjBWMapB+x0ZXpCltaPxFME="


def test_a_signed_message_is_accepted_and_one_that_another_secret_signed_pauses_the_notifier():
    with a_robot("feishu", secret=SECRET) as robot:
        assert isinstance(sent(robot, secret=SECRET).outcome, Sent)
        outcome = sent(robot, secret="SEC-other").outcome
    assert isinstance(outcome, Rejected)
    assert outcome.pause
    assert "Feishu says 19021 (sign match fail" in outcome.why


def test_a_signature_is_made_when_it_is_sent():
    with a_robot("feishu", secret=SECRET) as robot:
        sent(robot, secret=SECRET)
        stamp = json.loads(robot.requests[0].body)["timestamp"]
    assert stamp == str(int(NOON.timestamp()))


def test_a_clock_that_is_two_hours_off_pauses_the_notifier():
    with a_robot("feishu", secret=SECRET) as robot:
        robot.moved = hours(2)
        robot._clock = (NOON + hours(2)).timestamp
        outcome = sent(robot, secret=SECRET).outcome
    assert isinstance(outcome, Rejected)
    assert "set the clock" in outcome.why


def test_a_message_without_the_bots_keyword_pauses_the_notifier():
    with a_robot("feishu", keywords=["转码"]) as robot:
        outcome = sent(robot).outcome
        assert isinstance(outcome, Rejected)
        assert outcome.pause
        assert isinstance(sent(robot, says={"text": "转码"}).outcome, Sent)


def test_the_list_of_chats_shows_the_title_without_markup():
    assert shown("feishu", title="failed: [a](b)", file="a").title == "❌ failed: [a](b)"


def test_a_person_is_called_by_an_at():
    assert shown("feishu", mention=["feishu:ou_1"]).text.endswith("<at id=ou_1></at>")


@pytest.mark.parametrize(
    ("code", "words", "status"),
    [(11232, "frequency limited psm[x]appID[1500]", 200), (9499, "too many request", 400), (9499, "x", 429)],
)
def test_too_many_messages_are_waited_out_by_all_that_use_the_bot(code, words, status):
    outcome = answered(code, words, status=status)
    assert isinstance(outcome, RetryLater)
    assert outcome.reason == Reason.RATE_LIMITED
    assert (outcome.limit or "").startswith("feishu robot ")
    assert status == 429 or outcome.after == seconds(10)


@pytest.mark.parametrize("code", [19001, 19007, 19021, 19022, 19024])
def test_what_only_a_person_can_mend_pauses_the_notifier_with_advice(code):
    outcome = answered(code)
    assert isinstance(outcome, Rejected)
    assert outcome.pause
    assert outcome.why == f"Feishu says {code} (no): {CODES[code].advice}"


@pytest.mark.parametrize("code", [9499, 11246, 11310, 19002, 19036])
def test_a_message_that_it_does_not_take_is_dead_alone(code):
    outcome = answered(code)
    assert isinstance(outcome, Rejected)
    assert (outcome.pause, outcome.reason) == (False, Reason.INVALID_PAYLOAD)


def test_an_answer_of_the_first_version_of_its_api_is_understood():
    with a_robot("feishu") as robot:
        robot.fault = lambda _: json_answer({"StatusCode": 0, "StatusMessage": "success"})
        assert isinstance(sent(robot).outcome, Sent)
