"""Names with several addresses, and names that change theirs, as the system's own look-up answers them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path
from typing import Any, Self

import pytest

from tests.send.probes import ROUTES
from tests.support.receivers import Behaviour, Receiver, accepting

REPOSITORY = Path(__file__).parents[2]
OPEN = "127.0.0.2/32"  # two addresses of this machine, and only the first is allowed
WRAPPER = find_library("nss_wrapper")
KEPT = accepting()
CLOSED = accepting("Connection: close")

pytestmark = pytest.mark.skipif(not WRAPPER, reason="needs Debian's libnss-wrapper to answer look-ups")


class SendingProgram:
    """A process of ours, for which the file `hosts` is all that names are looked up in."""

    def __init__(self, hosts: Path) -> None:
        self._hosts = hosts
        self._changes = 0
        self.resolve()
        environ = {**os.environ, "LD_PRELOAD": str(WRAPPER), "NSS_WRAPPER_HOSTS": str(hosts)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.send.sending_program"],
            env=environ, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def resolve(self, *addresses: str) -> None:
        """From now on cms.test is these."""
        self._hosts.write_text("".join(f"{address} cms.test\n" for address in addresses))
        self._changes += 1  # the wrapper reads the file again when its time, in seconds, is another
        os.utime(self._hosts, (self._changes, self._changes))

    def send(self, route: str, port: int, **more: Any) -> dict[str, Any]:
        asked = {"route": route, "url": f"http://cms.test:{port}/hook", "allow": OPEN, "fresh": True} | more
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SendingProgram]:
    with SendingProgram(tmp_path_factory.mktemp("names") / "hosts") as made:
        yield made


@contextmanager
def both(behave: Behaviour) -> Iterator[tuple[Receiver, Receiver]]:
    """A receiver on the allowed address, and one at the same port of the forbidden one."""
    with Receiver(behave, "127.0.0.2") as allowed, Receiver(behave, "127.0.0.3", allowed.port) as forbidden:
        yield allowed, forbidden


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("addresses", [("127.0.0.2", "127.0.0.3"), ("127.0.0.3", "127.0.0.2")])
def test_of_several_addresses_only_allowed_ones_are_connected_to(
    program: SendingProgram, route: str, addresses: tuple[str, ...]
) -> None:
    program.resolve(*addresses)
    with both(CLOSED) as (allowed, forbidden):
        assert [program.send(route, allowed.port)["outcome"] for _ in range(5)] == ["Sent"] * 5
    assert (len(allowed.requests), forbidden.connections) == (5, 0)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("addresses", [("127.0.0.2", "127.0.0.3"), ("127.0.0.3", "127.0.0.2")])
def test_where_the_allowed_one_is_down_the_forbidden_one_is_no_way_round(
    program: SendingProgram, route: str, addresses: tuple[str, ...]
) -> None:
    program.resolve(*addresses)
    with Receiver(KEPT, "127.0.0.3") as forbidden:
        attempt = program.send(route, forbidden.port)
    assert attempt["outcome"] == "RetryLater"  # the name has an address that may be reached, and it may come back
    assert f"could not connect to cms.test:{forbidden.port}" in attempt["why"]
    assert forbidden.connections == 0


@pytest.mark.parametrize("route", ROUTES)
def test_a_name_with_forbidden_addresses_only_is_refused_with_one_of_them_named(
    program: SendingProgram, route: str
) -> None:
    program.resolve("127.0.0.3", "127.0.0.4")
    with Receiver(KEPT, "127.0.0.3") as forbidden:
        attempt = program.send(route, forbidden.port)
    assert attempt["outcome"] == "Rejected"
    assert attempt["why"].startswith("cms.test resolves to 127.0.0.")
    assert forbidden.connections == 0


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("behave", [KEPT, CLOSED], ids=["connection kept", "connection closed"])
@pytest.mark.parametrize("fresh", [False, True], ids=["look-up remembered", "looked up again"])
def test_a_name_that_changes_to_a_forbidden_address_leads_nowhere(
    program: SendingProgram, route: str, behave: Behaviour, fresh: bool
) -> None:
    with both(behave) as (allowed, forbidden):
        program.resolve("127.0.0.2")
        assert program.send(route, allowed.port)["outcome"] == "Sent"
        program.resolve("127.0.0.3")
        again = [program.send(route, allowed.port, fresh=fresh) for _ in range(2)]
        assert {attempt["outcome"] for attempt in again} == ({"Rejected"} if fresh else {"Sent"})
        assert {attempt["address"] for attempt in again} == ({None} if fresh else {"127.0.0.2"})
        assert forbidden.connections == 0


@pytest.mark.parametrize("route", ROUTES)
def test_a_name_that_changes_back_and_forth_reaches_the_allowed_address_alone(
    program: SendingProgram, route: str
) -> None:
    with both(CLOSED) as (allowed, forbidden):
        outcomes = []
        for address in ("127.0.0.3", "127.0.0.2", "127.0.0.3", "127.0.0.2"):
            program.resolve(address)
            outcomes.append(program.send(route, allowed.port)["outcome"])
    assert outcomes == ["Rejected", "Sent", "Rejected", "Sent"]
    assert (len(allowed.requests), forbidden.connections) == (2, 0)
