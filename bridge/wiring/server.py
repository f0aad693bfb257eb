"""The HTTP server of `run` and of gunicorn's workers: waitress, bounded so that health checks are always answered."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer, create_server
from waitress.task import ThreadedTaskDispatcher

if TYPE_CHECKING:
    from flask import Flask

_THREADS = 4  # as many as the database has connections for, in a process
_HEALTH = ("/healthz", "/readyz")
_MOST_CONNECTIONS = 500
_ACCEPTED_A_TURN = 50
_CLOSE_WITHIN_S = 10.0


class _Parser(HTTPRequestParser):  # type: ignore[misc]  # it ships no types
    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # for a target like http://[::1/, which would otherwise go unanswered
            raise ParsingError("Bad URI") from error


class _Channel(HTTPChannel):  # type: ignore[misc]  # the same
    parser_class = _Parser


class _Dispatcher:
    """Give each health endpoint a thread of its own, as all others may be waiting for the database."""

    def __init__(self, usual: Any) -> None:
        self._usual = usual
        self._own: dict[str, Any] = {path: ThreadedTaskDispatcher() for path in _HEALTH}
        for dispatcher in self._own.values():
            dispatcher.set_thread_count(1)

    def add_task(self, channel: HTTPChannel) -> None:
        request = channel.requests[0]
        path = "" if request.error else request.path  # a malformed one has none
        self._own.get(path, self._usual).add_task(channel)

    def shutdown(self) -> None:
        for dispatcher in (*self._own.values(), self._usual):
            dispatcher.shutdown(timeout=1)


class Server:
    """Serves one application on bound sockets. One thread calls `turn` in a loop, then `close`.

    waitress reads a whole request before a thread gets it, and buffers an answer until it is read: a slow client costs
    a connection, never a thread. Connections are bounded by closing those that have been idle longest.
    """

    def __init__(self, app: Flask, sockets: Sequence[socket.socket]) -> None:
        self._most = min(_MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._map: dict[int, Any] = {}  # every socket, by its number
        server = create_server(
            app,
            map=self._map,
            sockets=list(sockets),
            threads=_THREADS,
            ident="ci-bridge",
            channel_timeout=95,  # longer than a platform's router, so that the router closes
            connection_limit=2 * self._most,  # where waitress stops accepting: never reached
            max_request_body_size=4 << 20,  # the application accepts less, and says how much
            inbuf_overflow=1 << 16,  # bytes of a body that are kept in memory
            max_request_header_size=16 * 1024,  # of all headers
            # Access depends on these headers: a forwarded request is not a local one.
            clear_untrusted_proxy_headers=False,
        )
        self._dispatcher = _Dispatcher(server.task_dispatcher)
        self._listeners = [server for server in self._map.values() if isinstance(server, BaseWSGIServer)]
        for listener in self._listeners:
            listener.channel_class = _Channel
            listener.task_dispatcher = self._dispatcher

    def turn(self, timeout_s: float) -> None:
        """Wait for sockets, at most for that long, and handle them."""
        wasyncore.loop(timeout=timeout_s, use_poll=True, map=self._map, count=1)
        for listener in self._listeners:
            self._accept(listener)
        self._make_room()

    def _accept(self, listener: BaseWSGIServer) -> None:
        """Accept all that wait: the loop above accepts one a turn, and a turn looks at every connection."""
        for _ in range(_ACCEPTED_A_TURN if listener.accepting else 0):
            before = len(listener.active_channels)
            listener.handle_accept()
            if len(listener.active_channels) == before:
                return

    def _make_room(self) -> None:
        """Close the least valuable connections, but none of the newest: their request may be on its way."""
        channels = self._channels()
        if (too_many := len(channels) - self._most) > 0:
            channels.sort(key=lambda channel: channel.creation_time)
            for channel in sorted(channels[: -self._most // 4], key=_worth)[:too_many]:
                channel.handle_close()

    def wake(self) -> None:
        """Make `turn` return. Any thread may call it, also when the server is closed."""
        with suppress(OSError):
            self._listeners[0].pull_trigger()

    def close(self) -> None:
        """Accept nothing more, finish open requests within a few seconds, and close every connection."""
        for listener in self._listeners:
            listener.accepting = False
        until = time.monotonic() + _CLOSE_WITHIN_S
        while (
            any(channel.requests or channel.total_outbufs_len for channel in self._channels())
            and time.monotonic() < until
        ):
            self.turn(0.1)
        self._dispatcher.shutdown()
        wasyncore.close_all(self._map)

    def _channels(self) -> list[HTTPChannel]:
        return [channel for listener in self._listeners for channel in listener.active_channels.values()]


def _worth(channel: HTTPChannel) -> tuple[bool, bool, float]:
    """Order connections by what closing them loses: between requests, reading one, waiting for an answer."""
    return bool(channel.requests), channel.request is not None, channel.last_activity
