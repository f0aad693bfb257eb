"""What charts are made of, for /openapi.json."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

Counts = Annotated[list[int], Field(description="one for each slot")]
QueueName = Annotated[str | None, Field(description="its alias in rules.toml")]
_Said = Field(description="empty: CI did not say")


class JobCounts(BaseModel):
    """How many unfinished jobs stood in a state at the end of each slot."""

    queue: Annotated[str, _Said]
    queue_name: QueueName
    tag: Annotated[str, _Said]
    state: str
    counts: Counts


class TransitionCounts(BaseModel):
    """How many jobs came into a state in each slot."""

    queue: Annotated[str, _Said]
    queue_name: QueueName
    tag: Annotated[str, _Said]
    to: str
    counts: Counts


class DeliveryCounts(BaseModel):
    """How many deliveries ended so in each slot."""

    notifier: str
    outcome: Literal["delivered", "dead", "merged", "dropped"]
    counts: Counts


class DeliveryLatency(BaseModel):
    """From what happened to the receiver's yes, over all slots, as histograms tell it."""

    notifier: str
    count: int
    p50_seconds: float | None
    p95_seconds: float | None


class Stats(BaseModel):
    """Figures over time: at most 200 lines of jobs and of transitions, the largest."""

    span: Literal["1h", "24h", "7d"]
    since: datetime
    until: datetime
    step_seconds: int
    slots: Annotated[list[datetime], Field(description="where they begin, oldest first; the last is under way")]
    jobs: list[JobCounts]
    transitions: list[TransitionCounts]
    deliveries: list[DeliveryCounts]
    latency: list[DeliveryLatency]
