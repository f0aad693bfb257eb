"""Pictures of messages in chats, drawn from what is sent: `python -m tests.browser.chat_pictures`.

The clients themselves cannot be run here; this draws what documentation says of mrkdwn, blocks, Markdown and cards.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from html import escape, unescape
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from playwright.sync_api import sync_playwright

from bridge.notifiers import DingTalkNotifier, FeishuNotifier, WecomNotifier
from bridge.send.chat import Shown
from bridge.send.dingtalk import DingTalk
from bridge.send.email.message import in_html
from bridge.send.feishu import Feishu
from bridge.send.slack.blocks import blocks
from bridge.send.teams import card
from bridge.send.wecom import Wecom
from tests.browser.conftest import CHROMIUM, QUIET
from tests.support.slack_messages import NOW, messages

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
WIDTHS = {"desktop": 860, "phone": 390}
ZONE = ZoneInfo("Asia/Shanghai")  # the reader's
NAMES = {"U024BE7LH": "anna", "S0123ABC": "media-oncall"}  # Slack knows them
STYLE = (Path(__file__).parent / "chat_pictures.css").read_text()

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


# --- robots in groups, Teams, mail ----------------------------------------------------------------------------------

_CHATS = ("done", "failed", "stuck", "flood", "mention")
_URL = "https://chat.example.com/robot?key=none"


def chats() -> str:
    """Return how each of these chats shows some messages, as columns."""
    return "".join(f"<section><h1>{name}</h1>{''.join(shown)}</section>" for name, shown in _columns())


def _columns() -> Iterator[tuple[str, list[str]]]:
    chosen = [delivery for name, delivery in messages() if name in _CHATS]
    bodies = {
        "WeCom": (Wecom(WecomNotifier(name="ops", url=_URL)), lambda body: body["markdown"]["content"]),
        "DingTalk": (DingTalk(DingTalkNotifier(name="ops", url=_URL)), lambda body: body["markdown"]["text"]),
        "Feishu": (
            Feishu(FeishuNotifier(name="ops", url=_URL)),
            lambda body: body["card"]["body"]["elements"][0]["content"],
        ),
    }
    for name, (robot, text_in) in bodies.items():
        yield (
            name,
            [f"<article><p>{_markdown(text_in(robot.body(Shown.of(one, NOW), NOW)))}</p></article>" for one in chosen],
        )
    yield "Teams", [f"<article>{_card(card(Shown.of(one, NOW)))}</article>" for one in chosen]
    yield "Mail", [f"<article>{in_html(Shown.of(one, NOW)).partition('<body>')[2]}</article>" for one in chosen]


_MENTION = re.compile(r"<@(\w+)>|<at id=(\w+)></at>")
_LINK = re.compile(r"\[([^\]\n]*)\]\(([^()\s]+)\)")


def _markdown(text: str) -> str:
    text = _MENTION.sub(lambda match: f"\0{match[1] or match[2]}\1", text)
    text = escape(unescape(text), quote=False)
    text = _LINK.sub(r'<a href="\2">\1</a>', text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"\\\\(.)", r"\1", re.sub(r"\n+", "\n", text))
    return re.sub("\0(.*?)\1", r'<span class="mention">@\1</span>', text)


def _card(made: Mapping[str, Any]) -> str:
    runs = ("".join(map(_run, line["inlines"])) for line in made["body"])
    return "".join(f"<p>{line}</p>" for line in runs) + "".join(
        f"<button>{one['title']}</button>" for one in made["actions"]
    )


def _run(run: Mapping[str, Any]) -> str:
    text = escape(run["text"], quote=False)
    text = f'<a href="{run["selectAction"]["url"]}">{text}</a>' if "selectAction" in run else text
    return (
        f"<strong>{text}</strong>" if run.get("weight") else f"<small>{text}</small>" if run.get("isSubtle") else text
    )


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
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 1500, "height": 600})
            page.set_content(f'<style>{STYLE}</style><body class="{scheme} chats">{chats()}')
            page.screenshot(path=FOLDER / f"chats-{scheme}.png", full_page=True)


if __name__ == "__main__":
    main()
