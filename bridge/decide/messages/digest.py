"""What a digest says: how many of what, the first of each kind, and where the rest can be seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.messages.event import LARGEST_EVENT, numbered
from bridge.decide.text.facts import ident
from bridge.decide.text.times import iso
from bridge.decide.text.values import cut
from bridge.model import CANCEL, FAILED, GONE, SUCCESS, Gate, Message, NewDelivery, Silence

FIRST = 5  # members of each state that a digest quotes
_MOST_STATES = 10
_LONGEST_LINE = 200  # characters
_LONGEST_TEXT = 2_500  # as Slack counts; below what a section of it takes
_ORDER = {FAILED: 0, GONE: 1, CANCEL: 2, SUCCESS: 9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A message that a digest tells of."""

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


def told(
    digest: Digest, silence: Silence | None, *, zone: ZoneInfo, now: datetime, note: str | None = None
) -> NewDelivery:
    """Return the delivery of a digest: it belongs to no job, and so to no lane and no thread."""
    message = _message(digest, silence, zone, now)
    delivery = delivery_id(message.id, digest.notifier)
    return NewDelivery(
        id=delivery, message=message, notifier=digest.notifier, lane=None, channel=digest.channel, note=note
    )


def delivery_id(message: str, notifier: str) -> str:
    return ident("dlv", message, notifier)


def _message(digest: Digest, silence: Silence | None, zone: ZoneInfo, now: datetime) -> Message:
    id_ = ident("msg", "digest", digest.gate, digest.name, digest.notifier, digest.origin)
    return Message(
        id=id_,
        kind="digest",
        title=cut(f"{_headline(digest, silence)}: {_counted(digest)}"),
        text=_text(digest, delivery_id(id_, digest.notifier), zone),
        fields=(),
        event=_event(digest, silence),
        rule=digest.name if digest.gate in ("group", "throttle") else None,
        happened_at=min(digest.due_at, now),
    )


def _headline(digest: Digest, silence: Silence | None) -> str:
    match digest.gate:
        case "group":
            return f"{digest.name}{_label(digest)}"
        case "throttle":
            return f"... and {digest.total:,} more by {digest.name}"
        case "mute":
            return f'{digest.total:,} held by the mute "{digest.name}", now over'
    return f"{silence or 'A silence'} is over, {digest.total:,} held"


def _label(digest: Digest) -> str:
    said = ", ".join(f"{field} {value or 'none'}" for field, value in digest.by.items())
    return f" ({said})" if said else ""


def _states(digest: Digest) -> list[str]:
    return sorted(digest.counts, key=lambda state: (_ORDER.get(state, 5), state))


def _counted(digest: Digest) -> str:
    states = _states(digest)
    said = [f"{digest.counts[state]:,} {state}" for state in states[:_MOST_STATES]]
    rest = sum(digest.counts[state] for state in states[_MOST_STATES:])
    return ", ".join([*said, f"{rest:,} others"] if rest else said)


def _text(digest: Digest, delivery: str, zone: ZoneInfo) -> str:
    """Quote the first of each state, as many as there is room for; what is left out is counted."""
    end = f"All of them: ci-bridge deliveries list --digest {delivery}"
    lines, size, quoted = [], len(end), 0
    for state in _states(digest)[:_MOST_STATES]:
        for member in (one for one in digest.first if one.state == state):
            line = f"• {_line(member, zone)}"
            if size + len(escape(line)) > _LONGEST_TEXT:
                break
            lines.append(line)
            size, quoted = size + len(escape(line)) + 1, quoted + 1
    if digest.total > quoted:
        lines.append(f"... and {digest.total - quoted:,} more")
    return "\n".join([*lines, end])


def _line(member: Member, zone: ZoneInfo) -> str:
    text = " ".join(f"{member.title} - {member.text}".split()).removesuffix(" -")
    at = f"{member.happened_at.astimezone(zone):%H:%M}"
    return f"{at} {cut(text, _LONGEST_LINE)} ({member.job_id})"


def _event(digest: Digest, silence: Silence | None) -> dict[str, Any]:
    when = iso(digest.due_at)
    members = [_facts(one) for one in digest.first]
    body: dict[str, Any] = {
        "source": "//ci-bridge/digests",
        "type": "ci.digest",
        "subject": digest.name,
        "time": when,
        "timestamp": when,
        "sequence": numbered(1),
        "datacontenttype": "application/json",
        "data": {
            "gate": digest.gate,
            "name": digest.name,
            "reason": silence.reason if silence else None,
            "by": digest.by,
            "since": iso(digest.opened_at),
            "total": digest.total,
            "states": dict(digest.counts),
            "members": members,
            "members_total": digest.total,
        },
    }
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
