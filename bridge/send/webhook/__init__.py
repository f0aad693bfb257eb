"""Notifiers of the type "webhook": Standard Webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bridge.model import Delivery, WebhookNotifier
from bridge.send import check
from bridge.send.check import Check
from bridge.send.notifier_type import Egress, NotifierType, Preview
from bridge.send.webhook.preview import preview
from bridge.send.webhook.request import WebhookSender
from bridge.url import origin


class Webhook(NotifierType[WebhookNotifier]):
    def sender(self, notifier: WebhookNotifier, egress: Egress) -> WebhookSender:  # noqa: ARG002 - what sends it has it
        return WebhookSender(notifier)

    def facts(self, notifier: WebhookNotifier) -> dict[str, Any]:
        return {"target": origin(notifier.url), "signed": bool(notifier.secrets), "order": notifier.order}

    def preview(self, delivery: Delivery, notifier: WebhookNotifier, *, at: datetime, agent: str) -> Preview:
        return preview(delivery, notifier, at=at, agent=agent)

    def check(self, notifier: WebhookNotifier, egress: Egress) -> Check:
        return check.of_address(notifier.url, egress.client)
