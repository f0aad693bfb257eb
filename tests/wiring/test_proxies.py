"""The variables that say how CI and receivers are reached: proxies, and which certificates are trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if MISSING:
        pytest.skip("needs openssl to make certificates")
    return a_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["http", "https"])
def ci(request: pytest.FixtureRequest) -> Iterator[str]:
    """The endpoint of a CI without jobs, with TLS or without."""
    tls = request.getfixturevalue("certificate").context if request.param == "https" else None
    with Receiver(answering("200 OK", b"<Response/>"), tls=tls) as server:
        yield f"{request.param}://127.0.0.1:{server.port}"


def settings(ci: str, certificate: Certificate, **environ: str) -> Settings:
    return read({**KEY, "BRIDGE_CI_ENDPOINT": ci, "SSL_CERT_FILE": f"{certificate.path}\n", **environ})


def ask(found: Settings) -> None:
    book = read_rules(RULES, {})
    with closing(parts.source(found, book)) as source:
        source.list(book.watches[0].streams[0], size=1)


@pytest.mark.parametrize("name", ["{}_PROXY", "{}_proxy"])
@pytest.mark.parametrize("written", ["{}", "\ufeff {}/\n"])
def test_ci_is_reached_through_the_proxy_of_its_scheme(
    ci: str, certificate: Certificate, name: str, written: str
) -> None:
    with Proxy() as proxy:
        scheme = ci.partition(":")[0]
        variable = name.format(scheme.upper() if name.endswith("_PROXY") else scheme)
        ask(settings(ci, certificate, **{variable: written.format(proxy.url)}))
        ask(settings(ci, certificate, **{variable: proxy.url.removeprefix("http://")}))
    assert len(proxy.forwarded) == 2
    assert proxy.forwarded[0].method == ("CONNECT" if scheme == "https" else "GET")


@pytest.mark.parametrize("without", ["*", "127.0.0.1", "example.com, 127.0.0.0/8\n", "127.0.0.1:{port}"])
def test_hosts_in_no_proxy_are_asked_directly(ci: str, certificate: Certificate, without: str) -> None:
    with Proxy() as proxy:
        ways = {
            "HTTP_PROXY": proxy.url,
            "HTTPS_PROXY": proxy.url,
            "NO_PROXY": without.format(port=ci.rpartition(":")[2]),
        }
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
def test_no_proxy_is_read_as_by_other_programs(without: str, host: str, *, direct: bool) -> None:
    found = Proxies(https="http://proxy:3128", without=without).of(f"https://{host}/jobs")
    assert found == ({} if direct else {"https": "http://proxy:3128"})


@pytest.mark.parametrize("wrong", ["socks5://h:1", "http://", "http://h:x", "http://a b", "http://user:hush@h\\"])
def test_an_invalid_proxy_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(SettingsRefused, match=r"^HTTPS_PROXY: .*; write an address such as") as refused:
        read({"https_proxy": wrong})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("odd", ["http://ü:3128", "http://a:ü@127.0.0.1:1", "HTTPS://127.0.0.1:01/%", "http://[::1]:1"])
def test_the_client_can_use_every_accepted_proxy(odd: str) -> None:
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
def test_one_variable_names_the_certificates_to_trust_for_ci_and_receivers(ci: str, certificate: Certificate) -> None:
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
def test_a_missing_or_invalid_file_of_certificates_is_refused(wrong: str) -> None:
    with pytest.raises(SettingsRefused, match=r"^SSL_CERT_FILE: "):
        read({"SSL_CERT_FILE": wrong})


@pytest.mark.parametrize("kind", ["CERTIFICATE", "PRIVATE KEY"])
def test_a_pem_file_without_a_usable_certificate_is_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "tls.pem"
    file.write_text(f"-----BEGIN {kind}-----\nMIIB\n-----END {kind}-----\n")
    with pytest.raises(SettingsRefused, match=r"^SSL_CERT_FILE: .* is not a file of certificates in PEM format$"):
        read({"SSL_CERT_FILE": str(file)})


def test_notifiers_use_only_their_own_proxy(certificate: Certificate, tmp_path: Path) -> None:
    with Proxy() as proxy, Receiver(answering("200 OK")) as receiver:
        found = read({**KEY, "HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url})
        with closing(http_client(found)) as way:
            assert isinstance(way.fetch(a_request(receiver.url)), Reply)
    assert not proxy.forwarded
