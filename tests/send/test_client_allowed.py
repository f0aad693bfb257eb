"""BRIDGE_ALLOW_NETWORKS opens what it names and nothing beside it."""

import pytest

from bridge import settings as environment
from bridge.model import Attempt, Rejected, Sent
from bridge.wiring.parts import http_client
from tests.send.probes import ROUTES, attempt_by
from tests.support.receivers import Receiver, accepting

OK = accepting()


def allowing(networks: str, route: str, url: str) -> Attempt:
    return attempt_by(route, url, http_client(environment.read({"BRIDGE_ALLOW_NETWORKS": networks})))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "host", ["127.0.0.3", "127.0.0.1", "2130706435", "[::1]", "[::ffff:127.0.0.3]", "[::]", "0.0.0.0", "localhost"]
)
def test_the_neighbours_of_an_allowed_address_are_not_reached(route: str, host: str) -> None:
    listens = host.strip("[]") if host in ("127.0.0.3", "[::1]") else "127.0.0.3" if "3" in host else "127.0.0.1"
    with Receiver(OK, listens) as receiver:
        attempt = allowing("127.0.0.2/32", route, f"http://{host}:{receiver.port}/hook")
    assert isinstance(attempt.outcome, Rejected), attempt
    assert not attempt.outcome.pause
    assert receiver.connections == 0


@pytest.mark.parametrize("route", ROUTES)
def test_ipv6_is_allowed_by_itself(route: str) -> None:
    with Receiver(OK, "::1") as receiver:
        outcomes = [
            type(allowing(networks, route, f"http://[::1]:{receiver.port}/hook").outcome)
            for networks in ("127.0.0.0/8", "::1")
        ]
    assert (outcomes, len(receiver.requests)) == ([Rejected, Sent], 1)
