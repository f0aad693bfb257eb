"""The variables that say how CI and receivers are reached: proxies, and which certificates are trusted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bridge.collect.errors import TemporaryError
from bridge.collect.http import Proxies
from bridge.decide.rulesfile.read import read as read_rules
from bridge.send.http_types import Failure, Reply
from bridge.settings import Settings, SettingsRefused, read
from bridge.wiring import parts
from bridge.wiring.parts import http_client
from tests.support.certificates import MISSING, Certificate, a_certificate
from tests.support.proxies import Proxy
from tests.support.receivers import Receiver, a_request, answering

RULES = """
[[watch]]
name = "w"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
"""
KEY = {"TENCENTCLOUD_SECRET_ID": "AKIDx", "TENCENTCLOUD_SECRET_KEY": "x", "BRIDGE_ALLOW_NETWORKS": "127.0.0.0/8"}


class Ci(ThreadingHTTPServer):
    """A list without jobs, over TLS or not."""

    daemon_threads = False

    def __init__(self, certificate: Certificate | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.server_port}"
        if certificate:
            self.socket = certificate.context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that trusts no such certificate hangs up."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 5

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "11")
        self.end_headers()
        self.wfile.write(b"<Response/>")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if MISSING:
        pytest.skip("needs openssl to make certificates")
    return a_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["http", "https"])
def ci(request: pytest.FixtureRequest) -> Iterator[Ci]:
    certificate = request.getfixturevalue("certificate") if request.param == "https" else None
    with Ci(certificate) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def settings(ci: Ci, certificate: Certificate, **environ: str) -> Settings:
    return read({**KEY, "BRIDGE_CI_ENDPOINT": ci.url, "SSL_CERT_FILE": f"{certificate.path}\n", **environ})


def ask(found: Settings) -> None:
    book = read_rules(RULES, {})
    with closing(parts.source(found, book)) as source:
        source.list(book.watches[0].streams[0], size=1)


@pytest.mark.parametrize("name", ["{}_PROXY", "{}_proxy"])
@pytest.mark.parametrize("written", ["{}", " {}/\n", "\ufeff{}"])
def test_ci_is_asked_through_the_proxy_of_its_scheme(ci: Ci, certificate: Certificate, name: str, written: str) -> None:
    with Proxy() as proxy:
        scheme = ci.url.partition(":")[0]
        variable = name.format(scheme.upper() if name.endswith("_PROXY") else scheme)
        ask(settings(ci, certificate, **{variable: written.format(proxy.url)}))
        ask(settings(ci, certificate, **{variable: proxy.url.removeprefix("http://")}))
    assert len(proxy.forwarded) == 2
    assert proxy.forwarded[0].method == ("CONNECT" if scheme == "https" else "GET")


@pytest.mark.parametrize("without", ["*", "127.0.0.1", "example.com, 127.0.0.0/8\n", "127.0.0.1:{port}"])
def test_hosts_of_no_proxy_are_asked_directly(ci: Ci, certificate: Certificate, without: str) -> None:
    with Proxy() as proxy:
        ways = {"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url, "NO_PROXY": without.format(port=ci.server_port)}
        ask(settings(ci, certificate, **ways))
    assert not proxy.forwarded


@pytest.mark.parametrize(
    ("without", "host", "direct"),
    [
        ("myqcloud.com", "ci.ap-chongqing.myqcloud.com", True),
        (".myqcloud.com", "ci.ap-chongqing.myqcloud.com", True),
        ("*.MyQcloud.com", "ci.ap-chongqing.myqcloud.com.", True),
        ("cloud.com", "ci.ap-chongqing.myqcloud.com", False),
        ("ci.ap-chongqing.myqcloud.com:8443", "ci.ap-chongqing.myqcloud.com", False),
        ("a b,*", "ci.ap-chongqing.myqcloud.com", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("::1", "[::1]", True),
        ("[::1]", "[::1]", True),
        (", . *. [] :443 /8 300.0.0.0/8", "ci.ap-chongqing.myqcloud.com", False),
        ("", "ci.ap-chongqing.myqcloud.com", False),
    ],
)
def test_no_proxy_names_hosts_as_elsewhere(without: str, host: str, *, direct: bool) -> None:
    found = Proxies(https="http://proxy:3128", without=without).of(f"https://{host}/jobs")
    assert found == (None if direct else "http://proxy:3128")


@pytest.mark.parametrize("wrong", ["socks5://h:1", "http://", "http://h:x", "http://a b", "http://user:hush@h\\"])
def test_a_proxy_that_is_none_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(SettingsRefused, match=r"^HTTPS_PROXY: .*; write an address such as") as refused:
        read({"https_proxy": wrong})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("odd", ["http://ü:3128", "http://a:ü@127.0.0.1:1", "HTTPS://127.0.0.1:01/%", "http://[::1]:1"])
def test_whatever_proxy_is_accepted_the_door_can_use(odd: str) -> None:
    with closing(http_client(read({"BRIDGE_EGRESS_PROXY": odd}))) as way:
        heard = way.fetch(a_request("http://127.0.0.1:1/", deadline_s=0.2))
    assert isinstance(heard, Failure)
    assert "BRIDGE_EGRESS_PROXY" in heard.why


def test_passwords_of_proxies_are_among_the_secrets() -> None:
    found = read(
        {"HTTPS_PROXY": "http://u:höch!st@h:1", "HTTP_PROXY": "u:low-est@h", "BRIDGE_EGRESS_PROXY": "http://u:ü@h"}
    )
    assert {"höch!st", "low-est", "ü"} <= set(found.secrets)


@pytest.mark.parametrize("ci", ["https"], indirect=True)
def test_one_variable_says_which_certificates_ci_and_receivers_may_have(ci: Ci, certificate: Certificate) -> None:
    trusting, wary = settings(ci, certificate), settings(ci, certificate, SSL_CERT_FILE="")
    ask(trusting)
    with pytest.raises(TemporaryError, match="SSL_CERT_FILE names the certificates to trust"):
        ask(wary)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(answering("200 OK"), tls=certificate.context))
        clients = [stack.enter_context(closing(http_client(found))) for found in (trusting, wary)]
        heard = [one.fetch(a_request(receiver.url)) for one in clients]
    assert [type(one) for one in heard] == [Reply, Failure]


@pytest.mark.parametrize("wrong", ["/not/there", "/", "/dev/zero", __file__, "x" * 5000])
def test_a_file_of_certificates_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(SettingsRefused, match=r"^SSL_CERT_FILE: "):
        read({"SSL_CERT_FILE": wrong})


@pytest.mark.parametrize("kind", ["CERTIFICATE", "PRIVATE KEY"])
def test_a_file_in_pem_with_no_certificate_that_can_be_used_is_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "tls.pem"
    file.write_text(f"-----BEGIN {kind}-----\nMIIB\n-----END {kind}-----\n")
    with pytest.raises(SettingsRefused, match=r"^SSL_CERT_FILE: .* is not a file of certificates in PEM format$"):
        read({"SSL_CERT_FILE": str(file)})


def test_notifiers_go_through_no_proxy_but_their_own(certificate: Certificate, tmp_path: Path) -> None:
    with Proxy() as proxy, Receiver(answering("200 OK")) as receiver:
        found = read({**KEY, "HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url})
        with closing(http_client(found)) as way:
            assert isinstance(way.fetch(a_request(receiver.url)), Reply)
    assert not proxy.forwarded
