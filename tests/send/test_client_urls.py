"""What the check of the rules takes for a URL is sent, and arrives as HTTP has it (RFC 9112, RFC 3986)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read
from bridge.environment import lookup
from bridge.model import Sent
from bridge.notifiers import WebhookNotifier
from bridge.send.client import HttpClient
from tests.support.receivers import LOOPBACK, Receiver, a_request, a_sender, answering, attempt, through
from tests.support.rules_texts import RULE, WATCH

RULES = f'{WATCH}{RULE}[notifier.hook]\ntype = "webhook"\nurl = {{ env = "U" }}\n'
# request-target of RFC 9112 in origin-form: an absolute path and perhaps a query, both of RFC 3986
_SIGN = r"[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}"
_TARGET = re.compile(rf"/({_SIGN})*(\?({_SIGN}|\?)*)?")


def accepted(url: str) -> WebhookNotifier:
    found = read(RULES, {"U": url}).notifiers["hook"]
    assert isinstance(found, WebhookNotifier)
    return found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver(answering("204 No Content")) as made:
        yield made


@pytest.fixture(scope="module")
def wire() -> Iterator[HttpClient]:
    with closing(HttpClient(allow=LOOPBACK)) as made:
        yield made


def arrived(url: str, receiver: Receiver, wire: HttpClient) -> str:
    """Send to a URL of the rules; return the target that the receiver read."""
    before = len(receiver.requests)
    made = attempt(a_sender(accepted(url), client=wire), notifier="hook")
    assert isinstance(made.outcome, Sent), made
    (seen,) = receiver.requests[before:]
    return seen.path


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("/hook?name=ü", "/hook?name=%C3%BC"),
        ("/hook?name=%C3%BC", "/hook?name=%C3%BC"),
        ("/上传/完成", "/%E4%B8%8A%E4%BC%A0/%E5%AE%8C%E6%88%90"),
        ("/a%2Fb%20c", "/a%2Fb%20c"),
        ("/100%/x?q=50%&r=%zz", "/100%25/x?q=50%25&r=%25zz"),
        ('/x?a[]=1|2&b={c}&d="e"<f>^`', "/x?a%5B%5D=1%7C2&b=%7Bc%7D&d=%22e%22%3Cf%3E%5E%60"),
        ("", "/"),
        ("?key=1", "/?key=1"),
        ("/x#part", "/x"),
        ("/😀?😀", "/%F0%9F%98%80?%F0%9F%98%80"),
    ],
)
def test_path_and_query_arrive_percent_encoded_once(
    written: str, target: str, receiver: Receiver, wire: HttpClient
) -> None:
    assert arrived(f"http://127.0.0.1:{receiver.port}{written}", receiver, wire) == target


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(max_size=30), query=st.text(max_size=30))
def test_whatever_the_check_takes_arrives_as_a_right_request(
    path: str, query: str, receiver: Receiver, wire: HttpClient
) -> None:
    url = f"http://127.0.0.1:{receiver.port}/{path}?{query}"
    assume(lookup({"U": url}, "U") == url)  # what is at its ends and cannot be seen is no part of it
    try:
        encoded = accepted(url).url
    except RulesRefused:
        return
    assert accepted(encoded).url == encoded  # never twice
    target = arrived(url, receiver, wire)
    assert _TARGET.fullmatch(target)
    if not set("#%") & set(url) and "/." not in f"/{path}":  # libcurl takes /./ and /../ out
        asked = url.removeprefix(f"http://127.0.0.1:{receiver.port}")
        assert unquote(target) == (asked if query else asked.removesuffix("?"))


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example."),
        ("日本語。jp", "xn--wgv71a119e.jp"),
        ("faß.de", "xn--fa-hia.de"),  # IDNA 2008; that of 2003 makes fass.de of it, which may be another's
        ("my_host.internal", "my_host.internal"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
    ],
)
def test_a_host_is_written_by_idna(host: str, sent: str) -> None:
    assert accepted(f"https://{host}:8443/x").url == f"https://{sent}:8443/x"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h\\x/", "a space, a backslash or a control character"),
        ("http://a..b/", "the host of the url is not a valid name"),
        ("http://ü..b/", "the host of the url is not a valid name"),
        ("http://💩.example/", "not a valid name .IDNA"),
        ("http://%31%32%37.0.0.1/", "the host of the url is not a valid name"),
        ("http://a,b/", "the host of the url is not a valid name"),
        (f"http://{'a' * 64}.example/", "the host of the url is not a valid name"),
        (f"http://{'a.' * 130}example/", "the host of the url is not a valid name"),
        ("http://h/\u200bx", "invisible character"),
        ("http://h/\u202ex", "invisible character"),
        (f"http://h/{'x' * 9000}", "longer than 8192 characters"),
        (f"http://h/{'ü' * 2000}", "longer than 8192 characters"),
        ("http://[::1]x/", "the url is malformed"),
        ("http://h:+80/", "the url is malformed"),
        ("'http://h/'", "is in quotes"),
    ],
)
def test_what_would_never_be_sent_is_refused_by_the_check(url: str, why: str) -> None:
    with pytest.raises(RulesRefused, match=why) as refused:
        accepted(url)
    assert url[7:20] not in str(refused.value)


def test_the_client_encodes_by_the_same_parser(receiver: Receiver, wire: HttpClient) -> None:
    through(wire, a_request(f"http://127.0.0.1:{receiver.port}/ü?ü=%C3%BC%"))
    assert receiver.requests[-1].path == "/%C3%BC?%C3%BC=%C3%BC%25"
