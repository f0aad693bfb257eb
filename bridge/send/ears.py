"""Which sockets have something to say: epoll with lazy leaving, or what the system has instead."""

from __future__ import annotations

import select
import sys
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Protocol

_BOTH = EVENT_READ | EVENT_WRITE


class Ears(Protocol):
    """Events are EVENT_READ, EVENT_WRITE or both, as in `selectors`."""

    def listen(self, fd: int, events: int) -> None: ...
    def ignore(self, fd: int) -> None: ...
    def hear(self, timeout_s: float) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


class SelectorEars:
    """For systems without epoll."""

    def __init__(self) -> None:
        self._selector = DefaultSelector()

    def listen(self, fd: int, events: int) -> None:
        try:
            self._selector.register(fd, events)
        except KeyError:
            self._selector.modify(fd, events)

    def ignore(self, fd: int) -> None:
        with suppress(KeyError):
            self._selector.unregister(fd)

    def hear(self, timeout_s: float) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(timeout_s)]

    def close(self) -> None:
        self._selector.close()


if sys.platform == "linux":

    class EpollEars:
        """libcurl leaves and returns with every request of a kept-alive connection: leaving costs nothing here.

        An ignored socket stays registered until it is heard of, or returns: then one call changes it. That call
        fails for a socket which was closed meanwhile and whose number is another's now, so it is never trusted.
        """

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._wanted: set[int] = set()

        def listen(self, fd: int, events: int) -> None:
            self._wanted.add(fd)
            try:
                self._epoll.modify(fd, _MASKS[events])
            except FileNotFoundError:
                self._epoll.register(fd, _MASKS[events])

        def ignore(self, fd: int) -> None:
            self._wanted.discard(fd)

        def hear(self, timeout_s: float) -> list[tuple[int, int]]:
            heard = self._epoll.poll(timeout_s)
            for fd, _ in heard:
                if fd not in self._wanted:
                    with suppress(OSError):
                        self._epoll.unregister(fd)
            return [(fd, _events(mask)) for fd, mask in heard if fd in self._wanted]

        def close(self) -> None:
            self._epoll.close()

    _MASKS = {
        EVENT_READ: select.EPOLLIN,
        EVENT_WRITE: select.EPOLLOUT,
        _BOTH: select.EPOLLIN | select.EPOLLOUT,
    }

    def _events(mask: int) -> int:
        if mask == select.EPOLLIN:
            return EVENT_READ
        # An error or a hang-up makes a socket ready for both, as in `selectors`.
        readable = EVENT_READ if mask & ~select.EPOLLOUT else 0
        return readable | (EVENT_WRITE if mask & ~select.EPOLLIN else 0)

    def ears() -> Ears:
        return EpollEars()

else:

    def ears() -> Ears:
        return SelectorEars()
