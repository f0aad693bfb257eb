"""How a delivery looks in Slack, and how that looks on a page. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.display import MARK, visible
from bridge.links import Links
from bridge.model import CANCEL, FAILED, GONE, NOT_SENT_TO, PAUSE, RUNNING, SUBMITTED, SUCCESS, Delivery, worst_first
from bridge.notifiers import SlackNotifier
from bridge.send.integration import PATH, Piece, Preview
from bridge.url import origin

Block = dict[str, Any]

# https://docs.slack.dev/reference/block-kit/blocks/section-block, read 2026-11-21: over-long means refused.
# About 13,000 characters in all is not documented; the sum of these stays under 12,000.
TEXT_LIMIT = 1000
TITLE_LIMIT = 300
SECTION_LIMIT = 3000
FIELDS = 10
FIELD_LIMIT = 2000
FIELDS_LIMIT = 5000
NOTE_LIMIT = 1000
FOOTER_LIMIT = 800
_LONGEST_URL = 500
_SHORTEST_LABEL = 8
_MOST_MENTIONED = 20
_SHORT_ID = 8  # characters

LATE = timedelta(minutes=5)

_STATES = {
    SUBMITTED: "🕓", RUNNING: "▶️", PAUSE: "⏸️", SUCCESS: "✅", FAILED: "❌", CANCEL: "🚫", GONE: "👻",
}  # fmt: skip
_STUCK, _RECOVERED, _LATE, _NOT_DELIVERED, _TEST, _DIGEST, _UNKNOWN = "⏳", "🔄", "🕰️", "⚠️", "🧪", "📋", "❓"
_BLIND = "🔌"
_OPEN, _ACKNOWLEDGED, _CLOSED = "🔴", "🟡", "🟢"  # incidents
_BULLET = "• "  # begins a line of an incident's text that names a job


def blocks(delivery: Delivery, now: datetime) -> tuple[str, list[Block]]:
    """Return the text of the notification and the blocks of the message."""
    seen = _Seen.of(delivery, now)
    title = seen.title(TITLE_LIMIT)
    steps = mrkdwn(seen.steps, FOOTER_LIMIT)
    made = [_section(_joined(f"{seen.symbol} *{title}*", seen.body, SECTION_LIMIT, end=steps))]
    if seen.mentions:
        made.append(_section(seen.mentions))
    if pairs := (seen.says.get("fields") or [])[:FIELDS]:
        made.append(_fields(pairs))
    notes = [mrkdwn(pieces(_str(text)), NOTE_LIMIT) for text in (seen.lateness, delivery.note)]
    made += [_context(text) for text in (*notes, mrkdwn(seen.footer, FOOTER_LIMIT)) if text]
    lines = _below(seen.body, seen.steps)
    return _joined(f"{seen.symbol} {title}", lines, TEXT_LIMIT, end=seen.mentions, dates=False), made


def plain(delivery: Delivery, now: datetime) -> str:
    """Return the message as one text, in case Slack refuses its blocks."""
    seen = _Seen.of(delivery, now)
    pairs = (seen.says.get("fields") or [])[:FIELDS]
    texts = [*(f"{_str(name)}: {_str(value)}" for name, value in pairs), _str(seen.lateness), _str(delivery.note)]
    lines = _below(seen.body, seen.steps, *map(pieces, texts), seen.footer)
    title = f"{seen.symbol} {seen.title(TITLE_LIMIT)}"
    return _joined(title, lines, SECTION_LIMIT, end=seen.mentions, dates=False)


def lateness(happened_at: datetime, now: datetime) -> str | None:
    """Return the sentence which says that a message is late, if it is."""
    late = now - happened_at
    if late <= LATE:
        return None
    at = happened_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"Delivered late: this happened at {at}, {_human(late.total_seconds() // 60 * 60)} ago."


# --- what a message says, piece by piece ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A delivery as it is shown: says, event and links of this bridge's pages."""

    delivery: Delivery
    says: Mapping[str, Any]
    event: Mapping[str, Any]
    lateness: str | None
    links: Links
    data: Mapping[str, Any] = field(default_factory=dict)  # of the event
    job: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, delivery: Delivery, now: datetime) -> _Seen:
        says, event = json.loads(delivery.says), json.loads(delivery.event)
        data = event.get("data") or {}
        return cls(
            delivery=delivery,
            says=says,
            event=event,
            lateness=lateness(delivery.happened_at, now),
            links=Links(says.get("public_url")),
            data=data,
            job=data.get("job") or {},
        )

    # --- the first line -------------------------------------------------------------------------------------

    @property
    def symbol(self) -> str:
        return f"{self._meaning}{_LATE}" if self.lateness else self._meaning

    @property
    def _meaning(self) -> str:
        kind, state = self.event.get("type"), self.says.get("state")
        if self._is_fallback or (self.delivery.note or "").startswith(NOT_SENT_TO):
            return _NOT_DELIVERED
        if kind == "ci.test":
            return _TEST
        if kind == "ci.watch.blind":
            return _BLIND
        if kind == "ci.watch.sees":
            return _RECOVERED
        if kind == "ci.job.overdue":
            return _STUCK
        if _str(kind).startswith("ci.incident."):
            return self._progress
        if kind == "ci.job.recovered" and state not in (FAILED, CANCEL, GONE):
            return _RECOVERED
        if counts := self._counts or self.data.get("states"):
            state = worst_first(counts)[0]
        return _STATES.get(state or "", _DIGEST if self._is_digest else _UNKNOWN)

    @property
    def _progress(self) -> str:
        """How far an incident is."""
        if self.data.get("closed_at"):
            return _CLOSED
        return _ACKNOWLEDGED if self.data.get("acknowledged_by") else _OPEN

    @property
    def _counts(self) -> Mapping[str, int]:
        """How many jobs are in each state, of a thread of several."""
        return self.says.get("counts") or {}

    @property
    def _is_digest(self) -> bool:
        return bool(self.says.get("digest"))

    @property
    def _is_fallback(self) -> bool:
        return self._is_digest and self.data.get("gate") == "fallback"

    @property
    def _job_id(self) -> str | None:
        """The job that it is about; of a digest with one member that one's, of a workflow the last that changed."""
        members = self.data.get("members") or [] if self.data.get("members_total") == 1 else []
        return self.says.get("job_id") or next((member.get("job") for member in members), self.job.get("id"))

    def title(self, limit: int) -> str:
        """Return the title, in which the name of the job's file is a link to the job's page."""
        text = " ".join(_str(self.says.get("title")).split()) or "(no title)"
        parts = pieces(text, self._template_links)
        has_link = any(part.url for part in parts)
        if url := self.links.job(self._job_id) if self._job_id and not has_link else None:
            name = _str(self.says.get("file")) or text
            before, found, after = text.rpartition(name)
            parts = [Piece(before), Piece(name, url=url), Piece(after)] if found else [Piece(text, url=url)]
            limit += len(_href(url) or "")  # which nobody sees
        return mrkdwn(parts, limit, dates=False)

    # --- below it -------------------------------------------------------------------------------------------

    @property
    def body(self) -> list[Piece]:
        text = _str(self.says.get("text"))
        if self._counts:
            counts = " · ".join(f"{self._counts[state]:,} {state}" for state in worst_first(self._counts))
            text = f"{counts}\n{text}" if text else counts
        return self._with_links_to_jobs(text) if self.says.get("jobs") else pieces(text, self._template_links)

    def _with_links_to_jobs(self, text: str) -> list[Piece]:
        """Return the text of an incident, in which each job's name is a link to its page."""
        lines, jobs = list[list[Piece]](), iter(self.says["jobs"])
        for line in text.split("\n"):
            name, job_id = next(jobs, ("", "")) if line.startswith(_BULLET) else ("", "")
            before, found, after = line.partition(f": {name}") if name else (line, "", "")
            url = self.links.job(job_id) if found else None
            named = [*pieces(f"{before}: "), Piece(name, url=url), *pieces(after)]
            lines.append(named if url else pieces(line))
        return _below(*lines)

    @property
    def _template_links(self) -> list[tuple[str, str]]:
        return [(str(label), str(url)) for label, url in self.says.get("links") or ()]

    @property
    def steps(self) -> list[Piece]:
        """What can be done, where that is known."""
        steps: list[tuple[str, str | None]] = []
        if self._is_digest and (total := self.data.get("members_total") or 0) > 1:
            steps.append((f"All {total:,} messages", self.links.digest(self.delivery.id)))
        if self._is_fallback:
            name = _str(self.data.get("name"))
            steps.append((f"Resend what {name} did not get", self.links.dead_letters(name)))
        if incident := self.says.get("incident"):
            steps.append(("Open the incident", self.links.incident(_str(incident))))
        if self._is_stuck and self._job_id:
            steps += [("Open the job", self.links.job(self._job_id)), self._silence]
        return _row([Piece(label, url=url) for label, url in steps if url])

    @property
    def _is_stuck(self) -> bool:
        return self.event.get("type") == "ci.job.overdue"

    @property
    def _is_of_watch(self) -> bool:
        return _str(self.event.get("type")).startswith("ci.watch.")

    @property
    def _silence(self) -> tuple[str, str | None]:
        rule = self.says.get("rule") if not self._is_of_watch else None  # no silence holds what is about a watch
        return "Silence this rule", self.links.silence(rule) if rule else None

    @property
    def mentions(self) -> str:
        return " ".join(filter(None, map(_mention, (self.says.get("mention") or [])[:_MOST_MENTIONED])))

    @property
    def footer(self) -> list[Piece]:
        """Which rule, which queue, how long it took, the job's short id, and how to hear no more of it."""
        queue = self.job.get("queue_name") or _str(self.job.get("queue"))[:_SHORT_ID] or self.data.get("queue_name")
        of_job = () if self._counts else (*self._spans, _str(self.says.get("job_id"))[:_SHORT_ID])
        texts = (self.says.get("rule"), queue, *of_job)
        steps = [("CI console", self._console)] if self._is_stuck else [self._silence, ("CI console", self._console)]
        return _row(
            [Piece(_str(text)) for text in texts if text] + [Piece(label, url=url) for label, url in steps if url]
        )

    @property
    def _console(self) -> str | None:
        bucket, region = self.job.get("bucket"), self.job.get("region")
        return self.links.console(bucket=bucket, region=region) if bucket and region else None

    @property
    def _spans(self) -> Iterator[str]:
        """Yield how long the job took, and waited, unless the text says so."""
        text = _str(self.says.get("text"))
        took, waited = self.job.get("duration_seconds"), self.job.get("wait_seconds")
        if took is not None and self.job.get("ended_at") and f"took {_human(took)}" not in text:
            yield f"took {_human(took)}"
        if waited is not None and self.job.get("started_at") and f"waiting {_human(waited)}" not in text:
            yield f"waited {_human(waited)}"


