"""How a delivery looks in Slack, and how that looks on a page. Pure."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.display import visible
from bridge.model import CANCEL, FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS, Delivery, SlackNotifier
from bridge.send.integration import PATH, Preview
from bridge.url import origin

Block = dict[str, Any]

# https://docs.slack.dev/reference/block-kit/blocks/section-block, read 2026-11-21: over-long means refused.
# About 13,000 characters in all is not documented; the sum of these stays under 12,000.
TEXT_LIMIT = 1000
TITLE_LIMIT = 300
SECTION_LIMIT = 3000
FIELDS = 10
FIELD_LIMIT = 2000
FIELDS_LIMIT = 5500
NOTE_LIMIT = 1000
FOOTER_LIMIT = 500

LATE = timedelta(minutes=5)

_EMOJI = {SUCCESS: "✅", FAILED: "❌", PAUSE: "⏸", CANCEL: "🚫", RUNNING: "▶", SUBMITTED: "🕓"}
_DIGEST = "📋"


def blocks(delivery: Delivery, now: datetime) -> tuple[str, list[Block]]:
    """Return the text of the notification and the blocks of the message."""
    says = json.loads(delivery.says)
    mark = _mark(says)
    title = fit(" ".join(visible(_str(says.get("title")), lines=True).split()), TITLE_LIMIT) or "(no title)"
    text = _str(says.get("text"))
    made = [_section(f"{mark} *{title}*", text)]
    if pairs := (says.get("fields") or [])[:FIELDS]:
        made.append(_fields(pairs))
    if late := lateness(delivery.happened_at, now):
        made.append(_context(late))
    if delivery.note:
        made.append(_context(fit(delivery.note, NOTE_LIMIT)))
    made.append(_context(fit(_footer(delivery, says), FOOTER_LIMIT)))
    return _joined(f"{mark} {title}", text, TEXT_LIMIT), made


def plain(delivery: Delivery, now: datetime) -> str:
    """Return the message as one text, in case Slack refuses its blocks."""
    says = json.loads(delivery.says)
    lines = [_str(says.get("text"))]
    lines += [f"{_str(name)}: {_str(value)}" for name, value in (says.get("fields") or [])[:FIELDS]]
    lines += [lateness(delivery.happened_at, now) or "", delivery.note or "", _footer(delivery, says)]
    head = f"{_mark(says)} {fit(_str(says.get('title')), TITLE_LIMIT)}"
    return _joined(head, "\n".join(filter(None, lines)), SECTION_LIMIT)


def _mark(says: dict[str, Any]) -> str:
    state = says.get("state")
    return _DIGEST if state is None and says.get("digest") else _EMOJI.get(state or "", "❓")


def lateness(happened_at: datetime, now: datetime) -> str | None:
    """Return the sentence which says that a message is late, if it is."""
    late = now - happened_at
    if late <= LATE:
        return None
    at = happened_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"Delivered late: this happened at {at}, {_human(late)} ago."


def fit(text: str, limit: int) -> str:
    """Return `text` escaped for Slack, with invisible characters spelt out, cut to `limit` characters with "…"."""
    escaped = visible(text, lines=True).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= limit:
        return escaped
    return re.sub(r"&[a-z]*$", "", escaped[: limit - 1]) + "…"  # no half of an "&amp;" at the end


def _section(head: str, text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(_joined(head, text, SECTION_LIMIT))}


def _joined(head: str, text: str, limit: int) -> str:
    rest = fit(text, limit - len(head) - 1)
    return f"{head}\n{rest}" if rest else head


def _fields(pairs: list[list[Any]]) -> Block:
    limit = min(FIELD_LIMIT, FIELDS_LIMIT // len(pairs))
    return {"type": "section", "fields": [_mrkdwn(_field(name, value, limit)) for name, value in pairs]}


def _field(name: Any, value: Any, limit: int) -> str:
    bold = f"*{fit(_str(name), 100) or '-'}*\n"
    return bold + (fit(_str(value), limit - len(bold)) or "-")


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_mrkdwn(text)]}


def _mrkdwn(text: str) -> Block:
    # Verbatim: addresses, @names and #names in CI's texts stay as they are and mention nobody.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _footer(delivery: Delivery, says: dict[str, Any]) -> str:
    return " · ".join(_str(part) for part in (says.get("job_id"), says.get("rule"), delivery.id) if part)


def _str(value: Any) -> str:
    return "" if value is None else str(value)


def _human(span: timedelta) -> str:
    """Return "3 h 2 min": the two largest units."""
    minutes = int(span.total_seconds() // 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if count]
    return " ".join(parts[:2])


# --- how a message looks on a page ----------------------------------------------------------------------------------

_BOLD = re.compile(r"([^*]*)\*(.+)\*")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def preview(delivery: Delivery, notifier: SlackNotifier, *, at: datetime) -> Preview:
    """Return the message as its blocks show it."""
    text, made = blocks(delivery, at)
    channel = delivery.channel if delivery.channel in notifier.channels else notifier.channel
    address = channel if channel and not notifier.url else f"{origin(notifier.url or '')}{PATH}"
    lines = [_bold(line) for block in made for line in _texts(block)]
    return Preview(app="Slack", address=address, lines=lines, body=text)


def _texts(block: Block) -> list[str]:
    parts = [block["text"]] if "text" in block else block.get("fields") or block.get("elements") or []
    return [part["text"] for part in parts]


def _bold(text: str) -> tuple[str, str]:
    """Return the first line, if it is bold, and the rest."""
    line, _, rest = _unescaped(text).partition("\n")
    match = _BOLD.fullmatch(line)
    return (match[1] + match[2], rest) if match else ("", _unescaped(text))


def _unescaped(text: str) -> str:
    for escaped, sign in _ENTITIES:
        text = text.replace(escaped, sign)
    return text
