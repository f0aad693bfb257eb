"""Figures over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from bridge.admin.schemas import Moment, QueueName, stored_word
from bridge.pipeline import stats
from bridge.record.codec import iso
from bridge.record.database import ms

Span = Literal["1h", "24h", "7d"]
Counts = Annotated[list[int], Field(description="one per slot")]
_Said = Field(description="empty: unknown")


class JobCounts(BaseModel):
    """How many unfinished jobs were in a state at the end of each slot."""

    queue: Annotated[str, _Said]
    queue_name: QueueName
    tag: Annotated[str, _Said]
    state: str
    counts: Counts


class TransitionCounts(BaseModel):
    """How many jobs entered a state in each slot."""

    queue: Annotated[str, _Said]
    queue_name: QueueName
    tag: Annotated[str, _Said]
    to: str
    counts: Counts


class DeliveryCounts(BaseModel):
    """How many deliveries ended in this way in each slot."""

    notifier: str
    outcome: Annotated[str, stored_word("delivered", "dead", "merged", "dropped")]
    counts: Counts


class DeliveryLatency(BaseModel):
    """From the event to the receiver's acceptance, over all slots, estimated from a histogram."""

    notifier: str
    count: int
    p50_seconds: float | None
    p95_seconds: float | None


class Detection(BaseModel):
    """How soon changes of a watch's jobs were seen, and with how many calls.

    Changes are those that were seen and are news: not inferred ones, and not what a first snapshot finds.
    """

    watch: str
    transitions: int
    calls: int = Field(description="that CI answered: for lists and for jobs by id")
    calls_per_transition: float | None
    p50_seconds: float | None = Field(
        description="half of the changes that CI dates were seen within so long: estimated from a histogram, and up "
        "to a second too much, as CI rounds its times down to whole seconds; null: there were none"
    )
    p99_seconds: float | None

    @classmethod
    def of(cls, line: stats.Detection) -> Self:
        return cls(
            watch=line.watch,
            transitions=line.transitions,
            calls=line.calls,
            calls_per_transition=line.calls_per_transition,
            p50_seconds=line.p50_s,
            p99_seconds=line.p99_s,
        )


class Stats(BaseModel):
    """Figures over time: of jobs and of transitions the 200 largest lines."""

    span: Span
    since: Moment
    until: Moment
    step_seconds: int
    slots: list[Moment] = Field(description="their beginnings, oldest first; the last has not ended yet")
    jobs: list[JobCounts]
    transitions: list[TransitionCounts]
    deliveries: list[DeliveryCounts]
    latency: list[DeliveryLatency]
    detection: list[Detection]

    @classmethod
    def of(cls, figures: stats.Stats, queue_names: Mapping[str, str]) -> Self:
        def named(line: stats.Standing | stats.Moved) -> dict[str, object]:
            return {**asdict(line), "queue_name": queue_names.get(line.queue)}

        facts = {
            "span": figures.span,
            "since": iso(ms(figures.since)),
            "until": iso(ms(figures.until)),
            "step_seconds": figures.step // timedelta(seconds=1),
            "slots": [iso(ms(slot)) for slot in figures.slots],
            "jobs": [named(line) for line in figures.jobs],
            "transitions": [named(line) for line in figures.transitions],
            "deliveries": [asdict(line) for line in figures.deliveries],
            "latency": [
                {"notifier": line.notifier, "count": line.count, "p50_seconds": line.p50_s, "p95_seconds": line.p95_s}
                for line in figures.latency
            ],
            "detection": [Detection.of(line) for line in figures.detection],
        }
        return cls.model_validate(facts)
