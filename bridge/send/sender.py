"""Deliveries in, attempts out: what the pipeline has of this package. Never a secret of a notifier."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from queue import Empty, SimpleQueue
from time import monotonic

from bridge.model import Attempt, Delivery, Notifier, Outcome, RetryLater, Sent
from bridge.redact import Mask
from bridge.send.client import Answered, HttpClient
from bridge.send.http_types import Failure
from bridge.send.notifier_type import Egress, ManyRequests, NotifierSender, OneRequest
from bridge.send.registry import type_of

# --- an attempt under way, and what is written down of its end ------------------------------------------------------

ANSWER_KEPT = 4096
_WHY_KEPT = 500  # a receiver's own words may be in it

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InFlight:
    """One delivery for its notifier, as both were at `at`. None: the rules have no such notifier.

    `also` are secrets that a receiver may repeat and the notifier does not know: the proxy's password.
    """

    delivery: Delivery
    at: datetime
    notifier: Notifier | None
    also: tuple[str, ...] = field(default=(), repr=False)

    def ended(
        self,
        outcome: Outcome,
        seconds: float = 0.0,
        status: int | None = None,
        answer: bytes = b"",
        address: str | None = None,
    ) -> Attempt:
        return Attempt(
            delivery=self.delivery,
            outcome=self._recordable(outcome),
            started_at=self.at,
            seconds=seconds,
            status=status,
            answer=self._answer(answer) if answer else "",
            address=address,
        )

    def broken(self, fault: Exception) -> Attempt:
        facts = {"delivery": self.delivery.id, "notifier": self.delivery.notifier}
        logger.exception("sending broke", extra=facts)
        return self.ended(RetryLater(f"{type(fault).__name__}: {fault}"))

    def _recordable(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Sent):
            return replace(outcome, why=self._mask(outcome.why)[:_WHY_KEPT])
        return Sent(self._mask(outcome.receipt)) if outcome.receipt else outcome

    def _answer(self, body: bytes) -> str:
        # PostgreSQL keeps no NUL in a text.
        text = body[:ANSWER_KEPT].decode("utf-8", "replace").replace("\0", "\ufffd")
        masked = self._mask.of_cut(text) if len(body) >= ANSWER_KEPT else self._mask(text)
        return masked[:ANSWER_KEPT]

    @property
    def _mask(self) -> Mask:
        return _mask((*(self.notifier.hidden if self.notifier else ()), *self.also))


# Made once for a notifier, not once for an attempt.
_mask = lru_cache(maxsize=256)(Mask)


# --- the sender -----------------------------------------------------------------------------------------------------


class Sender:
    """Begins attempts and hands back those that ended. Belongs to one thread; `wake` is for any."""

    def __init__(
        self,
        *,
        client: HttpClient,
        notifiers: Mapping[str, Notifier],
        clock: Callable[[], datetime],
        slack_api_url: str,
        threads: int = 64,
        hidden: tuple[str, ...] = (),
    ) -> None:
        """`hidden` are secrets, beside those of the notifiers, that are not kept where an answer repeats them."""
        self._client = client
        self._clock = clock
        self._egress = Egress(client, slack_api_url)
        self._hidden = hidden
        # The notifiers and the senders made for them change together, in one assignment: another thread does it.
        self._current: tuple[Mapping[str, Notifier], dict[str, NotifierSender]] = (notifiers, {})
        self._ended: SimpleQueue[Attempt] = SimpleQueue()
        self._in_flight = 0
        # A dead receiver holds its threads until the deadline, and what queues behind them may be for one that is
        # well. So as many as the dispatcher has in flight at most: nothing queues. They are made when needed.
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="sender")

    @property
    def in_flight(self) -> int:
        """How many were begun and have not come out of `wait`."""
        return self._in_flight

    def replace(self, notifiers: Mapping[str, Notifier]) -> None:
        """Use `notifiers` from the next `begin` on; attempts in flight end as they began."""
        self._current = (notifiers, {})

    def begin(self, delivery: Delivery) -> None:
        """Start one attempt, which `wait` will hand back. Never raises."""
        notifiers, senders = self._current
        begun = InFlight(delivery, self._clock(), notifiers.get(delivery.notifier), self._hidden)
        self._in_flight += 1
        try:
            self._begin(begun, senders)
        except Exception as fault:  # one delivery that cannot be sent must not stop all others
            self._ended.put(begun.broken(fault))

    def wait(self, timeout_s: float) -> list[Attempt]:
        """Return the attempts that ended, as soon as there are any, or on `wake`, or when time is up."""
        ended = self._taken()
        ended += [self._judged(answered) for answered in self._client.wait(0 if ended else timeout_s)]
        ended += self._taken()
        self._in_flight -= len(ended)
        return ended

    def wake(self) -> None:
        """Make `wait` return now. Any thread may call it."""
        self._client.wake()

    def close(self, timeout_s: float) -> list[Attempt]:
        """Let what is in flight end for at most `timeout_s`, close the client, return what ended meanwhile."""
        until, ended = monotonic() + timeout_s, self.wait(0)
        while self._in_flight and (left := until - monotonic()) > 0:
            ended += self.wait(left)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        return ended

    def _begin(self, begun: InFlight, senders: dict[str, NotifierSender]) -> None:
        delivery, notifier = begun.delivery, begun.notifier
        if notifier is None:
            self._ended.put(begun.ended(RetryLater("rules.toml has no notifier of this name")))
            return
        sender = senders.get(delivery.notifier)
        if sender is None:
            sender = senders[delivery.notifier] = type_of(notifier).sender(notifier, self._egress)
        match sender:
            case OneRequest():
                self._client.start(sender.request(delivery, begun.at), (begun, sender))
            case ManyRequests():
                self._threads.submit(self._send_waiting, sender, begun)

    def _judged(self, answered: Answered) -> Attempt:
        (begun, sender), ended = answered  # the key that `_begin` gave
        assert isinstance(begun, InFlight)  # noqa: S101 - for mypy
        assert isinstance(sender, OneRequest)  # noqa: S101 - for mypy
        try:
            outcome = sender.outcome(ended, self._clock())
        except Exception as fault:  # as in `begin`
            return begun.broken(fault)
        if isinstance(ended, Failure):
            return begun.ended(outcome, ended.seconds, address=ended.address)
        return begun.ended(outcome, ended.seconds, ended.status, ended.body, ended.address)

    def _send_waiting(self, sender: ManyRequests, begun: InFlight) -> None:
        """Run in a thread of its own: it waits for its answers."""
        begun, from_s = replace(begun, at=self._clock()), monotonic()
        try:
            told = sender.send(begun.delivery, begun.at)
            attempt = begun.ended(told.outcome, monotonic() - from_s, told.status, told.answer, told.address)
        except Exception as fault:  # as in `begin`
            attempt = begun.broken(fault)
        self._ended.put(attempt)
        self._client.wake()

    def _taken(self) -> list[Attempt]:
        taken: list[Attempt] = []
        with suppress(Empty):
            while True:
                taken.append(self._ended.get_nowait())
        return taken
