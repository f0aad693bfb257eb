"""Pictures of Slack messages, drawn from their blocks: `python -m tests.browser.slack_pictures`.

Slack's own clients cannot be run here; this draws what its documentation says of mrkdwn and blocks.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from playwright.sync_api import sync_playwright

from bridge.send.slack.blocks import blocks
from tests.browser.conftest import CHROMIUM, QUIET
from tests.support.slack_messages import NOW, messages

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
WIDTHS = {"desktop": 860, "phone": 390}
ZONE = ZoneInfo("Asia/Shanghai")  # the reader's
NAMES = {"U024BE7LH": "anna", "S0123ABC": "media-oncall"}  # Slack knows them
STYLE = (Path(__file__).parent / "slack_pictures.css").read_text()

# --- mrkdwn as HTML -------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"<([^<>|]+)(?:\|([^<>]*))?>")
_BOLD = re.compile(r"\*(.+)\*")


def html(text: str) -> str:
    """Return mrkdwn as HTML. What is escaped for Slack (&, <, >) is escaped for HTML too."""
    tokens: list[str] = []

    def keep(match: re.Match[str]) -> str:
        tokens.append(_token(match[1], match[2] or ""))
        return f"\0{len(tokens) - 1}\0"

    text = _BOLD.sub(r"<strong>\1</strong>", _TOKEN.sub(keep, text))
    return re.sub("\0(\\d+)\0", lambda match: tokens[int(match[1])], text)


def _token(target: str, label: str) -> str:
    if target.startswith("!date^"):
        return _date(datetime.fromtimestamp(int(target.split("^")[1]), ZONE))
    if target.startswith(("@", "!")):
        who = target.lstrip("@!").removeprefix("subteam^")
        return f'<span class="mention{" all" if target[0] == "!" else ""}">@{NAMES.get(who, who)}</span>'
    return f'<a href="{target}">{label}</a>'


def _date(at: datetime) -> str:
    """Return {date_short_pretty} {time}."""
    days = (NOW.astimezone(ZONE).date() - at.date()).days
    day = {0: "today", 1: "yesterday"}.get(days, f"{at:%b} {at.day}, {at.year}")
    return f"{day} {at:%I:%M %p}".replace(" 0", " ")


def message(name: str, made: list[Mapping[str, Any]]) -> str:
    drawn = "".join(map(_block, made))
    who = f"<b>ci-bridge</b> <i>APP</i> <time>{NOW.astimezone(ZONE):%I:%M %p}</time>".replace(">0", ">")
    return f'<h2>{name}</h2><article><div class="face"></div><div><header>{who}</header>{drawn}</div></article>'


def _block(block: Mapping[str, Any]) -> str:
    if fields := block.get("fields"):
        return '<div class="fields">' + "".join(f"<p>{html(field['text'])}</p>" for field in fields) + "</div>"
    parts = [block["text"]] if "text" in block else block["elements"]
    return f'<div class="{block["type"]}">' + "".join(f"<p>{html(part['text'])}</p>" for part in parts) + "</div>"


# --- pictures -------------------------------------------------------------------------------------------------------


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    drawn = "".join(message(name, blocks(delivery, NOW)[1]) for name, delivery in messages())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=list(QUIET))
        for device, width in WIDTHS.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": 600}, device_scale_factor=1.25)
                page.set_content(f'<style>{STYLE}</style><body class="{scheme}">{drawn}')
                path = FOLDER / f"slack-{device}-{scheme}.png"
                page.screenshot(path=path, full_page=True)
                print(f"{path}: {path.stat().st_size // 1000} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
