"""What figures sort failures by."""

from __future__ import annotations

import pytest

from bridge.model import Attempt, Delivery, Outcome, Rejected, RetryLater, Sent
from bridge.record.reasons import CAUSES, REASONS, cause, reason
from bridge.send.exchange import Failure, Reply
from bridge.send.slack_answers import ADVICE, MISSHAPEN, RATE_LIMITED, refusal
from bridge.send.transfer import _FAILURES
from bridge.send.webhook import judge
from tests.record.builders import NOW

DELIVERY = Delivery(n=1, id="d1", notifier="cms", attempts=1, lease="w1.1", happened_at=NOW, event="{}", says="{}")


def _reason(outcome: Outcome, status: int | None = None) -> str:
    attempt = Attempt(delivery=DELIVERY, outcome=outcome, started_at=NOW, seconds=0.1, status=status)
    found = reason(attempt)
    assert found in REASONS
    return found


def _of_webhook(status: int) -> str:
    return _reason(judge(Reply(status, (), b"", 0.1, "127.0.0.1"), NOW), status)


def _of_slack(status: int, error: str, *, webhook: bool = False) -> str:
    return _reason(refusal(status, error, None, webhook=webhook), status)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, "ok"), (204, "ok"), (301, "other"), (400, "client_error"), (401, "auth"), (403, "auth"),
        (404, "client_error"), (408, "timeout"), (410, "client_error"), (413, "invalid_payload"),
        (422, "invalid_payload"), (429, "rate_limited"), (500, "server_error"), (503, "server_error"), (600, "other"),
    ],
)  # fmt: skip
def test_an_answer_is_sorted_by_its_status(status: int, expected: str) -> None:
    assert _of_webhook(status) == expected


@pytest.mark.parametrize("text", _FAILURES.values())
def test_a_connection_that_failed_is_one(text: str) -> None:
    why = text.format(place="cms.example.com:443", host="cms.example.com", text="bad")
    expected = "other" if why == "the url is not one" else "connection"
    assert _reason(judge(Failure(why), NOW)) == expected


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("could not connect to cms.example.com:443: Connection refused", "connection"),
        ("could not connect to cms.example.com:443 within 10 s", "timeout"),
        ("could not look up cms.example.com within 10 s", "timeout"),
        ("no answer from cms.example.com:443 within 15 s", "timeout"),
        ("no answer from cms.example.com:443 within 1.5e+01 s", "timeout"),
        ("the proxy of BRIDGE_EGRESS_PROXY refused a tunnel to cms.example.com:443: it answered 403", "connection"),
        ("rules.toml has no notifier of this name", "other"),
        ("TypeError: no", "other"),
    ],
)
def test_what_was_not_answered_is_sorted_by_what_is_said_of_it(why: str, expected: str) -> None:
    assert _reason(RetryLater(why)) == expected


def test_an_address_that_is_forbidden_is_nothing_of_these() -> None:
    why = "cms.example.com resolves to 10.0.0.1, a private address: refused (allow it with BRIDGE_ALLOW_NETWORKS)"
    assert _reason(judge(Failure(why, forbidden=True), NOW)) == "other"
    assert _reason(Rejected("notifier cms is paused: the receiver answered 410 Gone")) == "other"


@pytest.mark.parametrize("code", sorted(RATE_LIMITED))
def test_slack_says_that_it_is_too_often(code: str) -> None:
    assert _of_slack(429, code) == _of_slack(429, "") == "rate_limited"


@pytest.mark.parametrize("code", sorted(MISSHAPEN))
def test_slack_will_not_have_a_message(code: str) -> None:
    assert _of_slack(200, code) == "invalid_payload"


@pytest.mark.parametrize("code", sorted(ADVICE))
def test_slack_refuses_the_token_or_the_channel(code: str) -> None:
    assert _of_slack(200, code) in ("auth", "client_error")
    assert cause(refusal(200, code, None).why) in ("auth", "channel", "other")  # type: ignore[union-attr]  # not sent


@pytest.mark.parametrize(
    ("code", "expected"),
    [("invalid_auth", "auth"), ("token_revoked", "auth"), ("missing_scope", "auth"), ("is_archived", "client_error")],
)
def test_slack_is_taken_at_its_word(code: str, expected: str) -> None:
    assert _of_slack(200, code) == expected


def test_slack_is_broken_or_not_understood() -> None:
    assert _of_slack(200, "fatal_error") == _of_slack(500, "internal_error") == "server_error"
    assert _of_slack(503, "") == "server_error"
    assert _of_slack(404, "", webhook=True) == "client_error"
    assert _of_slack(200, "") == "other"


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("Slack says token_revoked: give the notifier the token of an app", "auth"),
        ("Slack says channel_not_found: give the notifier the id of a channel that exists", "channel"),
        ("Slack says is_archived: unarchive the channel, or name another", "channel"),
        ("Slack says no_service: make a new incoming webhook", "other"),
        ("Slack answered 404: make a new incoming webhook and give its url to the notifier", "gone"),
        ("the receiver answered 410 Gone: it wants no more deliveries", "gone"),
        ("by hand", "other"), ("", "other"), (None, "other"),
    ],
)  # fmt: skip
def test_a_pause_has_a_cause(why: str | None, expected: str) -> None:
    assert cause(why) == expected
    assert cause(why) in CAUSES


def test_a_yes_is_ok_whatever_it_was_answered_with() -> None:
    assert _reason(Sent(), None) == _reason(Sent("receipt"), 200) == "ok"
