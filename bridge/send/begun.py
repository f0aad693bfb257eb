"""An attempt under way, and what is written down of its end: never a secret of its notifier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from bridge.model import Attempt, Delivery, Notifier, Outcome, Sent, TryLater

ANSWER_KEPT = 4096

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """One delivery for its notifier, as both were at `at`. None: the rules have no such notifier."""

    delivery: Delivery
    at: datetime
    notifier: Notifier | None

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
            outcome=outcome if isinstance(outcome, Sent) else replace(outcome, why=self._masked(outcome.why)),
            started_at=self.at,
            seconds=seconds,
            status=status,
            answer=self._masked(_text(answer))[:ANSWER_KEPT],
            address=address,
        )

    def broken(self, fault: Exception) -> Attempt:
        log.exception("sending broke", delivery=self.delivery.id, notifier=self.delivery.notifier)
        return self.ended(TryLater(f"{type(fault).__name__}: {fault}"))

    def _masked(self, text: str) -> str:
        hidden = self.notifier.hidden if text and self.notifier else ()
        # Longest first, so that one which is part of another leaves nothing of that.
        for secret in sorted(filter(None, hidden), key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return text


def _text(body: bytes) -> str:
    # PostgreSQL keeps no NUL in a text.
    return body[:ANSWER_KEPT].decode("utf-8", "replace").replace("\0", "\ufffd")
