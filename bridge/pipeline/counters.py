"""What a poll is counted by: its end, the transitions it found, and what the rules made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from bridge.decide.routing import RoutingResult
from bridge.decide.text.facts import job_seconds
from bridge.model import DONE, Transition
from bridge.pipeline.poll_context import PollContext
from bridge.record.counters import Count, timed


def of_poll(context: PollContext, now: datetime) -> Iterator[Count]:
    """Yield how a poll ended, and how long it took."""
    error = context.poll.error
    outcome = (context.watch.place.region, error.kind if error else "ok")
    yield timed("poll", outcome, (now - context.began) / timedelta(seconds=1))


def of_tellings(routings: Sequence[RoutingResult]) -> Iterator[Count]:
    """Yield what transitions, and the rules that heard of them, count."""
    for routing in routings:
        yield from _of_transition(routing.transition)
        if not any(verdict.kind == "transition" for verdict in routing.verdicts) and not routing.transition.silent:
            yield Count("unmatched", ())
    yield from of_matches(routings)


def of_matches(routings: Iterable[RoutingResult]) -> Iterator[Count]:
    """Yield what the rules that fired count; that an alarm is over is no match of its own."""
    verdicts = (verdict for routing in routings for verdict in routing.verdicts if verdict.kind != "recovery")
    for verdict in verdicts:
        yield Count("match", (verdict.rule.name,))
        if verdict.already:
            yield Count("suppressed", (verdict.rule.name, "first_wins"), times=len(verdict.already))


def of_faults(routings: Iterable[RoutingResult]) -> Iterator[Count]:
    for routing in routings:
        for faulty in routing.faulty:
            yield Count("template_error", faulty)


def _of_transition(step: Transition) -> Iterator[Count]:
    """Yield what a transition counts; how long all took only where it was watched, not found in a first snapshot."""
    job = step.job
    tag, queue = job.tag or "", job.queue or ""
    yield Count("transition", (tag, queue, step.was, step.to))
    if step.silent:
        return
    if step.happened_at != step.seen_at:  # else CI did not say when it happened
        yield timed("detection", (), (step.seen_at - step.happened_at) / timedelta(seconds=1))
    if step.to in DONE:
        took = job_seconds(job, step.happened_at)
        if took["duration"] is not None:
            yield timed("job_duration", (tag, queue, step.to), took["duration"])
        if job.started_at and took["wait"] is not None:
            yield timed("job_wait", (queue,), took["wait"])
