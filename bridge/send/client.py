"""The HTTP client of all notifiers: one libcurl multi loop in the caller's thread, which checks every address."""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil, inf
from pathlib import Path
from time import monotonic
from typing import Any

import certifi
import pycurl

from bridge import __version__
from bridge.model import Reason
from bridge.send.addresses import Network, forbidden
from bridge.send.http_types import Failure, Reply, Request
from bridge.url import encoded, whereabouts

# --- one libcurl easy handle, reused --------------------------------------------------------------------------------

USER_AGENT = f"ci-bridge/{__version__}"
CONNECT_DEADLINE_S = 10.0
DRAINED = 64 * 1024  # an answer up to this size is read to its end, so that the connection can be reused

# Options of libcurl that pycurl has no name for; curl/curl.h of 8.23, read 2026-11-21.
_SUPPRESS_CONNECT_HEADERS = 265
_QUICK_EXIT = 322  # closing a handle must not wait for a name server that does not answer

_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def ca_file() -> str:
    """Return the certificates to trust by default: the system's, else certifi's.

    pycurl's wheel knows only the path of Red Hat's bundle.
    """
    files = (ssl.get_default_verify_paths().openssl_cafile, *_CA_FILES)
    return next((file for file in files if file and Path(file).is_file()), certifi.where())


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Settings of every request of one client."""

    allow: tuple[Network, ...] = ()  # networks that may be reached although they are not public
    proxy: str | None = field(default=None, repr=False)  # may have a password
    trusted: str  # a file of certificates
    answer_cap: int = 4096
    once: bool = False  # never sent again by libcurl itself


class _LentSocket(socket.socket):
    """pycurl duplicates its descriptor and drops it: it must be closed at that moment.

    As long as both are open, epoll reports events of the one that libcurl has closed.
    """

    def __del__(self) -> None:
        self.close()


class CurlHandle:
    """An easy handle and its current request."""

    def __init__(self, policy: Policy) -> None:
        self.curl = pycurl.Curl()
        self.key: object = None
        self._policy = policy
        self._url = ""
        self._deadline_s = 0.0
        self._lines: list[bytes] = []
        self._chunks: list[bytes] = []
        self._read = 0
        self._refused = ""
        self._connected_to: str | None = None
        self._is_sent = False
        self._set_up()

    def arm(self, request: Request, key: object = None) -> None:
        """Prepare for `request`. Raises ValueError if it must not be sent."""
        lines = "".join(request.headers)
        if "\r" in lines or "\n" in lines or "\0" in lines:
            raise ValueError("a header has a line break in it")
        set_option = self.curl.setopt
        self.key = key
        if request.url != self._url:
            set_option(pycurl.URL, encoded(request.url))
            self._url = request.url
        if request.deadline_s != self._deadline_s:
            set_option(pycurl.TIMEOUT_MS, max(1, int(request.deadline_s * 1000)))
            set_option(pycurl.CONNECTTIMEOUT_MS, int(CONNECT_DEADLINE_S * 1000))
            self._deadline_s = request.deadline_s
        set_option(pycurl.HTTPHEADER, (*request.headers, "Expect:"))
        set_option(pycurl.POSTFIELDS, request.body)
        self._lines.clear()
        self._chunks.clear()
        self._read, self._refused, self._connected_to, self._is_sent = 0, "", None, False

    def ended(self, code: int, text: str) -> Reply | Failure:
        """Return the result. `code` and `text` are libcurl's: 0 and "" mean success."""
        info = self.curl.getinfo
        seconds, address = info(pycurl.TOTAL_TIME), self._connected_to or info(pycurl.PRIMARY_IP) or None
        status = info(pycurl.RESPONSE_CODE) if self._lines else 0
        # The status line is the answer, even if the rest was too long, too slow, cut off or not HTTP: the
        # receiver has decided, and another request would be a duplicate.
        if status >= 200:
            return Reply(status, tuple(self._lines), b"".join(self._chunks), seconds, address, truncated=code != 0)
        if self._refused and not self._connected_to:
            return Failure(self._refused, forbidden=True, seconds=seconds)
        why, reason = self._failed(code, text)
        return Failure(why, reason, seconds=seconds, address=address)

    def close(self) -> None:
        self.curl.close()

    def _set_up(self) -> None:
        policy, set_option = self._policy, self.curl.setopt
        for option, value in {
            pycurl.POST: 1,
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.HTTP09_ALLOWED: 0,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.NETRC: pycurl.NETRC_IGNORED,
            pycurl.TCP_NODELAY: 1,
            pycurl.SSL_VERIFYPEER: 1,
            pycurl.SSL_VERIFYHOST: 2,
            pycurl.CAINFO: policy.trusted,
            pycurl.PROXY_CAINFO: policy.trusted,
            pycurl.USERAGENT: USER_AGENT,
            pycurl.PROXY: policy.proxy or "",  # "" also ignores HTTP_PROXY and the like
            pycurl.NOPROXY: "",
            pycurl.HEADERFUNCTION: self._lines.append,
            pycurl.WRITEFUNCTION: self._take,
            _SUPPRESS_CONNECT_HEADERS: 1,
            _QUICK_EXIT: 1,
        }.items():
            set_option(option, value)
        if policy.once:
            set_option(pycurl.PREREQFUNCTION, self._send_once)
        if not policy.proxy:
            set_option(pycurl.OPENSOCKETFUNCTION, self._open)

    def _take(self, chunk: bytes) -> int | None:
        if self._read < self._policy.answer_cap:
            self._chunks.append(chunk[: self._policy.answer_cap - self._read])
        self._read += len(chunk)
        return None if self._read <= max(DRAINED, self._policy.answer_cap) else 0

    def _send_once(self, *_addresses: object) -> int:
        """Stop libcurl from sending again on a new connection when a kept-alive one was closed before any answer."""
        if self._is_sent:
            return int(pycurl.PREREQFUNC_ABORT)
        self._is_sent = True
        return int(pycurl.PREREQFUNC_OK)

    def _open(self, _purpose: int, target: Any) -> socket.socket | int:
        """Check the very address that libcurl is about to connect to, however it was written or resolved."""
        address = str(target.addr[0])
        known = target.family in (socket.AF_INET, socket.AF_INET6)
        if what := forbidden(address, self._policy.allow) if known else "not an IP address":
            self._refused = self._refusal(address, what)
            return int(pycurl.SOCKET_BAD)
        self._connected_to = address
        return _LentSocket(target.family, target.socktype, target.protocol)

    def _refusal(self, address: str, what: str) -> str:
        host = whereabouts(self._url).rpartition(":")[0].strip("[]")
        subject = f"{address} is {what}" if host == address else f"{host} resolves to {address}, {what}"
        return f"{subject}: refused (allow it with BRIDGE_ALLOW_NETWORKS)"

    def _failed(self, code: int, text: str) -> tuple[str, Reason]:
        info, place = self.curl.getinfo, whereabouts(self._url)
        host = place.rpartition(":")[0]
        if self._policy.proxy:
            if code and (status := info(pycurl.HTTP_CONNECTCODE)) >= 300:
                return f"{_PROXY} refused a tunnel to {place}: it answered {status}", Reason.CONNECTION
            place = _PROXY if code == pycurl.E_COULDNT_CONNECT else f"{place} through BRIDGE_EGRESS_PROXY"
        if not code:
            return f"{place} answered {info(pycurl.RESPONSE_CODE)}, which is only an interim status", Reason.OTHER
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return self._too_slow(place, host), Reason.TIMEOUT
        if code == pycurl.E_COULDNT_CONNECT:
            errno = info(pycurl.OS_ERRNO)
            return f"could not connect to {place}: {os.strerror(errno) if errno else text}", Reason.CONNECTION
        template, reason = _FAILURES.get(code, ("{place}: {text}", Reason.OTHER))
        return template.format(place=place, host=host, text=text or f"libcurl's error {code}"), reason

    def _too_slow(self, place: str, host: str) -> str:
        info = self.curl.getinfo
        within = f"within {info(pycurl.TOTAL_TIME):.3g} s"
        if not info(pycurl.CONNECT_TIME) and self._policy.proxy:
            return f"could not connect to {_PROXY} {within}"
        if not self._connected_to and not info(pycurl.PRIMARY_IP):
            return f"could not look up {host} {within}"
        if not info(pycurl.CONNECT_TIME) and self._connected_to:
            return f"could not connect to {place} {within}"
        return f"no answer from {place} within {self._deadline_s:g} s"


