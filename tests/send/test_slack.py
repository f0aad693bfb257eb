import socket
import threading
from datetime import timedelta

import pytest

from bridge.model import Reason, Rejected, RetryLater, Sent
from bridge.send.client import HttpClient
from bridge.send.integration import Egress
from bridge.send.slack import Slack
from tests.support.receivers import Receiver, Seen, a_slack, answering, dripping, raw
from tests.support.slack_servers import no, send, slack

HTML = b"<!doctype html><html><title>Welcome to the guest network</title></html>"


def test_a_message_is_posted_with_blocks_and_the_delivery_id_through_our_door(client: HttpClient) -> None:
    with slack() as receiver:
        outcome = send(client, receiver)
    assert outcome == Sent(receipt="C1:171.1:C1:0")
    (seen,) = receiver.requests
    assert seen.path == "/api/chat.postMessage"
    assert seen.headers["authorization"] == "Bearer xoxb-1"
    assert seen.json["channel"] == "C1"
    assert seen.json["metadata"] == {"event_type": "ci_bridge_delivery", "event_payload": {"delivery": "d_1"}}
    assert (seen.json["unfurl_links"], seen.json["unfurl_media"]) == (False, False)
    assert seen.json["blocks"][0]["type"] == "section"
    assert "thread_ts" not in seen.json


def test_a_private_address_is_refused_for_slack_too() -> None:
    client = HttpClient()
    with slack() as receiver:
        outcomes = [send(client, receiver), send(client, receiver, {"url": receiver.url})]
    client.close()
    assert all(isinstance(outcome, Rejected) and not outcome.pause for outcome in outcomes)
    assert receiver.connections == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("invalid_auth", Reason.AUTH), ("token_revoked", Reason.AUTH), ("missing_scope", Reason.AUTH),
        ("channel_not_found", Reason.CHANNEL), ("is_archived", Reason.CHANNEL), ("not_in_channel", Reason.CHANNEL),
        ("restricted_action", Reason.CLIENT_ERROR), ("restricted_action_read_only_channel", Reason.CHANNEL),
        ("org_login_required", Reason.AUTH), ("account_inactive", Reason.AUTH),
        ("team_access_not_granted", Reason.AUTH),
    ],
)  # fmt: skip
def test_a_place_or_token_that_is_gone_pauses_with_advice(client: HttpClient, error: str, reason: Reason) -> None:
    with slack(no(error)) as receiver:
        outcome = send(client, receiver)
    assert isinstance(outcome, Rejected)
    assert (outcome.pause, outcome.reason) == (True, reason)
    assert outcome.why.startswith(f"Slack says {error}: ")


@pytest.mark.parametrize("error", ["no_text", "invalid_arguments", "metadata_too_large"])
def test_a_message_that_slack_will_not_have_is_refused_alone(client: HttpClient, error: str) -> None:
    with slack(no(error)) as receiver:
        outcome = send(client, receiver)
    assert outcome == Rejected(f"Slack says {error}: it will not have this message", Reason.INVALID_PAYLOAD)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("fatal_error", Reason.SERVER_ERROR), ("internal_error", Reason.SERVER_ERROR),
        ("service_unavailable", Reason.SERVER_ERROR), ("never_heard_of", Reason.OTHER),
    ],
)  # fmt: skip
def test_troubles_of_slacks_own_are_tried_again(client: HttpClient, error: str, reason: Reason) -> None:
    with slack(no(error)) as receiver:
        assert send(client, receiver) == RetryLater(f"Slack answered 200: {error}", reason)


def test_refused_blocks_are_told_as_plain_text_at_once(client: HttpClient) -> None:
    with slack(no("invalid_blocks")) as receiver:
        outcome = send(client, receiver)
    assert outcome == Sent(receipt="C1:171.2:C1:0")
    second = receiver.requests[1].json
    assert not second.get("blocks")
    assert second["text"].startswith("❌ Transcode failed: demo.mp4\nbad input\nqueue: vod")


