"""What webhooks receive: the event of every type, as /openapi.json describes them."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bridge.admin.schemas import Moment

_Url = Annotated[str | None, Field(description="the page about it; null: no address is known (BRIDGE_PUBLIC_URL)")]
_Sequence = Annotated[str, Field(pattern="^[0-9]{10,}$", description="sorts as text")]
_RuleName = Annotated[str | None, Field(description="null: sent manually")]
_Type = TypeVar("_Type")
_Data = TypeVar("_Data")


class Facts(BaseModel):
    """Part of an event. Later versions may add members."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"additionalProperties": True})


class Event(Facts, Generic[_Type, _Data]):
    """A CloudEvent. `timestamp` repeats `time`, as Standard Webhooks has it."""

    specversion: Literal["1.0"]
    id: str = Field(description="of the delivery, as in the header webhook-id: the same in every attempt")
    note: str = Field(default="", description="why this receiver gets it, if it is not by the rule alone")
    source: str
    type: _Type
    subject: str
    time: Moment
    timestamp: Moment
    sequence: _Sequence
    datacontenttype: Literal["application/json"]
    data: _Data


# --- jobs -----------------------------------------------------------------------------------------------------------


class EventJob(Facts):
    """A job. null: CI did not say."""

    id: str
    tag: str | None
    state: str
    queue: str | None
    queue_name: str | None
    bucket: str
    region: str
    code: str | None
    message: str | None
    progress: int | None
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    wait_seconds: int | None
    duration_seconds: int | None
    input: str | None
    outputs: list[str] = Field(description="at most 20")
    outputs_total: int
    template: str | None
    workflow: str | None
    user_data: str | None


class JobChanged(Facts):
    was: str = Field(alias="from")
    to: str
    seen_at: Moment
    late_seconds: int | None
    inferred: bool = Field(description="true: it was not seen, but the job's times prove it")
    rule: _RuleName
    watch: str
    url: _Url
    job: EventJob


class TimeInState(JobChanged):
    state: str = Field(alias="in")
    since: Moment
    for_seconds: int
    repeated: int = Field(description="how often this was said before")


# --- what is about several jobs, or none ----------------------------------------------------------------------------


class DigestMember(Facts):
    job: str | None
    bucket: str | None
    sequence: _Sequence
    state: str
    title: str
    time: Moment
    href: str | None


class DigestFacts(Facts):
    gate: str = Field(description="what held the messages: group, throttle, mute, silence, flood or fallback")
    name: str
    reason: str | None = Field(description="of a silence")
    by: dict[str, str | None] = Field(description="what its members have in common")
    since: Moment
    total: int
    states: dict[str, int]
    members: list[DigestMember] = Field(description="the first of each state")
    members_total: int
    url: _Url


class IncidentMember(Facts):
    id: str
    bucket: str
    state: str
    sequence: _Sequence
    time: Moment
    input: str | None
    href: str


class IncidentFacts(Facts):
    incident: str
    rule: str
    by: dict[str, str] = Field(description="the fields of the key with their values")
    queue_name: str | None
    generation: int
    what: str | None
    opened_at: Moment | None
    closed_at: Moment | None
    late_seconds: int
    acknowledged_by: str | None
    acknowledged_at: Moment | None
    escalated_at: Moment | None
    count: int
    expected: int | None
    states: dict[str, int]
    jobs: list[IncidentMember] = Field(description="at most 20, the newest last")
    jobs_total: int
    url: _Url


class _Sight(Facts):
    watch: str
    bucket: str
    region: str
    since: Moment
    rule: str
    url: _Url


class WatchBlind(_Sight):
    for_seconds: int | None
    error: str


class WatchSees(_Sight):
    blind_seconds: int
    caught_up: int = Field(description="transitions that the poll found")


class NotifierTest(Facts):
    test: Literal[True]
    notifier: str
    url: _Url


# --- every event ----------------------------------------------------------------------------------------------------


class JobEvent(Event[Annotated[str, Field(pattern="^ci[.]job[.][a-z0-9_]*$")], JobChanged]):
    """A job's state has changed; the type ends in the new state, such as `ci.job.failed`."""


class JobTimeEvent(Event[Literal["ci.job.overdue", "ci.job.recovered"], TimeInState]):
    """A job is in a state for longer than a rule allows, or no longer is."""


class IncidentEvent(
    Event[
        Literal["ci.incident.opened", "ci.incident.joined", "ci.incident.escalated", "ci.incident.closed"],
        IncidentFacts,
    ]
):
    """An incident has opened, has more jobs, was acknowledged by nobody, or is over."""


class GroupEvent(Event[Literal["ci.group.completed", "ci.group.failed"], IncidentFacts]):
    """All jobs of a key have ended."""


class WatchBlindEvent(Event[Literal["ci.watch.blind"], WatchBlind]):
    """A watch has had no complete poll for as long as a rule allows."""


class WatchSeesEvent(Event[Literal["ci.watch.sees"], WatchSees]):
    """A watch has had a complete poll again."""


class DigestEvent(Event[Literal["ci.digest"], DigestFacts]):
    """Messages that were held, summed up."""


class NotifierTestEvent(Event[Literal["ci.test"], NotifierTest]):
    """A test of the notifier, sent by a person."""


EVENTS: tuple[type[BaseModel], ...] = (
    JobEvent, JobTimeEvent, IncidentEvent, GroupEvent, WatchBlindEvent, WatchSeesEvent, DigestEvent,
    NotifierTestEvent,
)  # fmt: skip
