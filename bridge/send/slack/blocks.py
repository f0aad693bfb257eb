"""How a delivery looks in Slack, and how that looks on a page. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from bridge.display import MARK, visible
from bridge.model import Delivery
from bridge.notifiers import SlackNotifier
from bridge.send.chat import Shown, below
from bridge.send.integration import PATH, Piece, Preview
from bridge.send.slack.buttons import buttons_of
from bridge.url import origin

Block = dict[str, Any]

# https://docs.slack.dev/reference/block-kit/blocks/section-block, read 2026-11-21: over-long means refused.
# About 13,000 characters in all is not documented; the sum of these stays under 12,000.
TEXT_LIMIT = 1000
TITLE_LIMIT = 300
SECTION_LIMIT = 3000
FIELD_LIMIT = 2000
FIELDS_LIMIT = 5000
NOTE_LIMIT = 1000
FOOTER_LIMIT = 800
_LONGEST_URL = 500
_SHORTEST_LABEL = 8


def blocks(
    delivery: Delivery, now: datetime, notifier: SlackNotifier | None = None, *, is_reply: bool = False
) -> tuple[str, list[Block]]:
    """Return the text of the notification and the blocks of the message, with buttons where `notifier` has any."""
    shown = Shown.of(delivery, now)
    title, mentions = _title(shown), _mentions(shown)
    steps = mrkdwn(shown.steps, FOOTER_LIMIT)
    made = [_section(_joined(f"{shown.symbol} *{title}*", shown.body, SECTION_LIMIT, end=steps))]
    if mentions:
        made.append(_section(mentions))
    if shown.fields:
        made.append(_fields(shown.fields))
    notes = [mrkdwn(note, NOTE_LIMIT) for note in shown.notes]
    made += [_context(text) for text in notes if text]
    buttons = buttons_of(shown, notifier, is_reply=is_reply) if notifier else []
    if buttons:
        made.append({"type": "actions", "elements": [button.element(shown.language) for button in buttons]})
    if footer := mrkdwn(shown.footer, FOOTER_LIMIT):
        made.append(_context(footer))
    lines = below(shown.body, shown.steps)
    return _joined(f"{shown.symbol} {title}", lines, TEXT_LIMIT, end=mentions, dates=False), made


def plain(delivery: Delivery, now: datetime) -> str:
    """Return the message as one text, in case Slack refuses its blocks."""
    shown = Shown.of(delivery, now)
    fields = [[Piece(f"{name}: "), *value] for name, value in shown.fields]
    lines = below(shown.body, shown.steps, *fields, *shown.notes, shown.footer)
    title = f"{shown.symbol} {_title(shown)}"
    return _joined(title, lines, SECTION_LIMIT, end=_mentions(shown), dates=False)


def _title(shown: Shown) -> str:
    parts = shown.title
    links = [_href(part.url) for part in parts if part.url]
    hidden = len(links[0] or "") if len(links) == 1 else 0  # nobody sees the URL
    return mrkdwn(parts, TITLE_LIMIT + hidden, dates=False)


def _mentions(shown: Shown) -> str:
    return " ".join(filter(None, map(_mention, shown.mentions)))


# Ids of people and of user groups (docs.slack.dev/messaging/formatting-message-text, read 2026-11-30): Slack notifies
# of these in `text` and in blocks, also where text is verbatim.
_PERSON, _GROUP = re.compile(r"[UW][A-Z0-9]+"), re.compile(r"S[A-Z0-9]+")


def _mention(who: str) -> str | None:
    if who in ("here", "channel"):
        return f"<!{who}>"
    if _GROUP.fullmatch(who):
        return f"<!subteam^{who}>"
    return f"<@{who}>" if _PERSON.fullmatch(who) else None


# --- Slack's markup -------------------------------------------------------------------------------------------------


def mrkdwn(parts: Sequence[Piece], limit: int, *, dates: bool = True) -> str:
    """Return pieces as Slack's mrkdwn of at most `limit` characters; no link or time is cut in two."""
    made = ""
    for part in parts:
        room = limit - len(made)
        token = _token(part, room, dates=dates)
        if token is None:
            token = fit(part.text, room)
        if len(token) > room:
            return made if len(made) >= limit or made.endswith(MARK) else f"{made}{MARK}"
        made += token
        if token.endswith(MARK) and not part.text.endswith(MARK):  # it was cut
            break
    return made.strip()


