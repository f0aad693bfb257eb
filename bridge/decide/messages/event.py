"""The body that a webhook gets, less `specversion` and `id`: what happened, as JSON of a bounded size."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bridge.decide.rules.matching import Overdue
from bridge.decide.text.times import iso, job_seconds
from bridge.decide.text.values import CUT_MARK, LONGEST_TEXT, cut
from bridge.model import OUTPUTS_KEPT, Transition

LARGEST_EVENT = 20_000  # bytes; Standard Webhooks 1.0.0 recommends less than 20 kB


def event(
    transition: Transition, rule: str | None, queue_names: Mapping[str, str], *, overdue: Overdue | None = None
) -> dict[str, Any]:
    """Return the event of a transition, or of a time in state that a level rule is about."""
    job, kind = transition.job, re.sub(r"[^a-z0-9]+", "_", transition.to.lower())
    data: dict[str, Any] = {
        "from": transition.was,
        "to": transition.to,
        "seen_at": iso(transition.seen_at),
        "rule": rule,
        "watch": transition.watch,
    }
    if overdue:
        kind = "recovered" if overdue.recovered else "overdue"
        data |= {
            "in": overdue.state,
            "since": iso(overdue.since),
            "for_seconds": _whole(overdue.after.total_seconds()),
            "repeated": overdue.count,
        }
    body = envelope(
        f"job.{kind}",
        source=f"//{job.bucket}.ci.{job.region}.myqcloud.com/jobs",
        subject=job.id,
        time=happened_at(transition, overdue),
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


def happened_at(transition: Transition, overdue: Overdue | None) -> datetime:
    """Return when a transition happened, or when a time in state became too long (or was seen to be so again)."""
    if overdue is None or overdue.recovered:
        return transition.happened_at
    return transition.seen_at if overdue.again else overdue.since + overdue.after


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


def _cut(text: str | None) -> str | None:
    return text and cut(text)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