_PROXY = "the proxy of BRIDGE_EGRESS_PROXY"
_NOT_HTTP = "{place} did not answer in HTTP"
_NO_ANSWER = "{place} closed the connection without an answer"
_BROKEN = "the connection to {place} broke: {text}"
_FAILURES: dict[int, tuple[str, Reason]] = {
    pycurl.E_URL_MALFORMAT: ("the url is malformed", Reason.OTHER),
    **{
        code: (text, Reason.CONNECTION)
        for code, text in {
            pycurl.E_COULDNT_RESOLVE_HOST: "could not look up {host}: no address found",
            pycurl.E_COULDNT_RESOLVE_PROXY: "could not look up " + _PROXY,
            pycurl.E_UNSUPPORTED_PROTOCOL: _NOT_HTTP,
            pycurl.E_FTP_WEIRD_SERVER_REPLY: _NOT_HTTP,
            pycurl.E_GOT_NOTHING: _NO_ANSWER,
            pycurl.E_ABORTED_BY_CALLBACK: _NO_ANSWER,  # see `_send_once`
            100: "{place} sent too many bytes of headers",  # CURLE_TOO_LARGE: pycurl has no name for it
            pycurl.E_SEND_ERROR: _BROKEN,
            pycurl.E_RECV_ERROR: _BROKEN,
            pycurl.E_PEER_FAILED_VERIFICATION: "the certificate of {place} is not trusted: {text}",
            pycurl.E_SSL_CONNECT_ERROR: "the TLS handshake with {place} failed: {text}",
        }.items()
    },
}


