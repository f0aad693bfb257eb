"""The body that a webhook gets, less `specversion` and `id`: what happened, as JSON of a bounded size."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bridge.decide.rules.matching import Stay
from bridge.decide.text.facts import job_seconds
from bridge.decide.text.times import iso
from bridge.decide.text.values import CUT_MARK, LONGEST_TEXT, cut
from bridge.model import OUTPUTS_KEPT, Transition

LARGEST_EVENT = 20_000  # bytes; Standard Webhooks 1.0.0 recommends less than 20 kB


def event(
    transition: Transition,
    rule: str | None,
    queue_names: Mapping[str, str],
    *,
    when: datetime | None = None,
    stay: Stay | None = None,
) -> dict[str, Any]:
    """Return the event of a transition, or of a stay (`when` it became too long): at most LARGEST_EVENT bytes."""
    job, when = transition.job, when or transition.happened_at
    body = {
        "source": f"//{job.bucket}.ci.{job.region}.myqcloud.com/jobs",
        "type": f"ci.job.{_type(transition, stay)}",
        "subject": job.id,
        "time": iso(when),
        "timestamp": iso(when),
        "sequence": numbered(transition.sequence),
        "datacontenttype": "application/json",
        "data": {
            "from": transition.was,
            "to": transition.to,
            "seen_at": iso(transition.seen_at),
            "rule": rule,
            "watch": transition.watch,
            **(_stay_facts(stay) if stay else {}),
            "job": _job_facts(transition, queue_names),
        },
    }
    return _fitted(body)


def numbered(sequence: int) -> str:
    """Return a number as CloudEvents' `sequence`, which sorts as text (its sequence extension 1.0.2)."""
    return f"{sequence:010}"


def _type(transition: Transition, stay: Stay | None) -> str:
    if stay:
        return "recovered" if stay.over else "overdue"
    return re.sub(r"[^a-z0-9]+", "_", transition.to.lower())


def _stay_facts(stay: Stay) -> dict[str, Any]:
    return {
        "in": stay.state,
        "since": iso(stay.since),
        "for_seconds": _whole(stay.after.total_seconds()),
        "repeated": stay.count,
    }


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
