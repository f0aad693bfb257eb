"""How a message is made of a transition: whom it is for, under which id, with which body and channel of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from bridge.decide.messages.event import LARGEST_EVENT, event, numbered
from bridge.decide.rules.matching import Stay
from bridge.decide.rules.rulebook import Wording
from bridge.decide.templates.functions import Names, TemplateFault, variables
from bridge.decide.templates.rendering import Template, rendered, value
from bridge.decide.text.facts import basename, ident, job_seconds
from bridge.decide.text.times import human, iso
from bridge.decide.text.values import cut, shown
from bridge.model import DONE, FAILED, GONE, NEW, Message, NewDelivery, Notifier, Transition, Writer

# --- what one notifier alone is sent: a body of its own, or a channel that the job names ----------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """What a message is for one notifier alone; what is None is as for any other."""

    body: str | None = None
    channel: str | None = None
    note: str | None = None  # why it comes to this channel
    faults: tuple[str, ...] = ()  # templates that did not render


def customs(notifier: Notifier, names: Names) -> Custom:
    """Return what the notifier's own templates make of a message."""
    if notifier.body:
        return _with_body(notifier.body, names)
    if notifier.channel_template:
        return _with_channel(notifier.channel_template, notifier.channels, names)
    return Custom()


def _with_body(writer: Writer, names: Names) -> Custom:
    try:
        return Custom(body=writer(names))
    except TemplateFault as error:
        return Custom(faults=(f"body: {error}",))


def _with_channel(writer: Writer, channels: tuple[str, ...], names: Names) -> Custom:
    try:
        wanted = writer(names)
    except TemplateFault as error:
        return Custom(channel=channels[0], faults=(f"channel: {error}",))
    if wanted in channels:
        return Custom(channel=wanted)
    note = f"meant for channel {shown(wanted)}, which is not among channels" if wanted else None
    return Custom(channel=channels[0], note=note)


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A [notifier.NAME.body], compiled: a tree whose texts are templates."""

    tree: Mapping[str, Any]

    def __call__(self, names: Names) -> str:
        """Return compact JSON of at most LARGEST_EVENT bytes. Raises TemplateFault saying which key."""
        return _as_json(_rendered(self.tree, (), names))

    def check(self) -> None:
        """Raise TemplateFault for a body that is too large, or does not render, for every job."""
        _as_json(_rendered(self.tree, (), None))


def _as_json(tree: Any) -> str:
    text = json.dumps(tree, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if (size := len(text.encode())) > LARGEST_EVENT:
        raise TemplateFault(f"it has {size:,} bytes of JSON, and {LARGEST_EVENT:,} are the most")
    return text


def _rendered(tree: Any, path: tuple[str | int, ...], names: Names | None) -> Any:
    """Return the tree with the value of each template; without names, of the constant ones."""
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


# --- the message ----------------------------------------------------------------------------------------------------

_PLAIN = Custom()
UTC = ZoneInfo("UTC")


def address(message: Message, notifier: Notifier, *, note: str | None = None, custom: Custom = _PLAIN) -> NewDelivery:
    """Return the delivery of a message to one notifier: its id, its lane, its Slack conversation, its own form."""
    thread = notifier.thread_of(message)
    return NewDelivery(
        id=ident("dlv", message.id, notifier.name),
        message=message,
        notifier=notifier.name,
        lane=_lane(message, notifier),
        # A conversation is in one channel.
        thread=f"{custom.channel}/{thread}" if thread and custom.channel else thread,
        note=" ".join(filter(None, (note, custom.note))) or None,
        body=custom.body,
        channel=custom.channel,
    )


def _lane(message: Message, notifier: Notifier) -> str | None:
    if not notifier.keeps_order:
        return None
    # A thread has one first message, so what shares a thread goes one after the other too.
    return notifier.thread_of(message) or (f"{message.bucket}/{message.job_id}" if message.job_id else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A message, what its templates were given, and why they fell back to the default text, if they did."""

    message: Message
    names: Names
    fault: str | None = None


def build(
    transition: Transition,
    rule: str | None,
    wording: Wording,
    queue_names: Mapping[str, str],
    *,
    zone: ZoneInfo = UTC,
    stay: Stay | None = None,
) -> Built:
    """Return the message of a transition; or of a stay, `transition` having begun it (or ended it, if it is over).

    Without a rule a person tells it.
    """
    names = variables(transition, rule, queue_names, zone=zone)
    title, text, fault = "", "", None
    if not (stay and stay.over):  # a text that says what is wrong does not fit its end
        title, text, fault = _worded(wording, names)
    happened_at = _happened_at(transition, stay)
    message = Message(
        id=_message_id(transition, rule, stay),
        kind=_kind(stay),
        title=cut(title or default_title(transition, stay)),
        text=cut(text or (default_text(transition, stay) if fault or not wording.text or (stay and stay.over) else "")),
        fields=_fields(wording.fields, names["job"]),
        event=event(transition, rule, queue_names, when=happened_at, stay=stay),
        bucket=transition.job.bucket,
        job_id=transition.job.id,
        workflow_run=transition.job.workflow_run,
        sequence=transition.sequence,
        state=transition.to,
        rule=rule,
        happened_at=happened_at,
    )
    return Built(message=message, names=names, fault=fault)