def test_plain_text_unfolds_no_links_either(client: HttpClient) -> None:
    with slack(no("invalid_blocks")) as receiver:
        send(client, receiver)
    with Receiver(answering("400 Bad Request", b"invalid_blocks")) as hook:
        send(client, hook, {"url": hook.url})
    for seen in (*receiver.requests, *hook.requests):
        assert (seen.json["unfurl_links"], seen.json["unfurl_media"]) == (False, False)
    assert (len(receiver.requests), len(hook.requests)) == (2, 2)


def test_a_message_refused_as_plain_text_too_is_refused(client: HttpClient) -> None:
    with slack(no("invalid_blocks"), no("msg_too_long")) as receiver:
        outcome = send(client, receiver)
    assert outcome == Rejected("Slack says msg_too_long: it will not have this message", Reason.INVALID_PAYLOAD)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize("hook", [True, False])
def test_slacks_wish_to_wait_holds_for_the_whole_notifier(client: HttpClient, hook: bool, status: str) -> None:
    limited = answering(status, b'{"ok":false,"error":"ratelimited"}', "Retry-After: 30")
    with Receiver(limited) as receiver:
        outcome = send(client, receiver, {"url": receiver.url} if hook else {})
    assert isinstance(outcome, RetryLater)
    assert (outcome.after, outcome.everyone) == (timedelta(seconds=30), True)
    assert outcome.reason == Reason.RATE_LIMITED  # Slack's code says so, whatever the status
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("hook", [True, False])
def test_a_broken_slack_is_asked_once_and_tried_again_later(client: HttpClient, hook: bool) -> None:
    with Receiver(answering("503 Service Unavailable", b"<html>sorry</html>")) as receiver:
        outcome = send(client, receiver, {"url": receiver.url} if hook else {})
    assert isinstance(outcome, RetryLater)
    assert "503" in outcome.why
    assert outcome.reason == Reason.SERVER_ERROR
    assert len(receiver.requests) == 1


def test_a_connection_that_breaks_is_not_tried_again_in_silence(client: HttpClient) -> None:
    with Receiver(lambda connection, _seen, _over: connection.shutdown(2)) as receiver:
        outcome = send(client, receiver)
    assert isinstance(outcome, RetryLater)
    assert outcome.why == f"127.0.0.1:{receiver.port} closed the connection without an answer"
    assert len(receiver.requests) == 1


def test_a_silent_slack_meets_the_deadline(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.send.slack.client.DEADLINE_S", 0.3)
    with Receiver(dripping(b"", b"")) as receiver:
        outcome = send(client, receiver)
    assert outcome == RetryLater(f"no answer from 127.0.0.1:{receiver.port} within 0.3 s", Reason.TIMEOUT)


def test_an_answer_longer_than_what_is_stored_is_still_read_whole(client: HttpClient) -> None:
    long = {"ok": True, "message": {"text": "x" * 500_000}, "channel": "C1", "ts": "171.9"}
    with slack(long) as receiver:
        assert send(client, receiver) == Sent(receipt="C1:171.9:C1:0")
    assert len(receiver.requests) == 1


def test_an_incoming_webhook_takes_the_same_message_and_gives_no_receipt(client: HttpClient) -> None:
    with Receiver(answering("200 OK", b"ok")) as receiver:
        outcome = send(client, receiver, {"url": receiver.url, "token": None, "channel": None})
    assert outcome == Sent()
    (seen,) = receiver.requests
    assert seen.path == "/hook?token=hush"
    assert seen.json["blocks"][0]["type"] == "section"
    assert "authorization" not in seen.headers


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        ("403 Forbidden", "action_prohibited", Reason.AUTH), ("403 Forbidden", "invalid_token", Reason.AUTH),
        ("404 Not Found", "channel_not_found", Reason.CHANNEL), ("404 Not Found", "no_service", Reason.CLIENT_ERROR),
        ("404 Not Found", "no_team", Reason.CLIENT_ERROR), ("404 Not Found", "<html>", Reason.GONE),
        ("410 Gone", "channel_is_archived", Reason.CHANNEL), ("410 Gone", "", Reason.GONE),
        ("400 Bad Request", "user_not_found", Reason.CHANNEL),
    ],
)  # fmt: skip
def test_an_incoming_webhook_that_is_gone_pauses(client: HttpClient, status: str, body: str, reason: Reason) -> None:
    with Receiver(answering(status, body.encode())) as receiver:
        outcome = send(client, receiver, {"url": receiver.url})
    assert isinstance(outcome, Rejected)
    assert (outcome.pause, outcome.reason) == (True, reason)
    assert "hush" not in outcome.why


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", b"ok"), ("200 OK", b"ok\n"), ("200 OK", b" OK\r\n"), ("200 OK", b"\xef\xbb\xbfok"),
        ("201 Created", b""), ("202 Accepted", b""), ("204 No Content", b""), ("202 Accepted", b"\n"),
    ],
)  # fmt: skip
def test_an_incoming_webhook_that_says_ok_or_has_no_content_has_taken_the_message(
    client: HttpClient, status: str, body: bytes
) -> None:
    with Receiver(answering(status, body)) as receiver:
        assert send(client, receiver, {"url": receiver.url}) == Sent()
    assert len(receiver.requests) == 1


