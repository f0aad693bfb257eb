"""The shapes of the API's answers, for /openapi.json. Nothing is parsed with them; tests hold answers against them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, Field, create_model

from bridge import model
from bridge.record.schema import DELIVERY_STATES

Open = dict[str, Any]
_REASONS = ", ".join(model.Reason)


class Problem(BaseModel):
    """RFC 9457."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: Annotated[str, Field(description="what is wrong, and what would be right")]


class Alive(BaseModel):
    status: Literal["ok"]
    version: str


class Check(BaseModel):
    name: str
    ok: bool
    detail: str


class Reason(BaseModel):
    check: Annotated[str, Field(description="the check that it belongs to")]
    who: Annotated[str | None, Field(description="the watch, notifier or worker that it is about")]
    what: str
    since: datetime | None
    why: Annotated[str | None, Field(description="the last error")]


class Readiness(BaseModel):
    status: Literal["ready", "not ready"]
    warnings: Annotated[int, Field(description="how many things are not as they should be")]
    checks: list[Check]
    reasons: Annotated[list[Reason] | None, Field(description="the worst first; null without a token")]


Cursor = Annotated[str | None, Field(description="asks for the next page; null on the last one")]


class Queue(BaseModel):
    id: str
    name: Annotated[str | None, Field(description="its alias in rules.toml")]


class Watch(BaseModel):
    """A watch: what rules.toml says is missing when only the record knows it, and the other way round."""

    name: str
    in_rules: bool
    bucket: str = ""
    region: str = ""
    tags: list[str] = []
    queues: list[Queue] = []
    every_seconds: float = 0
    lookback_seconds: float = 0
    next_poll_at: Annotated[datetime | None, Field(description="null: at once")] = None
    paused: bool = False
    polled_at: datetime | None = None
    ok_at: Annotated[datetime | None, Field(description="the last complete poll began")] = None
    failures: Annotated[int, Field(description="failed polls since then")] = 0
    error: str | None = None
    calls: Annotated[int, Field(description="of the last poll")] = 0
    jobs: Annotated[int, Field(description="of the last poll")] = 0
    behind: Annotated[list[str], Field(description="tags whose list is long and goes on in the next poll")] = []
    clock_ahead_seconds: Annotated[
        float | None, Field(description="how far CI's clock was ahead of ours in the last poll; null: it did not say")
    ] = None


class Watches(BaseModel):
    items: list[Watch]
    cursor: Cursor


# What CI did not say of a job is not there.
_of_a_job: Open = {name: (kind, None) for name, kind in get_type_hints(model.Job).items()}
_recorded: Open = {
    "id": (str, ...), "bucket": (str, ...), "state": (str, ...), "tag": (str | None, ...), "queue": (str | None, ...),
    "sequence": (Annotated[int, Field(description="of its last transition")], ...), "created_at": (datetime, ...),
    "started_at": (datetime | None, ...), "ended_at": (datetime | None, ...), "changed_at": (datetime, ...),
    "unwatched_since": (
        Annotated[datetime | None, Field(description="unfinished, and no watch asks for it since then")], ...
    ),
}  # fmt: skip
Job = create_model("Job", **(_of_a_job | _recorded))


class Jobs(BaseModel):
    items: list[Job]  # type: ignore[valid-type]  # made above
    cursor: Cursor


class Fired(BaseModel):
    rule: str
    notifiers: list[str]


class Transition(BaseModel):
    n: int
    job: str
    bucket: str
    sequence: Annotated[int, Field(description="1 is the job's first")]
    was: Annotated[str, Field(alias="from")]
    to: str
    tag: str | None
    queue: str | None
    watch: str
    happened_at: Annotated[datetime, Field(description="by CI's clock; when it was seen, where CI says nothing")]
    seen_at: datetime
    silent: Annotated[str | None, Field(description="why nobody was told")]
    rules: list[Fired]


class Transitions(BaseModel):
    items: list[Transition]
    cursor: Cursor


class Delivery(BaseModel):
    id: Annotated[str, Field(description="the webhook-id of every try")]
    notifier: str
    state: Literal[DELIVERY_STATES]  # type: ignore[valid-type]  # the words of the record
    kind: str
    job: str | None
    bucket: str | None
    sequence: int | None
    tells: Annotated[str | None, Field(description="the state of the job that it tells")]
    left: Annotated[str | None, Field(description="the state that the job has left, if that is what it tells")]
    rule: str | None
    attempts: int
    why: Annotated[str | None, Field(description="why the last attempt failed")]
    note: str | None
    happened_at: datetime
    created_at: datetime
    due_at: Annotated[
        datetime | None,
        Field(description="while it waits: the next attempt, null: now; while it is held: the telling of its digest"),
    ]
    ended_at: datetime | None
    held_by: Annotated[
        str | None,
        Field(description="what first held it, for good: group:RULE, throttle:RULE, mute:NAME or silence:ID"),
    ]
    digest: Annotated[str | None, Field(description="the delivery that told it, with others")]
    batch: Annotated[str | None, Field(description="with which it was resent the last time")]
    channel: Annotated[str | None, Field(description="instead of the notifier's own")]


