"""Notifiers of the type "email": one message for each delivery, to all addresses at once, by SMTP under TLS."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from typing import Any

from bridge.model import Delivery, Outcome, Sent
from bridge.notifiers import EmailNotifier
from bridge.redact import Mask
from bridge.send.chat import Shown, previewed
from bridge.send.email.answer import Stopped
from bridge.send.email.message import mail
from bridge.send.email.smtp import talking
from bridge.send.http_types import Failure, Reply
from bridge.send.integration import THROUGH_PROXY, Check, Egress, ManyRequests, Preview

logger = logging.getLogger(__name__)


class Email(ManyRequests):
    def __init__(self, notifier: EmailNotifier) -> None:
        self._notifier = notifier

    def send(self, delivery: Delivery, now: datetime, egress: Egress) -> tuple[Outcome, Reply | Failure | None]:
        content, from_s = mail(delivery, self._notifier, now).as_bytes(), monotonic()
        try:
            with talking(self._notifier, egress.client) as talk:
                taken = talk.send(content, attempts=delivery.attempts)
        except Stopped as stopped:
            return stopped.outcome, stopped.end
        if taken.refused:
            facts = {"delivery": delivery.id, "notifier": self._notifier.name, "refused": len(taken.refused)}
            logger.warning("a mail went to some of its addresses only: the attempt says to which not", extra=facts)
        return Sent(), taken.reply(monotonic() - from_s, talk.address)

    def facts(self) -> dict[str, Any]:
        return {"target": self._notifier.server, "flood": self._notifier.flood}

    def preview(self, delivery: Delivery, *, at: datetime, agent: str) -> Preview:  # noqa: ARG002 - no request is shown
        address = f"{', '.join(self._notifier.to)} by {self._notifier.server}"
        return Preview(app="email", address=address, lines=previewed(Shown.of(delivery, at)))

    def check(self, egress: Egress) -> Sequence[Check]:
        """Connect, and log in; send nothing."""
        through = [Check(True, THROUGH_PROXY)] if egress.client.policy.proxy else []
        try:
            with talking(self._notifier, egress.client):
                pass
        except Stopped as stopped:
            return [*through, Check(False, Mask(self._notifier.hidden)(stopped.outcome.why)[:500])]
        login = ", and knows user name and password" if self._notifier.username else ""
        return [*through, Check(True, f"{self._notifier.server} speaks SMTP under TLS{login}")]
