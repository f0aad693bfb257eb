"""The webhook receiver, against the reference library and the specification's own example."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
import requests
from standardwebhooks import Webhook

from bridge.simulator.receiver import WebhookReceiver
from bridge.simulator.web import Answer, text_answer
from tests.support.nouns import SECRET

OTHER = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
BODY = json.dumps({"type": "ci.job.failed", "data": {"input": "会议.mp4"}}, ensure_ascii=False)


def signed(secret: str = SECRET, *, id_: str = "msg_1", body: str = BODY, at: datetime | None = None) -> dict[str, str]:
    """Return the headers that the reference library signs."""
    moment = at or datetime.now(UTC)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(id_, moment, body),
        "content-type": "application/json",
    }


def post(receiver: WebhookReceiver, headers: dict[str, str], body: str = BODY) -> requests.Response:
    return requests.post(f"{receiver.url}/hooks/media", data=body.encode(), headers=headers, timeout=10)


def test_what_the_reference_library_signs_is_verified():
    with WebhookReceiver(secrets=[SECRET]) as receiver:
        assert post(receiver, signed()).status_code == 204
        (received,) = receiver.received
    assert received.verified
    assert received.fault is None
    assert (received.path, received.id, received.json) == ("/hooks/media", "msg_1", json.loads(BODY))
    assert received.body == BODY.encode()
    assert Webhook(SECRET).verify(received.body, dict(received.headers)) == received.json


def test_the_published_example_is_verified():
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    with WebhookReceiver(secrets=[SECRET], clock=lambda: 1614265330) as receiver:
        assert post(receiver, headers, '{"test": 2432232314}').status_code == 204


UNPADDED = "whsec_" + base64.b64encode(b"x" * 25).decode().rstrip("=")


@pytest.mark.parametrize("signature_of", [SECRET, OTHER, UNPADDED])
def test_any_of_several_secrets_will_do(signature_of):
    with WebhookReceiver(secrets=[SECRET, OTHER, UNPADDED]) as receiver:
        assert post(receiver, signed(signature_of)).status_code == 204


def test_any_of_several_signatures_will_do():
    moment = datetime.now(UTC)
    mine, other = signed(at=moment), signed(OTHER, at=moment)
    mine["webhook-signature"] = f"v1a,xyz {other['webhook-signature']} {mine['webhook-signature']}"
    with WebhookReceiver(secrets=[SECRET]) as receiver:
        assert post(receiver, mine).status_code == 204


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (lambda: signed(OTHER), "no webhook-signature matches"),
        (lambda: signed(body=BODY + " "), "no webhook-signature matches"),
        (lambda: {**signed(), "webhook-id": "msg_2"}, "no webhook-signature matches"),
        (lambda: signed(id_="msg.1"), "webhook-id is missing or has a dot"),
        (lambda: {k: v for k, v in signed().items() if k != "webhook-id"}, "webhook-id is missing or has a dot"),
        (lambda: {**signed(), "webhook-timestamp": "soon"}, "webhook-timestamp is missing or not a whole number"),
        (lambda: {k: v for k, v in signed().items() if k != "webhook-signature"}, "no webhook-signature matches"),
    ],
)
def test_what_is_not_signed_right_is_refused_with_a_reason(headers, reason):
    with WebhookReceiver(secrets=[SECRET]) as receiver:
        response = post(receiver, headers())
        (received,) = receiver.received
    assert (response.status_code, response.text) == (401, reason)
    assert (received.verified, received.fault) == (False, reason)


@pytest.mark.parametrize(("off_s", "status"), [(-301, 401), (-300, 204), (300, 204), (301, 401)])
def test_a_timestamp_may_be_five_minutes_off(off_s, status):
    now = datetime(2026, 11, 21, 9, tzinfo=UTC)
    with WebhookReceiver(secrets=[SECRET], clock=now.timestamp) as receiver:
        assert post(receiver, signed(at=now + timedelta(seconds=off_s))).status_code == status


def test_without_secrets_all_is_taken_and_nothing_is_verified():
    with WebhookReceiver() as receiver:
        assert post(receiver, {}, "no json").status_code == 204
        (received,) = receiver.received
    assert (received.verified, received.json) == (False, None)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64!"])
def test_a_secret_that_is_none_is_refused(secret):
    with pytest.raises(ValueError, match="whsec_ and base64"):
        WebhookReceiver(secrets=[secret])


def test_answers_can_be_scripted():
    with WebhookReceiver() as receiver:
        receiver.answer = lambda _: (
            Answer(status=429, headers={"Retry-After": "7"}) if len(receiver.received) == 1 else None
        )
        first, second = post(receiver, {}), post(receiver, {})
        receiver.answer = lambda _: text_answer("gone", status=410)
        third = post(receiver, {})
    assert (first.status_code, first.headers["Retry-After"]) == (429, "7")
    assert (second.status_code, third.status_code, third.text) == (204, 410, "gone")
