"""What is asked and answered about sending again and telling by hand, for /openapi.json; as in `answers`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bridge.admin.answers import Cursor

_Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]+$")]


class RedriveFilter(BaseModel):
    """Which deliveries: all that is there must be true of one."""

    state: Literal["dead", "dropped"]
    notifier: str = ""
    rule: str = ""
    job: str = ""
    digest: str = ""
    since: Annotated[datetime | None, Field(description="it was made then or later")] = None
    until: Annotated[datetime | None, Field(description="it was made before then")] = None


class Redrive(BaseModel):
    """An order to send deliveries again, a few at a time."""

    id: str
    filter: RedriveFilter
    author: str
    per_minute: int
    created_at: datetime
    total: Annotated[int, Field(description="how many there were when it was given; more, if others died since")]
    done: Annotated[int, Field(description="how many are sent again")]
    left: Annotated[int, Field(description="of those, or were when it was ended")]
    ended_at: datetime | None
    ended_by: Annotated[str | None, Field(description="who ended it early")]


class RedriveOrdered(Redrive):
    id: Annotated[str | None, Field(description="null after a dry_run")]  # type: ignore[assignment]  # wider, as said
    created_at: Annotated[datetime | None, Field(description="null after a dry_run")]  # type: ignore[assignment]  # so


class Redrives(BaseModel):
    items: list[Redrive]
    cursor: Cursor


class RedriveWanted(BaseModel):
    """What to send again: at least one of since, until, notifier, rule, job and digest."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [{"required": [one]} for one in ("since", "until", "notifier", "rule", "job", "digest")],
            "example": {"notifier": "cms", "since": "2026-11-21T09:00:00Z", "per_minute": 600, "dry_run": True},
        },
    )

    since: Annotated[datetime, Field(description="only what was made then or later")] = None  # type: ignore[assignment]  # or left out
    until: Annotated[datetime, Field(description="only what was made before then")] = None  # type: ignore[assignment]  # so
    notifier: Annotated[_Text, Field(description="only to this notifier")] = ""
    rule: Annotated[_Text, Field(description="only by this rule")] = ""
    job: Annotated[_Text, Field(description="only of the job of this id")] = ""
    digest: Annotated[_Text, Field(description="only what the delivery of this id told, as one")] = ""
    state: Literal["dead", "dropped"] = "dead"
    per_minute: Annotated[int, Field(ge=1, le=6000, description="how many to send again in a minute")] = 600
    dry_run: Annotated[bool, Field(description="only say how many there are")] = False


class TellWanted(BaseModel):
    """Whom to tell by hand, and which transition of the job."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"notifier": "cms", "sequence": 3}})

    notifier: _Text
    sequence: Annotated[
        int, Field(ge=1, le=2**31 - 1, description="the number of the transition; usually the last")
    ] = 0
    bucket: Annotated[_Text, Field(description="which one, where several know the id")] = ""


class Told(BaseModel):
    delivery: Annotated[str, Field(description="the id of the delivery that a worker sends")]
    waits: Annotated[str | None, Field(description="why it is not sent now, as while the notifier is paused")]
