"""Standard Webhooks: what is sent, and what an answer means."""

import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Reference

from bridge.model import Outcome, Reason, Rejected, RetryLater, Sent
from bridge.send.http_types import Failure, Reply, Request
from bridge.send.webhook import Webhook
from tests.support.receivers import NOON, OLD_SECRET, SECRET, a_delivery, a_webhook


def request(now: datetime = NOON, *, delivery: dict[str, Any] | None = None, **notifier: Any) -> Request:
    return Webhook(a_webhook(**notifier)).request(a_delivery(**(delivery or {})), now)


def headers(request: Request) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in request.headers if ": " in line)


def outcome(status: int, *lines: str) -> Outcome:
    head = (b"HTTP/1.1 x\r\n", *(line.encode() + b"\r\n" for line in lines))
    return Webhook(a_webhook()).outcome(Reply(status, head, b"", 0.1, "1.1.1.1"), NOON)


def test_the_body_is_the_event_with_the_delivery_id_in_front() -> None:
    body = request(delivery={"id": "d_9", "event": '{"type":"转码"}'}).body
    assert body.decode() == '{"specversion":"1.0","id":"d_9","type":"转码"}'


def test_the_headers_are_those_of_standard_webhooks_and_the_notifiers_own() -> None:
    made = request(delivery={"id": "d_9"}, headers=(("X-Team", "media"), ("X-None", "")))
    sent = headers(made)
    assert sent.pop("webhook-signature")
    assert sent == {
        "webhook-id": "d_9",
        "webhook-timestamp": str(int(NOON.timestamp())),
        "content-type": "application/json",
        "X-Team": "media",
    }
    assert "X-None;" in made.headers
    assert made.url == a_webhook().url


def test_cloudevents_are_the_same_body_under_their_own_content_type() -> None:
    event = request(format="cloudevents")
    assert headers(event)["content-type"] == "application/cloudevents+json"
    assert event.body == request().body


@pytest.mark.parametrize("format_now", ["json", "cloudevents"])
def test_a_body_of_the_notifiers_own_is_sent_as_it_is_and_signed(format_now: str) -> None:
    own = '{"asset":"转码"}'
    made = request(datetime.now(UTC), delivery={"id": "d_9", "body": own}, format=format_now)
    assert made.body.decode() == own
    sent = headers(made)
    assert (sent["webhook-id"], sent["content-type"]) == ("d_9", "application/json")
    assert Reference(SECRET).verify(made.body, sent) == {"asset": "转码"}


@pytest.mark.parametrize(
    ("secret", "message_id", "timestamp", "body", "signature"),
    [
        (SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}',
         "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        (OLD_SECRET, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", 1674087231,
         '{"type":"contact.created","timestamp":"2022-11-03T20:26:10.344522Z",'
         '"data":{"id":"1f81eb52-5198-4599-803e-771906343485"}}',
         "v1,4PMU5Dl90B4kgwxDpwuMZ/cnZ5ztf+Y+kviYQD66rJg="),
        ("whsec_////////////////////////////////", "evt_1", 1700000000,
         '{"type":"job.finished","data":{"名称":"转码"}}',
         "v1,Z+xchgq1ofcYFNHmVLvXjIGXSip7tPEQLC2uuPqCxpg="),
    ],
)  # fmt: skip
def test_signatures_are_those_of_the_reference_implementation(
    secret: str, message_id: str, timestamp: int, body: str, signature: str
) -> None:
    assert Webhook(a_webhook(secrets=(secret,))).signatures(message_id, timestamp, body.encode()) == signature


def test_two_secrets_sign_side_by_side_and_either_verifies_each_message() -> None:
    hook, now = Webhook(a_webhook(secrets=(SECRET, OLD_SECRET))), datetime.now(UTC)
    for name in ("d_1", "d_2"):
        made = hook.request(a_delivery(id=name), now)
        assert headers(made)["webhook-signature"].count("v1,") == 2
        for secret in (SECRET, OLD_SECRET):
            assert Reference(secret).verify(made.body, headers(made))["id"] == name