def test_an_ok_under_another_status_than_200_is_not_sent(client: HttpClient) -> None:
    with Receiver(answering("201 Created", b"ok")) as receiver:
        assert send(client, receiver, {"url": receiver.url}) == RetryLater("Slack answered 201: ok")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", b""), ("200 OK", b"\n"), ("200 OK", b'{"ok": true}'), ("200 OK", b'{"success":true}'),
        ("200 OK", HTML), ("200 OK", b"<p>ok</p>"), ("200 OK", b"ok, please log in"), ("202 Accepted", HTML),
        ("203 Non-Authoritative Information", HTML), ("200 OK", b"1"), ("200 OK", b"null"), ("200 OK", b"true"),
        ("200 OK", b'{"ok":"true"}'), ("200 OK", b'{"ok":false}'), ("200 OK", b'{"success":false}'), ("200 OK", b"[]"),
        ("200 OK", b"\x1f\x8b\x08"), ("200 OK", HTML + b"ok"), ("200 OK", b"[" * 5000),
    ],
    ids=lambda part: repr(part[:30]),
)  # fmt: skip
def test_a_page_in_place_of_an_incoming_webhook_is_not_taken_for_its_ok(
    client: HttpClient, status: str, body: bytes
) -> None:
    with Receiver(answering(status, body)) as receiver:
        outcome = send(client, receiver, {"url": receiver.url})
    why = f'Slack answered {status[:3]}, but not "ok": a proxy or a login page may have answered in its place'
    assert outcome == RetryLater(why)
    assert len(receiver.requests) == 1


