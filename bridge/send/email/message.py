"""How a delivery looks as a mail: plain text, and the same in HTML. Pure.

RFC 5322 (headers), 3834 (Auto-Submitted: no vacation note answers) and 2046 (multipart/alternative), read 2026-12-01.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from hashlib import sha256
from typing import Any

from bridge.display import clamp, visible
from bridge.model import Delivery
from bridge.notifiers import EmailNotifier
from bridge.send.chat import Markup, Shown, previewed, written
from bridge.send.integration import Piece

LONGEST_SUBJECT = 200  # characters; mail programs show about 70
LONGEST_PART = 100_000  # bytes; the record holds less

_POLICY = SMTP.clone(cte_type="7bit")  # not every server takes 8 bits
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STYLE = "padding:2px 12px 2px 0;text-align:left;vertical-align:top"


def mail(delivery: Delivery, notifier: EmailNotifier, now: datetime) -> EmailMessage:
    """Return the message. Its Message-ID is the same in each attempt: by it mail systems recognise a repetition.

    When a person resends it, it has another one, or it would be taken for a repetition too.
    """
    shown, name = Shown.of(delivery, now), _name_of(delivery)
    made = EmailMessage(policy=_POLICY)
    made["From"] = Address(display_name=_literal(notifier.sender_name), addr_spec=notifier.sender)
    made["To"] = tuple(Address(addr_spec=address) for address in notifier.to)
    made["Subject"] = subject(shown)
    made["Date"] = now
    made["Message-ID"] = f"<{name}@{notifier.sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(plain(shown))
    made.add_alternative(in_html(shown), subtype="html")
    made.set_boundary(f"=_{name}")  # "=_" is in no encoded part
    return made


def _name_of(delivery: Delivery) -> str:
    name = delivery.id if _ID.fullmatch(delivery.id) else sha256(delivery.id.encode()).hexdigest()[:32]
    return f"{name}.{int(delivery.since.timestamp() * 1000)}" if delivery.since else name


def subject(shown: Shown) -> str:
    """Return the title on one line: a line break in it would begin another header."""
    title = "".join(part.text for part in shown.title)
    return _literal(clamp(visible(" ".join(f"{shown.symbol} {title}".split())), LONGEST_SUBJECT))


def _literal(text: str) -> str:
    """Return a text with no "=?" in it, with which an encoded word begins: that may decode to anything (RFC 2047)."""
    return text.replace("=?", "= ?")


# --- the text, twice ------------------------------------------------------------------------------------------------


class _Plain(Markup):
    def escaped(self, character: str) -> str:
        return character

    def link(self, label: str, url: str) -> str:
        return f"{label} ({url})"

    def bold(self, text: str) -> str:
        return text


class _Html(Markup):
    def escaped(self, character: str) -> str:
        return "<br>\n" if character == "\n" else html.escape(character)

    def link(self, label: str, url: str) -> str:
        return f'<a href="{html.escape(url)}">{label}</a>'

    def bold(self, text: str) -> str:
        return f"<strong>{text}</strong>"


def plain(shown: Shown) -> str:
    return "\n\n".join(_plain(line) for line in previewed(shown)) + "\n"


def _plain(parts: Iterable[Piece]) -> str:
    return written(parts, LONGEST_PART, _Plain())


def in_html(shown: Shown) -> str:
    markup = _Html()
    title = f"<p>{markup.bold(_html([Piece(f'{shown.symbol} '), *shown.title]))}</p>"
    fields = [(_html([Piece(name)]), _html(value)) for name, value in shown.fields]
    below = [_html(line) for line in (*shown.notes, shown.steps, shown.footer) if line]
    parts = [title, f"<p>{_html(shown.body)}</p>", _table(fields), _table(_members(shown))]
    made = "\n".join([*filter(None, parts), *(f"<p>{line}</p>" for line in below)])
    return f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head><body>\n{made}\n</body></html>\n'


def _html(parts: Iterable[Piece]) -> str:
    return written(parts, LONGEST_PART, _Html())


def _members(shown: Shown) -> Iterator[tuple[str, ...]]:
    """Yield a row for each message that a digest names: when, which state, and what."""
    for member in shown.data.get("members") or ():
        url = shown.links.job(member["job"]) if member.get("job") else None
        cells = [_when(member), Piece(str(member.get("state") or "")), Piece(str(member.get("title") or ""), url=url)]
        yield tuple(_html([cell]) for cell in cells)


def _when(member: dict[str, Any]) -> Piece:
    text = str(member.get("time") or "")
    return Piece(text, at=datetime.fromisoformat(text).astimezone(UTC) if text else None)


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    cells = ("".join(f'<td style="{_STYLE}">{cell}</td>' for cell in row) for row in rows)
    lines = [f"<tr>{row}</tr>" for row in cells]
    return "\n".join(["<table>", *lines, "</table>"]) if lines else ""