def _worded(wording: Wording, names: Names) -> tuple[str, str, str | None]:
    try:
        title = rendered(wording.title, names) if wording.title else ""
        return title, rendered(wording.text, names) if wording.text else "", None
    except TemplateFault as error:
        return "", "", str(error)


def _kind(stay: Stay | None) -> Literal["transition", "level", "recovery"]:
    if stay is None:
        return "transition"
    return "recovery" if stay.over else "level"


def _message_id(transition: Transition, rule: str | None, stay: Stay | None) -> str:
    """Return the id, made from what happened: the same thing seen again has the same one.

    A job ends once, so how many transitions led there is no part of that: a database restored from a backup counts
    others. What a level rule says of a stay is about the transition that began it, which may come again.
    """
    by = ("", "by hand") if rule is None else (rule,)  # no rule has no name
    number = () if transition.to in DONE else (str(transition.sequence),)
    said = (transition.job.bucket, transition.job.id, *number, transition.to, *by)
    return ident("msg", *said, *((_kind(stay), str(stay.count)) if stay else ()))


def _happened_at(transition: Transition, stay: Stay | None) -> datetime:
    if stay is None or stay.over:
        return transition.happened_at
    return transition.seen_at if stay.again else stay.since + stay.after


def default_title(transition: Transition, stay: Stay | None = None) -> str:
    job = transition.job
    said = transition.to
    if stay and stay.over:
        said = f"{transition.to} after {_for_how_long(transition, stay)} {stay.state}"
    elif stay:
        said = f"{'still ' if stay.again else ''}{stay.state} for {_for_how_long(transition, stay)}"
    return f"{job.tag or 'Job'} {said}: {basename(job.input or '') or job.id}"


def _for_how_long(transition: Transition, stay: Stay) -> str:
    until = transition.happened_at if stay.over else transition.seen_at
    return human(max(0.0, (until - stay.since).total_seconds()))


def default_text(transition: Transition, stay: Stay | None = None) -> str:
    """Say in one line what a person wants to know first."""
    job, seconds = transition.job, job_seconds(transition.job, transition.seen_at)
    if stay and not stay.over:
        return f"{stay.state} since {iso(stay.since)}; the rule allows {human(stay.after.total_seconds())}"
    if transition.to == FAILED:
        return job.message or "CI gave no reason."
    if transition.to == GONE:
        return f"CI no longer knows this job; it was {transition.was} when last seen."
    if job.ended_at and seconds["duration"] is not None:
        waited = "" if seconds["wait"] is None else f" after waiting {human(seconds['wait'])}"
        return f"took {human(seconds['duration'])}{waited}"
    if transition.was == NEW:
        return "seen for the first time"
    return f"was {transition.was} before"


def _fields(names: Sequence[str], job: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    said = ((name, _said(job.get(f"{name}_name") or job.get(name))) for name in names)
    return tuple((name, cut(value)) for name, value in said if value)


def _said(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return human(value)  # only spans of time are floats
        case datetime():
            return iso(value) or ""
        case list():
            return ", ".join(value)
    return str(value)


def test_message(notifier: str, *, nonce: str, now: datetime) -> Message:
    """Return the message of `notifier test`: it says that it is one, and goes the way of any other."""
    when = iso(now)
    return Message(
        id=ident("msg", "test", notifier, nonce),
        kind="test",
        title=f"Test of notifier {notifier}",
        text="This is a test from ci-bridge. If you can read it, deliveries arrive here.",
        fields=(),
        event={
            "source": "//ci-bridge/test",
            "type": "ci.test",
            "subject": notifier,
            "time": when,
            "timestamp": when,
            "sequence": numbered(1),
            "datacontenttype": "application/json",
            "data": {"test": True, "notifier": notifier},
        },
        happened_at=now,
    )


def as_fallback(message: Message, dead: str, why: str, notifier: Notifier, custom: Custom = _PLAIN) -> NewDelivery:
    """Return the delivery to a fallback of a message that could not be sent to the notifier `dead`."""
    told = address(message, notifier, note=f"This could not be told to {dead}: {why}", custom=custom)
    return replace(told, id=ident("dlv", message.id, dead, notifier.name))
