"""Incidents: rules over several jobs that are open for a key, were, or may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bridge.admin.schemas import Cursor, Moment, Request, stored_word
from bridge.admin.schemas.deliveries import Delivery
from bridge.decide.rulesfile.silences import LONGEST_AUTHOR
from bridge.record.queries.incidents import STATES


class Incident(BaseModel):
    id: str
    rule: str
    state: Annotated[str, stored_word(*STATES)] = Field(description="watched: it has not opened yet")
    key: str = Field(description='what it is about, for people: "queue vod"; "": everything')
    by: dict[str, str] = Field(description="the fields of the key with their values")
    generation: int = Field(description="1 is the key's first")
    what: str | None = Field(
        description="what has happened, or while it is watched, how far it is; null: its rule is gone"
    )
    group: bool = Field(description="its rule waits until all jobs are done")
    count: int = Field(description="how many jobs count; of a group, how many there are")
    expected: int | None = Field(description="how many jobs a group waits for")
    since: Moment = Field(description="when its first job was seen, or its rule was read")
    opened_at: Moment | None = Field(description="by the times of its jobs, not when it was seen")
    notified_at: Moment | None = Field(description="when its first message was stored")
    acknowledged_at: Moment | None
    acknowledged_by: str | None
    escalated_at: Moment | None
    closed_at: Moment | None
    closed_why: str | None = Field(description="null: what it is about has ended")
    last_at: Moment | None = Field(description="when what it is about happened last")
    notifiers: list[str] = Field(description="whom it was sent to")


class Incidents(BaseModel):
    items: list[Incident]
    cursor: Cursor


class IncidentJob(BaseModel):
    job: str
    bucket: str
    sequence: int = Field(description="of the transition by which it counts")
    state: str
    happened_at: Moment
    counts: bool = Field(description="false: it is compared with those that count")
    silent: bool = Field(description="nobody is notified of it, as a first snapshot found it")
    left_at: Moment | None = Field(description="when it moved on, and no longer belonged to it")
    input: str | None


class IncidentDetail(Incident):
    states: dict[str, int] = Field(description="how many of its jobs are in each state")
    deliveries: list[Delivery]
    jobs: list[IncidentJob] = Field(description="a page of them, those that happened last first")
    cursor: Cursor


class CountsFor(BaseModel):
    """An incident that a job counts for, and how."""

    incident: str
    rule: str
    key: str
    of: Annotated[str, stored_word(*STATES)] = Field(alias="is", description="the state of the incident")
    sequence: int = Field(description="of the transition by which it counts")
    state: str = Field(description="of the job")
    happened_at: Moment
    counts: bool = Field(description="false: it is compared with those that count")
    silent: bool
    left_at: Moment | None = Field(description="when it moved on, and no longer belonged to it")


class AcknowledgeRequest(Request):
    """Who takes care of it."""

    model_config = ConfigDict(json_schema_extra={"example": {"author": "ann"}})

    author: str = Field(
        default=None,
        min_length=1,
        max_length=LONGEST_AUTHOR,
        pattern=r"^[^\x00-\x1f]*[^\x00-\x20][^\x00-\x1f]*$",
        description='default: "api"',
    )  # type: ignore[assignment]  # or left out
