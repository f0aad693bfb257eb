"""A receiver that is dead for an hour: real sockets, an hour that is made up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from urllib.parse import urlsplit

import pytest

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import Attempt
from bridge.pipeline.dispatch import Dispatcher
from bridge.record.database import Database
from bridge.record.schema import SENT, attempt, delivery
from bridge.send.client import HttpClient
from bridge.send.sender import Sender
from bridge.simulator.receiver import WebhookReceiver
from tests.support import hostile as fakes
from tests.support.records import Clock, hours, know, minutes, new_delivery, put, rows, seconds
from tests.support.stage import SECRET

LANES, EACH = 60, 5


class Hasty(Sender):
    """Waits for answers, and not for time to pass: that is ours to say."""

    def wait(self, timeout_s: float) -> list[Attempt]:
        return super().wait(timeout_s if self.in_flight else 0)


def rules(port: int) -> Rulebook:
    text = f"""
    [notifier.cms]
    type = "webhook"
    url = "http://127.0.0.1:{port}/cms"
    secret = {{ env = "SECRET" }}
    """
    return read(text, {"SECRET": SECRET})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def port() -> int:
    with fakes.refuses_connection() as down:
        return urlsplit(down.url).port or 0


@pytest.fixture
def dispatcher(db: Database, clock: Clock, port: int) -> Iterator[Dispatcher]:
    book = rules(port)
    know(db, *book.notifiers.values())
    outbound = Hasty(
        client=HttpClient(allow=(ip_network("127.0.0.0/8"),)),
        notifiers=book.notifiers,
        clock=clock,
        slack_api_url="http://127.0.0.1:1/",
    )
    yield Dispatcher(
        db=db,
        transport=outbound,
        book=lambda: book,
        clock=clock,
        monotonic=lambda: clock().timestamp(),
        chance=lambda: 0.5,
        worker="w1",
    )
    outbound.close(5)


def live(dispatcher: Dispatcher, clock: Clock, time: timedelta) -> None:
    until = clock() + time
    while clock() < until:
        clock.advance(seconds(5))
        while dispatcher.turn() or dispatcher.unfinished:
            pass


def test_after_an_hour_everything_is_told_once_and_in_order(
    db: Database, dispatcher: Dispatcher, clock: Clock, port: int
) -> None:
    for number in range(EACH):
        put(db, *[new_delivery(f"{lane}-{number}", key=f"j{lane}") for lane in range(LANES)], now=clock())
        live(dispatcher, clock, minutes(60 / EACH))
    tries = len(rows(db, attempt))
    assert 60 <= tries <= 120  # about one a minute, whatever waits
    with WebhookReceiver(secrets=[SECRET], port=port, clock=lambda: clock().timestamp()) as receiver:
        live(dispatcher, clock, seconds(75))
        soon = len(receiver.received)
        live(dispatcher, clock, hours(1))
        told = [one.id or "" for one in receiver.received if one.verified]
    assert soon >= LANES * EACH * 0.8  # those that were tried wait for a time of their own
    assert sorted(told) == sorted(f"{lane}-{number}" for lane in range(LANES) for number in range(EACH))
    for lane in range(LANES):
        assert [one for one in told if one.startswith(f"{lane}-")] == [f"{lane}-{number}" for number in range(EACH)]
    assert {row["state"] for row in rows(db, delivery)} == {SENT}
