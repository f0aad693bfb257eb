"""The Slack look-alike with Slack's limits on messages (docs.slack.dev, Block Kit reference)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.simulator.slack import SlackLookAlike

MAX_TEXT = 40_000
MAX_BLOCKS = 50
MAX_SECTION_TEXT = 3_000
MAX_FIELDS, MAX_FIELD = 10, 2_000
MAX_CONTEXT = 10
MAX_TOTAL = 13_200  # in no document: measured by others, slackapi/bolt-js 2509


class StrictSlack(SlackLookAlike):
    def refusal_of(self, text: str, blocks: Any) -> str | None:
        return refusal_of(text, blocks)


def refusal_of(text: str, blocks: Any) -> str | None:
    """Return Slack's error word for a message, None if it is valid. Only sections and contexts are known here."""
    if not text and not blocks:
        return "no_text"
    if len(text) > MAX_TEXT:
        return "msg_too_long"
    if not isinstance(blocks, list) or len(blocks) > MAX_BLOCKS or not all(map(_is_valid, blocks)):
        return "invalid_blocks"
    return "msg_blocks_too_long" if sum(map(_length, blocks)) > MAX_TOTAL else None


def _is_valid(block: Any) -> bool:
    match block:
        case {"type": "section"}:
            fields, text = block.get("fields"), block.get("text")
            has_fields = fields is not None and _counted(fields, MAX_FIELDS)
            return (
                (text is None or _is_text(text, MAX_SECTION_TEXT))
                and (fields is None or (has_fields and all(_is_text(field, MAX_FIELD) for field in fields)))
                and not text is fields is None
            )
        case {"type": "context", "elements": elements}:
            return _counted(elements, MAX_CONTEXT) and all(_is_text(part, MAX_SECTION_TEXT) for part in elements)
    return False


def _counted(items: Any, most: int) -> bool:
    return isinstance(items, list) and 1 <= len(items) <= most


def _is_text(text: Any, most: int) -> bool:
    match text:
        case {"type": "mrkdwn" | "plain_text", "text": str(content)}:
            return 1 <= len(content) <= most
    return False


def _length(part: Mapping[str, Any] | Sequence[Any] | Any) -> int:
    """Count every character that is shown."""
    if isinstance(part, dict):
        return sum(len(v) if k == "text" and isinstance(v, str) else _length(v) for k, v in part.items())
    return sum(map(_length, part)) if isinstance(part, list) else 0