class Deliveries(BaseModel):
    items: list[Delivery]
    cursor: Cursor


class JobProblem(BaseModel):
    """What of a job cannot be read; without the field, or without the job, the bridge goes on."""

    field: str
    value: Annotated[str, Field(description="how it begins")]
    left_out: Annotated[bool, Field(description="the job, as last said; its facts are from before")]
    since: datetime
    seen_at: Annotated[datetime, Field(description="to the hour")]
    ask_at: Annotated[datetime | None, Field(description="when CI is asked for the job by id again")]


class Missing(BaseModel):
    times: int
    last_at: datetime
    ask_at: Annotated[datetime | None, Field(description="when CI is asked again; null: in every poll")]


class JobDetail(Job):  # type: ignore[valid-type,misc]  # made above
    missing: Annotated[Missing | None, Field(description="how often CI has said that it does not know the job")]
    transitions: list[Transition]
    deliveries: list[Delivery]
    problems: list[JobProblem]


class Saying(BaseModel):
    title: str
    text: str
    fields: list[tuple[str, str]]
    state: str | None
    rule: str | None
    job_id: str | None


class Try(BaseModel):
    number: int
    outcome: str
    why: str | None
    reason: Annotated[str | None, Field(description=f"why, for programs: {_REASONS}; null where it was sent")]
    status: Annotated[int | None, Field(description="of HTTP")]
    answer: Annotated[
        str | None, Field(description="how the receiver's body began; null for the read token: it may hold secrets")
    ]
    address: Annotated[str | None, Field(description="the one connected to")]
    started_at: datetime
    ms: int


class DeliveryDetail(Delivery):
    says: Saying
    event: Annotated[Open, Field(description="the body that a webhook gets: the usual one, or its own")]
    tries: list[Try]


class Rule(BaseModel):
    name: str
    line: int
    was: Annotated[list[str], Field(alias="from")]
    to: list[str]
    match: Annotated[Open, Field(description="as rules.toml writes it")]
    notify: list[str]
    template: str | None
    stop: bool
    in_: Annotated[list[str] | None, Field(alias="in", description="of a level rule")]
    for_seconds: float | None
    repeat_seconds: float | None
    recover: bool
    throttle: str | None
    group: Annotated[Open | None, Field(description="by, wait_seconds or at, max")]
    template_faults: Annotated[int, Field(description="how often a template of it fell back to the default text")]
    last_fault: str | None
    matches: Annotated[int, Field(description="how often it fired")]
    last_match_at: datetime | None


class Rules(BaseModel):
    items: list[Rule]
    cursor: Cursor
    sha: str
    fault: Annotated[str | None, Field(description="why the file as it is now is not in force")]
    warnings: list[str]


class Notifier(BaseModel):
    """A notifier: what rules.toml says is missing when only the record knows it, and the other way round."""

    name: str
    in_rules: bool
    type: str
    fallback: str | None = None
    retry_seconds: float = 0
    max_in_flight: int
    rate: str | None = None
    target: Annotated[str | None, Field(description="scheme and host, or the channel; the rest may be a secret")] = None
    signed: bool = False
    order: str = ""
    thread: str = ""
    update: bool = False
    paused_at: datetime | None = None
    paused_why: str | None = None
    paused_reason: Annotated[str | None, Field(description="why, for programs: a reason of an attempt")] = None
    not_before: datetime | None = None
    failures: Annotated[int, Field(description="without an answer, in a row; from 10 on it is asked once a minute")] = 0
    waiting: int = 0
    sending: int = 0
    dead: int = 0
    held: Annotated[int, Field(description="messages that wait in digests")] = 0
    oldest_waiting_at: datetime | None = None


class Notifiers(BaseModel):
    items: list[Notifier]
    cursor: Cursor


class DeliveryAccepted(BaseModel):
    delivery: str


class NotifierAccepted(BaseModel):
    notifier: str
    paused: bool


class WatchAccepted(BaseModel):
    watch: str
    paused: bool
