"""Messages, with the events that webhooks get; and the delivery of a message to one notifier."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.rules.matching import LevelEvent
from bridge.decide.rules.picks import Choice
from bridge.decide.rules.rulebook import MessageTemplate
from bridge.decide.templates.functions import LANGUAGE, LINKS, Names, TemplateFault, variables
from bridge.decide.templates.rendering import Template, rendered, value
from bridge.decide.text.times import iso
from bridge.decide.text.values import CUT_MARK, LONGEST_TEXT, basename, cut, ident, shown
from bridge.language import ENGLISH, NOT_SENT_TO, Language, language_of
from bridge.links import NO_LINKS, Links
from bridge.model import (
    DONE,
    FAILED,
    GONE,
    NEW,
    OUTPUTS_KEPT,
    RUNNING,
    SUBMITTED,
    Hold,
    Job,
    Message,
    NewDelivery,
    Silence,
    Transition,
)
from bridge.notifiers import Notifier

# --- the event: the body that a webhook gets, less `specversion` and `id` -------------------------------------------

LARGEST_EVENT = 20_000  # bytes; Standard Webhooks 1.0.0 recommends less than 20 kB


def event(
    transition: Transition,
    rule: str | None,
    queue_names: Mapping[str, str],
    *,
    level_event: LevelEvent | None = None,
    links: Links = NO_LINKS,
) -> dict[str, Any]:
    """Return the event of a transition, or of a time in state that a level rule is about."""
    job, kind = transition.job, re.sub(r"[^a-z0-9]+", "_", transition.to.lower())
    data: dict[str, Any] = {
        "from": transition.was,
        "to": transition.to,
        "seen_at": iso(transition.seen_at),
        "late_seconds": _whole(_late_seconds(transition, level_event)),
        "inferred": transition.inferred,
        "rule": rule,
        "watch": transition.watch,
        "url": links.job(job.id),
    }
    if level_event:
        kind = "recovered" if level_event.recovered else "overdue"
        data |= {
            "in": level_event.state,
            "since": iso(level_event.since),
            "for_seconds": _whole(level_event.after.total_seconds()),
            "repeated": level_event.count,
        }
    body = envelope(
        f"job.{kind}",
        source=f"//{job.bucket}.ci.{job.region}.myqcloud.com/jobs",
        subject=job.id,
        time=happened_at(transition, level_event),
        sequence=transition.sequence,
        data=data | {"job": _job_facts(transition, queue_names)},
    )
    return _fitted(body)


def envelope(
    kind: str, *, source: str, subject: str, time: datetime, data: Mapping[str, Any], sequence: int = 1
) -> dict[str, Any]:
    when = iso(time)
    return {
        "source": source,
        "type": f"ci.{kind}",
        "subject": subject,
        "time": when,
        "timestamp": when,
        "sequence": numbered(sequence),
        "datacontenttype": "application/json",
        "data": data,
    }


def numbered(sequence: int) -> str:
    """Return a number as CloudEvents' `sequence`, which sorts as text (its sequence extension 1.0.2)."""
    return f"{sequence:010}"


def happened_at(transition: Transition, level_event: LevelEvent | None) -> datetime:
    """Return when a transition happened, or when a time in state became too long (or was seen to be so again)."""
    if level_event is None or level_event.recovered:
        return transition.happened_at
    return transition.seen_at if level_event.again else level_event.since + level_event.after


def _late_seconds(transition: Transition, level_event: LevelEvent | None) -> float | None:
    if level_event is None or level_event.recovered:
        return transition.late_seconds
    return max(0.0, (transition.seen_at - happened_at(transition, level_event)).total_seconds())


def _job_facts(transition: Transition, queue_names: Mapping[str, str]) -> dict[str, Any]:
    job = transition.job
    seconds = job.seconds(transition.seen_at)
    return {
        "id": job.id,
        "tag": job.tag,
        "state": transition.to,
        "queue": job.queue,
        "queue_name": queue_names.get(job.queue or ""),
        "bucket": job.bucket,
        "region": job.region,
        "code": job.code,
        "message": _cut(job.message),
        "progress": job.progress,
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "ended_at": iso(job.ended_at),
        "wait_seconds": _whole(seconds["wait"]),
        "duration_seconds": _whole(seconds["duration"]),
        "input": _cut(job.input),
        "outputs": [cut(name) for name in job.outputs[:OUTPUTS_KEPT]],
        "outputs_total": job.outputs_total,
        "template": job.template,
        "workflow": job.workflow,
        "user_data": _cut(job.user_data),
    }


