import json
from contextlib import suppress
from functools import cache
from ipaddress import ip_address, ip_network

import pytest

from benchmarks.egress import main
from bridge.model import Sent
from bridge.send.client import HttpClient
from tests.send.probes import ROUTES, Finding, attempt_by, findings
from tests.send.spellings import SPELLINGS, Spelling
from tests.support.receivers import LOOPBACK, Receiver, answering

THIS_MACHINE = (*LOOPBACK, ip_network("0.0.0.0/8"), ip_network("::/128"), ip_network("::ffff:127.0.0.0/104"))


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: ascii(spelling.url)[1:-1])
def test_a_forbidden_address_is_let_through_in_no_spelling_and_on_no_way_out(spelling: Spelling) -> None:
    found = _findings(spelling)
    assert [finding.route for finding in found] == list(ROUTES)
    assert all(finding.held and finding.why for finding in found), found
    for finding in found:
        assert not finding.addresses or "refused (allow it with BRIDGE_ALLOW_NETWORKS)" in finding.why


@pytest.mark.parametrize("route", ROUTES)
def test_a_probe_notices_what_is_let_through_and_does_not_connect_to_it(route: str) -> None:
    with Receiver(answering("200 OK")) as receiver:
        found = next(
            finding for finding in findings(f"http://127.1:{receiver.port}/", LOOPBACK) if finding.route == route
        )
    assert (found.let_through, found.held) == (("127.0.0.1",), False)
    assert receiver.connections == 0


def test_the_table_has_what_the_system_makes_an_address_of_and_what_it_does_not() -> None:
    addresses = [finding.addresses for spelling in SPELLINGS for finding in _findings(spelling)]
    assert sum(1 for found in addresses if found) > 3 * 60
    assert {"127.0.0.1", "169.254.169.254", "::1", "fe80::1"} <= {address for found in addresses for address in found}


@pytest.mark.parametrize("route", ROUTES)
def test_a_receiver_on_this_machine_hears_nothing_in_any_spelling_until_it_is_allowed(route: str) -> None:
    well = answering("200 OK", b"ok")
    with Receiver(well) as four, Receiver(well, "::1", four.port) as six:
        urls = [spelling.at(four.port) for spelling in SPELLINGS if _is_here(spelling, route)]
        assert len(urls) > 100
        assert not any(isinstance(attempt_by(route, url, HttpClient()).outcome, Sent) for url in urls)
        assert (four.connections, six.connections) == (0, 0)
        # The same spellings do arrive when they may, so the silence was the judge's doing.
        reached = [url for url in urls if attempt_by(route, url, HttpClient(allow=THIS_MACHINE)).address]
        assert len(reached) > 40
        assert four.connections > 30
        assert six.connections


def test_the_benchmark_counts_what_was_let_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == len(SPELLINGS) * len(ROUTES)
    assert all(finding["held"] for finding in found)


@cache
def _findings(spelling: Spelling) -> tuple[Finding, ...]:
    return tuple(findings(spelling.at(80)))


def _is_here(spelling: Spelling, route: str) -> bool:
    """Tell, without our own judge, whether the system makes an address of this machine of it, or none."""
    asked = next(finding for finding in _findings(spelling) if finding.route == route).addresses
    return all(_of_this_machine(address) for address in asked)


def _of_this_machine(address: str) -> bool:
    with suppress(ValueError):
        found = ip_address(address)
        inner = getattr(found, "ipv4_mapped", None) or found
        return inner.is_loopback or inner.is_unspecified
    return False
