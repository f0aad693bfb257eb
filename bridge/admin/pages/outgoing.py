"""How a delivery goes out, as a page may show it: the webhook's request and a curl command, or what Slack shows. Pure.

No secret is in it: the path of the address, the values of the notifier's own headers and the signature are masked.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bridge.admin.shown import host_of
from bridge.display import visible_json
from bridge.model import Delivery, Notifier, SlackNotifier, WebhookNotifier
from bridge.send.slack_blocks import Block, blocks
from bridge.send.webhook import WebhookSender

MASKED = "***masked***"
_PATH = "/PATH"  # stands for the path and the query, which are often a secret

_BOLD = re.compile(r"([^*]*)\*(.+)\*")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sends:
    """A request, or a message in Slack. The timestamp of a request is `at`."""

    address: str
    headers: Sequence[tuple[str, str]] = ()
    body: str = ""  # pretty JSON
    curl: str | None = None
    lines: Sequence[tuple[str, str]] = ()  # of Slack's blocks: what is bold, and the rest


def sends(delivery: Delivery, notifier: Notifier | None, *, at: datetime, agent: str) -> Sends | None:
    """Return how a delivery went out, or would, at a time; None when rules.toml has no such notifier."""
    match notifier:
        case WebhookNotifier():
            return _request(delivery, notifier, at, agent)
        case SlackNotifier():
            return _slack(delivery, notifier, at)
        case _:
            return None


def pretty(value: Any) -> str:
    """Return JSON for people to read, with what they would not see escaped."""
    return visible_json(json.dumps(value, ensure_ascii=False, indent=2))


def _request(delivery: Delivery, notifier: WebhookNotifier, at: datetime, agent: str) -> Sends:
    headers = tuple((name, MASKED if value else "") for name, value in notifier.headers)
    bare = replace(notifier, url=f"{host_of(notifier.url)}{_PATH}", secrets=(), headers=headers)
    asked = WebhookSender(bare).request(delivery, at)
    lines = [*asked.headers, f"user-agent: {agent}"]
    if notifier.secrets:
        lines.append(f"webhook-signature: {' '.join([f'v1,{MASKED}'] * len(notifier.secrets))}")
    text = asked.body.decode()
    return Sends(
        address=asked.url,
        headers=[_told_apart(line) for line in lines],
        body=pretty(json.loads(text)),
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


def _slack(delivery: Delivery, notifier: SlackNotifier, at: datetime) -> Sends:
    text, made = blocks(delivery, at)
    channel = delivery.channel if delivery.channel in notifier.channels else notifier.channel
    address = channel if channel and not notifier.url else f"{host_of(notifier.url or '')}{_PATH}"
    return Sends(address=address, lines=[_bold(line) for block in made for line in _texts(block)], body=text)


def _texts(block: Block) -> list[str]:
    parts = [block["text"]] if "text" in block else block.get("fields") or block.get("elements") or []
    return [part["text"] for part in parts]


def _bold(text: str) -> tuple[str, str]:
    """Return the first line, if it is a bold one, and the rest."""
    line, _, rest = _unescaped(text).partition("\n")
    found = _BOLD.fullmatch(line)
    return (found[1] + found[2], rest) if found else ("", _unescaped(text))


def _unescaped(text: str) -> str:
    for escaped, sign in _ENTITIES:
        text = text.replace(escaped, sign)
    return text
