"""What Slack's answers mean, of its API and of incoming webhooks."""

from dataclasses import replace
from datetime import timedelta

import pytest

from bridge.model import Outcome, Reason, Rejected, RetryLater, Sent
from bridge.send.http_types import Failure
from bridge.send.slack import Slack
from bridge.send.slack.client import DEADLINE_S
from bridge.send.slack.request import RefusedBlocks
from tests.support.receivers import NOON, a_delivery, a_slack, of_delivery
from tests.support.slack_servers import HOOK, ScriptedSlack, no, ok, says

HTML = b"<!doctype html><html><title>Welcome to the guest network</title></html>"
both_ways = pytest.mark.parametrize("notifier", [{}, HOOK], ids=["API", "incoming webhook"])


def asked_once(status: int, body: bytes, *headers: bytes, notifier: dict = HOOK, truncated: bool = False) -> Outcome:
    """Return what an answer means that ends the delivery."""
    slack = ScriptedSlack(says(status, body, *headers, truncated=truncated))
    outcome = slack.send(notifier)
    assert len(slack.requests) == 1
    return outcome


def test_a_message_is_posted_with_blocks_and_the_delivery_id_in_time() -> None:
    slack = ScriptedSlack()
    assert slack.send(since=NOON) == Sent(receipt="C1:171.1:C1")
    assert slack.calls == ["chat.postMessage"]
    (content,), (request,) = slack.contents, slack.requests
    assert "Authorization: Bearer xoxb-1" in request.headers
    assert request.deadline_s == DEADLINE_S
    assert content["channel"] == "C1"
    assert content["metadata"] == of_delivery("d_1", since=NOON)
    assert (content["unfurl_links"], content["unfurl_media"]) == (False, False)
    assert content["blocks"][0]["type"] == "section"
    assert "thread_ts" not in content


def test_the_calls_of_a_delivery_share_one_deadline() -> None:
    slack = ScriptedSlack(no("thread_not_found"), Failure("no answer", Reason.CONNECTION, seconds=14.9))
    outcome = slack.send({"thread": "job"}, thread="j1", root="C1:170.5")
    assert outcome == RetryLater("no answer", Reason.CONNECTION)
    assert [request.deadline_s for request in slack.requests] == [DEADLINE_S, pytest.approx(DEADLINE_S - 0.1)]


@both_ways
def test_a_post_that_was_not_answered_in_time_is_not_tried_again_before_it_could_appear(notifier: dict) -> None:
    outcome = ScriptedSlack(Failure("no answer", Reason.TIMEOUT)).send(notifier)
    assert outcome == RetryLater("no answer", Reason.TIMEOUT, after=timedelta(seconds=10))


@both_ways
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("error", ["invalid_blocks", "invalid_payload"])
def test_refused_blocks_are_sent_as_plain_text_at_once(notifier: dict, status: int, error: str) -> None:
    slack = ScriptedSlack(says(status, error.encode()))
    assert isinstance(slack.send(notifier), Sent)
    first, second = slack.contents
    assert first["blocks"]
    assert not second.get("blocks")
    assert second["text"].startswith("❌ Transcode failed: demo.mp4\nbad input\n\nqueue: vod")
    assert (second["unfurl_links"], second["unfurl_media"]) == (False, False)


def test_whose_blocks_were_refused_is_remembered_for_a_while() -> None:
    refused = RefusedBlocks()
    for n in range(1001):
        refused.add(a_delivery(id=f"d_{n}"), "invalid_blocks")
    assert a_delivery(id="d_1000") in refused
    assert a_delivery(id="d_1000", wanted_no=1) not in refused
    assert a_delivery(id="d_0") not in refused


@both_ways
def test_a_message_refused_as_plain_text_too_is_refused(notifier: dict) -> None:
    slack = ScriptedSlack(no("invalid_blocks"), no("msg_too_long"))
    why = "Slack says msg_too_long: it refuses this message"
    assert slack.send(notifier) == Rejected(why, Reason.INVALID_PAYLOAD)


