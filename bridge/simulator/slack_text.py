"""A Slack message in plain text, for a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def render(*, text: str, blocks: Sequence[Mapping[str, Any]]) -> str:
    """Return what a person reads: the blocks if there are any, else the text."""
    lines = [line for block in blocks for line in _lines(block)]
    return "\n".join(lines) if lines else _plain(text)


def _lines(block: Mapping[str, Any]) -> list[str]:
    match block.get("type"):
        case "header":
            said = _said(block.get("text"))
            return [said, "=" * len(said)]
        case "section":
            text = [_said(block["text"])] if "text" in block else []
            return text + [f"  {_said(field)}".replace("\n", " ") for field in block.get("fields", ())]
        case "context":
            return ["  " + " · ".join(_said(e) for e in block.get("elements", ()))]
        case "actions":
            return ["  " + " ".join(f"[{_said(e.get('text'))}]" for e in block.get("elements", ()))]
        case "divider":
            return ["-" * 20]
        case "image":
            return [f"[{block.get('alt_text', 'image')}]"]
    return [f"({block.get('type')})"]


def _said(text: Any) -> str:
    if not isinstance(text, Mapping):
        return ""
    said = str(text.get("text", text.get("alt_text", "")))
    return _plain(said) if text.get("type") == "mrkdwn" else said


def _plain(mrkdwn: str) -> str:
    """Return mrkdwn without its marks: `<url|name>` becomes `name (url)`, and the three escapes themselves."""
    linked = re.sub(r"<([^<>|]+)\|([^<>]*)>", r"\2 (\1)", mrkdwn)
    bare = re.sub(r"<(https?://[^<>]+)>", r"\1", linked)
    strong = re.sub(r"(?<!\w)\*([^*\n]+)\*(?!\w)", r"\1", bare)
    return strong.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
