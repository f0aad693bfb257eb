"""What is said: the message of a transition, and who gets it under which id."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b32encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bridge.decide.conditions import job_seconds
from bridge.decide.matching import Matcher, Verdict
from bridge.decide.templates import Template, TemplateFault, basename, human, iso, rendered, variables
from bridge.model import (
    FAILED,
    GONE,
    NEW,
    OUTPUTS_KEPT,
    Message,
    Notifier,
    SlackNotifier,
    Told,
    Transition,
    WebhookNotifier,
)

LARGEST_EVENT = 20_000  # bytes; Standard Webhooks 1.0.0 recommends less than 20 kB
LONGEST_TEXT = 2_000  # characters of one value
CUT_MARK = "…[cut]"
DEFAULT_FIELDS = ("queue", "bucket", "workflow", "code")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A [template.NAME] of rules.toml, compiled. What is None has the default text."""

    title: Template | None = None
    text: Template | None = None
    fields: tuple[str, ...] = DEFAULT_FIELDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """All that follows from one transition: the rules that fired, and what is told to whom."""

    transition: Transition
    verdicts: Sequence[Verdict] = ()
    told: Sequence[Told] = ()
    faults: Sequence[str] = field(default=())  # templates that did not render


def tell(
    transition: Transition,
    *,
    matcher: Matcher,
    notifiers: Mapping[str, Notifier],
    wordings: Mapping[str, Wording],
    queue_names: Mapping[str, str],
) -> Telling:
    """Match a transition and build its messages; a silent one is matched by nobody."""
    if transition.silent:
        return Telling(transition=transition)
    verdicts = matcher.match(transition)
    told: list[Told] = []
    faults: list[str] = []
    for verdict in verdicts:
        if not verdict.notifiers:
            continue
        rule = verdict.rule
        wording = wordings.get(rule.template or "", Wording())
        message, fault = build(transition, rule.name, wording, queue_names)
        faults += [f'rule "{rule.name}", template "{rule.template}": {fault}'] if fault else []
        told += [address(message, notifiers[name]) for name in verdict.notifiers]
    return Telling(transition=transition, verdicts=verdicts, told=told, faults=faults)


def address(message: Message, notifier: Notifier, *, note: str | None = None) -> Told:
    """Return the telling of a message to one notifier: its id, its lane, its Slack conversation."""
    return Told(
        id=_id("dlv", message.id, notifier.name),
        message=message,
        notifier=notifier.name,
        lane=_lane(message, notifier),
        thread=_thread(message, notifier),
        note=note,
    )


def _lane(message: Message, notifier: Notifier) -> str | None:
    if isinstance(notifier, WebhookNotifier) and notifier.order == "none":
        return None
    # A thread has one first message, so what shares a thread goes one after the other too.
    return _thread(message, notifier) or (f"{message.bucket}/{message.job_id}" if message.job_id else None)


def _thread(message: Message, notifier: Notifier) -> str | None:
    if not isinstance(notifier, SlackNotifier) or message.job_id is None:
        return None
    if notifier.thread == "workflow" and message.workflow_run:
        return f"{message.bucket}/{message.workflow_run}"
    return f"{message.bucket}/{message.job_id}" if notifier.thread != "none" or notifier.update else None


def build(
    transition: Transition, rule: str, wording: Wording, queue_names: Mapping[str, str]
) -> tuple[Message, str | None]:
    """Return the message, and what is wrong with the template when it fell back to the default text."""
    names = variables(transition, rule, queue_names)
    fault = None
    try:
        title = rendered(wording.title, names) if wording.title else ""
        text = rendered(wording.text, names) if wording.text else ""
    except TemplateFault as error:
        title, text, fault = "", "", str(error)
    job = transition.job
    message = Message(
        id=_id("msg", job.bucket, job.id, str(transition.sequence), transition.to, rule),
        kind="transition",
        title=cut(title or default_title(transition)),
        text=cut(text or (default_text(transition) if not wording.text or fault else "")),
        fields=_fields(wording.fields, names["job"]),
        event=event(transition, rule, queue_names),
        bucket=job.bucket,
        job_id=job.id,
        workflow_run=job.workflow_run,
        sequence=transition.sequence,
        state=transition.to,
        rule=rule,
        happened_at=transition.happened_at,
    )
    return message, fault


def default_title(transition: Transition) -> str:
    job = transition.job
    return f"{job.tag or 'Job'} {transition.to}: {basename(job.input) or job.id}"


def default_text(transition: Transition) -> str:
    """Say in one line what a person wants to know first."""
    job, seconds = transition.job, job_seconds(transition.job, transition.seen_at)
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


def event(transition: Transition, rule: str, queue_names: Mapping[str, str]) -> dict[str, Any]:
    """Return the webhook body less `specversion` and `id`, at most LARGEST_EVENT bytes of JSON."""
    job, when = transition.job, iso(transition.happened_at)
    body = {
        "source": f"//{job.bucket}.ci.{job.region}.myqcloud.com/jobs",
        "type": f"ci.job.{re.sub(r'[^a-z0-9]+', '_', transition.to.lower())}",
        "subject": job.id,
        "time": when,
        "timestamp": when,
        "sequence": str(transition.sequence),
        "datacontenttype": "application/json",
        "data": {
            "from": transition.was,
            "to": transition.to,
            "seen_at": iso(transition.seen_at),
            "rule": rule,
            "watch": transition.watch,
            "job": _job_facts(transition, queue_names),
        },
    }
    return _fitted(body)


def _job_facts(transition: Transition, queue_names: Mapping[str, str]) -> dict[str, Any]:
    job = transition.job
    seconds = job_seconds(job, transition.seen_at)
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
    while _size(body) > LARGEST_EVENT and facts["outputs"]:
        facts["outputs"] = facts["outputs"][:-1]
    limit = LONGEST_TEXT
    while _size(body) > LARGEST_EVENT and limit > len(CUT_MARK):
        limit //= 2
        body["data"]["job"] = facts = {k: cut(v, limit) if isinstance(v, str) else v for k, v in facts.items()}
    return body


def _size(body: Mapping[str, Any]) -> int:
    return len(json.dumps(body, ensure_ascii=False).encode()) + 100  # specversion and id come on top


def test_message(notifier: str, *, nonce: str, now: datetime) -> Message:
    """Return the message of `notifier test`: it says that it is one, and goes the way of any other."""
    when = iso(now)
    return Message(
        id=_id("msg", "test", notifier, nonce),
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
            "sequence": "1",
            "datacontenttype": "application/json",
            "data": {"test": True, "notifier": notifier},
        },
        happened_at=now,
    )


def as_fallback(message: Message, dead: str, why: str, notifier: Notifier) -> Told:
    """Return the telling of a message that could not be told to the notifier `dead`."""
    told = address(message, notifier, note=f"This could not be told to {dead}: {why}")
    return replace(told, id=_id("dlv", message.id, dead, notifier.name))


def cut(text: str, limit: int = LONGEST_TEXT) -> str:
    return text if len(text) <= limit else text[: max(0, limit - len(CUT_MARK))] + CUT_MARK


def _cut(text: str | None) -> str | None:
    return text and cut(text)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _id(kind: str, *parts: str) -> str:
    """Return an id made from what it names: the same thing seen again has the same id."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return f"{kind}_{b32encode(digest).decode().rstrip('=').lower()}"
