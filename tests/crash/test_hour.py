"""A receiver that is dead for an hour: real sockets, a simulated hour."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from urllib.parse import urlsplit

import pytest

from bridge.model import Attempt
from bridge.record.database import Database
from bridge.record.schema import SENT, attempts
from bridge.send.client import HttpClient
from bridge.send.sender import Sender
from bridge.simulator.receiver import WebhookReceiver
from tests.support import hostile
from tests.support.nouns import hours, minutes, new_delivery, seconds
from tests.support.records import put, rows
from tests.support.rig import Rig
from tests.support.stage import SECRET

JOBS, EACH = 60, 5
RULES = """
[notifier.cms]
type = "webhook"
url = "http://127.0.0.1:{port}/cms"
secret = {{ env = "SECRET" }}
"""


class Hasty(Sender):
    """Waits for answers, and not for time to pass, which is simulated."""

    def wait(self, timeout_s: float) -> list[Attempt]:
        return super().wait(timeout_s if self.in_flight else 0)


@pytest.fixture
def port() -> int:
    with hostile.refuses_connection() as down:
        return urlsplit(down.url).port or 0


@pytest.fixture
def rig(db: Database, port: int) -> Iterator[Rig]:
    rig = Rig(db, given=RULES.format(port=port), environ={"SECRET": SECRET})
    client = HttpClient(allow=(ip_network("127.0.0.0/8"),))
    notifiers = rig.book.notifiers
    sender = Hasty(client=client, notifiers=notifiers, clock=rig.clock, slack_api_url="http://127.0.0.1:1/")
    rig.dispatcher = rig.new_dispatcher(transport=sender, chance=lambda: 0.5)
    yield rig
    sender.close(5)


def test_after_an_hour_everything_is_sent_once_and_in_order(rig: Rig, port: int) -> None:
    for number in range(EACH):
        put(rig.db, *[new_delivery(f"{job}-{number}", key=f"j{job}") for job in range(JOBS)], now=rig.clock())
        rig.lives(minutes(60 / EACH), step=seconds(5))
    assert 60 <= len(rows(rig.db, attempts)) <= 120  # about one a minute, whatever waits
    with WebhookReceiver(secrets=[SECRET], port=port, clock=lambda: rig.clock().timestamp()) as receiver:
        rig.lives(seconds(75), step=seconds(5))
        soon = len(receiver.received)
        rig.lives(hours(1), step=seconds(5))
        received = [one.id or "" for one in receiver.received if one.verified]
    assert soon >= JOBS * EACH * 0.8  # those that were tried wait for a time of their own
    for job in range(JOBS):
        assert [id_ for id_ in received if id_.startswith(f"{job}-")] == [f"{job}-{number}" for number in range(EACH)]
    assert len(received) == JOBS * EACH
    assert {*rig.stored_states()} == {SENT}