@pytest.mark.parametrize(
    ("notifier", "limited"), [({}, "slack channel C1 of "), (HOOK, "slack hook ")], ids=["API", "incoming webhook"]
)
@pytest.mark.parametrize("status", [429, 503])
def test_slacks_wish_to_wait_holds_for_the_limit_that_was_reached(notifier: dict, limited: str, status: int) -> None:
    outcome = asked_once(status, b'{"ok":false,"error":"ratelimited"}', b"Retry-After: 30", notifier=notifier)
    assert isinstance(outcome, RetryLater)
    assert (outcome.limit or "").startswith(limited)
    why = "Slack says ratelimited"  # whatever the status
    wait = timedelta(seconds=30)
    assert replace(outcome, limit=None) == RetryLater(why, Reason.RATE_LIMITED, after=wait)


def test_a_list_with_429_is_still_a_rate_limit() -> None:
    outcome = asked_once(429, b"[]", b"Retry-After: 30", notifier={})
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after) == (Reason.RATE_LIMITED, timedelta(seconds=30))
    assert (outcome.why, outcome.whole_notifier) == ("Slack says to slow down", False)


@both_ways
def test_a_broken_slack_is_asked_once_and_tried_again_later(notifier: dict) -> None:
    outcome = asked_once(503, b"<html>sorry</html>", notifier=notifier)
    assert outcome == RetryLater("Slack answered 503", Reason.SERVER_ERROR)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, b"action_prohibited", Reason.AUTH), (403, b"invalid_token", Reason.AUTH),
        (404, b"channel_not_found", Reason.CHANNEL), (404, b"no_service", Reason.CLIENT_ERROR),
        (404, b"no_team", Reason.CLIENT_ERROR), (404, b"<html>", Reason.GONE),
        (410, b"channel_is_archived", Reason.CHANNEL), (410, b"", Reason.GONE),
        (400, b"user_not_found", Reason.CHANNEL),
    ],
)  # fmt: skip
def test_an_incoming_webhook_that_is_gone_pauses(status: int, body: bytes, reason: Reason) -> None:
    outcome = asked_once(status, body)
    assert isinstance(outcome, Rejected)
    assert (outcome.pause, outcome.reason) == (True, reason)
    assert "hush" not in outcome.why


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"ok"),
        (200, b"ok\n"),
        (200, b" OK\r\n"),
        (200, b"\xef\xbb\xbfok"),
        (201, b""),
        (202, b""),
        (204, b""),
        (202, b"\n"),
    ],
)
def test_an_incoming_webhook_that_says_ok_or_has_no_content_has_taken_the_message(status: int, body: bytes) -> None:
    assert asked_once(status, body) == Sent()


def test_an_ok_under_another_status_than_200_is_not_sent() -> None:
    assert asked_once(201, b"ok") == RetryLater("Slack answered 201: ok", attempts=5)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""), (200, b"\n"), (200, b'{"ok": true}'), (200, b'{"success":true}'), (200, HTML), (200, b"<p>ok</p>"),
        (200, b"ok, please log in"), (202, HTML), (203, HTML), (200, b"1"), (200, b"null"), (200, b"true"),
        (200, b'{"ok":"true"}'), (200, b'{"ok":false}'), (200, b'{"success":false}'), (200, b"[]"),
        (200, b"\x1f\x8b\x08"), (200, HTML + b"ok"), (200, b"[" * 5000),
    ],
    ids=lambda part: repr(part)[:30],
)  # fmt: skip
def test_a_page_in_place_of_an_incoming_webhook_is_not_taken_for_its_ok(status: int, body: bytes) -> None:
    why = f'Slack answered {status}, but not "ok": a proxy or a login page may have answered in its place'
    assert asked_once(status, body) == RetryLater(why)


def test_an_answer_without_content_that_did_not_come_to_its_end_is_not_sent() -> None:
    assert isinstance(asked_once(202, b"", truncated=True), RetryLater)
    assert asked_once(200, b"ok", truncated=True) == Sent()  # no page breaks off just there


