"""How a message in Slack looks on a page. Pure."""

from __future__ import annotations

import re
from datetime import datetime

from bridge.model import Delivery, SlackNotifier
from bridge.send.notifier_type import PATH, Preview
from bridge.send.slack.blocks import Block, blocks
from bridge.url import origin

_BOLD = re.compile(r"([^*]*)\*(.+)\*")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def preview(delivery: Delivery, notifier: SlackNotifier, *, at: datetime) -> Preview:
    """Return the message as its blocks say it."""
    text, made = blocks(delivery, at)
    channel = delivery.channel if delivery.channel in notifier.channels else notifier.channel
    address = channel if channel and not notifier.url else f"{origin(notifier.url or '')}{PATH}"
    lines = [_bold(line) for block in made for line in _texts(block)]
    return Preview(app="Slack", address=address, lines=lines, body=text)


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
