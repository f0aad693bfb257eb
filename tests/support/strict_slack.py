"""The Slack look-alike with Slack's limits on messages (docs.slack.dev, Block Kit reference, read 2026-11-30)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.simulator.slack import SlackLookAlike

MAX_TEXT, MAX_EDITED_TEXT = 40_000, 4_000  # chat.postMessage cuts a longer one; chat.update refuses it
MAX_BLOCKS = 50
MAX_SECTION_TEXT = 3_000
MAX_FIELDS, MAX_FIELD = 10, 2_000
MAX_CONTEXT = 10
MAX_HEADER = 150
MAX_ACTIONS, MAX_BUTTON_TEXT, MAX_URL, MAX_VALUE, MAX_ID = 25, 75, 3_000, 2_000, 255
MAX_TOTAL = 13_200  # in no document: measured by others, slackapi/bolt-js 2509


class StrictSlack(SlackLookAlike):
    def refusal_of(self, text: str, blocks: Any, *, edit: bool = False) -> str | None:
        return refusal_of(text, blocks, edit=edit)


def refusal_of(text: str, blocks: Any, *, edit: bool = False) -> str | None:
    """Return Slack's error code for a message, None if it is valid.

    Only sections, contexts, dividers, headers and actions are known here, with texts, images and buttons.
    """
    if not text and not blocks:
        return "no_text"
    if len(text) > (MAX_EDITED_TEXT if edit else MAX_TEXT):
        return "msg_too_long"
    if not isinstance(blocks, list) or len(blocks) > MAX_BLOCKS or not all(map(_is_valid, blocks)):
        return "invalid_blocks"
    return "msg_blocks_too_long" if sum(map(_length, blocks)) > MAX_TOTAL else None


def _is_valid(block: Any) -> bool:
    match block:
        case {"type": "section"}:
            return _is_section(block)
        case {"type": "context", "elements": elements}:
            return _counted(elements, MAX_CONTEXT) and all(
                _is_text(part, MAX_SECTION_TEXT) or _is_image(part) for part in elements
            )
        case {"type": "divider"}:
            return True
        case {"type": "header", "text": text}:
            return _is_text(text, MAX_HEADER, "plain_text")
        case {"type": "actions", "elements": elements}:
            return _counted(elements, MAX_ACTIONS) and all(map(_is_button, elements))
    return False


def _is_section(block: Mapping[str, Any]) -> bool:
    fields, text, accessory = block.get("fields"), block.get("text"), block.get("accessory")
    has_fields = fields is not None and _counted(fields, MAX_FIELDS)
    return (
        (text is None or _is_text(text, MAX_SECTION_TEXT))
        and (fields is None or (has_fields and all(_is_text(field, MAX_FIELD) for field in fields)))
        and (accessory is None or _is_button(accessory) or _is_image(accessory))
        and not text is fields is None
    )


def _counted(items: Any, most: int) -> bool:
    return isinstance(items, list) and 1 <= len(items) <= most


def _is_text(text: Any, most: int, *kinds: str) -> bool:
    match text:
        case {"type": "mrkdwn" | "plain_text" as kind, "text": str(content)}:
            # `verbatim` is only for mrkdwn, `emoji` only for plain_text.
            foreign = "emoji" if kind == "mrkdwn" else "verbatim"
            return 1 <= len(content) <= most and foreign not in text and kind in (kinds or (kind,))
    return False


def _is_image(image: Any) -> bool:
    match image:
        case {"type": "image", "image_url": str(url), "alt_text": str(said)}:
            return _is_url(url) and 1 <= len(said) <= MAX_VALUE
    return False


def _is_button(button: Any) -> bool:
    match button:
        case {"type": "button", "text": text}:
            url, value, action = (button.get(name, "x") for name in ("url", "value", "action_id"))
            return (
                _is_text(text, MAX_BUTTON_TEXT, "plain_text")
                and ("url" not in button or _is_url(url))
                and len(value) <= MAX_VALUE
                and 1 <= len(action) <= MAX_ID
                and button.get("style") in (None, "primary", "danger")
            )
    return False


def _is_url(url: Any) -> bool:
    return isinstance(url, str) and len(url) <= MAX_URL and url.startswith(("http://", "https://"))


def _length(part: Mapping[str, Any] | Sequence[Any] | Any) -> int:
    """Count every character that is shown."""
    if isinstance(part, dict):
        return sum(len(v) if k == "text" and isinstance(v, str) else _length(v) for k, v in part.items())
    return sum(map(_length, part)) if isinstance(part, list) else 0