def _fitted(body: dict[str, Any]) -> dict[str, Any]:
    """Shorten the list of outputs, then the texts, until the whole is small enough; outputs_total stays true."""
    facts = body["data"]["job"]
    while size_of(body) > LARGEST_EVENT and facts["outputs"]:
        facts["outputs"] = facts["outputs"][:-1]
    limit = LONGEST_TEXT
    while size_of(body) > LARGEST_EVENT and limit > len(CUT_MARK):
        limit //= 2
        body["data"]["job"] = facts = {k: cut(v, limit) if isinstance(v, str) else v for k, v in facts.items()}
    return body


def size_of(body: Mapping[str, Any]) -> int:
    return len(json.dumps(body, ensure_ascii=False).encode()) + 100  # specversion and id come on top


def _cut(text: str | None) -> str | None:
    return text and cut(text)


def silence_over(silence: Silence, language: Language) -> str:
    """Say that a silence has ended, whose it was and why."""
    facts = {"who": silence.author, "reason": silence.reason}
    return language.say("The silence by {who} ({reason}) is over.", **facts)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


# --- what one notifier alone is sent: a body of its own, or a channel that the job names ----------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PerNotifier:
    """What a message is for one notifier alone; what is None is as for any other."""

    body: str | None = None
    channel: str | None = None
    note: str | None = None  # why it comes to this channel
    fault: str | None = None  # why a template did not render


def per_notifier(notifier: Notifier, names: Names) -> PerNotifier:
    """Return what the notifier's own templates make of a message."""
    if notifier.body:
        try:
            return PerNotifier(body=notifier.body(names))
        except TemplateFault as error:
            return PerNotifier(fault=f"body: {error}")
    if not notifier.channel_template:
        return FOR_ANY
    channels = notifier.channels
    try:
        wanted = notifier.channel_template(names)
    except TemplateFault as error:
        return PerNotifier(channel=channels[0], fault=f"channel: {error}")
    if wanted in channels:
        return PerNotifier(channel=wanted)
    if not wanted:
        return PerNotifier(channel=channels[0])
    language: Language = names.get(LANGUAGE, ENGLISH)
    note = language.say("meant for channel {channel}, which is not among channels", channel=shown(wanted))
    return PerNotifier(channel=channels[0], note=note)


FOR_ANY = PerNotifier()


