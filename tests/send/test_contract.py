"""Every type of notifier keeps the same contract: tests.send.contract has an example of each."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from bridge.decide.rulesfile import notifiers
from bridge.model import Attempt, Reason, Rejected, RetryLater, Sent
from bridge.send import registry
from bridge.send.client import HttpClient
from bridge.send.integration import Egress
from tests.send.contract import EXAMPLES, WAYS, Example
from tests.support.nouns import a_rulebook
from tests.support.receivers import NOBODY, NOON, SECRET, Receiver, a_delivery, answering, attempt_to
from tests.support.rules_texts import RULE, WATCH

each_way = pytest.mark.parametrize("example", WAYS.values(), ids=WAYS)


def sent_to(example: Example, url: str, client: HttpClient | None = None, **delivery: Any) -> Attempt:
    api, facts = url if example.through_api else NOBODY, {**example.delivery, **delivery}
    return attempt_to(example.notifier(url), client or example.client(), slack_api_url=api, **facts)


def answered(example: Example, behave: Any, **delivery: Any) -> Attempt:
    with example.receiver(behave) as receiver:
        made = sent_to(example, receiver.url, **delivery)
    assert len(receiver.requests) == 1
    for request in receiver.requests:
        assert "\ufffd" not in (request if isinstance(request, str) else request.body.decode())
    return made


def test_each_type_is_read_sent_to_and_held_to_this() -> None:
    assert notifiers.TYPES.keys() == registry.TYPES.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_rules_make_a_notifier_of_the_type_that_they_name(name: str) -> None:
    text = f'{WATCH}{RULE}[notifier.hook]\ntype = "{name}"\n{EXAMPLES[name].table}\n'
    (notifier,) = a_rulebook(
        text, {"URL": "https://hooks.example.com/hush?key=hush&access_token=hush&sig=hush", "SECRET": SECRET}
    ).notifiers.values()
    assert notifier.type == EXAMPLES[name].notifier(NOBODY).type == name
    facts = registry.integration_of(notifier).facts()
    assert facts["target"] == EXAMPLES[name].target


@each_way
def test_what_the_receiver_accepts_is_sent(example: Example) -> None:
    made = answered(example, example.accepts)
    assert isinstance(made.outcome, Sent)
    assert (made.address, made.started_at) == ("127.0.0.1", NOON)


@each_way
@pytest.mark.parametrize("text", ["转码失败😀", "👩‍👩‍👧", "\u202e\n"])
def test_a_huge_text_of_any_signs_is_sent(example: Example, text: str) -> None:
    long = text * 5_000
    says = {"title": long, "text": long, "fields": [[long, long]] * 30, "file": long, "rule": long, "mention": ["here"]}
    assert isinstance(answered(example, example.accepts, says=says).outcome, Sent)


@each_way
def test_a_receiver_that_asks_to_wait_is_left_alone_by_all_that_it_asks(example: Example) -> None:
    outcome = answered(example, example.asks_to_wait).outcome
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after) == (Reason.RATE_LIMITED, example.wait)
    assert outcome.whole_notifier == (example.waits_with is None)
    assert (outcome.limit or "").startswith(example.waits_with or "")
    assert not [secret for secret in example.secrets if secret in (outcome.limit or "")]


@each_way
def test_a_receiver_that_is_gone_pauses_its_notifier_with_advice(example: Example) -> None:
    outcome = answered(example, example.is_gone).outcome
    assert isinstance(outcome, Rejected)
    assert outcome.pause
    assert ": " in outcome.why


@each_way
def test_a_message_that_is_refused_for_good_is_refused_alone(example: Example) -> None:
    if example.refuses is None:
        return
    outcome = answered(example, example.refuses).outcome
    assert isinstance(outcome, Rejected)
    assert not outcome.pause


@each_way
@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_is_not_followed_and_the_message_is_tried_again(example: Example, status: str) -> None:
    if not example.speaks_http:
        return
    with Receiver(example.accepts) as elsewhere:
        outcome = answered(example, answering(status, b"", f"Location: {elsewhere.url}")).outcome
    assert isinstance(outcome, RetryLater)
    assert "redirects are not followed" in outcome.why
    assert (outcome.attempts, elsewhere.connections) == (None, 0)


@each_way
@pytest.mark.parametrize("form", [b"%b", b'{"ok":false,"error":"%b"}'], ids=["text", "JSON"])
def test_no_secret_is_in_what_came_of_an_attempt(example: Example, form: bytes) -> None:
    with example.receiver(example.accepts) as receiver:
        hidden = example.notifier(receiver.url).hidden
        receiver.behave = example.repeats(form % " ".join(hidden).encode())
        made = sent_to(example, receiver.url)
    assert hidden
    assert not [secret for secret in hidden if secret in f"{made.outcome} {made.answer}"]


@each_way
def test_nobody_there_is_a_fault_of_the_connection(example: Example) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = sent_to(example, f"http://127.0.0.1:{port}/").outcome
    assert isinstance(outcome, RetryLater)
    assert outcome.reason == Reason.CONNECTION


@each_way
def test_a_private_address_is_refused_without_a_connection(example: Example) -> None:
    with example.receiver(example.accepts) as receiver:
        outcome = sent_to(example, receiver.url, HttpClient()).outcome
    assert isinstance(outcome, Rejected)
    assert not outcome.pause
    assert receiver.connections == 0


@each_way
def test_no_secret_is_described_previewed_or_checked(example: Example) -> None:
    notifier = example.notifier("http://hooks.invalid/hush?token=hush")
    integration, client = registry.integration_of(notifier), HttpClient()
    shown = [
        repr(notifier),
        str(integration.facts()),
        str(integration.preview(a_delivery(), at=NOON, agent="ci-bridge/9")),
        str(integration.check(Egress(client, NOBODY))),
    ]
    client.close()
    assert not [text for text in shown if any(secret in text for secret in example.secrets)]
    assert set(example.secrets) - {"hush"} <= {part for secret in notifier.hidden for part in (secret, *secret.split())}
    target = "C1" if example.through_api else "hooks.invalid"
    assert all(target in text for text in shown[1:3])
