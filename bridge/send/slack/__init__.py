"""Notifiers of the type "slack": an app's token for a channel, or an incoming webhook."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bridge.model import Delivery, Outcome, RootEdit
from bridge.notifiers import SlackNotifier
from bridge.redact import Mask
from bridge.send.http_types import Failure, Reply
from bridge.send.integration import THROUGH_PROXY, Check, Egress, ManyRequests, Preview, check_address
from bridge.send.slack.blocks import preview
from bridge.send.slack.check import checks
from bridge.send.slack.client import SlackTransport, SlackWebClient, Unreachable
from bridge.send.slack.request import ApiCalls, RefusedBlocks, may_appear_late, post_to_hook
from bridge.url import origin


class Slack(ManyRequests):
    counts_retry_after = True

    def __init__(self, notifier: SlackNotifier) -> None:
        self._notifier = notifier
        self._refused = RefusedBlocks()

    def send(self, delivery: Delivery, now: datetime, egress: Egress) -> tuple[Outcome, Reply | Failure | None]:
        transport = SlackTransport(egress.client)
        try:
            return self._sent(transport, delivery, now, egress), transport.last
        except Unreachable as fault:
            return may_appear_late(fault.failure.outcome), fault.failure

    def _sent(self, transport: SlackTransport, delivery: Delivery, now: datetime, egress: Egress) -> Outcome:
        client, refused = self._web_client(transport, egress), self._refused
        calls = ApiCalls(client, self._notifier, delivery, now=now, refused=refused)
        if isinstance(delivery, RootEdit):
            return calls.edit()
        if self._notifier.url:
            return post_to_hook(transport, self._notifier, delivery, now=now, refused=refused)
        return calls.post()

    def facts(self) -> dict[str, Any]:
        notifier = self._notifier
        target = origin(notifier.url) if notifier.url else notifier.channel
        acting = list(notifier.actions) if notifier.has_buttons else []
        facts = {"target": target, "thread": notifier.thread, "update": notifier.update, "flood": notifier.flood}
        return facts | {"actions": acting}

    def preview(self, delivery: Delivery, *, at: datetime, agent: str) -> Preview:  # noqa: ARG002 - no request is shown
        return preview(delivery, self._notifier, at=at)

    def check(self, egress: Egress) -> Sequence[Check]:
        """Ask Slack about the token and the channels."""
        if not self._notifier.token:
            return [check_address(self._notifier.url or "", egress.client)]
        through = [Check(True, THROUGH_PROXY)] if egress.client.policy.proxy else []
        made = checks(lambda: self._web_client(SlackTransport(egress.client), egress), self._notifier)
        mask = Mask(self._notifier.hidden)
        return [*through, *(Check(ok, mask(detail)[:500]) for ok, detail in made)]

    def _web_client(self, transport: SlackTransport, egress: Egress) -> SlackWebClient:
        return SlackWebClient(transport, token=self._notifier.token, base_url=egress.slack_api_url)