def test_without_a_secret_nothing_is_signed() -> None:
    made = request(secrets=())
    assert "webhook-signature" not in headers(made)
    assert json.loads(made.body)["id"] == headers(made)["webhook-id"] == "d_1"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_acceptance_whatever_it_asks_for(status: int) -> None:
    assert outcome(status) == outcome(status, "Retry-After: 60") == Sent()


@pytest.mark.parametrize(
    ("status", "why", "reason"),
    [
        (500, "answered 500 Internal Server Error", Reason.SERVER_ERROR),
        (503, "answered 503 Service Unavailable", Reason.SERVER_ERROR),
        (400, "answered 400 Bad Request", Reason.CLIENT_ERROR),
        (404, "answered 404 Not Found", Reason.CLIENT_ERROR),
        (401, "answered 401 Unauthorized", Reason.AUTH),
        (403, "answered 403 Forbidden", Reason.AUTH),
        (408, "answered 408 Request Timeout", Reason.TIMEOUT),
        (413, f"answered 413 {HTTPStatus(413).phrase}", Reason.INVALID_PAYLOAD),
        (415, "answered 415 Unsupported Media Type", Reason.INVALID_PAYLOAD),
        (422, f"answered 422 {HTTPStatus(422).phrase}", Reason.INVALID_PAYLOAD),
        (429, "answered 429 Too Many Requests", Reason.RATE_LIMITED),
        (599, "answered 599", Reason.SERVER_ERROR),
        (600, "answered 600", Reason.OTHER),
        (304, "answered 304 Not Modified: redirects are not followed, update the url", Reason.OTHER),
    ],
)
def test_other_answers_are_tried_again(status: int, why: str, reason: Reason) -> None:
    assert outcome(status) == outcome(status, "Retry-After: soon") == RetryLater(why, reason)


def test_410_pauses_the_notifier() -> None:
    why = "the receiver answered 410 Gone: it wants no more deliveries"
    assert outcome(410, "Retry-After: 60") == Rejected(why, Reason.GONE, pause=True)


@pytest.mark.parametrize(
    ("location", "to"),
    [("https://new.example.com/hooks?token=hush", " to new.example.com"), ("/relative", ""), ("http://[broken/", "")],
)
def test_a_redirect_names_the_new_host_and_nothing_of_its_path(location: str, to: str) -> None:
    why = f"answered 301 Moved Permanently{to}: redirects are not followed, update the url"
    assert outcome(301, f"Location: {location}") == RetryLater(why)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("wishes", "after"),
    [
        (["120"], timedelta(minutes=2)),
        (["0"], timedelta()),
        (["86401"], timedelta(days=1)),
        (["60", "120"], timedelta(minutes=2)),  # of two, the last counts
        (["120", "60"], timedelta(minutes=1)),
        (["120", "soon"], None),
    ],
)
def test_retry_after_holds_for_the_whole_notifier_for_a_day_at_most(
    status: int, wishes: list[str], after: timedelta | None
) -> None:
    made = outcome(status, *(f"RETRY-AFTER: {wish}" for wish in wishes))
    assert isinstance(made, RetryLater)
    assert (made.after, made.whole_notifier) == (after, after is not None)


@pytest.mark.parametrize("status", [301, 400, 403, 408, 413, 500, 502, 504, 599])
def test_retry_after_of_other_statuses_is_ignored(status: int) -> None:
    made = outcome(status, "Retry-After: 60")
    assert isinstance(made, RetryLater)
    assert (made.after, made.whole_notifier) == (None, False)


def test_no_answer_is_tried_again_and_a_forbidden_address_is_not() -> None:
    hook, why = Webhook(a_webhook()), "no answer within 15 s"
    assert hook.outcome(Failure(why, Reason.TIMEOUT), NOON) == RetryLater(why, Reason.TIMEOUT)
    assert hook.outcome(Failure("127.0.0.1 is ...", forbidden=True), NOON) == Rejected("127.0.0.1 is ...")