def test_an_ok_that_was_announced_and_did_not_come_is_asked_for_again(client: HttpClient) -> None:
    with Receiver(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n")) as receiver:
        assert isinstance(send(client, receiver, {"url": receiver.url}), RetryLater)
    with Receiver(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\nok")) as receiver:
        assert send(client, receiver, {"url": receiver.url}) == Sent()  # no page breaks off just there


GONE = ("no_service", "no_team", "no_active_hooks", "invalid_token", "invalid_auth", "channel_is_archived",
        "channel_not_found", "user_not_found", "action_prohibited", "posting_to_general_channel_denied",
        "team_disabled")  # fmt: skip
UNWELCOME = ("no_text", "too_many_attachments", "missing_text_or_fallback_or_attachments")
LIMITED = ("rate_limited", "ratelimited", "message_limit_exceeded")


@pytest.mark.parametrize("form", ["{}", "{}\n", '{{"ok":false,"error":"{}"}}'])
@pytest.mark.parametrize("error", [*GONE, *UNWELCOME, *LIMITED])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Internal Server Error"])
def test_a_code_of_an_incoming_webhook_means_the_same_with_every_status(
    client: HttpClient, status: str, error: str, form: str
) -> None:
    with Receiver(answering(status, form.format(error).encode())) as receiver:
        outcome = send(client, receiver, {"url": receiver.url})
    assert f"Slack says {error}" in getattr(outcome, "why", "")
    if error in LIMITED:
        assert isinstance(outcome, RetryLater)
        assert (outcome.everyone, outcome.reason) == (True, Reason.RATE_LIMITED)
    else:
        assert isinstance(outcome, Rejected)
        assert outcome.pause == (error in GONE)
        assert (outcome.reason == Reason.INVALID_PAYLOAD) == (error in UNWELCOME)


@pytest.mark.parametrize("error", ["rollup_error", "never_heard_of"])
def test_a_code_that_says_nothing_of_the_message_is_tried_again(client: HttpClient, error: str) -> None:
    with Receiver(answering("200 OK", error.encode())) as receiver:
        assert send(client, receiver, {"url": receiver.url}) == RetryLater(f"Slack answered 200: {error}")


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
@pytest.mark.parametrize("error", ["invalid_blocks", "invalid_payload"])
def test_blocks_refused_with_any_status_are_told_as_plain_text(client: HttpClient, status: str, error: str) -> None:
    def behave(connection: socket.socket, seen: Seen, over: threading.Event) -> None:
        refused = b"blocks" in seen.body
        answering(status if refused else "200 OK", error.encode() if refused else b"ok")(connection, seen, over)

    with Receiver(behave) as receiver:
        assert send(client, receiver, {"url": receiver.url}) == Sent()
    assert [("blocks" in seen.json) for seen in receiver.requests] == [True, False]


def test_an_incoming_webhook_that_will_not_have_blocks_gets_plain_text(client: HttpClient) -> None:
    with Receiver(answering("400 Bad Request", b"invalid_blocks")) as receiver:
        outcome = send(client, receiver, {"url": receiver.url})
    assert outcome == Rejected("Slack says invalid_blocks: it will not have this message", Reason.INVALID_PAYLOAD)
    assert [("blocks" in seen.json) for seen in receiver.requests] == [True, False]


BROKEN_OFF = b'{"ok":true,"channel":"C1","ts":"171.1"'


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'"ok"', b"7", b"{}", b'{"ok":false}', b'{"ok":"true","ts":"1.1"}', b'{"ok":1}', b'{"ok":[true]}',
     b'{"error":""}', b"", HTML, b"not ok", BROKEN_OFF, b"\xff", b"[" * 5000],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_an_answer_that_is_no_answer_is_tried_again(client: HttpClient, body: bytes) -> None:
    with Receiver(answering("200 OK", body)) as receiver:
        assert send(client, receiver) == RetryLater("Slack's answer is not understood")
        assert len(receiver.requests) == 1
        check = Slack(a_slack()).check(Egress(client, f"http://127.0.0.1:{receiver.port}/api/"))
    assert check == (False, "Slack's answer is not understood")


@pytest.mark.parametrize("status", ["201 Created", "500 Oops"])
def test_an_ok_beside_another_status_is_not_believed(client: HttpClient, status: str) -> None:
    with Receiver(answering(status, b'{"ok":true,"channel":"C1","ts":"171.1"}')) as receiver:
        assert isinstance(send(client, receiver), RetryLater)


def test_a_list_with_429_is_still_a_rate_limit(client: HttpClient) -> None:
    with Receiver(answering("429 Too Many Requests", b"[]", "Retry-After: 30")) as receiver:
        outcome = send(client, receiver)
    assert outcome == RetryLater(
        "Slack says to slow down", Reason.RATE_LIMITED, after=timedelta(seconds=30), everyone=True
    )


@pytest.mark.parametrize("missing", ["ts", "channel"])
@pytest.mark.parametrize("instead", [None, "", 171.9, {}])
def test_an_acceptance_that_does_not_say_where_gives_no_receipt(
    client: HttpClient, missing: str, instead: object
) -> None:
    said = {"ok": True, "channel": "C1", "ts": "171.9"} | {missing: instead}
    with slack(said) as receiver:
        assert send(client, receiver) == Sent()
    assert len(receiver.requests) == 1
