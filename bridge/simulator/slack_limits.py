"""What Slack refuses in a message (docs.slack.dev, Block Kit reference)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_TEXT = 40_000
MAX_BLOCKS = 50
MAX_SECTION_TEXT = 3_000
MAX_HEADER = 150
MAX_FIELDS, MAX_FIELD = 10, 2_000
MAX_CONTEXT = 10
MAX_ACTIONS = 25
MAX_BLOCK_ID = 255
MAX_TOTAL = 13_200  # in no document: measured by others, slackapi/bolt-js 2509
TEXT_TYPES = ("mrkdwn", "plain_text")


def fault_of(text: str, blocks: Any) -> str | None:
    """Return Slack's error word for a message, or None if it would be taken."""
    if not text and not blocks:
        return "no_text"
    if len(text) > MAX_TEXT:
        return "msg_too_long"
    if not isinstance(blocks, list) or len(blocks) > MAX_BLOCKS or not all(map(_is_right, blocks)):
        return "invalid_blocks"
    ids = [block["block_id"] for block in blocks if "block_id" in block]
    if len(ids) != len(set(ids)):
        return "invalid_blocks"
    return "msg_blocks_too_long" if sum(map(_length, blocks)) > MAX_TOTAL else None


def _is_right(block: Any) -> bool:
    if not isinstance(block, dict) or len(str(block.get("block_id", ""))) > MAX_BLOCK_ID:
        return False
    match block.get("type"):
        case "section":
            return _section(block)
        case "header":
            return _is_text(block.get("text"), MAX_HEADER, types=("plain_text",))
        case "context":
            return _context(block.get("elements"))
        case "actions":
            return _counted(block.get("elements"), MAX_ACTIONS)
        case "divider":
            return True
        case "image":
            return bool(block.get("image_url") and block.get("alt_text"))
        case "rich_text":
            return isinstance(block.get("elements"), list)
    return False


def _section(block: Mapping[str, Any]) -> bool:
    if "text" not in block and "fields" not in block:
        return False
    fields = block.get("fields", [None])
    text_fits = "text" not in block or _is_text(block["text"], MAX_SECTION_TEXT)
    fields_fit = "fields" not in block or all(_is_text(field, MAX_FIELD) for field in fields)
    return text_fits and _counted(fields, MAX_FIELDS) and fields_fit


def _context(elements: Any) -> bool:
    return _counted(elements, MAX_CONTEXT) and all(
        isinstance(e, dict) and (e.get("type") == "image" or _is_text(e, MAX_SECTION_TEXT)) for e in elements
    )


def _counted(items: Any, most: int) -> bool:
    return isinstance(items, list) and 1 <= len(items) <= most


def _is_text(text: Any, most: int, types: Sequence[str] = TEXT_TYPES) -> bool:
    if not isinstance(text, dict) or text.get("type") not in types:
        return False
    said = text.get("text")
    return isinstance(said, str) and 1 <= len(said) <= most


def _length(part: Any) -> int:
    """Count every character that a person would read."""
    if isinstance(part, dict):
        return sum(len(v) if k == "text" and isinstance(v, str) else _length(v) for k, v in part.items())
    return sum(map(_length, part)) if isinstance(part, list) else 0
