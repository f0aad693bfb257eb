"""What a poll sends: messages of its transitions and of jobs too long in one state; and the counters of both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.decide.routing import RoutingResult, route, route_overdue
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.levels import GONE_FOR, Alarm, LastNotified, TimeInState
from bridge.decide.rules.matching import Verdict
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import job_seconds
from bridge.model import DONE, GONE, Transition, Watch
from bridge.pipeline.poll_context import PollContext
from bridge.record import counters, rulesets
from bridge.record.counters import Count, timed
from bridge.record.outbox import entries, silences
from bridge.record.polling import snapshots, time_in_state

# --- what a poll is counted by --------------------------------------------------------------------------------------


def of_poll(context: PollContext, now: datetime) -> Iterator[Count]:
    """Yield how a poll ended, and how long it took."""
    error = context.poll.error
    outcome = (context.watch.place.region, error.kind if error else "ok")
    yield timed("poll", outcome, (now - context.began) / timedelta(seconds=1))


def of_routings(routings: Sequence[RoutingResult]) -> Iterator[Count]:
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
        for error in routing.errors:
            yield Count("template_error", (error.rule, error.template))


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


# --- what a poll tells ----------------------------------------------------------------------------------------------

logger = logging.getLogger(__name__)

_MOST_STAYS = 1_000  # told of in one poll; the next one goes on


def gates_at(tx: Connection, book: Rulebook, now: datetime) -> Gates:
    """Return the mutes and silences of this moment."""
    return Gates(mutes=book.mutes, silences=silences.recent(tx, now=now), zone=book.zone, now=now)


def route_all(tx: Connection, book: Rulebook, steps: Sequence[Transition], now: datetime) -> Sequence[RoutingResult]:
    """Store transitions, and what is told of them."""
    if not steps:
        return ()
    gates = gates_at(tx, book, now)
    fired = time_in_state.ended_by(tx, steps) if book.matcher.levels else {}
    routings = [route(step, book, gates, _alarms(fired.get(step.job.id, ()))) for step in steps]
    snapshots.add_transitions(tx, [(routing.transition, _fired(routing)) for routing in routings], rules=book.sha)
    time_in_state.recovered(tx, [one.n for found in fired.values() for one in found], now=now)
    counters.add(tx, of_routings(routings), now=now)
    _put(tx, routings, now)
    return routings


def route_overdue_jobs(
    tx: Connection,
    watch: Watch,
    book: Rulebook,
    as_of: datetime,
    now: datetime,
    *,
    saw: Callable[[str, Transition], bool],
) -> Sequence[RoutingResult]:
    """Tell of the jobs of a watch that have stayed in a state for too long; `as_of` a poll of it began.

    `saw` says of a job, by its stream's key and its stay, whether that poll saw it: what was not shown may have moved.
    `as_of` is by the earlier of our clock and CI's, and so are repetitions.
    """
    levels = [rule.level for rule in book.matcher.levels if rule.level]
    if not levels:
        return ()
    gone = [level.after for level in levels if GONE in level.states]
    found = time_in_state.staying(
        tx,
        [stream.key for stream in watch.streams],
        began_before=as_of - min(level.after for level in levels),
        gone_after=as_of - GONE_FOR - max(gone) if gone else None,
    )
    gates = gates_at(tx, book, now)
    routings = []
    for began, told, stream in found:
        if not saw(stream, began):
            continue
        last = {rule: LastNotified(one.count, one.told_at, one.notifiers) for rule, one in told.items()}
        for routing in route_overdue(TimeInState(began=began, notified=last), book, gates, as_of):
            for verdict in routing.verdicts:
                _fire(tx, began, verdict, last.get(verdict.rule.name), as_of)
            routings.append(routing)
        if len(routings) >= _MOST_STAYS:
            break
    counters.add(tx, of_matches(routings), now=now)
    _put(tx, routings, now)
    return routings


def _alarms(found: Iterable[time_in_state.Fired]) -> list[Alarm]:
    return [Alarm(rule=one.rule, state=one.state, notifiers=one.notifiers, since=one.since) for one in found]


def _fire(tx: Connection, began: Transition, verdict: Verdict, last: LastNotified | None, as_of: datetime) -> None:
    """Remember that a level rule fired, and whom it was for: all but those whom a gate keeps it from for good."""
    if verdict.overdue is None:
        return
    names = (*(last.notifiers if last else ()), *(name for name in verdict.notifiers if not verdict.drops(name)))
    notifiers, stay = tuple(dict.fromkeys(names)), verdict.overdue
    time_in_state.fire(tx, began, verdict.rule.name, stay.count, notifiers=notifiers, since=stay.since, now=as_of)


def _put(tx: Connection, routings: Sequence[RoutingResult], now: datetime) -> None:
    at_once = entries.put(tx, [one for routing in routings for one in routing.deliveries], now=now)
    over = {delivery: silence for routing in routings for delivery, silence in routing.ended_silences.items()}
    silences.announced(tx, [(over[one.id], one.notifier) for one in at_once if one.id in over])
    faults = [(error.rule, error.why) for routing in routings for error in routing.errors]
    rulesets.fault(tx, faults, now=now)
    counters.add(tx, of_faults(routings), now=now)
    for rule, why in faults:
        logger.warning("template fell back to the default text", extra={"rule": rule, "fault": why})


def _fired(routing: RoutingResult) -> list[tuple[str, Sequence[str]]]:
    return [(verdict.rule.name, verdict.notifiers) for verdict in routing.verdicts if verdict.kind == "transition"]
