import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import pytest
from standardwebhooks.webhooks import Webhook as Reference

from bridge.model import Reason, Rejected, RetryLater, Sent
from bridge.send.http_types import Failure, Reply, Request
from bridge.send.webhook import Webhook
from tests.support.receivers import NOON, OLD_SECRET, SECRET, a_delivery, a_webhook

HOOK = Webhook(a_webhook())
DAY = timedelta(days=1)


def headers(request: Request) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in request.headers if ": " in line)


def reply(status: int, *lines: str) -> Reply:
    return Reply(status, (b"HTTP/1.1 x\r\n", *(line.encode() + b"\r\n" for line in lines)), b"", 0.1, "1.1.1.1")


def test_the_body_is_the_event_with_the_delivery_id_in_front() -> None:
    request = Webhook(a_webhook()).request(a_delivery(id="d_9", event='{"type":"转码"}'), NOON)
    assert request.body.decode() == '{"specversion":"1.0","id":"d_9","type":"转码"}'
    assert json.loads(request.body)["type"] == "转码"


def test_the_headers_are_those_of_standard_webhooks_and_the_notifiers_own() -> None:
    notifier = a_webhook(headers=(("X-Team", "media"), ("X-None", "")))
    request = Webhook(notifier).request(a_delivery(id="d_9"), NOON)
    sent = headers(request)
    assert sent["webhook-id"] == "d_9"
    assert sent["webhook-timestamp"] == str(int(NOON.timestamp()))
    assert sent["content-type"] == "application/json"
    assert sent["X-Team"] == "media"
    assert "X-None;" in request.headers
    assert request.url == notifier.url


def test_cloudevents_are_the_same_body_under_their_own_content_type() -> None:
    plain = Webhook(a_webhook()).request(a_delivery(), NOON)
    event = Webhook(a_webhook(format="cloudevents")).request(a_delivery(), NOON)
    assert headers(event)["content-type"] == "application/cloudevents+json"
    assert event.body == plain.body


@pytest.mark.parametrize("format_now", ["json", "cloudevents"])
def test_a_body_of_the_notifiers_own_is_sent_as_it_is_and_signed(format_now: str) -> None:
    own, now = '{"asset":"转码"}', datetime.now(UTC)
    request = Webhook(a_webhook(format=format_now)).request(a_delivery(id="d_9", body=own), now)
    assert request.body.decode() == own
    sent = headers(request)
    assert (sent["webhook-id"], sent["content-type"]) == ("d_9", "application/json")
    assert Reference(SECRET).verify(request.body, sent) == {"asset": "转码"}


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
    secret: str,
    message_id: str,
    timestamp: int,
    body: str,
    signature: str,
) -> None:
    sender = Webhook(a_webhook(secrets=(secret,)))
    assert sender.signatures(message_id, timestamp, body.encode()) == signature


def test_two_secrets_sign_side_by_side_and_either_verifies() -> None:
    now = datetime.now(UTC)
    request = Webhook(a_webhook(secrets=(SECRET, OLD_SECRET))).request(a_delivery(), now)
    assert headers(request)["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, OLD_SECRET):
        assert Reference(secret).verify(request.body, headers(request))["id"] == "d_1"


def test_each_message_is_signed_afresh() -> None:
    sender, now = Webhook(a_webhook()), datetime.now(UTC)
    for name in ("d_1", "d_2", "d_1"):
        request = sender.request(a_delivery(id=name), now)
        assert Reference(SECRET).verify(request.body, headers(request))["id"] == name


def test_without_a_secret_nothing_is_signed() -> None:
    request = Webhook(a_webhook(secrets=())).request(a_delivery(), NOON)
    assert "webhook-signature" not in headers(request)
    assert headers(request)["webhook-id"] == "d_1"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_acceptance(status: int) -> None:
    assert HOOK.outcome(reply(status), NOON) == Sent()


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
    assert HOOK.outcome(reply(status), NOON) == RetryLater(why, reason)


def test_410_pauses_the_notifier() -> None:
    why = "the receiver answered 410 Gone: it wants no more deliveries"
    assert HOOK.outcome(reply(410), NOON) == Rejected(why, Reason.GONE, pause=True)


def test_a_redirect_names_the_new_host_and_nothing_of_its_path() -> None:
    outcome = HOOK.outcome(reply(301, "Location: https://new.example.com/hooks?token=hush"), NOON)
    assert outcome == RetryLater(
        "answered 301 Moved Permanently to new.example.com: redirects are not followed, update the url"
    )


@pytest.mark.parametrize("location", ["/relative", "http://[broken/"])
def test_a_redirect_to_nowhere_in_particular_is_still_told(location: str) -> None:
    outcome = HOOK.outcome(reply(302, f"Location: {location}"), NOON)
    assert outcome == RetryLater("answered 302 Found: redirects are not followed, update the url")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("wish", "after"), [("120", timedelta(minutes=2)), ("0", timedelta()), ("86401", DAY)])
def test_retry_after_holds_for_the_whole_notifier_for_a_day_at_most(status: int, wish: str, after: timedelta) -> None:
    outcome = HOOK.outcome(reply(status, f"Retry-After: {wish}"), NOON)
    assert isinstance(outcome, RetryLater)
    assert (outcome.after, outcome.whole_notifier) == (after, True)


@pytest.mark.parametrize("status", [301, 400, 403, 408, 413, 500, 502, 504, 599])
def test_retry_after_of_other_statuses_is_ignored(status: int) -> None:
    outcome = HOOK.outcome(reply(status, "Retry-After: 60"), NOON)
    assert isinstance(outcome, RetryLater)
    assert (outcome.after, outcome.whole_notifier) == (None, False)


def test_an_acceptance_with_retry_after_is_an_acceptance_and_a_410_with_it_a_goodbye() -> None:
    assert HOOK.outcome(reply(202, "Retry-After: 60"), NOON) == Sent()
    assert isinstance(HOOK.outcome(reply(410, "Retry-After: 60"), NOON), Rejected)


@pytest.mark.parametrize(
    ("first", "second", "after"),
    [("60", "120", timedelta(minutes=2)), ("120", "60", timedelta(minutes=1)), ("120", "soon", None)],
)
def test_of_two_retry_afters_the_last_counts(first: str, second: str, after: timedelta | None) -> None:
    outcome = HOOK.outcome(reply(429, f"Retry-After: {first}", f"RETRY-AFTER: {second}"), NOON)
    assert isinstance(outcome, RetryLater)
    assert (outcome.after, outcome.whole_notifier) == (after, after is not None)


def test_no_answer_is_tried_again_and_a_forbidden_address_is_not() -> None:
    assert HOOK.outcome(Failure("no answer within 15 s", Reason.TIMEOUT), NOON) == RetryLater(
        "no answer within 15 s", Reason.TIMEOUT
    )
    assert HOOK.outcome(Failure("127.0.0.1 is ...", forbidden=True), NOON) == Rejected("127.0.0.1 is ...")
