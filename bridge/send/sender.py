"""Deliveries in, attempts out, without any secret of a notifier: the pipeline's interface to this package."""

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

from bridge.model import ANSWER_KEPT, Attempt, Delivery, Outcome, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.redact import Mask
from bridge.send.client import Answered, HttpClient
from bridge.send.http_types import Failure, Reply
from bridge.send.integration import Egress, Integration, ManyRequests, OneRequest
from bridge.send.registry import integration_of

# --- an attempt under way, and what is recorded of its end ----------------------------------------------------------

_WHY_KEPT = 500  # a receiver's own words may be in it

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InFlight:
    """One delivery for its notifier, as both were at `at`. None: the rules have no such notifier.

    `also_hidden` are secrets that a receiver may repeat and the notifier does not know: the proxy's password.
    """

    delivery: Delivery
    at: datetime
    notifier: Notifier | None
    also_hidden: tuple[str, ...] = field(default=(), repr=False)

    def ended(self, outcome: Outcome, seconds: float = 0.0, last: Reply | Failure | None = None) -> Attempt:
        """Return the attempt, with the end of its last request."""
        return Attempt(
            delivery=self.delivery,
            outcome=self._masked(outcome),
            started_at=self.at,
            seconds=seconds,
            status=last.status if last else None,
            answer=self._answer(last.body) if last else "",
            address=last.address if last else None,
        )

    def broken(self, fault: Exception) -> Attempt:
        facts = {"delivery": self.delivery.id, "notifier": self.delivery.notifier}
        logger.exception("sending raised an exception", extra=facts)
        return self.ended(RetryLater(f"{type(fault).__name__}: {fault}"))

    def _masked(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Sent):
            return replace(outcome, why=self._mask(outcome.why)[:_WHY_KEPT])
        return replace(outcome, receipt=self._mask(outcome.receipt)) if outcome.receipt else outcome

    def _answer(self, body: bytes) -> str:
        if not body:
            return ""
        # PostgreSQL keeps no NUL in a text.
        text = body[:ANSWER_KEPT].decode("utf-8", "replace").replace("\0", "\ufffd")
        masked = self._mask.of_cut(text) if len(body) >= ANSWER_KEPT else self._mask(text)
        return masked[:ANSWER_KEPT]

    @property
    def _mask(self) -> Mask:
        return _mask((*(self.notifier.hidden if self.notifier else ()), *self.also_hidden))


# Made once for a notifier, not once for an attempt.
_mask = lru_cache(maxsize=256)(Mask)


# --- the sender -----------------------------------------------------------------------------------------------------


class Sender:
    """Starts attempts and returns those that ended. Belongs to one thread, except `wake`."""

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
        self.hidden = hidden
        # The notifiers and their integrations change together, in one assignment: another thread does it.
        self._current: tuple[Mapping[str, Notifier], dict[str, Integration]] = (notifiers, {})
        self._ended: SimpleQueue[Attempt] = SimpleQueue()
        self._in_flight = 0
        # A dead receiver holds its threads until the deadline, and a queue behind them could delay healthy ones.
        # So there are as many as the dispatcher has in flight at most. They are started when needed.
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="sender")

    @property
    def in_flight(self) -> int:
        """The number of attempts started and not yet returned by `wait`."""
        return self._in_flight

    def replace(self, notifiers: Mapping[str, Notifier]) -> None:
        """Use `notifiers` from the next `begin` on; attempts in flight end as they began."""
        self._current = (notifiers, {})

    def begin(self, delivery: Delivery) -> None:
        """Start one attempt, which `wait` will return. Never raises."""
        notifiers, integrations = self._current
        begun = InFlight(delivery, self._clock(), notifiers.get(delivery.notifier), self.hidden)
        self._in_flight += 1
        try:
            self._begin(begun, integrations)
        except Exception as fault:  # one delivery that cannot be sent must not stop all others
            self._ended.put(begun.broken(fault))

    def wait(self, timeout_s: float) -> list[Attempt]:
        """Return the attempts that ended, as soon as there are any, or on `wake`, or when time is up."""
        ended = self._from_threads()
        ended += [self._attempt(answered) for answered in self._client.wait(0 if ended else timeout_s)]
        ended += self._from_threads()
        self._in_flight -= len(ended)
        return ended

    def wake(self) -> None:
        """Make `wait` return now. Any thread may call it."""
        self._client.wake()

    def close(self, timeout_s: float) -> list[Attempt]:
        """Wait at most `timeout_s` for what is in flight, close the client, and return what ended."""
        until, ended = monotonic() + timeout_s, self.wait(0)
        while self._in_flight and (left := until - monotonic()) > 0:
            ended += self.wait(left)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        return ended

    def _begin(self, begun: InFlight, integrations: dict[str, Integration]) -> None:
        delivery, notifier = begun.delivery, begun.notifier
        if notifier is None:
            self._ended.put(begun.ended(RetryLater("rules.toml has no notifier of this name")))
            return
        if (integration := integrations.get(delivery.notifier)) is None:
            integration = integrations[delivery.notifier] = integration_of(notifier)
        match integration:
            case OneRequest():
                self._client.start(integration.request(delivery, begun.at), (begun, integration))
            case ManyRequests():
                self._threads.submit(self._send_in_thread, integration, begun)

    def _attempt(self, answered: Answered) -> Attempt:
        begun: InFlight
        integration: OneRequest
        (begun, integration), ended = answered  # the key that `_begin` gave
        try:
            return begun.ended(integration.outcome(ended, self._clock()), ended.seconds, ended)
        except Exception as fault:  # as in `begin`
            return begun.broken(fault)

    def _send_in_thread(self, integration: ManyRequests, begun: InFlight) -> None:
        begun, from_s = replace(begun, at=self._clock()), monotonic()
        try:
            outcome, last = integration.send(begun.delivery, begun.at, self._egress)
            attempt = begun.ended(outcome, monotonic() - from_s, last)
        except Exception as fault:  # as in `begin`
            attempt = begun.broken(fault)
        self._ended.put(attempt)
        self._client.wake()

    def _from_threads(self) -> list[Attempt]:
        ended: list[Attempt] = []
        with suppress(Empty):
            while True:
                ended.append(self._ended.get_nowait())
        return ended