GONE = ("no_service", "no_team", "no_active_hooks", "invalid_token", "invalid_auth", "channel_is_archived",
        "channel_not_found", "user_not_found", "action_prohibited", "posting_to_general_channel_denied",
        "team_disabled")  # fmt: skip
UNWELCOME = ("no_text", "too_many_attachments", "missing_text_or_fallback_or_attachments")
LIMITED = ("rate_limited", "ratelimited", "message_limit_exceeded")


@pytest.mark.parametrize("form", ["{}", "{}\n", '{{"ok":false,"error":"{}"}}'])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_code_of_an_incoming_webhook_means_the_same_with_every_status(status: int, form: str) -> None:
    for error in (*GONE, *UNWELCOME, *LIMITED):
        outcome = asked_once(status, form.format(error).encode())
        assert f"Slack says {error}" in getattr(outcome, "why", "")
        if error in LIMITED:
            assert isinstance(outcome, RetryLater)
            assert (outcome.limit is None, outcome.reason) == (False, Reason.RATE_LIMITED)
        else:
            assert isinstance(outcome, Rejected)
            assert outcome.pause == (error in GONE)
            assert (outcome.reason == Reason.INVALID_PAYLOAD) == (error in UNWELCOME)


@pytest.mark.parametrize(
    ("status", "error", "reason", "attempts"),
    [
        (200, "rollup_error", Reason.SERVER_ERROR, None),
        (500, "rollup_error", Reason.SERVER_ERROR, None),
        (200, "never_heard_of", Reason.OTHER, 5),
        (400, "never_heard_of", Reason.OTHER, 5),
        (502, "bad_gateway", Reason.SERVER_ERROR, None),
    ],
)
def test_a_code_that_says_nothing_of_the_message_is_tried_again(
    status: int, error: str, reason: Reason, attempts: int | None
) -> None:
    why = f"Slack answered {status}: {error}"
    assert asked_once(status, error.encode()) == RetryLater(why, reason, attempts=attempts)


@both_ways
@pytest.mark.parametrize(
    ("status", "why"),
    [(302, "Slack answered 302: redirects are not followed"), (403, "Slack answered 403"), (500, "Slack answered 500")],
)
def test_a_status_without_a_code_says_nothing_of_the_message(notifier: dict, status: int, why: str) -> None:
    outcome = asked_once(status, HTML, b"Location: https://login.example.com/hush", notifier=notifier)
    assert isinstance(outcome, RetryLater)
    assert (outcome.why, outcome.attempts, outcome.whole_notifier) == (why, None, False)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'"ok"', b"7", b"{}", b'{"ok":false}', b'{"ok":"true","ts":"1.1"}', b'{"ok":1}', b'{"ok":[true]}',
     b'{"error":""}', b"", HTML, b"not ok", b'{"ok":true,"channel":"C1","ts":"171.1"', b"\xff", b"[" * 5000],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_an_answer_that_is_no_answer_is_tried_again(body: bytes) -> None:
    assert asked_once(200, body, notifier={}) == RetryLater("Slack's answer is not understood")
    check = Slack(a_slack()).check(ScriptedSlack(says(200, body)).egress)
    assert check == [(False, "Slack's answer is not understood")]


@pytest.mark.parametrize("status", [201, 500])
def test_an_ok_of_the_api_beside_another_status_is_not_believed(status: int) -> None:
    assert isinstance(asked_once(status, b'{"ok":true,"channel":"C1","ts":"171.1"}', notifier={}), RetryLater)


@pytest.mark.parametrize("missing", ["ts", "channel"])
@pytest.mark.parametrize("instead", [None, "", 171.9, {}, "a:b", "a b", "\ud800", "1" * 101, "\n"])
def test_an_acceptance_that_does_not_say_where_gives_no_receipt(missing: str, instead: object) -> None:
    assert ScriptedSlack(ok(**{"channel": "C1", "ts": "171.9"} | {missing: instead})).send() == Sent()