def _token(part: Piece, room: int, *, dates: bool) -> str | None:
    if part.url and (url := _href(part.url)):
        # A "|" would end the URL, if Slack looked for the last one.
        label = " ".join(part.text.replace("|", "¦").split())
        return f"<{url}|{fit(label, max(_SHORTEST_LABEL, min(TITLE_LIMIT, room - len(url) - 3)))}>"
    if part.at:
        shown = f"{part.at.astimezone(UTC):%Y-%m-%d %H:%M UTC}"
        # https://docs.slack.dev/messaging/formatting-message-text#date-formatting, read 2026-11-30
        return f"<!date^{int(part.at.timestamp())}^{{date_short_pretty}} {{time}}|{shown}>" if dates else shown
    return None


def _href(url: str) -> str | None:
    """Return a URL as Slack's markup takes it; None if it is too long."""
    for sign, escaped in (("&", "&amp;"), ("<", "%3C"), (">", "%3E"), ("|", "%7C")):
        url = url.replace(sign, escaped)
    href = "%20".join(url.split())
    return href if len(href) <= _LONGEST_URL else None


def fit(text: str, limit: int) -> str:
    """Return `text` escaped for Slack, with invisible characters spelt out, cut to `limit` characters with "…"."""
    escaped = visible(text, lines=True).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= limit:
        return escaped
    return re.sub(r"&[a-z]*$", "", escaped[: max(0, limit - 1)]) + MARK  # no half of an "&amp;" at the end


def _joined(head: str, body: Sequence[Piece], limit: int, *, end: str = "", dates: bool = True) -> str:
    rest = mrkdwn(body, limit - len(head) - len(end) - 2, dates=dates)
    return "\n".join(part for part in (head, rest, end) if part)


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text)}


def _fields(pairs: Sequence[tuple[str, Sequence[Piece]]]) -> Block:
    limit = min(FIELD_LIMIT, FIELDS_LIMIT // len(pairs))
    return {"type": "section", "fields": [_mrkdwn(_field(name, value, limit)) for name, value in pairs]}


def _field(name: str, value: Sequence[Piece], limit: int) -> str:
    bold = f"*{fit(name, 100)}*\n"
    return bold + (mrkdwn(value, limit - len(bold)) or "-")


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_mrkdwn(text)]}


def _mrkdwn(text: str) -> Block:
    # Verbatim: addresses, @names and #names in CI's texts stay as they are and mention nobody.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


# --- how a message looks on a page ----------------------------------------------------------------------------------

_BOLD = re.compile(r"([^*]*)\*(.+)\*")
_TOKEN = re.compile(r"<([^<>|]+)(?:\|([^<>]*))?>")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def preview(delivery: Delivery, notifier: SlackNotifier, *, at: datetime) -> Preview:
    """Return the message as its blocks show it."""
    text, made = blocks(delivery, at, notifier)
    channel = delivery.channel if delivery.channel in notifier.channels else notifier.channel
    address = channel if channel and not notifier.url else f"{origin(notifier.url or '')}{PATH}"
    lines = [_read_text(line) for block in made for line in _texts(block)]
    return Preview(app="Slack", address=address, lines=lines, body=text)


def _texts(block: Block) -> list[str]:
    if block["type"] == "actions":
        return ["  ".join(f"[{button['text']['text']}]" for button in block["elements"])]
    parts = [block["text"]] if "text" in block else block.get("fields") or block.get("elements") or []
    return [part["text"] for part in parts]


def _read_text(text: str) -> list[Piece]:
    """Return the pieces of a text in mrkdwn: the first line may be bold."""
    line, _, rest = text.partition("\n")
    match = _BOLD.fullmatch(line)
    if not match:
        return list(read(text))
    bold = [piece._replace(bold=True) for piece in read(match[1] + match[2])]
    return [*bold, *(read(f"\n{rest}") if rest else ())]


def read(text: str) -> Iterator[Piece]:
    """Yield the pieces of a text in mrkdwn as people read them, but for what is bold."""
    end = 0
    for match in _TOKEN.finditer(text):
        yield Piece(_unescaped(text[end : match.start()]))
        target, label = match[1], _unescaped(match[2] or "")
        if target.startswith(("http://", "https://")):
            yield Piece(label, url=_unescaped(target))
        else:
            yield Piece(label or f"@{target.removeprefix('!subteam^').lstrip('@!')}")
        end = match.end()
    yield Piece(_unescaped(text[end:]))


def _unescaped(text: str) -> str:
    for escaped, sign in _ENTITIES:
        text = text.replace(escaped, sign)
    return text
