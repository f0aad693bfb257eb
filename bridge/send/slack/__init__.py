"""Notifiers of the type "slack": an app's token for a channel, or an incoming webhook."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bridge.model import Delivery, SlackNotifier
from bridge.send.notifier_type import THROUGH_PROXY, Check, Egress, NotifierType, Preview, check_address
from bridge.send.slack.blocks import preview
from bridge.send.slack.client import token_trouble
from bridge.send.slack.request import SlackSender
from bridge.url import origin


class Slack(NotifierType[SlackNotifier]):
    counts_retry_after = True

    def sender(self, notifier: SlackNotifier, egress: Egress) -> SlackSender:
        return SlackSender(notifier, egress.slack_api_url, egress.client)

    def facts(self, notifier: SlackNotifier) -> dict[str, Any]:
        target = origin(notifier.url) if notifier.url else notifier.channel
        return {"target": target, "thread": notifier.thread, "update": notifier.update}

    def preview(self, delivery: Delivery, notifier: SlackNotifier, *, at: datetime, agent: str) -> Preview:  # noqa: ARG002 - no request is shown
        return preview(delivery, notifier, at=at)

    def check(self, notifier: SlackNotifier, egress: Egress) -> Check:
        if not notifier.token:
            return check_address(notifier.url or "", egress.client)
        through = f"; {THROUGH_PROXY}" if egress.client.has_proxy else ""
        trouble = token_trouble(notifier, egress.slack_api_url, egress.client)
        return Check(trouble, f"Slack knows the token{through}")
