"""No secret of a notifier is in what is kept of an attempt."""

from dataclasses import replace
from typing import Any

import pytest

from bridge.model import Reason, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.send.sender import InFlight
from bridge.settings import Settings
from bridge.wiring.parts import known_secrets
from tests.support.nouns import a_rulebook
from tests.support.receivers import (
    NOON,
    SECRET,
    Receiver,
    a_delivery,
    a_reply,
    a_slack,
    a_webhook,
    answering,
    attempt_to,
    raw,
)
from tests.support.rules_texts import RULE, WATCH

KEY = "k-0123456789"


def echo(connection: Any, seen: Any, over: Any) -> None:
    body = f"{seen.headers.get('authorization')} is unknown; token {KEY} at http://127.0.0.1{seen.path}"
    answering("401 Unauthorized", body.encode())(connection, seen, over)


def test_a_secret_that_the_receiver_repeats_is_not_kept() -> None:
    with Receiver(echo) as receiver:
        headers = (("authorization", f"Bearer {KEY}"),)
        made = attempt_to(a_webhook(receiver.url.replace("?token=hush", ""), headers=headers))
    assert made.answer == "[secret] is unknown; token [secret] at http://127.0.0.1/hook"
    assert made.outcome == RetryLater("answered 401 Unauthorized", Reason.AUTH)


def test_a_url_that_an_incoming_webhook_repeats_is_in_neither_answer_nor_reason() -> None:
    with Receiver(raw()) as receiver:
        receiver.behave = answering("500 Oops", f"no {receiver.url}".encode())
        made = attempt_to(a_slack(url=receiver.url))
    assert made.answer == "no [secret]"
    assert made.outcome == RetryLater("Slack answered 500", Reason.SERVER_ERROR)


def test_a_secret_in_a_fault_of_our_own_is_not_kept() -> None:
    attempt = InFlight(a_delivery(), NOON, a_slack(token="xoxb-12345")).broken(ValueError("not ok: xoxb-12345"))
    assert attempt.outcome == RetryLater("ValueError: not ok: [secret]")


def test_a_secret_in_a_receipt_is_not_kept_and_what_the_root_shows_is() -> None:
    begun = InFlight(a_delivery(), NOON, a_slack(token="xoxb-12345"))
    assert begun.ended(Sent("xoxb-12345:171.5:C1", 3)).outcome == Sent("[secret]:171.5:C1", 3)


def test_attempts_in_flight_hide_the_secrets_they_began_with() -> None:
    begun = InFlight(a_delivery(), NOON, a_slack(token="xoxb-12345"))
    assert begun.ended(Sent(), last=a_reply(b"hello xoxb-12345")).answer == "hello [secret]"
    assert InFlight(a_delivery(), NOON, None).ended(Sent(), last=a_reply(b"hello")).answer == "hello"


@pytest.mark.parametrize(
    ("notifier", "hidden"),
    [
        (a_webhook("http://h/x"), {"http://h/x", SECRET}),
        (
            a_webhook("http://h/x", secrets=(), headers=(("a", f"Bearer {KEY}"), ("b", "12345678"), ("c", "1234567"))),
            {"http://h/x", f"Bearer {KEY}", KEY, "12345678", "1234567"},
        ),
        (a_slack(token="xoxb-1"), {"xoxb-1"}),
        (a_slack(token=None, url="http://h/y"), {"http://h/y"}),
        (Notifier(name="n"), set()),
    ],
)
def test_a_notifier_knows_what_of_it_is_secret(notifier: Notifier, hidden: set[str]) -> None:
    assert set(notifier.hidden) == hidden


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("k3y-7c", "wrong key k3y-7c"),
        ("k3y-7ch", "wrong key k3y-7ch"),
        ("Token token=abcdefgh1234", "no abcdefgh1234"),
        ('Token token="abcdefgh1234", email="x@y.example"', "no abcdefgh1234 of x@y.example"),
        ("Key abcdefgh,ijklmnop", "neither abcdefgh nor ijklmnop"),
        ("id=1;sig=abcdefgh==", "bad sig abcdefgh=="),
        ("Basic dXNlcjpodW50ZXIyMg==", "user:hunter22 by dXNlcjpodW50ZXIyMg=="),
    ],
)
def test_what_a_receiver_repeats_of_a_header_is_not_kept(value: str, said: str) -> None:
    begun = InFlight(a_delivery(), NOON, a_webhook(headers=(("x-key", value),)))
    answer = begun.ended(Sent(), last=a_reply(said.encode())).answer
    assert "[secret]" in answer
    assert not [part for part in ("k3y", "abcdefgh", "ijklmnop", "x@y", "hunter", "dXNlc") if part in answer]


def test_the_words_around_a_secret_are_kept_and_so_is_what_is_shorter_than_six() -> None:
    headers = (("a", f'Bearer token="{KEY}"'), ("b", "12345"), ("c", '"'))
    begun = InFlight(a_delivery(), NOON, a_webhook(headers=headers))
    said = "Bearer token=1 of 12345 &quot;x&quot; is unknown"
    assert begun.ended(Sent(), last=a_reply(said.encode())).answer == said


def test_the_mask_over_the_logs_has_all_that_notifiers_hide() -> None:
    notifiers = {"cms": a_webhook("http://h/x", headers=(("a", KEY),)), "ops": a_slack(token="xoxb-1")}
    book = replace(a_rulebook(WATCH + RULE), notifiers=notifiers)
    assert set(known_secrets(Settings(), book)) == {"http://h/x", SECRET, KEY, "xoxb-1"}
