"""What a delivery says in a chat, whatever the chat: piece by piece, and written in a chat's markup. Pure."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.display import MARK, visible
from bridge.language import ENGLISH, NOT_SENT_TO, Language, in_each, language_of
from bridge.links import Links
from bridge.model import (
    CANCEL,
    FAILED,
    GONE,
    PAUSE,
    RUNNING,
    SUBMITTED,
    SUCCESS,
    Delivery,
    worst_first,
)
from bridge.send.integration import Piece

_FIELDS = 10
_MOST_MENTIONED = 20
_SHORT_ID = 8  # characters

LATE = timedelta(minutes=5)

_STATES = {
    SUBMITTED: "🕓", RUNNING: "▶️", PAUSE: "⏸️", SUCCESS: "✅", FAILED: "❌", CANCEL: "🚫", GONE: "👻",
}  # fmt: skip
_STUCK, _RECOVERED, _LATE, _NOT_DELIVERED, _TEST, _DIGEST, _UNKNOWN = "⏳", "🔄", "🕰️", "⚠️", "🧪", "📋", "❓"
_BLIND = "🔌"
_OPEN, _ACKNOWLEDGED, _CLOSED = "🔴", "🟡", "🟢"  # incidents
_NOT_SENT_TO = in_each(NOT_SENT_TO)
_BULLET = "• "  # begins a line of an incident's text that names a job


def lateness(happened_at: datetime, now: datetime, language: Language = ENGLISH) -> str | None:
    """Return the sentence which says that a message is late, if it is."""
    late = now - happened_at
    if late <= LATE:
        return None
    at = happened_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    span = language.span(late.total_seconds() // 60 * 60)
    return language.say("Delivered late: this happened at {time}, {span} ago.", time=at, span=span)


def perhaps_repeated(delivery: Delivery) -> Delivery:
    """Let a delivery say that it may have arrived before."""
    language = language_of(json.loads(delivery.says).get("language"))
    note = language.say("An earlier attempt was not answered, so this may be a repetition.")
    return replace(delivery, note=" ".join(filter(None, (delivery.note, note))))


# --- what a message says, piece by piece ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A delivery as it is shown: says, event and links of this bridge's pages."""

    delivery: Delivery
    says: Mapping[str, Any]
    event: Mapping[str, Any]
    lateness: str | None
    links: Links
    language: Language = ENGLISH
    data: Mapping[str, Any] = field(default_factory=dict)  # of the event
    job: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, delivery: Delivery, now: datetime) -> Shown:
        says, event = json.loads(delivery.says), json.loads(delivery.event)
        data = event.get("data") or {}
        language = language_of(says.get("language"))
        return cls(
            delivery=delivery,
            says=says,
            event=event,
            lateness=lateness(delivery.happened_at, now, language),
            links=Links(says.get("public_url")),
            language=language,
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
        if self.is_fallback or (self.delivery.note or "").startswith(_NOT_SENT_TO):
            return _NOT_DELIVERED
        if kind == "ci.test":
            return _TEST
        if self.is_blind:
            return _BLIND
        if kind == "ci.watch.sees":
            return _RECOVERED
        if kind == "ci.job.overdue":
            return _STUCK
        if text_of(kind).startswith("ci.incident."):
            return self._progress
        if kind == "ci.job.recovered" and state not in (FAILED, CANCEL, GONE):
            return _RECOVERED
        if counts := self._counts or self.data.get("states"):
            state = worst_first(counts)[0]
        return _STATES.get(state or "", _DIGEST if self._is_digest else _UNKNOWN)

    @property
    def is_blind(self) -> bool:
        return self.event.get("type") == "ci.watch.blind"

    @property
    def is_open_incident(self) -> bool:
        """Whether it is about an incident of which nobody takes care yet."""
        is_of_one = text_of(self.event.get("type")).startswith("ci.incident.")
        return is_of_one and not (self.data.get("closed_at") or self.data.get("acknowledged_by"))

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
    def is_fallback(self) -> bool:
        return self._is_digest and self.data.get("gate") == "fallback"

    @property
    def _job_id(self) -> str | None:
        """The job that it is about; of a digest with one member that one's, of a workflow the last that changed."""
        members = self.data.get("members") or [] if self.data.get("members_total") == 1 else []
        return self.says.get("job_id") or next((member.get("job") for member in members), self.job.get("id"))

    @property
    def title(self) -> list[Piece]:
        """The title, in which the name of the job's file is a link to the job's page."""
        text = " ".join(text_of(self.says.get("title")).split()) or self.language.say("(no title)")
        parts = pieces(text, self._template_links)
        has_link = any(part.url for part in parts)
        if url := self.links.job(self._job_id) if self._job_id and not has_link else None:
            name = text_of(self.says.get("file")) or text
            before, found, after = text.rpartition(name)
            parts = [Piece(before), Piece(name, url=url), Piece(after)] if found else [Piece(text, url=url)]
        return parts

    # --- below it -------------------------------------------------------------------------------------------

    @property
    def body(self) -> list[Piece]:
        text = text_of(self.says.get("text"))
        if self._counts:
            counts = " · ".join(
                f"{self._counts[state]:,} {self.language.state(state)}" for state in worst_first(self._counts)
            )
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
        return below(*lines)

    @property
    def _template_links(self) -> list[tuple[str, str]]:
        return [(str(label), str(url)) for label, url in self.says.get("links") or ()]

    @property
    def steps(self) -> list[Piece]:
        """What can be done, where that is known."""
        say, steps = self.language.say, list[tuple[str, str | None]]()
        if self._is_digest and (total := self.data.get("members_total") or 0) > 1:
            steps.append((say("All {n:,} messages", n=total), self.links.digest(self.delivery.id)))
        if self.is_fallback:
            name = text_of(self.data.get("name"))
            steps.append((say("Resend what {name} did not get", name=name), self.links.dead_letters(name)))
        if incident := self.says.get("incident"):
            steps.append((say("Open the incident"), self.links.incident(text_of(incident))))
        if self.is_stuck and self._job_id:
            steps += [(say("Open the job"), self.links.job(self._job_id)), self._silence]
        return _row([Piece(label, url=url) for label, url in steps if url])

    @property
    def is_stuck(self) -> bool:
        return self.event.get("type") == "ci.job.overdue"

    @property
    def _is_of_watch(self) -> bool:
        return text_of(self.event.get("type")).startswith("ci.watch.")

    @property
    def silenced_by(self) -> str | None:
        """The rule of which a silence would hold what is like this; no silence holds what is about a watch."""
        return None if self._is_of_watch else self.says.get("rule")

    @property
    def _silence(self) -> tuple[str, str | None]:
        rule = self.silenced_by
        return self.language.say("Silence this rule"), self.links.silence(rule) if rule else None

    @property
    def mentions(self) -> list[str]:
        """Whom it calls, as `mention` of its rule names them."""
        return list(map(text_of, (self.says.get("mention") or [])[:_MOST_MENTIONED]))

    def called(self, tool: str) -> list[str]:
        """Return the ids, of this type of notifier, of the people that it calls."""
        return [id_ for kind, _, id_ in (who.partition(":") for who in self.mentions) if kind == tool]

    @property
    def calls_everybody(self) -> bool:
        return any(who in ("here", "channel") for who in self.mentions)

    @property
    def fields(self) -> list[tuple[str, list[Piece]]]:
        """The names and values below the text."""
        return [
            (text_of(name) or "-", pieces(text_of(value))) for name, value in (self.says.get("fields") or [])[:_FIELDS]
        ]

    @property
    def notes(self) -> list[list[Piece]]:
        """That it is late, and why it comes so."""
        return [pieces(text) for text in (self.lateness, self.delivery.note) if text]

    @property
    def footer(self) -> list[Piece]:
        """Which rule, which queue, how long it took, the job's short id, and how to hear no more of it."""
        queue = self.job.get("queue_name") or text_of(self.job.get("queue"))[:_SHORT_ID] or self.data.get("queue_name")
        of_job = () if self._counts else (*self._spans, text_of(self.says.get("job_id"))[:_SHORT_ID])
        texts = (self.says.get("rule"), queue, *of_job)
        console = (self.language.say("CI console"), self._console)
        steps = [console] if self.is_stuck else [self._silence, console]
        return _row(
            [Piece(text_of(text)) for text in texts if text] + [Piece(label, url=url) for label, url in steps if url]
        )

    @property
    def _console(self) -> str | None:
        bucket, region = self.job.get("bucket"), self.job.get("region")
        return self.links.console(bucket=bucket, region=region) if bucket and region else None

    @property
    def _spans(self) -> Iterator[str]:
        """Yield how long the job took, and waited, unless the text says so."""
        text, language = text_of(self.says.get("text")), self.language
        took, waited = self.job.get("duration_seconds"), self.job.get("wait_seconds")
        if took is not None and self.job.get("ended_at"):
            said = language.say("took {took}", took=language.span(took))
            yield from [said] if said not in text else []
        if waited is not None and self.job.get("started_at"):
            span = language.span(waited)
            said = language.say("after waiting {waited}", waited=span)
            yield from [language.say("waited {waited}", waited=span)] if said not in text else []


def _row(parts: Sequence[Piece]) -> list[Piece]:
    """Return pieces one beside the other."""
    return [piece for part in parts for piece in (Piece(" · "), part)][1:]


def below(*lines: Sequence[Piece]) -> list[Piece]:
    """Return lines one below the other, without empty ones."""
    return [piece for line in lines if line for piece in (Piece("\n"), *line)][1:]


# --- texts in pieces ------------------------------------------------------------------------------------------------

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


def text_of(value: Any) -> str:
    return "" if value is None else str(value)


# --- written in a chat's markup -------------------------------------------------------------------------------------

_LONGEST_URL = 500
_SHORTEST_LABEL = 24
_LONGEST_NAME = 100  # of a field


class Markup(ABC):
    """How a chat's markup writes what a message says. `size` counts as the chat's limits do: here in bytes."""

    @abstractmethod
    def escaped(self, character: str) -> str:
        """Return a character of a text, so that it is no markup."""

    @abstractmethod
    def link(self, label: str, url: str) -> str:
        """Return a link; `label` is escaped."""

    @abstractmethod
    def bold(self, text: str) -> str:
        """Return a text in bold; it is in this markup."""

    def size(self, text: str) -> int:
        return len(text.encode())

    def escape(self, text: str) -> str:
        return "".join(map(self.escaped, visible(text, lines=True)))

    def tokens(self, part: Piece) -> Iterable[str]:
        """Return what is not to be cut of a piece: a link, a time, or each character of a text."""
        if url := _url(part):
            return [self.link(self.escape(_label(part)), url)]
        if part.at:
            return [f"{part.at.astimezone(UTC):%Y-%m-%d %H:%M:%S UTC}"]
        return map(self.escaped, visible(part.text, lines=True))


# Signs of Markdown, and others that look alike.
_INSTEAD = str.maketrans({"[": "［", "]": "］", "<": "＜", ">": "＞", "*": "＊", "`": "｀"})


class Markdown(Markup):
    """Markdown of tools that say of no way to escape its signs: others that look alike stand in their place."""

    def escaped(self, character: str) -> str:
        return character.translate(_INSTEAD)

    def link(self, label: str, url: str) -> str:
        return f"[{label}]({url.replace('(', '%28').replace(')', '%29')})"

    def bold(self, text: str) -> str:
        return f"**{text}**"


class _Plain(Markup):
    def escaped(self, character: str) -> str:
        return character

    def link(self, label: str, url: str) -> str:  # noqa: ARG002 - there are no links
        return label

    def bold(self, text: str) -> str:
        return text


def _label(part: Piece) -> str:
    return " ".join(part.text.split())


def _url(part: Piece) -> str:
    """Return where a piece leads; "" if it is no link, or too long a one."""
    return "%20".join(part.url.split()) if part.url and len(part.url) <= _LONGEST_URL else ""


def written(parts: Iterable[Piece], limit: int, markup: Markup) -> str:
    """Return pieces in a markup, at most `limit` long: then "…" ends them, or the label of a link.

    No URL or character is cut in two.
    """
    made, room = list[str](), limit
    fits = 0  # of `made`, with the mark behind them
    for piece in parts:
        for token in markup.tokens(piece):
            size = markup.size(token)
            if size > room:
                if short := _shortened(piece, room, markup):
                    return "".join([*made, short])
                return "".join(made[:fits]).rstrip(" \n\u200d") + (MARK if limit >= markup.size(MARK) else "")
            made.append(token)
            room -= size
            if room >= markup.size(MARK):
                fits = len(made)
    return "".join(made).strip()


def _shortened(part: Piece, room: int, markup: Markup) -> str:
    """Return a link with its label cut; "" if there is no room for one, or the piece is no link."""
    url = _url(part)
    left = room - markup.size(markup.link("", url))
    if not url or left < _SHORTEST_LABEL:
        return ""
    return markup.link(written([Piece(_label(part))], left, markup), url)


def plain_title(shown: Shown, limit: int) -> str:
    """Return the title without any markup, of at most so many bytes: for a list of chats."""
    return written([Piece(f"{shown.symbol} "), *shown.title], limit, _Plain())


def message(shown: Shown, limit: int, markup: Markup, *, end: Sequence[str] = (), between: str = "\n") -> str:
    """Return a message of at most `limit`: only the text is cut to make room for the rest, of which each part is short.

    `end`, in this markup, comes last: whom it calls, as many as fit.
    """
    title = markup.bold(written([Piece(f"{shown.symbol} "), *shown.title], limit // 5, markup))
    each = limit // 5 // max(1, len(shown.fields))
    fields = [written([Piece(f"{name[:_LONGEST_NAME]}: "), *value], each, markup) for name, value in shown.fields]
    notes = [written(note, limit // 12, markup) for note in shown.notes]
    steps, footer = (written(parts, limit // 10, markup) for parts in (shown.steps, shown.footer))
    below_text = [text for text in (*fields, *notes, steps, footer, _fitting(end, limit // 5, markup)) if text]
    room = limit - sum(markup.size(between + text) for text in (title, *below_text))
    text = written(shown.body, max(0, room), markup)
    return between.join([part for part in (title, text) if part] + below_text)


def _fitting(called: Sequence[str], limit: int, markup: Markup) -> str:
    """Return those whom it calls, as many as fit."""
    made = ""
    for who in called:
        if markup.size(f"{made} {who}") > limit:
            break
        made = f"{made} {who}".strip()
    return made


def previewed(shown: Shown) -> list[list[Piece]]:
    """Return the lines of a message as a page shows them."""
    title = [piece._replace(bold=True) for piece in (Piece(f"{shown.symbol} "), *shown.title)]
    fields = [[Piece(f"{name}: "), *value] for name, value in shown.fields]
    return [line for line in (title, shown.body, *fields, *shown.notes, shown.steps, shown.footer) if line]
