"""An attempt under way, and what is written down of its end: never a secret of its notifier."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

from bridge.model import Attempt, Delivery, Notifier, Outcome, RetryLater, Sent
from bridge.send.redact import Mask

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
