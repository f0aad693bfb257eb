"""What a digest says: how many of what, the first of each kind, and where the rest can be seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.messages.build import LARGEST_EVENT, delivery_id, envelope, numbered
from bridge.decide.text.times import iso
from bridge.decide.text.values import cut, ident
from bridge.links import NO_LINKS, Links
from bridge.model import CANCEL, FAILED, GONE, SUCCESS, Gate, Message, NewDelivery, Silence

FIRST = 5  # members of each state that a digest quotes
_MOST_STATES = 10
_LONGEST_LINE = 200  # characters
_LONGEST_TEXT = 2_500  # as Slack counts; below what a section of it takes
_RANKS = {FAILED: 0, GONE: 1, CANCEL: 2, SUCCESS: 9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A message that a digest sums up."""

    job_id: str
    bucket: str
    sequence: int
    state: str
    title: str
    text: str
    happened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A digest that is due: what it is for, and what it holds. `first` are up to FIRST members of each state."""

    n: int
    gate: Gate
    name: str
    notifier: str
    label: str | None
    channel: str | None
    opened_at: datetime
    due_at: datetime
    passed: int
    counts: Mapping[str, int]
    first: Sequence[Member]
    origin: str  # the id of its first message

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def by(self) -> dict[str, str | None]:
        """What its members have in common."""
        return {str(field): value for field, value in json.loads(self.label)} if self.label else {}


def digest_delivery(
    digest: Digest,
    silence: Silence | None,
    *,
    zone: ZoneInfo,
    now: datetime,
    note: str | None = None,
    links: Links = NO_LINKS,
) -> NewDelivery:
    """Return the delivery of a digest: it belongs to no job, and so to no order and no thread."""
    message_id = ident("msg", "digest", digest.gate, digest.name, digest.notifier, digest.origin)
    id_ = delivery_id(message_id, digest.notifier)
    states = sorted(digest.counts, key=lambda state: (_RANKS.get(state, 5), state))
    message = Message(
        id=message_id,
        kind="digest",
        title=cut(_title(digest, silence, states)),
        text=_text(digest, states[:_MOST_STATES], id_, zone),
        fields=(),
        event=_event(digest, silence, links.digest(id_)),
        rule=digest.name if digest.gate in ("group", "throttle") else None,
        public_url=links.base,
        happened_at=min(digest.due_at, now),
    )
    return NewDelivery(
        id=id_, message=message, notifier=digest.notifier, ordering_key=None, channel=digest.channel, note=note
    )


def _title(digest: Digest, silence: Silence | None, states: Sequence[str]) -> str:
    match digest.gate:
        case "group":
            common = ", ".join(f"{field} {value or 'none'}" for field, value in digest.by.items())
            what = f"{digest.name} ({common})" if common else digest.name
        case "throttle":
            what = f"... and {digest.total:,} more by {digest.name}"
        case "mute":
            what = f'{digest.total:,} held by the mute "{digest.name}", now over'
        case _:
            what = f"{silence or 'A silence'} is over, {digest.total:,} held"
    counts = [f"{digest.counts[state]:,} {state}" for state in states[:_MOST_STATES]]
    if rest := sum(digest.counts[state] for state in states[_MOST_STATES:]):
        counts.append(f"{rest:,} others")
    return f"{what}: {', '.join(counts)}"


def _text(digest: Digest, states: Sequence[str], delivery: str, zone: ZoneInfo) -> str:
    """Quote the first of each state, as many as there is room for; what is left out is counted."""
    end = f"All of them: ci-bridge deliveries list --digest {delivery}"
    lines: list[str] = []
    size = len(end)
    for state in states:
        for member in (member for member in digest.first if member.state == state):
            text = " ".join(f"{member.title} - {member.text}".split()).removesuffix(" -")
            at = f"{member.happened_at.astimezone(zone):%H:%M}"
            line = f"• {at} {cut(text, _LONGEST_LINE)} ({member.job_id})"
            if size + len(escape(line)) > _LONGEST_TEXT:
                break
            lines.append(line)
            size += len(escape(line)) + 1
    if left := digest.total - len(lines):
        lines.append(f"... and {left:,} more")
    return "\n".join([*lines, end])


def _event(digest: Digest, silence: Silence | None, url: str | None) -> dict[str, Any]:
    members = [_facts(member) for member in digest.first]
    data = {
        "gate": digest.gate,
        "name": digest.name,
        "reason": silence.reason if silence else None,
        "by": digest.by,
        "since": iso(digest.opened_at),
        "total": digest.total,
        "states": dict(digest.counts),
        "members": members,
        "members_total": digest.total,
        "url": url,
    }
    body = envelope("digest", source="//ci-bridge/digests", subject=digest.name, time=digest.due_at, data=data)
    while members and len(json.dumps(body, ensure_ascii=False).encode()) > LARGEST_EVENT - 100:
        members.pop()
    return body


def _facts(member: Member) -> dict[str, Any]:
    return {
        "job": member.job_id,
        "bucket": member.bucket,
        "sequence": numbered(member.sequence),
        "state": member.state,
        "title": cut(member.title, _LONGEST_LINE),
        "time": iso(member.happened_at),
        "href": f"/api/v1/jobs/{member.job_id}",
    }
