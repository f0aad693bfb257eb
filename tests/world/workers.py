"""A worker of a world: the bridge's own poller and dispatcher, whose time is the world's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Attempt
from bridge.pipeline.dispatch import Dispatcher
from bridge.pipeline.hints import Hints
from bridge.pipeline.poller import Poller
from bridge.send.sender import Sender
from tests.world.scenery import Scenery


class Transport:
    """The real door, waited at until all that was begun has ended: what a turn brings depends on no timing then."""

    def __init__(self, sender: Sender) -> None:
        self._outbound = sender
        self.begin, self.wake = sender.begin, sender.wake

    @property
    def in_flight(self) -> int:
        return self._outbound.in_flight

    def wait(self, timeout_s: float) -> Sequence[Attempt]:
        ended: list[Attempt] = []
        while self.in_flight:
            ended += self._outbound.wait(timeout_s)
        return ended


@dataclass
class Worker:
    poller: Poller
    hints: Hints
    dispatcher: Dispatcher
    sender: Sender

    @classmethod
    def new(
        cls, scenery: Scenery, name: str, *, client: int, book: Callable[[], Rulebook], halted: Callable[[], bool]
    ) -> Self:
        sender, time = scenery.sender(book()), scenery.time
        dispatcher = Dispatcher(
            db=scenery.db,
            transport=Transport(sender),
            book=book,
            clock=time,
            monotonic=time.seconds,
            chance=lambda: 0.0,
            worker=name,
        )
        poller = Poller(db=scenery.db, source=scenery.clients[client], clock=time, worker=name, halted=halted)
        return cls(poller, Hints(poller=poller, monotonic=time.seconds), dispatcher, sender)
