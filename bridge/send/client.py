"""The only way out: one libcurl multi loop in the caller's thread, every address judged."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from time import monotonic
from typing import Any

import pycurl

from bridge import __version__
from bridge.send.addresses import Network
from bridge.send.curl_handle import CurlHandle, Policy, ca_file
from bridge.send.http_types import Failure, Reply, Request

Answered = tuple[Any, Reply | Failure]  # the key that `start` was given

CONNECTIONS_KEPT = 256  # idle ones; how many are in use is for the caller to bound
FETCH_ANSWER_CAP = 1 << 20  # Slack's answers repeat the message, and cut JSON cannot be read
USER_AGENT = f"ci-bridge/{__version__}"

_EVENTS = {
    pycurl.POLL_IN: EVENT_READ,
    pycurl.POLL_OUT: EVENT_WRITE,
    pycurl.POLL_INOUT: EVENT_READ | EVENT_WRITE,
}
_READY = (0, pycurl.CSELECT_IN, pycurl.CSELECT_OUT, pycurl.CSELECT_IN | pycurl.CSELECT_OUT)

logger = logging.getLogger(__name__)


class HttpClient:
    """Sends many requests at once. All but `wake` and `fetch` belong to one thread.

    With `proxy` it is the proxy that connects, so the proxy must judge addresses: `allow` is not asked.
    A kept-alive connection may turn out dead before any answer. `fetch` fails then: Slack shows what it is told
    twice. What was started is sent once more by libcurl, on a new connection and with the same webhook-id: not to
    would fail every other delivery to a receiver that closes connections and does not say so.
    """

    def __init__(
        self,
        *,
        allow: tuple[Network, ...] = (),
        proxy: str | None = None,
        answer_cap: int = 4096,
        user_agent: str = USER_AGENT,
        trusted: str | None = None,
        handle: Callable[[Policy], CurlHandle] = CurlHandle,
    ) -> None:
        def policy(cap: int, *, once: bool) -> Policy:
            return Policy(
                allow=allow,
                proxy=proxy,
                answer_cap=cap,
                once=once,
                user_agent=user_agent,
                trusted=trusted or ca_file(),
            )

        self._policy, self._fetch_policy = policy(answer_cap, once=False), policy(FETCH_ANSWER_CAP, once=True)
        self._new_transfer = handle
        self._active: dict[pycurl.Curl, CurlHandle] = {}
        self._idle: list[CurlHandle] = []
        self._idle_fetchers: deque[CurlHandle] = deque()
        self._ended: list[Answered] = []
        self._timer = inf
        self._woken = self._closed = False
        self._selector = DefaultSelector()
        self._bell_end, self._bell = socket.socketpair()
        self._open()
        if proxy:
            logger.warning("an egress proxy is set: it must judge the addresses that notifiers reach")

    @property
    def has_proxy(self) -> bool:
        return self._policy.proxy is not None

    @property
    def allowed(self) -> tuple[Network, ...]:
        """The networks that may be reached although they are not public."""
        return self._policy.allow

    @property
    def in_flight(self) -> int:
        """How many were started and have not come out of `wait`."""
        return len(self._active) + len(self._ended)

    def start(self, request: Request, key: object) -> None:
        """Begin to send `request`; `wait` will hand back `key` with what came of it, never an exception."""
        handle = self._idle.pop() if self._idle else self._new_transfer(self._policy)
        try:
            handle.arm(request, key)
        except ValueError as fault:  # UnicodeEncodeError is one too
            self._idle.append(handle)
            self._ended.append((key, Failure(_said(fault))))
            return
        self._active[handle.curl] = handle
        self._multi.add_handle(handle.curl)

    def wait(self, timeout_s: float) -> list[Answered]:
        """Return what has ended, as soon as something has, or somebody calls `wake`, or time is up."""
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
        with suppress(OSError):  # full: it is awake already; closed: there is nobody to wake
            self._bell.send(b"\0")

    def fetch(self, request: Request) -> Reply | Failure:
        """Send `request` and wait for what comes of it. Any thread may call it."""
        handle = self._fetcher()
        try:
            return _performed(handle, request)
        finally:
            self._idle_fetchers.append(handle)
            if self._closed:
                self._close_fetchers()

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
        self._selector.close()
        self._bell_end.close()
        self._bell.close()

    def _open(self) -> None:
        self._bell_end.setblocking(False)
        self._bell.setblocking(False)
        self._bell_fd = self._bell_end.fileno()
        self._selector.register(self._bell_fd, EVENT_READ)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._heed)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, CONNECTIONS_KEPT)

    def _turn(self, at_most_s: float) -> None:
        """Wait once for sockets or the timer, let libcurl act on them, and collect what ended."""
        act = self._multi.socket_action
        for key, events in self._selector.select(min(at_most_s, max(0.0, self._timer - monotonic()))):
            if key.fd == self._bell_fd:
                self._hear_bell()
            else:
                act(key.fd, _READY[events])
        if self._timer <= monotonic():
            self._timer = inf
            act(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()

    def _heed(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """libcurl tells which events of which sockets it wants to hear of."""
        if what == pycurl.POLL_REMOVE:
            with suppress(KeyError):
                self._selector.unregister(fd)
            return
        try:
            self._selector.register(fd, _EVENTS[what])
        except KeyError:
            self._selector.modify(fd, _EVENTS[what])

    def _set_timer(self, after_ms: int) -> None:
        self._timer = inf if after_ms < 0 else monotonic() + after_ms / 1000

    def _hear_bell(self) -> None:
        self._woken = True
        with suppress(BlockingIOError):
            while self._bell_end.recv(4096):
                pass

    def _collect(self) -> None:
        more = 1
        while more:
            more, well, badly = self._multi.info_read()
            for curl in well:
                self._finish(curl, 0, "")
            for curl, code, text in badly:
                self._finish(curl, code, text)

    def _finish(self, curl: pycurl.Curl, code: int, text: str) -> None:
        self._multi.remove_handle(curl)
        handle = self._active.pop(curl)
        self._ended.append((handle.key, handle.ended(code, text)))
        self._idle.append(handle)

    def _fetcher(self) -> CurlHandle:
        try:
            return self._idle_fetchers.pop()
        except IndexError:
            return self._new_transfer(self._fetch_policy)

    def _close_fetchers(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle_fetchers.pop().close()


def _performed(handle: CurlHandle, request: Request) -> Reply | Failure:
    try:
        handle.arm(request)
        handle.curl.perform()
    except pycurl.error as fault:
        return handle.ended(*fault.args[:2])
    except ValueError as fault:
        return Failure(_said(fault))
    return handle.ended(0, "")


def _said(fault: ValueError) -> str:
    """The text of `fault`, without the header that it may quote: that may be a secret."""
    return "a header has a character that is not ASCII" if isinstance(fault, UnicodeError) else str(fault)