def _row(parts: Sequence[Piece]) -> list[Piece]:
    """Return pieces one beside the other."""
    return [piece for part in parts for piece in (Piece(" · "), part)][1:]


def _below(*lines: Sequence[Piece]) -> list[Piece]:
    """Return lines one below the other, without empty ones."""
    return [piece for line in lines if line for piece in (Piece("\n"), *line)][1:]


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

_ISO = r"(?<![\w./-])\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z(?![\w/-]|\.\w)"  # not in a file's name


def pieces(text: str, links: Sequence[tuple[str, str]] = ()) -> list[Piece]:
    """Return a text in pieces: its times, the links that a template made ("label (URL)"), and what is between them."""
    known = {f"{label} ({url})": (label, url) for label, url in links}
    parts, end = [], 0
    for match in re.finditer("|".join([*map(re.escape, sorted(known, key=len, reverse=True)), _ISO]), text):
        label, url = known.get(match[0], (match[0], None))
        parts += [Piece(text[end : match.start()]), Piece(label, url=url, at=None if url else _moment(label))]
        end = match.end()
    return [part for part in (*parts, Piece(text[end:])) if part.text]


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # it only looks like a time
        return None


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


def _fields(pairs: list[list[Any]]) -> Block:
    limit = min(FIELD_LIMIT, FIELDS_LIMIT // len(pairs))
    return {"type": "section", "fields": [_mrkdwn(_field(name, value, limit)) for name, value in pairs]}


def _field(name: Any, value: Any, limit: int) -> str:
    bold = f"*{fit(_str(name), 100) or '-'}*\n"
    return bold + (mrkdwn(pieces(_str(value)), limit - len(bold)) or "-")


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_mrkdwn(text)]}


def _mrkdwn(text: str) -> Block:
    # Verbatim: addresses, @names and #names in CI's texts stay as they are and mention nobody.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _str(value: Any) -> str:
    return "" if value is None else str(value)


def _human(seconds: float) -> str:
    """Return "3 h 2 min": the two largest units."""
    left, parts = round(seconds), list[str]()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


# --- how a message looks on a page ----------------------------------------------------------------------------------

_BOLD = re.compile(r"([^*]*)\*(.+)\*")
_TOKEN = re.compile(r"<([^<>|]+)(?:\|([^<>]*))?>")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def preview(delivery: Delivery, notifier: SlackNotifier, *, at: datetime) -> Preview:
    """Return the message as its blocks show it."""
    text, made = blocks(delivery, at)
    channel = delivery.channel if delivery.channel in notifier.channels else notifier.channel
    address = channel if channel and not notifier.url else f"{origin(notifier.url or '')}{PATH}"
    lines = [_read_text(line) for block in made for line in _texts(block)]
    return Preview(app="Slack", address=address, lines=lines, body=text)


def _texts(block: Block) -> list[str]:
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
