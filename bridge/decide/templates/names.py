"""What a template can name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from functools import cached_property
from typing import Any

from bridge.decide.text.facts import job_seconds, user_data_keys
from bridge.decide.text.times import iso
from bridge.model import Job, Transition

NAMES = ("job", "was", "to", "rule", "watch", "seen_at")
FIELDS = (*Job.__slots__, "queue_name", "duration", "wait", "age")  # of `job`
NOW, ZONE = " now", " zone"  # for the filters of times: no template can write these names

Names = Mapping[str, Any]


class UserData(str):
    """A job's user data: `{{ job.user_data }}` is its text, `{{ job.user_data.KEY }}` one of its keys."""

    @cached_property
    def keys(self) -> Mapping[str, str]:
        return user_data_keys(self)


def variables(transition: Transition, rule: str | None, queue_names: Mapping[str, str], *, zone: tzinfo = UTC) -> Names:
    """Return what a template can name. Times are told as of when the transition was seen, by the clock of `zone`."""
    job = transition.job
    fields = {name: getattr(job, name) for name in job.__slots__} | {
        "state": transition.to,
        "outputs": list(job.outputs),
        "user_data": UserData(job.user_data or ""),
        "queue_name": queue_names.get(job.queue or ""),
        **job_seconds(job, transition.seen_at),
    }
    return {
        "job": fields,
        "was": transition.was,
        "to": transition.to,
        "rule": rule,
        "watch": transition.watch,
        "seen_at": iso(transition.seen_at),
        NOW: transition.seen_at,
        ZONE: zone,
    }
