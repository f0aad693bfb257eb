import re
import socket
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.model import Reason, RetryLater, Sent
from bridge.send.client import HttpClient
from bridge.send.http_types import Failure
from tests.send.probes import ROUTES, attempt_by
from tests.support.certificates import MISSING, Certificate, a_certificate
from tests.support.proxies import Proxy
from tests.support.receivers import LOOPBACK, Receiver, a_request, accepting, dripping, through

OK = accepting()
PASSWORD = "hush-hush"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if MISSING:
        pytest.skip("needs openssl to make a certificate")
    return a_certificate(tmp_path_factory.mktemp("tls"), names="IP:127.0.0.1,DNS:cms.example.com")


@pytest.fixture
def traps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy that every place where one may be named names, and a password for this machine."""
    with Proxy() as proxy:
        for name in VARIABLES:
            monkeypatch.setenv(name, proxy.url)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hush\ndefault login me password hush\n")
        (tmp_path / ".curlrc").write_text(f'proxy = "{proxy.url}"\nuser = "me:hush"\nlocation\n')
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.setenv("CURL_HOME", str(tmp_path))
        yield proxy


@pytest.mark.parametrize("no_proxy", ["", "*"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("route", ROUTES)
def test_proxies_and_passwords_of_the_environment_mean_nothing(
    traps: Proxy, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, route: str, tls: bool, no_proxy: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, no_proxy)
    with Receiver(OK, tls=certificate.context if tls else None) as receiver:
        attempt = attempt_by(
            route, receiver.url.partition("?")[0], HttpClient(allow=LOOPBACK, trusted=certificate.path)
        )
    assert isinstance(attempt.outcome, Sent), attempt
    assert traps.forwarded == []
    said = receiver.requests[0].headers.get("authorization")
    assert said == ("Bearer xoxb-1" if route == "SLACK_API_URL" else None)


@pytest.mark.parametrize("route", ROUTES)
def test_a_configured_proxy_gets_http_in_absolute_form_whatever_the_environment_says(
    traps: Proxy, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with Receiver(OK) as receiver, Proxy() as proxy:
        url = f"http://cms.example.com:{receiver.port}/hook"
        attempt = attempt_by(route, url, HttpClient(proxy=proxy.url))
    assert isinstance(attempt.outcome, Sent), attempt
    (forwarded,) = proxy.forwarded
    assert (forwarded.method, forwarded.target.startswith(url)) == ("POST", True)
    assert [seen.headers["host"] for seen in receiver.requests] == [f"cms.example.com:{receiver.port}"]
    assert traps.forwarded == []


@pytest.mark.parametrize("route", ROUTES)
def test_a_configured_proxy_is_asked_for_a_tunnel_to_https_and_sees_nothing_of_what_goes_through(
    certificate: Certificate, route: str
) -> None:
    with Receiver(OK, tls=certificate.context) as receiver, Proxy() as proxy:
        place = f"cms.example.com:{receiver.port}"
        attempt = attempt_by(route, f"https://{place}/hook", HttpClient(proxy=proxy.url, trusted=certificate.path))
    assert isinstance(attempt.outcome, Sent), attempt
    (forwarded,) = proxy.forwarded
    assert (forwarded.method, forwarded.target) == ("CONNECT", place)
    assert set(forwarded.headers) == {"host", "user-agent", "proxy-connection"}
    assert len(receiver.requests) == 1


def test_a_tunnel_does_not_let_a_certificate_for_another_name_pass(certificate: Certificate) -> None:
    with Receiver(OK, tls=certificate.context) as receiver, Proxy() as proxy:
        url = f"https://evil.example.com:{receiver.port}/hook"
        attempt = attempt_by("webhook", url, HttpClient(proxy=proxy.url, trusted=certificate.path))
    place = f"evil.example.com:{receiver.port} through BRIDGE_EGRESS_PROXY"
    assert isinstance(attempt.outcome, RetryLater)
    assert attempt.outcome.why.startswith(f"the certificate of {place} is not trusted")
    assert receiver.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_proxy_that_is_down_is_named_and_the_delivery_is_tried_again(route: str, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = HttpClient(proxy=f"http://me:{PASSWORD}@127.0.0.1:{port}")
    outcome = attempt_by(route, f"{scheme}://cms.example.com/hook", client).outcome
    why = "could not connect to the proxy of BRIDGE_EGRESS_PROXY: Connection refused"
    assert outcome == RetryLater(why, Reason.CONNECTION)


@pytest.mark.parametrize("place", ["proxy.invalid:1", "127.0.0.1:99999", "[::1", ""])
def test_a_proxy_that_is_unknown_or_none_leaks_nothing(place: str) -> None:
    client = HttpClient(proxy=f"http://me:{PASSWORD}@{place}")
    outcome = attempt_by("webhook", "https://cms.example.com/", client).outcome
    assert isinstance(outcome, RetryLater)
    assert "BRIDGE_EGRESS_PROXY" in outcome.why
    assert PASSWORD not in outcome.why
    if place == "proxy.invalid:1":
        assert outcome == RetryLater("could not look up the proxy of BRIDGE_EGRESS_PROXY", Reason.CONNECTION)


@pytest.mark.parametrize("status", [403, 407, 502, 503])
@pytest.mark.parametrize("route", ROUTES)
def test_a_proxy_that_refuses_a_tunnel_is_named_with_what_it_said(route: str, status: int) -> None:
    with Proxy(b"HTTP/1.1 %d No\r\nProxy-Authenticate: Basic\r\nRetry-After: 60" % status) as proxy:
        outcome = attempt_by(route, "https://cms.example.com/hook?token=hush", HttpClient(proxy=proxy.url)).outcome
    why = f"the proxy of BRIDGE_EGRESS_PROXY refused a tunnel to cms.example.com:443: it answered {status}"
    assert outcome == RetryLater(why, Reason.CONNECTION)
    assert len(proxy.forwarded) == 1


def test_a_refused_tunnel_is_forgotten_when_the_handle_is_used_again(certificate: Certificate) -> None:
    with Receiver(OK, tls=certificate.context) as receiver:
        with Proxy(b"HTTP/1.1 403 No") as proxy:
            client = HttpClient(proxy=proxy.url, trusted=certificate.path)
            through(client, a_request(f"https://cms.example.com:{receiver.port}/"))
        failure = through(client, a_request(f"https://cms.example.com:{receiver.port}/"))
        client.close()
    assert getattr(failure, "why", "").startswith("could not connect to the proxy of BRIDGE_EGRESS_PROXY")


def test_407_to_a_plain_request_is_the_proxys_and_tried_again() -> None:
    with Proxy(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic") as proxy:
        attempt = attempt_by("webhook", "http://cms.example.com/hook", HttpClient(proxy=proxy.url))
    assert attempt.outcome == RetryLater("answered 407 Proxy Authentication Required", Reason.AUTH)
    assert len(proxy.forwarded) == 1


@pytest.mark.parametrize("behave", [dripping(b"", b""), dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x")])
def test_a_proxy_that_never_opens_the_tunnel_meets_the_deadline(behave: object) -> None:
    with Receiver(behave) as proxy:  # type: ignore[arg-type]
        client = HttpClient(proxy=f"http://127.0.0.1:{proxy.port}")
        failure = through(client, a_request("https://cms.example.com/hook", deadline_s=0.3))
        client.close()
    assert isinstance(failure, Failure)
    # To older versions of libcurl, 8.16 for one, a connection is one with its tunnel only.
    assert re.fullmatch(
        "(no answer from cms.example.com:443 through|could not connect to the proxy of) "
        r"BRIDGE_EGRESS_PROXY within 0\.3\d* s",
        failure.why,
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_password_in_the_proxys_url_goes_to_the_proxy_and_to_nobody_else(
    caplog: pytest.LogCaptureFixture, certificate: Certificate, route: str, scheme: str
) -> None:
    with Receiver(OK, tls=certificate.context if scheme == "https" else None) as receiver, Proxy() as proxy:
        client = HttpClient(proxy=proxy.url.replace("://", f"://me:{PASSWORD}%21@"), trusted=certificate.path)
        attempt = attempt_by(route, f"{scheme}://cms.example.com:{receiver.port}/hook", client)
    assert isinstance(attempt.outcome, Sent), attempt
    basic = f"Basic {b64encode(f'me:{PASSWORD}!'.encode()).decode()}"
    assert [forwarded.headers["proxy-authorization"] for forwarded in proxy.forwarded] == [basic]
    if scheme == "https":  # a plain request is the proxy's to clean
        assert "proxy-authorization" not in receiver.requests[0].headers
    assert PASSWORD not in f"{caplog.text} {attempt} {client.policy}"


def test_that_the_proxy_judges_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with Receiver(OK) as receiver, Proxy() as proxy:
        client = HttpClient(proxy=proxy.url)
        for _ in range(3):
            through(client, a_request(receiver.url))
        client.close()
    assert caplog.messages == ["an egress proxy is set: it must check the addresses that notifiers reach"]


def test_a_proxy_may_speak_tls_itself(certificate: Certificate) -> None:
    with Receiver(OK, tls=certificate.context) as proxy:
        client = HttpClient(proxy=f"https://127.0.0.1:{proxy.port}", trusted=certificate.path)
        attempt = attempt_by("webhook", "http://cms.example.com/hook", client)
    assert isinstance(attempt.outcome, Sent), attempt
    assert [seen.path for seen in proxy.requests] == ["http://cms.example.com/hook"]
