"""How a webhook's request looks on a page. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from bridge.display import pretty_json, visible_json
from bridge.model import Delivery, WebhookNotifier
from bridge.send.notifier_type import MASKED, PATH, Preview
from bridge.send.webhook.request import WebhookSender
from bridge.url import origin


def preview(delivery: Delivery, notifier: WebhookNotifier, *, at: datetime, agent: str) -> Preview:
    """Return the request with what may be a secret masked, and a curl command."""
    headers = tuple((name, MASKED if value else "") for name, value in notifier.headers)
    bare = replace(notifier, url=f"{origin(notifier.url)}{PATH}", secrets=(), headers=headers)
    asked = WebhookSender(bare).request(delivery, at)
    lines = [*asked.headers, f"user-agent: {agent}"]
    if notifier.secrets:
        lines.append(f"webhook-signature: {' '.join([f'v1,{MASKED}'] * len(notifier.secrets))}")
    text = asked.body.decode()
    return Preview(
        address=asked.url,
        headers=[_told_apart(line) for line in lines],
        body=pretty_json(json.loads(text)),
        curl=curl(asked.url, lines, visible_json(text)),
    )


def curl(url: str, headers: Sequence[str], body: str) -> str:
    """Return a command that posts this, exactly, in any POSIX shell."""
    # --data-raw, because --data reads a file where the text begins with @.
    parts = [f"curl -X POST {shlex.quote(url)}", *(f"-H {shlex.quote(line)}" for line in headers)]
    return " \\\n  ".join([*parts, f"--data-raw {shlex.quote(body)}"])


def _told_apart(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.removesuffix(";"), value.strip()