# --- the loop -------------------------------------------------------------------------------------------------------

Answered = tuple[Any, Reply | Failure]  # the key that `start` was given

CONNECTIONS_KEPT = 256  # idle; the caller bounds those in use
FETCH_ANSWER_CAP = 1 << 20  # Slack's answers repeat the message, and cut JSON cannot be read

_EVENTS = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}

logger = logging.getLogger(__name__)


class HttpClient:
    """Sends many requests at once. All but `wake` and `fetch` belong to one thread.

    With `proxy` the proxy connects, so the proxy must check addresses, and `allow` has no effect.
    A kept-alive connection may be closed before any answer. `fetch` fails then: Slack would show the message twice.
    What was started is sent once more by libcurl, on a new connection and with the same webhook-id: otherwise every
    other delivery to a receiver that closes connections without notice would fail.
    """

    def __init__(
        self,
        *,
        allow: tuple[Network, ...] = (),
        proxy: str | None = None,
        trusted: str | None = None,
        handle: Callable[[Policy], CurlHandle] = CurlHandle,
    ) -> None:
        self.policy = Policy(allow=allow, proxy=proxy, trusted=trusted or ca_file())
        self._fetch_policy = replace(self.policy, answer_cap=FETCH_ANSWER_CAP, once=True)
        self._new_handle = handle
        self._active: dict[pycurl.Curl, CurlHandle] = {}
        self._idle: list[CurlHandle] = []
        self._idle_fetchers: deque[CurlHandle] = deque()
        self._ended: list[Answered] = []
        self._timer = inf
        self._woken = self._closed = False
        self._poll = select.poll()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._open()
        if proxy:
            logger.warning("an egress proxy is set: it must check the addresses that notifiers reach")

    @property
    def in_flight(self) -> int:
        """The number of requests started and not yet returned by `wait`."""
        return len(self._active) + len(self._ended)

    def start(self, request: Request, key: object) -> None:
        """Start sending `request`; `wait` will return `key` with the result. Never raises."""
        handle = self._idle.pop() if self._idle else self._new_handle(self.policy)
        try:
            handle.arm(request, key)
        except ValueError as fault:  # UnicodeEncodeError is one too
            self._idle.append(handle)
            self._ended.append((key, Failure(_reason(fault))))
            return
        self._active[handle.curl] = handle
        self._multi.add_handle(handle.curl)

    def wait(self, timeout_s: float) -> list[Answered]:
        """Return what has ended, as soon as something has, after `wake`, or when time is up."""
        until = monotonic() + timeout_s
        left = timeout_s
        self._turn(0.0 if self._ended else left)
        while not (self._ended or self._woken) and (left := until - monotonic()) > 0:
            self._turn(left)
        self._woken = False
        ended, self._ended = self._ended, []
        return ended

    def wake(self) -> None:
        """Make `wait` return now. Any thread may call it."""
        with suppress(OSError):  # full: it is awake already; closed: there is nothing to wake
            self._wake_writer.send(b"\0")

    def fetch(self, request: Request) -> Reply | Failure:
        """Send `request` and wait for the result. Any thread may call it."""
        try:
            handle = self._idle_fetchers.pop()
        except IndexError:
            handle = self._new_handle(self._fetch_policy)
        try:
            handle.arm(request)
            handle.curl.perform()
            return handle.ended(0, "")
        except pycurl.error as fault:
            return handle.ended(*fault.args[:2])
        except ValueError as fault:
            return Failure(_reason(fault))
        finally:
            self._idle_fetchers.append(handle)
            if self._closed:
                self._close_fetchers()

    def new_handle(self) -> CurlHandle:
        """Return a handle for what is not a request; its owner closes it. Any thread may call it."""
        return self._new_handle(self.policy)

    def close(self) -> None:
        """Give up what is in flight and close every connection."""
        self._closed = True
        for handle in self._active.values():
            self._multi.remove_handle(handle.curl)
        for handle in (*self._active.values(), *self._idle):
            handle.close()
        self._active.clear()
        self._idle.clear()
        self._close_fetchers()
        self._multi.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _open(self) -> None:
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._wake_fd = self._wake_reader.fileno()
        self._poll.register(self._wake_fd, select.POLLIN)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, CONNECTIONS_KEPT)

    def _turn(self, at_most_s: float) -> None:
        """Wait once for sockets or the timer, let libcurl act on them, and collect what ended."""
        act = self._multi.socket_action
        left_s = min(at_most_s, max(0.0, self._timer - monotonic()))
        for fd, events in self._poll.poll(ceil(left_s * 1000)):
            if fd == self._wake_fd:
                self._drain_wakes()
            else:  # an error is for whoever reads or writes
                can_read, can_write = events & ~select.POLLOUT, events & ~select.POLLIN
                act(fd, (pycurl.CSELECT_IN if can_read else 0) | (pycurl.CSELECT_OUT if can_write else 0))
        if self._timer <= monotonic():
            self._timer = inf
            act(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()

    def _watch_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """libcurl says which events of which sockets it waits for."""
        if what == pycurl.POLL_REMOVE:
            with suppress(KeyError):
                self._poll.unregister(fd)
        else:
            self._poll.register(fd, _EVENTS[what])

    def _set_timer(self, after_ms: int) -> None:
        self._timer = inf if after_ms < 0 else monotonic() + after_ms / 1000

    def _drain_wakes(self) -> None:
        self._woken = True
        with suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass

    def _collect(self) -> None:
        more = 1
        while more:
            more, well, badly = self._multi.info_read()
            for curl, code, text in (*((curl, 0, "") for curl in well), *badly):
                self._multi.remove_handle(curl)
                handle = self._active.pop(curl)
                self._ended.append((handle.key, handle.ended(code, text)))
                self._idle.append(handle)

    def _close_fetchers(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle_fetchers.pop().close()


def _reason(fault: ValueError) -> str:
    """Return the text of `fault`, without the header that it may quote, which may be a secret."""
    return "a header has a character that is not ASCII" if isinstance(fault, UnicodeError) else str(fault)
