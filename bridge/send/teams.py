"""Notifiers of the type "teams": a workflow that posts a card to a channel of Microsoft Teams.

Microsoft Learn, read 2026-12-01: "Create Incoming Webhooks" (28 KB, four requests a second), "Text formatting in cards"
(what is Markdown, and that a line may have none), "TextRun" (no Markdown, a link as its `selectAction`). A workflow
answers 202 and nothing (github.com/fluxcd/flagger, pull request 1887), or what its own response action says; it knows
cards up to version 1.4 (github.com/prometheus/alertmanager, issue 3920). WorkflowTriggerIsNotEnabled:
github.com/microsoft/coe-starter-kit, issue 8684; connectors, which came before workflows, ended in May 2026. Not
confirmed: mentions, which are documented for bots and connectors, but not for workflows. A card that Teams refuses is
lost after the 202, so there are none, no Markdown, and only two thirds of the size.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bridge.display import MARK, visible
from bridge.model import Reason
from bridge.send.chat import Shown
from bridge.send.http_types import Reply
from bridge.send.integration import Piece
from bridge.send.robot import Meaning, Robot, pause, refused

LIMIT = 20_000  # bytes of a card
_LONGEST_URL = 500
_MOST_ACTIONS = 5  # Teams shows six at most

Element = dict[str, Any]


CODES: Mapping[str, Meaning] = {"WorkflowTriggerIsNotEnabled": pause("turn the workflow on", Reason.GONE)}
STATUSES: Mapping[int, Meaning] = (
    dict.fromkeys((400, 413), refused())
    | dict.fromkeys((401, 403), pause("copy the workflow's url again, and let anyone trigger it"))
    | dict.fromkeys((404, 410), pause("make the workflow again and give its url to the notifier", Reason.GONE))
)


class Teams(Robot):
    tool = "Teams"
    codes = CODES
    statuses = STATUSES

    def body(self, shown: Shown, now: datetime) -> Mapping[str, Any]:  # noqa: ARG002 - nothing is signed
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None}
        return {"type": "message", "attachments": [{**attachment, "content": card(shown)}]}

    def code(self, answer: Mapping[str, Any]) -> tuple[Any, Any]:
        error = answer.get("error")
        return (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)

    def accepts(self, reply: Reply, code: Any) -> bool:
        is_page = reply.body.removeprefix(BOM_UTF8).lstrip().startswith(b"<")
        return 200 <= reply.status < 300 and code is None and not is_page


def card(shown: Shown) -> Element:
    """Return a card of at most LIMIT: only the text is cut to make room for the rest, of which each part is short."""
    title = _line([Piece(f"{shown.symbol} "), *shown.title], LIMIT // 10, weight="Bolder", size="Medium")
    each = LIMIT // 5 // max(1, len(shown.fields))
    below = [_line([Piece(f"{name}: ", bold=True), *value], each) for name, value in shown.fields]
    below += [_line(note, LIMIT // 20, isSubtle=True) for note in shown.notes]
    below += [_line(shown.footer, LIMIT // 10, isSubtle=True, size="Small")] if shown.footer else []
    actions = [{**_open(part), "title": visible(part.text)} for part in shown.steps if _open(part)][:_MOST_ACTIONS]
    text = _lines(shown.body, LIMIT - size(_card([title, *below], actions)))
    return _card([title, *text, *below], actions)


def size(value: Any) -> int:
    """Return how many bytes of JSON it takes."""
    return len(json.dumps(value, ensure_ascii=False).encode())


def _card(body: Sequence[Element], actions: Sequence[Element]) -> Element:
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": list(body),
        "actions": list(actions),
    }


def _lines(parts: Sequence[Piece], room: int) -> Iterator[Element]:
    """Yield a text line by line, as far as there is room."""
    for line in _split(parts):
        made = _line(line, room, spacing="None")
        room -= size(made) + 2
        if room < 0:
            return
        yield made


def _split(parts: Sequence[Piece]) -> list[list[Piece]]:
    lines: list[list[Piece]] = [[]]
    for part in parts:
        first, *more = [part.text] if part.url or part.at else part.text.split("\n")
        lines[-1].append(part._replace(text=first))
        lines += [[part._replace(text=text)] for text in more]
    return [kept for line in lines if (kept := [part for part in line if part.text])]


def _line(parts: Sequence[Piece], room: int, *, spacing: str | None = None, **look: Any) -> Element:
    """Return pieces in a line of at most `room` bytes; then "…" ends it, and no link is cut off."""
    made: Element = {"type": "RichTextBlock", **({"spacing": spacing} if spacing else {}), "inlines": []}
    room -= size(made)
    for part in parts:
        run = _run(part, look)
        over = size(run) + 2 - room
        if over > 0:
            text = _cut(run["text"], over)
            made["inlines"].append({**run, "text": text} if text != MARK else {"type": "TextRun", "text": MARK, **look})
            break
        made["inlines"].append(run)
        room = -over
    return made


def _run(part: Piece, look: Mapping[str, Any]) -> Element:
    text = f"{part.at.astimezone(UTC):%Y-%m-%d %H:%M:%S UTC}" if part.at else part.text
    link = {"selectAction": action} if (action := _open(part)) else {}
    return {"type": "TextRun", "text": visible(text), **look, **({"weight": "Bolder"} if part.bold else {}), **link}


def _open(part: Piece) -> Element:
    """Return what opens the URL of a piece; nothing if there is none, or too long a one."""
    if not part.url or len(part.url) > _LONGEST_URL:
        return {}
    return {"type": "Action.OpenUrl", "url": "%20".join(part.url.split())}


def _cut(text: str, over: int) -> str:
    """Return a text with a mark at its end, by so many bytes of JSON shorter."""
    most = size(text) - over - len(MARK.encode())
    while text and (left := size(text) - most) > 0:
        text = text[: -max(1, left // 4)]  # a character takes four bytes at most
    return text.rstrip() + MARK
