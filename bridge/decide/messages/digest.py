"""What a digest says: how many of what, the first of each kind, equal reasons as one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from bridge.decide.messages.build import LARGEST_EVENT, delivery_id, envelope, numbered
from bridge.decide.text.times import iso
from bridge.decide.text.values import cut, ident
from bridge.language import ENGLISH, Language
from bridge.links import NO_LINKS, Links
from bridge.model import FAILED, GONE, SUCCESS, Gate, Message, NewDelivery, Silence, worst_first

FIRST = 5  # members of each state that a digest quotes, or reasons that it counts
MOST_COUNTED = 1_000  # members of each state whose reasons are compared
_MOST_STATES = 10
_MOST_FILES = 3  # named with a reason
_LONGEST_LINE = 200  # characters
_LONGEST_FILE = 60
_LONGEST_TEXT = 2_500  # as Slack counts; below what a section of it takes
_LONGER_BY = 50  # what a time takes more in Slack than in ISO 8601
_HAVE_REASONS = (FAILED, GONE)  # of these, the text is a reason, which several may share


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A message that a digest sums up; it may be a digest itself, which has no job."""

    job_id: str | None
    bucket: str | None
    sequence: int | None
    state: str
    title: str
    text: str
    file: str | None = None
    happened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A digest that is due: what it is for, and what it holds.

    `first` are up to MOST_COUNTED members of each state; `counts` has "" for members without one.
    """

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

    def of(self, state: str) -> list[Member]:
        return [member for member in self.first if member.state == state]


def digest_delivery(
    digest: Digest,
    silence: Silence | None,
    *,
    now: datetime,
    note: str | None = None,
    links: Links = NO_LINKS,
    mention: tuple[str, ...] = (),
    language: Language = ENGLISH,
) -> NewDelivery:
    """Return the delivery of a digest: it belongs to no job, and so to no order and no thread."""
    message_id = ident("msg", "digest", digest.gate, digest.name, digest.notifier, digest.origin)
    id_ = delivery_id(message_id, digest.notifier)
    states = worst_first(digest.counts)
    message = Message(
        id=message_id,
        kind="digest",
        title=cut(_title(digest, silence, states, language)),
        text=_text(digest, states[:_MOST_STATES], language),
        fields=(),
        event=_event(digest, silence, links.digest(id_)),
        rule=digest.name if digest.gate in ("group", "throttle") else None,
        public_url=links.base,
        file=digest.first[0].file if digest.total == 1 and digest.first else None,
        mention=mention,
        language=language.tag,
        happened_at=min(digest.due_at, now),
    )
    return NewDelivery(
        id=id_, message=message, notifier=digest.notifier, ordering_key=None, channel=digest.channel, note=note
    )


# --- title and text -------------------------------------------------------------------------------------------------


def _title(digest: Digest, silence: Silence | None, states: Sequence[str], language: Language) -> str:
    say, facts = language.say, {"n": digest.total, "name": digest.name}
    match digest.gate:
        case "fallback":
            return _not_delivered(digest, language)
        case "group":
            common = ", ".join(f"{field} {value or say('none')}" for field, value in digest.by.items())
            what = f"{digest.name} ({common})" if common else digest.name
        case "throttle":
            what = say("... and {n:,} more by {name}", **facts)
        case "mute":
            what = say('{n:,} held by the mute "{name}", now over', **facts)
        case "flood":
            what = say("{n:,} more messages for this channel within a minute", **facts)
        case _:
            what = say("A silence is over, {n:,} held", **facts)
            if silence:
                facts |= {"who": silence.author, "reason": silence.reason}
                what = say("The silence by {who} ({reason}) is over, {n:,} held", **facts)
    counts = [
        f"{digest.counts[state]:,} {language.state(state) if state else say('digests')}"
        for state in states[:_MOST_STATES]
    ]
    if rest := sum(digest.counts[state] for state in states[_MOST_STATES:]):
        counts.append(say("{n:,} others", n=rest))
    return f"{what}: {', '.join(counts)}"


def _not_delivered(digest: Digest, language: Language) -> str:
    what = language.say("{n:,} messages", n=digest.total)
    if digest.total == 1 and digest.first:
        what = digest.first[0].file or digest.first[0].title
    reason = digest.by.get("reason") or language.say("no reason")
    return language.say("Not delivered to {name} ({reason}): {what}", name=digest.name, reason=reason, what=what)


def _text(digest: Digest, states: Sequence[str], language: Language) -> str:
    """Quote the first of each state, equal reasons as one line, as many as there is room for; count the others.

    What went well is only quoted where nothing else did not.
    """
    states = [state for state in states if state != SUCCESS] or states
    why = digest.by.get("why") if digest.gate == "fallback" else None
    lines = [cut(why, _LONGEST_LINE)] if why else []
    size, told = sum(map(_size, lines)), 0
    for line, count in (found for state in states for found in _lines(digest.of(state), language)):
        if size + _size(line) > _LONGEST_TEXT:
            break
        lines.append(line)
        size, told = size + _size(line), told + count
    more = [language.say("... and {n:,} more", n=digest.total - told)] if digest.total > told else []
    return "\n".join(lines + more)


def _size(line: str) -> int:
    return len(escape(line)) + 1 + _LONGER_BY


def _lines(members: Sequence[Member], language: Language) -> Iterator[tuple[str, int]]:
    """Yield the lines about members of one state, and how many each is about; the most frequent reason first."""
    same: dict[str | int, list[Member]] = defaultdict(list)
    for n, member in enumerate(members):
        said = " ".join(member.text.split()) if member.state in _HAVE_REASONS else ""
        same[said or n].append(member)
    for reason, equal in sorted(same.items(), key=lambda one: -len(one[1]))[:FIRST]:
        yield (_one(equal[0]) if len(equal) == 1 else _several(str(reason), equal, language)), len(equal)


def _one(member: Member) -> str:
    said = " ".join(f"{member.title} - {member.text}".split()).removesuffix(" -")
    return f"• {iso(member.happened_at)} {cut(said, _LONGEST_LINE)}"


def _several(reason: str, equal: Sequence[Member], language: Language) -> str:
    files = [cut(member.file, _LONGEST_FILE) for member in equal[:_MOST_FILES] if member.file]
    named = ", ".join(files)
    if files and len(equal) > len(files):
        named = language.say("{files} and {n:,} more", files=named, n=len(equal) - len(files))
    since = iso(min(member.happened_at for member in equal))
    facts = {"n": len(equal), "reason": cut(reason.rstrip("."), _LONGEST_LINE), "since": since}
    same = language.say("{n:,} x {reason}, since {since}", **facts)
    return f"• {same}: {named}" if named else f"• {same}"


# --- the event ------------------------------------------------------------------------------------------------------


def _event(digest: Digest, silence: Silence | None, url: str | None) -> dict[str, Any]:
    members = [_facts(member) for state in digest.counts for member in digest.of(state)[:FIRST]]
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
        "sequence": numbered(member.sequence or 0),
        "state": member.state,
        "title": cut(member.title, _LONGEST_LINE),
        "time": iso(member.happened_at),
        "href": f"/api/v1/jobs/{member.job_id}" if member.job_id else None,
    }
