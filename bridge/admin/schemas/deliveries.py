"""Deliveries: lists, one with its attempts, resending, and batches of what was resent."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from bridge import model
from bridge.admin.schemas import (
    Cursor,
    JsonObject,
    Moment,
    Request,
    RequestMoment,
    RequestText,
    WholeNumber,
    stored_word,
)
from bridge.decide.rulesfile.silences import LONGEST_REASON, read_reason
from bridge.decide.text.values import listing
from bridge.pipeline.operations import MOST_PER_MINUTE, USUAL_PER_MINUTE
from bridge.record.queries.lists import Filter
from bridge.record.schema import DELIVERY_STATES

# --- responses ------------------------------------------------------------------------------------------------------


class Delivery(BaseModel):
    id: str = Field(description="the webhook-id of every attempt")
    notifier: str
    state: Annotated[str, stored_word(*DELIVERY_STATES)]
    kind: str
    job: str | None
    bucket: str | None
    sequence: int | None
    tells: str | None = Field(description="the state of the job that it reports")
    left: str | None = Field(description="the state that the job has left, if it reports that")
    rule: str | None
    attempts: int
    why: str | None = Field(description="why the last attempt failed; before that, who discarded it and why")
    note: str | None
    happened_at: Moment
    created_at: Moment
    due_at: Moment | None = Field(
        description="while waiting: the next attempt, null: now; while held: when its digest is sent"
    )
    ended_at: Moment | None
    held_by: str | None = Field(
        description="what first held it: group:RULE, throttle:RULE, mute:NAME, silence:ID, flood:LIMIT,"
        " fallback:NOTIFIER; edit: it shows on its thread's first message; stays set"
    )
    digest: str | None = Field(description="the delivery of the digest that it was sent in")
    batch: str | None = Field(description="the batch with which it was last resent or discarded")
    channel: str | None = Field(description="instead of the notifier's own")


class Deliveries(BaseModel):
    items: list[Delivery]
    cursor: Cursor


class Message(BaseModel):
    title: str
    text: str
    fields: list[tuple[str, str]]
    state: str | None = None  # what older versions stored may lack it
    rule: str | None = None
    job_id: str | None = None
    digest: bool = Field(False, description="it stands for several messages")


class Attempt(BaseModel):
    number: int
    outcome: str
    why: str | None
    reason: str | None = Field(description=f"why, for programs: {', '.join(model.Reason)}; null where it was sent")
    status: int | None = Field(description="of HTTP or SMTP")
    answer: str | None = Field(
        description="the beginning of the response body; null for the read token, as it may contain secrets"
    )
    address: str | None = Field(description="the address connected to")
    started_at: Moment
    ms: int


class DeliveryDetail(Delivery):
    says: Message
    event: JsonObject = Field(description="the body for a webhook: the default one, or the notifier's own")
    tries: list[Attempt]


class Batch(BaseModel):
    """Deliveries that were resent together, at a rate, or discarded. A delivery belongs to the last batch it was in."""

    id: str
    total: int = Field(description="how many belong to it")
    scheduled: int = Field(description="of these, not due yet: only they can be cancelled")
    waiting: int = Field(description="due, and waiting to be sent")
    sending: int
    sent: int
    dead: int = Field(description="dead letters: failed again, or cancelled")
    discarded: int
    last_due_at: Moment | None = Field(description="when the last of those scheduled is due")


class BatchMade(Batch):
    id: str | None = Field(description="null if nothing was resent or discarded, as after a dry_run")  # type: ignore[assignment]  # wider, as said


class BatchCancelled(Batch):
    cancelled: int = Field(description="how many this request cancelled")


class DeliveryAccepted(BaseModel):
    delivery: str


class NewDelivery(BaseModel):
    delivery: str = Field(description="the id of the delivery that a worker sends")
    waits: str | None = Field(description="why it is not sent now, for example while the notifier is paused")


# --- requests -------------------------------------------------------------------------------------------------------

_FILTERS = ("since", "until", "notifier", "rule", "job", "digest", "batch")


def _selects(**example: str | int) -> ConfigDict:
    return ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in _FILTERS], "example": dict(example)}
    )


class _Selection(Request):
    """Which deliveries."""

    since: RequestMoment = Field(None, description="created then or later")  # type: ignore[assignment]  # or left out
    until: RequestMoment = Field(None, description="created before then")  # type: ignore[assignment]  # so
    notifier: RequestText = Field("", description="to this notifier")
    rule: RequestText = Field("", description="by this rule")
    job: RequestText = Field("", description="about the job with this id")
    digest: RequestText = Field("", description="sent in the digest that is the delivery with this id")
    batch: RequestText = Field("", description="resent or discarded with the batch of this id")
    state: Literal["dead"] = "dead"
    dry_run: bool = Field(False, description="only count them")

    @model_validator(mode="after")
    def _has_filter(self) -> Self:
        if not self.model_fields_set.intersection(_FILTERS):
            raise PydanticCustomError("no_filter", f"say which deliveries, with at least one of {listing(_FILTERS)}")
        return self

    @property
    def filter(self) -> Filter:
        given: dict[str, Any] = self.model_dump(include={*_FILTERS}, exclude_unset=True)
        return Filter(state=self.state, **given)


class RedriveRequest(_Selection):
    """What to resend: at least one of since, until, notifier, rule, job, digest and batch."""

    model_config = _selects(notifier="cms", since="2026-11-21T09:00:00Z", per_minute=600, dry_run=True)

    state: Literal["dead", "dropped", "discarded"] = "dead"  # type: ignore[assignment]  # wider, as said
    per_minute: WholeNumber = Field(
        USUAL_PER_MINUTE, ge=1, le=MOST_PER_MINUTE, description="how many become due per minute"
    )


_Reason = Annotated[str, AfterValidator(read_reason), Field(min_length=1, max_length=LONGEST_REASON)]


class DiscardRequest(Request):
    """Why a dead delivery is discarded."""

    model_config = ConfigDict(json_schema_extra={"example": {"reason": "the receiver was shut down"}})

    reason: _Reason


class NotifierPauseRequest(Request):
    """Why a notifier is paused."""

    model_config = ConfigDict(json_schema_extra={"example": {"reason": "the receiver is being moved"}})

    reason: _Reason


class DiscardAllRequest(_Selection, DiscardRequest):
    """Which dead deliveries to discard, by at least one of since, until, notifier, rule, job, digest and batch; why."""

    model_config = _selects(notifier="cms", reason="the receiver was shut down", dry_run=True)


class NotifyRequest(Request):
    """Which notifier to notify manually, and of which transition of the job."""

    model_config = ConfigDict(json_schema_extra={"example": {"notifier": "cms", "sequence": 3}})

    notifier: RequestText
    sequence: WholeNumber = Field(
        None, ge=1, le=2**31 - 1, description="the number of the transition; default: the last"
    )  # type: ignore[assignment]  # or left out
    bucket: RequestText = Field(None, description="needed if several buckets have a job with this id")  # type: ignore[assignment]  # so


class NotifierTestRequest(Request):
    """Optionally an id of the client's, to repeat the request safely when its response was lost."""

    model_config = ConfigDict(json_schema_extra={"example": {"id": "monday-check"}})

    id: str = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=r"^[^\x00]+$",
        description="chosen by the client: a repeated request sends nothing twice",
    )  # type: ignore[assignment]  # or left out
