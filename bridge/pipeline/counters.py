"""What a poll is counted by: its end, the transitions it found, and what the rules made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from bridge.decide.routing import Telling
from bridge.decide.text.facts import job_seconds
from bridge.model import DONE, Transition
from bridge.pipeline.poll_context import Round
from bridge.record.counters import Count, timed


def of_poll(round_: Round, now: datetime) -> Iterator[Count]:
    """Yield how a poll ended, and how long it took."""
    error = round_.poll.error
    outcome = (round_.watch.place.region, error.kind if error else "ok")
    yield timed("poll", outcome, (now - round_.began) / timedelta(seconds=1))


def of_tellings(tellings: Sequence[Telling]) -> Iterator[Count]:
    """Yield what transitions, and the rules that heard of them, count."""
    for telling in tellings:
        yield from _of_transition(telling.transition)
        if not any(verdict.kind == "transition" for verdict in telling.verdicts) and not telling.transition.silent:
            yield Count("unmatched", ())
    yield from of_matches(tellings)


def of_matches(tellings: Iterable[Telling]) -> Iterator[Count]:
    """Yield what the rules that fired count; that an alarm is over is no match of its own."""
    verdicts = (verdict for telling in tellings for verdict in telling.verdicts if verdict.kind != "recovery")
    for verdict in verdicts:
        yield Count("match", (verdict.rule.name,))
        if verdict.already:
            yield Count("suppressed", (verdict.rule.name, "first_wins"), times=len(verdict.already))


def of_faults(tellings: Iterable[Telling]) -> Iterator[Count]:
    for telling in tellings:
        for faulty in telling.faulty:
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
