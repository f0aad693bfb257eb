import threading
from collections.abc import Iterator

import pytest

from bridge.model import Attempt, Notifier, Rejected, RetryLater, Sent
from bridge.send.client import HttpClient
from bridge.send.sender import Sender
from tests.support.receivers import (
    LOOPBACK,
    NOON,
    Receiver,
    a_delivery,
    a_slack,
    a_webhook,
    answering,
    dripping,
    raw,
)


@pytest.fixture
def outbound() -> Iterator[Sender]:
    made = Sender(
        client=HttpClient(allow=LOOPBACK), notifiers={}, clock=lambda: NOON, slack_api_url="http://127.0.0.1:1/"
    )
    yield made
    made.close(10)


def told(outbound: Sender, *notifiers: Notifier) -> dict[str, Attempt]:
    """Tell each notifier once and return the attempts by notifier."""
    outbound.replace({notifier.name: notifier for notifier in notifiers})
    for n, notifier in enumerate(notifiers):
        outbound.begin(a_delivery(n=n, id=f"d_{n}", notifier=notifier.name))
    assert outbound.in_flight == len(notifiers)
    ended: list[Attempt] = []
    while len(ended) < len(notifiers):
        ended += outbound.wait(10)
    assert outbound.in_flight == 0
    return {attempt.delivery.notifier: attempt for attempt in ended}


def test_a_webhook_that_accepts_is_sent_with_status_answer_and_address(outbound: Sender) -> None:
    with Receiver(answering("200 OK", b"thanks \x00\xff")) as receiver:
        attempt = told(outbound, a_webhook(receiver.url))["cms"]
    assert (attempt.outcome, attempt.status, attempt.answer) == (Sent(), 200, "thanks ��")
    assert (attempt.address, attempt.started_at) == ("127.0.0.1", NOON)
    assert attempt.seconds > 0


def test_an_endless_answer_after_200_is_sent_once(outbound: Sender) -> None:
    with Receiver(dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, every_s=0)) as receiver:
        attempt = told(outbound, a_webhook(receiver.url))["cms"]
    assert (attempt.outcome, len(attempt.answer), len(receiver.requests)) == (Sent(), 4096, 1)


def test_one_dead_receiver_does_not_hold_up_the_others(outbound: Sender) -> None:
    with (
        Receiver(answering("410 Gone")) as gone,
        Receiver(raw(b"")) as rude,
        Receiver(answering("200 OK", b"ok")) as hook,
    ):
        attempts = told(
            outbound,
            a_webhook(gone.url, name="gone"),
            a_webhook(rude.url, name="rude"),
            a_webhook("http://0.0.0.0:1/", name="private"),
            a_slack(name="ops", url=hook.url),
        )
    assert isinstance(attempts["gone"].outcome, Rejected)
    assert isinstance(attempts["rude"].outcome, RetryLater)
    assert isinstance(attempts["private"].outcome, Rejected)
    assert (attempts["ops"].outcome, attempts["ops"].status, attempts["ops"].answer) == (Sent(), 200, "ok")


def test_dead_slack_notifiers_do_not_hold_up_one_that_is_well(outbound: Sender) -> None:
    """The dispatcher has 64 in flight at most: here 63 that hang, and the one behind them."""
    with Receiver(dripping(b"", b"")) as dead, Receiver(answering("200 OK", b"ok")) as well:
        outbound.replace({"dead": a_slack(name="dead", url=dead.url), "ops": a_slack(name="ops", url=well.url)})
        for n in range(63):
            outbound.begin(a_delivery(n=n, id=f"d_{n}", notifier="dead"))
        outbound.begin(a_delivery(n=63, id="d_63", notifier="ops"))
        ended = outbound.wait(10)
    assert [(attempt.delivery.notifier, attempt.outcome) for attempt in ended] == [("ops", Sent())]


def test_a_notifier_that_the_rules_do_not_know_is_tried_later(outbound: Sender) -> None:
    outbound.begin(a_delivery(notifier="gone"))
    (attempt,) = outbound.wait(10)
    assert attempt.outcome == RetryLater("rules.toml has no notifier of this name")


@pytest.mark.parametrize(
    "notifier",
    [
        a_webhook(name="cms", secrets=("whsec_broken!",)),
        a_webhook(name="cms", url="not a url"),
        a_webhook(name="cms", headers=(("x", "a\r\nb"),)),
        Notifier(name="cms"),
    ],
)
def test_a_notifier_that_cannot_be_used_is_tried_later_and_stops_nobody(outbound: Sender, notifier: Notifier) -> None:
    with Receiver(answering("204 No Content")) as receiver:
        attempts = told(outbound, notifier, a_webhook(receiver.url, name="well"))
    assert isinstance(attempts["cms"].outcome, RetryLater)
    assert attempts["well"].outcome == Sent()


def test_a_sender_that_breaks_loses_no_delivery(outbound: Sender) -> None:
    outbound.replace({"ops": a_slack()})
    outbound.begin(a_delivery(notifier="ops", says={"fields": 7}))
    (attempt,) = outbound.wait(10)
    assert isinstance(attempt.outcome, RetryLater)
    assert attempt.outcome.why.startswith("TypeError")


def test_new_rules_hold_from_the_next_delivery_on(outbound: Sender) -> None:
    with Receiver(answering("500 Oops")) as old, Receiver(answering("204 No Content")) as new:
        assert told(outbound, a_webhook(old.url))["cms"].status == 500
        assert told(outbound, a_webhook(new.url))["cms"].status == 204


def test_wake_ends_a_wait(outbound: Sender) -> None:
    thread = threading.Thread(target=outbound.wake)
    thread.start()
    assert outbound.wait(60) == []
    thread.join()


def test_closing_waits_for_what_is_in_flight_and_hands_it_back() -> None:
    outbound = Sender(
        client=HttpClient(allow=LOOPBACK), notifiers={}, clock=lambda: NOON, slack_api_url="http://127.0.0.1:1/"
    )
    with Receiver(answering("204 No Content")) as receiver:
        outbound.replace({"cms": a_webhook(receiver.url)})
        outbound.begin(a_delivery())
        (attempt,) = outbound.close(10)
    assert attempt.outcome == Sent()


def test_closing_does_not_wait_longer_than_it_may() -> None:
    outbound = Sender(
        client=HttpClient(allow=LOOPBACK), notifiers={}, clock=lambda: NOON, slack_api_url="http://127.0.0.1:1/"
    )
    with Receiver(dripping(b"", b"")) as receiver:
        outbound.replace({"cms": a_webhook(receiver.url)})
        outbound.begin(a_delivery())
        assert outbound.close(0.05) == []
