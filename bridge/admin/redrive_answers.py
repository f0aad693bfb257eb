"""What is asked and answered about resending and notifying by hand, for /openapi.json; as in `answers`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]+$")]


class Batch(BaseModel):
    """Deliveries that were resent together, one after the other; a delivery belongs to the last that resent it."""

    id: str
    total: Annotated[int, Field(description="how many belong to it")]
    scheduled: Annotated[int, Field(description="of these, not due yet: only they can be cancelled")]
    waiting: Annotated[int, Field(description="due, and waiting for a place")]
    sending: int
    sent: int
    dead: Annotated[int, Field(description="again, or because they were cancelled")]
    last_due_at: Annotated[datetime | None, Field(description="when the last of those scheduled is due")]


class BatchMade(Batch):
    id: Annotated[str | None, Field(description="null if nothing was resent, as after a dry_run")]  # type: ignore[assignment]  # wider, as said


class BatchCancelled(Batch):
    cancelled: Annotated[int, Field(description="how many were dead again by this")]


class RedriveWanted(BaseModel):
    """What to resend: at least one of since, until, notifier, rule, job, digest and batch."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [{"required": [one]} for one in ("since", "until", "notifier", "rule", "job", "digest", "batch")],
            "example": {"notifier": "cms", "since": "2026-11-21T09:00:00Z", "per_minute": 600, "dry_run": True},
        },
    )

    since: Annotated[datetime, Field(description="only what was made then or later")] = None  # type: ignore[assignment]  # or left out
    until: Annotated[datetime, Field(description="only what was made before then")] = None  # type: ignore[assignment]  # so
    notifier: Annotated[_Text, Field(description="only to this notifier")] = ""
    rule: Annotated[_Text, Field(description="only by this rule")] = ""
    job: Annotated[_Text, Field(description="only of the job of this id")] = ""
    digest: Annotated[_Text, Field(description="only what the delivery of this id told, as one")] = ""
    batch: Annotated[_Text, Field(description="only what was resent with the batch of this id")] = ""
    state: Literal["dead", "dropped"] = "dead"
    per_minute: Annotated[int, Field(ge=1, le=6000, description="how many are due in a minute")] = 600
    dry_run: Annotated[bool, Field(description="only say how many there are")] = False


class TestWanted(BaseModel):
    """Maybe an id of the client's, for a test that is asked for again when its answer was lost."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"id": "monday-check"}})

    id: Annotated[
        str,
        Field(
            min_length=1, max_length=255, pattern=r"^[^\x00]+$", description="yours: asked again, nothing is sent twice"
        ),
    ] = ""


class TellWanted(BaseModel):
    """Whom to tell by hand, and which transition of the job."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"notifier": "cms", "sequence": 3}})

    notifier: _Text
    sequence: Annotated[
        int, Field(ge=1, le=2**31 - 1, description="the number of the transition; usually the last")
    ] = 0
    bucket: Annotated[_Text, Field(description="which one, where several know the id")] = ""


class NewDelivery(BaseModel):
    delivery: Annotated[str, Field(description="the id of the delivery that a worker sends")]
    waits: Annotated[str | None, Field(description="why it is not sent now, as while the notifier is paused")]