def body_text(tree: Mapping[str, Any], names: Names | None) -> str:
    """Return a [notifier.NAME.body] as compact JSON of at most LARGEST_EVENT bytes.

    Without names only its constant texts are rendered, as they are for every job. Raises TemplateFault saying which
    key.
    """
    text = json.dumps(_rendered(tree, (), names), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if (size := len(text.encode())) > LARGEST_EVENT:
        raise TemplateFault(f"it has {size:,} bytes of JSON; the limit is {LARGEST_EVENT:,}")
    return text


def _rendered(tree: Any, path: tuple[str | int, ...], names: Names | None) -> Any:
    match tree:
        case dict():
            return {key: _rendered(item, (*path, key), names) for key, item in tree.items()}
        case list():
            return [_rendered(item, (*path, at), names) for at, item in enumerate(tree)]
        case Template():
            try:
                return tree.constant if names is None else value(tree, names)
            except TemplateFault as error:
                raise TemplateFault(f"at {shown('.'.join(map(str, path)))}: {error}") from error
    return tree


# --- deliveries -----------------------------------------------------------------------------------------------------


def delivery_id(message: str, notifier: str) -> str:
    return ident("dlv", message, notifier)


def delivery_to(
    message: Message, notifier: Notifier, *, note: str | None = None, own: PerNotifier = FOR_ANY
) -> NewDelivery:
    """Return the delivery of a message to one notifier."""
    thread = notifier.thread_of(message)
    order = None
    if notifier.keeps_order:  # a thread has one first message, so what shares a thread goes one after the other too
        order = thread or _subject(message)
    return NewDelivery(
        id=delivery_id(message.id, notifier.name),
        message=message,
        notifier=notifier.name,
        ordering_key=order,
        # A conversation is in one channel.
        thread=f"{own.channel}/{thread}" if thread and own.channel else thread,
        note=" ".join(filter(None, (note, own.note))) or None,
        body=own.body,
        channel=own.channel,
    )


def _subject(message: Message) -> str | None:
    """Return what messages are kept in order about: an incident of several jobs, or a job."""
    if message.is_of_several:
        return f"incident/{message.incident}"
    return f"{message.bucket}/{message.job_id}" if message.job_id else None


def as_fallback(message: Message, dead: str, why: str, notifier: Notifier, own: PerNotifier = FOR_ANY) -> NewDelivery:
    """Return the delivery to a fallback of a message that could not be sent to the notifier `dead`."""
    note = f"{language_of(message.language).say(NOT_SENT_TO)}{dead}: {why}"
    delivery = delivery_to(message, notifier, note=note, own=own)
    return replace(delivery, id=ident("dlv", message.id, dead, notifier.name))


def undeliverable(message: Message, choice: Choice) -> NewDelivery:
    """Return the dead letter of a message for which a pick found no notifier."""
    return replace(delivery_to(message, Notifier(name=choice.pick)), dead=choice.why)


_GATHERED_FOR = timedelta(seconds=10)
_LONGEST_WHY = 300  # characters
_LONGEST_REASON = 60


def gathered(dead: str, why: str, *, status: int | None, now: datetime) -> Hold:
    """Return what collects the messages that the notifier `dead` did not get for one reason, for a short time."""
    reason = str(status) if status and status >= 300 else cut(why.partition(": ")[0], _LONGEST_REASON)
    label = json.dumps([["reason", reason], ["why", cut(why, _LONGEST_WHY)]], ensure_ascii=False)
    return Hold(gate="fallback", name=dead, until=now + _GATHERED_FOR, key=ident("key", reason), label=label)


# --- messages -------------------------------------------------------------------------------------------------------

UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A message, what its templates were given, and why they fell back to the default text, if they did."""

    message: Message
    names: Names
    fault: str | None = None


def build(
    transition: Transition,
    rule: str | None,
    template: MessageTemplate,
    queue_names: Mapping[str, str],
    *,
    zone: ZoneInfo = UTC,
    level_event: LevelEvent | None = None,
    links: Links = NO_LINKS,
    mention: tuple[str, ...] = (),
    language: Language = ENGLISH,
) -> Built:
    """Return the message of a transition, or of the time in state that it began (or ended, if that is `recovered`).

    Without a rule it is sent manually. That a job has recovered mentions nobody.
    """
    recovered = level_event and level_event.recovered
    in_state = level_event is not None and not recovered
    names = variables(transition, rule, queue_names, zone=zone, links=links, in_state=in_state, language=language)
    if recovered:  # a text that says what is wrong does not fit its end
        template = replace(template, title=None, text=None)
    title, text, fault = _of_template(template, names)
    if not text and (fault or not template.text):
        text = default_text(transition, level_event, language)
    title = cut(title or default_title(transition, level_event, language))
    message = Message(
        id=_message_id(transition, rule, level_event),
        kind=level_event.kind if level_event else "transition",
        title=language.say("{title} (inferred)", title=title) if transition.inferred else title,
        text=cut(text),
        fields=_fields(template.fields, names["job"], language),
        event=event(transition, rule, queue_names, level_event=level_event, links=links),
        bucket=transition.job.bucket,
        job_id=transition.job.id,
        workflow_run=transition.job.workflow_run,
        sequence=transition.sequence,
        state=transition.to,
        rule=rule,
        public_url=links.base,
        file=file_of(transition.job),
        mention=() if recovered else mention,
        links=tuple(names[LINKS]),
        language=language.tag,
        happened_at=happened_at(transition, level_event),
    )
    return Built(message=message, names=names, fault=fault)


def _of_template(template: MessageTemplate, names: Names) -> tuple[str, str, str | None]:
    """Return title and text, "" where the template says none, and why it did not render, if it did not."""
    try:
        title, text = (rendered(part, names) if part else "" for part in (template.title, template.text))
    except TemplateFault as error:
        return "", "", str(error)
    return title, text, None


def _message_id(transition: Transition, rule: str | None, level_event: LevelEvent | None) -> str:
    """Return the id, made from what happened: the same thing seen again has the same one.

    A job ends once, so how many transitions led there is no part of that: a database restored from a backup counts
    others. A level rule's message is about the transition that began the time in state, which may come again.
    """
    by = ("", "by hand") if rule is None else (rule,)  # no rule has no name
    number = () if transition.to in DONE else (str(transition.sequence),)
    parts = (transition.job.bucket, transition.job.id, *number, transition.to, *by)
    return ident("msg", *parts, *((level_event.kind, str(level_event.count)) if level_event else ()))


def default_title(transition: Transition, level_event: LevelEvent | None = None, language: Language = ENGLISH) -> str:
    job = transition.job
    facts = {"tag": job.tag or language.say("Job"), "state": language.state(transition.to), "file": file_of(job)}
    if level_event is None:
        return language.say("{tag} {state}: {file}", **facts)
    until = transition.happened_at if level_event.recovered else transition.seen_at
    lasted = language.span(max(0.0, (until - level_event.since).total_seconds()))
    facts |= {"lasted": lasted, "left": language.state(level_event.state)}
    if level_event.recovered:
        return language.say("{tag} {state} after {lasted} {left}: {file}", **facts)
    if level_event.again:
        return language.say("{tag} still {left} for {lasted}: {file}", **facts)
    return language.say("{tag} {left} for {lasted}: {file}", **facts)


_SHORT_ID = 8


def file_of(job: Job) -> str:
    """Return what people call a job: the name of its input, else the beginning of its id."""
    return basename(job.input or "") or job.id[:_SHORT_ID]


def default_text(transition: Transition, level_event: LevelEvent | None = None, language: Language = ENGLISH) -> str:
    """Say in one line what a person wants to know first."""
    say, job, was = language.say, transition.job, language.state(transition.was)
    if level_event and not level_event.recovered:
        return _overdue(level_event, job.progress, language)
    if transition.to == FAILED:
        return _reason(job, language)
    if transition.to == GONE:
        return say("CI no longer knows this job; it was {was} when last seen.", was=was)
    spans = job.seconds(transition.seen_at)
    took, waited = (None if spans[name] is None else language.span(spans[name]) for name in ("duration", "wait"))
    if job.ended_at and took and not transition.inferred:
        facts = {"took": took, "waited": waited}
        return say("took {took} after waiting {waited}", **facts) if waited else say("took {took}", **facts)
    if transition.inferred and transition.to == SUBMITTED:
        return say("was submitted at {time}", time=iso(job.created_at))
    if transition.to == RUNNING and job.started_at and waited:
        return say("started after waiting {waited}", waited=waited)
    return say("seen for the first time") if transition.was == NEW else say("was {was} before", was=was)


def _overdue(level_event: LevelEvent, progress: int | None, language: Language) -> str:
    facts: dict[str, object] = {
        "state": language.state(level_event.state),
        "since": iso(level_event.since),
        "limit": language.span(level_event.after.total_seconds()),
        "progress": progress,
    }
    if progress is None:
        return language.say("{state} since {since}; the rule allows {limit}", **facts)
    return language.say("{state} since {since}; the rule allows {limit}; {progress} % done", **facts)


def _reason(job: Job, language: Language) -> str:
    if not job.code or job.code in (job.message or ""):
        return job.message or language.say("CI gave no reason.")
    if job.message:
        return f"{job.message} ({job.code})"
    return language.say("CI gave no reason but {code}.", code=job.code)


def _fields(names: tuple[str, ...], job: Mapping[str, Any], language: Language) -> tuple[tuple[str, str], ...]:
    texts = ((name, _field_text(job.get(f"{name}_name") or job.get(name), language)) for name in names)
    return tuple((name, cut(text)) for name, text in texts if text)


def _field_text(value: object, language: Language) -> str:
    match value:
        case None:
            return ""
        case float():
            return language.span(value)  # only spans of time are floats
        case datetime():
            return iso(value) or ""
        case list():
            return ", ".join(value)
    return str(value)


def test_message(
    notifier: str,
    *,
    nonce: str,
    now: datetime,
    links: Links = NO_LINKS,  # noqa: PT028  (no test)
    language: Language = ENGLISH,  # noqa: PT028
) -> Message:
    """Return the message of `notifier test`: it says that it is one, and takes the same way as any other."""
    return Message(
        id=ident("msg", "test", notifier, nonce),
        kind="test",
        title=language.say("Test of notifier {notifier}", notifier=notifier),
        text=language.say("This is a test from ci-bridge. If you can read it, deliveries arrive here."),
        fields=(),
        event=envelope(
            "test",
            source="//ci-bridge/test",
            subject=notifier,
            time=now,
            data={"test": True, "notifier": notifier, "url": links.overview()},
        ),
        public_url=links.base,
        language=language.tag,
        happened_at=now,
    )
