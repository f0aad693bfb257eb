from ipaddress import ip_network

import pytest

from bridge.send.addresses import forbidden, parse_networks

DENIED = {
    "a loopback address": (
        "127.0.0.1 127.8.9.10 ::1 ::ffff:127.0.0.1 2002:7f00:1::1 64:ff9b::7f00:1 2606:4700::5efe:127.0.0.1 "
    ),
    "an address of this host": "0.0.0.0 ::",
    "a private address": (
        "10.0.0.1 172.31.255.255 192.168.1.1 fd00:ec2::254 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1 "
        "2002:a00:1:: 2606:4700::200:5efe:10.0.0.1 fd00::5efe:8.8.8.8 "
    ),
    "a shared carrier address": "100.64.0.1 100.100.100.200",
    "a link-local address": (
        "169.254.0.23 169.254.169.254 fe80::1 fe80::1%eth0 ::ffff:a9fe:a9fe 64:ff9b::169.254.169.254 "
        "fe80::5efe:8.8.8.8 "
    ),
    "a metadata address": "168.63.129.16 ::ffff:168.63.129.16 64:ff9b::a83f:8110",
    "a reserved address": (
        "192.0.0.192 192.0.0.8 240.0.0.1 255.255.255.255 100::1 2001::1 5f00::1 2001:0:808:808::80ff:fffe "
    ),
    "a multicast address": "224.0.0.1 ff02::1",
    "an address for documentation": "192.0.2.1 198.51.100.7 203.0.113.9 2001:db8::1 3fff::1",
    "an address for benchmarks": "198.18.0.1",
    "a translated address": "192.88.99.1 64:ff9b:1::1 ::127.0.0.1 64:ff9b:1:7f00:0:100::",
    "an unassigned address": "4000::1 ::ffff:0:127.0.0.1",
    "not an IP address": "example.com",
}


@pytest.mark.parametrize("what", DENIED)
def test_an_address_that_is_not_public_is_forbidden_and_said_to_be_what_it_is(what: str) -> None:
    for address in DENIED[what].split():
        assert (address, forbidden(address)) == (address, what)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "2606:4700::5efe:8.8.8.8",
        "2606:4700::1:5efe:10.0.0.1",
    ],
)
def test_a_public_address_is_not_forbidden(address: str) -> None:
    assert forbidden(address, ()) is None


def test_an_allowed_network_opens_exactly_itself_in_every_wrapping() -> None:
    allowed = (ip_network("10.1.0.0/16"), ip_network("::1/128"))
    assert forbidden("10.1.2.3", allowed) is None
    assert forbidden("::ffff:10.1.2.3", allowed) is None
    assert forbidden("64:ff9b::a01:203", allowed) is None
    assert forbidden("::1", allowed) is None
    assert forbidden("2606:4700::5efe:10.1.2.3", allowed) is None
    assert forbidden("fd00::5efe:10.1.2.3", allowed) == "a private address"
    assert forbidden("10.2.0.1", allowed) == "a private address"
    assert forbidden("::ffff:10.2.0.1", allowed) == "a private address"
    assert forbidden("127.0.0.1", allowed) == "a loopback address"


def test_networks_are_read_with_commas_or_spaces() -> None:
    assert parse_networks(" 10.0.0.0/8,127.0.0.1  fd00::/8 ,") == (
        ip_network("10.0.0.0/8"),
        ip_network("127.0.0.1/32"),
        ip_network("fd00::/8"),
    )
    assert parse_networks("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.0/8, lan", '"lan" is not a network; write it like 10.1.0.0/16 or 10.1.2.3'),
        ("10.0.0.0/33", '"10.0.0.0/33" is not a network'),
        ("10.1.2.3/8", '"10.1.2.3/8" has bits beyond its length; did you mean 10.0.0.0/8?'),
    ],
)
def test_a_wrong_network_is_named_with_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_networks(text)
    assert str(caught.value).startswith(message)
