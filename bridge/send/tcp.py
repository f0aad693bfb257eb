"""Bare connections for what does not speak HTTP: libcurl looks up, judges and connects, as for HTTP, then stands aside.

https://curl.se/libcurl/c/CURLOPT_CONNECT_ONLY.html, read 2026-12-01.
"""

from __future__ import annotations

import socket

import pycurl

from bridge.model import Reason
from bridge.send.client import CurlHandle, HttpClient
from bridge.send.http_types import Failure, Request

# libcurl keeps the TLS between itself and the proxy to itself.
_NO_TUNNEL = "mail cannot go through the https:// proxy of BRIDGE_EGRESS_PROXY: through an http:// one it can"


class Connection:
    """A blocking socket, and the address that it is connected to: the very one that was judged.

    `address` is the proxy's where BRIDGE_EGRESS_PROXY made the connection, which then must check addresses.
    """

    def __init__(self, handle: CurlHandle) -> None:
        self._handle = handle  # libcurl may read from the connection when it closes it, so that comes last
        shared = handle.curl.getinfo(pycurl.ACTIVESOCKET)
        self.address: str = handle.curl.getinfo(pycurl.PRIMARY_IP)
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self.socket = socket.fromfd(shared, family, socket.SOCK_STREAM)
        self.socket.settimeout(None)

    def close(self) -> None:
        self.socket.close()
        self._handle.close()


def connect(place: str, client: HttpClient, *, deadline_s: float) -> Connection | Failure:
    """Connect to `place`, such as "smtp.example.com:587", at an address that may be reached."""
    if (client.policy.proxy or "").startswith("https:"):
        return Failure(_NO_TUNNEL)
    handle = client.new_handle()
    handle.curl.setopt(pycurl.CONNECT_ONLY, 1)
    handle.curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
    try:
        handle.arm(Request(f"http://{place}/", (), b"", deadline_s))
        handle.curl.perform()
        return Connection(handle)
    except pycurl.error as fault:
        failure = handle.ended(*fault.args[:2])
    except ValueError as fault:
        failure = Failure(str(fault))
    handle.close()
    return failure if isinstance(failure, Failure) else Failure("it answered before it was asked", Reason.OTHER)
