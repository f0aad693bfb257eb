"""Attempts that begin and end: many at once, whatever their receivers do."""

import threading
from collections.abc import Iterator

import pytest

from bridge.model import Attempt, Rejected, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.send.sender import Sender
from tests.support.receivers import (
    NOON,
    Receiver,
    a_delivery,
    a_sender,
    a_slack,
    a_webhook,
    answering,
    attempt,
    attempt_to,
    closing_sender,
    dripping,
    raw,
)


@pytest.fixture
def sender() -> Iterator[Sender]:
    with closing_sender() as made:
        yield made


def attempts(sender: Sender, *notifiers: Notifier) -> dict[str, Attempt]:
    """Send one delivery to each notifier and return the attempts by notifier."""
    sender.replace({notifier.name: notifier for notifier in notifiers})
    for n, notifier in enumerate(notifiers):
        sender.begin(a_delivery(n=n, id=f"d_{n}", notifier=notifier.name))
    assert sender.in_flight == len(notifiers)
    ended: list[Attempt] = []
    while len(ended) < len(notifiers):
        ended += sender.wait(10)
    assert sender.in_flight == 0
    return {attempt.delivery.notifier: attempt for attempt in ended}


def test_a_webhook_that_accepts_is_sent_with_status_answer_and_address() -> None:
    with Receiver(answering("200 OK", b"thanks \x00\xff")) as receiver:
        made = attempt_to(a_webhook(receiver.url))
    assert (made.outcome, made.status, made.answer) == (Sent(), 200, "thanks ��")
    assert (made.address, made.started_at) == ("127.0.0.1", NOON)
    assert made.seconds > 0


def test_one_dead_receiver_does_not_hold_up_the_others(sender: Sender) -> None:
    with (
        Receiver(answering("410 Gone")) as gone,
        Receiver(raw(b"")) as rude,
        Receiver(answering("200 OK", b"ok")) as hook,
    ):
        made = attempts(
            sender,
            a_webhook(gone.url, name="gone"),
            a_webhook(rude.url, name="rude"),
            a_webhook("http://0.0.0.0:1/", name="private"),
            a_slack(name="ops", url=hook.url),
        )
    outcomes = {name: type(attempt.outcome) for name, attempt in made.items()}
    assert outcomes == {"gone": Rejected, "rude": RetryLater, "private": Rejected, "ops": Sent}
    assert (made["ops"].status, made["ops"].answer) == (200, "ok")


def test_dead_slack_notifiers_do_not_hold_up_one_that_is_well() -> None:
    """The dispatcher has 64 in flight at most: here 63 that hang, and the one behind them."""
    with Receiver(dripping(b"", b"")) as dead, Receiver(answering("200 OK", b"ok")) as well:
        slacks = (a_slack(name="dead", url=dead.url), a_slack(name="ops", url=well.url))
        with closing_sender(*slacks) as sender:
            for n in range(63):
                sender.begin(a_delivery(n=n, id=f"d_{n}", notifier="dead"))
            made = attempt(sender, n=63, id="d_63", notifier="ops")
            assert (made.delivery.notifier, made.outcome) == ("ops", Sent())


def test_a_notifier_that_the_rules_do_not_know_is_tried_later(sender: Sender) -> None:
    assert attempt(sender, notifier="gone").outcome == RetryLater("rules.toml has no notifier of this name")


@pytest.mark.parametrize(
    "notifier",
    [
        a_webhook(secrets=("whsec_broken!",)),
        a_webhook("not a url"),
        a_webhook(headers=(("x", "a\r\nb"),)),
        Notifier(name="cms"),
    ],
)
def test_a_notifier_that_cannot_be_used_is_tried_later_and_stops_nobody(sender: Sender, notifier: Notifier) -> None:
    with Receiver(answering("204 No Content")) as receiver:
        made = attempts(sender, notifier, a_webhook(receiver.url, name="well"))
    assert isinstance(made["cms"].outcome, RetryLater)
    assert made["well"].outcome == Sent()


def test_an_integration_that_breaks_loses_no_delivery() -> None:
    with closing_sender(a_slack()) as sender:
        outcome = attempt(sender, notifier="ops", says={"fields": 7}).outcome
    assert isinstance(outcome, RetryLater)
    assert outcome.why.startswith("TypeError")


def test_new_rules_hold_from_the_next_delivery_on(sender: Sender) -> None:
    with Receiver(answering("500 Oops")) as old, Receiver(answering("204 No Content")) as new:
        assert attempts(sender, a_webhook(old.url))["cms"].status == 500
        assert attempts(sender, a_webhook(new.url))["cms"].status == 204


def test_wake_ends_a_wait(sender: Sender) -> None:
    thread = threading.Thread(target=sender.wake)
    thread.start()
    assert sender.wait(60) == []
    thread.join()


def test_closing_waits_for_what_is_in_flight_and_not_longer_than_it_may() -> None:
    with Receiver(answering("204 No Content")) as receiver:
        sender = a_sender(a_webhook(receiver.url))
        sender.begin(a_delivery())
        (made,) = sender.close(10)
    assert made.outcome == Sent()
    with Receiver(dripping(b"", b"")) as receiver:
        sender = a_sender(a_webhook(receiver.url))
        sender.begin(a_delivery())
        assert sender.close(0.05) == []
