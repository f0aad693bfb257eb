from ipaddress import ip_network

import pytest

from bridge.send.addresses import forbidden, parse_networks


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.8.9.10", "a loopback address"),
        ("::1", "a loopback address"),
        ("0.0.0.0", "an address of this host"),
        ("::", "an address of this host"),
        ("10.0.0.1", "a private address"),
        ("172.31.255.255", "a private address"),
        ("192.168.1.1", "a private address"),
        ("fd00:ec2::254", "a private address"),
        ("fec0::1", "a private address"),
        ("100.64.0.1", "a shared carrier address"),
        ("100.100.100.200", "a shared carrier address"),
        ("169.254.0.23", "a link-local address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fe80::1%eth0", "a link-local address"),
        ("168.63.129.16", "a metadata address"),
        ("::ffff:168.63.129.16", "a metadata address"),
        ("64:ff9b::a83f:8110", "a metadata address"),
        ("192.0.0.192", "a reserved address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("192.0.2.1", "an address for documentation"),
        ("198.51.100.7", "an address for documentation"),
        ("203.0.113.9", "an address for documentation"),
        ("2001:db8::1", "an address for documentation"),
        ("3fff::1", "an address for documentation"),
        ("198.18.0.1", "an address for benchmarks"),
        ("192.88.99.1", "a translated address"),
        ("64:ff9b:1::1", "a translated address"),
        ("::127.0.0.1", "a translated address"),
        ("192.0.0.8", "a reserved address"),
        ("240.0.0.1", "a reserved address"),
        ("255.255.255.255", "a reserved address"),
        ("100::1", "a reserved address"),
        ("2001::1", "a reserved address"),
        ("5f00::1", "a reserved address"),
        ("::ffff:10.0.0.1", "a private address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("::ffff:a9fe:a9fe", "a link-local address"),
        ("64:ff9b::a00:1", "a private address"),
        ("64:ff9b::169.254.169.254", "a link-local address"),
        ("2002:a00:1::", "a private address"),
        ("2002:7f00:1::1", "a loopback address"),
        ("4000::1", "an unassigned address"),
        ("::ffff:0:127.0.0.1", "an unassigned address"),
        ("64:ff9b::7f00:1", "a loopback address"),
        ("64:ff9b:1:7f00:0:100::", "a translated address"),
        ("2001:0:808:808::80ff:fffe", "a reserved address"),
        ("2606:4700::5efe:127.0.0.1", "a loopback address"),
        ("2606:4700::200:5efe:10.0.0.1", "a private address"),
        ("fd00::5efe:8.8.8.8", "a private address"),
        ("fe80::5efe:8.8.8.8", "a link-local address"),
        ("example.com", "not an IP address"),
    ],
)
def test_an_address_that_is_not_public_is_forbidden_and_said_to_be_what_it_is(address: str, what: str) -> None:
    assert forbidden(address, ()) == what


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
