"""Jobs and their transitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from bridge.admin.schemas import Cursor, JsonObject, Moment, QueueName
from bridge.admin.schemas.deliveries import Delivery
from bridge.admin.schemas.incidents import CountsFor


class Job(BaseModel):
    """A job as last seen, with the members that webhooks have in `data.job`, and some more. null: CI did not say."""

    id: str
    bucket: str
    region: str | None = None
    state: str
    sequence: int = Field(description="of its last transition")
    tag: str | None = None
    queue: str | None = None
    queue_name: QueueName = None
    code: str | None = None
    message: str | None = None
    progress: int | None = None
    created_at: Moment
    started_at: Moment | None = None
    ended_at: Moment | None = None
    changed_at: Moment
    wait_seconds: int | None = Field(description="from creation to start; until changed_at, if it waits")
    duration_seconds: int | None = Field(description="from start to end; until changed_at, if it runs")
    unwatched_since: Moment | None = Field(description="unfinished, and no watch polls it since then")
    input: str | None = None
    output: str | None = None
    outputs: list[str] = []
    outputs_total: int = 0
    template: str | None = None
    template_name: str | None = None
    workflow: str | None = None
    workflow_name: str | None = None
    workflow_run: str | None = None
    level: str | None = None
    user_data: str | None = None

    @classmethod
    def of(cls, facts: JsonObject, queue_names: Mapping[str, str]) -> Self:
        """Return a job as the record lists it, with what follows from it."""
        end = facts["ended_at"] or facts["changed_at"]
        return cls.model_validate(
            facts
            | {
                "queue_name": queue_names.get(facts["queue"]),
                "wait_seconds": _seconds(facts["created_at"], facts["started_at"] or end),
                "duration_seconds": _seconds(facts["started_at"], end),
            }
        )


def _seconds(start: str | None, end: str) -> int | None:
    if start is None:
        return None
    return max(0, round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()))


class Jobs(BaseModel):
    items: list[Job]
    cursor: Cursor


class Fired(BaseModel):
    rule: str
    notifiers: list[str]


class Transition(BaseModel):
    n: int
    job: str
    bucket: str
    sequence: int = Field(description="1 is the job's first")
    was: str = Field(alias="from")
    to: str
    tag: str | None
    queue: str | None
    watch: str
    happened_at: Moment = Field(description="by CI's clock; where CI does not say, when it was seen")
    seen_at: Moment
    inferred: bool = Field(description="true: it was not seen, but the job's times prove it")
    silent: str | None = Field(description="why nobody was notified")
    rules: list[Fired]


class Transitions(BaseModel):
    items: list[Transition]
    cursor: Cursor


class JobProblem(BaseModel):
    """What of a job cannot be read; the bridge continues without the field, or without the job."""

    field: str
    value: str = Field(description="its beginning")
    left_out: bool = Field(description="the job was left out; its details are from an earlier response")
    since: Moment
    seen_at: Moment = Field(description="to the hour")
    ask_at: Moment | None = Field(description="when CI is asked for the job by id again")


class Missing(BaseModel):
    times: int
    last_at: Moment
    ask_at: Moment | None = Field(description="when CI is asked again; null: in every poll")


class JobDetail(Job):
    missing: Missing | None = Field(description="how often CI did not find the job, and when")
    transitions: list[Transition]
    deliveries: list[Delivery]
    problems: list[JobProblem]
    incidents: list[CountsFor] = Field(description="that it counts for, the newest first")


# --- the timeline of a job ------------------------------------------------------------------------------------------

MOST_OF_EACH = 200  # transitions, messages and attempts of one job that are shown: the newest of each

_STYLES = {"sent": "sent", "dead": "bad", "held": "held", "dropped": "held", "merged": "held", "discarded": "held"}


def timeline(job: JobDetail, attempts: Mapping[str, Sequence[JsonObject]]) -> list[JsonObject]:
    """Return what happened to a job, oldest first: by CI, transitions, deliveries, their attempts (by delivery id).

    Each has `at`, `kind` (what it is), `style` (how it went) and its facts. Of each the newest are there.
    """
    return sorted(_events(job, attempts), key=lambda event: str(event["at"]))


def _events(job: JobDetail, attempts: Mapping[str, Sequence[JsonObject]]) -> Iterator[JsonObject]:
    for at, word in ((job.created_at, "created"), (job.started_at, "started"), (job.ended_at, "ended")):
        if at:
            yield {"at": at, "kind": "ci", "style": "ci", "word": word}
    for transition in job.transitions[-MOST_OF_EACH:]:
        yield {"at": transition.seen_at, "kind": "transition", "style": "transition", "facts": transition}
    for delivery in job.deliveries[-MOST_OF_EACH:]:
        style = _STYLES.get(delivery.state, "waiting")
        yield {"at": delivery.created_at, "kind": "delivery", "style": style, "facts": delivery}
        for attempt in attempts.get(delivery.id, ()):
            style = "sent" if attempt["outcome"] == "sent" else "bad"
            yield {"at": attempt["started_at"], "kind": "try", "style": style, "facts": attempt, "delivery": delivery}
